"""Why: one sentence, and for each rule of the label the first condition that failed. English and Chinese."""

from dataclasses import dataclass, replace
from typing import Literal

from policy.evaluate import Bundle, Decision
from policy.hours import DAYS, When
from policy.model import DEFAULT, Action, Label, ProgramFacts, Rule, View

Language = Literal["en", "zh"]
Condition = Literal["user", "program", "machine", "when", ""]

_WORDS: dict[Language, dict[str, str]] = {
    "en": {
        "allowed": "{who} may {action} {file} with {program} and sees {view}: {reason}.",
        "refused": "{who} may not {action} {file} with {program}: {reason}.",
        "rule": "rule {rule} of label {label} decides",
        "rule-lacks": "rule {rule} of label {label} decides, and does not allow {action}",
        "no-rules": "label {label} has no rules, so unlisted programs see {view}",
        "nobody": "no person is known to be asking, so label {label} shows {view}",
        "inactive": "{who} is not an active person here, so label {label} shows {view}",
        "no-rule": "no rule of label {label} matches, so it shows {view}",
        "root-only": "label {label} shows plaintext only in a drive that root runs, and this one a plain user runs",
        "matches": "matches",
        "not-reached": "not reached: an earlier rule decided",
        "user": "user: {who} is none of {users}",
        "program": "program: {program} is not listed in {programs}",
        "program-unclean": "program: {program} is listed in {programs} only when nothing foreign is loaded or attached",
        "machine": "machine: a plain user runs the drive, and label {label} asks for root",
        "when": "when: it is {local}, outside {hours}",
        "plaintext": "plaintext",
        "ciphertext": "ciphertext",
        "none": "nothing",
        "somebody": "nobody",
        "some-program": "an unknown program",
    },
    "zh": {
        "allowed": "{who}可以用{program}对{file}执行“{action}”,看到{view}:{reason}。",
        "refused": "{who}不能用{program}对{file}执行“{action}”:{reason}。",
        "rule": "由标签 {label} 的规则 {rule} 决定",
        "rule-lacks": "由标签 {label} 的规则 {rule} 决定,而它不允许“{action}”",
        "no-rules": "标签 {label} 没有规则,未列出的程序看到{view}",
        "nobody": "不知道是谁在请求,标签 {label} 只给出{view}",
        "inactive": "{who} 在这里不是有效的人员,标签 {label} 只给出{view}",
        "no-rule": "标签 {label} 没有匹配的规则,只给出{view}",
        "root-only": "标签 {label} 只在由 root 运行的驱动器中给出明文,而这个驱动器由普通用户运行",
        "matches": "匹配",
        "not-reached": "未检查:前面的规则已经决定",
        "user": "用户:{who} 不在 {users} 之中",
        "program": "程序:{program} 不在 {programs} 之中",
        "program-unclean": "程序:{program} 只有在没有加载或附加外来代码时才算 {programs}",
        "machine": "机器:驱动器由普通用户运行,而标签 {label} 要求由 root 运行",
        "when": "时间:现在是 {local},不在 {hours} 之内",
        "plaintext": "明文",
        "ciphertext": "密文",
        "none": "不到内容",
        "somebody": "无人",
        "some-program": "未知程序",
    },
}
_ACTIONS_ZH = {
    Action.READ: "读取",
    Action.WRITE: "写入",
    Action.CREATE: "新建",
    Action.RENAME: "改名",
    Action.DELETE: "删除",
}


@dataclass(frozen=True, slots=True)
class Step:
    """One rule of the label, in order: `failed` is the first condition that did not hold, "" if all did."""

    rule: str
    reached: bool
    failed: Condition
    text: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """A decision in words. `sentence` is complete; `trace` shows the way to it."""

    decision: Decision
    label: str
    sentence: str
    trace: tuple[Step, ...]


