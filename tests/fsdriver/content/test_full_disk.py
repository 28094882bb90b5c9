"""A disk that is really full: a small tmpfs."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fsdriver.content.samples import new_file, pattern, reopened

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="mounting a tmpfs needs root"),
]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], check=True)
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


@pytest.mark.parametrize("request_size", [1000, 4096, 100_000])
def test_enospc_comes_at_the_write_and_freeing_space_lets_work_go_on(small_disk, request_size):
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(300_000))
    fd = os.open(small_disk / "file", os.O_RDWR | os.O_CREAT)
    file = new_file(fd, chunk_size=32768)
    data = pattern(4_000_000)

    def fill() -> None:
        while True:
            done = file.write(file.size, data[file.size : file.size + request_size])
            assert done > 0

    with pytest.raises(OSError, match="No space left"):
        fill()
    accepted = file.size
    assert accepted > 500_000
    file.flush()
    again = reopened(fd)
    assert again.read(0, 4_000_000) == data[:accepted]
    again.close()
    ballast.unlink()
    with pytest.raises(OSError, match="No space left"):
        fill()
    assert file.size > accepted + 200_000
    file.close()
    again = reopened(fd)
    again.verify()
    assert again.read(0, 4_000_000) == data[: again.size]
    # A full disk can still be emptied.
    again.truncate(0)
    again.close()
    os.close(fd)
