"""Plaintext, ciphertext or nothing: what a caller sees of a label now.

The decision is `policy`'s; this module names the person behind a uid, finds the label of a place in the drive, and
remembers decisions for as long as they cannot change: until a bundle, a login map or a `when:` does.
"""

import threading
from collections.abc import Callable, Mapping

from fsdriver.errors import LeaseMissing
from fsdriver.identity import Caller
from fsdriver.nodes.directories import Directories
from fsdriver.nodes.inode import Inode
from keyserver.messages import Mode
from policy import Action, Bundle, Label, Standing, View

_NOT_PLACED = Standing(
    view=View.CIPHERTEXT, allow=frozenset({Action.READ}), because="unknown-label", rule="unknown-label", until=0.0
)
"""A file whose header names a label this bundle does not know is ciphertext for everyone."""

_REMEMBERED = 4096


class Views:
    """Thread-safe. `now` is the server's clock."""

    def __init__(self, directories: Directories, mode: Mode, now: Callable[[], float]) -> None:
        self._directories = directories
        self._mode = mode
        self._now = now
        self._lock = threading.Lock()
        self._bundle: Bundle | None = None
        self._logins: Mapping[int, str] = {}
        self._standings: dict[tuple[int, bytes], tuple[Caller, Standing]] = {}
        self._children: dict[int, tuple[int, Label]] = {}
        self.epoch = 0
        """Rises with every new bundle or login map, once both decide."""

    @property
    def bundle(self) -> Bundle:
        """Errors: LeaseMissing before the first bundle has come."""
        if self._bundle is None:
            raise LeaseMissing("no policy has been received from the key server yet")
        return self._bundle

    @property
    def policy(self) -> int:
        """The number of the bundle that decides, 0 for none."""
        return 0 if self._bundle is None else self._bundle.number

    def update(self, bundle: Bundle | None, logins: Mapping[int, str]) -> None:
        """Decide with these from now on."""
        with self._lock:
            self._bundle = bundle
            self._logins = dict(logins)
            self._standings = {}
            self._children = {}
            self.epoch += 1

    def person(self, uid: int) -> str | None:
        return self._logins.get(uid)

    def child_label(self, directory: Inode) -> Label:
        """The label a file born in `directory` takes."""
        children = self._children
        cached = children.get(directory.serial)
        epoch = self._directories.epoch
        if cached is not None and cached[0] == epoch:
            return cached[1]
        path = self._directories.path(directory)
        label = self.bundle.label_for(path.rstrip("/") + "/x")
        with self._lock:
            if len(children) > _REMEMBERED:
                children.clear()
            children[directory.serial] = (epoch, label)
        return label

    def label_of(self, inode: Inode) -> Label | None:
        """The label in the file's header once that was read, else the one its place suggests; None for an unknown."""
        if inode.label_id is not None:
            return self.bundle.label_by_id(inode.label_id)
        assert inode.parent is not None
        return self.child_label(inode.parent)

    def standing(self, caller: Caller, label: Label | None) -> Standing:
        """What `caller` sees of `label` and may do with it."""
        if label is None:
            return _NOT_PLACED
        key = (id(caller), label.id)
        standings = self._standings  # what is decided goes where it was missing: never beside a newer bundle's
        cached = standings.get(key)
        if cached is not None and cached[0] is caller and self._now() < cached[1].until:
            return cached[1]
        standing = self._decide(caller, label)
        with self._lock:
            if len(standings) > _REMEMBERED:
                standings.clear()
            standings[key] = (caller, standing)  # holding the caller keeps its id from being given again
        return standing

    def _decide(self, caller: Caller, label: Label) -> Standing:
        # `programs: any` lists every program, but a caller that cannot be named is none; and on a plain user's mount a
        # label that asks for root shows nobody plaintext.
        plaintext = caller.program is not None and not (label.root_only and self._mode == "user")
        person = self._logins.get(caller.uid)
        return self.bundle.standing(person, caller.program, label, self._now(), plaintext=plaintext)
