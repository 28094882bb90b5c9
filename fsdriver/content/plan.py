"""What the next commit of a sealed file changes, sealed and ready to be placed."""

from typing import NamedTuple

from fsdriver.content import scratch
from fsdriver.content.chunks import Buffer
from fsdriver.content.commit import SUM_MASK, Commit
from fsdriver.content.header import Header
from fsdriver.content.keys import FileKeys
from fsdriver.content.offsets import COMMIT_AT, OVERHEAD, sealed_size
from fsdriver.content.redo import Group
from fsdriver.content.slots import Slots
from fsdriver.errors import NotSupported

SEALS_MAX = 1 << 32
"""Chunks that one file key may seal: random 96-bit nonces allow no more (NIST SP 800-38D)."""


class Plan(NamedTuple):
    """A commit that is sealed and has to be placed. Placing it twice is the same as placing it once."""

    commit: Commit
    fresh: list[tuple[int, Buffer]]
    """Images above what the last commit covers: (offset, bytes). They are written first."""
    group: Group
    """Everything else, the commit record last."""
    logged: bool
    """The group changes bytes that the last commit covers, or is of no use in part."""


def check_seals(seals: int) -> None:
    """Raises NotSupported when a file key would seal more than it may."""
    if seals > SEALS_MAX:
        raise NotSupported("the file key has sealed as much as it may: the file needs a new key")


def seal_plan(
    slots: Slots,
    header: Header,
    keys: FileKeys,
    before: Commit,
    dirty: dict[int, bytearray],
    wipes: list[tuple[int, int]],
    *,
    cut: bool,
) -> Plan:
    """Seals the `dirty` chunks and the fresh hole markers.

    `before` has the generation of the last commit, and size, seals and sum as they are now. `wipes` are chunks (first,
    after last) whose slots become zeros; `cut` says that the file ends where its content does.
    """
    generation = before.generation + 1
    markers = sorted(slots.holes.fresh)
    indices = sorted(dirty)
    seals = before.seals + len(markers) + len(indices)
    check_seals(seals)
    wipes = _union(wipes, slots.count)
    total = before.sum - sum(slots.added_by(first, after) for first, after in wipes)
    for index in (*indices, *markers):
        if index < slots.count and not any(first <= index < after for first, after in wipes):
            total -= slots.added_at(index)
    covered: list[tuple[int, Buffer]] = []
    # Where slots are zeroed first, every image has to come after that.
    fresh: list[tuple[int, Buffer]] = covered if wipes else []
    stride = header.chunk_size + OVERHEAD
    for neighbours in _neighbours(indices, slots.base, scratch.SIZE // stride):
        pieces: list[Buffer] = [dirty[index] for index in neighbours]
        image = memoryview(bytearray(len(pieces) * OVERHEAD + sum(map(len, pieces))))
        total += slots.sealer.seal_into(image, 0, neighbours[0], generation, pieces)
        (fresh if neighbours[0] >= slots.base else covered).append((slots.offset(neighbours[0]), image))
    for index in markers:
        marker, added = slots.sealer.seal_marker(index, generation, slots.holes.end_of(index) - index)
        total += added
        (fresh if index >= slots.base else covered).append((slots.offset(index), marker))
    commit = Commit(generation, before.size, seals, total & SUM_MASK)
    sealed = sealed_size(before.size, header.chunk_size)
    ends_in_hole = before.size > 0 and slots.holes.find((before.size - 1) // header.chunk_size) is not None
    group = Group(
        header.file_id,
        [*covered, (COMMIT_AT, commit.seal(header, keys))],
        [(slots.offset(first), (after - first) * stride) for first, after in wipes],
        extend_to=sealed if ends_in_hole else 0,
        cut_to=sealed if cut else -1,
    )
    logged = bool(covered) or group.extend_to > 0
    return Plan(commit, [] if wipes else fresh, group, logged)


def _neighbours(indices: list[int], border: int, most: int) -> list[list[int]]:
    """Sorted indices in groups of consecutive ones, at most `most` each; none lies on both sides of `border`."""
    groups: list[list[int]] = []
    for index in indices:
        if groups and groups[-1][-1] == index - 1 and index != border and len(groups[-1]) < most:
            groups[-1].append(index)
        else:
            groups.append([index])
    return groups


def _union(ranges: list[tuple[int, int]], end: int) -> list[tuple[int, int]]:
    """The same indices below `end` in ranges that are sorted and do not overlap."""
    union: list[tuple[int, int]] = []
    for first, after in sorted(ranges):
        after = min(after, end)
        if union and first <= union[-1][1]:
            union[-1] = (union[-1][0], max(union[-1][1], after))
        elif first < after:
            union.append((first, after))
    return union
