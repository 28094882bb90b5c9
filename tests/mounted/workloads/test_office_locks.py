"""Two people open one document in LibreOffice: the second is told that it is locked, by whom, and may only read it."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mounted.mounted import DANA, SECONDS, listed, remove, run, temporary_directory, wait_until
from tests.mounted.workloads.conftest import Place

pytestmark = [pytest.mark.mounted, pytest.mark.slow]

MACROS = """<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE script:module PUBLIC "-//OpenOffice.org//DTD OfficeDocument 1.0//EN" "module.dtd">
<script:module xmlns:script="http://openoffice.org/2000/script" script:name="Module1" script:language="StarBasic">
Function Opened(path)
  Dim hidden(0) As New com.sun.star.beans.PropertyValue
  hidden(0).Name = "Hidden"
  hidden(0).Value = True
  Opened = StarDesktop.loadComponentFromURL(ConvertToURL(path), "_blank", 0, hidden())
End Function
Sub Say(path, words)
  Open path For Output As #1
  Print #1, words
  Close #1
End Sub
Sub Edit(path, ready, go)
  document = Opened(path)
  document.Text.insertString(document.Text.End, "Edited by the first.", False)
  Say(ready, "open")
  Do While Not FileExists(go)
    Wait 100
  Loop
  document.store()
  document.close(True)
End Sub
Sub Look(path, answer)
  document = Opened(path)
  If IsNull(document) Then
    Say(answer, "refused")
  Else
    If document.isReadonly() Then
      Say(answer, "read-only")
    Else
      Say(answer, "may write")
    End If
    document.close(True)
  End If
End Sub
</script:module>
"""
LIBRARY = (
    '<?xml version="1.0" encoding="UTF-8"?>\n<!DOCTYPE library:library PUBLIC "-//OpenOffice.org//DTD '
    'OfficeDocument 1.0//EN" "library.dtd">\n<library:library xmlns:library="http://openoffice.org/2000/library" '
    'library:name="Standard" library:readonly="false" library:passwordprotected="false">\n'
    ' <library:element library:name="Module1"/>\n</library:library>\n'
)
TEXT = "import sys, zipfile; print(zipfile.ZipFile(sys.argv[1]).read('content.xml').decode())"


class Person:
    """A login with a LibreOffice of its own; its profile and what it says are in `home`."""

    def __init__(self, uid: int, home: Path) -> None:
        self._uid = uid
        self.home = home
        home.mkdir()
        os.chown(home, uid, uid)
        run(self.command("--terminate_after_init"), timeout=SECONDS, cwd=home)  # makes the profile
        basic = home / "profile/user/basic/Standard"
        basic.mkdir(parents=True, exist_ok=True)
        (basic / "Module1.xba").write_text(MACROS)
        (basic / "script.xlb").write_text(LIBRARY)
        for path in (basic.parent, *basic.parent.rglob("*")):
            os.chown(path, uid, uid)

    def command(self, *arguments: object) -> list[str]:
        become = ["setpriv", f"--reuid={self._uid}", f"--regid={self._uid}", "--clear-groups"]
        environment = ["env", "-i", f"PATH={os.defpath}", f"HOME={self.home}", "LANG=C.UTF-8", f"TMPDIR={self.home}"]
        office = ["soffice", f"-env:UserInstallation=file://{self.home}/profile", "--headless", "--norestore"]
        return [*become, *environment, *office, *map(str, arguments)]

    def macro(self, name: str, *arguments: Path) -> list[str]:
        quoted = ",".join(f'"{argument}"' for argument in arguments)
        return self.command(f"macro:///Standard.Module1.{name}({quoted})")

    def sees(self, document: Path) -> str:
        answer = self.home / "answer"
        run(self.macro("Look", document, answer), timeout=SECONDS, cwd=self.home)
        return answer.read_text().strip()


@pytest.fixture
def homes() -> Iterator[Path]:
    directory = temporary_directory()
    yield directory
    remove(directory)


def test_the_second_is_told_that_a_document_is_locked(place: Place, homes: Path) -> None:
    first, second = Person(0, homes / "first"), Person(DANA, homes / "second")
    (homes / "letter.txt").write_text("Dear client")
    run(first.command("--convert-to", "odt", "--outdir", place.folder, homes / "letter.txt"), timeout=SECONDS)
    document, lock = place.folder / "letter.odt", place.folder / ".~lock.letter.odt#"
    document.chmod(0o666)
    assert second.sees(document) == "may write"
    assert not lock.exists()
    ready, go = homes / "first/ready", homes / "first/go"
    with subprocess.Popen(first.macro("Edit", document, ready, go), cwd=first.home) as editing:
        try:
            wait_until(ready.exists)
            assert str(first.home) in listed("import sys; print(open(sys.argv[1]).read())", lock)
            assert second.sees(document) == "read-only"
            go.touch()
            assert editing.wait(SECONDS) == 0
        finally:
            go.touch()
    assert not lock.exists()
    assert "Edited by the first." in listed(TEXT, document)
    assert second.sees(document) == "may write"
