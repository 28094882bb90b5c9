"""`policy`: check, explain, test, schema. Data on stdout, messages on stderr; exit codes as in design section 9."""

import json
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from enum import IntEnum
from pathlib import Path
from typing import Any, NoReturn

import click

from policy.cases import genuine_program, run_cases
from policy.errors import PolicyError
from policy.evaluate import Bundle
from policy.explain import Language, explain
from policy.files import editor_schema, read_files
from policy.label_ids import preview_label_ids
from policy.model import Action, Person, Policy
from policy.schema import load, parse_instant


class Exit(IntEnum):
    """The published numbers that `policy` uses."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 4
    VERIFICATION_FAILED = 7


_paths = click.argument("paths", nargs=-1, required=True, metavar="FOLDER|FILE...", type=click.Path(path_type=Path))


def _output(command: Callable[..., None]) -> Callable[..., None]:
    choices = click.Choice(["table", "json", "jsonl"])
    return click.option("-o", "--output", type=choices, default="table", show_default=True)(command)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Check, explain and test the departments' rules."""


@main.command()
@_paths
@_output
def check(paths: tuple[Path, ...], output: str) -> None:
    """Read the files and report everything that is wrong in them (exit 1)."""
    try:
        policy = _load(paths)
    except PolicyError as exc:
        rows = [problem._asdict() for problem in exc.problems]
        _print(output, rows, [str(problem) for problem in exc.problems])
        count = len(exc.problems)
        click.echo(f"{count} problem{'' if count == 1 else 's'}", err=True)
        sys.exit(Exit.FAILED)
    if output != "table":
        _print(output, [], [])
    departments = len(policy.departments)
    click.echo(
        f"no problems: {departments} departments, {len(policy.labels)} labels, {len(policy.rules)} rules, "
        f"{len(policy.cases)} cases",
        err=True,
    )


@main.command(name="test")
@_paths
@_output
def test_command(paths: tuple[Path, ...], output: str) -> None:
    """Ask the cases in the files and compare view, rule and permission with what they expect (exit 7)."""
    results = run_cases(_load_or_exit(paths))
    rows = [
        {
            "file": result.case.place.file,
            "line": result.case.place.line,
            "passed": result.passed,
            "view": result.decision.view,
            "because": result.decision.because,
            "allowed": result.decision.allowed,
            "complaint": result.complaint,
            "why": result.explanation.sentence,
        }
        for result in results
    ]
    lines = [
        f"{row['file']}:{row['line']}: {'ok' if row['passed'] else 'FAILED: ' + str(row['complaint'])}"
        f"\n    {row['why']}"
        for row in rows
    ]
    _print(output, rows, lines)
    failed = sum(not result.passed for result in results)
    click.echo(f"{len(results) - failed} of {len(results)} cases passed", err=True)
    if failed:
        sys.exit(Exit.VERIFICATION_FAILED)


@main.command(name="explain")
@_paths
@click.option("--user", required=True, help="a person, or service:NAME")
@click.option("--department", "departments", multiple=True, help="a department the person is in (may be repeated)")
@click.option("--group", "groups", multiple=True, help="a group the person is in (may be repeated)")
@click.option("--program", required=True, help="path of the program; taken to be the genuine one")
@click.option("--script", default="", help="path of the script it runs")
@click.option("--file", required=True, help="path in the drive, like /sales/clients/a.docx")
@click.option("--action", type=click.Choice([action.value for action in Action]), default="read", show_default=True)
@click.option("--at", help="a time like 2026-03-02T09:00 in the company's zone; now unless said")
@click.option("--language", type=click.Choice(["en", "zh"]), default="en", show_default=True)
@_output
def explain_command(
    paths: tuple[Path, ...],
    user: str,
    departments: tuple[str, ...],
    groups: tuple[str, ...],
    program: str,
    script: str,
    file: str,
    action: str,
    at: str | None,
    language: Language,
    output: str,
) -> None:
    """Say which rule decides a question, and why the others do not."""
    policy = _load_or_exit(paths)
    try:
        now = time.time() if at is None else parse_instant(at, policy.zone)
    except ValueError as exc:
        raise click.BadParameter(str(exc), param_hint="--at") from None
    person = Person(user, departments=frozenset(departments), groups=frozenset(groups))
    bundle = Bundle.build(policy, number=0, company="", label_ids=preview_label_ids(policy), people=[person])
    owner = bundle.label_for(file).department
    facts = genuine_program(policy, owner, program, script)
    found = explain(bundle, user, facts, file, Action(action), now, language=language)
    row = {
        "allowed": found.decision.allowed,
        "view": found.decision.view,
        "because": found.decision.because,
        "rule": found.decision.rule,
        "label": found.label,
        "sentence": found.sentence,
        "trace": [{"rule": s.rule, "reached": s.reached, "failed": s.failed, "text": s.text} for s in found.trace],
    }
    lines = [found.sentence, *(f"  {step.rule}: {step.text}" for step in found.trace)]
    _print(output, [row] if output == "jsonl" else row, lines)


@main.command()
@click.argument("which", type=click.Choice(["department", "company"]), default="department")
def schema(which: str) -> None:
    """Print the JSON Schema of a department's file or of company.yaml, for editors."""
    click.echo(json.dumps(editor_schema(which), ensure_ascii=False, indent=2))


def _load(paths: Iterable[Path]) -> Policy:
    try:
        texts = read_files(paths)
    except FileNotFoundError as exc:
        _fail(Exit.NOT_FOUND, f"{exc.filename}: no such file or folder")
    except OSError as exc:
        _fail(Exit.FAILED, f"{exc.filename}: {exc.strerror}")
    if not texts:
        _fail(Exit.NOT_FOUND, "no .yaml files there")
    return load(texts)


def _load_or_exit(paths: Iterable[Path]) -> Policy:
    try:
        return _load(paths)
    except PolicyError as exc:
        _fail(Exit.FAILED, str(exc))


def _fail(code: Exit, message: str) -> NoReturn:
    click.echo(message, err=True)
    sys.exit(code)


def _print(output: str, data: Sequence[Any] | dict[str, Any], lines: Sequence[str]) -> None:
    if output == "json":
        click.echo(json.dumps(data, ensure_ascii=False, indent=2))
    elif output == "jsonl":
        for row in data:
            click.echo(json.dumps(row, ensure_ascii=False))
    else:
        for line in lines:
            click.echo(line)
