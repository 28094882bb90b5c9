"""The drive's operations: what each request of the kernel means, with policy, keys and records on the way.

`build` puts one together over a store; `Drive` is what all operations share, `Operations` the handler to serve.
"""

from fsdriver.filesystem.build import Built, build
from fsdriver.filesystem.drive import Drive
from fsdriver.filesystem.operations import Operations
from fsdriver.filesystem.revocation import Revocation
from fsdriver.filesystem.store import Store, StoreInUse, StoreRefused

__all__ = ["Built", "Drive", "Operations", "Revocation", "Store", "StoreInUse", "StoreRefused", "build"]
