"""What one message costs in the protocol alone: parse it, build the reply. Microseconds, best of five.

python benchmarks/protocol_cost.py
"""

import os
import struct
import timeit

from fsdriver.protocol import abi, attr_from_stat, parse, parse_message, replies
from fsdriver.protocol.abi import Opcode


def message(opcode: int, body: bytes) -> memoryview:
    return memoryview(abi.IN_HEADER.pack(40 + len(body), opcode, 42, 7, 0, 0, 4711) + body)


def main() -> None:
    stat = os.stat("/")
    attr = attr_from_stat(stat, ino=7)
    lookup = message(Opcode.LOOKUP, b"some-file-name.txt\0")
    read = message(Opcode.READ, struct.pack("<QQIIQII", 1, 0, 131072, 0, 0, 0, 0))
    write = message(Opcode.WRITE, struct.pack("<QQIIQII", 1, 0, 131072, 0, 0, 0, 0) + bytes(131072))
    header, name = bytes(lookup[:40]).ljust(128), lookup[40:]
    out_header = abi.OUT_HEADER.pack
    cases = {
        "parse LOOKUP (/dev/fuse)": lambda: parse_message(lookup),
        "parse LOOKUP (io_uring)": lambda: parse(header, header, name),
        "parse READ (/dev/fuse)": lambda: parse_message(read),
        "parse WRITE of 128 KiB (/dev/fuse)": lambda: parse_message(write),
        "attributes from stat": lambda: attr_from_stat(stat, ino=7),
        "entry reply": lambda: replies.entry(7, attr, 0.0, 1.0),
        "LOOKUP, parse and reply": lambda: (
            parse_message(lookup),
            out_header(144, 0, 42) + replies.entry(7, attr, 0.0, 1.0),
        ),
        "LOOKUP, parse, attributes and reply": lambda: (
            parse_message(lookup),
            out_header(144, 0, 42) + replies.entry(7, attr_from_stat(stat, ino=7), 0.0, 1.0),
        ),
        "WRITE, parse and reply": lambda: (parse_message(write), out_header(24, 0, 42) + replies.written(131072)),
    }
    number = 50_000
    for name_, case in cases.items():
        best = min(timeit.repeat(case, number=number, repeat=5)) / number
        os.write(1, f"{name_:40} {best * 1e6:6.2f} us\n".encode())


if __name__ == "__main__":
    main()
