"""The memory filesystem on a real mount, over both transports."""

import contextlib
import errno
import hashlib
import os
import random
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fsdriver.device import Session
from fsdriver.device.mount import MountRefused
from tests.fsdriver.device.conftest import Drive, is_mounted
from tests.patience import PATIENCE, eventually, taken, within

pytestmark = pytest.mark.mounted


@contextlib.contextmanager
def reading(path: Path, *, cpu: int | None = None) -> Iterator[subprocess.Popen[str]]:
    """A process that reads `path` and prints what it got, or the errno."""
    program = (
        "import ctypes, os, signal, sys\n"
        "libc = ctypes.CDLL(None, use_errno=True)\n"
        "buffer = ctypes.create_string_buffer(100)\n"
        "signal.signal(signal.SIGINT, lambda *_: None)\n"
        "signal.siginterrupt(signal.SIGINT, True)\n"
        "fd = os.open(sys.argv[1], os.O_RDONLY)\n"
        "print('open', flush=True)\n"
        "n = libc.read(fd, buffer, 100)\n"
        "print(buffer.raw[:n] if n >= 0 else ctypes.get_errno(), flush=True)\n"
    )
    process = subprocess.Popen([sys.executable, "-S", "-c", program, str(path)], stdout=subprocess.PIPE, text=True)
    if cpu is not None:
        os.sched_setaffinity(process.pid, {cpu})
    try:
        assert process.stdout
        assert process.stdout.readline() == "open\n"
        yield process
    finally:
        process.kill()
        process.communicate(timeout=PATIENCE)


