import struct

from fsdriver.protocol import notifications


def framed(code, body):
    return struct.pack("<IiQ", 16 + len(body), code, 0) + body


def test_notifications_are_replies_to_nothing_with_a_code_for_an_error():
    assert notifications.inval_inode(5, -1) == framed(2, struct.pack("<Qqq", 5, -1, 0))
    assert notifications.inval_entry(1, b"ab") == framed(3, struct.pack("<QII", 1, 2, 0) + b"ab\0")
    assert notifications.inval_entry(1, b"ab", expire_only=True) == framed(3, struct.pack("<QII", 1, 2, 1) + b"ab\0")
    assert notifications.delete(1, 5, b"ab") == framed(6, struct.pack("<QQII", 1, 5, 2, 0) + b"ab\0")
    assert notifications.inc_epoch() == framed(8, b"")
    assert notifications.prune([5, 6]) == framed(9, struct.pack("<IIQQQ", 2, 0, 0, 5, 6))
