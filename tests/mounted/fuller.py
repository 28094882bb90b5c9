"""Works on a folder until its disk is full, and beyond, by every way that needs space; remembers what each file has.

    python fuller.py FOLDER MODEL SEED MOST WAY...

A change is an open, some calls, perhaps fsync, and close. Where close succeeds the file has what was accepted; where it
fails, that, or what it had at some moment before. MODEL is a pickle of {name: contents it may have}. A way ends after
MOST changes, or ENOUGH that failed; one line each says how many succeeded and which calls failed how. Exits with 1
where a file has something else.
"""

import errno
import os
import pickle
import random
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

CHUNK = 32_768
FULL = (errno.ENOSPC, errno.EDQUOT)
ENOUGH = 6
"""Failed changes after which the disk counts as full."""


ONCE = ("removes", "empties")


class Wrong(Exception):
    pass


class Fuller:
    def __init__(self, folder: Path, model: dict[str, list[bytes]], seed: int) -> None:
        self._folder = folder
        self.model = model
        self._chance = random.Random(seed)
        self.failed: Counter[str] = Counter()

    # ---- ways --------------------------------------------------------------------------------------------------

    def files(self) -> bool:
        name = f"{len(self.model)}-{self._chance.randrange(10**6)}"
        return self._change(name, self._write(0, self._chance.choice([0, 100, 5_000, 300_000, 3 * CHUNK])))

    def appends(self) -> bool:
        name = self._any()
        size = len(self.model[name][0])
        return self._change(name, *(self._write(size + 700 * at, 700) for at in range(self._chance.randrange(1, 150))))

    def overwrites(self) -> bool:
        name = self._any(least=5_000)
        size = len(self.model[name][0])
        pieces = []
        for _ in range(self._chance.randrange(1, 6)):
            much = min(size, self._chance.choice([1, 4_096, CHUNK, 90_000]))
            pieces.append(self._write(self._chance.randrange(size - much + 1), much))
        return self._change(name, *pieces)

    def holes(self) -> bool:
        """A file is made longer, and then written in the middle of that."""
        name = self._any()
        size = len(self.model[name][0])
        longer = size + 20 * CHUNK
        inside = [self._write(self._chance.randrange(size, longer - CHUNK), CHUNK) for _ in range(3)]
        return self._change(name, self._truncate(longer), *inside)

    def shrinks(self) -> bool:
        name = self._any(least=5_000)
        return self._change(name, self._truncate(self._chance.randrange(len(self.model[name][0]))))

    def removes(self) -> bool:
        """That works on a full disk."""
        for name in self._chance.sample(sorted(self.model), len(self.model) // 2):
            os.unlink(self._folder / name)
            del self.model[name]
        os.sync()
        return True

    def empties(self) -> bool:
        """As `removes`."""
        name = self._any(least=5_000)
        if not self._change(name, self._truncate(0)):
            raise Wrong(f"{name} could not be emptied: {self.failed}")
        return True

    # ---- changes -----------------------------------------------------------------------------------------------

    def _any(self, least: int = 0) -> str:
        return self._chance.choice([name for name, contents in sorted(self.model.items()) if len(contents[0]) >= least])

    def _write(self, offset: int, size: int) -> Callable[[int, bytearray], None]:
        data = self._chance.randbytes(size)

        def write(fd: int, content: bytearray) -> None:
            done = 0
            while done < size:
                more = os.pwrite(fd, data[done:], offset + done)
                if len(content) < offset:
                    content.extend(bytes(offset - len(content)))
                content[offset + done : offset + done + more] = data[done : done + more]
                done += more

        return write

    def _truncate(self, size: int) -> Callable[[int, bytearray], None]:
        def truncate(fd: int, content: bytearray) -> None:
            os.ftruncate(fd, size)
            del content[size:]
            content.extend(bytes(size - len(content)))

        return truncate

    def _change(self, name: str, *calls: Callable[[int, bytearray], None]) -> bool:
        good = True
        try:
            fd = os.open(self._folder / name, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as exc:
            self._note("open", exc)
            if name not in self.model and (self._folder / name).exists():
                raise Wrong(f"{name} is there, and could not be made") from None
            return False
        before = self.model.setdefault(name, [b""])
        content = bytearray(self._read(fd, name))
        states = [*before, bytes(content)]
        try:
            for call in calls:
                call(fd, content)
                states.append(bytes(content))
        except OSError as exc:
            self._note("call", exc)
            good = False
        if self._chance.random() < 0.3:
            try:
                os.fsync(fd)
            except OSError as exc:
                self._note("fsync", exc)
        kept = True
        try:
            os.close(fd)
        except OSError as exc:
            self._note("close", exc)
            kept = False
        # Of a close that failed, the file may lose what was written a moment later.
        self.model[name] = [bytes(content), *(() if kept else states)]
        return good and kept

    def _note(self, call: str, exc: OSError) -> None:
        assert exc.errno is not None
        self.failed[f"{call}:{errno.errorcode[exc.errno]}"] += 1
        if exc.errno not in FULL:
            raise Wrong(f"{call} failed with {exc}")

    # ---- checks ------------------------------------------------------------------------------------------------

    def _read(self, fd: int, name: str) -> bytes:
        try:
            found = os.pread(fd, 1 << 26, 0)
        except OSError as exc:
            raise Wrong(f"{name} cannot be read: {exc}") from None
        if found not in self.model[name]:
            raise Wrong(f"{name} has {len(found)} bytes, allowed were {[len(state) for state in self.model[name]]}")
        return found

    def check(self, name: str) -> None:
        fd = os.open(self._folder / name, os.O_RDONLY)
        try:
            cached = self._read(fd, name)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            if self._read(fd, name) != cached:
                raise Wrong(f"{name}: the kernel has {len(cached)} bytes that the store does not have")
        finally:
            os.close(fd)

    def check_all(self) -> None:
        names = set(os.listdir(self._folder))
        if names != set(self.model):
            raise Wrong(f"names differ: {names ^ set(self.model)}")
        for name in sorted(names):
            self.check(name)


def main() -> None:
    folder, kept, seed, most, *ways = sys.argv[1:]
    model: dict[str, list[bytes]] = {}
    with suppress(FileNotFoundError), open(kept, "rb") as file:
        model = pickle.load(file)
    fuller = Fuller(Path(folder), model, int(seed))
    try:
        fuller.check_all()
        for way in ways:
            fuller.failed.clear()
            done = 0
            while sum(fuller.failed.values()) < ENOUGH and done < (1 if way in ONCE else int(most)):
                done += getattr(fuller, way)()
            print(way, done, *(f"{call}*{count}" for call, count in sorted(fuller.failed.items())), flush=True)
            fuller.check_all()
    except Wrong as exc:
        print("WRONG", exc, dict(fuller.failed))
        sys.exit(1)
    with open(kept, "wb") as file:
        pickle.dump(fuller.model, file)


if __name__ == "__main__":
    main()
