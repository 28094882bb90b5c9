"""What unlisted programs bring into the drive, take out of it, and may not do to it."""

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from fsdriver.content import Header
from tests.mounted.mounted import LISTED, MAGIC, SECONDS, Mounted, get, listed, put, run, unlisted_python, wait_until

pytestmark = pytest.mark.mounted


def label(path: Path) -> str:
    """The label in a sealed file's own header."""
    return Header.parse(path.read_bytes()[:4096]).label.rstrip(b"\0").decode()


@pytest.fixture
def folder(mounted: Mounted, request: pytest.FixtureRequest) -> Path:
    path = mounted.drive / str(request.node.name)[:80]
    path.mkdir()
    return path


@pytest.fixture(scope="module")
def clients(mounted: Mounted) -> Path:
    path = mounted.drive / "clients"
    path.mkdir()
    return path


def sh(command: str, cwd: Path) -> str:
    """A line of an unlisted shell."""
    return run(["/usr/bin/dash", "-c", command], cwd=cwd)


# ---- out and back ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 5, 32_768, 100_000, 3_000_000])
def test_a_document_copied_out_and_back_is_the_document_under_its_own_label(
    mounted: Mounted, folder: Path, clients: Path, tmp_path: Path, size: int
) -> None:
    document = "0123456789abcdef" * (size // 16) + "x" * (size % 16)
    original = clients / f"out-{size}"
    put_big(original, document)
    run(["cp", original, tmp_path / "outside"])
    assert (tmp_path / "outside").read_bytes() == (mounted.store / "clients" / original.name).read_bytes()
    run(["cp", tmp_path / "outside", folder / "back"])
    assert get(folder / "back") == document
    assert label(folder / "back") == "office/clients"
    assert (folder / "back").read_bytes() == (tmp_path / "outside").read_bytes()


def put_big(path: Path, text: str) -> None:
    """Too long for an argument."""
    script = "import sys, pathlib; pathlib.Path(sys.argv[1]).write_bytes(sys.stdin.buffer.read())"
    subprocess.run([LISTED, "-I", "-c", script, str(path)], input=text.encode(), check=True, timeout=SECONDS)


def test_a_sealed_file_can_be_put_back_over_the_document_itself(folder: Path, tmp_path: Path) -> None:
    put(folder / "f", "first version")
    run(["cp", folder / "f", tmp_path / "backup"])
    put(folder / "f", "second version")
    run(["cp", tmp_path / "backup", folder / "f"])
    assert get(folder / "f") == "first version"


def test_a_sealed_file_cut_short_is_content_like_any_other(folder: Path, tmp_path: Path) -> None:
    put(folder / "f", "document")
    run(["cp", folder / "f", tmp_path / "f"])
    os.truncate(tmp_path / "f", 4100)
    run(["cp", tmp_path / "f", folder / "back"])
    assert listed("import sys; print(len(open(sys.argv[1], 'rb').read()))", folder / "back").strip() == "4100"


def test_what_a_listed_program_writes_is_content_even_with_a_header(folder: Path, tmp_path: Path) -> None:
    put(folder / "f", "document")
    run(["cp", folder / "f", tmp_path / "f"])
    script = "import sys; open(sys.argv[2], 'wb').write(open(sys.argv[1], 'rb').read())"
    listed(script, tmp_path / "f", folder / "twice")
    assert (folder / "twice").stat().st_size > (tmp_path / "f").stat().st_size
    sealed = listed("import sys; print(open(sys.argv[1], 'rb').read(8))", folder / "twice")
    assert repr(MAGIC) in sealed


def test_cp_a_of_a_tree_out_and_back(folder: Path, tmp_path: Path) -> None:
    listed(
        "import os, sys\n"
        "top = sys.argv[1]\n"
        "for n in range(20):\n"
        "    os.makedirs(f'{top}/tree/d{n % 3}', exist_ok=True)\n"
        "    path = f'{top}/tree/d{n % 3}/f{n}'\n"
        "    open(path, 'w').write(f'document {n} ' * n * 500)\n"
        "    os.utime(path, ns=(10**18 + n, 10**18 + n)); os.chmod(path, 0o600 + n % 8)\n"
        "os.symlink('d0/f0', f'{top}/tree/link'); os.link(f'{top}/tree/d0/f0', f'{top}/tree/hard')\n",
        folder,
    )
    run(["cp", "-a", folder / "tree", tmp_path / "tree"])
    assert not [path for path in files(tmp_path / "tree") if not path.read_bytes().startswith(MAGIC)]
    run(["cp", "-a", tmp_path / "tree", folder / "again"])
    assert tree_of(folder / "again") == tree_of(folder / "tree")


def files(top: Path) -> list[Path]:
    return [path for path in top.rglob("*") if path.is_file() and not path.is_symlink()]


def tree_of(top: Path) -> str:
    """Everything about a tree that a copy keeps, as a listed program sees it."""
    return listed(
        "import os, sys, hashlib\n"
        "for path, folders, names in sorted(os.walk(sys.argv[1])):\n"
        "    for name in sorted(folders + names):\n"
        "        full = os.path.join(path, name); s = os.lstat(full)\n"
        "        content = os.readlink(full) if os.path.islink(full) else '' if os.path.isdir(full) else "
        "hashlib.sha256(open(full, 'rb').read()).hexdigest()\n"
        "        when = '' if os.path.isdir(full) else s.st_mtime_ns\n"
        "        size = '' if os.path.isdir(full) else s.st_size\n"
        "        name = os.path.relpath(full, sys.argv[1])\n"
        "        print(name, oct(s.st_mode), s.st_uid, s.st_nlink, when, size, content)\n",
        top,
    )


@pytest.mark.parametrize("tool", ["tar", "rsync"])
def test_a_backup_by_an_unlisted_program_is_sealed_and_restores_the_documents(
    folder: Path, tmp_path: Path, tool: str
) -> None:
    for name, size in (("a", 10), ("b", 40_000), ("c", 200_000)):
        put_big(folder / name, name * size)
    program = tmp_path / tool  # elsewhere, so not the listed one
    shutil.copy2(f"/usr/bin/{tool}", program)
    before = tree_of(folder)
    if tool == "tar":
        run([program, "-C", folder, "--format=posix", "-cf", tmp_path / "backup.tar", "."])
        assert b"aaaaaaaaaa" not in (tmp_path / "backup.tar").read_bytes()
    else:
        run([program, "-a", f"{folder}/", tmp_path / "backup"])
        assert all(path.read_bytes().startswith(MAGIC) for path in files(tmp_path / "backup"))
    for name in "abc":
        os.unlink(folder / name)
    if tool == "tar":
        run([program, "-C", folder, "-xf", tmp_path / "backup.tar"])
    else:
        run([program, "-a", f"{tmp_path}/backup/", folder])
    assert tree_of(folder) == before


# ---- plain content dropped in ------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 4096, 32_768, 70_001])
def test_plain_content_dropped_in_is_sealed_and_readable_by_listed_programs(
    mounted: Mounted, folder: Path, tmp_path: Path, size: int
) -> None:
    (tmp_path / "plain").write_bytes(b"d" * size)
    run(["cp", tmp_path / "plain", folder / "f"])
    assert (folder / "f").read_bytes().startswith(MAGIC)
    assert (mounted.store / folder.name / "f").read_bytes().startswith(MAGIC)
    assert get(folder / "f") == "d" * size
    assert label(folder / "f") == "company/internal"


def test_its_folder_says_what_label_a_dropped_file_has(clients: Path, tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("for clients")
    run(["cp", tmp_path / "plain", clients / "dropped"])
    assert label(clients / "dropped") == "office/clients"
    assert get(clients / "dropped") == "for clients"


def test_the_writer_of_a_dropped_file_cannot_read_it_back(folder: Path) -> None:
    with open(folder / "f", "wb+", buffering=0) as file:
        file.write(b"content")
        assert os.fstat(file.fileno()).st_size == 7
        with pytest.raises(PermissionError):
            os.pread(file.fileno(), 7, 0)
        assert (folder / "f").read_bytes().startswith(MAGIC)
    assert get(folder / "f") == "content"


def test_replacing_by_an_unlisted_copy_gives_the_new_content_at_the_last_close(folder: Path, tmp_path: Path) -> None:
    path = folder / "f"
    put(path, "old content")
    fd = os.open(path, os.O_WRONLY | os.O_TRUNC)
    copy = os.dup(fd)
    try:
        assert get(path) == "old content"
        os.write(fd, b"new content")
        assert get(path) == "old content"
    finally:
        os.close(fd)
        os.close(copy)
    wait_until(lambda: get(path) == "new content")
    (tmp_path / "plain").write_text("by cp")
    run(["cp", tmp_path / "plain", path])
    assert get(path) == "by cp"
    assert sorted(os.listdir(folder)) == ["f"]


def test_a_replacement_keeps_mode_owner_and_the_higher_label(folder: Path, clients: Path, tmp_path: Path) -> None:
    put(clients / "f", "confidential")
    os.chmod(clients / "f", 0o640)
    os.chown(clients / "f", 1000, 1000)
    run(["mv", clients / "f", folder / "f"])
    (tmp_path / "plain").write_text("replaced")
    run(["cp", tmp_path / "plain", folder / "f"])
    found = (folder / "f").stat()
    assert (found.st_mode & 0o777, found.st_uid) == (0o640, 1000)
    assert label(folder / "f") == "office/clients"
    assert get(folder / "f") == "replaced"


@pytest.mark.parametrize("written", [b"", b"half of the new con"])
def test_a_writer_that_is_killed_leaves_the_old_file(mounted: Mounted, folder: Path, written: bytes) -> None:
    path = folder / "f"
    put(path, "old content")
    script = (
        "import os, sys, time\n"
        "fd = os.open(sys.argv[1], os.O_WRONLY | os.O_TRUNC); os.write(fd, sys.argv[2].encode())\n"
        "print('written', flush=True); time.sleep(1000)\n"
    )
    writer = subprocess.Popen([unlisted_python(), "-c", script, str(path), written.decode()], stdout=subprocess.PIPE)
    assert writer.stdout is not None
    with writer.stdout:
        writer.stdout.readline()
        writer.send_signal(signal.SIGKILL)
        writer.wait()
    wait_until(lambda: not os.listdir(mounted.store / ".grantfs" / "incoming"))
    assert get(path) == "old content"


def test_a_writer_that_exits_without_close_has_closed(folder: Path) -> None:
    put(folder / "f", "old")
    script = "import os, sys; os.write(os.open(sys.argv[1], os.O_WRONLY | os.O_TRUNC), b'new'); os._exit(3)"
    run([unlisted_python(), "-c", script, folder / "f"], check=False)
    wait_until(lambda: get(folder / "f") == "new")


# ---- shells --------------------------------------------------------------------------------------------------------


def test_shell_redirects(folder: Path) -> None:
    sh("echo one > f", folder)
    assert get(folder / "f") == "one\n"
    sh("echo two > f", folder)
    assert get(folder / "f") == "two\n"
    sh("{ echo a; /usr/bin/echo b; echo c; } > g", folder)
    assert get(folder / "g") == "a\nb\nc\n"
    sh("/usr/bin/seq 1 20000 > big", folder)
    assert get(folder / "big") == "".join(f"{number}\n" for number in range(1, 20001))
    sh(": > f", folder)
    assert get(folder / "f") == ""


def test_appending_to_a_sealed_file_is_refused_and_to_a_new_one_is_a_drop_in(folder: Path) -> None:
    put(folder / "f", "kept")
    with pytest.raises(AssertionError, match="Permission denied"):
        sh("echo more >> f", folder)
    assert get(folder / "f") == "kept"
    sh("echo first >> new", folder)
    assert get(folder / "new") == "first\n"


# ---- what is refused -----------------------------------------------------------------------------------------------


def test_an_unlisted_program_cannot_write_into_an_existing_file(folder: Path) -> None:
    path = folder / "f"
    put(path, "content")
    for flags in (os.O_WRONLY, os.O_RDWR, os.O_WRONLY | os.O_APPEND):
        with pytest.raises(PermissionError):
            os.open(path, flags)
    with pytest.raises(PermissionError):
        os.truncate(path, 3)
    with pytest.raises(OSError, match="Invalid argument"):
        os.setxattr(path, "user.x", b"1")
    assert get(path) == "content"


def test_a_file_manager_may_rename_and_delete_what_its_user_may(folder: Path) -> None:
    put(folder / "f", "content")
    run(["mv", folder / "f", folder / "g"])
    assert get(folder / "g") == "content"
    (folder / "d").mkdir()
    run(["mv", folder / "g", folder / "d"])
    run(["cp", "-al", folder / "d", folder / "links"])
    run(["rm", "-r", folder / "d"])
    assert get(folder / "links" / "g") == "content"
    run(["rm", folder / "links" / "g"])
    assert os.listdir(folder / "links") == []


def test_where_no_rule_lets_the_user_delete_nobody_does_it(mounted: Mounted, tmp_path: Path) -> None:
    kept = mounted.drive / "kept"
    kept.mkdir(exist_ok=True)
    put(kept / "f", "kept")
    (tmp_path / "plain").write_text("replacing")
    for command in (["rm", kept / "f"], ["mv", kept / "f", kept / "g"], ["cp", tmp_path / "plain", kept / "f"]):
        assert "Permission denied" in run(command, check=False), command
    assert "PermissionError" in listed("import os, sys; os.unlink(sys.argv[1])", kept / "f", check=False)
    assert get(kept / "f") == "kept"
    put(kept / "f", "written by a rule")
    denied = [record for record in mounted.records("denied") if record.file and record.file.path == "/kept/f"]
    assert len(denied) >= 4


def test_a_stranger_reads_sealed_bytes_and_changes_nothing(folder: Path) -> None:
    put(folder / "f", "content")
    os.chmod(folder, 0o777)
    os.chmod(folder / "f", 0o666)
    stranger = ["setpriv", "--reuid=4242", "--regid=4242", "--clear-groups"]
    sealed = subprocess.run([*stranger, "cat", folder / "f"], capture_output=True, timeout=SECONDS)
    assert sealed.stdout.startswith(MAGIC)
    by_listed = subprocess.run([*stranger, "head", "-c", "8", folder / "f"], capture_output=True, timeout=SECONDS)
    assert by_listed.stdout == MAGIC
    for command in (["rm", "-f", "f"], ["mv", "f", "g"], ["touch", "new"], ["mkdir", "d"], ["ln", "f", "h"]):
        assert "Permission denied" in run([*stranger, *command], check=False, cwd=folder), command
    assert os.listdir(folder) == ["f"]
    assert get(folder / "f") == "content"


def test_the_drives_own_corner_is_not_there(mounted: Mounted) -> None:
    assert ".grantfs" not in os.listdir(mounted.drive)
    with pytest.raises(FileNotFoundError):
        (mounted.drive / ".grantfs").stat()
    for refused in (lambda: (mounted.drive / ".grantfs").mkdir(), lambda: (mounted.drive / ".grantfs").write_text("x")):
        with pytest.raises(PermissionError):
            refused()
