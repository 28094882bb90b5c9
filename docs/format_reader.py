"""Reads a sealed file by docs/format.md alone: `python format_reader.py LABEL_KEY_HEX < sealed > content`.

Shares no code with the drive, on purpose. It knows wrap algorithm 1 and takes the first slot.
"""

import hashlib
import hmac
import struct
import sys

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF


def read(sealed: bytes, label_key: bytes) -> bytes:
    # 3.1 fields
    magic, major, suite, chunk_size, incompatible = struct.unpack_from(">8sHHIQ", sealed)
    assert magic == b"\x89GrantFS"
    assert (major, suite, incompatible) == (1, 1, 0)
    file_id, company, label, commitment, tag = struct.unpack_from(">16s16s16s32s32s", sealed, 40)
    # 3.2 the file key
    algorithm, length, version, key_id = struct.unpack_from(">HHI16s", sealed, 512)
    assert (algorithm, length) == (1, 60)
    wrapped = sealed[576 : 576 + length]
    aad = b"grantfs-wrap-v1" + file_id + company + label + key_id + struct.pack(">I", version)
    file_key = AESGCM(label_key).decrypt(wrapped[:12], wrapped[12:], aad)
    # 4 its subkeys
    drawn = HKDF(SHA256(), 192, file_id, b"grantfs-file-v1" + struct.pack(">H", suite)).derive(file_key)
    assert drawn[:32] == commitment
    untagged = sealed[:120] + bytes(32) + sealed[152:3072]
    assert hmac.digest(drawn[32:64], untagged, "sha256") == tag
    # 6 the commit
    record = sealed[3072:3584]
    aad = b"grantfs-commit-v1" + struct.pack(">HHI", suite, major, chunk_size) + file_id
    commit = AESGCM(drawn[64:96]).decrypt(record[:12], record[12:], aad)
    generation, size, _seals, total = struct.unpack_from(">QQQ32s", commit)
    # 5 the chunks
    chunk_key, sum_key, found, content = AESGCM(drawn[96:128]), drawn[128:160], 0, bytearray()
    index = 0
    while len(content) < size:
        plain = min(chunk_size, size - len(content))
        start = 4096 + index * (chunk_size + 36)
        slot = sealed[start : start + plain + 36]
        assert len(slot) == plain + 36
        (word,) = struct.unpack_from(">Q", slot)
        is_hole = word >> 63
        assert 0 < word & ~(1 << 63) <= generation
        if is_hole:
            slot = slot[:44]
        aad = struct.pack(">HH16sQQ", suite, major, file_id, index, word)
        opened = chunk_key.decrypt(slot[8:20], slot[20:], aad)
        term = struct.pack(">Q", index) + slot[:20] + slot[-16:]
        found += int.from_bytes(hashlib.blake2b(term, key=sum_key, digest_size=32).digest(), "big")
        chunks = int.from_bytes(opened, "big") if is_hole else 1
        if is_hole:
            assert not any(sealed[start + 44 : start + chunks * (chunk_size + 36)])
            opened = bytes(chunks * chunk_size)
        content += opened
        index += chunks
    assert len(content) == size
    assert found % (1 << 256) == int.from_bytes(total, "big")
    return bytes(content)


if __name__ == "__main__":
    sys.stdout.buffer.write(read(sys.stdin.buffer.read(), bytes.fromhex(sys.argv[1])))
