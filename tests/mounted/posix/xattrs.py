"""Extended attributes: names, sizes, flags and errors."""

import ctypes
import errno
import os
import subprocess
from pathlib import Path

from tests.mounted.posix.support import DANA, as_uid, libc, make, opened, refused

ACL = bytes.fromhex("0200000001000600ffffffff02000600e803000004000400ffffffff10000600ffffffff20000400ffffffff")
"""u::rw-,u:1000:rw-,g::r--,m::rw-,o::r--"""


def read_into(path: Path, name: str, size: int) -> int:
    """getxattr(2) with a buffer of `size`: the value's length."""
    got = int(libc.getxattr(os.fsencode(path), name.encode(), ctypes.create_string_buffer(size), size))
    if got < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return got


def list_into(path: Path, size: int) -> int:
    """listxattr(2) with a buffer of `size`: the length of the names."""
    got = int(libc.listxattr(os.fsencode(path), ctypes.create_string_buffer(size), size))
    if got < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return got


def check_a_buffer_too_small_is_erange_and_none_asks_for_the_length(top: Path) -> None:
    path = make(top / "f", b"x")
    os.setxattr(path, "user.a", b"0123456789")
    os.setxattr(path, "user.empty", b"")
    assert read_into(path, "user.a", 0) == 10
    assert read_into(path, "user.a", 10) == 10
    assert read_into(path, "user.a", 1000) == 10
    assert read_into(path, "user.empty", 0) == read_into(path, "user.empty", 5) == 0
    with refused(errno.ERANGE):
        read_into(path, "user.a", 9)
    assert list_into(path, 0) == list_into(path, 18) == len(b"user.a\0user.empty\0")
    with refused(errno.ERANGE):
        list_into(path, 17)


def check_xattr_names_of_255_bytes_and_many_of_them(top: Path) -> None:
    path = make(top / "f", b"x")
    long = "user." + "n" * 250
    os.setxattr(path, long, b"value")
    assert os.getxattr(path, long) == b"value"
    with refused(errno.ERANGE):
        os.setxattr(path, long + "n", b"value")
    with refused(errno.EINVAL, errno.EOPNOTSUPP):
        os.setxattr(path, "user.", b"value")
    os.removexattr(path, long)
    names = ["user.名", *(f"user.{number}" for number in range(40))]
    for name in names:
        os.setxattr(path, name, name.encode())
    assert sorted(os.listxattr(path)) == sorted(names)
    for name in names:
        assert os.getxattr(path, name) == name.encode()
    assert path.read_bytes() == b"x"


def check_xattr_values_as_long_as_a_block_takes_and_longer(top: Path) -> None:
    path = make(top / "f", b"x")
    value = os.urandom(4000)
    os.setxattr(path, "user.v", value)
    assert os.getxattr(path, "user.v") == value
    os.setxattr(path, "user.v", value[:10])
    with refused(errno.ENOSPC, errno.E2BIG):
        os.setxattr(path, "user.v", bytes(65536))
    with refused(errno.E2BIG):
        os.setxattr(path, "user.v", bytes(65537))
    assert os.getxattr(path, "user.v") == value[:10]
    os.setxattr(path, "user.v", b"", os.XATTR_REPLACE)
    assert os.getxattr(path, "user.v") == b""


def check_xattrs_through_descriptors_by_links_and_by_whom(top: Path) -> None:
    path = make(top / "f", b"x", 0o644)
    with opened(path) as fd:  # the mode decides, not how it was opened
        os.setxattr(fd, "user.a", b"value")
        os.unlink(path)
        assert os.getxattr(fd, "user.a") == b"value"
        assert os.listxattr(fd) == ["user.a"]
    path = make(path, b"another")
    assert os.listxattr(path) == []
    os.setxattr(path, "user.a", b"value")
    os.symlink("f", top / "s")
    assert os.getxattr(top / "s", "user.a") == b"value"
    with refused(errno.EPERM):
        os.setxattr(top / "s", "user.b", b"", follow_symlinks=False)

    def dana() -> None:
        assert os.getxattr(path, "user.a") == b"value"
        with refused(errno.EACCES):
            os.setxattr(path, "user.a", b"hers")
        with refused(errno.EACCES):
            os.removexattr(path, "user.a")

    os.chmod(top, 0o755)
    as_uid(DANA, dana)
    make(path, b"overwritten")
    assert os.getxattr(path, "user.a") == b"value"


def check_acls_are_kept_or_refused_clearly(top: Path) -> None:
    path = make(top / "f", b"x", 0o644)
    for target, name in ((path, "access"), (top, "access"), (top, "default")):
        with refused(errno.ENODATA, errno.EOPNOTSUPP):
            os.getxattr(target, f"system.posix_acl_{name}")
    try:
        os.setxattr(path, "system.posix_acl_access", ACL)
    except OSError as exc:
        assert exc.errno == errno.EOPNOTSUPP
        assert oct(path.stat().st_mode & 0o777) == "0o644"
    else:
        assert os.getxattr(path, "system.posix_acl_access") == ACL


def check_ls_and_cp_ask_for_acls_and_are_content(top: Path) -> None:
    path = make(top / "f", b"content", 0o640)
    os.setxattr(path, "user.a", b"value")
    for command in (["ls", "-la", str(top)], ["ls", "-lZ", str(path)]):
        result = subprocess.run(command, capture_output=True, text=True)
        assert (result.returncode, result.stderr) == (0, "")
        assert "-rw-r-----" in result.stdout
        assert "-rw-r-----+" not in result.stdout
