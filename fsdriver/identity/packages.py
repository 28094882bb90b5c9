"""Which installed package a file belongs to, and the digest that the package's manifest gives for it.

`Packages` is what the checks need of a package system; `Dpkg` reads Debian's. It looks only at files below directories
of programs and libraries, remembers eight bytes for each, and takes the digest from the manifest when it is asked.
The manifests are as trustworthy as root, who owns them: they protect against other users, not against root.
"""

import os
import re
import threading
from array import array
from bisect import bisect_left
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, Protocol


class Owner(NamedTuple):
    """A package, and the digest its manifest gives: `algorithm` as hashlib names it, `digest` lower-case hex."""

    package: str
    algorithm: str
    digest: str


class Packages(Protocol):
    """Installed packages and their files."""

    def owners(self, path: bytes) -> tuple[Owner, ...]:
        """Every package whose manifest lists the file `path` (absolute, directories without symlinks)."""

    def state(self) -> object:
        """A value that is equal for as long as nothing was installed, upgraded or removed."""


# md5sums(5): 32 hex digits, two spaces, the path without the first slash.
_LINE = re.compile(rb"^([0-9a-f]{32})  ((?:usr/)?(?:s?bin|lib\w*|games)/.+|opt/.+)$", re.MULTILINE)
_MERGED = [b"bin", b"sbin", b"lib", b"lib32", b"lib64", b"libx32"]  # top-level names that usrmerge turns to symlinks
_PACKAGE_BITS = 16
_HASH_MASK = (1 << 63) - (1 << _PACKAGE_BITS)


class Dpkg:
    """The dpkg database in `admin`, of the system whose files lie below `root`. Thread-safe."""

    def __init__(self, admin: Path = Path("/var/lib/dpkg"), root: Path = Path("/")) -> None:
        self._admin, self._root = admin, root
        self._prefix = os.fsencode(root).rstrip(b"/")
        self._lock = threading.Lock()
        self._loaded: object = None
        self._names: list[str] = []
        self._index = array("q")  # (hash of the path, number of the package), sorted
        self._merged: dict[bytes, bytes] = {}
        self._diverted: dict[bytes, tuple[bytes, str]] = {}
        self._asked: dict[bytes, tuple[Owner, ...]] = {}

    def state(self) -> object:
        """Times of the files that dpkg replaces at every run."""
        return tuple(_times(self._admin / name) for name in ("status", "info", "diversions"))

    def owners(self, path: bytes) -> tuple[Owner, ...]:
        """See `Packages.owners`. The first call after a change reads all manifests (about 0.1 s for 800 packages)."""
        with self._lock:
            state = self.state()
            if state != self._loaded:
                self._load()
                self._loaded = state
            owners = self._asked.get(path)
            if owners is None:
                names = [self._names[number] for number in self._candidates(path)]
                owners = tuple(
                    Owner(name.partition(":")[0], "md5", md5) for name in names for md5 in self._find(name, path)
                )
                if owners:  # a path that no package lists may be anybody's invention: not worth the memory
                    self._asked[path] = owners
            return owners

    def _candidates(self, path: bytes) -> Iterator[int]:
        wanted = hash(path) & _HASH_MASK
        at = bisect_left(self._index, wanted)
        while at < len(self._index) and self._index[at] & _HASH_MASK == wanted:
            yield self._index[at] & ((1 << _PACKAGE_BITS) - 1)
            at += 1

    def _find(self, name: str, path: bytes) -> Iterator[str]:
        # Two paths may share a hash, so the manifest itself has the last word.
        return (digest for digest, listed in self._manifest(name) if listed == path)

    def _load(self) -> None:
        self._asked.clear()
        self._merged = {
            name: os.readlink(self._root / os.fsdecode(name)).encode().strip(b"/") for name in self._symlinks()
        }
        self._diverted = dict(self._diversions())
        self._names = sorted(path.name.removesuffix(".md5sums") for path in (self._admin / "info").glob("*.md5sums"))
        if len(self._names) >= 1 << _PACKAGE_BITS:
            raise ValueError(f"more than {1 << _PACKAGE_BITS} packages in {self._admin}")
        entries = array("q")
        for number, name in enumerate(self._names):
            entries.extend((hash(path) & _HASH_MASK) | number for _, path in self._manifest(name))
        self._index = array("q", sorted(entries))

    def _symlinks(self) -> list[bytes]:
        return [name for name in _MERGED if (self._root / os.fsdecode(name)).is_symlink()]

    def _diversions(self) -> Iterator[tuple[bytes, tuple[bytes, str]]]:
        # Three lines each: the path, where other packages' file of this name lies, and the package that keeps the path.
        try:
            lines = (self._admin / "diversions").read_bytes().splitlines()
        except FileNotFoundError:
            return
        for original, moved, package in zip(lines[0::3], lines[1::3], lines[2::3], strict=False):
            yield self._real(original.lstrip(b"/")), (self._real(moved.lstrip(b"/")), package.decode())

    def _manifest(self, name: str) -> Iterator[tuple[str, bytes]]:
        try:
            text = (self._admin / "info" / f"{name}.md5sums").read_bytes()
        except FileNotFoundError:
            return  # removed while we read; the next state differs
        for digest, relative in _LINE.findall(text):
            path = self._real(relative)
            moved, keeper = self._diverted.get(path, (path, ""))
            yield digest.decode(), path if keeper == name.partition(":")[0] else moved

    def _real(self, relative: bytes) -> bytes:
        first, _, rest = relative.partition(b"/")
        return b"%s/%s/%s" % (self._prefix, self._merged.get(first, first), rest)


def _times(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except FileNotFoundError:
        return 0, 0
    return found.st_mtime_ns, found.st_ino
