"""The ciphertext view is a filesystem too: what backup programs carry away is whole, and opens when it is back."""

import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fsdriver.content import FileKey, Header, SealedFile, wrap
from tests.mounted.harness import COMPANY
from tests.mounted.mounted import MAGIC, Mounted, listed, remove, run, temporary_directory, wait_until

pytestmark = pytest.mark.mounted

MAKE = """
import os, sys
from pathlib import Path
top = Path(sys.argv[1]); (top / "folder" / "inner").mkdir(parents=True)
(top / "small").write_bytes(b"small")
(top / "empty").touch()
(top / "folder" / "large").write_bytes(bytes(range(256)) * 9000 + b"!")
with open(top / "holes", "wb") as file:
    file.write(b"begin"); file.seek(9 << 20); file.write(b"middle"); file.truncate(30 << 20)
os.setxattr(top / "small", "user.a", b"value"); os.setxattr(top / "small", "user.empty", b"")
os.link(top / "small", top / "folder" / "inner" / "same")
os.symlink("folder/large", top / "link")
os.chmod(top / "small", 0o640)
for number, name in enumerate(["small", "empty", "folder/large", "holes"]):
    os.utime(top / name, ns=(10**18, 10**18 + number * 1000 + 7))
"""
SEEN = """
import hashlib, os, sys
for folder, folders, names in os.walk(sys.argv[1]):
    folders.sort()
    for name in sorted(names):
        path = os.path.join(folder, name)
        found = os.lstat(path)
        content = os.readlink(path) if os.path.islink(path) else hashlib.sha256(open(path, "rb").read()).hexdigest()
        print(os.path.relpath(path, sys.argv[1]), oct(found.st_mode), found.st_size, found.st_nlink, content)
        if not os.path.islink(path):
            print(found.st_mtime_ns)
"""
ATTRIBUTES = """
import os, sys
path = sys.argv[1]
print({name: os.getxattr(path, name) for name in sorted(os.listxattr(path))})
"""
VALUES = "{'user.a': b'value', 'user.empty': b''}"

Copy = Callable[[Path, Path, Path], None]
"""From a folder to one that is not there yet, by programs in the third."""


def by_tar(source: Path, target: Path, programs: Path) -> None:
    archive = programs / "archive"
    run([programs / "tar", "--xattrs", "--sparse", "-C", source, "-cf", archive, "."])
    target.mkdir(exist_ok=True)
    run([programs / "tar", "--xattrs", "--xattrs-include=user.*", "-C", target, "-xf", archive])


def by_tar_without_attributes(source: Path, target: Path, programs: Path) -> None:
    archive = programs / "archive"
    run([programs / "tar", "--format=posix", "--sparse", "-C", source, "-cf", archive, "."])
    target.mkdir(exist_ok=True)
    run([programs / "tar", "-C", target, "-xf", archive])


def by_rsync(source: Path, target: Path, programs: Path) -> None:
    run([programs / "rsync", "-aXHS", f"{source}/", target])


def by_rsync_without_attributes(source: Path, target: Path, programs: Path) -> None:
    run([programs / "rsync", "-aHS", f"{source}/", target])


def by_cp(source: Path, target: Path, programs: Path) -> None:
    output = run([programs / "cp", "--recursive", "--preserve=all", "--no-target-directory", source, target])
    assert output == "", "cp goes on after attributes that it could not set"


def by_restic(source: Path, target: Path, programs: Path) -> None:
    """restic opens a file anew for each piece that it has."""
    repository = tempfile.mkdtemp(dir=programs)
    restic = [programs / "restic", "--repo", repository, "--no-cache", "--password-command", "/usr/bin/echo secret"]
    run([*restic, "init"])
    run([*restic, "backup", "."], cwd=source)
    run([*restic, "restore", "latest", "--target", target])


@pytest.fixture(scope="module")
def programs() -> Iterator[Path]:
    """Backup programs where no policy lists them."""
    directory = temporary_directory()
    for name in ("tar", "rsync", "cp", "restic", "setfattr"):
        shutil.copy(f"/usr/bin/{name}", directory)
    yield directory
    remove(directory)


@pytest.fixture
def disk() -> Iterator[Path]:
    directory = temporary_directory()
    yield directory
    remove(directory)


def test_a_backup_has_sealed_files_with_their_sizes_times_links_holes_and_attributes(
    either: Mounted, programs: Path, disk: Path
) -> None:
    source = either.drive / "backed-up"
    listed(MAKE, source)
    for copy in (by_tar, by_rsync, by_cp, by_restic):
        kept = disk / copy.__name__
        copy(source, kept, programs)
        for path in (path for path in source.rglob("*") if stat.S_ISREG(path.lstat().st_mode)):
            copied, stored = kept / path.relative_to(source), either.store / path.relative_to(either.drive)
            assert copied.read_bytes() == path.read_bytes() == stored.read_bytes()
            assert copied.read_bytes().startswith(MAGIC)
            assert copied.stat().st_size == path.stat().st_size
            assert copied.stat().st_mtime_ns == path.stat().st_mtime_ns
            assert sorted(os.listxattr(copied)) == sorted(os.listxattr(path))
            for attribute in os.listxattr(path):
                assert os.getxattr(copied, attribute) == os.getxattr(path, attribute)
        assert os.listxattr(kept / "small")
        assert b"value" not in os.getxattr(kept / "small", "user.a")
        assert (kept / "small").samefile(kept / "folder" / "inner" / "same")
        if copy is not by_restic:
            assert (kept / "holes").stat().st_blocks * 512 < 4 << 20


WITH_ATTRIBUTES = [by_tar, by_rsync, by_cp, by_restic]


