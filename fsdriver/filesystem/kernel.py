"""The way back to the kernel, which exists once the drive is mounted."""

from fsdriver.device import Notifier


class KernelLink:
    """What the operations tell the kernel unasked. Before `attach` there is nothing cached that could be wrong."""

    def __init__(self) -> None:
        self._notifier: Notifier | None = None

    def attach(self, notifier: Notifier) -> None:
        self._notifier = notifier

    def inval_inode(self, nodeid: int, offset: int = 0) -> None:
        """Forget a node's attributes and, unless `offset` is -1, its pages."""
        if self._notifier is not None:
            self._notifier.inval_inode(nodeid, offset)

    def inval_entry(self, parent: int, name: bytes) -> None:
        """Forget a name."""
        if self._notifier is not None:
            self._notifier.inval_entry(parent, name)

    def drain_pages(self, timeout: float) -> bool:
        """Wait until the kernel has dropped the pages that it was told to; False after `timeout` seconds."""
        return self._notifier is None or self._notifier.drain_pages(timeout)

    def drain(self, timeout: float) -> bool:
        """Wait until the kernel has been told everything; False after `timeout` seconds."""
        return self._notifier is None or self._notifier.drain(timeout)
