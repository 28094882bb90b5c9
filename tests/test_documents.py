"""What the documents say about names, packages and numbers is what the project has."""

import errno
import re
from pathlib import Path

import pytest

from fsdriver.errors import ERRNO

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path):
    text = re.sub(r"```.*?```", "", document.read_text(), flags=re.DOTALL)
    targets = [target.partition("#")[0] for target in re.findall(r"\]\(([^)\s]+)\)", text)]
    inside = [target for target in targets if target and "://" not in target]
    assert [target for target in inside if not (document.parent / target).exists()] == []


def test_the_threat_model_names_every_errno():
    text = (ROOT / "docs/threat-model.md").read_text()
    named = re.findall(r"^\| (E[A-Z]+) \|", text, flags=re.MULTILINE)
    assert {getattr(errno, name) for name in named} == set(ERRNO.values())


def test_the_threat_model_names_tests_that_exist():
    text = (ROOT / "docs/threat-model.md").read_text()
    paths = re.findall(r"`(tests/[\w/.]+)`", text)
    assert paths
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_the_readme_lists_the_packages_that_are_installed():
    script = (ROOT / "deploy/machine.sh").read_text()
    packages = {name for names in re.findall(r"_PACKAGES=\((.*?)\)", script, flags=re.DOTALL) for name in names.split()}
    (listed,) = re.findall(r"\*\*Debian packages\*\*.*?\n\n", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    assert packages <= set(re.findall(r"[a-z0-9-]+", listed))


def test_ci_runs_the_test_command_of_the_readme():
    assert (ROOT / ".ci/run").read_text().splitlines()[-1] == "make test"
    assert "\nmake test " in (ROOT / "README.md").read_text()
