"""Files on NFS that are open and have no name any more: their client keeps them as `.nfs` and 24 hexadecimal digits, in
the folder they were in, until they are closed ("silly rename"). In the drive there are no such names.
"""

import re

_PREFIX = b".nfs"
_NAME = re.compile(rb"\.nfs[0-9a-f]{24}")


def is_silly(name: bytes) -> bool:
    return name.startswith(_PREFIX) and _NAME.fullmatch(name) is not None
