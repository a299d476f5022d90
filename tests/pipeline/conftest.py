import pytest

from cep.pipeline import limits as live_limits


@pytest.fixture(autouse=True)
def _quick_reads(monkeypatch):
    """An empty read returns at once: no test waits for nothing to come."""
    monkeypatch.setattr(live_limits, "BLOCK_MS", 1)


@pytest.fixture
def limits(monkeypatch):
    """Set the runtime's limits for one test: ``limits(READ_COUNT=7)``."""

    def set_limits(**values):
        for name, value in values.items():
            monkeypatch.setattr(live_limits, name, value)

    return set_limits
