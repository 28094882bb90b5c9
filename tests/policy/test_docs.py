"""docs/policy-language.md is normative, so what it shows must be true."""

import re
from pathlib import Path

from policy import load, run_cases
from policy.labels import _KEYS, DEFAULTS
from policy.model import Level

TEXT = (Path(__file__).parents[2] / "docs" / "policy-language.md").read_text(encoding="utf-8")


def test_its_example_is_a_policy_whose_cases_pass():
    (example,) = re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)
    policy = load({"sales.yaml": example, "company.yaml": "company: Sample\nzone: Asia/Shanghai\n"})
    assert [result.complaint for result in run_cases(policy)] == ["", ""]


def test_its_table_of_labels_has_every_key_and_the_defaults_of_each_level():
    section = TEXT.split("## 5.")[1].split("## 6.")[0]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in section.splitlines() if "|" in line]
    table = {row[0].strip("`"): row[2:] for row in rows if row[0].startswith("`")}
    assert set(table) == set(_KEYS)
    defaults = [DEFAULTS[level] for level in Level]
    spelled = {
        "lease": ["1h" if d.lease == 3600 else "15m" if d.lease == 900 else "never lent" for d in defaults],
        "offline": [str(int(d.offline)) for d in defaults],
        "unlisted": [d.unlisted.value for d in defaults],
        "recheck": [d.recheck for d in defaults],
        "save-lower": [d.save_lower for d in defaults],
        "rollback": [d.rollback for d in defaults],
        "grace": [f"{int(d.grace) // 60}m" for d in defaults],
        "machines": ["root" if d.root_only else "any" for d in defaults],
        "wait-fsync": [str(d.wait_fsync).lower() for d in defaults],
    }
    assert {key: table[key] for key in spelled} == spelled
