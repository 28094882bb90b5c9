"""Writers whose every step can be told again from a number, so that what a crash leaves can be judged.

    python storm.py KIND PATH SAID SEED     works until the filesystem fails; SAID grows by one byte a step that is done

A file's story is drawn from its kind and seed (`story`), and begins with what the file has. Steps are calls; what they
promise and what may be there after a crash says `allowed`.
"""

import hashlib
import os
import random
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path

RECORD, RECORDS = 4096, 64
LARGEST = 400_000

Step = tuple[str, int, bytes]
"""("write", offset, data), ("truncate", size, b""), ("fsync", 0, b"") or ("reopen", 0, b"")."""


def record(number: int, chance: random.Random) -> bytes:
    """4 KiB that say themselves whether they are whole."""
    body = number.to_bytes(8, "big") + chance.randbytes(RECORD - 40)
    return hashlib.sha256(body).digest() + body


def story(kind: str, seed: int, size: int) -> Iterator[Step]:
    """What the writer of a file of `size` bytes does, without end."""
    chance = random.Random(f"{kind} {seed}")
    number = 0
    if kind == "records" and size < RECORD * RECORDS:
        yield "write", 0, b"".join(record(0, chance) for _ in range(RECORDS))
        yield "fsync", 0, b""
    while True:
        number += 1
        if kind == "log":
            data = f"{seed} {number} ".encode() + b"-" * chance.randrange(1500) + b"\n"
            yield "write", size, data
            size += len(data)
        elif kind == "records":
            yield "write", chance.randrange(RECORDS) * RECORD, record(number, chance)
        elif chance.random() < 0.5:
            size = chance.choice([0, chance.randrange(LARGEST), size // 2, min(LARGEST, size + 70_000)])
            yield "truncate", size, b""
        else:
            offset, much = chance.randrange(size + 1), chance.choice([1, 100, 40_000])
            yield "write", offset, chance.randbytes(much)
            size = max(size, offset + much)
        if chance.random() < 0.3:
            yield chance.choice(["fsync", "reopen"]), 0, b""
        if kind == "log" and size > LARGEST:
            yield "truncate", 0, b""
            size = 0


def applied(content: bytearray, step: Step) -> None:
    what, at, data = step
    if what == "write":
        content.extend(bytes(max(0, at - len(content))))
        content[at : at + len(data)] = data
    elif what == "truncate":
        del content[at:]
        content.extend(bytes(at - len(content)))


def allowed(kind: str, seed: int, before: bytes, done: int) -> list[bytes]:
    """What a file that had `before` may have, when `done` steps were said to be done: every state from the last one
    that was promised to that of the step under way."""
    content = bytearray(before)
    states = [before]
    for number, step in enumerate(story(kind, seed, len(before)), 1):
        applied(content, step)
        if step[0] in ("fsync", "reopen") and number <= done:
            states.clear()
        states.append(bytes(content))
        if number > done:
            return states
    raise AssertionError


def work(kind: str, path: Path, say: int, seed: int) -> None:
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    for what, at, data in story(kind, seed, os.fstat(fd).st_size):
        if what == "write":
            assert os.pwrite(fd, data, at) == len(data)
        elif what == "truncate":
            os.ftruncate(fd, at)
        elif what == "fsync":
            os.fsync(fd)
        else:
            os.close(fd)
            fd = os.open(path, os.O_RDWR)
        os.write(say, b".")


def version(seed: int, number: int) -> bytes:
    """What the file has that is saved for the `number`th time."""
    chance = random.Random(f"saved {seed} {number}")
    return chance.randbytes(chance.choice([0, 10, 5_000, 33_000, 200_000]))


def save(path: Path, say: int, seed: int) -> None:
    """Again and again the whole file, by way of another one, as editors do it."""
    number = 0
    while True:
        number += 1
        beside = path.with_suffix(".new")
        with open(beside, "wb") as file:
            file.write(version(seed, number))
            if number % 3 == 0:
                file.flush()
                os.fsync(file.fileno())
        os.rename(beside, path)
        os.write(say, b".")


def commit(path: Path, say: int, seed: int) -> None:
    """A database: each transaction changes many pages."""
    base = sqlite3.connect(path, isolation_level=None, timeout=100)
    base.execute("pragma journal_mode=wal")
    base.execute("create table if not exists done (seed integer, number integer, text)")
    number = 0
    while True:
        number += 1
        base.execute("begin immediate")
        for part in range(5):
            base.execute("insert into done values (?, ?, ?)", (seed, number, str(part) * 3_000))
        base.execute("delete from done where seed < ?", (seed,))
        base.execute("commit")
        os.write(say, b".")


def look(path: Path, seed: int) -> None:
    """Prints what a database has: its own verdict, the last transaction of `seed`, and in how many parts each is."""
    base = sqlite3.connect(path, timeout=100)
    (verdict,) = base.execute("pragma integrity_check").fetchone()
    base.execute("create table if not exists done (seed integer, number integer, text)")
    (last,) = base.execute("select coalesce(max(number), 0) from done where seed = ?", (seed,)).fetchone()
    parts = {count for (count,) in base.execute("select count(*) from done group by seed, number")}
    print(verdict, last, *parts)


def main() -> None:
    kind, path, said, seed = sys.argv[1], Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])
    if kind == "look":
        look(path, seed)
        return
    say = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        if kind == "saved":
            save(path, say, seed)
        elif kind == "base":
            commit(path, say, seed)
        else:
            work(kind, path, say, seed)
    except (OSError, sqlite3.Error) as exc:
        print(exc)


if __name__ == "__main__":
    main()
