"""Rows of labels and their wrapped keys. A label's id and key id are written once and never change."""

from typing import NamedTuple

from sqlalchemy import Connection, func, insert, select, update

from keyserver.store.schema import label, label_key


class LabelRow(NamedTuple):
    id: str
    qualified: str
    """"department/label" in the newest policy."""
    key_id: str
    created: float


class LabelKeyRow(NamedTuple):
    label: str
    version: int
    wrapped: bytes
    created: float


class KeyRows:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def labels(self) -> dict[str, LabelRow]:
        """Label id to label."""
        return {row.id: LabelRow(*row) for row in self._connection.execute(select(label).order_by(label.c.qualified))}

    def add_label(self, row: LabelRow) -> None:
        self._connection.execute(insert(label).values(**row._asdict()))

    def rename_label(self, label_id: str, qualified: str) -> None:
        self._connection.execute(update(label).where(label.c.id == label_id).values(qualified=qualified))

    def add_key(self, row: LabelKeyRow) -> None:
        self._connection.execute(insert(label_key).values(**row._asdict()))

    def versions(self) -> list[LabelKeyRow]:
        """All versions of all labels, oldest first."""
        rows = self._connection.execute(select(label_key).order_by(label_key.c.label, label_key.c.version))
        return [LabelKeyRow(*row) for row in rows]

    def newest_version(self, label_id: str) -> int:
        """0 where the label has no key yet."""
        return self._connection.scalar(select(func.max(label_key.c.version)).where(label_key.c.label == label_id)) or 0
