"""Settings of all tests."""

from hypothesis import HealthCheck, settings

# How fast a machine makes examples, and how many it throws away by chance, says nothing about what is tested.
settings.register_profile(
    "patient",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
)
settings.load_profile("patient")
