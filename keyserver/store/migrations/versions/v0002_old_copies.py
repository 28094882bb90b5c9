"""What machines told of files, to know old copies by.

Revision ID: 0002
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "counted",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "sighting",
        sa.Column("place", sa.Text(), nullable=False),
        sa.Column("file", sa.Text(), nullable=False),
        sa.Column("known_generation", sa.Integer(), nullable=True),
        sa.Column("known_time", sa.Float(), nullable=True),
        sa.Column("known_by", sa.Text(), nullable=True),
        sa.Column("opened_generation", sa.Integer(), nullable=True),
        sa.Column("opened_time", sa.Float(), nullable=True),
        sa.Column("opened_by", sa.Text(), nullable=True),
        sa.Column("put_time", sa.Float(), nullable=True),
        sa.Column("put_by", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("place"),
    )
    op.create_table(
        "old_copy",
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("place", sa.Text(), nullable=False),
        sa.Column("file", sa.Text(), nullable=False),
        sa.Column("label", sa.Text(), nullable=False),
        sa.Column("known_generation", sa.Integer(), nullable=False),
        sa.Column("known_time", sa.Float(), nullable=False),
        sa.Column("known_by", sa.Text(), nullable=False),
        sa.Column("opened_generation", sa.Integer(), nullable=False),
        sa.Column("opened_time", sa.Float(), nullable=False),
        sa.Column("opened_by", sa.Text(), nullable=False),
        sa.Column("found", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("number"),
    )
    op.create_index(op.f("ix_old_copy_place"), "old_copy", ["place"], unique=False)
    op.create_table(
        "mount",
        sa.Column("machine", sa.Text(), nullable=False),
        sa.Column("store", sa.Text(), nullable=False),
        sa.Column("crashes", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("machine"),
    )
