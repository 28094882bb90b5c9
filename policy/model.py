"""The nouns of the policy language, as they are after reading. Names are resolved: programs and labels are qualified
("sales/office"), a program of `company.yaml` is "company/NAME". Nothing here knows where in a file it stood."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

from policy.errors import Place
from policy.hours import When

COMPANY = "company"
"""The department that `company.yaml` is; no department may be called so."""
ANY = "any"
DEFAULT = "default"
"""What `because` says when no rule matched."""
SERVICE = "service:"


class View(StrEnum):
    """How a file's content is seen."""

    PLAINTEXT = "plaintext"
    CIPHERTEXT = "ciphertext"
    NONE = "none"


class Action(StrEnum):
    """What a request does, as design section 4 delimits it."""

    READ = "read"
    WRITE = "write"
    CREATE = "create"
    RENAME = "rename"
    DELETE = "delete"


class Level(StrEnum):
    """How much a label's files matter. Sets the label's defaults and which of two labels is the higher."""

    INTERNAL = "internal"
    CONFIDENTIAL = "confidential"
    SECRET = "secret"

    @property
    def rank(self) -> int:
        """0, 1, 2: higher is more secret."""
        return tuple(Level).index(self)


@dataclass(frozen=True, slots=True)
class Person:
    """Someone the server knows, or a service ("service:backup"). Inactive: no rule matches, `any` included."""

    name: str
    active: bool = True
    departments: frozenset[str] = frozenset()
    groups: frozenset[str] = frozenset()

    def answers_to(self) -> frozenset[str]:
        """Every entry of a rule's `users` that means this person."""
        if not self.active:
            return frozenset()
        if self.name.startswith(SERVICE):
            return frozenset({self.name})
        return frozenset({self.name, ANY, *(f"@{name}" for name in self.departments | self.groups)})


@dataclass(frozen=True, slots=True)
class ProgramFacts:
    """What was established about a running program. Digests are lower-case hex, "" when not taken.

    `packages`: packages the executable belongs to, with it and all mapped libraries verified. `jit`: has anonymous
    executable pages. `clean` False (a tracer, an untrusted mapping ...): counts as unlisted, whatever else is true.
    """

    path: str
    sha256: str = ""
    packages: frozenset[str] = frozenset()
    script: str = ""
    script_sha256: str = ""
    clean: bool = False
    jit: bool = False


@dataclass(frozen=True, slots=True)
class ProgramEntry:
    """One listed executable: trusted by package or by digest (of the two, one is empty)."""

    path: str
    packages: tuple[str, ...] = ()
    sha256: tuple[str, ...] = ()
    script: str | None = None
    script_sha256: tuple[str, ...] = ()
    jit: bool = False

    def __post_init__(self) -> None:
        if bool(self.packages) == bool(self.sha256):
            raise ValueError("a program is trusted by package or by sha256, one of them")

    def matches(self, facts: ProgramFacts) -> bool:
        """Whether the running program is this one."""
        if not facts.clean or facts.path != self.path or (facts.jit and not self.jit):
            return False
        if self.script is not None and facts.script != self.script:
            return False
        if self.script_sha256 and facts.script_sha256 not in self.script_sha256:
            return False
        if self.packages:
            return not facts.packages.isdisjoint(self.packages)
        return facts.sha256 in self.sha256


@dataclass(frozen=True, slots=True)
class Programs:
    """A named list of programs of one department."""

    name: str
    """Qualified: "sales/office"."""
    entries: tuple[ProgramEntry, ...]


@dataclass(frozen=True, slots=True)
class Label:
    """What a file is. Times are seconds; `id` is 16 bytes, b"" in a `Policy` (the server gives ids)."""

    id: bytes
    name: str
    department: str
    level: Level
    folders: tuple[str, ...]
    """Patterns: "/sales/clients/**"."""
    lease: float
    offline: float
    unlisted: View
    recheck: Literal["open", "read"]
    save_lower: Literal["record", "raise", "deny"]
    rollback: Literal["record", "refuse"]
    """What an old copy put back at its path is: a record, or EIO as well."""
    grace: float
    per_file: bool
    """The key of each file is asked for at its open; the label's key is never lent."""
    root_only: bool
    """Machines where a plain user runs the mount are refused."""
    wait_fsync: bool
    """An open is answered after its record was synced."""
    retired: bool = False

    @property
    def qualified(self) -> str:
        return f"{self.department}/{self.name}"


@dataclass(frozen=True, slots=True)
class Rule:
    """Who, with which programs, may do what with which labels, seen how, when."""

    name: str
    department: str
    users: tuple[str, ...]
    programs: tuple[str, ...] | None
    """Qualified names of `Programs`; None is `any`: every program, unlisted ones too."""
    labels: tuple[str, ...]
    allow: frozenset[Action]
    view: View
    when: When | None = None

    @property
    def qualified(self) -> str:
        return f"{self.department}/{self.name}"


@dataclass(frozen=True, slots=True)
class Case:
    """A question in a department's file and the answer its owners expect."""

    place: Place
    department: str
    user: str
    departments: frozenset[str]
    groups: frozenset[str]
    program: str
    script: str
    file: str
    action: Action
    at: float | None
    """None: every `when` is taken to hold."""
    view: View
    because: str
    allowed: bool


@dataclass(frozen=True, slots=True)
class Policy:
    """All files of a company's policy, read and checked."""

    company: str
    """The company's name as written, "" without `company.yaml`."""
    zone: str
    default: str
    """Qualified name of the label of files that no folder claims."""
    departments: tuple[str, ...]
    """Department names, `company` not among them."""
    labels: tuple[Label, ...]
    programs: tuple[Programs, ...]
    rules: tuple[Rule, ...]
    cases: tuple[Case, ...] = ()
    was: Mapping[str, str] = field(default_factory=dict)
    """Qualified label to the qualified name it had before."""
    places: Mapping[str, Place] = field(default_factory=dict)
    """Qualified label to where it is written."""
