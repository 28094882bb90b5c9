import pytest

from policy import PolicyError, load, read_files
from tests.policy.samples import SALES


def test_a_folder_gives_its_yaml_files_and_nothing_else(tmp_path):
    for name in ("a.yaml", "b.yml", ".hidden.yaml", "c.txt"):
        (tmp_path / name).write_text(SALES)
    (tmp_path / "below").mkdir()
    assert sorted(read_files([tmp_path])) == [str(tmp_path / "a.yaml"), str(tmp_path / "b.yml")]


def test_what_is_not_utf8_is_named_where_it_stands(tmp_path):
    (tmp_path / "a.yaml").write_bytes(b"department: sales\n# caf\xe9\n")
    with pytest.raises(PolicyError) as caught:
        read_files([tmp_path])
    assert str(caught.value) == f"{tmp_path}/a.yaml:2:6: found the byte 0xe9, expected UTF-8"


def test_what_is_not_there_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_files([tmp_path / "none.yaml"])


def test_a_file_of_two_gigabytes_is_not_read_whole(tmp_path):
    with (tmp_path / "big.yaml").open("wb") as big:
        big.truncate(2 << 30)
    with pytest.raises(PolicyError, match="found 16777216 characters, expected at most"):
        load(read_files([tmp_path]))
