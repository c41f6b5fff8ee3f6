"""Cases, run side by side, and what came of them."""

import concurrent.futures
import re
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass

from peers import Unsupported

AT_ONCE = 8


class Skip(Exception):
    """The case cannot run here; says why."""


@dataclass(frozen=True)
class Case:
    """One thing to show; `run` raises when it does not hold."""

    name: str
    run: Callable[[], None]


class Report:
    """Counts results and prints each failure as it happens."""

    def __init__(self, verbose: bool) -> None:
        self.verbose = verbose
        self.passed = self.failed = 0
        self.skipped: dict[str, int] = {}

    def run(self, cases: list[Case]) -> None:
        """Runs all cases, a few at a time."""
        with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
            results = {pool.submit(self._attempt, case): case for case in cases}
            for done in concurrent.futures.as_completed(results):
                self._count(results[done], *done.result())

    def without_known_failures(
        self, cases: list[Case], known: tuple[tuple[str, str], ...]
    ) -> list[Case]:
        """Takes out, and counts as skipped, what the broker is known to fail."""
        for pattern, why in known:
            failing = [case for case in cases if re.search(pattern, case.name)]
            cases = [case for case in cases if case not in failing]
            if failing:
                self.skip("known fault of this broker", why, len(failing))
        return cases

    def skip(self, what: str, why: str, cases: int = 1) -> None:
        """Counts cases that could not even be made."""
        self.skipped[f"{what}: {why}"] = self.skipped.get(f"{what}: {why}", 0) + cases

    def fail(self, name: str, why: str) -> None:
        """Counts and prints one failure, on one line."""
        self.failed += 1
        print(f"FAILED {name}: {' '.join(why.split())}", flush=True)

    def close(self) -> int:
        """Prints the totals; returns the exit code."""
        for why, count in sorted(self.skipped.items()):
            print(f"skipped {count}: {why}")
        skipped = sum(self.skipped.values())
        print(f"interop: {self.passed} passed, {self.failed} failed, {skipped} skipped")
        return 1 if self.failed or not self.passed else 0

    def _attempt(self, case: Case) -> tuple[Exception | None, float]:
        started_s = time.monotonic()
        try:
            case.run()
            return None, time.monotonic() - started_s
        except Exception as error:  # noqa: BLE001: whatever a library raises is a failed case
            return error, time.monotonic() - started_s

    def _count(self, case: Case, error: Exception | None, took_s: float) -> None:
        if self.verbose:
            print(f"{took_s:6.2f} s  {type(error).__name__ if error else 'passed'}  {case.name}")
        if error is None:
            self.passed += 1
        elif isinstance(error, Skip | Unsupported):
            kind = case.name.split(":")[0]
            self.skip(kind.split()[0] if isinstance(error, Unsupported) else kind, str(error))
        else:
            if self.verbose:
                traceback.print_exception(error, file=sys.stdout)
            self.fail(case.name, f"{type(error).__name__}: {error}")
