"""A demo by somebody who is not root: fusermount3, and a /dev/fuse open to all in a mount namespace of its own."""

import json
import os
import pwd
import shutil
import subprocess
import sys

import pytest

from tests.endtoend.company import LISTED, POLICY, ROOT, mount_points, pids, temporary_directory

USER = "nobody"
SCRIPT = r"""
import json, os, subprocess, sys
top, policy, listed = sys.argv[1:]
directory = top + "/demo"

def our(*arguments):
    return subprocess.run([sys.executable, "-m", *arguments], capture_output=True, text=True, timeout=120)

def listed_put(path, text):
    script = "import sys; open(sys.argv[1], 'w').write(sys.argv[2])"
    return subprocess.run([listed, "-I", "-c", script, path, text], capture_output=True, text=True).stderr

found = {}
begun = our("fsdriver", "demo", "--dir", directory, "--policy", policy, "--detach", "-o", "json")
found["begun"] = [begun.returncode, begun.stdout, begun.stderr]
if begun.returncode == 0:
    try:
        drive = directory + "/drive"
        for _ in range(100):  # the demo does not wait until it hears pushes
            found["status"] = json.loads(our("fsdriver", "--home", directory + "/agent", "status", "-o", "json").stdout)
            if found["status"]["server"]["state"] == "connected":
                break
        found["put"] = listed_put(drive + "/clients/a.txt", "a plain user's")
        found["get"] = subprocess.run(["/usr/bin/head", drive + "/clients/a.txt"], capture_output=True).stdout.decode()
        sealed = subprocess.run(["/usr/bin/cat", drive + "/clients/a.txt"], capture_output=True).stdout
        found["unlisted"] = sealed[:8].hex()
        found["stored"] = open(directory + "/store/clients/a.txt", "rb").read(8).hex()
        found["secret"] = listed_put(drive + "/payroll/a.txt", "no")
        found["secret is there"] = os.path.exists(directory + "/store/payroll/a.txt")
        found["why"] = {
            action: json.loads(our("fsdriver", "--home", directory + "/agent", "why", drive + "/payroll/a.txt",
                                   "--program", listed, "--action", action, "-o", "json").stdout)
            for action in ("read", "create")
        }
        found["root"] = sorted(os.listdir(drive))
        shown = our("keyserver", "--home", directory + "/server", "machine", "list", "-o", "json").stdout
        found["machine"] = json.loads(shown)[0]
    finally:
        ended = our("fsdriver", "demo", "--dir", directory, "--stop")
        found["ended"] = [ended.returncode, ended.stderr]
    found["mounts"] = drive in open("/proc/self/mountinfo").read()
print(json.dumps(found))
"""
SEE_LIBRARIES = 'mount --bind "$1" "$0/libraries" && shift && exec "$@"'
OPEN_DEVICE = 'mknod "$0/fuse" c 10 229 && chmod 666 "$0/fuse" && mount --bind "$0/fuse" /dev/fuse && exec "$@"'


@pytest.fixture
def place():
    """A folder of that user's, with our programs in it: the working copy may be closed to others."""
    if shutil.which("fusermount3") is None:
        pytest.skip("fusermount3 is not there")
    top = temporary_directory()
    for package in ("fsdriver", "keyserver", "policy"):
        shutil.copytree(ROOT / package, top / "programs" / package, ignore=shutil.ignore_patterns("__pycache__"))
    (top / "libraries").mkdir()
    shutil.copytree(POLICY, top / "policy")
    who = pwd.getpwnam(USER)
    (top / "theirs").mkdir(mode=0o700)
    os.chown(top / "theirs", who.pw_uid, who.pw_gid)
    yield top
    assert not pids(str(top).encode())
    shutil.rmtree(top)


def as_user(place, *before):
    """What the script found, run as that user."""
    libraries = next(path for path in sys.path if path.endswith("site-packages"))  # as closed as the working copy
    who = pwd.getpwnam(USER)
    command = [
        "unshare", "-m", "sh", "-c", SEE_LIBRARIES, place, libraries,
        *before, "setpriv", f"--reuid={who.pw_uid}", f"--regid={who.pw_gid}", "--clear-groups",
        LISTED, "-c", SCRIPT, place / "theirs", place / "policy", LISTED,
    ]  # fmt: skip
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": f"{place}/programs:{place}/libraries", "LANG": "C.UTF-8"}
    done = subprocess.run(command, env=environment, cwd="/", capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_plain_user_has_a_drive(place):
    found = as_user(place, "unshare", "-m", "sh", "-c", OPEN_DEVICE, place)
    assert found["begun"][0] == 0, found["begun"]
    assert found["status"]["mode"] == found["machine"]["mode"] == "user"
    assert found["status"]["server"]["state"] == "connected"
    assert found["put"] == ""
    assert found["get"] == "a plain user's"
    assert found["unlisted"] == found["stored"]
    # Secret labels refuse machines whose drive a plain user runs.
    assert "Permission denied" in found["secret"]
    assert not found["secret is there"]
    why = found["why"]
    assert (why["read"]["view"], why["read"]["allowed"], why["create"]["allowed"]) == ("ciphertext", True, False)
    assert "only in a drive that root runs" in why["create"]["sentence"]
    assert found["ended"] == [0, ""]
    assert not found["mounts"]


def test_without_the_device_it_says_what_root_must_run(place):
    if os.stat("/dev/fuse").st_mode & 0o006:
        pytest.skip("/dev/fuse is open to all here")
    found = as_user(place)
    code, shown, said = found["begun"]
    assert (code, shown) == (1, "")
    assert said.strip().splitlines()[-1].endswith("root must run: chmod 0666 /dev/fuse")
    assert "Traceback" not in said
    assert not [point for point in mount_points() if point.startswith(str(place))]
