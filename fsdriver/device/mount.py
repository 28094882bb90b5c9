"""Mounting and unmounting: mount(2) as root, fusermount3 as a plain user.

Never with auto_unmount: a mount whose daemon died stays, and answers ENOTCONN, until somebody unmounts it. Nothing here
looks into the mount itself; /proc/self/mountinfo says what is mounted where.
"""

import array
import contextlib
import errno
import os
import shutil
import socket
import subprocess
import time
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

from fsdriver.device import syscalls
from fsdriver.device.mountpoint import MountPoint
from fsdriver.protocol import MAX_WRITE

SUBTYPE = "grantfs"
_DEVICE = "/dev/fuse"
_ROOT_MODE = "40000"
_FUSERMOUNT_SECONDS = 30.0
_BUSY_PAUSE = 0.1


class MountRefused(Exception):
    """The drive cannot be mounted here; the message says why and, where there is one, the command that helps."""


class Unmounted(StrEnum):
    CLEAN = "clean"
    ALREADY = "already"
    """Somebody else had unmounted it."""
    LAZY = "lazy"
    """It was in use: the name is gone, programs that hold files open keep the connection alive."""


class Mounted(NamedTuple):
    """One mount of ours. `minor` names its directory in fusectl and its /sys/class/bdi entry."""

    device: int
    point: MountPoint
    minor: int
    by_helper: bool


def mount(path: Path, *, source: str, exec_allowed: bool = False, allow_other: bool | None = None) -> Mounted:
    """Mount on the empty directory `path`. Nothing is answered yet: INIT waits on the descriptor returned.

    `source` is what mount(8) shows; `allow_other` None means: as root yes, as a plain user no. Raises MountRefused.
    """
    path = real_path(path)
    by_helper = os.geteuid() != 0
    point = _checked_point(path)
    try:
        allow_other = not by_helper if allow_other is None else allow_other
        if by_helper:
            device = _by_helper(path, source, exec_allowed, allow_other)
            point.guard()
        else:
            point.guard()
            device = _by_root(path, source, exec_allowed, allow_other)
        minor = _minor_of(path)
        if minor is None:
            with contextlib.suppress(OSError):
                _try_unmount(Mounted(device, point, 0, by_helper), lazy=True)
            os.close(device)
            raise MountRefused(f"{path}: mounted, but /proc/self/mountinfo does not show it")
    except BaseException:
        point.release()
        point.close()
        raise
    return Mounted(device, point, minor, by_helper)


def unmount(mounted: Mounted, *, patience: float = 2.0) -> Unmounted:
    """Unmount, after `patience` seconds of EBUSY lazily. Never touches a mount that is not this one. Raises OSError."""
    path = mounted.point.path
    # Tries are counted, not seconds: on a machine that stood still the time is over after the first.
    for _ in range(1 + round(patience / _BUSY_PAUSE)):
        if _minor_of(path) != mounted.minor:
            return Unmounted.ALREADY
        if _try_unmount(mounted, lazy=False):
            return Unmounted.CLEAN
        time.sleep(_BUSY_PAUSE)
    _try_unmount(mounted, lazy=True)
    return Unmounted.LAZY


def is_mounted(path: Path) -> bool:
    """Whether a FUSE filesystem is mounted at `path`; nobody is asked but the mount table."""
    return _minor_of(real_path(path)) is not None


def unmount_dead(path: Path) -> bool:
    """Take away the mount at `path` of a daemon that is gone; whether there was one. The mount point is an ordinary
    directory again. Raises OSError, MountRefused."""
    path = real_path(path)
    if _minor_of(path) is None:
        return False
    try:
        os.statvfs(path)
    except OSError as exc:
        if exc.errno not in (errno.ENOTCONN, errno.ECONNABORTED):  # aborted: it died while we asked
            return False
    else:
        return False
    if os.geteuid() == 0:
        syscalls.umount(str(path), syscalls.UMOUNT_NOFOLLOW | syscalls.MNT_DETACH)
    else:
        done = subprocess.run(
            [_helper(), "-u", "-z", "--", str(path)], capture_output=True, text=True, timeout=_FUSERMOUNT_SECONDS
        )
        if done.returncode:
            raise MountRefused(f"{path}: {done.stderr.strip()}")
    point = MountPoint(path)
    point.release()
    point.close()
    return True


