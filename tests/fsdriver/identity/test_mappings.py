import errno
import fcntl
import mmap
import os
from pathlib import Path

import pytest

from fsdriver.identity import mappings
from tests.fsdriver.identity.processes import FOREVER, PYTHON, running


def scan(pid: int, known: tuple[mappings.FileId, ...] = ()) -> mappings.Mapped:
    fd = os.open(f"/proc/{pid}/maps", os.O_RDONLY)
    try:
        return mappings.scan(fd, known)
    finally:
        os.close(fd)


@pytest.fixture
def old_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel without PROCMAP_QUERY."""

    def ioctl(*_: object) -> None:
        raise OSError(errno.ENOTTY, "Inappropriate ioctl for device")

    monkeypatch.setattr(fcntl, "ioctl", ioctl)


def test_the_files_a_program_runs_code_from():
    with running(FOREVER) as process:
        found = scan(process.pid)
        lines = [line.split() for line in Path(f"/proc/{process.pid}/maps").read_text().splitlines()]
    assert {path.decode() for path in found.files.values()} == {
        line[5] for line in lines if "x" in line[1] and line[4] != "0"
    }
    assert not found.anonymous


def test_both_ways_to_read_agree(request: pytest.FixtureRequest):
    code = "import mmap\nkept = mmap.mmap(-1, 4096, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_EXEC)\ninput()"
    with running(FOREVER) as quiet, running([PYTHON, "-c", code]) as compiler:
        by_query = [scan(quiet.pid), scan(compiler.pid)]
        request.getfixturevalue("old_kernel")
        assert [scan(quiet.pid), scan(compiler.pid)] == by_query
    assert [found.anonymous for found in by_query] == [False, True]


def test_paths_of_known_files_may_be_left_out():
    with running(FOREVER) as process:
        full = scan(process.pid)
        one = next(iter(full.files))
        partly = scan(process.pid, (one,))
    assert partly.files.keys() == full.files.keys()
    assert partly.files[one] == b""
    assert all(path for file, path in partly.files.items() if file != one)


@pytest.mark.parametrize("kernel", ["new", "old"])
def test_memory_that_is_gone(kernel: str, request: pytest.FixtureRequest):
    if kernel == "old":
        request.getfixturevalue("old_kernel")
    with running(FOREVER) as process:
        fd = os.open(f"/proc/{process.pid}/maps", os.O_RDONLY)
    with pytest.raises(ProcessLookupError):
        mappings.scan(fd)
    os.close(fd)


@pytest.mark.parametrize("kernel", ["new", "old"])
def test_a_path_with_a_line_break(tmp_path: Path, kernel: str, request: pytest.FixtureRequest):
    path = tmp_path / "a\nb c"
    path.write_bytes(bytes(4096))
    if kernel == "old":
        request.getfixturevalue("old_kernel")
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ | mmap.PROT_EXEC):
        assert os.fsencode(path) in scan(os.getpid()).files.values()


def test_a_removed_file_is_told_by_its_path(tmp_path: Path):
    path = tmp_path / "code"
    path.write_bytes(bytes(4096))
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ | mmap.PROT_EXEC):
        path.unlink()
        found = [mappings.without_deleted(mapped) for mapped in scan(os.getpid()).files.values()]
    assert (os.fsencode(path), True) in found
    assert mappings.without_deleted(b"/bin/x") == (b"/bin/x", False)


def test_the_device_that_maps_show(tmp_path: Path):
    path = tmp_path / "code"
    path.write_bytes(bytes(4096))
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ | mmap.PROT_EXEC):
        device = mappings.device_in_maps(file.fileno())
        assert (device, path.stat().st_ino) in scan(os.getpid()).files
