"""The FUSE kernel protocol, 7.31 to 7.45: kernel bytes to events, answers to bytes. No I/O, no clock.

`events` has one NamedTuple per request, `replies` one function per kind of answer, `notifications` what the drive says
unasked, `negotiation` the first exchange.
"""

from fsdriver.protocol import abi, events, notifications, replies
from fsdriver.protocol.events import Event, InHeader
from fsdriver.protocol.negotiation import MAX_WRITE, Agreement, VersionUnsupported, negotiate
from fsdriver.protocol.parse import MalformedMessage, parse, parse_message
from fsdriver.protocol.replies import Attr, DirectoryEntries, attr_from_stat

__all__ = [
    "MAX_WRITE",
    "Agreement",
    "Attr",
    "DirectoryEntries",
    "Event",
    "InHeader",
    "MalformedMessage",
    "VersionUnsupported",
    "abi",
    "attr_from_stat",
    "events",
    "negotiate",
    "notifications",
    "parse",
    "parse_message",
    "replies",
]
