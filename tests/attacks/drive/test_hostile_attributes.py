"""Programs with the ciphertext view may bring sealed attributes back. They give no file a value that it never had, and
go on with no file that is not their own and unfinished."""

import errno
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.mounted.mounted import Mounted, get, listed, put, run, unlisted_python

pytestmark = pytest.mark.mounted

SET = "import os, sys; os.setxattr(sys.argv[1], sys.argv[2], sys.argv[3].encode())"
VALUES = "import os, sys; p = sys.argv[1]; print({n: os.getxattr(p, n) for n in sorted(os.listxattr(p))})"


@pytest.fixture
def folder(mounted: Mounted, request: pytest.FixtureRequest) -> Path:
    path: Path = mounted.drive / re.sub(r"\W", "-", request.node.name)[-80:]
    path.mkdir()
    return path


def tagged(path: Path, value: str, content: str = "content") -> Path:
    put(path, content)
    listed(SET, path, "user.tag", value)
    return path


def values(path: Path) -> str:
    return listed(VALUES, path).strip()


def refused(number: int, change: Callable[[], object]) -> None:
    with pytest.raises(OSError, match=os.strerror(number)):
        change()


def test_no_value_of_another_file_another_name_or_another_hand_is_taken(folder: Path) -> None:
    mine, other = tagged(folder / "mine", "mine"), tagged(folder / "other", "approved")
    own = os.getxattr(mine, "user.tag")
    forged = [
        os.getxattr(other, "user.tag"),
        own[:-1],
        own[:-1] + bytes([own[-1] ^ 1]),
        own + b"0",
        bytes(40),
        b"",
        b"x",
    ]
    for value in forged:
        refused(errno.EINVAL, lambda value=value: os.setxattr(mine, "user.tag", value))  # type: ignore[misc]
    refused(errno.EINVAL, lambda: os.setxattr(mine, "user.tag2", own))
    assert values(mine) == "{'user.tag': b'mine'}"
    os.setxattr(mine, "user.tag", own)
    assert values(mine) == "{'user.tag': b'mine'}"


def test_the_attributes_of_a_file_that_may_not_be_replaced_stay_as_they_are(mounted: Mounted) -> None:
    kept = mounted.drive / "kept"
    kept.mkdir(exist_ok=True)
    path = tagged(kept / "file", "old")
    old = os.getxattr(path, "user.tag")
    listed(SET, path, "user.tag", "new")
    refused(errno.EACCES, lambda: os.setxattr(path, "user.tag", old))
    refused(errno.EACCES, lambda: os.removexattr(path, "user.tag"))
    refused(errno.EACCES, lambda: os.open(path, os.O_WRONLY | os.O_TRUNC))
    assert values(path) == "{'user.tag': b'new'}"
    denied = [record for record in mounted.records("denied") if record.file and record.file.path == "/kept/file"]
    assert len(denied) >= 3


