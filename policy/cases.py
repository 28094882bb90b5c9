"""`cases:`: the questions a department asks its own rules, and whether they are answered as its owners expect.

A case passes with the right answer for the right reason: view, rule and whether the action is allowed. The program of
a case is the genuine one at that path (of the listed digest, or of the package that the policy names), with nothing
foreign loaded into it.
"""

from dataclasses import dataclass

from policy.evaluate import Bundle, Decision
from policy.explain import Explanation, explain
from policy.label_ids import preview_label_ids
from policy.model import COMPANY, Case, Person, Policy, ProgramFacts, Programs


@dataclass(frozen=True, slots=True)
class CaseResult:
    """What a case got. `complaint` is "" if that is what it expected."""

    case: Case
    decision: Decision
    explanation: Explanation
    complaint: str

    @property
    def passed(self) -> bool:
        return not self.complaint


def run_cases(policy: Policy) -> tuple[CaseResult, ...]:
    """The results of all cases, in their order."""
    ids = preview_label_ids(policy)
    bundles: dict[Person, Bundle] = {}
    results = []
    for case in policy.cases:
        person = Person(case.user, departments=case.departments, groups=case.groups)
        if person not in bundles:
            bundles[person] = Bundle.build(policy, number=0, company="", label_ids=ids, people=[person])
        results.append(_run(bundles[person], case, genuine_program(policy, case.department, case.program, case.script)))
    return tuple(results)


def genuine_program(policy: Policy, department: str, path: str, script: str = "") -> ProgramFacts:
    """The program at `path` as its owners mean it: what the entries for that path ask for is true of it. Of several
    digests the first counts, the department's own before the company's."""
    named = sorted(policy.programs, key=lambda programs: _distance(programs, department))
    entries = [entry for programs in named for entry in programs.entries if entry.path == path]
    scripts = [entry for entry in entries if entry.script == script]
    return ProgramFacts(
        path=path,
        sha256=next((digest for entry in entries for digest in entry.sha256), ""),
        packages=frozenset(package for entry in entries for package in entry.packages),
        script=script,
        script_sha256=next((digest for entry in scripts for digest in entry.script_sha256), ""),
        clean=True,
    )


def _distance(programs: Programs, department: str) -> int:
    owner = programs.name.partition("/")[0]
    return (department, COMPANY).index(owner) if owner in (department, COMPANY) else 2


def _run(bundle: Bundle, case: Case, program: ProgramFacts) -> CaseResult:
    explanation = explain(bundle, case.user, program, case.file, case.action, case.at)
    decision = explanation.decision
    complaints = []
    if decision.because != case.because:
        complaints.append(f"because {decision.because}, expected {case.because}")
    if decision.view is not case.view:
        complaints.append(f"view {decision.view}, expected {case.view}")
    if decision.allowed is not case.allowed:
        complaints.append(f"{case.action} {_allowed(decision.allowed)}, expected {_allowed(case.allowed)}")
    return CaseResult(case, decision, explanation, "; ".join(complaints))


def _allowed(allowed: bool) -> str:
    return "allowed" if allowed else "refused"
