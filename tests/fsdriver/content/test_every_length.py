"""A file that was cut, at every length there is."""

import os

import pytest

from fsdriver.errors import FileDamaged, HeaderDamaged
from tests.fsdriver.content.samples import CHUNK, memory, new_file, pattern, reopened

CONTENT = pattern(3 * CHUNK)


def test_every_length_but_the_whole_is_an_error():
    fd = memory()
    file = new_file(fd)
    file.write(0, CONTENT)
    file.close()
    whole = os.fstat(fd).st_size
    again = reopened(fd)
    assert again.read(0, len(CONTENT) + 1) == CONTENT
    again.close()
    for length in reversed(range(whole)):
        os.ftruncate(fd, length)
        with pytest.raises((HeaderDamaged, FileDamaged)):
            reopened(fd)
    os.close(fd)
