import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policy import PolicyError, load
from policy.yamltree import Items, Scalar, read_tree
from tests.policy.samples import SALES

BOMB = "a: &a [x]\n" + "".join(
    f"{b}: &{b} [*{a}, *{a}, *{a}]\n" for a, b in zip("abcdefghij", "bcdefghijk", strict=True)
)


def refused(text: str) -> str:
    with pytest.raises(PolicyError) as caught:
        load({"x.yaml": text})
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("department: sales\n\tlabels: []\n", "x.yaml:2:1: found a tab, expected spaces"),
        ("department: sales\nlabels:\n\t- {}\n", "x.yaml:3:1: found a tab, expected spaces"),
        ("department: sal\x00es\n", "x.yaml:1:16: found the character U+0000, which cannot stand in YAML"),
        ("department: sal\ud800es\n", "x.yaml:1:16: found the character U+D800, which cannot stand in YAML"),
        ("department: x\n# \u202e evil\n", "x.yaml:2:3: found the character U+202E, which changes how the line reads"),
        ("department: a\n---\ndepartment: b\n", "x.yaml:2:1: found a second document (---), expected one per file"),
        ("department: a\nlabels: &l []\n", "x.yaml:2:9: found the anchor &l, expected none"),
        ("department: a\nlabels: *l\n", "x.yaml:2:9: found the alias *l, expected it written out"),
        ("department: a\n<<: {labels: []}\n", "x.yaml:2:1: found a merge (<<), expected the fields written out"),
        ("department: !!python/object:os.system x\n", "x.yaml:1:13: found the tag tag:yaml.org,2002:python/object"),
        ("department: a\n? [x]\n: y\n", "x.yaml:2:3: found a list or mapping as a key, expected a word"),
        ("department: [a\n", "x.yaml:2:1: not YAML: "),
        ("department: %s\n" % ("[" * 2000 + "]" * 2000), "found more than 20 levels of nesting"),
        ("department: " + "[" * 100_000, "found more than 20 levels of nesting"),
        ("# " + "x" * (4 << 20), "found 4194306 characters, expected at most 4194304"),
        ("%YAML 9.9\n---\nx: y\n", "not YAML: "),
    ],
)
def test_what_yaml_allows_and_we_do_not(text, message):
    assert message in refused(text)


def test_aliases_that_multiply_cost_nothing():
    start = time.process_time()
    assert "found the alias *j" in refused(BOMB)
    assert time.process_time() - start < 1


def test_a_byte_order_mark_is_no_mistake():
    assert load({"s.yaml": "\ufeff" + SALES}).departments == ("sales",)


@pytest.mark.parametrize(
    ("word", "kind"),
    [("on", "bool"), ("No", "bool"), ("12", "number"), ("1_0", "number"), ("20:00", "number"), ("1e+3", "text"),
     ("1.5", "number"), ("~", "null"), ("", "null"), ("2026-01-01", "other"), ("=", "other"), ("li", "text"),
     ("'on'", "text"), ('"12"', "text"), ("08:00-20:00", "text")],
)  # fmt: skip
def test_words_that_yaml_reads_as_something_else_are_known(word, kind):
    tree = read_tree("x", f"- {word}\n", [])
    assert isinstance(tree, Items)
    node = tree.items[0]
    assert isinstance(node, Scalar)
    assert node.kind == kind


def survives(text: str) -> None:
    try:
        load({"x.yaml": text})
    except PolicyError as exc:
        problems = exc.problems
    else:
        return
    assert problems
    assert {problem.file for problem in problems} == {"x.yaml"}
    assert max(problem.line for problem in problems) <= len((text + " ").splitlines()) + 1


@settings(max_examples=300, deadline=None)
@given(st.integers(0, len(SALES) - 1), st.integers(0, 40), st.text(max_size=8))
def test_a_mangled_file_is_a_policy_error_or_a_policy(start, length, instead):
    survives(SALES[:start] + instead + SALES[start + length :])


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.sampled_from([*SALES.splitlines(keepends=True), "\t", "- ", "{", "]", "&a ", "*a", "!t ", "'", "|\n", "? "])
    )
)
def test_lines_in_any_order_are_a_policy_error_or_a_policy(lines):
    survives("".join(lines))


@settings(max_examples=200, deadline=None)
@given(st.text())
def test_any_text_is_a_policy_error_or_a_policy(text):
    survives(text)


tree = st.recursive(
    st.sampled_from(["any", "office", "clients", "read", "plaintext", "x", "", "15m", "true", "~", "1"]),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(["name", "path", "package", "users", "labels", "when", "ask", "level"]), inner, max_size=4
        ),
    ),
    max_leaves=8,
)


def flow(node: object) -> str:
    if isinstance(node, list):
        return "[" + ", ".join(map(flow, node)) + "]"
    if isinstance(node, dict):
        return "{" + ", ".join(f"{key}: {flow(value)}" for key, value in node.items()) + "}"
    return str(node) or "''"


@settings(max_examples=300, deadline=None)
@given(
    st.dictionaries(st.sampled_from(["programs", "labels", "rules", "cases", "default", "zone"]), tree), st.booleans()
)
def test_well_formed_yaml_of_any_shape_is_a_policy_error_or_a_policy(fields, company):
    head = "company: x\n" if company else "department: x\n"
    survives(head + "".join(f"{key}: {flow(value)}\n" for key, value in fields.items()))
