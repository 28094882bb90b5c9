"""The mount and its two transports: the only code that touches /dev/fuse.

A `Session` mounts, serves a `Handler` and unmounts. Handlers are called from several threads at once; one that would
wait returns a `Later`.
"""

from fsdriver.device.dispatch import Answer, Handler, Later
from fsdriver.device.mount import MountRefused, Unmounted, is_mounted, unmount_dead
from fsdriver.device.notify import Notifier
from fsdriver.device.session import Session
from fsdriver.device.watchdog import ControlUnavailable

__all__ = [
    "Answer",
    "ControlUnavailable",
    "Handler",
    "Later",
    "MountRefused",
    "Notifier",
    "Session",
    "Unmounted",
    "is_mounted",
    "unmount_dead",
]
