"""What tests of several files ask for."""

from __future__ import annotations

import pytest

from difflab.backends import backprop


@pytest.fixture
def threads_at_once(monkeypatch):
    """Samples are shared however small the work is."""
    monkeypatch.setattr(backprop, "WORTH_A_THREAD", 1)