def explain(
    bundle: Bundle,
    person: str | None,
    program: ProgramFacts | None,
    file: str,
    action: Action,
    now: float | None,
    *,
    label: Label | None = None,
    language: Language = "en",
    user_mount: bool = False,
) -> Explanation:
    """Why `bundle.decide` answers as it does. `label`: the file's own, else that of its place. `user_mount`: as it is
    answered in a drive that a plain user runs, which has no key of a label that asks for root."""
    words = _WORDS[language]
    label = label or bundle.label_for(file)
    barred = user_mount and label.root_only
    decision = bundle.decide(person, program, label, action, now, plaintext=not barred)
    keyless = barred and action is Action.CREATE and decision.allowed
    if keyless:  # a file is born sealed, whoever makes it
        decision = replace(decision, allowed=False)
    names = {
        "who": person or words["somebody"],
        "action": action.value if language == "en" else _ACTIONS_ZH[action],
        "file": file,
        "program": (program.script or program.path) if program else words["some-program"],
        "view": words[decision.view],
        "label": label.qualified,
        "rule": decision.because,
    }
    trace = _trace(bundle, person, program, label, now, language, names, barred)
    reason = "root-only" if keyless else _reason(bundle, person, trace, decision)
    sentence = words["allowed" if decision.allowed else "refused"]
    return Explanation(
        decision, label.qualified, sentence.format(reason=words[reason].format(**names), **names), tuple(trace)
    )


def _reason(bundle: Bundle, person: str | None, trace: list[Step], decision: Decision) -> str:
    if decision.because != DEFAULT:
        return "rule" if decision.allowed else "rule-lacks"
    if any(step.failed == "machine" for step in trace):
        return "root-only"
    if not trace:
        return "no-rules"
    if person is None:
        return "nobody"
    if not any(known.name == person and known.active for known in bundle.people):
        return "inactive"
    return "no-rule"


def _trace(
    bundle: Bundle,
    person: str | None,
    program: ProgramFacts | None,
    label: Label,
    now: float | None,
    language: Language,
    names: dict[str, str],
    barred: bool,
) -> list[Step]:
    words = _WORDS[language]
    means = next((known.answers_to() for known in bundle.people if known.name == person), frozenset[str]())
    steps: list[Step] = []
    decided = False
    for rule in bundle.rules:
        if label.qualified not in rule.labels:
            continue
        failed = _first_failure(bundle, rule, means, program, now, barred)
        text = words[failed or "matches"]
        if decided:
            text = words["not-reached"]
        elif failed == "user":
            text = text.format(users=", ".join(rule.users), **names)
        elif failed == "program":
            if program is not None and not bundle.listed_as(replace(program, clean=True)).isdisjoint(
                rule.programs or ()
            ):
                text = words["program-unclean"]
            text = text.format(programs=", ".join(rule.programs or ()), **names)
        elif failed == "machine":
            text = text.format(**names)
        elif failed == "when" and rule.when is not None and now is not None:
            text = text.format(local=rule.when.local(now), hours=describe_when(rule.when))
        steps.append(Step(rule.name, not decided, failed, text))
        decided = decided or not failed
    return steps


def _first_failure(
    bundle: Bundle, rule: Rule, means: frozenset[str], program: ProgramFacts | None, now: float | None, barred: bool
) -> Condition:
    if means.isdisjoint(rule.users):
        return "user"
    if rule.programs is not None and bundle.listed_as(program).isdisjoint(rule.programs):
        return "program"
    if barred and rule.view is View.PLAINTEXT:
        return "machine"
    if rule.when is not None and now is not None and not rule.when.holds(now):
        return "when"
    return ""


def describe_when(when: When) -> str:
    """ "mon, tue 08:00-20:00 Asia/Shanghai"."""
    days = ", ".join(DAYS[day] for day in when.days)
    hours = ", ".join(f"{a // 60:02}:{a % 60:02}-{b // 60:02}:{b % 60:02}" for a, b in when.hours)
    return " ".join(part for part in (days, hours, when.zone) if part)
