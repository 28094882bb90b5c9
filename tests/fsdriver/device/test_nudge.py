"""Nudges come from another process, which ends with the daemon however that ends."""

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

from fsdriver.device.nudge import Nudger
from tests.patience import PATIENCE

DAEMON = """
import signal, sys
from pathlib import Path
from fsdriver.device.nudge import Nudger
nudger = Nudger(Path(sys.argv[1]))
nudger.nudge(0)
print(nudger._process.pid, flush=True)
signal.pause()
"""


def test_it_ends_with_a_daemon_that_is_killed(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", DAEMON, tmp_path], stdout=subprocess.PIPE) as daemon:
        assert daemon.stdout is not None
        watched = os.pidfd_open(int(daemon.stdout.readline()))
        daemon.kill()
    assert select.select([watched], [], [], PATIENCE)[0], "it outlives the daemon"
    os.close(watched)


def test_one_that_was_killed_is_started_again(tmp_path: Path) -> None:
    nudger = Nudger(tmp_path)
    first = nudger._process
    first.send_signal(signal.SIGKILL)
    first.wait(PATIENCE)
    nudger.nudge(0)
    assert nudger._process is not first
    assert nudger._process.poll() is None
    nudger.stop(PATIENCE)
    assert nudger._process.returncode == 0
    nudger.nudge(0)
