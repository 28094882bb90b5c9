import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policy.folders import FolderMap, clashes, split_pattern

_names = st.sampled_from(["a", "b", "*"])
patterns = st.lists(_names, max_size=3).map(lambda names: "/".join(["", *names, "**"]))
paths = st.lists(st.sampled_from(["a", "b", "c"]), max_size=4).map(lambda names: "/" + "/".join(names))


def covers(pattern: str, path: str) -> int | None:
    """How deep the pattern's folder is, if it is one of those that contain `path`."""
    wanted = pattern.removesuffix("/**").split("/")[1:]
    above = [name for name in path.split("/") if name][:-1]
    matches = len(wanted) <= len(above) and all(a in ("*", b) for a, b in zip(wanted, above, strict=False))
    return len(wanted) if matches else None


@settings(deadline=None)
@given(st.sets(patterns, max_size=5), paths)
def test_the_deepest_folder_wins_and_of_equals_the_more_literal(drawn, path):
    if any(clashes({pattern: split_pattern(pattern) for pattern in drawn})):
        return
    candidates = [
        (depth, -pattern.count("*"), pattern) for pattern in drawn if (depth := covers(pattern, path)) is not None
    ]
    found = FolderMap({pattern: pattern for pattern in drawn}).label_for(path)
    assert found == (max(candidates)[2] if candidates else None)


@settings(deadline=None)
@given(patterns, patterns)
def test_two_patterns_clash_when_some_path_has_two_answers(left, right):
    if left == right:
        return
    names = ["a", "b", "c"]
    folders: list[tuple[str, ...]] = [()]
    for _ in range(3):
        folders += [(*folder, name) for folder in folders for name in names]
    all_paths = {"/" + "/".join((*folder, "file")) for folder in folders}
    in_left = {path for path in all_paths if covers(left, path) is not None}
    in_right = {path for path in all_paths if covers(right, path) is not None}
    apart_or_nested = not in_left & in_right or in_left <= in_right or in_right <= in_left
    assert bool(list(clashes({"l": split_pattern(left), "r": split_pattern(right)}))) is not apart_or_nested


@settings(deadline=None)
@given(st.sets(patterns, max_size=4), paths)
def test_a_boundary_is_a_folder_of_a_pattern_or_above_one(drawn, directory):
    names = [name for name in directory.split("/") if name]

    def reaches(pattern: str) -> bool:
        wanted = pattern.removesuffix("/**").split("/")[1:]
        return len(names) <= len(wanted) and all(a in ("*", b) for a, b in zip(wanted, names, strict=False))

    assert FolderMap({pattern: "x" for pattern in drawn}).is_boundary(directory) is any(map(reaches, drawn))


def test_nested_folders():
    folders = FolderMap({"/**": "all", "/sales/**": "sales", "/sales/*/old/**": "old", "/sales/acme/**": "acme"})
    answers = {
        "/x": "all",
        "/sales": "all",
        "/sales/x": "sales",
        "/sales/acme": "sales",
        "/sales/acme/x": "acme",
        "/sales/acme/old/x": "old",
        "/sales/b/old/c/d": "old",
        "/sales/b/c": "sales",
    }
    assert {path: folders.label_for(path) for path in answers} == answers


@pytest.mark.parametrize(
    "pattern",
    ["", "**", "sales/**", "/sales", "/sales/", "/sales/*", "/sales/**/x/**", "/a//b/**", "/./**", "/../**", "/a?/**",
     "/[a]/**", "/{a,b}/**", "/" + "x" * 256 + "/**"],
)  # fmt: skip
def test_what_is_no_folder_is_refused(pattern):
    with pytest.raises(ValueError, match="expected"):
        split_pattern(pattern)
