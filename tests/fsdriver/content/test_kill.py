"""kill -9 at random instants: what was flushed is there, and what was under way is old or new."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from fsdriver.content import RedoLog
from tests.fsdriver.content.samples import CHUNK, new_file, pattern, reopened

KILLS = 8
SIZE = 40 * CHUNK + 100


def change(number: int) -> tuple[int, bytes]:
    """Change `number`: (offset, data); most overwrite, some append or cross chunks."""
    chooser = random.Random(number)
    size = chooser.choice([10, CHUNK, 3 * CHUNK + 11])
    return chooser.randrange(SIZE), pattern(size, number)


def worker(folder: str) -> None:
    """Applies changes 1, 2, 3 ... and says which one was flushed."""
    store = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    file = reopened(os.open("file", os.O_RDWR, dir_fd=store), redo=RedoLog(store, b"log"), path=b"file")
    number = 0
    while True:
        number += 1
        offset, data = change(number)
        file.write(offset, data)
        file.flush()
        os.write(1, b"%d\n" % number)


def test_a_killed_process_leaves_a_whole_state(tmp_path):
    for round_ in range(KILLS):
        folder: Path = tmp_path / str(round_)
        folder.mkdir()
        fd = os.open(folder / "file", os.O_RDWR | os.O_CREAT)
        new_file(fd).close()
        code = f"from tests.fsdriver.content.test_kill import worker; worker({str(folder)!r})"
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
        assert process.stdout is not None
        said = process.stdout.readline()
        time.sleep(random.uniform(0, 0.05))
        process.send_signal(signal.SIGKILL)
        said += process.stdout.read()
        process.stdout.close()
        process.wait()
        flushed = int(said.split()[-1])

        store = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        log = RedoLog(store, b"log")
        log.replay()
        log.close()
        os.close(store)
        file = reopened(fd)
        file.verify()
        states = []
        model = bytearray()
        for number in range(1, flushed + 2):
            offset, data = change(number)
            model.extend(bytes(max(0, offset - len(model))))
            model[offset : offset + len(data)] = data
            if number >= flushed:
                states.append(bytes(model))
        assert file.read(0, file.size) in states
        file.close()
        os.close(fd)
