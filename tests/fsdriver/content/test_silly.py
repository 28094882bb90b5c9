"""Names that an NFS client gives to files without one."""

from fsdriver.content.silly import is_silly

SILLY = ".nfs" + "0123456789abcdef" + "0000002a"


def test_only_what_a_client_makes_is_silly():
    assert is_silly(SILLY.encode())
    for name in (".nfs", ".nfs1", "x" + SILLY, SILLY + "0", SILLY.upper(), SILLY + "\n"):
        assert not is_silly(name.encode())
