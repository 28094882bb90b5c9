"""What fio writes, in the ways it knows, it finds again: at once, and after the daemon was killed."""

import pytest

from tests.mounted.mounted import run
from tests.mounted.workloads.conftest import Place

pytestmark = [pytest.mark.mounted, pytest.mark.slow]

JOBS = {
    "psync": "--ioengine=psync --rw=randwrite --bsrange=512-64k --fsync=50",
    "psync-mixed": "--ioengine=psync --rw=randrw --bsrange=512-40k --verify_backlog=64",
    "psync-sequential": "--ioengine=psync --rw=write --bs=1k --fallocate=native",
    "direct": "--ioengine=psync --rw=randrw --bsrange=4k-128k --blockalign=4k --direct=1 --verify_backlog=64",
    "vectors": "--ioengine=vsync --rw=randwrite --bs=2k",
    "mmap": "--ioengine=mmap --rw=randwrite --bs=4k --fsync=64",
    "mmap-odd": "--ioengine=mmap --rw=randwrite --bs=12k --verify_backlog=100",
    "libaio-direct": "--ioengine=libaio --rw=randwrite --bsrange=4k-64k --blockalign=4k --direct=1 --iodepth=8",
    "libaio": "--ioengine=libaio --rw=randwrite --bsrange=4k-64k --blockalign=4k --iodepth=8",
    "io_uring": "--ioengine=io_uring --rw=randwrite --bs=4k --iodepth=8",
    "io_uring-direct": "--ioengine=io_uring --rw=randrw --bs=32k --direct=1 --iodepth=8",
    "many": "--ioengine=psync --rw=randrw --bsrange=512-40k --numjobs=4 --size=4m",
}


def fio(place: Place, name: str, *more: str) -> None:
    options = ["--size=24m", "--verify=crc32c", "--verify_fatal=1", "--end_fsync=1", "--minimal", *JOBS[name].split()]
    run(["fio", f"--name={name}", f"--directory={place.folder}", *options, *more], timeout=200, cwd=place.folder.parent)


def test_what_fio_writes_it_finds_again(place: Place) -> None:
    for name in JOBS:
        fio(place, name)
    place.interrupted()
    for name in (name for name, options in JOBS.items() if "randrw" not in options):  # fio knows where it only wrote
        fio(place, name, "--verify_only")


def test_fio_notices_what_is_wrong(place: Place) -> None:
    fio(place, "psync-sequential")
    (place.folder / "psync-sequential.0.0").unlink()
    with pytest.raises(AssertionError):
        fio(place, "psync-sequential", "--verify_only")
