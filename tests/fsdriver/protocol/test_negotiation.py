import pytest

from fsdriver.protocol import MAX_WRITE, VersionUnsupported, abi, events, negotiate
from fsdriver.protocol.abi import InitFlag
from fsdriver.protocol.negotiation import REFUSED, TAKEN

HEAD = events.InHeader(104, abi.Opcode.INIT, 2, 0, 0, 0, 0)
EVERYTHING = (1 << 64) - 1


def offer(minor=45, flags=EVERYTHING, major=7):
    return events.Init(HEAD, major, minor, 131072, flags)


def test_every_flag_is_taken_or_refused_with_a_reason():
    assert not set(TAKEN) & set(REFUSED)
    assert set(TAKEN) | set(REFUSED) | {InitFlag.OVER_IO_URING} == set(InitFlag)
    assert all(TAKEN.values())
    assert all(REFUSED.values())


def test_the_reply_takes_what_the_table_says_and_nothing_else():
    agreed = negotiate(offer(), io_uring=False)
    fields = abi.INIT_OUT.unpack(agreed.reply)
    assert fields[:2] == (7, 45)
    assert fields[3] | fields[10] << 32 == sum(TAKEN) == agreed.flags
    assert fields[6] == MAX_WRITE == 1 << 20
    assert fields[8] == 256
    assert len(agreed.reply) == 64
    assert not agreed.io_uring
    assert (agreed.expire_only, agreed.inc_epoch, agreed.prune) == (True, True, True)


def test_io_uring_is_used_when_wanted_and_offered():
    assert negotiate(offer(), io_uring=True).io_uring
    assert not negotiate(offer(flags=EVERYTHING & ~InitFlag.OVER_IO_URING), io_uring=True).io_uring
    assert not negotiate(offer(flags=EVERYTHING & ~InitFlag.INIT_EXT), io_uring=True).io_uring


def test_the_writeback_cache_stays_off():
    assert not negotiate(offer(), io_uring=True).flags & InitFlag.WRITEBACK_CACHE


def test_an_older_minor_is_spoken():
    agreed = negotiate(offer(minor=38, flags=0xFFFFFFFF & ~InitFlag.INIT_EXT), io_uring=True)
    assert abi.INIT_OUT.unpack(agreed.reply)[1] == agreed.minor == 38
    assert not agreed.flags >> 32
    assert not agreed.inc_epoch


def test_a_newer_minor_is_answered_with_ours():
    assert negotiate(offer(minor=60), io_uring=False).minor == 45


def test_a_newer_major_is_asked_to_come_again():
    agreed = negotiate(offer(major=8), io_uring=False)
    assert not agreed.settled
    assert abi.INIT_OUT.unpack(agreed.reply)[0] == 7


@pytest.mark.parametrize(("major", "minor"), [(6, 40), (7, 30)])
def test_a_protocol_older_than_7_31_is_refused(major, minor):
    with pytest.raises(VersionUnsupported, match=r"7\.31"):
        negotiate(offer(minor=minor, major=major), io_uring=False)
