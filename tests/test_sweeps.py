"""Compiled sweeps: those of the naive twin, no stale state, within bounds, plain Python too, and never cached stale."""

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import msgspec
import naive
import numpy as np
import pytest
from entered import entered
from numba import types
from numba.core import compiler

import difflab as dl
from difflab.kernels import kept_code, layout, target
from difflab.kernels.layout import words


TESTS = Path(__file__).parent
PACKAGE = Path(dl.__file__).parent
DTYPES = ("float64", "float32")

dtypes = pytest.mark.parametrize("dtype", DTYPES)


def problem(seed: int, dtype: str = "float64") -> tuple:
    rng = np.random.default_rng(seed)
    net = naive.random_network(rng)
    arguments = naive.random_problem(net, rng, int(rng.integers(1, 9)))
    return net, *(a if a.dtype.kind == "i" else a.astype(dtype) for a in arguments)


def bound(net: dl.MLP, batch: int, dtype: str) -> float:
    """Both the sweep and its twin round."""
    return sum(naive.accumulated_rounding(net, batch, float(np.finfo(of).eps)) for of in (dtype, "float64"))


@dtypes
@pytest.mark.parametrize("block", range(5))
def test_gradient_is_that_of_the_naive_twin(dtype, block):
    for seed in range(50 * block, 50 * block + 50):
        net, theta, x, y = problem(seed, dtype)
        _, gradient = dl.Backprop(dtype).prepare(net).value_and_gradient(theta, x, y)
        expected = naive.gradient(net, theta, x, y)
        error = np.linalg.norm(gradient - expected)
        assert error <= bound(net, len(x), dtype) * np.linalg.norm(expected), (seed, net)


@dtypes
def test_value_is_that_of_the_naive_twin(dtype):
    for seed in range(200):
        net, theta, x, y = problem(seed, dtype)
        prepared = dl.Backprop(dtype).prepare(net)
        expected = naive.loss(net, theta, x, y)
        # The loss rounds as its outputs do, whose size is some units here and comes in squared.
        size = abs(expected) + 30 * (len(x) if net.reduction == "sum" else 1)
        value, _ = prepared.value_and_gradient(theta, x, y)
        assert abs(value - expected) <= bound(net, len(x), dtype) * size, (seed, net)
        assert prepared.value(theta, x, y) == value


@dtypes
def test_workspace_of_one_batch_size_leaves_nothing_to_the_next(dtype):
    net = dl.MLP.dense([3, 5, 4, 2], hidden="softplus", loss="squared_error")
    used, rng = dl.Backprop(dtype).prepare(net), np.random.default_rng(0)
    for batch in (5, 2, 5, 5, 9, 1, 9):
        theta, x, y = (a.astype(dtype) for a in naive.random_problem(net, rng, batch))
        value, gradient = used.value_and_gradient(theta, x, y)
        fresh_value, fresh_gradient = dl.Backprop(dtype).prepare(net).value_and_gradient(theta, x, y)
        assert value == fresh_value
        assert (gradient == fresh_gradient).all()


@dtypes
def test_the_same_call_gives_the_same_bits_and_leaves_its_arguments(dtype):
    for seed in range(20):
        net, *arguments = problem(seed, dtype)
        before = [a.tobytes() for a in arguments]
        prepared = dl.Backprop(dtype).prepare(net)
        answers = [prepared.value_and_gradient(*arguments) for _ in range(3)]
        assert len({(value, gradient.tobytes()) for value, gradient in answers}) == 1
        assert [a.tobytes() for a in arguments] == before


def test_classes_at_one_call_leave_nothing_to_rows_at_the_next():
    """The next call, which is looked at in full, has its classes as rows."""
    net = dl.MLP.dense([3, 4, 200])
    prepared, rng = dl.Backprop().prepare(net), np.random.default_rng(0)
    theta, x, classes = net.init(0), rng.normal(size=(3, 3)), np.array([0, 199, 7])
    first = prepared.value_and_gradient(theta, x, classes)
    again = prepared.value_and_gradient(theta, np.asfortranarray(x), classes, allow_nonfinite=True)
    assert first[0] == again[0]
    assert (first[1] == again[1]).all()


@dtypes
def test_out_is_filled_and_returned(dtype):
    net, theta, x, y = problem(4, dtype)
    prepared, out = dl.Backprop(dtype).prepare(net), np.full(net.n_params, np.nan, dtype)
    _, gradient = prepared.value_and_gradient(theta, x, y, out=out)
    assert gradient is out
    assert (out == prepared.value_and_gradient(theta, x, y)[1]).all()


