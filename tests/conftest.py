"""What holds for all tests."""

from __future__ import annotations

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long tests first: else one worker is still at them when the others have nothing left."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)
