"""What is compared: each is mounted in an empty directory and gives the place where programs work."""

import contextlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.commands import run

HERE = Path(__file__).parent
FSDRIVER = [sys.executable, "-m", "fsdriver"]


@contextmanager
def drive(top: Path, transport: str) -> Iterator[Path]:
    """The whole thing, as `fsdriver demo` sets it up: key server, policy, identity checks and records on."""
    place = ["demo", "--dir", str(top / "demo")]
    start = [*place, "--policy", str(HERE / "policy"), "--detach", "--transport", transport, "-o", "json"]
    answer = subprocess.run([*FSDRIVER, *start], check=True, capture_output=True, text=True)
    facts = json.loads(answer.stdout)
    wanted = {"auto": "io_uring", "dev": "/dev/fuse"}[transport]
    if facts["transport"] != wanted:
        raise SystemExit(f"wanted {wanted}, got {facts['transport']}: is /sys/module/fuse/parameters/enable_uring Y?")
    try:
        yield Path(facts["drive"])
    finally:
        run(*FSDRIVER, *place, "--stop")


@contextmanager
def gocryptfs(top: Path) -> Iterator[Path]:
    cipher, plain, password = _places(top)
    run("gocryptfs", "-q", "-init", "-scryptn", "10", "-passfile", str(password), str(cipher))
    run("gocryptfs", "-q", "-passfile", str(password), str(cipher), str(plain))
    with _unmounted(plain):
        yield plain


@contextmanager
def securefs(top: Path) -> Iterator[Path]:
    """Its lite format, the default: one sealed file a file."""
    cipher, plain, _ = _places(top)
    run("securefs", "create", "--pass", "benchmark", "--rounds", "1", str(cipher))
    run("securefs", "mount", "-b", "--pass", "benchmark", str(cipher), str(plain))
    with _unmounted(plain):
        yield plain


@contextmanager
def encfs(top: Path) -> Iterator[Path]:
    cipher, plain, password = _places(top)
    run("encfs", "--standard", f"--extpass=cat {password}", str(cipher), str(plain))
    with _unmounted(plain):
        yield plain


@contextmanager
def cryfs(top: Path) -> Iterator[Path]:
    """Its block size and cipher as they come. It keeps what it knows of a store in the user's home: here in `top`."""
    cipher, plain, password = _places(top)
    settings = {"CRYFS_FRONTEND": "noninteractive", "CRYFS_NO_UPDATE_CHECK": "true", "HOME": str(top)}
    run("cryfs", str(cipher), str(plain), stdin=password, env=settings)
    with _unmounted(plain):
        yield plain


SYSTEMS: dict[str, Callable[[Path], contextlib.AbstractContextManager[Path]]] = {
    "uring": lambda top: drive(top, "auto"),
    "dev": lambda top: drive(top, "dev"),
    "gocryptfs": gocryptfs,
    "securefs": securefs,
    "encfs": encfs,
    "cryfs": cryfs,
    "ext4": contextlib.nullcontext,
}


def _places(top: Path) -> tuple[Path, Path, Path]:
    """Where the sealed files go, where programs work, and the password."""
    cipher, plain, password = top / "cipher", top / "plain", top / "password"
    cipher.mkdir()
    plain.mkdir()
    password.write_text("benchmark\n")
    return cipher, plain, password


@contextmanager
def _unmounted(plain: Path) -> Iterator[None]:
    try:
        yield
    finally:
        run("umount", str(plain))