def test_strided_arguments_give_the_answer_of_contiguous_ones():
    net = dl.MLP.dense([3, 4, 2], loss="squared_error")
    theta, x, y = naive.random_problem(net, np.random.default_rng(0), 6)
    prepared = dl.Backprop().prepare(net)
    wide = np.repeat(theta, 2)[::2], np.asfortranarray(x), y[::-1].copy()[::-1]
    assert (prepared.value_and_gradient(*wide)[1] == prepared.value_and_gradient(theta, x, y)[1]).all()


SMOOTHED = dl.MLP(3, [dl.Dense(4, "leaky_relu"), dl.Dense(2)], label_smoothing=0.25)
REGRESSION = dl.MLP.dense([3, 4, 2], loss="binary_cross_entropy", output="sigmoid")


def test_every_door_gives_the_same():
    """At once, by numbers that arrays hold, and at leisure: loss, gradient and its change along a direction."""
    for net, classes in ((SMOOTHED, True), (SMOOTHED, False), (REGRESSION, False)):
        rng = np.random.default_rng(0)
        theta, x, along = net.init(0), rng.normal(size=(5, 3)), rng.normal(size=net.n_params)
        y = rng.integers(2, size=5) if classes else rng.dirichlet((1, 1), size=5)
        prepared = dl.Backprop().prepare(net)
        value, gradient = prepared.value_and_gradient(theta, x, y)
        bound = prepared.bound_to(theta, x, y)
        again = prepared.value_and_gradient(theta, np.asfortranarray(x), y)
        assert {value, prepared.value(theta, x, y), bound.value(), bound.value_and_gradient()[0], again[0]} == {value}
        assert (bound.value_and_gradient()[1] == gradient).all()
        with prepared._turn:  # Of which another thread would have to wait for the end.
            assert bound.value() == bound.value_and_gradient()[0] == value
            assert prepared._turn.is_taken
        assert (again[1] == gradient).all()
        for _ in range(2):
            hvp = prepared.hvp(theta, x, y, along)
            assert (hvp == prepared.hvp(theta, x, y, along, np.zeros_like(x))).all()


def misplaced(array: np.ndarray) -> np.ndarray:
    view = np.zeros(array.nbytes + 1, np.uint8)[1:].view(array.dtype).reshape(array.shape)
    view[...] = array
    return view


def test_what_sweeps_cannot_read_is_looked_at_at_leisure():
    """Read where that is possible, refused in words where it is not."""
    rng = np.random.default_rng(0)
    theta, x, out = REGRESSION.init(0), rng.normal(size=(5, 3)), np.empty(REGRESSION.n_params)
    y, along, classes = rng.dirichlet((1, 1), size=5), rng.normal(size=theta.size), np.array([0, 1, 0, 1, 1])
    prepared, classifier = dl.Backprop().prepare(REGRESSION), dl.Backprop().prepare(dl.MLP.dense([3, 2]))
    value, gradient = prepared.value_and_gradient(theta, x, y)
    hvp = prepared.hvp(theta, x, y, along)
    for arguments in ((misplaced(theta), x, y), (theta, misplaced(x), y), (theta, x, misplaced(y))):
        found = prepared.value_and_gradient(*arguments)
        assert found[0] == value == prepared.value(*arguments)
        assert (found[1] == gradient).all()
    assert (prepared.hvp(theta, x, y, misplaced(along)) == hvp).all()
    start = classifier.net.init(0)
    refused = [
        (prepared.value_and_gradient, (theta[1:], x, y)),
        (prepared.value_and_gradient, (theta, x, y[:, :1].copy())),
        (prepared.value_and_gradient, (theta, x, y + 1)),
        (prepared.value_and_gradient, (np.full_like(theta, np.inf), x, y)),
        (prepared.value_and_gradient, (theta, x, y, misplaced(out))),
        (prepared.value_and_gradient, (theta, x, y, theta)),
        (prepared.value, (theta, x[:, :2].copy(), y)),
        (prepared.hvp, (theta, x, y, along[1:])),
        (classifier.value_and_gradient, (start, x, classes - 1)),
        (classifier.value_and_gradient, (start, x, classes + 1)),
    ]
    assert classifier.value(start, x, classes) > 0
    for method, arguments in refused:
        with pytest.raises(ValueError, match="must"):
            method(*arguments)


