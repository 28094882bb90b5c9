"""How long a decision takes: 50 departments of 40 rules, all of a department's rules on one label, a `when` on each.

Run from the project's root: python -m benchmarks.policy_decision. "known" asks what was asked before; "first" asks a
program never seen (its entries are looked up, all rules are walked); "hour turned" makes every `when` be worked out.
"""

import json
import statistics
import time
from collections.abc import Callable

import click

from policy import Bundle, Person, ProgramFacts, load, preview_label_ids

DEPARTMENTS = 50
RULES = 40
MONDAY = 1_772_424_000.0
ROUNDS = 20_000


def department(number: int) -> str:
    programs = "\n".join(
        f"  p{rule}: [{{path: /usr/bin/p{rule}, package: p}}, {{path: /usr/bin/q{number}-{rule}, package: q}}]"
        for rule in range(RULES)
    )
    rules = "\n".join(
        f"  - {{name: r{rule}, users: ['@d{number}'], programs: [p{rule}], labels: [files], allow: [read, write], "
        f"view: plaintext, when: {{days: mon-fri, hours: '0{rule % 9}:{rule:02}-20:{rule:02}', zone: Asia/Shanghai}}}}"
        for rule in range(RULES)
    )
    labels = f"  - {{name: files, folders: [/d{number}/**], level: confidential}}"
    return f"department: d{number}\nprograms:\n{programs}\nlabels:\n{labels}\nrules:\n{rules}\n"


def microseconds(ask: Callable[[int], object], rounds: int) -> list[float]:
    """Time of each of `rounds` calls."""
    taken = []
    for number in range(rounds):
        start = time.perf_counter_ns()
        ask(number)
        taken.append((time.perf_counter_ns() - start) / 1000)
    return sorted(taken)


def main() -> None:
    start = time.perf_counter()
    policy = load({f"d{number}.yaml": department(number) for number in range(DEPARTMENTS)})
    read = time.perf_counter() - start
    person = Person("li", departments=frozenset(f"d{number}" for number in range(DEPARTMENTS)))
    bundle = Bundle.build(policy, number=1, company="", label_ids=preview_label_ids(policy), people=[person])
    document = json.dumps(bundle.to_document())
    start = time.perf_counter()
    bundle = Bundle.from_document(json.loads(document))
    loaded = time.perf_counter() - start
    click.echo(
        f"{DEPARTMENTS} departments x {RULES} rules: YAML {read:.2f} s, bundle {loaded:.3f} s, {len(document)} bytes"
    )

    labels = [bundle.label_for(f"/d{number}/x") for number in range(DEPARTMENTS)]
    last = ProgramFacts(f"/usr/bin/p{RULES - 1}", packages=frozenset({"p"}), clean=True)
    strangers = [ProgramFacts(f"/opt/{number}", clean=True) for number in range(ROUNDS)]
    for label in labels:
        bundle.standing("li", last, label, MONDAY)
        bundle.standing("li", None, label, MONDAY)
    asks: dict[str, tuple[Callable[[int], object], int]] = {
        "known": (lambda n: bundle.standing("li", last, labels[n % DEPARTMENTS], MONDAY + n / ROUNDS), ROUNDS),
        "first": (lambda n: bundle.standing("li", strangers[n], labels[n % DEPARTMENTS], MONDAY), ROUNDS),
        "hour turned": (lambda n: bundle.standing("li", None, labels[n], MONDAY + 86_400), DEPARTMENTS),
        "label_for": (lambda n: bundle.label_for("/d7/projects/2026/march/report.docx"), ROUNDS),
    }
    for name, (ask, rounds) in asks.items():
        taken = microseconds(ask, rounds)
        click.echo(f"{name:12} p50 {statistics.median(taken):8.2f} us   p99 {taken[int(rounds * 0.99)]:8.2f} us")


if __name__ == "__main__":
    main()
