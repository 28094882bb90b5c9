"""The log nobody can quietly change: records, chains, the Merkle tree, checkpoints (docs/audit-log.md)."""
