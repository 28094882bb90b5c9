"""Other programs, run and timed."""

import os
import subprocess
import time
from pathlib import Path


def run(*command: str, stdin: Path | None = None, env: dict[str, str] | None = None) -> None:
    """Errors: CalledProcessError."""
    with open(stdin or os.devnull, "rb") as given:
        subprocess.run(
            command,
            check=True,
            stdin=given,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=os.environ | (env or {}),
        )


def timed(*commands: tuple[str, ...]) -> float:
    """Seconds until all of them, started together, have ended. Errors: CalledProcessError."""
    begin = time.monotonic()
    processes = [
        subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for command in commands
    ]
    codes = [process.wait() for process in processes]
    seconds = time.monotonic() - begin
    for command, code in zip(commands, codes, strict=True):
        if code:
            raise subprocess.CalledProcessError(code, command)
    return seconds


def drop_caches() -> None:
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("3")