@pytest.mark.parametrize("copy", [*WITH_ATTRIBUTES, by_tar_without_attributes, by_rsync_without_attributes])
def test_a_backup_restored_through_the_drive_opens_again(
    either: Mounted, programs: Path, disk: Path, copy: Copy
) -> None:
    source, restored = either.drive / copy.__name__, either.drive / f"{copy.__name__}-restored"
    listed(MAKE, source)
    copy(source, disk / "kept", programs)
    copy(disk / "kept", restored, programs)
    assert listed(SEEN, restored) == listed(SEEN, source)
    for name in ("small", "empty", "folder/large", "holes"):
        assert (restored / name).read_bytes() == (source / name).read_bytes(), name
    if copy in WITH_ATTRIBUTES:
        assert listed(ATTRIBUTES, restored / "small").strip() == VALUES
        assert os.getxattr(restored / "small", "user.a") == os.getxattr(source / "small", "user.a")


@pytest.mark.parametrize("copy", [by_tar, by_rsync, by_cp])
def test_a_backup_restored_over_what_was_changed_since_brings_contents_and_attributes_back(
    either: Mounted, programs: Path, disk: Path, copy: Copy
) -> None:
    tree = either.drive / f"{copy.__name__}-over"
    listed(MAKE, tree)
    before = listed(SEEN, tree)
    copy(tree, disk / "kept", programs)
    (tree / "link").unlink()
    listed(
        "import os, sys; os.chdir(sys.argv[1])\n"
        "open('folder/large', 'w').write('less'); open('small', 'a').write('!')\n"
        "os.setxattr('small', 'user.a', b'another'); os.removexattr('small', 'user.empty')\n"
        "for name in ('small', 'folder/large'): os.utime(name)",
        tree,
    )
    copy(disk / "kept", tree, programs)
    assert listed(SEEN, tree) == before
    assert listed(ATTRIBUTES, tree / "small").strip() == VALUES


def test_attributes_alone_come_back_where_the_content_is_the_same(either: Mounted, programs: Path, disk: Path) -> None:
    tree = either.drive / "attributes-alone"
    listed(MAKE, tree)
    by_rsync(tree, disk / "kept", programs)
    script = "import os, sys; os.setxattr(sys.argv[1], 'user.a', b'another'); os.setxattr(sys.argv[1], 'user.new', b'')"
    listed(script, tree / "small")
    by_rsync(disk / "kept", tree, programs)
    assert listed(ATTRIBUTES, tree / "small").strip() == VALUES
    value = os.getxattr(disk / "kept" / "small", "user.a").hex()
    listed("import os, sys; os.removexattr(sys.argv[1], 'user.a')", tree / "small")
    run([programs / "setfattr", "-n", "user.a", "-v", f"0x{value}", tree / "small"])
    assert listed(ATTRIBUTES, tree / "small").strip() == VALUES


@pytest.mark.parametrize("copy", WITH_ATTRIBUTES)
def test_what_no_key_is_here_for_comes_back_too(either: Mounted, programs: Path, disk: Path, copy: Copy) -> None:
    """It cannot be verified, and is unpacked after its close, for which nobody waits."""
    listed("import sys; open(sys.argv[1], 'w').close()", either.drive / "any")
    label = Header.parse((either.store / "any").read_bytes()).label
    kept, restored = disk / "kept", either.drive / f"{copy.__name__}-no-key"
    kept.mkdir()
    for number in range(20):
        seal_under_a_key_of_nobody(kept / f"file{number}", label, os.urandom(number * 30_000))
    copy(kept, restored, programs)
    for path in kept.iterdir():
        stored = either.store / restored.name / path.name
        wait_until(lambda path=path, stored=stored: stored.read_bytes() == path.read_bytes())
        assert os.getxattr(stored, "user.a") == os.getxattr(path, "user.a")
        assert stored.stat().st_mtime_ns == path.stat().st_mtime_ns


@pytest.mark.parametrize("copy", WITH_ATTRIBUTES)
def test_plain_files_that_are_put_into_the_drive_have_their_attributes_there(
    either: Mounted, programs: Path, disk: Path, copy: Copy
) -> None:
    tree, target = disk / "plain", either.drive / f"{copy.__name__}-plain"
    listed(MAKE, tree)
    copy(tree, target, programs)
    assert listed(SEEN, target) == listed(SEEN, tree)
    assert listed(ATTRIBUTES, target / "small").strip() == VALUES
    assert b"value" not in os.getxattr(either.store / target.name / "small", "user.a")


def seal_under_a_key_of_nobody(path: Path, label: bytes, content: bytes) -> None:
    file_id, key = os.urandom(16), FileKey.generate()
    slot = wrap(key, os.urandom(32), file_id=file_id, company=COMPANY, label=label, key_id=bytes(16), version=1)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
    file = SealedFile.create(fd, file_id=file_id, company=COMPANY, label=label, file_key=key, slots=[slot])
    file.write(0, content)
    file.flush()
    os.setxattr(fd, "user.a", file.seal_xattr(b"user.a", b"value"))
    file.close()


@pytest.mark.parametrize("copy", WITH_ATTRIBUTES)
def test_a_backup_restored_into_the_store_opens_again_with_its_attributes(
    own: Mounted, programs: Path, disk: Path, copy: Copy
) -> None:
    own.start()
    listed(MAKE, own.drive / "tree")
    seen = listed(SEEN, own.drive / "tree")
    copy(own.drive / "tree", disk / "kept", programs)
    own.stop()
    shutil.rmtree(own.store / "tree")
    copy(disk / "kept", own.store / "tree", programs)
    own.start()
    assert listed(SEEN, own.drive / "tree") == seen
    assert listed(ATTRIBUTES, own.drive / "tree" / "small").strip() == VALUES
    own.stop()