KERNEL_CHECK = """
from test_sweeps import *
import backprop_derivatives as derivatives
import test_tangent_faults as faults

for dtype, seeds in SEEDS.items():
    for seed in range(seeds):
        net, theta, x, y = problem(seed, dtype)
        _, gradient = dl.Backprop(dtype).prepare(net).value_and_gradient(theta, x, y)
        expected = naive.gradient(net, theta, x, y)
        assert np.linalg.norm(gradient - expected) <= bound(net, len(x), dtype) * np.linalg.norm(expected), seed
for net in (*faults.NETS.values(), SMOOTHED):
    p = derivatives.drawn(net, 5)
    for method in derivatives.METHODS:
        if derivatives.takes(method, net):
            derivatives.assert_right(method, p)
test_strided_arguments_give_the_answer_of_contiguous_ones()
test_classes_at_one_call_leave_nothing_to_rows_at_the_next()
test_every_door_gives_the_same()
test_what_sweeps_cannot_read_is_looked_at_at_leisure()
print("checked", __import__("numba").config.BOUNDSCHECK, __import__("numba").config.DISABLE_JIT)
"""


def child(script: str, *paths: Path, **environment: str) -> str:
    """What a script prints in a process of its own."""
    env = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, paths))} | environment
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, cwd=paths[0], env=env, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    return done.stdout


def checked(seeds: dict[str, int], around: str = "CHECK", **environment: str) -> str:
    script = around.replace("CHECK", KERNEL_CHECK.replace("SEEDS", repr(seeds)))
    return child(script, TESTS, PACKAGE.parent, DIFFLAB_NO_CACHE="1", **environment)


def test_kernels_stay_within_their_arrays():
    """Places are those of either precision; to compile both takes twice the time."""
    assert checked({"float64": 8}, NUMBA_BOUNDSCHECK="1") == "checked 1 0\n"


COVERAGE = """
import coverage, json

measured = coverage.Coverage(data_file=None, include=["*/kernels/sweeps.py", "*/kernels/rules/*.py"])
measured.start()
CHECK
measured.stop()
missing = {}
for file in measured.get_data().measured_files():
    lines = open(file).read().splitlines()
    missing[file.rpartition("/kernels/")[2]] = [lines[number - 1].strip() for number in measured.analysis2(file)[3]]
print(json.dumps(missing))
"""


def test_kernels_are_plain_python_too_and_no_line_is_left_out():
    printed = checked({"float64": 20, "float32": 8}, COVERAGE, NUMBA_DISABLE_JIT="1")
    said, missing = printed.splitlines()
    assert said == "checked None 1"
    rules = {file.name for file in (PACKAGE / "kernels" / "rules").glob("*.py")}
    assert set(json.loads(missing)) >= {"sweeps.py", *(f"rules/{name}" for name in rules - {"__init__.py"})}
    assert {name: lines for name, lines in json.loads(missing).items() if lines} == {}


# --- code that is kept ---

FIRST_GRADIENT = """
import json, numpy
from numba.core import compiler

compiled, compile_extra = [], compiler.compile_extra

def counted(*arguments, **options):
    compiled.append(arguments)
    return compile_extra(*arguments, **options)

compiler.compile_extra = counted

import difflab
from difflab.kernels import kept_code

net = difflab.MLP.dense([2, 3, 2], hidden="tanh", loss="squared_error")
gradient = difflab.Backprop().prepare(net).value_and_gradient(net.init(0), numpy.ones((4, 2)), numpy.zeros((4, 2)))[1]
print(json.dumps({
    "package": difflab.__file__,
    "compiled": len(compiled),
    "directory": str(kept_code.cache_directory()),
    "gradient": gradient.tolist(),
}))
"""


class Home(NamedTuple):
    """A copy of the package, whose processes keep their code beside it."""

    folder: Path

    @property
    def package(self) -> Path:
        return self.folder / "difflab"

    def first_gradient(self, hidden: str = "tanh") -> dict:
        script = FIRST_GRADIENT.replace("tanh", hidden)
        found = json.loads(child(script, self.folder, XDG_CACHE_HOME=str(self.folder / "cache")))
        assert Path(found["package"]).parent == self.package
        return found

    def kept(self) -> list[Path]:
        return sorted(file for file in (self.folder / "cache").rglob("*") if file.is_file())


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Home:
    made = Home(tmp_path_factory.mktemp("home"))
    shutil.copytree(PACKAGE, made.package, ignore=shutil.ignore_patterns("__pycache__"))
    return made


@pytest.fixture(scope="module")
def first_two(home) -> list[dict]:
    """First gradients of two processes at once, which find nothing that is kept."""
    with ThreadPoolExecutor() as pool:
        return [life.result() for life in [pool.submit(home.first_gradient) for _ in range(2)]]


