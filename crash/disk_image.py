"""What a disk holds after a power cut, from the journal that `power_cut.c` wrote.

A `Disk` keeps a copy of the data directory as it was durable (`base`) and the journal of what the
broker did to the directory since. `cut` makes the next data directory:

- a change of a file that a sync of this file covers is there; so is a change of names that a sync
  of the directory covers. A file whose name was not synced is gone with all its contents;
- of the other writes chance takes none, all, the first ones, some in any order, or some of their
  512-byte sectors; or the file grows as they made it grow, and holds zeros there;
- of the other changes of names chance takes the first ones, or some;
- what a failed sync was to cover stays uncertain for ever, whatever is synced later, as with Linux,
  which drops such pages or calls them clean. (Sizes are not forgotten.)

After kill -9 without a power cut the journal simply goes on: what the next process reads may be
un-synced still, and can vanish under it.
"""

import os
import random
import shutil
import struct
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

SECTOR_BYTES = 512
RECORD = struct.Struct("<IIQQQQ")
MAGIC = 0x54554350

# As in power_cut.c.
START, WRITE, TRUNCATE, ALLOCATE, ZERO, SYNC, SYNC_FAILED = range(1, 8)
CREATE, RENAME, UNLINK, LINK, SYNC_DIR, SYNC_ALL = range(8, 14)

MODES = ("nothing", "all", "first", "some", "torn", "zeros")


def build(folder: Path) -> Path:
    """Compiles the shim."""
    library = folder / "power_cut.so"
    source = Path(__file__).with_name("power_cut.c")
    words = ["cc", "-O2", "-shared", "-fPIC", "-o", str(library), str(source), "-lpthread"]
    subprocess.run(words, check=True, timeout=60)
    return library


@dataclass(slots=True, eq=False)
class File:
    """Contents, under whatever names. `base`: where its durable contents at the start stand."""

    base: Path | None
    changes: list["Change"] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class Change:
    """A record that changes a file or names."""

    number: int
    kind: int
    a: int
    b: int
    data: bytes
    file: File | None = None
    is_durable: bool = False
    # A sync that was to cover it has failed.
    is_uncertain: bool = False


class Journal:
    """The journal, read: files, changes of names, and which of them are durable."""

    def __init__(self, paths: list[Path], base: Path, inodes: dict[str, int]) -> None:
        self.starts = 0
        self.names = {name: File(base / name) for name in inodes}
        self.files: list[File] = list(self.names.values())
        self.name_changes: list[Change] = []
        self._of_inode = {inode: self.names[name] for name, inode in inodes.items()}
        self._first = 0
        number = 0
        for path in paths:
            for record in _records(path.read_bytes() if path.exists() else b""):
                self._take(number, *record)
                number += 1

    def _take(self, number: int, kind: int, inode: int, a: int, b: int, data: bytes) -> None:
        if kind == START:
            self.starts += 1
            self._first = number
        elif kind in (WRITE, TRUNCATE, ALLOCATE, ZERO):
            file = self._file(inode)
            file.changes.append(Change(number, kind, a, b, data))
        elif kind in (CREATE, RENAME, UNLINK, LINK):
            file = None
            if kind == CREATE:
                # The number of an inode is used again when its file is gone.
                file = self._of_inode[inode] = File(None)
                self.files.append(file)
            elif kind == LINK:
                file = self._file(inode)
            self.name_changes.append(Change(number, kind, 0, 0, data, file))
        elif kind == SYNC:
            _cover(self._file(inode).changes, self._first + a)
        elif kind == SYNC_FAILED:
            for change in self._file(inode).changes:
                if change.kind == WRITE and change.number < self._first + a:
                    change.is_uncertain |= not change.is_durable
        if kind in (SYNC_DIR, SYNC_ALL):
            _cover(self.name_changes, self._first + a)
        if kind == SYNC_ALL:
            for file in self.files:
                _cover(file.changes, self._first + a)

    def _file(self, inode: int) -> File:
        if inode not in self._of_inode:
            self._of_inode[inode] = File(None)
            self.files.append(self._of_inode[inode])
        return self._of_inode[inode]


def _cover(changes: list[Change], before: int) -> None:
    for change in reversed(changes):
        if change.number < before and not change.is_uncertain:
            if change.is_durable:
                return
            change.is_durable = True


def _records(data: bytes):
    """Whole records; what SIGKILL cut off at the end was never reported as done."""
    at = 0
    while at + RECORD.size <= len(data):
        magic, kind, inode, a, b, length = RECORD.unpack_from(data, at)
        assert magic == MAGIC, f"the journal is broken at {at}"
        at += RECORD.size
        if at + length > len(data):
            return
        yield kind, inode, a, b, data[at : at + length]
        at += length


