"""File keys, from a lease or from the key server: unwrapped for a file that is opened, made for one that is born.

A label whose keys stay on the server (`per_file`) asks for every single open. That takes the network, so it is never
done in a reader or ring thread: `MustWait` sends the request to the pool.
"""

from collections.abc import Callable
from typing import NamedTuple

from fsdriver.content import FileKey, Header, WrapAlgorithm, WrapSlot, wrap
from fsdriver.errors import FsError, GrantRefused, HeaderDamaged, LeaseExpired, LeaseMissing
from fsdriver.filesystem.asker import Asker, MustWait
from fsdriver.keyclient import KeyClient
from fsdriver.leases import LabelKey, Leases
from fsdriver.views import Views
from keyserver.sealing import SealingError
from policy import Action, Label


class GivenKey(NamedTuple):
    """A file key that its asker may have."""

    unwrap: Callable[[], FileKey]
    """Errors: HeaderDamaged."""
    on_loan: bool
    """It lies under a label key that is here."""


class FileKeys:
    """Where file keys come from. Thread-safe. `now` is the server's clock."""

    def __init__(
        self, leases: Leases, grants: KeyClient, views: Views, company: bytes, now: Callable[[], float]
    ) -> None:
        self._leases = leases
        self._grants = grants
        self._views = views
        self._company = company
        self._now = now

    @property
    def epoch(self) -> int:
        """Another number once a key was taken back."""
        return self._leases.epoch

    def of(self, header: Header, label: Label, asker: Asker, action: Action, path: str) -> GivenKey:
        """The key of an existing file.

        Errors: MustWait, LeaseMissing, LeaseExpired, GrantRefused, ServerUnreachable, HeaderDamaged.
        """
        slot = _slot(header)
        if slot is None:
            raise HeaderDamaged("the header holds no file key that this program can open")
        if not label.per_file:
            _, secret = self._missed(label, slot.version, asker)
            return GivenKey(lambda: header.unwrap(slot, secret), on_loan=True)
        key, _ = self._granted(label, header.file_id, asker, action, path, slot)
        return GivenKey(lambda: key, on_loan=False)

    def lent(self, header: Header) -> FileKey | None:
        """The file key, if a lease opens it; None where it would have to be asked for, or does not open."""
        label = self._views.bundle.label_by_id(header.label)
        slot = _slot(header)
        if label is None or label.per_file or slot is None:
            return None
        try:
            return header.unwrap(slot, self._lent(label, slot.version)[1])
        except FsError:
            return None

    def born(self, label: Label, file_id: bytes, asker: Asker, path: str) -> tuple[FileKey, WrapSlot]:
        """The key of a new file, and how it is wrapped in the file's header. Errors: as `of`."""
        if label.per_file:
            return self._granted(label, file_id, asker, Action.CREATE, path, None)
        lent, secret = self._missed(label, None, asker)
        key = FileKey.generate()
        return key, self._wrapped(label, key, file_id, lent, secret)

    def holds(self, label: Label) -> bool:
        """Whether a lease of the label's key is here."""
        return self._leases.holds(label.id, self._now())

    def wrapped(self, label: Label, key: FileKey, file_id: bytes) -> WrapSlot:
        """A file key under the newest key of a label that is lent. Errors: LeaseMissing, LeaseExpired."""
        return self._wrapped(label, key, file_id, *self._lent(label, None))

    def _wrapped(self, label: Label, key: FileKey, file_id: bytes, lent: LabelKey, secret: bytes) -> WrapSlot:
        return wrap(
            key,
            secret,
            file_id=file_id,
            company=self._company,
            label=label.id,
            key_id=lent.key_id,
            version=lent.version,
        )

    def _missed(self, label: Label, version: int | None, asker: Asker) -> tuple[LabelKey, bytes]:
        """As `_lent`; a key that policy gives, but is not here (its hour has just begun), is asked for."""
        try:
            return self._lent(label, version)
        except (LeaseMissing, LeaseExpired):
            if not asker.may_wait:
                raise MustWait from None
            if not self._grants.refresh():
                raise
        return self._lent(label, version)

    def _lent(self, label: Label, version: int | None) -> tuple[LabelKey, bytes]:
        """A label's key and its bytes. Errors: LeaseMissing, also when it is forgotten just now, LeaseExpired."""
        lent = self._leases.key_for(label.id, version, self._now())
        try:
            return lent, bytes(lent.secret)
        except SealingError as exc:
            raise LeaseMissing(f"the key of label {label.qualified} was taken back") from exc

    def _granted(
        self, label: Label, file_id: bytes, asker: Asker, action: Action, path: str, slot: WrapSlot | None
    ) -> tuple[FileKey, WrapSlot]:
        if not asker.may_wait:
            raise MustWait
        person = self._views.person(asker.caller.uid)
        if person is None:
            raise GrantRefused(f"uid {asker.caller.uid} is nobody the key server knows")
        granted = self._grants.grant(
            person=person,
            program=asker.caller.program,
            action=action.value,
            file_id=file_id,
            label=label.id,
            path=path,
            key_id=slot.key_id if slot is not None else b"",
            version=slot.version if slot is not None else 0,
            wrapped=slot.wrapped if slot is not None else b"",
        )
        wrapped = WrapSlot(WrapAlgorithm.LABEL_KEY, granted.key_id, granted.version, granted.wrapped)
        return FileKey(bytes(granted.file_key)), wrapped


def _slot(header: Header) -> WrapSlot | None:
    """The slot that a label key opens."""
    for slot in header.slots:
        if slot.algorithm == WrapAlgorithm.LABEL_KEY:
            return slot
    return None
