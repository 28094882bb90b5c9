"""Is this a whole sealed file? Asked about content that a program without the plaintext view has put into the drive."""

from fsdriver.content.commit import Commit
from fsdriver.content.header import Header
from fsdriver.content.keys import FileKey
from fsdriver.content.offsets import COMMIT_AT, COMMIT_SIZE, HEADER_SIZE, OVERHEAD, sealed_size
from fsdriver.errors import FileDamaged


def is_whole(head: bytes, size: int, key: FileKey | None) -> bool:
    """Whether `head`, the first HEADER_SIZE bytes of `size`, begins a sealed file of just this length.

    With `key` header and commit are verified and say the length: True. Without, only a size that no sealed file has
    can be told: False stands for "may be". Errors: HeaderDamaged, FormatUnknown, FileDamaged.
    """
    header = Header.parse(head)
    if key is None:
        rest = (size - HEADER_SIZE) % (header.chunk_size + OVERHEAD)
        if size < HEADER_SIZE or 0 < rest <= OVERHEAD:
            raise FileDamaged(f"no sealed file has {size} bytes")
        return False
    commit = Commit.open(head[COMMIT_AT : COMMIT_AT + COMMIT_SIZE], header, header.check(head, key))
    if size != sealed_size(commit.size, header.chunk_size):
        raise FileDamaged(f"{size} bytes of a sealed file that has {sealed_size(commit.size, header.chunk_size)}")
    return True
