"""The departments' rules: what a file is, and who sees it how. Pure; imports neither neighbour.

`load` reads the YAML files into a `Policy`; `Bundle.build` compiles it for agents and server, who both decide with
`Bundle.standing`. docs/policy-language.md is normative.
"""

from policy.cases import CaseResult, genuine_program, run_cases
from policy.errors import Place, PolicyError, Problem
from policy.evaluate import Bundle, Decision, Standing
from policy.explain import Explanation, Step, explain
from policy.files import SAMPLES, read_files
from policy.label_ids import assign_label_ids, preview_label_ids
from policy.model import (
    Action,
    Case,
    Label,
    Level,
    Person,
    Policy,
    ProgramEntry,
    ProgramFacts,
    Programs,
    Rule,
    View,
)
from policy.schema import load

__all__ = [
    "SAMPLES",
    "Action",
    "Bundle",
    "Case",
    "CaseResult",
    "Decision",
    "Explanation",
    "Label",
    "Level",
    "Person",
    "Place",
    "Policy",
    "PolicyError",
    "Problem",
    "ProgramEntry",
    "ProgramFacts",
    "Programs",
    "Rule",
    "Standing",
    "Step",
    "View",
    "assign_label_ids",
    "explain",
    "genuine_program",
    "load",
    "preview_label_ids",
    "read_files",
    "run_cases",
]
