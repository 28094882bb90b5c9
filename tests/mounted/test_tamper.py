"""Ciphertext that somebody changed in the store: EIO, a record, and the rest of the drive as it was."""

import errno
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from fsdriver.content import CHUNK_SIZE
from tests.mounted.mounted import LISTED, MAGIC, Mounted, get, listed, put, run, wait_until

pytestmark = pytest.mark.mounted

SLOT = CHUNK_SIZE + 36
HEADER = 4096
CHUNKS = 5
SIZE = CHUNKS * CHUNK_SIZE - 1000

WRITE = (
    "import sys\n"
    "with open(sys.argv[1], 'wb') as f:\n"
    "    for n in range(int(sys.argv[3])): f.write(bytes([65 + (n + int(sys.argv[4])) % 26]) * int(sys.argv[2]))\n"
)
READ = (
    "import errno, hashlib, os, sys\n"
    "try:\n"
    "    with open(sys.argv[1], 'rb', 0) as f: print('whole', hashlib.sha256(f.read()).hexdigest())\n"
    "except OSError as exc: print(errno.errorcode[exc.errno])\n"
)
OVERWRITE = "import os, sys; os.pwrite(os.open(sys.argv[1], os.O_WRONLY), b'changed', int(sys.argv[2]))"


def flip(at: int) -> Callable[[bytearray], None]:
    def change(data: bytearray) -> None:
        data[at] ^= 1

    return change


def swap(data: bytearray) -> None:
    first, second = slice(HEADER, HEADER + SLOT), slice(HEADER + SLOT, HEADER + 2 * SLOT)
    data[first], data[second] = data[second], data[first]


def zero(data: bytearray) -> None:
    data[HEADER + SLOT : HEADER + 2 * SLOT] = bytes(SLOT)


def cut(size: int) -> Callable[[bytearray], None]:
    def change(data: bytearray) -> None:
        del data[size:]

    return change


DAMAGE: dict[str, Callable[[bytearray], None]] = {
    "header": flip(20),
    "file id": flip(45),
    "commitment": flip(100),
    "wrapped key": flip(560),
    "commit": flip(3080),
    "chunk's generation": flip(HEADER + 3),
    "chunk's nonce": flip(HEADER + 12),
    "chunk": flip(HEADER + 2 * SLOT + 500),
    "tag": flip(HEADER + SLOT - 1),
    "last byte": flip(HEADER + CHUNKS * 36 + SIZE - 1),
    "chunks swapped": swap,
    "chunk zeroed": zero,
    "cut at a chunk": cut(HEADER + 3 * SLOT),
    "cut in a chunk": cut(HEADER + 3 * SLOT + 777),
    "cut in a slot's prefix": cut(HEADER + 3 * SLOT + 7),
    "cut to the header": cut(HEADER),
    "cut in the header": cut(1000),
    "emptied": cut(0),
}


@pytest.fixture
def path(mounted: Mounted, request: pytest.FixtureRequest) -> Path:
    found = mounted.drive / "".join(letter if letter.isalnum() else "-" for letter in request.node.name)
    listed(WRITE, found, CHUNK_SIZE, CHUNKS, 0)
    listed("import os, sys; os.truncate(sys.argv[1], int(sys.argv[2]))", found, SIZE)
    return found


def in_store(mounted: Mounted, path: Path) -> Path:
    return mounted.store / path.relative_to(mounted.drive)


def change(mounted: Mounted, path: Path, damage: Callable[[bytearray], None]) -> None:
    """In place, as somebody with the disk does it."""
    stored = in_store(mounted, path)
    data = bytearray(stored.read_bytes())
    damage(data)
    with open(stored, "r+b") as file:
        file.write(data)
        file.truncate(len(data))


def damaged_records(mounted: Mounted, path: Path) -> int:
    name = f"/{path.relative_to(mounted.drive)}"
    return len([record for record in mounted.records("damaged") if record.file and record.file.path == name])


def reading(path: Path) -> str:
    return listed(READ, path).split()[0]


