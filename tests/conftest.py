"""What tests of several files ask for."""

from __future__ import annotations

import os
import sys

import pytest

from difflab.backends import backprop


@pytest.fixture
def threads_at_once(monkeypatch):
    """Samples are shared however small the work is."""
    monkeypatch.setattr(backprop, "WORTH_A_THREAD", 1)


@pytest.fixture(autouse=True)
def kernels_stay_compiled():
    """What tests do in plain Python must not stay in kernels that later tests take for compiled ones."""
    yield
    target = sys.modules.get("difflab.kernels.target")
    if target is not None and os.environ.get("NUMBA_DISABLE_JIT") != "1":
        assert target.PLAIN == {}, (
            "kernels were prepared while the compiler was off; prepare them by planting.with_fault"
        )
