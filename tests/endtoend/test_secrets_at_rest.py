"""Promise P2: store, machine and server keep no content and no key in the clear."""

import base64
import json
from typing import Any

from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from fsdriver.machine import MACHINE_KEY, SEALING_KEY, MachineHome
from keyserver.home import Home
from keyserver.secret_store import open_store
from keyserver.service import KeyService, unseal
from keyserver.store.database import Store

CANARY = "canary-of-a-client-list-7c1f"


def test_no_canary_and_no_key_lies_anywhere(company, program):
    for number, place in enumerate(["a.txt", "clients/a.txt", "brief/a.txt", "handout/a.txt", "payroll/a.txt"]):
        program.put(company.drive / place, CANARY + str(number))
        program.open("changed", company.drive / place, 2)
        program.write("changed", CANARY[::-1])
        program.close("changed")
        assert program.get(company.drive / place).startswith(CANARY[::-1])
    dropped = company.drive / "clients/dropped.txt"
    dropped.write_text(CANARY)
    assert program.get(dropped) == CANARY
    company.everything_arrived()
    company.fsdriver("status")

    wanted = {"canary": CANARY.encode(), "reversed canary": CANARY[::-1].encode()}
    wanted |= {f"{name} {form}": text for name, key in keys(company).items() for form, text in forms(key)}
    assert len(wanted) > 40
    found = []
    for path in company.directory.rglob("*"):
        if company.drive in path.parents or path == company.directory / "passphrase" or not path.is_file():
            continue
        data = path.read_bytes()
        found += [f"{name} in {path}" for name, text in wanted.items() if text in data]
    assert not found


def keys(company):
    """Every secret there is, raw, by name."""
    home = MachineHome.open(company.agent_home)
    secrets = home.secrets(home.config().secrets)
    machine: Any = load_pem_private_key(secrets.require(MACHINE_KEY).encode(), None)
    found = {
        "machine key": machine.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()),
        "machine key number": machine.private_numbers().private_value.to_bytes(32, "big"),
        "sealing key": bytes.fromhex(secrets.require(SEALING_KEY)),
    }
    root = unseal(Home(company.server_home))
    store = Store(company.server_home / "keyserver.db", read_only=True)
    try:
        service = KeyService(store, root, lambda: 0.0)
        authority = service.authority.private_bytes()
        for row in service.labels.labels.values():
            for version, key in service.labels.versions(row.id).items():
                found[f"key {version} of {row.qualified}"] = bytes(key)
        found["log key"] = service.log._key.private_bytes_raw()
    finally:
        service.writer._connection.close()  # one that stays open would show this process an old log for ever
        store.close()
    found["authority key"] = authority
    settings = Home(company.server_home).config()
    kept = open_store(settings.secrets, home=company.server_home, service="keyserver")
    found["root key"] = base64.b64decode(kept.require(f"root-key.{settings.company}"))
    return found


def forms(key):
    """As it might be written down."""
    yield "raw", key
    yield "hex", key.hex().encode()
    yield "HEX", key.hex().upper().encode()
    for shift in range(3):  # base64 of a text that has the key somewhere inside
        encoded = base64.b64encode(bytes(shift) + key)
        yield f"base64 {shift}", encoded[4 if shift else 0 : -4]
        yield f"base64url {shift}", encoded[4 if shift else 0 : -4].translate(bytes.maketrans(b"+/", b"-_"))
    yield "json", json.dumps(list(key)).encode()


def test_a_key_in_the_clear_would_be_found():
    key = bytes(range(100, 132))
    texts = [f"key={key.hex()};", base64.b64encode(b"{" + key + b"}").decode(), base64.b64encode(b"{}" + key).decode()]
    for text in texts:
        assert any(form in text.encode() for _, form in forms(key))


def test_the_processes_show_no_secret(company):
    """Command lines and environments are everybody's to read on some machines."""
    passphrase = (company.directory / "passphrase").read_bytes().strip()
    for pid in (company.daemon_pid, company.server_pid):
        for name in ("cmdline", "environ"):
            with open(f"/proc/{pid}/{name}", "rb") as file:
                assert passphrase not in file.read()
