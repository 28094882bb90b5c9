"""The labels' keys: versioned, wrapped under the root key, made when a policy first names the label.

A label's id and key id are 16 random bytes each, written once. A version is never changed; rotation adds one.
"""

import secrets
from collections.abc import Collection

import msgspec

from keyserver.changes import Change
from keyserver.errors import NotFound
from keyserver.keys.root import RootKey
from keyserver.sealing import SecretKey
from keyserver.store.keyring import LabelKeyRow, LabelRow
from keyserver.store.rows import Rows


class LabelKeys:
    """All labels and their keys, unwrapped once and kept in memory."""

    def __init__(self, root: RootKey, rows: Rows) -> None:
        self._root = root
        self._labels = rows.keys.labels()
        self._keys: dict[str, dict[int, SecretKey]] = {}
        for row in rows.keys.versions():
            self._keep(row, root.unwrap(row.wrapped, _purpose(self._labels[row.label], row.version)))

    def _keep(self, row: LabelKeyRow, plain: bytes) -> None:
        key = SecretKey(plain, f"{row.label}.{row.version}")
        self._keys[row.label] = {**self._keys.get(row.label, {}), row.version: key}

    @property
    def labels(self) -> dict[str, LabelRow]:
        """Label id to label."""
        return self._labels

    def label(self, label_id: str) -> LabelRow:
        """Raises `NotFound`."""
        try:
            return self._labels[label_id]
        except KeyError:
            raise NotFound(f"there is no label {label_id}") from None

    def versions(self, label_id: str) -> dict[int, SecretKey]:
        """Version to key, newest last. Raises `NotFound`."""
        self.label(label_id)
        return self._keys[label_id]

    def newest(self, label_id: str) -> tuple[int, SecretKey]:
        """Raises `NotFound`."""
        version, key = list(self.versions(label_id).items())[-1]
        return version, key

    def create(self, change: Change, label_id: str, qualified: str) -> None:
        """A new label with its first key."""
        row = LabelRow(label_id, qualified, secrets.token_hex(16), change.now)
        change.rows.keys.add_label(row)
        change.afterwards(lambda: self._labels.update({row.id: row}))
        change.record("label-created", detail=f"label={row.id} name={qualified}")
        self._add_version(change, row, 1)

    def rename(self, change: Change, label_id: str, qualified: str) -> None:
        """The id and all keys stay."""
        row = self.label(label_id)
        change.rows.keys.rename_label(label_id, qualified)
        change.afterwards(lambda: self._labels.update({label_id: row._replace(qualified=qualified)}))
        change.record("label-renamed", detail=f"label={label_id} was={row.qualified} name={qualified}")

    def rotate(self, change: Change, label_id: str, admin: str) -> int:
        """A new version, which new files take; its number. Raises `NotFound`."""
        row = self.label(label_id)
        version = change.rows.keys.newest_version(label_id) + 1
        self._add_version(change, row, version, admin)
        change.announce("leases")
        return version

    def export(self, change: Change, label_id: str, admin: str) -> list[int]:
        """Records that `admin` takes a copy of all versions, for use without the server; which. Raises `NotFound`."""
        row, versions = self.label(label_id), list(self.versions(label_id))
        numbers = ",".join(map(str, versions))
        change.record(
            "key-exported",
            user=admin,
            detail=f"label={row.id} name={row.qualified} key={row.key_id} versions={numbers}",
        )
        return versions

    def key_file(self, label_id: str, versions: Collection[int]) -> bytes:
        """These versions as `fsdriver unseal --key-file` reads them (docs/format.md 10). Raises `NotFound`."""
        key_id = self.label(label_id).key_id
        keys = [
            {"id": key_id, "version": version, "key": bytes(key).hex()}
            for version, key in self.versions(label_id).items()
            if version in versions
        ]
        return msgspec.json.format(msgspec.json.encode({"label_keys": keys})) + b"\n"

    def _add_version(self, change: Change, label: LabelRow, version: int, admin: str = "") -> None:
        plain = secrets.token_bytes(32)
        row = LabelKeyRow(label.id, version, self._root.wrap(plain, _purpose(label, version)), change.now)
        change.rows.keys.add_key(row)
        change.afterwards(lambda: self._keep(row, plain))
        change.record("key-created", user=admin, detail=f"label={label.id} key={label.key_id} version={version}")


def new_label_id() -> bytes:
    return secrets.token_bytes(16)


def _purpose(label: LabelRow, version: int) -> str:
    return f"label-key {label.id} {label.key_id} {version}"
