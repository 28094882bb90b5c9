"""The memory filesystem as a daemon: `python -m tests.fsdriver.device.daemon '{"point": ..., "io_uring": ...}'`.

Prints one JSON line when it is mounted, then one for each line it reads: `state`, `release`, `inval NODEID`,
`inval-entry NAME`, `abort`, `stop`, `stop-release`.
"""

import json
import logging
import sys
from pathlib import Path
from typing import Any

from fsdriver.device import MountRefused, Session
from tests.fsdriver.device.memory_filesystem import MemoryFilesystem


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    options = json.loads(sys.argv[1])
    point = Path(options.pop("point"))
    memory = MemoryFilesystem(options.pop("entry_timeout", 0.0))
    session = Session(memory.handle, point, **options)
    try:
        session.start()
    except MountRefused as refused:
        say(refused=str(refused))
        return
    say(transport=session.transport)
    for line in sys.stdin:
        match line.split():
            case ["state"]:
                say(known=memory.known(), nodes=len(memory.nodes), aborted=session.aborted)
            case ["release"]:
                memory.released.set()
                say()
            case ["inval", number]:
                session.notifier.inval_inode(int(number))
                say(drained=session.notifier.drain(60))
            case ["inval-entry", name]:
                session.notifier.inval_entry(1, name.encode())
                say()
            case ["abort"]:
                session.abort()
                say(ended=session.wait(60))
            case ["stop"]:
                say(unmounted=session.stop(), known=memory.known())
            case ["stop-release"]:
                say(unmounted=session.stop(release=True))


def say(**answer: Any) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