def expected_gradient() -> list[float]:
    net = dl.MLP.dense([2, 3, 2], hidden="tanh", loss="squared_error")
    return dl.Backprop().prepare(net).value_and_gradient(net.init(0), np.ones((4, 2)), np.zeros((4, 2)))[1].tolist()


def test_two_first_processes_at_once_compile_and_keep_their_code(home, first_two):
    assert all(life["compiled"] for life in first_two)
    assert [life["gradient"] for life in first_two] == [expected_gradient()] * 2
    assert {file.suffix for file in home.kept()} == set(SUFFIXES)


def test_a_later_process_compiles_nothing(home, first_two):
    before = home.kept()
    again = home.first_gradient()
    assert (again["compiled"], again["directory"]) == (0, first_two[0]["directory"])
    assert again["gradient"] == first_two[0]["gradient"]
    assert home.kept() == before


def test_no_two_functions_that_are_kept_have_one_symbol(home, first_two):
    """The linker would take either for the other. Processes count from different numbers."""
    assert home.first_gradient("relu")["compiled"]
    kept = [file.read_bytes()[: -kept_code.SEAL] for file in home.kept() if file.suffix == ".machine"]
    symbols = [msgspec.msgpack.decode(content, type=kept_code.Machine).symbol for content in kept]
    assert len(set(symbols)) == len(symbols) > 8


