"""Who is asking: from the thread id in a request to a process, its user and the program that it runs."""

from fsdriver.identity.callers import Caller, Callers
from fsdriver.identity.description import Description, Descriptions
from fsdriver.identity.packages import Dpkg, Owner, Packages

__all__ = ["Caller", "Callers", "Description", "Descriptions", "Dpkg", "Owner", "Packages"]