def assert_the_rest_works(mounted: Mounted) -> None:
    other = mounted.drive / "other"
    put(other, "unaffected")
    assert get(other) == "unaffected"
    assert other.name in os.listdir(mounted.drive)


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_an_error_and_a_record(mounted: Mounted, path: Path, damage: str) -> None:
    assert reading(path) == "whole"
    change(mounted, path, DAMAGE[damage])
    assert reading(path) == "EIO"
    assert damaged_records(mounted, path) >= 1
    assert path.read_bytes() == in_store(mounted, path).read_bytes(), "who may see sealed bytes sees them, to repair"
    assert_the_rest_works(mounted)
    # It can be replaced by a rename, and then unlinked.
    put(path.with_name("new"), "replaced")
    listed("import os, sys; os.rename(sys.argv[1], sys.argv[2])", path.with_name("new"), path)
    assert get(path) == "replaced"
    change(mounted, path, DAMAGE[damage] if damage in ("header", "commit") else flip(HEADER + 30))
    assert reading(path) == "EIO"
    listed("import os, sys; os.unlink(sys.argv[1])", path)
    assert not in_store(mounted, path).exists()


@pytest.mark.parametrize("damage", ["chunk", "cut at a chunk", "emptied"])
def test_an_unlisted_program_can_remove_and_replace_a_damaged_file(
    mounted: Mounted, path: Path, tmp_path: Path, damage: str
) -> None:
    run(["cp", path, tmp_path / "backup"])
    change(mounted, path, DAMAGE[damage])
    assert reading(path) == "EIO"
    run(["cp", tmp_path / "backup", path])
    assert reading(path) == "whole"
    change(mounted, path, DAMAGE[damage])
    run(["rm", path])
    run(["cp", tmp_path / "backup", path])
    assert reading(path) == "whole"


def test_an_old_chunk_put_back_in_its_own_place(mounted: Mounted, path: Path) -> None:
    old = in_store(mounted, path).read_bytes()
    listed(OVERWRITE, path, CHUNK_SIZE + 10)
    assert reading(path) == "whole"

    def roll_back(data: bytearray) -> None:
        data[HEADER + SLOT : HEADER + 2 * SLOT] = old[HEADER + SLOT : HEADER + 2 * SLOT]

    change(mounted, path, roll_back)
    assert reading(path) == "EIO"
    assert damaged_records(mounted, path)


HOLD = """
import errno, os, sys, time
fd = os.open(sys.argv[1], os.O_RDONLY)
end = time.monotonic() + 60
while time.monotonic() < end:
    try:
        os.pread(fd, 10, 0)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    except OSError as exc:
        sys.exit(errno.errorcode[exc.errno])
    time.sleep(0.2)
sys.exit("nothing was noticed")
"""


def test_an_old_chunk_in_a_file_too_large_to_be_verified_at_its_open(mounted: Mounted, path: Path) -> None:
    listed(WRITE, path, CHUNK_SIZE, 40, 3)
    old = in_store(mounted, path).read_bytes()
    listed(OVERWRITE, path, 35 * CHUNK_SIZE + 10)

    def roll_back(data: bytearray) -> None:
        data[HEADER + 35 * SLOT : HEADER + 36 * SLOT] = old[HEADER + 35 * SLOT : HEADER + 36 * SLOT]

    change(mounted, path, roll_back)
    assert listed(HOLD, path, check=False).strip() == "EIO"
    wait_until(lambda: damaged_records(mounted, path))


def test_a_chunk_newer_than_the_commit(mounted: Mounted, path: Path) -> None:
    old = in_store(mounted, path).read_bytes()
    listed(OVERWRITE, path, CHUNK_SIZE + 10)

    def put_back_all_but_a_chunk(data: bytearray) -> None:
        data[: HEADER + SLOT] = old[: HEADER + SLOT]
        data[HEADER + 2 * SLOT :] = old[HEADER + 2 * SLOT :]

    change(mounted, path, put_back_all_but_a_chunk)
    assert reading(path) == "EIO"


@pytest.mark.parametrize("part", [slice(0, HEADER), slice(HEADER, HEADER + SLOT)])
def test_a_part_of_another_file(mounted: Mounted, path: Path, part: slice) -> None:
    other = path.with_name("another")
    listed(WRITE, other, CHUNK_SIZE, CHUNKS, 7)
    foreign = in_store(mounted, other).read_bytes()

    def mix(data: bytearray) -> None:
        data[part] = foreign[part]

    change(mounted, path, mix)
    assert reading(path) == "EIO"
    assert reading(other) == "whole"


