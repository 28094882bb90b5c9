"""What is wrong with a policy, and exactly where."""

from typing import NamedTuple


class Place(NamedTuple):
    """A spot in a policy file; line and column count from 1, 0 means the file (or the bundle) as a whole."""

    file: str
    line: int = 0
    column: int = 0


class Problem(NamedTuple):
    """One thing that is wrong: `message` says what was found and what was expected."""

    file: str
    line: int
    column: int
    message: str

    def __str__(self) -> str:
        if not self.line:
            return f"{self.file}: {self.message}"
        return f"{self.file}:{self.line}:{self.column}: {self.message}"


class PolicyError(Exception):
    """A policy or bundle that is refused. Every problem found is in `problems`, in reading order."""

    problems: tuple[Problem, ...]

    def __init__(self, *problems: Problem) -> None:
        super().__init__(*problems)
        self.problems = tuple(sorted(problems, key=lambda problem: problem[:3]))

    def __str__(self) -> str:
        return "\n".join(map(str, self.problems))