def blocked(process: subprocess.Popen[str]) -> None:
    """Wait until the process is inside its read."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if Path(f"/proc/{process.pid}/syscall").read_text().startswith("0 "):
            time.sleep(0.1)
            return
        time.sleep(0.01)
    raise AssertionError("it does not read")


def refusals(path: Path) -> int:
    """Try to write until the end of the connection (which takes the kernel a moment) has settled: the last errno."""
    deadline = time.monotonic() + PATIENCE
    while True:
        with pytest.raises(OSError, match="not connected|connection abort|canceled") as refused:
            path.write_bytes(b"secret")
        if refused.value.errno == errno.ENOTCONN or time.monotonic() > deadline:
            return refused.value.errno or 0
        time.sleep(0.02)


def drop_caches() -> None:
    Path("/proc/sys/vm/drop_caches").write_text("3")


def test_what_is_written_is_read_and_listed(drive: Drive) -> None:
    (drive.path / "d").mkdir()
    content = random.Random(1).randbytes(3 << 20)
    (drive.path / "d/f").write_bytes(content)
    os.symlink("../x", drive.path / "d/l")
    os.link(drive.path / "d/f", drive.path / "g")
    os.rename(drive.path / "d/f", drive.path / "d/h")
    drop_caches()
    assert (drive.path / "g").read_bytes() == content
    assert sorted(os.listdir(drive.path / "d")) == ["h", "l"]
    assert os.readlink(drive.path / "d/l") == "../x"
    assert (drive.path / "d/h").stat().st_nlink == 2
    with pytest.raises(OSError, match="Directory not empty"):
        (drive.path / "d").rmdir()


def test_a_long_directory_is_listed_whole_and_once(drive: Drive) -> None:
    names = {f"a-rather-long-name-for-a-file-{i}" for i in range(1500)}
    for name in names:
        (drive.path / name).touch()
    listed = [entry.name for entry in os.scandir(drive.path) if entry.stat().st_size == 0]
    assert len(listed) == len(names)
    assert set(listed) == names


def test_one_mebibyte_travels_in_one_request(drive: Drive) -> None:
    content = random.Random(2).randbytes(1 << 20)
    fd = os.open(drive.path / "direct", os.O_RDWR | os.O_CREAT)
    assert os.write(fd, content) == len(content)
    assert os.pread(fd, len(content), 0) == content
    assert os.pread(fd, 100, len(content) - 10) == content[-10:]
    assert os.pread(fd, 100, len(content)) == b""
    os.close(fd)


def test_many_threads_write_read_and_make_files_at_once(drive: Drive) -> None:
    def work(number: int) -> None:
        chance = random.Random(number)
        home = drive.path / f"home{number}"
        home.mkdir()
        for i in range(30):
            content = chance.randbytes(chance.choice([0, 1, 4096, 70_000, 300_000]))
            file = home / f"f{i}"
            file.write_bytes(content)
            assert hashlib.sha256(file.read_bytes()).digest() == hashlib.sha256(content).digest()
            os.rename(file, home / f"g{i}")
            if i % 3 == 0:
                os.unlink(home / f"g{i}")
        assert len(os.listdir(home)) == 20

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))


def test_a_bug_in_the_handler_is_eio_and_the_drive_goes_on(drive: Drive) -> None:
    (drive.path / "broken").write_bytes(b"x")
    with pytest.raises(OSError, match="Input/output error"):
        (drive.path / "broken").read_bytes()
    (drive.path / "fine").write_bytes(b"x")
    assert (drive.path / "fine").read_bytes() == b"x"


def test_an_unknown_operation_is_answered(drive: Drive) -> None:
    (drive.path / "f").write_bytes(b"x")
    with pytest.raises(OSError, match="not supported"):
        os.getxattr(drive.path / "f", "user.a")


def test_a_signal_interrupts_an_answer_that_waits(drive: Drive) -> None:
    (drive.path / "slow").touch()
    with reading(drive.path / "slow") as reader:
        blocked(reader)
        reader.send_signal(signal.SIGINT)
        assert reader.stdout
        assert reader.stdout.readline() == f"{errno.EINTR}\n"


def test_a_killed_reader_of_a_waiting_answer_dies_at_once(drive: Drive) -> None:
    (drive.path / "slow").touch()
    with reading(drive.path / "slow") as reader:
        blocked(reader)
        reader.kill()
        assert reader.wait(PATIENCE) == -signal.SIGKILL


def test_waiting_answers_do_not_hold_up_others_on_their_cpu(drive: Drive) -> None:
    (drive.path / "slow").touch()
    (drive.path / "direct").write_bytes(b"y")
    cpu = min(os.sched_getaffinity(0))
    with contextlib.ExitStack() as stack:
        waiting = [stack.enter_context(reading(drive.path / "slow", cpu=cpu)) for _ in range(12)]
        for reader in waiting:
            blocked(reader)

        def read() -> None:
            with reading(drive.path / "direct", cpu=cpu) as other:
                assert other.stdout
                assert other.stdout.readline() == "b'y'\n"

        within(3, lambda: taken(read))
        drive.ask("release")
        for reader in waiting:
            assert reader.stdout
            assert reader.stdout.readline() == "b'at last\\n'\n"


def test_the_kernels_lookups_are_counted_exactly(drive: Drive) -> None:
    for i in range(40):
        directory = drive.path / f"d{i % 4}"
        directory.mkdir(exist_ok=True)
        (directory / f"f{i}").write_bytes(b"x")
    subprocess.run(["ls", "-lR", str(drive.path)], check=True, stdout=subprocess.DEVNULL)
    for i in range(0, 40, 2):
        os.unlink(drive.path / f"d{i % 4}" / f"f{i}")
    deadline = time.monotonic() + PATIENCE
    known = {0: 1}
    while known and time.monotonic() < deadline:
        drop_caches()
        state = drive.ask("state")
        known = state["known"]
    assert known == {}
    assert state["nodes"] == 1 + 4 + 20


def test_an_invalidated_file_is_read_again(drives: Callable[..., Drive], transport: str) -> None:
    drive = drives(io_uring=transport == "io_uring", entry_timeout=60)
    (drive.path / "f").write_bytes(b"old")
    number = (drive.path / "f").stat().st_ino
    assert (drive.path / "f").read_bytes() == b"old"
    assert drive.ask(f"inval {number}") == {"drained": True}
    assert drive.ask("inval 99999") == {"drained": True}
    assert (drive.path / "f").read_bytes() == b"old"


def test_a_clean_stop_leaves_nothing(drive: Drive) -> None:
    (drive.path / "f").write_bytes(b"x")
    assert drive.ask("stop")["unmounted"] == "clean"
    assert not is_mounted(drive.path)
    assert drive.process.stdin
    drive.process.stdin.close()
    assert drive.process.wait(PATIENCE) == 0
    assert stat.S_IMODE(drive.path.stat().st_mode) == 0
    with pytest.raises(PermissionError):
        (drive.path / "plain").write_bytes(b"secret")


def test_a_stop_can_give_the_directory_back(drive: Drive) -> None:
    assert drive.ask("stop-release")["unmounted"] == "clean"
    (drive.path / "plain").write_bytes(b"mine")
    os.unlink(drive.path / "plain")


def test_a_drive_in_use_is_unmounted_lazily(drive: Drive) -> None:
    with (drive.path / "f").open("wb", buffering=0) as held:
        assert drive.ask("stop")["unmounted"] == "lazy"
        assert not is_mounted(drive.path)
        held.write(b"still served")
        assert os.fstat(held.fileno()).st_size == 12
    assert drive.ask("stop")["unmounted"] == "already"


def test_a_stop_after_somebody_elses_unmount_touches_nothing(drive: Drive) -> None:
    subprocess.run(["umount", str(drive.path)], check=True)
    assert drive.ask("stop")["unmounted"] == "already"


def test_a_dead_daemon_leaves_a_dead_mount_over_an_unwritable_directory(drive: Drive) -> None:
    (drive.path / "f").write_bytes(b"x")
    with (drive.path / "f").open("rb") as held:
        drive.kill()
        assert refusals(drive.path / "plain") == errno.ENOTCONN
        with pytest.raises(OSError, match="not connected|connection abort|canceled"):
            os.fstat(held.fileno())
    assert is_mounted(drive.path)
    subprocess.run(["umount", str(drive.path)], check=True)
    with pytest.raises(PermissionError):
        (drive.path / "plain").write_bytes(b"secret")


def test_a_dead_daemon_frees_those_who_wait_for_it(drive: Drive) -> None:
    (drive.path / "stuck").touch()
    with reading(drive.path / "stuck") as reader:
        blocked(reader)
        drive.kill()
        assert reader.stdout
        assert int(reader.stdout.readline()) in (errno.ENOTCONN, errno.ECONNABORTED)


def test_a_daemon_that_is_killed_while_it_tells_of_a_name_frees_those_who_wait_for_it(drive: Drive) -> None:
    """Its thread waits for the directory, and who has that for the daemon."""
    (drive.path / "kept").touch()
    program = "import os, sys\ntry: os.unlink(sys.argv[1])\nexcept OSError as exc: print(exc.errno)\n"
    command = [sys.executable, "-S", "-c", program, str(drive.path / "kept")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as remover:
        eventually(lambda: Path(f"/proc/{remover.pid}/wchan").read_text() == "request_wait_answer")
        assert drive.ask("inval-entry other") == {}
        threads = Path(f"/proc/{drive.process.pid}/task")
        eventually(lambda: any(wait.read_text() == "fuse_reverse_inval_entry" for wait in threads.glob("*/wchan")))
        drive.kill()
        assert remover.stdout
        assert int(remover.stdout.readline()) in (errno.ENOTCONN, errno.ECONNABORTED, errno.ECANCELED)


def test_an_abort_frees_those_who_wait(drive: Drive) -> None:
    (drive.path / "slow").touch()
    with reading(drive.path / "slow") as reader:
        blocked(reader)
        assert drive.ask("abort") == {"ended": True}
        assert reader.stdout
        assert int(reader.stdout.readline()) in (errno.ENOTCONN, errno.ECONNABORTED)
    assert drive.ask("state")["aborted"]
    assert drive.ask("stop")["unmounted"] == "clean"


def test_the_watchdog_aborts_a_handler_that_never_answers(drives: Callable[..., Drive], transport: str) -> None:
    drive = drives(io_uring=transport == "io_uring", hang_limit=1.0)
    (drive.path / "stuck").touch()
    with reading(drive.path / "stuck") as reader:
        assert reader.stdout
        assert int(reader.stdout.readline()) in (errno.ENOTCONN, errno.ECONNABORTED)
    assert "stuck in a request for 1 s" in drive.ask("state")["aborted"]
    assert drive.ask("release") == {}
    assert drive.ask("stop")["unmounted"] == "clean"


def test_the_watchdog_lets_an_answer_wait(drives: Callable[..., Drive], transport: str) -> None:
    drive = drives(io_uring=transport == "io_uring", hang_limit=1.0)
    (drive.path / "slow").touch()
    with reading(drive.path / "slow") as reader:
        blocked(reader)
        time.sleep(3)
        drive.ask("release")
        assert reader.stdout
        assert reader.stdout.readline() == "b'at last\\n'\n"
    assert drive.ask("state")["aborted"] == ""


def test_a_mount_point_that_is_not_an_empty_directory_is_refused(drives: Callable[..., Drive], tmp_path: Path) -> None:
    (tmp_path / "drive0").mkdir()
    (tmp_path / "drive0/mine").touch()
    refused = Drive(tmp_path / "drive0")
    assert "not empty" in refused.hello["refused"]
    refused.log()
    refused = Drive(tmp_path / "nowhere")
    assert "No such file" in refused.hello["refused"]
    refused.log()


def test_mounting_over_a_dead_drive_names_the_command(drive: Drive) -> None:
    drive.kill()
    refused = Drive(drive.path)
    assert "fsdriver umount" in refused.hello["refused"]
    refused.log()


def test_a_living_drive_is_not_mounted_over(drive: Drive) -> None:
    refused = Drive(drive.path)
    assert "mounted here already" in refused.hello["refused"]
    refused.log()
    (drive.path / "f").touch()


def test_a_mount_point_behind_a_link_is_found_in_the_mount_table(drives: Callable[..., Drive], tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    (tmp_path / "behind").mkdir()
    linked = Drive(tmp_path / "link/behind")
    assert linked.transport
    assert linked.ask("stop-release")["unmounted"] == "clean"
    linked.end()


def test_the_mount_says_what_it_is(drive: Drive) -> None:
    (line,) = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if f" {drive.path} " in line]
    assert " - fuse.grantfs grantfs " in line
    options = line.split()[5].split(",")
    assert {"nosuid", "nodev", "noexec"} <= set(options)
    assert "default_permissions,allow_other" in line
    minor = line.split()[2].split(":")[1]
    assert Path(f"/sys/class/bdi/0:{minor}/read_ahead_kb").read_text() == "1024\n"


def test_signals_in_a_storm_lose_no_request(drive: Drive) -> None:
    """Interrupted at random, every read still gets its own answer and nothing hangs."""
    (drive.path / "direct").write_bytes(b"0123456789" * 1000)
    program = (
        "import os, signal, sys\n"
        "signal.signal(signal.SIGUSR1, lambda *_: None)\n"
        "fd = os.open(sys.argv[1], os.O_RDONLY)\n"
        "print('go', flush=True)\n"
        "for i in range(3000):\n"
        "    assert os.pread(fd, 10, i % 900 * 10) == b'0123456789'\n"
        "print('done', flush=True)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-S", "-c", program, str(drive.path / "direct")], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout
    assert process.stdout.readline() == "go\n"
    ended = threading.Event()

    def storm() -> None:
        while not ended.wait(0.0005):
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGUSR1)

    thread = threading.Thread(target=storm)
    thread.start()
    try:
        assert process.stdout.readline() == "done\n"
    finally:
        ended.set()
        thread.join()
        process.communicate(timeout=PATIENCE)


def test_a_drive_whose_readers_cannot_be_made_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(device: int) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    point = tmp_path / "drive"
    point.mkdir()
    threads = set(threading.enumerate())
    monkeypatch.setattr("fsdriver.device.session.clone", full)
    session = Session(lambda event, out: b"", point, io_uring=False)
    with pytest.raises(MountRefused, match="Too many open files"):
        session.start()
    assert set(threading.enumerate()) == threads
    assert not is_mounted(point)
    (point / "an ordinary directory again").mkdir()
