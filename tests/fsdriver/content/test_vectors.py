"""The golden vectors: files sealed once and for all, and what a reader makes of each."""

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from tests.vectors import generate_content
from tests.vectors.content_vector import Vector, read_whole

VECTORS = sorted(generate_content.FOLDER.glob("*.vec"))
assert VECTORS, "no vectors: nothing passes by being moved"


@pytest.mark.parametrize("path", VECTORS, ids=lambda path: path.stem)
def test_a_vector_is_read_as_it_says(path):
    vector = Vector.decode(path.read_text())
    assert read_whole(vector.sealed, vector.reader) == vector.outcome


def test_making_the_vectors_again_changes_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(generate_content, "FOLDER", tmp_path)
    generate_content.main()
    made = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert made == {path.name: path.read_text() for path in VECTORS}


def test_an_independent_reader_of_format_md_agrees():
    """docs/format.md 11 is a reader in forty lines that shares no code with the drive."""
    example = Path(__file__).parents[3] / "docs" / "format_reader.py"
    for name in ("size_0", "size_1", "size_5000", "size_32769", "versions", "with_hole", "split_hole", "shrunk"):
        path = generate_content.FOLDER / f"{name}.vec"
        vector = Vector.decode(path.read_text())
        done = subprocess.run(
            [sys.executable, example, vector.reader.label_key.hex()],
            input=vector.sealed,
            capture_output=True,
            check=True,
        )
        assert hashlib.sha256(done.stdout).hexdigest() == vector.outcome.released
