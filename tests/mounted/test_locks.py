"""Many who wait for locks, and everybody else meanwhile."""

import subprocess

import pytest

from tests.mounted.mounted import DANA, LISTED, SECONDS, Mounted, get, listed, put

pytestmark = pytest.mark.mounted

WAITERS = """
import errno, fcntl, os, sys, threading
path, count = sys.argv[1], int(sys.argv[2])
files = [open(path, 'rb') for _ in range(count)]
told = threading.Semaphore(0)
refused, taken = [], []
def wait(file):
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
        taken.append(1)
    except OSError as exc:
        refused.append(exc.errno)
        told.release()
    file.close()
threads = [threading.Thread(target=wait, args=(file,)) for file in files]
for thread in threads: thread.start()
for _ in range(count - 128): told.acquire()
print(sorted(set(refused)) == [errno.ENOLCK], flush=True)
for thread in threads: thread.join()
print(len(taken), len(refused), flush=True)
"""
HOLDER = """
import fcntl, sys
with open(sys.argv[1], 'rb') as file:
    fcntl.flock(file, fcntl.LOCK_EX)
    print('held', flush=True)
    sys.stdin.read()
"""
TURN = """
import fcntl, sys
with open(sys.argv[1], 'rb') as file:
    print('waits', flush=True)
    fcntl.flock(file, fcntl.LOCK_EX)
    print('has it', flush=True)
"""


def started(script: str, *arguments: object, user: int = 0) -> "subprocess.Popen[str]":
    as_user = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"] if user else []
    return subprocess.Popen(
        [*as_user, LISTED, "-I", "-c", script, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def said(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_a_user_who_waits_for_all_the_locks_hinders_nobody(either: Mounted) -> None:
    drive = either.drive
    put(drive / "wanted", "x")
    (drive / "wanted").chmod(0o644)
    put(drive / "other", "y")
    with started(HOLDER, drive / "wanted") as holder, started(HOLDER, drive / "other") as theirs:
        assert said(holder) == said(theirs) == "held"
        with started(WAITERS, drive / "wanted", 400, user=DANA) as waiters, started(TURN, drive / "other") as turn:
            assert said(waiters) == "True"
            assert said(turn) == "waits"
            for number in range(20):
                put(drive / f"f{number}", "served")
                assert get(drive / f"f{number}") == "served"
            theirs.communicate(timeout=SECONDS)
            assert said(turn) == "has it"
            assert turn.wait(SECONDS) == 0
            holder.communicate(timeout=SECONDS)
            assert said(waiters) == "128 272"
            assert waiters.wait(SECONDS) == 0
    listed("import sys, os\nfor name in os.listdir(sys.argv[1]): os.unlink(os.path.join(sys.argv[1], name))", drive)
