"""Fixtures that several suites share."""

from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of oracles and motion capture beside the checkout; its tests skip where it is absent."""
    if not (SHARED / "oracles").is_dir():
        pytest.skip("needs ../shared (oracles and motion capture), which is not beside this checkout")
    return SHARED
