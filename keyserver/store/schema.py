"""The tables, as the newest migration leaves them. A test compares this file with what the migrations build.

Ids are lower-case hex, times are seconds since the epoch, except in `record`, whose columns repeat what its body says.
"""

from sqlalchemy import Column, Float, ForeignKey, Integer, LargeBinary, MetaData, Table, Text, UniqueConstraint

metadata = MetaData()

setting = Table(
    "setting",
    metadata,
    Column("name", Text, primary_key=True),
    Column("value", LargeBinary, nullable=False),
)

secret = Table(  # private keys of the server, each wrapped under the root key
    "secret",
    metadata,
    Column("name", Text, primary_key=True),
    Column("wrapped", LargeBinary, nullable=False),
)

admin = Table(
    "admin",
    metadata,
    Column("name", Text, primary_key=True),
    Column("password_hash", Text, nullable=False),
    Column("created", Float, nullable=False),
)

api_token = Table(
    "api_token",
    metadata,
    Column("id", Text, primary_key=True),
    Column("admin", Text, ForeignKey("admin.name"), nullable=False),
    Column("digest", LargeBinary, nullable=False),
    Column("created", Float, nullable=False),
)

join_token = Table(
    "join_token",
    metadata,
    Column("id", Text, primary_key=True),
    Column("digest", LargeBinary, nullable=False),
    Column("logins", Text, nullable=False),
    Column("created", Float, nullable=False),
    Column("expires", Float, nullable=False),
    Column("machine", Text),
)

machine = Table(
    "machine",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("mode", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("sealing_key", LargeBinary, nullable=False),
    Column("enrolled", Float, nullable=False),
)

certificate = Table(
    "certificate",
    metadata,
    Column("serial", Text, primary_key=True),
    Column("machine", Text, ForeignKey("machine.id"), nullable=False, index=True),
    Column("not_after", Float, nullable=False),
)

login = Table(  # a row is never removed: old records name persons who were mapped when they were written
    "login",
    metadata,
    Column("number", Integer, primary_key=True),
    Column("machine", Text, ForeignKey("machine.id"), nullable=False, index=True),
    Column("uid", Integer, nullable=False),
    Column("person", Text, nullable=False),
    Column("since", Float, nullable=False),
    Column("until", Float),
)

person = Table(
    "person",
    metadata,
    Column("name", Text, primary_key=True),
    Column("active", Integer, nullable=False),
    Column("created", Float, nullable=False),
)

membership = Table(
    "membership",
    metadata,
    Column("person", Text, ForeignKey("person.name"), primary_key=True),
    Column("kind", Text, primary_key=True),
    Column("name", Text, primary_key=True),
)

policy = Table(
    "policy",
    metadata,
    Column("number", Integer, primary_key=True),
    Column("time", Float, nullable=False),
    Column("author", Text, nullable=False),
    Column("files", Text, nullable=False),
)

bundle = Table(
    "bundle",
    metadata,
    Column("number", Integer, primary_key=True),
    Column("time", Float, nullable=False),
    Column("policy", Integer, ForeignKey("policy.number"), nullable=False),
    Column("document", LargeBinary, nullable=False),
    Column("signature", LargeBinary, nullable=False),
)

label = Table(
    "label",
    metadata,
    Column("id", Text, primary_key=True),
    Column("qualified", Text, nullable=False),
    Column("key_id", Text, nullable=False, unique=True),
    Column("created", Float, nullable=False),
)

label_key = Table(
    "label_key",
    metadata,
    Column("label", Text, ForeignKey("label.id"), primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("wrapped", LargeBinary, nullable=False),
    Column("created", Float, nullable=False),
)

lease = Table(
    "lease",
    metadata,
    Column("id", Text, primary_key=True),
    Column("machine", Text, ForeignKey("machine.id"), nullable=False),
    Column("label", Text, ForeignKey("label.id"), nullable=False),
    Column("state", Text, nullable=False),
    Column("changed", Float, nullable=False),
    UniqueConstraint("machine", "label"),
)

push = Table(
    "push",
    metadata,
    Column("number", Integer, primary_key=True),
    Column("time", Float, nullable=False),
    Column("kind", Text, nullable=False),
    Column("machine", Text, nullable=False),
)

chain = Table(
    "chain",
    metadata,
    Column("number", Integer, primary_key=True),
    Column("machine", Text, nullable=False, unique=True),
    Column("seq", Integer, nullable=False),
    Column("value", LargeBinary, nullable=False),
)

record = Table(  # no index beside the chain's: each costs 1 to 3 us a record at ingest (decisions/0021)
    "record",
    metadata,
    Column("position", Integer, primary_key=True),
    Column("chain", Integer, ForeignKey("chain.number"), nullable=False),
    Column("seq", Integer, nullable=False),
    Column("time", Text, nullable=False),
    Column("event", Text, nullable=False),
    Column("person", Text, nullable=False),
    Column("path", Text, nullable=False),
    Column("file", Text, nullable=False),
    Column("leaf", LargeBinary, nullable=False),
    Column("body", Text, nullable=False),
    UniqueConstraint("chain", "seq"),
)

subtree = Table(  # roots of complete subtrees of 256, 65,536 ... leaves, so that a proof reads few rows
    "subtree",
    metadata,
    Column("height", Integer, primary_key=True),
    Column("place", Integer, primary_key=True),
    Column("value", LargeBinary, nullable=False),
)

tree = Table(
    "tree",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("size", Integer, nullable=False),
    Column("roots", LargeBinary, nullable=False),
)

checkpoint = Table(
    "checkpoint",
    metadata,
    Column("size", Integer, primary_key=True),
    Column("time", Float, nullable=False),
    Column("note", Text, nullable=False),
)

counted = Table(  # how far the log was read for the three tables below, which it could fill again
    "counted",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("position", Integer, nullable=False),
)

sighting = Table(
    "sighting",
    metadata,
    Column("place", Text, primary_key=True),
    Column("file", Text, nullable=False),
    Column("known_generation", Integer),
    Column("known_time", Float),
    Column("known_by", Text),
    Column("opened_generation", Integer),
    Column("opened_time", Float),
    Column("opened_by", Text),
    Column("put_time", Float),
    Column("put_by", Text),
)

old_copy = Table(  # found, and not recorded yet
    "old_copy",
    metadata,
    Column("number", Integer, primary_key=True),
    Column("place", Text, nullable=False, index=True),
    Column("file", Text, nullable=False),
    Column("label", Text, nullable=False),
    Column("known_generation", Integer, nullable=False),
    Column("known_time", Float, nullable=False),
    Column("known_by", Text, nullable=False),
    Column("opened_generation", Integer, nullable=False),
    Column("opened_time", Float, nullable=False),
    Column("opened_by", Text, nullable=False),
    Column("found", Float, nullable=False),
)

mount = Table(  # what each machine said of the store it has
    "mount",
    metadata,
    Column("machine", Text, primary_key=True),
    Column("store", Text, nullable=False),
    Column("crashes", Text, nullable=False),
)
