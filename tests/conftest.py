"""How long the property tests search: PANRT_TEST_PROFILE=short (the default, the same examples every time) or full."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

# A case is built from a drawn seed, so one example may take long and most of its size is not drawn: neither is a fault.
_slow_is_fine = (HealthCheck.too_slow, HealthCheck.data_too_large)
settings.register_profile(
    "short", max_examples=100, deadline=None, derandomize=True, database=None, suppress_health_check=_slow_is_fine
)
settings.register_profile(
    "full", max_examples=2500, deadline=None, print_blob=True, suppress_health_check=_slow_is_fine
)
settings.load_profile(os.environ.get("PANRT_TEST_PROFILE", "short"))