def test_what_was_edited_since_the_process_began_is_not_kept(tmp_path, monkeypatch):
    """Nor what has an old date and was put there since."""
    source = tmp_path / "rule.py"
    source.write_text("")
    monkeypatch.setattr(kept_code, "_sources", lambda package: [source])
    assert not kept_code._is_as_begun()
    os.utime(source, (0, 0))
    assert not kept_code._is_as_begun()
    monkeypatch.setattr(kept_code, "BEGAN", source.stat().st_ctime + 1)
    assert kept_code._is_as_begun()
    source.unlink()
    assert not kept_code._is_as_begun()


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "truncated": lambda content: content[: len(content) // 2],
    "emptied": lambda content: b"",
    "of garbage": lambda content: bytes(range(256)) * (len(content) // 256 + 1),
    "with a bit flipped": lambda content: with_flipped_bit(content, len(content) // 2),
    "with a bit flipped at its end": lambda content: with_flipped_bit(content, len(content) - 1),
}
SUFFIXES = (".machine", ".nbi", ".nbc")


def with_flipped_bit(content: bytes, at: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


def damage(file: Path, how: str) -> None:
    file.write_bytes(DAMAGES[how](file.read_bytes()))


def test_damage_to_all_that_is_kept_costs_one_process_time_and_nothing_else(home, first_two):
    for k, file in enumerate(home.kept()):
        damage(file, list(DAMAGES)[k % len(DAMAGES)])
    mending, mended = home.first_gradient(), home.first_gradient()
    assert mending["compiled"] >= first_two[0]["compiled"]
    assert mended["compiled"] == 0
    assert [mending["gradient"], mended["gradient"]] == [expected_gradient()] * 2


@pytest.fixture(scope="module")
def edited(home, first_two) -> dict:
    """The first gradient after an edit of the slope of tanh, which goes up by one thousandth."""
    rules = home.package / "primitives" / "activations.py"
    right, wrong = "return 4.0 * tail / (", "return 4.004 * tail / ("
    assert rules.read_text().count(right) == 1
    rules.write_text(rules.read_text().replace(right, wrong))
    return home.first_gradient()


def test_an_edited_rule_never_meets_the_old_code(first_two, edited):
    assert edited["directory"] != first_two[0]["directory"]
    assert edited["compiled"]
    before, after = (np.array(life["gradient"]) for life in (first_two[0], edited))
    # To the few roundings of either; the output layer does not see the slope.
    assert np.abs(after[:9] / before[:9] - 1.001).max() <= 16 * np.finfo(float).eps
    assert (after[9:] == before[9:]).all()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_old_code_in_the_directory_of_an_edited_rule_is_not_run(home, first_two, edited, suffix):
    old, new = (Path(life["directory"]) for life in (first_two[0], edited))
    planted = [file for file in new.rglob(f"*{suffix}") if (old / file.relative_to(new)).exists()]
    assert planted
    for file in planted:
        shutil.copy(old / file.relative_to(new), file)
    found = home.first_gradient()
    assert found["compiled"] >= len(planted)
    assert found["gradient"] == edited["gradient"]


def next_of(row, state, zero):
    """A step that puts behind a number the next one."""
    numbers = words(row, 2)
    numbers[1] = numbers[0] + 1


def previous_of(row, state, zero):
    numbers = words(row, 2)
    numbers[1] = numbers[0] - 1


def doubled(number):
    return number + number


def tripled(number):
    return number + number + number


def after_41(name: str, function: Callable) -> int:
    """What a step, compiled or kept under this name, puts behind 41."""
    numbers = np.array([41, 0])
    code = target.address(name, function, (types.int64, types.int64, types.float64))
    entered(layout.call)(code, (numbers.ctypes.data, 0, 0.0))
    return int(numbers[1])


def of_21(function: Callable) -> int:
    """What a door, compiled or kept, makes of 21."""
    return target.entry_point((types.int64,))(function)(21)


def is_right() -> bool:
    """Whether a step and a door do what they should, compiled or kept."""
    return after_41("next", next_of) == 42 and of_21(doubled) == 42


@pytest.fixture
def directory(monkeypatch, tmp_path) -> Path:
    """Where code of this test is kept."""
    monkeypatch.setattr(kept_code, "cache_directory", lambda: tmp_path / "kept")
    monkeypatch.delenv("DIFFLAB_NO_CACHE", raising=False)
    return tmp_path / "kept"


def counted(monkeypatch) -> list:
    """What is compiled from now on."""
    compiled, compile_extra = [], compiler.compile_extra
    monkeypatch.setattr(compiler, "compile_extra", lambda *a, **k: compiled.append(a) or compile_extra(*a, **k))
    return compiled


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("how", DAMAGES)
def test_damaged_code_is_never_run_and_soon_mended(directory, monkeypatch, suffix, how):
    assert is_right()
    (file,) = directory.rglob(f"*{suffix}")
    damage(file, how)
    assert is_right()
    compiled = counted(monkeypatch)
    assert is_right()
    assert not compiled


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_code_that_was_kept_under_another_name_is_not_run(directory, suffix):
    def results():
        return after_41("next", next_of), after_41("previous", previous_of), of_21(doubled), of_21(tripled)

    assert results() == (42, 40, 42, 63)
    one, other = sorted(directory.rglob(f"*{suffix}"))
    shutil.copy(one, other)
    assert results() == (42, 40, 42, 63)
    assert one.read_bytes() != other.read_bytes()


def test_code_of_each_signature_has_files_of_its_own(directory):
    """Else processes at once might give one name to two."""
    of_21(doubled)
    target.entry_point((types.float64,))(doubled)
    assert len(list(directory.rglob("*.nbi"))) == len(list(directory.rglob("*.1.nbc"))) == 2


def test_kept_code_without_its_symbol_is_made_anew(directory):
    assert is_right()
    (file,) = directory.glob("*.machine")
    machine = kept_code.read(file)
    kept_code.keep(file, msgspec.structs.replace(machine, symbol="elsewhere"))
    assert is_right()
    assert kept_code.read(file).symbol != "elsewhere"


def test_a_directory_that_cannot_be_is_done_without(directory, tmp_path):
    (tmp_path / "kept").write_text("in the way")
    assert is_right()
    assert list(tmp_path.iterdir()) == [directory]


def test_a_user_without_a_home_compiles_for_each_process(monkeypatch):
    def nowhere():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(kept_code, "cache_directory", nowhere)
    monkeypatch.delenv("DIFFLAB_NO_CACHE", raising=False)
    assert is_right()


def test_a_setting_that_is_in_no_variable_has_a_directory_of_its_own(monkeypatch):
    before = kept_code._digest(PACKAGE)
    monkeypatch.setattr(kept_code.numba.config, "BOUNDSCHECK", 1)
    assert kept_code._digest(PACKAGE) != before


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes where it likes")
def test_a_directory_that_cannot_be_written_is_done_without(directory):
    directory.mkdir(mode=0o500)
    assert is_right()
    assert not list(directory.iterdir())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives directories away")
def test_a_directory_of_someone_else_is_not_trusted(directory):
    assert is_right()
    before = sorted(directory.rglob("*"))
    (file,) = directory.glob("*.machine")
    file.write_bytes(b"")
    os.chown(directory, 12345, 12345)
    assert is_right()
    assert sorted(directory.rglob("*")) == before
    assert not file.read_bytes()


@pytest.mark.parametrize("mode", [0o770, 0o707])
def test_a_directory_where_others_write_is_not_trusted(directory, mode):
    directory.mkdir(mode=0o700)
    directory.chmod(mode)
    assert is_right()
    assert not list(directory.iterdir())


def test_a_full_disk_costs_time_and_nothing_else(directory, monkeypatch):
    def full(file: Path, content: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    assert is_right()
    assert not list(directory.glob("*.machine*"))
