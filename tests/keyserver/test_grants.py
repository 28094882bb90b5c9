import sqlite3

import msgspec
import pytest

from keyserver.errors import Conflict, Denied, KeyServerError, Malformed, NotFound
from keyserver.messages import FileFacts, GrantRequest, ProgramClaim
from keyserver.sealing import Binding
from tests.keyserver.company import POLICY, SHA

FILE = "0f" * 16
OFFICE = ProgramClaim("/usr/bin/office", sha256=SHA, clean=True)


@pytest.fixture
def machine(company):
    company.add_user("li", "sales")
    return company.join({1000: "li"})


@pytest.fixture
def request_(company):
    file = FileFacts(FILE, company.label("sales/contracts"), "/sales/contracts/a.docx")
    return GrantRequest(1, "li", OFFICE, "create", file)


@pytest.fixture
def ask(company, machine):
    def ask(request):
        known = company.service.machines.get(machine.id)
        answer = company.change(lambda change: company.service.grants.decide(change, known, request))
        if isinstance(answer, KeyServerError):
            return answer
        return company.service.grants.seal(known, request.file.file_id, answer)

    return ask


def opened(company, machine, answer):
    binding = Binding("grant", company.service.company, machine.id, FILE, answer.key_id, answer.version)
    return machine.sealing.open(answer.sealed, binding)


def again(request, answer, **changes):
    return msgspec.structs.replace(
        request,
        **{"action": "read", "key_id": answer.key_id, "version": answer.version, "wrapped": answer.wrapped} | changes,
    )


def test_a_new_files_key_comes_back_at_the_next_open(company, machine, request_, ask):
    born = ask(request_)
    assert born.rule == "sales/office-edits"
    read = ask(again(request_, born))
    assert opened(company, machine, read) == opened(company, machine, born)
    assert read.wrapped == born.wrapped


def test_a_grant_is_recorded_before_the_key_is_given(company, request_, ask):
    ask(request_)
    connection = sqlite3.connect(company.founded.home.database)
    (body,) = connection.execute("SELECT body FROM record WHERE event = 'grant'").fetchone()
    connection.close()
    record = msgspec.json.decode(body)
    assert record["user"] == "li"
    assert record["file"]["path"] == "/sales/contracts/a.docx"
    assert record["program"] == {"path": "/usr/bin/office", "sha256": SHA}
    assert (record["view"], record["rule"]) == ("plaintext", "sales/office-edits")


def test_older_key_versions_still_open(company, machine, request_, ask):
    born = ask(request_)
    company.change(lambda change: company.service.labels.rotate(change, request_.file.label, "admin"))
    assert opened(company, machine, ask(again(request_, born))) == opened(company, machine, born)
    assert ask(request_).version == 2


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"person": "dana"}, Denied),
        ({"action": "read", "program": ProgramClaim("/usr/bin/cat", sha256=SHA, clean=True)}, Denied),
        ({"action": "read", "program": msgspec.structs.replace(OFFICE, clean=False)}, Denied),
        ({"action": "delete"}, Denied),
        ({"action": "fly"}, Malformed),
        ({"wrapped": b"x"}, Denied),
        ({"file": FileFacts(FILE, "0" * 32, "/x")}, NotFound),
        ({"file": FileFacts(FILE, "zz", "/x")}, Malformed),
        ({"file": FileFacts("zz", "contracts", "/x")}, Malformed),
    ],
)
def test_refusals_are_named_and_recorded(company, request_, ask, changes, error):
    if (file := changes.get("file")) and file.label == "contracts":
        changes = {"file": msgspec.structs.replace(file, label=request_.file.label)}
    answer = ask(msgspec.structs.replace(request_, **changes))
    assert isinstance(answer, error)
    assert company.events()[-1] == "denied"


def test_a_program_that_may_create_unseen_gets_the_key_of_its_new_file_only(company, machine, ask, request_):
    text = POLICY["sales.yaml"].replace(
        "labels: [clients], allow: [read]", "labels: [contracts], allow: [read, create]"
    )
    files = POLICY | {"sales.yaml": text}
    company.change(lambda c: company.service.bundles.upload(c, files, company.service.bundles.parse(files), "admin"))
    company.add_user("service:backup")
    company.change(lambda c: company.service.map_login(c, machine.id, 0, "service:backup", "admin"))
    unseen = msgspec.structs.replace(request_, person="service:backup", program=ProgramClaim("/usr/bin/borg"))
    born = ask(unseen)
    opened(company, machine, born)
    for action in ("read", "create"):
        assert isinstance(ask(again(unseen, born, action=action)), Denied)


def test_a_request_whose_record_would_be_too_long_is_malformed(company, ask, request_):
    file = msgspec.structs.replace(request_.file, path="/" + "x" * 70_000)
    with pytest.raises(Malformed, match="limit"):
        ask(msgspec.structs.replace(request_, file=file))


def test_a_wrapped_key_is_good_for_its_own_file_and_label_only(company, request_, ask):
    born = ask(request_)
    flipped = born.wrapped[:-1] + bytes([born.wrapped[-1] ^ 1])
    other_file = msgspec.structs.replace(request_.file, file_id="0e" * 16)
    for changes in (
        {"wrapped": flipped},
        {"file": other_file},
        {"version": 2},
        {"key_id": "0" * 32},
        {"wrapped": b"x"},
    ):
        assert isinstance(ask(again(request_, born, **changes)), KeyServerError)


def test_keys_of_lent_labels_are_not_granted(company, request_, ask):
    file = msgspec.structs.replace(request_.file, label=company.label("sales/clients"))
    assert isinstance(ask(msgspec.structs.replace(request_, file=file)), Conflict)


def test_a_users_mount_gets_no_secret_file(company, request_):
    company.add_user("li", "sales")
    user = company.join({1000: "li"}, "user")
    known = company.service.machines.get(user.id)
    answer = company.change(lambda change: company.service.grants.decide(change, known, request_))
    assert isinstance(answer, Denied)
    assert "plain user" in str(answer)


def test_the_newest_policy_decides_whatever_the_agent_holds(company, request_, ask):
    born = ask(request_)
    company.change(lambda change: company.service.people.set_active(change, "li", False, "admin"))
    assert isinstance(ask(again(request_, born)), Denied)
