"""HTTP, and only here: the agent port, the admin port and its console."""
