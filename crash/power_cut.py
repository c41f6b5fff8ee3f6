#!/usr/bin/env python3
"""Power cuts: what was acknowledged was synced.

    python3 crash/power_cut.py --whimbrel target/release/whimbrel --rounds 15

As `kill9.py`, but the broker runs with `power_cut.c` before its system calls, and when it is killed
the data directory becomes what the disk would hold: see `disk_image.py`. Some rounds have slow
syncs, some a sync that fails once with EIO (then the broker may refuse messages for a while), some
kill -9 without a power cut, whose un-synced writes the next power cut can still take. After SIGTERM
the power is cut as well. `--lie` lets every sync do nothing: then the rounds must fail.
The last line is `power cut: N passed, N failed`.
"""

import argparse
import random
import sys
import tempfile
from pathlib import Path

import broker
import disk_image
import rounds


class Disk(rounds.Disk):
    """A disk that forgets what was not synced."""

    library: Path
    lies = False
    fails = True

    def __init__(self, folder: Path) -> None:
        self.image = disk_image.PowerCutDisk(folder, self.library)
        self.sync_fails = False

    @property
    def data(self) -> Path:
        return self.image.data

    def environment(self, rng: random.Random) -> dict[str, str]:
        options = {"POWER_CUT_DELAY_US": str(rng.choice((0, 0, 200, 2_000, 10_000)))}
        self.sync_fails = self.fails and rng.random() < 0.15
        if self.sync_fails:
            # Not one of those with which a store is made: that has to fail.
            options["POWER_CUT_FAIL_SYNC"] = str(rng.choice((12, 20, 35, 60)))
        if self.lies:
            options["POWER_CUT_LIE_SYNC"] = "1"
        self.image.options = options
        return self.image.environment()

    def started(self) -> None:
        if not self.image.is_watched():
            raise broker.BrokerFailed("does not load power_cut.so: is it linked statically?")

    def killed(self, rng: random.Random) -> str:
        # A change that was made and not written to the journal when the broker was killed must not
        # be seen by its next process: the journal would lack it for ever. A cut loses it.
        if rng.random() < 0.2 and not self.image.unseen():
            return "kill -9 without power cut"
        return self.image.cut(rng)

    def stopped(self, rng: random.Random) -> str:
        if unseen := self.image.unseen():
            raise broker.BrokerFailed(f"changed {unseen} in a way that power_cut.c does not see")
        return self.image.cut(rng)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    broker.add_arguments(parser)
    rounds.arguments(parser)
    parser.add_argument("--lie", action="store_true", help="syncs do nothing: must fail")
    parser.add_argument("--no-failing-syncs", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="whimbrel-shim-") as folder:
        Disk.library = disk_image.build(Path(folder))
        Disk.lies, Disk.fails = options.lie, not options.no_failing_syncs
        return rounds.Rounds("power cut", options, broker.Command(options), Disk).run()


if __name__ == "__main__":
    sys.exit(main())
