"""An unlisted program that inherits a listed one's descriptor tries every system call it knows."""

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.mounted.mounted import LISTED, SECONDS, Mounted, get, put, unlisted_python, wait_until

pytestmark = pytest.mark.mounted

CANARY = "canary"
ATTEMPTS = """
import ctypes, json, mmap, os, sys
fd, path, aside = int(sys.argv[1]), sys.argv[2], sys.argv[3]
itself, libc = f'/proc/self/fd/{fd}', ctypes.CDLL(None, use_errno=True)
def called(result):
    if result < 0: raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result
def opened(flags):
    other = os.open(itself, flags)
    try: return os.pread(other, 100, 0)
    finally: os.close(other)
def sent(source):
    out = os.open(aside, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    os.sendfile(out, source, 0, 100)
    return os.pread(out, 100, 0)
def spliced():
    r, w = os.pipe(); os.set_blocking(r, False)
    os.splice(fd, w, 100, 0)
    return os.read(r, 100)
def ranged(target):
    out = os.open(target, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    os.copy_file_range(fd, out, 100, 0)
    return os.pread(out, 100, 0)
def linked():
    os.link(itself, path + '.link', follow_symlinks=True)
    with open(path + '.link', 'rb') as file: return file.read(100)
def renamed():
    os.rename(path, path + '.moved')
    try: return opened(os.O_RDONLY) + os.pread(fd, 100, 0)
    finally: os.rename(path + '.moved', path)
def by_handle():
    handle, mount = ctypes.create_string_buffer(136), ctypes.c_int()
    handle[0:4] = (128).to_bytes(4, 'little')
    called(libc.name_to_handle_at(fd, b'', handle, ctypes.byref(mount), 0x1000))
    directory = os.open(os.path.dirname(path), os.O_RDONLY)
    return os.pread(called(libc.open_by_handle_at(directory, handle, os.O_RDONLY)), 100, 0)
attempts = {
    'read': lambda: os.read(fd, 100),
    'pread': lambda: os.pread(fd, 100, 0),
    'open again': lambda: opened(os.O_RDONLY),
    'open again to write': lambda: opened(os.O_RDWR),
    'open again direct': lambda: opened(os.O_RDONLY | os.O_DIRECT),
    'path descriptor': lambda: opened(os.O_PATH),
    'sendfile': lambda: sent(fd),
    'splice': spliced,
    'copy_file_range outside': lambda: ranged(aside),
    'copy_file_range inside': lambda: ranged(path + '.copy'),
    'link': linked,
    'rename': renamed,
    'by handle': by_handle,
    'getxattr': lambda: os.getxattr(fd, 'user.note'),
    'parent proc': lambda: open(f'/proc/{os.getppid()}/fd/{fd}', 'rb').read(100),
    'write': lambda: os.pwrite(fd, b'spoiled', 0),
    'ftruncate': lambda: os.ftruncate(fd, 1),
    'truncate': lambda: os.truncate(itself, 1),
    'fallocate': lambda: called(libc.fallocate(fd, 3, ctypes.c_long(0), ctypes.c_long(4096))),
    'setxattr': lambda: os.setxattr(fd, 'user.note', b'spoiled'),
    'removexattr': lambda: os.removexattr(fd, 'user.note'),
    'seek data': lambda: os.lseek(fd, 0, os.SEEK_DATA),
}
said = {}
for name, attempt in attempts.items():
    try: said[name] = repr(attempt())
    except Exception as exc: said[name] = type(exc).__name__ + ': ' + str(exc)
print(json.dumps(said))
"""
HOLDER = """
import os, sys
path, program, attempts, aside = sys.argv[1:]
with open(path, 'w') as file: file.write('canary' * 20_000)
os.setxattr(path, 'user.note', b'canary')
fd = os.open(path, os.O_RDWR)
os.set_inheritable(fd, True)
os.execv(program, [program, '-I', '-c', attempts, str(fd), path, aside])
"""
CHANGES = ("write", "ftruncate", "truncate", "fallocate", "setxattr", "removexattr", "seek data")


def test_no_call_on_an_inherited_descriptor_shows_or_changes_content(mounted: Mounted, tmp_path: Path) -> None:
    folder = mounted.drive / "checked"
    folder.mkdir(exist_ok=True)
    path = folder / "inherited-by-all"
    done = subprocess.run(
        [LISTED, "-I", "-c", HOLDER, str(path), unlisted_python(), ATTEMPTS, str(tmp_path / "aside")],
        capture_output=True,
        timeout=SECONDS,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert not [name for name, answer in said.items() if CANARY in answer], said
    assert not [name for name in CHANGES if "Error" not in said[name]], said
    assert get(path) == CANARY * 20_000


def test_names_that_are_no_text_are_told_apart_in_records(mounted: Mounted) -> None:
    top = os.fsencode(mounted.drive)
    names = [b"line\nbreak", b"\xff\xfe", b'quote"\\', b"\x01\x7f", "zei\u200bchen".encode(), b"a\\xff"]
    for name in names:
        with open(top + b"/" + name, "wb") as file:
            file.write(b"x")
    wait_until(lambda: len([r for r in mounted.records("close") if r.file]) >= len(names))
    paths = {record.file.path for record in mounted.records("create") if record.file}
    assert {"/line\nbreak", "/\\xff\\xfe", '/quote"\\', "/\x01\x7f", "/zei\u200bchen", "/a\\xff"} <= paths


def test_who_stops_in_the_middle_and_who_waits_for_locks_hinders_nobody(mounted: Mounted) -> None:
    path = mounted.drive / "waited-for"
    put(path, "x" * 90_000)
    script = (
        "import fcntl, os, sys, threading\n"
        "def wait():\n"
        "    file = open(sys.argv[1]); fcntl.flock(file, fcntl.LOCK_EX)\n"
        "first = open(sys.argv[1]); fcntl.flock(first, fcntl.LOCK_EX)\n"
        "threading.stack_size(65536)\n"
        "for _ in range(600): threading.Thread(target=wait, daemon=True).start()\n"
        "print('waiting', flush=True)\n"
        "while True: os.stat(sys.argv[1]); open(sys.argv[1], 'rb').read()\n"
    )
    stopped = subprocess.Popen(
        [unlisted_python(), "-I", "-c", script, str(path)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert stopped.stdout is not None
    try:
        with stopped.stdout:
            stopped.stdout.readline()
        stopped.send_signal(signal.SIGSTOP)
        for n in range(20):
            put(mounted.drive / f"meanwhile-{n}", "served")
        assert get(mounted.drive / "meanwhile-7") == "served"
    finally:
        stopped.kill()
        stopped.wait(20)
    assert get(path) == "x" * 90_000
