"""A whole rack takes its time: no test of these ends before it had ten minutes, or two hours with --soak."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.lab.rig import REPEAT

SECONDS = 600 if REPEAT == 1 else 7200


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent) and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(SECONDS))
