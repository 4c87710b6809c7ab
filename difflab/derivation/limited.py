"""Generation in a process of its own, under limits of wall and processor time and of memory."""

from __future__ import annotations

import math
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from typing import Any

import msgspec
import psutil

from difflab.child import answers, end_with
from difflab.derivation.generation import Generated, Recipe, generate
from difflab.derivation.numpy_code import InNumpy
from difflab.errors import LimitExceeded, means_out_of_memory
from difflab.network import MLP
from difflab.network_files import Network, as_table


COMMAND = sys.executable, "-m", "difflab.derivation.limited"


class _Request(msgspec.Struct, frozen=True):
    """``asks`` is the process without which the answer is of no use."""

    network: dict[str, Any]
    recipe: Recipe
    limit_seconds: float | None
    limit_bytes: int | None
    asks: int


class _Answer(msgspec.Struct, frozen=True):
    """What was generated, or what went wrong: ``"network"``, ``"memory"`` or ``"crashed"``, in words.

    ``load_seconds`` is what loading takes, which who asked has to do once more.
    """

    generated: Generated | None = None
    load_seconds: float = 0.0
    problem: str = ""
    reason: str = ""


def generated_within(
    net: MLP, recipe: Recipe, limit_seconds: float | None, limit_bytes: int | None, spent_seconds: float = 0.0
) -> Generated:
    """Generate in a process that ends at its limits, and with this one.

    Python code is loaded there too, so that what comes back is known to load within the limits. The limit of processor
    time is there for a process that nobody waits for any more.

    Parameters
    ----------
    limit_seconds : of wall time, and of processor time; none if None
    limit_bytes : of address space, of that process and of a compiler; none if None
    spent_seconds : of the limit, by other parts of the same network

    Raises
    ------
    LimitExceeded
        If a limit is met; nothing is left of the process, its compiler and their files.
    ValueError
        If the network cannot be told to another process.
    RuntimeError
        If it fails for another reason.
    """
    started = time.perf_counter() - spent_seconds
    left = None if limit_seconds is None else max(0.0, limit_seconds - spent_seconds)
    request = _Request(as_table(net), recipe, left, limit_bytes, os.getpid())
    with tempfile.TemporaryDirectory(prefix="difflab-") as folder:
        process = subprocess.Popen(
            COMMAND,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=os.environ | {"TMPDIR": folder},
        )
        try:
            output, errors = process.communicate(msgspec.json.encode(request), timeout=left)
        except BaseException as error:
            _kill(process)
            if isinstance(error, subprocess.TimeoutExpired):
                raise _too_long(limit_seconds) from None
            raise
    answer = _read(output, errors, process.returncode)
    if answer.generated is not None:
        if limit_seconds is not None and time.perf_counter() - started + answer.load_seconds > limit_seconds:
            raise _too_long(limit_seconds)
        return answer.generated
    if answer.problem == "network":
        remedy = "activations of one's own are known to this process alone: leave the limits out"
        raise ValueError(f"{net} must be known to another process under limits, got {answer.reason}; {remedy}")
    is_killed = process.returncode == -signal.SIGKILL  # By the system, which has no memory left.
    if answer.problem == "memory" or is_killed or means_out_of_memory(answer.reason):
        given = "the memory there is" if limit_bytes is None else f"{limit_bytes:.3g} bytes"
        raise LimitExceeded("memory", f"not derived and compiled within {given}")
    if process.returncode == -XCPU:
        raise _too_long(limit_seconds)
    raise RuntimeError(f"expressions must be derived and compiled, got {answer.reason[:500]}")


XCPU = signal.SIGXCPU
"""The signal of a process that has used up its processor time."""


def _too_long(limit_seconds: float | None) -> LimitExceeded:
    given = "the processor time there is" if limit_seconds is None else f"{limit_seconds:g} s"
    return LimitExceeded("timeout", f"not derived and compiled within {given}")


def _kill(process: subprocess.Popen) -> None:
    """With all that it started; in no group of its own, it ends with the group of who asked, too."""
    with suppress(psutil.NoSuchProcess):
        for one in _stopped(psutil.Process(process.pid)):
            with suppress(psutil.NoSuchProcess):
                one.kill()
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout, process.stderr):
        assert pipe is not None
        with suppress(OSError):
            pipe.close()


def _stopped(first: psutil.Process) -> list[psutil.Process]:
    """A process and all that it started, each stopped before it is asked for those: none can start one meanwhile."""
    found, asked = [], [first]
    while asked:
        one = asked.pop()
        with suppress(psutil.NoSuchProcess):
            one.suspend()
            waited_since = time.monotonic()
            while one.status() not in AT_REST and time.monotonic() - waited_since < STOP_SECONDS:
                time.sleep(0.001)
            found.append(one)
            asked += one.children()
    return found


AT_REST = psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE
STOP_SECONDS = 1.0
"""To wait at most until a process stops."""


def _read(output: bytes, errors: bytes, code: int) -> _Answer:
    """An answer, or the last words of who gave none."""
    try:
        return msgspec.json.decode(output, type=_Answer)
    except msgspec.DecodeError:
        words = errors.decode(errors="replace").strip().splitlines()
        return _Answer(problem="crashed", reason=words[-1] if words else f"exit code {code}")


def _answer(request: _Request) -> _Answer:
    try:
        net = msgspec.convert(request.network, Network).build()
    except ValueError as error:
        return _Answer(problem="network", reason=str(error))
    try:
        generated = generate(net, request.recipe)
        generated_by = time.perf_counter()
        if request.recipe.language == "numpy":
            InNumpy(generated.text)
    except MemoryError:
        return _Answer(problem="memory")
    except Exception as error:
        return _Answer(problem="crashed", reason=f"{type(error).__name__}: {error}")
    return _Answer(generated, time.perf_counter() - generated_by)


def _limit(which: int, soft: int) -> None:
    _, hard = resource.getrlimit(which)
    resource.setrlimit(which, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))


def main() -> None:
    """Answer the one request on standard input."""
    channel = answers()
    request = msgspec.json.decode(sys.stdin.buffer.read(), type=_Request)
    end_with(request.asks)
    if request.limit_bytes is not None:
        _limit(resource.RLIMIT_AS, request.limit_bytes)
    if request.limit_seconds is not None:
        _limit(resource.RLIMIT_CPU, math.ceil(request.limit_seconds) + 1)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    channel.buffer.write(msgspec.json.encode(_answer(request)))
    channel.flush()


if __name__ == "__main__":
    main()
