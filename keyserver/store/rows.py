"""All tables through one connection, one attribute a noun. What is done with them is decided elsewhere."""

from sqlalchemy import Connection

from keyserver.store.accounts import AccountRows
from keyserver.store.keyring import KeyRows
from keyserver.store.leases import LeaseRows
from keyserver.store.machines import MachineRows
from keyserver.store.people import PeopleRows
from keyserver.store.policies import PolicyRows
from keyserver.store.records import RecordRows
from keyserver.store.settings import SettingRows
from keyserver.store.sightings import SightingRows


class Rows:
    """Valid as long as the connection's transaction."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.accounts = AccountRows(connection)
        self.keys = KeyRows(connection)
        self.leases = LeaseRows(connection)
        self.machines = MachineRows(connection)
        self.people = PeopleRows(connection)
        self.policies = PolicyRows(connection)
        self.records = RecordRows(connection)
        self.settings = SettingRows(connection)
        self.sightings = SightingRows(connection)