class PowerCutDisk:
    """A data directory on a disk that forgets. `data` is what the broker is to use next."""

    def __init__(self, folder: Path, library: Path | None = None) -> None:
        self.folder = folder
        self.library = library or build(folder)
        self.generation = 0
        self.data = folder / "data-0"
        self.data.mkdir()
        # Further variables for the shim.
        self.options: dict[str, str] = {}
        self._begin()

    def environment(self) -> dict[str, str]:
        """For the broker's next process, with a journal of its own: SIGKILL may tear its end."""
        self.journals.append(self.folder / f"journal-{self.generation}-{len(self.journals)}")
        return {
            "LD_PRELOAD": str(self.library),
            "POWER_CUT_DIR": str(self.data),
            "POWER_CUT_JOURNAL": str(self.journals[-1]),
        } | self.options

    def is_watched(self) -> bool:
        """Whether the latest process has loaded the shim."""
        journal = self.journals[-1]
        return journal.exists() and journal.stat().st_size >= RECORD.size

    def unseen(self) -> list[str]:
        """Names of files of which the journal tells otherwise than the directory, when no process
        works on it: something went past the shim."""
        journal = Journal(self.journals, self.base, self.inodes)
        for change in journal.name_changes + [c for file in journal.files for c in file.changes]:
            change.is_durable = True
        names, probe = _names(journal), self.folder / "probe"
        found = sorted(names.keys() ^ {path.name for path in self.data.iterdir()})
        for name in names.keys() - set(found):
            _write(probe, names[name], random.Random(0), "all", 1.0)
            if probe.read_bytes() != (self.data / name).read_bytes():
                found.append(name)
            probe.unlink()
        return found

    def cut(self, rng: random.Random, mode: str | None = None) -> str:
        """Makes the directory as it is after a power cut; returns what chance did."""
        mode = mode or rng.choice(MODES)
        share = rng.choice((0.05, 0.5, 0.95))
        journal = Journal(self.journals, self.base, self.inodes)
        self._choose(journal, rng, mode, share)
        target = self.folder / f"data-{self.generation + 1}"
        target.mkdir()
        names = _names(journal)
        for name, file in names.items():
            _write(target / name, file, rng, mode, share)
        pending = sum(not change.is_durable for file in journal.files for change in file.changes)
        shutil.rmtree(self.data)
        shutil.rmtree(self.base)
        for path in self.journals:
            path.unlink(missing_ok=True)
        self.generation += 1
        self.data = target
        self._begin()
        return f"power cut, {mode} of {pending} un-synced changes"

    def _begin(self) -> None:
        """What is in the directory now is durable."""
        self.base = self.folder / f"base-{self.generation}"
        self.journals: list[Path] = []
        self.base.mkdir()
        self.inodes = {}
        for path in self.data.iterdir():
            self.inodes[path.name] = path.stat().st_ino
            _copy_sparse(path, self.base / path.name)

    def _choose(self, journal: Journal, rng: random.Random, mode: str, share: float) -> None:
        """Marks as durable what was not synced and is there by chance."""
        pending = [c for file in journal.files for c in file.changes if not c.is_durable]
        numbers = sorted(change.number for change in pending)
        until = rng.choice(numbers) if numbers else 0
        for change in pending:
            if mode == "nothing":
                # Of what a failed sync left behind that would be too kind.
                change.is_durable = change.is_uncertain and rng.random() < 0.5
            elif mode in ("all", "first"):
                change.is_durable = mode == "all" or change.number < until
            elif mode == "some" or change.kind != WRITE:
                change.is_durable = rng.random() < share
        names = [change for change in journal.name_changes if not change.is_durable]
        names_mode = mode if mode in ("all", "nothing") else rng.choice(MODES[:4])
        first = rng.randrange(len(names) + 1)
        for i, change in enumerate(names):
            if names_mode in ("all", "first"):
                change.is_durable = names_mode == "all" or i < first
            else:
                change.is_durable = names_mode == "some" and rng.random() < share


def _names(journal: Journal) -> dict[str, File]:
    names = dict(journal.names)
    for change in journal.name_changes:
        if not change.is_durable:
            continue
        name, _, second = change.data.decode().partition("\0")
        if change.kind in (CREATE, LINK):
            names[name] = change.file
        elif change.kind == UNLINK:
            names.pop(name, None)
        elif name in names:
            names[second] = names.pop(name)
    return names


def _write(path: Path, file: File, rng: random.Random, mode: str, share: float) -> None:
    if file.base is not None:
        _copy_sparse(file.base, path)
    with path.open("r+b" if file.base is not None else "w+b") as out:
        fd = out.fileno()
        for change in file.changes:
            if change.is_durable:
                _apply(fd, change)
            elif change.kind == WRITE and mode == "torn":
                _apply_torn(fd, change, rng, share)
            elif change.kind == WRITE and mode == "zeros":
                end = change.a + len(change.data)
                if end > os.fstat(fd).st_size and rng.random() < share:
                    os.ftruncate(fd, end)


def _apply(fd: int, change: Change) -> None:
    size_bytes = os.fstat(fd).st_size
    if change.kind == WRITE:
        os.pwrite(fd, change.data, change.a)
    elif change.kind == TRUNCATE:
        os.ftruncate(fd, change.a)
    elif change.kind == ALLOCATE:
        os.ftruncate(fd, max(size_bytes, change.a + change.b))
    else:
        end = min(size_bytes, change.a + change.b)
        os.pwrite(fd, bytes(max(0, end - change.a)), change.a)


def _apply_torn(fd: int, change: Change, rng: random.Random, share: float) -> None:
    """Each sector of the file that the write touches, by chance."""
    at, end = change.a, change.a + len(change.data)
    while at < end:
        next_at = min(end, (at // SECTOR_BYTES + 1) * SECTOR_BYTES)
        if rng.random() < share:
            os.pwrite(fd, change.data[at - change.a : next_at - change.a], at)
        at = next_at


def _copy_sparse(source: Path, target: Path) -> None:
    """Copies what is not a hole."""
    with source.open("rb") as reader, target.open("wb") as writer:
        size_bytes = os.fstat(reader.fileno()).st_size
        writer.truncate(size_bytes)
        at = 0
        while at < size_bytes:
            try:
                at = os.lseek(reader.fileno(), at, os.SEEK_DATA)
            except OSError:
                break
            end = os.lseek(reader.fileno(), at, os.SEEK_HOLE)
            while at < end:
                data = os.pread(reader.fileno(), min(end - at, 1 << 20), at)
                if not data:
                    return
                # Allocated room holds zeros that need no room in the copy.
                if data.strip(b"\0"):
                    os.pwrite(writer.fileno(), data, at)
                at += len(data)
