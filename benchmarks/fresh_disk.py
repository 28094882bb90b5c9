"""A filesystem that nobody has used yet: on a used ext4, whoever makes files pays for what others have removed."""

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.commands import run

IMAGE_SIZE = 6 << 30


@contextmanager
def fresh_ext4(room: Path, size: int = IMAGE_SIZE, inodes: int = 0) -> Iterator[Path]:
    """A new ext4 of its own in a loop device, with room for so many files, or for as many as mkfs thinks fit."""
    image, top = room / "image", room / "ext4"
    top.mkdir(exist_ok=True)
    os.sync()  # what the one before has left is not to be paid by this one
    with image.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, size)
    some = ["-N", str(inodes)] if inodes else []
    run("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0", *some, str(image))
    run("mount", "-o", "loop", str(image), str(top))
    try:
        yield top
    finally:
        for _ in range(20):
            with contextlib.suppress(subprocess.CalledProcessError):
                run("umount", str(top))
                break
            time.sleep(0.5)  # somebody looks at all mounts just now, or a peer still writes
        image.unlink()
