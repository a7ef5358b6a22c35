"""What all tests share: how Hypothesis looks for examples."""

from __future__ import annotations

import os

from hypothesis import settings

# The gate tries the same examples each time: it fails for a change, not by chance. --soak looks for new ones.
settings.register_profile("gate", derandomize=True, deadline=None)
settings.register_profile("soak", max_examples=2000, deadline=None)
settings.load_profile("soak" if os.environ.get("PIMAN_SOAK") else "gate")
