"""Derivation in a process of its own: the same code comes back, limits hold, and nothing is left of what met them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time

import msgspec
import numpy as np
import psutil
import pytest

import difflab as dl
from difflab.derivation import forecasting, limited
from difflab.derivation.generation import Recipe, generate
from difflab.derivation.limited import generated_within
from difflab.derivation.sharing import Way
from difflab.memory import peak_bytes
from difflab.network_files import as_table


NET = dl.MLP(2, [dl.Dense(2, "swish"), dl.BatchNorm((0.5, -0.25), (1.0, 2.0)), dl.Dense(2)], l2=0.5)
LARGE = dl.MLP.dense([4, 8, 8, 3], hidden="tanh")
LATE_SECONDS = 1.0


def children() -> list[psutil.Process]:
    return psutil.Process().children(recursive=True)


@pytest.mark.parametrize("part", ["sample", "totals"])
@pytest.mark.parametrize(
    "language", ["numpy", pytest.param("c", marks=pytest.mark.skipif(not shutil.which("cc"), reason="no C compiler"))]
)
def test_what_comes_back_is_what_would_be_generated_here(part, language):
    recipe = Recipe(part, 1, Way("during"), language)
    there, here = generated_within(NET, recipe, 120.0, 4_000_000_000), generate(NET, recipe)
    assert (there.text, there.outputs) == (here.text, here.outputs)
    same = {name for name in here.facts if not name.endswith(("_seconds", "_peak_bytes"))}
    assert {name: there.facts[name] for name in same} == {name: here.facts[name] for name in same}


def test_every_stage_is_timed_and_sized():
    facts = generate(NET, Recipe("sample", 1, Way(simplification="factor_terms"), "numpy")).facts
    for stage in ("derive", "simplify", "cse", "codegen", "count"):
        assert facts[f"{stage}_seconds"] > 0
        assert facts[f"{stage}_peak_bytes"] > 10**7
    assert facts["gradient_sympy_ops"] >= facts["gradient_ops"] > facts["own_loss_ops"] > 0


def test_a_limit_of_time_ends_it_with_all_its_processes(monkeypatch):
    monkeypatch.setattr(forecasting, "COSTS", {})
    backend, started = dl.Symbolic("none", limit_seconds=1.5, max_ops=10**18), time.monotonic()
    with pytest.raises(dl.LimitExceeded, match=r"^not derived and compiled within 1.5 s$") as caught:
        backend.prepare(LARGE)
    assert time.monotonic() - started < 1.5 + LATE_SECONDS + 1.0  # to start Python and to be scheduled
    assert caught.value.status == "timeout"
    assert children() == []


def test_processor_time_ends_a_derivation_that_nobody_waits_for():
    """Without that limit it takes minutes, and more memory than there is."""
    request = limited._Request(as_table(LARGE), Recipe("sample", 1, Way("none"), "numpy"), 1.0, 4 * 10**9, os.getpid())
    ended = subprocess.run(limited.COMMAND, input=msgspec.json.encode(request), capture_output=True, timeout=30)
    assert ended.returncode == -limited.XCPU


@pytest.mark.parametrize("limit_bytes", [100_000_000, 300_000_000])
def test_a_limit_of_memory_ends_it(limit_bytes):
    """As libraries are loaded, which takes more than that of address space."""
    with pytest.raises(dl.LimitExceeded, match=re.escape(f"within {limit_bytes:.3g} bytes")) as caught:
        dl.Symbolic("during", limit_bytes=limit_bytes).prepare(NET)
    assert caught.value.status == "memory"
    assert children() == []


def test_too_little_memory_for_all_of_this_process_is_said_without_a_limit_of_its_own(monkeypatch):
    monkeypatch.setattr(limited, "COMMAND", (sys.executable, "-c", "raise MemoryError"))
    with pytest.raises(dl.LimitExceeded, match="^not derived and compiled within the memory there is$"):
        dl.Symbolic("during", limit_seconds=60.0).prepare(NET)


def test_a_network_that_cannot_be_told_is_refused_with_the_remedy(monkeypatch):
    monkeypatch.setattr(limited, "as_table", lambda net: {"widths": [2, 2], "hidden": "no such activation"})
    words = "must be known to another process under limits, got unknown activation 'no such activation'"
    with pytest.raises(ValueError, match=f"{re.escape(words)}.*leave the limits out$"):
        dl.Symbolic("during", limit_seconds=60.0).prepare(NET)


def test_a_limit_is_for_all_parts_of_a_network(monkeypatch):
    """Penalties are a part of their own, for which there is what the first has left."""
    seen, right = [], limited.generated_within

    def watched(net, recipe, *limits):
        seen.append((recipe.part, limits))
        return right(net, recipe, *limits)

    monkeypatch.setattr(limited, "generated_within", watched)
    dl.Symbolic("during", limit_seconds=60.0).prepare(NET)
    (first, (_, _, none)), (second, (_, _, spent)) = seen
    assert (first, second, none) == ("sample", "totals", 0.0)
    assert spent > 0.1  # to start Python and SymPy
    with pytest.raises(dl.LimitExceeded, match="within 60 s$"):
        right(NET, Recipe("sample", 1, Way("during"), "numpy"), 60.0, None, 59.9999)


def test_what_the_system_killed_had_no_memory_left(monkeypatch):
    code = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    monkeypatch.setattr(limited, "COMMAND", (sys.executable, "-c", code))
    with pytest.raises(dl.LimitExceeded, match="^not derived and compiled within the memory there is$") as caught:
        dl.Symbolic("during", limit_seconds=60.0).prepare(NET)
    assert caught.value.status == "memory"


def test_what_cannot_be_loaded_in_time_is_not_begun_to_be(monkeypatch):
    """The process says what loading took it, which would come on top."""
    code = f"import sys; sys.path[:] = {sys.path}; from difflab.derivation import limited, numpy_code\n"
    code += "class Slow(numpy_code.InNumpy):\n    def __init__(self, text):\n        import time; time.sleep(2)\n"
    code += "limited.InNumpy = Slow; limited.main()"
    monkeypatch.setattr(limited, "COMMAND", (sys.executable, "-c", code))
    recipe = Recipe("sample", 1, Way("during"), "numpy")
    with pytest.raises(dl.LimitExceeded, match="within 4.5 s"):
        generated_within(NET, recipe, 4.5, None)
    assert generated_within(NET, recipe, 120.0, None).text


def test_what_starts_others_while_it_is_ended_leaves_none():
    """A process that forks without end: those it started are stopped before theirs are looked for."""
    code = "import subprocess, sys\nwhile True: subprocess.Popen(['sh', '-c', 'sleep 31.4159 & sleep 31.4159'])"
    process = subprocess.Popen([sys.executable, "-c", code], stdin=-1, stdout=-1, stderr=-1)
    time.sleep(0.3)
    limited._kill(process)
    time.sleep(0.1)
    left = [one for one in psutil.process_iter(["cmdline"]) if "31.4159" in (one.info["cmdline"] or [])]
    for one in left:
        one.kill()
    assert left == []


@pytest.mark.skipif(not shutil.which("cc"), reason="no C compiler")
def test_a_compiler_that_meets_a_limit_leaves_nothing(monkeypatch, tmp_path):
    monkeypatch.setattr(limited.tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    slow = tmp_path / "cc"
    slow.write_text("#!/bin/sh\ntouch $TMPDIR/left\nsleep 60\n")
    slow.chmod(0o755)
    with pytest.raises(dl.LimitExceeded, match="within 4 s"):
        dl.Symbolic("during", evaluation="c", limit_seconds=4.0).prepare(NET)
    assert children() == []
    assert [file.name for file in tmp_path.iterdir()] == ["cc"]


def test_what_answers_no_json_is_an_error_in_one_sentence(monkeypatch):
    monkeypatch.setattr(limited, "COMMAND", (sys.executable, "-c", "raise SystemExit('gone')"))
    with pytest.raises(RuntimeError, match="^expressions must be derived and compiled, got gone$"):
        dl.Symbolic("during", limit_seconds=60.0).prepare(NET)


def test_gradients_under_limits_are_those_without():
    rng = np.random.default_rng(0)
    arguments = rng.normal(size=NET.n_params), rng.normal(size=(3, 2)), rng.integers(2, size=3)
    with_limits, without = (dl.Symbolic("during", limit_seconds=limit).prepare(NET) for limit in (120.0, None))
    assert (
        with_limits.value_and_gradient(*arguments)[1].tobytes() == without.value_and_gradient(*arguments)[1].tobytes()
    )


def test_stages_that_are_not_there_have_no_figures():
    assert "simplify_seconds" not in generate(NET, Recipe("sample", 1, Way(), "numpy")).facts
    for way in (Way("none"), Way("during"), Way("layerwise")):
        assert not {"cse_seconds", "cse_peak_bytes"} & set(generate(NET, Recipe("sample", 1, way, "numpy")).facts)
    assert peak_bytes() > 10**7
