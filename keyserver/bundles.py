"""The policy in force and the people it speaks of, as one signed, numbered bundle that agents and server decide with.

The number rises with every change of policy or people. A policy that would lose a label which has keys is refused.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from keyserver.changes import Change
from keyserver.errors import NotReady
from keyserver.keys.labels import LabelKeys, new_label_id
from keyserver.messages import SignedBundle
from keyserver.store.policies import BundleRow
from keyserver.store.rows import Rows
from policy import Bundle, Person, Policy, assign_label_ids, load

CONTEXT = b"grantfs-bundle-v1\n"


@dataclass(frozen=True, slots=True)
class Current:
    """The newest bundle, ready to decide with and ready to send."""

    bundle: Bundle
    signed: SignedBundle


class Bundles:
    """The newest bundle, and how the next is made."""

    def __init__(self, rows: Rows, labels: LabelKeys, key: Ed25519PrivateKey, company: str) -> None:
        self._labels = labels
        self._key = key
        self._company = company
        self._parsed: tuple[int, Policy] | None = None
        self._current: Current | None = None
        row = rows.policies.newest_bundle()
        if row is not None:
            bundle = Bundle.from_document(msgspec.json.decode(row.document))
            self._current = Current(bundle, SignedBundle(row.number, row.document, row.signature))

    @property
    def current(self) -> Current:
        """Raises `NotReady` where no policy was ever uploaded."""
        if self._current is None:
            raise NotReady("no policy was ever uploaded: `keyserver init` did not finish")
        return self._current

    @staticmethod
    def parse(files: Mapping[str, str]) -> Policy:
        """Slow for large policies: for a thread. Raises `PolicyError`."""
        return load(files)

    def upload(self, change: Change, files: Mapping[str, str], parsed: Policy, admin: str) -> int:
        """Puts a policy in force; the number of the bundle made of it. `parsed` is `parse(files)`.

        Raises `PolicyError` where a label that has keys is gone.
        """
        self._settle_labels(change, parsed)
        text = msgspec.json.encode(dict(files)).decode()
        number = change.rows.policies.add_policy(text, admin, change.now)
        change.record("policy", user=admin, detail=f"policy={number} files={','.join(sorted(files))}")
        return self._make(change, number, parsed)

    def people_changed(self, change: Change) -> int:
        """A new bundle of the same policy; its number."""
        newest = change.rows.policies.newest_policy()
        assert newest is not None
        if self._parsed is None or self._parsed[0] != newest.number:
            self._parsed = newest.number, self.parse(msgspec.json.decode(newest.files, type=dict[str, str]))
        return self._make(change, *self._parsed)

    def _settle_labels(self, change: Change, parsed: Policy) -> None:
        """Every label of the policy gets, keeps or takes along its id (`was:`)."""
        known = {row.qualified: bytes.fromhex(row.id) for row in change.rows.keys.labels().values()}
        names = {label_id: name for name, label_id in known.items()}
        for name, label_id in assign_label_ids(parsed, known, new_label_id).items():
            if label_id not in names:
                self._labels.create(change, label_id.hex(), name)
            elif names[label_id] != name:
                self._labels.rename(change, label_id.hex(), name)

    def _make(self, change: Change, policy_number: int, parsed: Policy) -> int:
        previous = change.rows.policies.newest_bundle()
        number = 1 if previous is None else previous.number + 1
        people = change.rows.people.all().values()
        bundle = Bundle.build(
            parsed,
            number=number,
            company=self._company,
            label_ids={row.qualified: bytes.fromhex(row.id) for row in change.rows.keys.labels().values()},
            people=[Person(*row) for row in people],
        )
        document = msgspec.json.encode(bundle.to_document(), order="deterministic")
        signature = self._key.sign(CONTEXT + document)
        change.rows.policies.add_bundle(BundleRow(number, change.now, policy_number, document, signature))
        current = Current(bundle, SignedBundle(number, document, signature))

        def follow() -> None:
            self._parsed = policy_number, parsed
            self._current = current

        change.afterwards(follow)
        change.announce("bundle")
        return number