def _try_unmount(mounted: Mounted, *, lazy: bool) -> bool:
    path = str(mounted.point.path)
    if not mounted.by_helper:
        try:
            syscalls.umount(path, syscalls.UMOUNT_NOFOLLOW | (syscalls.MNT_DETACH if lazy else 0))
        except OSError as exc:
            if exc.errno == errno.EBUSY and not lazy:
                return False
            raise
        return True
    command = [_helper(), "-u", *(["-z"] if lazy else []), "--", path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_FUSERMOUNT_SECONDS)
    if done.returncode and lazy:
        raise OSError(errno.EBUSY, done.stderr.strip() or "fusermount3 -u -z failed", path)
    return done.returncode == 0


def real_path(path: Path) -> Path:
    """As the mount table has it. The last part is not resolved: a mount point must not be a symbolic link."""
    return path.absolute().parent.resolve() / path.name


def _checked_point(path: Path) -> MountPoint:
    if _minor_of(path) is not None:
        raise MountRefused(f"{path}: something is mounted here already; if it is a dead drive: `fsdriver umount`")
    try:
        return MountPoint(path)
    except OSError as exc:
        if exc.errno == errno.ENOTEMPTY:
            raise MountRefused(f"{path}: the mount point is not empty") from exc
        raise MountRefused(f"{path}: {exc.strerror}") from exc


def _by_root(path: Path, source: str, exec_allowed: bool, allow_other: bool) -> int:
    try:
        device = os.open(_DEVICE, os.O_RDWR | os.O_CLOEXEC)
    except OSError as exc:
        raise MountRefused(f"{_DEVICE}: {exc.strerror}: the kernel has no FUSE; try: modprobe fuse") from exc
    options = [f"fd={device}", f"rootmode={_ROOT_MODE}", "user_id=0", "group_id=0", "default_permissions"]
    options += [f"max_read={MAX_WRITE}", *(["allow_other"] if allow_other else [])]
    flags = syscalls.MS_NOSUID | syscalls.MS_NODEV | (0 if exec_allowed else syscalls.MS_NOEXEC)
    try:
        syscalls.mount(source, str(path), f"fuse.{SUBTYPE}", flags, ",".join(options))
    except OSError as exc:
        os.close(device)
        raise MountRefused(f"{path}: {exc.strerror}") from exc
    return device


def _by_helper(path: Path, source: str, exec_allowed: bool, allow_other: bool) -> int:
    helper = _helper()
    if not os.access(_DEVICE, os.R_OK | os.W_OK):
        raise MountRefused(f"{_DEVICE} is not open to plain users; root must run: chmod 0666 {_DEVICE}")
    escaped = source.replace("\\", "\\\\").replace(",", "\\,")
    options = [f"fsname={escaped}", f"subtype={SUBTYPE}", "default_permissions", f"max_read={MAX_WRITE}"]
    options += ["nosuid", "nodev", *([] if exec_allowed else ["noexec"]), *(["allow_other"] if allow_other else [])]
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with ours, theirs:
        done = subprocess.run(
            [helper, "-o", ",".join(options), "--", str(path)],
            pass_fds=[theirs.fileno()],
            env={**os.environ, "_FUSE_COMMFD": str(theirs.fileno())},
            capture_output=True,
            text=True,
            timeout=_FUSERMOUNT_SECONDS,
        )
        if done.returncode:
            raise MountRefused(f"{path}: {done.stderr.strip() or 'fusermount3 failed'}")
        return _received_descriptor(ours)


def _helper() -> str:
    helper = shutil.which("fusermount3")
    if helper is None:
        raise MountRefused("fusermount3 is missing; root must run: apt-get install fuse3")
    return helper


def _received_descriptor(connection: socket.socket) -> int:
    connection.settimeout(_FUSERMOUNT_SECONDS)
    _, control, _, _ = connection.recvmsg(1, socket.CMSG_LEN(array.array("i").itemsize), socket.MSG_CMSG_CLOEXEC)
    for level, kind, data in control:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            return array.array("i", data[:4])[0]
    raise MountRefused("fusermount3 sent no descriptor")


def _minor_of(path: Path) -> int | None:
    """The device minor of the topmost FUSE mount at `path`, from the mount table alone."""
    minor = None
    wanted = os.fsencode(path)
    for line in Path("/proc/self/mountinfo").read_bytes().splitlines():
        fields = line.split(b" ")
        if _unescaped(fields[4]) == wanted:
            minor = int(fields[2].split(b":")[1]) if b" - fuse" in line else None
    return minor


def _unescaped(field: bytes) -> bytes:
    return field.replace(b"\\040", b" ").replace(b"\\011", b"\t").replace(b"\\012", b"\n").replace(b"\\134", b"\\")
