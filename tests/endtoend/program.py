"""A listed program that tests tell what to do: it opens, reads, writes and maps files, and says what came of it."""

import json
import signal
import subprocess
import time

from tests.endtoend.company import LISTED, SECONDS

_SCRIPT = r"""
import errno, json, mmap, os, sys, time
files, maps = {}, {}

def put(path, text):
    with open(path, "wb") as file:
        file.write(text.encode())

def get(path):
    with open(path, "rb") as file:
        return file.read().decode()

def open_(name, path, flags):
    files[name] = os.open(path, flags)

def close(name):
    os.close(files.pop(name))

def end_all():
    for name in list(files):
        try:
            close(name)
        except OSError:
            pass

def read(name, size):
    return os.pread(files[name], size, 0).decode()

def write(name, text):
    return os.pwrite(files[name], text.encode(), 0)

def map_(name):
    maps[name] = mmap.mmap(files[name], 0, prot=mmap.PROT_READ, flags=mmap.MAP_SHARED)
    return maps[name][0]

def touch_map(name):
    "How a child ends that reads the mapping: 0, or the negative number of a signal."
    pid = os.fork()
    if not pid:
        maps[name][0]
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

def refused(name, map_name, seconds):
    "When the handle, and then the mapping, first failed, and with what. A machine that stands still spends no seconds."
    found = {}
    for _ in range(int(seconds * 100)):
        if len(found) == (2 if map_name else 1):
            break
        if "read" not in found:
            try:
                os.pread(files[name], 64, 0)
            except OSError as exc:
                found["read"] = [errno.errorcode[exc.errno], time.time()]
        if map_name and "map" not in found:
            how = touch_map(map_name)
            if how:
                found["map"] = [how, time.time()]
        time.sleep(0.01)
    return found

def try_open(path, seconds):
    "How often a file could be opened, and when last, until it is refused."
    end, count, last = time.monotonic() + seconds, 0, 0.0
    while True:
        began = time.time()
        try:
            fd = os.open(path, os.O_RDONLY)
        except OSError as exc:
            return {"count": count, "last": last, "error": errno.errorcode[exc.errno], "at": time.time()}
        os.close(fd)
        count, last = count + 1, began
        if time.monotonic() > end:
            return {"count": count, "last": last, "error": ""}
        time.sleep(0.02)

def exists(path):
    return os.path.exists(path)

def unlink(path):
    os.unlink(path)

def rename(path, to):
    os.rename(path, to)

COMMANDS = {"end_all": end_all,
            "put": put, "get": get, "open": open_, "close": close, "read": read, "write": write, "map": map_,
            "touch_map": touch_map, "refused": refused, "try_open": try_open, "unlink": unlink, "rename": rename,
            "exists": exists}
for line in sys.stdin:
    name, *arguments = json.loads(line)
    began = time.monotonic()
    try:
        answer = {"value": COMMANDS[name](*arguments)}
    except OSError as exc:
        answer = {"error": errno.errorcode[exc.errno]}
    except UnicodeDecodeError:
        answer = {"error": "not text"}
    answer["seconds"] = time.monotonic() - began
    print(json.dumps(answer), flush=True)
"""


class Refused(Exception):
    """An errno, by name."""


class Program:
    """Runs in a process of its own; `end` ends it."""

    def __init__(self, interpreter=LISTED):
        self._process = subprocess.Popen(
            [interpreter, "-I", "-c", _SCRIPT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd="/"
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._input, self._output = self._process.stdin, self._process.stdout
        self.seconds = 0.0
        """What the last call took."""

    def tell(self, name, *arguments):
        """Begins a call; `answer` has what came of it."""
        self._input.write(json.dumps([name, *map(_plain, arguments)]) + "\n")
        self._input.flush()

    def answer(self):
        """Errors: Refused."""
        line = self._output.readline()
        assert line, "the program has ended"
        answer = json.loads(line)
        self.seconds = answer["seconds"]
        if "error" in answer:
            raise Refused(answer["error"])
        return answer["value"]

    def __getattr__(self, name):
        def call(*arguments):
            self.tell(name, *arguments)
            return self.answer()

        return call

    def end(self):
        self._input.close()
        try:
            self._process.wait(SECONDS)
        finally:
            self._process.kill()
            self._output.close()


def _plain(argument):
    return argument if isinstance(argument, (int, float, type(None))) else str(argument)


def wait_for(seconds):
    """Lets a term pass."""
    time.sleep(seconds)


SIGBUS = -signal.SIGBUS
