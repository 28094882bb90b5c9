from hypothesis import given
from hypothesis import strategies as st

from fsdriver.content.offsets import CHUNK_SIZE, MAX_SIZE, chunk_count, plain_size, sealed_size


@given(st.integers(0, MAX_SIZE), st.sampled_from([4096, CHUNK_SIZE, 1 << 20]))
def test_plain_size_undoes_sealed_size(plain, chunk_size):
    assert plain_size(sealed_size(plain, chunk_size), chunk_size) == plain
    assert sealed_size(plain, chunk_size) < 1 << 63


def test_worked_sizes_of_the_format():
    sizes = {0: 4096, 1: 4133, 5000: 9132, 32767: 36899, 32768: 36900, 32769: 36937, 1 << 20: 1053824}
    assert {plain: sealed_size(plain) for plain in sizes} == sizes


@given(st.integers(0, 10**6))
def test_a_file_of_any_length_has_a_plain_size(sealed):
    assert 0 <= plain_size(sealed) <= max(0, sealed - 4096)


def test_a_chunk_begun_counts():
    assert chunk_count(CHUNK_SIZE + 1) == 2
