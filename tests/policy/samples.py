"""A small policy that the tests of this folder vary, and what they need around it."""

from policy import Bundle, Person, Policy, ProgramFacts, load, preview_label_ids

SALES = """\
department: sales
programs:
  office:
    - {path: /usr/lib/libreoffice/program/soffice.bin, package: [libreoffice-core, libreoffice-core-nogui], jit: true}
  archive:
    - {path: /usr/bin/tar, sha256: [%s]}
labels:
  - {name: clients,   folders: [/sales/clients/**],   level: confidential, lease: 15m, offline: 8h}
  - {name: contracts, folders: [/sales/contracts/**], level: secret, unlisted: none}   # ciphertext unless said
rules:
  - name: office-edits-clients
    users: ["@sales"]
    programs: [office]
    labels: [clients]
    allow: [read, write, create, rename, delete]
    view: plaintext
    when: {days: mon-fri, hours: "08:00-20:00", zone: Asia/Shanghai}
  - {name: backup, users: ["service:backup"], programs: any, labels: [clients], allow: [read], view: ciphertext}
cases:
  - {ask: {user: li, program: /usr/bin/cat, file: /sales/clients/a.docx, action: read}, view: ciphertext,
     because: default}
""" % ("9f" * 32)
"""The example of design section 4, as it stands there."""

LI = Person("li", departments=frozenset({"sales"}))
DANA = Person("dana", departments=frozenset({"design"}), groups=frozenset({"management"}))
GONE = Person("gone", active=False, departments=frozenset({"sales"}))
BACKUP = Person("service:backup")
PEOPLE = (LI, DANA, GONE, BACKUP)

SOFFICE = ProgramFacts(
    "/usr/lib/libreoffice/program/soffice.bin", packages=frozenset({"libreoffice-core-nogui"}), clean=True, jit=True
)
CAT = ProgramFacts("/usr/bin/cat", packages=frozenset({"coreutils"}), clean=True)

MONDAY_NOON = 1772424000.0  # 2026-03-02 12:00 in Asia/Shanghai
SATURDAY_NOON = MONDAY_NOON + 5 * 86_400


def bundle(policy: Policy | str = SALES, *people: Person) -> Bundle:
    if isinstance(policy, str):
        policy = load({"sales.yaml": policy})
    ids = preview_label_ids(policy)
    return Bundle.build(policy, number=7, company="c0" * 16, label_ids=ids, people=people or PEOPLE)