def test_another_companys_file_is_refused(mounted: Mounted, path: Path) -> None:
    change(mounted, path, flip(60))
    assert reading(path) == "EACCES"
    assert damaged_records(mounted, path)


def test_a_file_with_an_unknown_label_is_ciphertext_for_everyone(mounted: Mounted, path: Path) -> None:
    change(mounted, path, flip(72))
    assert listed("import sys; print(open(sys.argv[1], 'rb').read(8))", path).strip() == repr(MAGIC)


def test_a_file_cannot_be_given_another_label_by_changing_its_header(mounted: Mounted, path: Path) -> None:
    def relabel(data: bytearray) -> None:
        data[72:88] = b"office/clients".ljust(16, b"\0")

    assert b"company/internal" in in_store(mounted, path).read_bytes()[72:88]
    change(mounted, path, relabel)
    assert reading(path) == "EIO"


def test_bytes_beyond_the_end_are_never_served(mounted: Mounted, path: Path) -> None:
    with open(in_store(mounted, path), "ab") as file:
        file.write(b"canary" * 1000)
    assert listed("import sys; d = open(sys.argv[1], 'rb').read(); print(len(d), b'canary' in d)", path).split() == [
        str(SIZE),
        "False",
    ]
    listed(OVERWRITE, path, 5)
    assert b"canary" not in in_store(mounted, path).read_bytes()


def test_a_file_that_is_no_sealed_file(mounted: Mounted) -> None:
    (mounted.store / "foreign").write_bytes(b"put here by somebody" * 1000)
    assert reading(mounted.drive / "foreign") == "EIO"
    assert (mounted.drive / "foreign").read_bytes().startswith(b"put here")
    listed("import os, sys; os.unlink(sys.argv[1])", mounted.drive / "foreign")


# ---- what the kernel has cached ------------------------------------------------------------------------------------


def test_damage_is_not_hidden_by_pages_of_an_earlier_open(mounted: Mounted, path: Path) -> None:
    for _ in range(3):
        assert reading(path) == "whole"
    change(mounted, path, DAMAGE["chunk"])
    assert reading(path) == "EIO"


def test_damage_is_not_hidden_by_a_descriptor_that_is_open(mounted: Mounted, path: Path) -> None:
    holder = subprocess.Popen(
        [
            LISTED,
            "-I",
            "-c",
            "import sys; f = open(sys.argv[1], 'rb'); f.read(); print('open', flush=True); sys.stdin.read()",
            str(path),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert holder.stdin is not None
    assert holder.stdout is not None
    try:
        assert holder.stdout.readline() == b"open\n"
        assert reading(path) == "whole"
        change(mounted, path, DAMAGE["chunk"])
        assert reading(path) == "EIO"
        assert damaged_records(mounted, path)
    finally:
        holder.stdin.close()
        holder.wait()
        holder.stdout.close()


def test_another_whole_file_put_in_its_place_is_what_is_read(mounted: Mounted, path: Path) -> None:
    """By rename in the store, as a restore from a backup does it: a new file, and nothing of the old one is shown."""
    listed(WRITE, path.with_name("another"), CHUNK_SIZE, 1, 9)
    wanted = listed(READ, path.with_name("another"))
    assert listed(READ, path) != wanted
    os.rename(in_store(mounted, path.with_name("another")), in_store(mounted, path))
    assert listed(READ, path) == wanted


def test_a_large_file_with_one_bad_chunk_gives_the_others(mounted: Mounted) -> None:
    path = mounted.drive / "large"
    listed(WRITE, path, CHUNK_SIZE, 200, 0)
    change(mounted, path, flip(HEADER + 150 * SLOT + 100))
    script = (
        "import os, sys, errno\n"
        "fd = os.open(sys.argv[1], os.O_RDONLY)\n"
        "assert os.pread(fd, 5, 0) == b'AAAAA'\n"
        "try: os.pread(fd, 5, 150 * 32768)\n"
        "except OSError as exc: print(errno.errorcode[exc.errno])\n"
    )
    assert listed(script, path).strip() == errno.errorcode[errno.EIO]
    assert damaged_records(mounted, path)
