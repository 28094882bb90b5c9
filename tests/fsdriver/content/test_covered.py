import random

from fsdriver.content.covered import Covered


def test_what_was_not_covered_is_told_once():
    draw = random.Random(7)
    for _ in range(200):
        covered = Covered()
        model: set[int] = set()
        for _ in range(30):
            start = draw.randrange(60)
            end = start + draw.randrange(20)
            new = {byte for low, high in covered.cover(start, end) for byte in range(low, high)}
            assert new == set(range(start, end)) - model
            model.update(range(start, end))


def test_parts_are_in_order_and_not_empty():
    covered = Covered()
    assert covered.cover(10, 20) == [(10, 20)]
    assert covered.cover(30, 40) == [(30, 40)]
    assert covered.cover(0, 50) == [(0, 10), (20, 30), (40, 50)]
    assert covered.cover(0, 50) == []
    assert covered.cover(50, 50) == []
