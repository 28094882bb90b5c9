"""The database. SQL is spoken here and nowhere else."""

from keyserver.store.database import Store
from keyserver.store.rows import Rows

__all__ = ["Rows", "Store"]
