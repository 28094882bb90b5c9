"""Settings of all tests."""

from hypothesis import HealthCheck, settings

# How fast a machine makes examples says nothing about what is tested.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")
