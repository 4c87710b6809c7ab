"""BLAS is held to one thread while anyone is inside, and let go by the last, forked or not."""

from __future__ import annotations

import json
import os
import threading

import pytest

from difflab.blas import ONE_THREAD, _libraries


def threads() -> list[int]:
    return [library["num_threads"] for library in _libraries().info() if library["user_api"] == "blas"]


@pytest.fixture
def several_threads():
    """Where BLAS has one thread anyway, nothing can be seen to be held back."""
    if not any(number > 1 for number in threads()):
        pytest.skip("needs a BLAS with several threads")


@pytest.mark.usefixtures("several_threads")
def test_blas_has_one_thread_until_the_last_has_left():
    before = threads()
    with ONE_THREAD:
        with ONE_THREAD:
            assert set(threads()) <= {1}
        assert set(threads()) <= {1}
        assert ONE_THREAD.is_held
    assert threads() == before
    assert not ONE_THREAD.is_held


@pytest.mark.usefixtures("several_threads")
@pytest.mark.filterwarnings("ignore:os.fork:RuntimeWarning")
def test_a_process_that_was_forked_while_another_thread_was_inside_is_not():
    """Nor does it wait for a lock that was held then."""
    before, is_inside, may_leave = threads(), threading.Event(), threading.Event()

    def hold() -> None:
        with ONE_THREAD, ONE_THREAD._lock:
            is_inside.set()
            may_leave.wait(20)

    other = threading.Thread(target=hold, daemon=True)
    other.start()
    assert is_inside.wait(10)
    of_child, says = os.pipe()
    pid = os.fork()
    if pid == 0:
        found = [ONE_THREAD.is_held, threads()]
        with ONE_THREAD:
            found.append(threads())
        os.write(says, json.dumps([*found, threads()]).encode())
        os._exit(0)
    os.close(says)
    may_leave.set()
    with os.fdopen(of_child) as said:
        found = said.read()
    os.waitpid(pid, 0)
    other.join(10)
    assert json.loads(found) == [False, before, [1] * len(before), before]
