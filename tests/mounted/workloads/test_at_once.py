"""Several listed processes at once on one file, each on its own bytes of every chunk: nobody's change undoes another's.

The plain directory says that the test is right.
"""

import subprocess
from pathlib import Path

import pytest

from tests.mounted.mounted import LISTED, listed, unlisted_python
from tests.mounted.workloads.conftest import Place

pytestmark = [pytest.mark.mounted, pytest.mark.slow]

PROCESSES, RECORDS, RECORD = 5, 300, 1000
"""Record r of process p lies at (r x PROCESSES + p) x RECORD: some lie across the borders of pages and chunks."""
MAKE = "import sys; open(sys.argv[1], 'xb').truncate(int(sys.argv[2]))"
CHANGES = """
import mmap, os, random, sys
path, mine, processes, records, record = sys.argv[1], *map(int, sys.argv[2:])
chance = random.Random(mine)
fd = os.open(path, os.O_RDWR)
mapped = mmap.mmap(fd, processes * records * record) if mine % 2 else None
values = [0] * records
for step in range(4000):
    which = chance.randrange(records)
    at = (which * processes + mine) * record
    expected = bytes([values[which]]) * record
    found = mapped[at:at + record] if mapped and chance.random() < 0.5 else os.pread(fd, record, at)
    assert found == expected, (step, which, found[:4], found[-4:], expected[:4])
    values[which] = chance.randrange(256)
    data = bytes([values[which]]) * record
    if mapped and chance.random() < 0.5:
        mapped[at:at + record] = data
    else:
        assert os.pwrite(fd, data, at) == record
    if step % 97 == mine:
        os.fsync(fd)
    if step % 61 == mine:
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    if step % 151 == mine:
        os.close(fd)
        fd = os.open(path, os.O_RDWR)
if mapped:
    mapped.flush()
os.close(fd)
print(*values)
"""
COMPARE = """
import sys
path, processes, record, *values = sys.argv[1:]
record = int(record)
content = open(path, 'rb').read()
assert len(content) == len(values) * record, len(content)
print(sum(content[at * record:(at + 1) * record] != bytes([int(value)]) * record for at, value in enumerate(values)))
"""
APPENDS = """
import os, sys
fd = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
for number in range(int(sys.argv[3])):
    line = f'{sys.argv[2]} {number} '.encode()
    line += b'-' * (number * 37 % 900) + b'\\n'
    assert os.write(fd, line) == len(line)
    if number % 50 == 0:
        os.close(fd)
        fd = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND)
"""
LINES = """
import sys
for line in open(sys.argv[1]):
    writer, number, dashes = line.split(' ')
    assert dashes == '-' * (int(number) * 37 % 900) + '\\n', line
    print(writer, number)
"""
LOOKS = """
import sys
while True:
    with open(sys.argv[1], 'rb') as file:
        while file.read(100_000): pass
"""


def at_once(script: str, path: Path, *arguments: object) -> list[str]:
    """What the processes printed, each of which was given its number; an unlisted one reads the file meanwhile."""
    stranger = subprocess.Popen([unlisted_python(), "-I", "-c", LOOKS, path])
    processes = [
        subprocess.Popen(
            [LISTED, "-I", "-c", script, path, str(number), *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for number in range(PROCESSES)
    ]
    said = [process.communicate(timeout=200)[0] for process in processes]
    assert stranger.poll() is None
    stranger.kill()
    stranger.wait()
    assert all(process.returncode == 0 for process in processes), said
    return said


def test_each_finds_its_own_bytes(place: Place) -> None:
    path = place.folder / "shared"
    listed(MAKE, path, PROCESSES * RECORDS * RECORD)
    said = at_once(CHANGES, path, PROCESSES, RECORDS, RECORD)
    values = [value for record in zip(*(line.split() for line in said), strict=True) for value in record]
    for _ in range(2):
        assert listed(COMPARE, path, PROCESSES, RECORD, *values) == "0\n"
        place.interrupted()


def test_every_appended_line_is_there_once(place: Place) -> None:
    path = place.folder / "log"
    listed(MAKE, path, 0)
    at_once(APPENDS, path, 1500)
    place.interrupted()
    lines = listed(LINES, path).splitlines()
    assert sorted(lines) == sorted(f"{writer} {number}" for writer in range(PROCESSES) for number in range(1500))
    for writer in range(PROCESSES):
        assert [line for line in lines if line.startswith(f"{writer} ")] == [f"{writer} {n}" for n in range(1500)]
