"""One io_uring: its memory, seen as arrays of words, and how a submission is made.

Only the thread that made a ring uses it (SINGLE_ISSUER), and completions are posted while it is inside io_uring_enter
(DEFER_TASKRUN), so the shared words need no memory barriers. Slot n of the submission entries always belongs to the
same user: what does not change in it is written once.
"""

import mmap
import os
import struct

from fsdriver.device import syscalls

SLOT_SIZE = 128

_SETUP_CQSIZE = 1 << 3
_SETUP_SQE128 = 1 << 10
_SETUP_SINGLE_ISSUER = 1 << 12
_SETUP_DEFER_TASKRUN = 1 << 13
_PARAMETERS_SIZE = 120
_OFF_SQES = 0x10000000
_OP_READ = 22
_CQE_SIZE = 16
_SQE = struct.Struct("<BBHiQQIIQ24x")
"""opcode, flags, ioprio, fd, off, addr, len, rw_flags, user_data"""


class Ring:
    """A ring of submission slots, each in use at most once at a time, so that neither queue can overflow."""

    def __init__(self, slots: int) -> None:
        """`slots` is a power of two.

        Raises OSError: ENOSYS, EPERM (kernel.io_uring_disabled, seccomp), EINVAL (Linux before 6.1), ENOMEM.
        """
        parameters = bytearray(_PARAMETERS_SIZE)
        flags = _SETUP_CQSIZE | _SETUP_SQE128 | _SETUP_SINGLE_ISSUER | _SETUP_DEFER_TASKRUN
        struct.pack_into("<III", parameters, 0, slots, 2 * slots, flags)
        self.descriptor = syscalls.io_uring_setup(slots, parameters)
        sq_entries, cq_entries = struct.unpack_from("<II", parameters, 0)
        sq = struct.unpack_from("<7I", parameters, 40)
        cq = struct.unpack_from("<7I", parameters, 80)
        shared = mmap.MAP_SHARED | mmap.MAP_POPULATE
        size = max(sq[6] + sq_entries * 4, cq[5] + cq_entries * _CQE_SIZE)
        self._map = mmap.mmap(self.descriptor, (size + 4095) & ~4095, flags=shared)
        self._slots = mmap.mmap(self.descriptor, sq_entries * SLOT_SIZE, flags=shared, offset=_OFF_SQES)
        self.words = memoryview(self._map).cast("I")
        self.completions = memoryview(self._map).cast("Q")[cq[5] // 8 :]
        """Two words each: user data; result in the low half."""
        self.slots = memoryview(self._slots)
        self.slot_words = self.slots.cast("Q")
        self.sq_tail = sq[1] // 4
        self.sq_mask = sq_entries - 1
        self.sq_array = sq[6] // 4
        self.cq_head = cq[0] // 4
        self.cq_tail = cq[1] // 4
        self.cq_mask = cq_entries - 1
        self.enter = syscalls.RingEnter(self.descriptor)

    def submit(self, slot: int) -> None:
        """Slot `slot` goes to the kernel at the next `enter`."""
        words, at = self.words, self.sq_tail
        tail = words[at]
        words[self.sq_array + (tail & self.sq_mask)] = slot
        words[at] = (tail + 1) & 0xFFFFFFFF

    def prepare_read(self, slot: int, descriptor: int, address: int, size: int) -> None:
        """Fill `slot` with a read of `descriptor` into `address`."""
        entry = (_OP_READ, 0, 0, descriptor, 0, address, size, 0, slot)
        _SQE.pack_into(self.slots, slot * SLOT_SIZE, *entry)

    def close(self) -> None:
        """Ends whatever the kernel still has of this ring."""
        for view in (self.words, self.completions, self.slot_words, self.slots):
            view.release()
        self._map.close()
        self._slots.close()
        os.close(self.descriptor)


def available() -> bool:
    """Whether this kernel lets this process make such a ring."""
    try:
        Ring(8).close()
    except OSError:
        return False
    return True
