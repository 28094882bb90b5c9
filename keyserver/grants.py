"""The key of one file, for labels whose keys never leave the server: decided, unwrapped, recorded, then given.

The server decides on its own, with the newest bundle and the same policy code as the agent. INVARIANT: a grant's record
is durable before the key is in any answer; a refusal is recorded too. A record without a key given can follow from a
crash in between, never a key without a record.
"""

from dataclasses import dataclass

from keyserver.bundles import Bundles
from keyserver.changes import Change
from keyserver.errors import Conflict, Denied, KeyServerError, Malformed, NotFound
from keyserver.keys.files import WrapPlace, unwrap, wrap
from keyserver.keys.labels import LabelKeys
from keyserver.machines import Machine
from keyserver.messages import FilePath, GrantRequest, GrantResponse, ProgramClaim, ProgramPath
from keyserver.sealing import Binding, SecretKey, seal
from policy import Action, Label, ProgramFacts, View


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was decided, before anything is unwrapped."""

    allowed: bool
    view: str
    rule: str
    policy: int


@dataclass(frozen=True, slots=True)
class Granted:
    """A file key whose grant is recorded. Not to leave the server unsealed."""

    file_key: SecretKey
    label: str
    version: int
    wrapped: bytes
    rule: str
    policy: int
    """Number of the bundle that decided."""


class Grants:
    """Decides, records, seals."""

    def __init__(self, bundles: Bundles, labels: LabelKeys, company: str) -> None:
        self._bundles = bundles
        self._labels = labels
        self._company = company

    def decide(self, change: Change, machine: Machine, request: GrantRequest) -> Granted | KeyServerError:
        """The key, or why not; returned, not raised, because the record of a refusal must stay."""
        verdict = Verdict(False, "", "", self._bundles.current.signed.number)
        try:
            verdict = self._decide(machine, request, change.now)
            if not verdict.allowed:
                raise Denied(f"{verdict.rule} does not allow {request.action} of this file in plaintext")
            file_key, version, wrapped = self._file_key(request)
        except (Conflict, Denied, Malformed, NotFound) as error:
            self._record(change, "denied", machine, request, verdict, str(error))
            return error
        self._record(change, "grant", machine, request, verdict, "")
        return Granted(file_key, request.file.label, version, wrapped, verdict.rule, verdict.policy)

    def seal(self, machine: Machine, file_id: str, granted: Granted) -> GrantResponse:
        """What the machine gets, once the change that decided is durable."""
        key_id = self._labels.label(granted.label).key_id
        binding = Binding("grant", self._company, machine.id, file_id, key_id, granted.version)
        sealed = seal(granted.file_key, machine.sealing_key, binding)
        return GrantResponse(sealed, key_id, granted.version, granted.wrapped, granted.rule)

    def _decide(self, machine: Machine, request: GrantRequest, now: float) -> Verdict:
        current = self._bundles.current
        label = _label(request, current.bundle.label_by_id(_id(request.file.label)))
        if request.person not in machine.persons:
            raise Denied(f"{request.person} is not mapped on this machine")
        if label.root_only and machine.mode == "user":
            raise Denied(f"label {label.qualified} is refused to machines where a plain user runs the drive")
        if not label.per_file:
            raise Conflict(f"label {label.qualified} is lent: ask for its lease")
        try:
            action = Action(request.action)
        except ValueError:
            raise Malformed(f"{request.action!r} is not an action") from None
        decision = current.bundle.decide(request.person, _facts(request.program), label, action, now)
        # The key of a file that is only being born shows nobody anything: a program that may create here without seeing
        # plaintext needs it so that the drive can seal what it drops in.
        born = action is Action.CREATE and not request.wrapped
        allowed = decision.allowed and (decision.view == View.PLAINTEXT or born)
        return Verdict(allowed, str(decision.view), decision.rule, current.signed.number)

    def _file_key(self, request: GrantRequest) -> tuple[SecretKey, int, bytes]:
        """The file key, the version it is wrapped under now, and its wrapped form."""
        file, row = request.file, self._labels.label(request.file.label)
        if not request.wrapped:
            version, label_key = self._labels.newest(row.id)
            file_key = SecretKey.generate(f"file {file.file_id}")
            place = WrapPlace(file.file_id, self._company, row.id, row.key_id, version)
            return file_key, version, wrap(file_key, label_key, place)
        if request.key_id != row.key_id:
            raise Denied("the file's key is not of this label")
        label_key_or_none = self._labels.versions(row.id).get(request.version)
        if label_key_or_none is None:
            raise Denied(f"the label's key has no version {request.version}")
        place = WrapPlace(file.file_id, self._company, row.id, row.key_id, request.version)
        return unwrap(request.wrapped, label_key_or_none, place), request.version, request.wrapped

    def _record(
        self, change: Change, event: str, machine: Machine, request: GrantRequest, verdict: Verdict, why: str
    ) -> None:
        mapped = request.person in machine.persons_ever
        detail = f"machine={machine.id} action={request.action} agent_policy={request.bundle}"
        if not mapped:
            detail += f" claimed_user={request.person}"
        change.record(
            event,
            user=request.person if mapped else "",
            file=FilePath(request.file.path, request.file.file_id, request.file.label),
            program=ProgramPath(request.program.path, request.program.sha256),
            view=verdict.view,
            rule=verdict.rule,
            policy=verdict.policy,
            detail=f"{detail} {why}".rstrip(),
        )


def _label(request: GrantRequest, label: Label | None) -> Label:
    if label is None:
        raise NotFound(f"no label of this company has the id {request.file.label}")
    return label


def _id(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise Malformed("the label's id is not hexadecimal") from None


def _facts(claim: ProgramClaim) -> ProgramFacts:
    return ProgramFacts(
        path=claim.path,
        sha256=claim.sha256,
        packages=frozenset(claim.packages),
        script=claim.script,
        script_sha256=claim.script_sha256,
        clean=claim.clean,
        jit=claim.jit,
    )
