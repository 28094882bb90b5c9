"""The system calls that Python does not have: mount, umount2, the detached fusectl mount, io_uring."""

import ctypes
import errno
import os

_libc = ctypes.CDLL(None, use_errno=True)
_syscall = _libc.syscall
_syscall.restype = ctypes.c_long

MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MNT_DETACH = 2
UMOUNT_NOFOLLOW = 8

_SYS_IO_URING_SETUP = 425
_SYS_FSOPEN = 430
_SYS_FSCONFIG = 431
_SYS_FSMOUNT = 432
_FSOPEN_CLOEXEC = 1
_FSMOUNT_CLOEXEC = 1
_FSCONFIG_CMD_CREATE = 6


def _checked(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def mount(source: str, target: str, kind: str, flags: int, options: str) -> None:
    result = _libc.mount(
        os.fsencode(source), os.fsencode(target), kind.encode(), ctypes.c_ulong(flags), os.fsencode(options)
    )
    _checked(result, f"mount on {target}")


def umount(target: str, flags: int) -> None:
    _checked(_libc.umount2(os.fsencode(target), flags), f"umount of {target}")


def detached_mount(kind: str) -> int:
    """A mount of a pseudo filesystem that is in no tree: only this process, by the descriptor returned, sees it."""
    context = _checked(_syscall(_SYS_FSOPEN, kind.encode(), _FSOPEN_CLOEXEC), f"fsopen {kind}")
    try:
        _checked(_syscall(_SYS_FSCONFIG, context, _FSCONFIG_CMD_CREATE, None, None, 0), f"fsconfig {kind}")
        return _checked(_syscall(_SYS_FSMOUNT, context, _FSMOUNT_CLOEXEC, 0), f"fsmount {kind}")
    finally:
        os.close(context)


def io_uring_setup(entries: int, parameters: bytearray) -> int:
    """The ring's descriptor; `parameters` is a struct io_uring_params (120 bytes), filled by the kernel."""
    block = (ctypes.c_char * len(parameters)).from_buffer(parameters)
    return _checked(_syscall(_SYS_IO_URING_SETUP, entries, block), "io_uring_setup")


class RingEnter:
    """io_uring_enter(2) of one ring with everything prepared: it is called once a request."""

    def __init__(self, ring: int) -> None:
        enter = ctypes.CDLL(None, use_errno=True).syscall
        enter.restype = ctypes.c_long
        enter.argtypes = (ctypes.c_long, *(ctypes.c_uint,) * 4, ctypes.c_void_p, ctypes.c_size_t)
        self._enter = enter
        self._ring = ring

    def __call__(self, submit: int, wait: int) -> int:
        """Submit so many entries and wait for so many completions. EINTR counts as nothing submitted."""
        submitted: int = self._enter(426, self._ring, submit, wait, 1, None, 0)
        if submitted < 0:
            number = ctypes.get_errno()
            if number in (errno.EINTR, errno.EAGAIN, errno.EBUSY):
                return 0
            raise OSError(number, f"io_uring_enter: {os.strerror(number)}")
        return submitted
