"""Generation in a process of its own, under limits of wall and processor time and of memory."""

from __future__ import annotations

import math
import os
import resource
import signal
import subprocess
import sys
from contextlib import suppress
from typing import Any

import msgspec

from difflab.child import answers, end_with
from difflab.derivation.generation import Generated, Recipe, generate
from difflab.derivation.numpy_code import InNumpy
from difflab.errors import LimitExceeded
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
    """What was generated, or the status and the words of what went wrong."""

    generated: Generated | None = None
    status: str = ""
    reason: str = ""


def generated_within(net: MLP, recipe: Recipe, limit_seconds: float | None, limit_bytes: int | None) -> Generated:
    """Generate in a process that ends at its limits, and with this one.

    Python code is loaded there too, so that what comes back is known to load within the limits.

    Parameters
    ----------
    limit_seconds : of wall time, and of processor time; none if None
    limit_bytes : of address space, of that process and of a compiler; none if None

    Raises
    ------
    LimitExceeded
        If a limit is met; nothing is left of the process or its compiler.
    RuntimeError
        If it fails for another reason.
    """
    request = _Request(as_table(net), recipe, limit_seconds, limit_bytes, os.getpid())
    process = subprocess.Popen(
        COMMAND,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        output, errors = process.communicate(msgspec.json.encode(request), timeout=limit_seconds)
    except BaseException as error:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        if isinstance(error, subprocess.TimeoutExpired):
            raise LimitExceeded("timeout", f"not derived and compiled within {limit_seconds:g} s") from None
        raise
    return _taken(output, errors, process.returncode, request)


def _taken(output: bytes, errors: bytes, code: int, request: _Request) -> Generated:
    """What an answer holds, or the error it tells of."""
    try:
        answer = msgspec.json.decode(output, type=_Answer)
    except msgspec.DecodeError:
        words = errors.decode(errors="replace").strip().splitlines()
        answer = _Answer(status="crashed", reason=words[-1] if words else f"exit code {code}")
        if code == -signal.SIGXCPU:
            answer = _Answer(status="timeout")
    if answer.generated is not None:
        return answer.generated
    if answer.status == "timeout":
        raise LimitExceeded("timeout", f"not derived and compiled within {request.limit_seconds:g} s")
    if answer.status == "memory" or "MemoryError" in answer.reason or "allocat" in answer.reason:
        raise LimitExceeded("memory", f"not derived and compiled within {request.limit_bytes:.3g} bytes")
    raise RuntimeError(f"expressions must be derived and compiled, got {answer.reason[:500]}")


def _answer(request: _Request) -> _Answer:
    try:
        generated = generate(msgspec.convert(request.network, Network).build(), request.recipe)
        if request.recipe.language == "numpy":
            InNumpy(generated.text)
    except MemoryError:
        return _Answer(status="memory")
    except Exception as error:
        return _Answer(status="crashed", reason=f"{type(error).__name__}: {error}")
    return _Answer(generated)


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
        _limit(resource.RLIMIT_CPU, math.ceil(request.limit_seconds))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    channel.buffer.write(msgspec.json.encode(_answer(request)))
    channel.flush()


if __name__ == "__main__":
    main()