def test_where_files_may_be_made_and_not_replaced_a_restore_keeps_its_attributes(mounted: Mounted) -> None:
    """And whoever made it has no say in them once it is finished."""
    kept = mounted.drive / "kept"
    kept.mkdir(exist_ok=True)
    source = tagged(kept / "source", "value")
    value, content = os.getxattr(source, "user.tag"), source.read_bytes()
    fd = os.open(kept / "restored", os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    os.setxattr(fd, "user.tag", value)
    os.write(fd, content)
    os.close(fd)
    assert values(kept / "restored") == "{'user.tag': b'value'}"
    refused(errno.EACCES, lambda: os.setxattr(kept / "restored", "user.tag", value))
    refused(errno.EACCES, lambda: os.removexattr(kept / "restored", "user.tag"))


def test_what_is_not_the_restored_files_own_is_left_out_and_recorded(mounted: Mounted, folder: Path) -> None:
    source, other = tagged(folder / "source", "value"), tagged(folder / "other", "approved")
    with open(folder / "restored", "xb") as restored:
        os.setxattr(restored.fileno(), "user.tag", os.getxattr(other, "user.tag"))
        os.setxattr(restored.fileno(), "user.more", b"plain words")
        restored.write(source.read_bytes())
    assert values(folder / "restored") == "{}"
    assert get(folder / "restored") == "content"
    closed = [r for r in mounted.records("close") if r.file and r.file.path == f"/{folder.name}/restored"]
    assert "user.more, user.tag" in closed[0].detail or "user.tag, user.more" in closed[0].detail


def test_attributes_of_content_that_is_not_sealed_are_sealed_as_it_is(mounted: Mounted, folder: Path) -> None:
    with open(folder / "download", "xb") as download:
        os.setxattr(download.fileno(), "user.xdg.origin.url", b"https://example.com/canary")
        stored = os.getxattr(mounted.store / folder.name / "download", "user.xdg.origin.url")
        download.write(b"downloaded")
    assert b"canary" not in stored
    assert values(folder / "download") == "{'user.xdg.origin.url': b'https://example.com/canary'}"


def test_a_replaced_file_keeps_its_attributes_where_it_comes_back_itself(folder: Path, tmp_path: Path) -> None:
    path = tagged(folder / "file", "value")
    shutil.copyfile(path, tmp_path / "backup")
    put(path, "changed")
    run(["cp", tmp_path / "backup", path])
    assert (get(path), values(path)) == ("content", "{'user.tag': b'value'}")
    (tmp_path / "plain").write_text("another")
    run(["cp", tmp_path / "plain", path])
    assert (get(path), values(path)) == ("another", "{}")


# ---- going on with a file ------------------------------------------------------------------------------------------


def test_a_file_may_be_made_and_filled_piece_by_piece(folder: Path) -> None:
    source = tagged(folder / "source", "value")
    listed("import os, sys; open(sys.argv[1], 'ab').write(os.urandom(300_000))", source)
    sealed = source.read_bytes()
    os.mknod(folder / "copy", 0o644)
    os.setxattr(folder / "copy", "user.tag", os.getxattr(source, "user.tag"))
    middle = len(sealed) // 2
    for start, end in ((middle, len(sealed)), (0, middle)):
        fd = os.open(folder / "copy", os.O_WRONLY)
        os.pwrite(fd, sealed[start:end], start)
        os.close(fd)
    assert (folder / "copy").read_bytes() == sealed
    assert values(folder / "copy") == "{'user.tag': b'value'}"
    refused(errno.EACCES, lambda: os.open(folder / "copy", os.O_WRONLY))


def test_nobody_but_its_maker_goes_on_with_a_file(mounted: Mounted, folder: Path) -> None:
    (folder / "file").write_bytes(b"unfinished")
    for change in ("os.open(sys.argv[1], os.O_WRONLY)", "os.setxattr(sys.argv[1], 'user.x', b'x' * 40)"):
        output = run([unlisted_python(), "-I", "-c", f"import os, sys; {change}", folder / "file"], check=False)
        assert "Permission denied" in output or "Invalid argument" in output
    fd = os.open(folder / "file", os.O_WRONLY)
    os.write(fd, b"UN")
    os.close(fd)
    assert get(folder / "file") == "UNfinished"


@pytest.mark.parametrize("change", ["open(sys.argv[1], 'a').write('!')", "os.setxattr(sys.argv[1], 'user.x', b'1')"])
def test_its_maker_does_not_go_on_with_what_a_listed_program_has_touched(folder: Path, change: str) -> None:
    (folder / "file").write_bytes(b"unfinished")
    listed(f"import os, sys; {change}", folder / "file")
    refused(errno.EACCES, lambda: os.open(folder / "file", os.O_WRONLY))
    refused(errno.EINVAL, lambda: os.setxattr(folder / "file", "user.x", b"2"))
    refused(errno.EACCES, lambda: os.open(folder / "file", os.O_WRONLY | os.O_APPEND))


def test_what_only_looks_like_a_sealed_file_is_not_copied_at_every_close(folder: Path) -> None:
    source = tagged(folder / "source", "value")
    listed("import os, sys; open(sys.argv[1], 'ab').write(os.urandom(300_000))", source)
    sealed = source.read_bytes()
    (folder / "copy").write_bytes(sealed[:-1] + bytes([sealed[-1] ^ 1]))

    def go_on_again_and_again() -> None:
        for _ in range(100):
            fd = os.open(folder / "copy", os.O_WRONLY)
            os.pwrite(fd, sealed[:1], 0)
            os.close(fd)

    refused(errno.EACCES, go_on_again_and_again)


def test_access_control_lists_are_said_not_to_be_there(mounted: Mounted, folder: Path, tmp_path: Path) -> None:
    put(folder / "file", "content")
    for name in ("system.posix_acl_access", "system.posix_acl_default", "trusted.x", "security.x"):
        for path in (folder, folder / "file"):
            refused(errno.EOPNOTSUPP, lambda path=path, name=name: os.setxattr(path, name, b"x" * 40))  # type: ignore[misc]
            refused(errno.EOPNOTSUPP, lambda path=path, name=name: os.getxattr(path, name))  # type: ignore[misc]
    acl = bytes.fromhex("0200000001000700ffffffff0400050000000000200005 00ffffffff".replace(" ", ""))
    refused(errno.EOPNOTSUPP, lambda: os.setxattr(folder, "system.posix_acl_default", acl))
    done = subprocess.run(["/usr/bin/dash", "-c", "umask 027; > new; mkdir inner"], cwd=folder, check=True)
    assert done.returncode == 0
    assert (folder / "new").stat().st_mode & 0o777 == 0o640
    assert (folder / "inner").stat().st_mode & 0o777 == 0o750
