"""Policies, people and questions for property tests."""

from dataclasses import replace

from hypothesis import strategies as st

from policy import Action, Label, Level, Person, Policy, ProgramEntry, ProgramFacts, Programs, Rule, View
from policy.hours import DAYS, When
from policy.labels import DEFAULTS
from policy.model import KEPT_WITHOUT_RULE

ZONES = ("UTC", "Asia/Shanghai", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu")
instants = st.one_of(
    st.floats(1_700_000_000, 1_800_000_000),
    st.integers(1_700_000_000 // 60, 1_800_000_000 // 60).map(lambda minute: minute * 60.0),
)
