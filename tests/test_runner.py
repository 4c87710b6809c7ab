"""Running studies: every cell ends as a row, limits hold, and nothing finished is lost or repeated."""

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import nullcontext
from pathlib import Path

import msgspec
import numpy as np
import psutil
import pytest

from difflab import MLP, Backprop, FiniteDifference, reference_gradient
from difflab.errors import MissingExtra, Undecided
from difflab.kernels.kept_code import cache_directory
from difflab.memory import peak_bytes
from difflab.peers import Jacobi, Pytensor
from difflab.study import names, runner, tables, worker
from difflab.study.cells import cells, certified_task, key, problem
from difflab.study.measures import accuracy
from difflab.study.measures.subject import Subject
from difflab.study.reading import read_study
from difflab.study.runner import Busy, run
from difflab.study.store import Store
from difflab.study.worker import Request


HEAD = """
question = "?"
measures = {measures}
batch = 8
limit_seconds = {seconds}
limit_bytes = {limit_bytes}

[[networks]]
widths = {widths}
data = "digits-2x2"
"""


def declare(tmp_path, *backends, measures=("accuracy",), seconds=30.0, limit_bytes=4_000_000_000, widths=(4, 2, 10)):
    text = HEAD.format(measures=list(measures), seconds=seconds, limit_bytes=limit_bytes, widths=list(widths))
    path = tmp_path / "tiny.toml"
    path.write_text(text + "".join(f"\n[[backends]]\n{backend}\n" for backend in backends))
    return path


CENTRAL, COMPLEX = (f'name = "finite_difference"\nscheme = "{scheme}"' for scheme in ("central", "complex"))
CERTIFIED = 'name = "certified"'


@pytest.fixture(autouse=True)
def code_is_shared(monkeypatch):
    """By all runs of this file and all other tests, but where the time to compile is looked at."""
    kept_code = cache_directory().parents[2]
    monkeypatch.setattr(runner, "_own_cache", lambda: nullcontext(str(kept_code)))


EVERY_MEASURE = ("accuracy", "speed", "swell", "condition", "agreement", "certificate")


def test_every_measure_fills_its_columns(tmp_path):
    backends = (CERTIFIED, 'name = "symbolic"', CENTRAL, 'name = "backprop"')
    path = declare(tmp_path, *backends, measures=EVERY_MEASURE)
    rows = run(read_study(path), tmp_path / "results")
    assert [row["status"] for row in rows] == ["ok"] * 4
    assert all(row["gradient_seconds"] > 0 and row["primal_seconds"] > 0 for row in rows)
    assert all(row["handwritten_seconds"] > 0 and row["peak_bytes"] > 2**20 for row in rows)
    certified, symbolic, central, backprop = rows
    assert "error_relative" not in certified
    assert symbolic["error_ulp_max"] < central["error_ulp_max"]
    assert symbolic["gradient_tree_ops"] > symbolic["gradient_ops"] > backprop["gradient_ops"]
    assert central["primal_calls"] == 2 * central["parameters"] + 1
    assert backprop["kernel_compile_seconds"] > 0
    assert all(row["loss_tree_ops"] == rows[0]["loss_tree_ops"] for row in rows)
    assert all(0 < row["condition"] == rows[0]["condition"] for row in rows)
    assert [row.get("agrees_with") for row in rows].count(None) == 1
    assert [row.get("rounded_entries") for row in rows] == [certified["parameters"], None, None, None]
    assert [row.get("backprop_seconds", 0) > 0 for row in rows] == [True, True, False, False]
    assert certified["certificate_detects"] < 1e-20
    assert all(row["loaded_bytes"] <= row["peak_bytes"] for row in rows)


def test_what_is_compiled_first_is_in_its_own_time(tmp_path, monkeypatch):
    (tmp_path / "code").mkdir()
    monkeypatch.setattr(runner, "_own_cache", lambda: nullcontext(str(tmp_path / "code")))
    (row,) = run(read_study(declare(tmp_path, 'name = "backprop"')), tmp_path / "results")
    assert row["kernel_compile_seconds"] > row["prepare_seconds"]


def test_a_contest_is_a_row_beside_backprop(tmp_path):
    backends = 'name = "handwritten"\ndtype = ["float64", "float32"]', CENTRAL
    path = declare(tmp_path, *backends, measures=("contest",))
    study = read_study(path)
    *rows, refused = run(msgspec.structs.replace(study, limit_bytes=10**10), tmp_path / "results")
    for row, dtype in zip(rows, ("float64", "float32"), strict=True):
        assert (row["status"], row["dtype"], row["verified_by"]) == ("ok", dtype, "certified"), row
        assert row["ratio_low"] <= row["ratio"] <= row["ratio_high"]
    assert refused["status"] == "refused"
    assert "fastest other" in tables.markdown("?", study.measures, rows, "")


def test_a_roofline_is_in_the_row_of_backprop(tmp_path):
    rows = run(read_study(declare(tmp_path, 'name = "backprop"', COMPLEX, measures=("speed", "roofline"))), tmp_path)
    assert [row["status"] for row in rows] == ["ok", "ok"], rows
    assert ["roofline_fraction" in row for row in rows] == [True, False]


def test_where_only_time_is_asked_for_few_samples_are_certified(tmp_path, monkeypatch):
    monkeypatch.setattr("difflab.study.cells.MOST_CERTIFIED", 100)
    monkeypatch.setattr("difflab.study.cells.FEW_SAMPLES", 3)
    (cell,) = cells(read_study(declare(tmp_path, 'name = "backprop"', measures=("speed",))))
    worker.make_reference(certified_task(cell), tmp_path / "reference.npz")
    row = worker.run_cell(cell, tmp_path / "reference.npz")
    assert (row["status"], cell.task.batch) == ("ok", 8)
    assert row["verified_by"] == "certified at batch 3, agreement with Handwritten at batch 8"


def test_more_samples_than_there_are_come_again(tmp_path):
    path = declare(tmp_path, CENTRAL)
    path.write_text(path.read_text().replace("batch = 8", "batch = 2000"))
    (cell,) = cells(read_study(path))
    _, _, x, y = problem(cell.task)
    assert (len(x), len(y)) == (2000, 2000)
    assert np.array_equal(x[1797:], x[:203])


def of_task(tmp_path, backend, *measures):
    (cell,) = cells(read_study(declare(tmp_path, backend, measures=measures)))
    return cell, tmp_path / "reference.npz"


def test_what_all_methods_of_a_task_share_is_made_once(tmp_path):
    cell, path = of_task(tmp_path, CENTRAL, "accuracy", "condition", "agreement")
    assert [measure for _, measure in runner._parts_to_make(cell, path)] == ["", "condition", "agreement"]
    worker.make_reference(cell.task, path)
    assert [measure for _, measure in runner._parts_to_make(cell, path)] == ["condition", "agreement"]
    for measure in ("condition", "agreement"):
        assert worker.make_part(measure, cell.task, path) == {"status": "ok"}
    assert list(runner._parts_to_make(cell, path)) == []
    row = worker.run_cell(cell, path)
    assert row["condition"] > 0
    assert row["agrees_with"]
    path.write_bytes(path.read_bytes()[:1000])
    assert [what for what, _ in runner._parts_to_make(cell, path)] == [
        "reference", "figures for condition", "figures for agreement",
    ]  # fmt: skip


def test_only_what_is_asked_for_is_made(tmp_path):
    cell, path = of_task(tmp_path, CENTRAL, "accuracy", "speed")
    assert list(runner._parts_to_make(cell, path)) == [("reference", "")]
    worker.make_reference(cell.task, path)
    row = worker.run_cell(cell, path)
    assert not {"condition", "agrees_with", "rounded_entries", "backprop_seconds"} & set(row)


@pytest.mark.parametrize(
    ("backend", "measures", "compiled"),
    [
        (CENTRAL, ["accuracy", "speed"], []),
        (CERTIFIED, ["accuracy"], []),
        (CERTIFIED, ["speed"], ["backprop"]),
        (CENTRAL, ["agreement"], ["backprop"]),
        ('name = "backprop"', ["speed"], ["backprop"]),
        ('name = "handwritten"', ["contest"], ["backprop"]),
        (CENTRAL, ["contest"], []),
    ],
)
def test_kernels_are_compiled_before_the_cells_that_run_them(tmp_path, backend, measures, compiled):
    """A cell that compiled them itself would spend its own limit on it."""
    cell, _ = of_task(tmp_path, backend, *measures)
    assert [declared["name"] for declared in runner._compiled_for(cell)] == compiled


def test_figures_that_could_not_be_made_leave_no_row(tmp_path, monkeypatch):
    study = read_study(declare(tmp_path, CENTRAL, measures=("accuracy", "condition")))
    ask = runner._Workers._ask

    def fails(self, request, limit_seconds):
        return {"status": "timeout", "reason": "planted"} if request.measure else ask(self, request, limit_seconds)

    with monkeypatch.context() as changed:
        changed.setattr(runner._Workers, "_ask", fails)
        (row,) = run(study, tmp_path / "results")
    assert (row["status"], row["reason"]) == ("undecided", "no figures for condition: planted")
    assert runner.finished_rows(study, tmp_path / "results") == []


def test_memory_is_that_of_the_process_itself():
    """Not of the one it was started from, which may have held more."""
    held = np.ones(50_000_000)
    code = "from difflab.memory import peak_bytes; print(peak_bytes())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 10_000_000 < int(done.stdout) < held.nbytes
    assert peak_bytes() > held.nbytes


def test_a_forecast_beyond_the_limit_is_a_row_that_says_so(tmp_path):
    (row,) = run(read_study(declare(tmp_path, 'name = "symbolic"\nmax_ops = 10')), tmp_path / "results")
    assert row["status"] == "refused"
    assert "forecast" in row["reason"]
    assert "gradient_seconds" not in row


def test_a_timeout_is_a_row(tmp_path):
    study = read_study(declare(tmp_path, CENTRAL, seconds=0.1))
    started = time.monotonic()
    (row,) = run(study, tmp_path / "results")
    assert (row["status"], row["reason"]) == ("timeout", "more than 0.1 s")
    assert (row["network"], row["method"]) == ("4-2-10", "FiniteDifference('central')")
    assert time.monotonic() - started < 30


def test_a_compiler_that_meets_the_limit_of_a_cell_leaves_nothing(tmp_path, monkeypatch):
    slow, temporary = tmp_path / "cc", tmp_path / "temporary"
    temporary.mkdir()
    slow.write_text(f"#!/bin/sh\ntouch $TMPDIR/left\necho $TMPDIR > {tmp_path}/where\nsleep 60\n")
    slow.chmod(0o755)
    monkeypatch.setenv("TMPDIR", str(temporary))
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    study = read_study(declare(tmp_path, 'name = "symbolic"\nsharing = "during"\nevaluation = "c"', seconds=6.0))
    (row,) = run(study, tmp_path / "results")
    assert row["status"] == "timeout"
    assert not Path((tmp_path / "where").read_text().strip()).exists()
    assert list(temporary.iterdir()) == []


def test_too_little_memory_is_a_row(tmp_path):
    study = read_study(declare(tmp_path, 'name = "symbolic"', 'name = "backprop"'))
    rows = run(msgspec.structs.replace(study, limit_bytes=100_000_000), tmp_path / "results")
    assert [row["status"] for row in rows] == ["memory", "memory"], rows


def test_an_error_that_memory_caused_is_one_of_memory():
    """SymPy says that mpmath is missing where there was no room to load it."""
    bare, caused = ImportError("SymPy now depends on mpmath"), ImportError("SymPy now depends on mpmath")
    caused.__context__ = ImportError("libgmp.so: failed to map segment from shared object")
    assert worker._is_of_memory(caused)
    assert not worker._is_of_memory(bare)


def test_a_killed_worker_is_a_row_and_the_others_go_on(tmp_path):
    study = read_study(declare(tmp_path, CENTRAL, COMPLEX))
    killed = []

    def kill_first_worker(label, done, total, row):
        if row is None and not killed:
            killed.append(threading.Thread(target=kill_worker_running_a_cell, args=(tmp_path / "results",)))
            killed[0].start()

    first, second = run(study, tmp_path / "results", kill_first_worker)
    killed[0].join()
    assert (first["status"], first["reason"]) == ("crashed", "killed by signal SIGKILL")
    assert second["status"] == "ok"


def kill_worker_running_a_cell(directory):
    """The first worker makes the reference; the next one runs the cell."""
    while not list(directory.glob("references/[!.]*.npz")):
        time.sleep(0.01)
    makers = psutil.Process().children()
    while not (workers := [child for child in psutil.Process().children() if child not in makers]):
        time.sleep(0.005)
    workers[0].kill()


def test_finished_cells_are_not_run_again(tmp_path):
    path = declare(tmp_path, CENTRAL)
    (before,) = run(read_study(path), tmp_path / "results")
    events = []
    declare(tmp_path, CENTRAL, COMPLEX)
    after = run(read_study(path), tmp_path / "results", lambda *event: events.append(event))
    assert after[0] == before
    assert {label for label, *_ in events} == {"MLP 4-2-10 FiniteDifference('complex')"}


def test_again_replaces_rows_one_by_one(tmp_path):
    study, place = read_study(declare(tmp_path, CENTRAL, COMPLEX, measures=("speed", "accuracy"))), tmp_path / "results"
    before = run(study, place)

    def stop_before_the_second(label, done, total, row):
        if row is None and done == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(study, place, stop_before_the_second, again=True)
    first, second = runner.finished_rows(study, place)
    assert first["gradient_seconds"] != before[0]["gradient_seconds"]
    assert second == before[1]


def test_again_loses_nothing_where_another_run_is_at_work(tmp_path):
    study, place = read_study(declare(tmp_path, CENTRAL)), tmp_path / "results"
    rows = run(study, place)
    with runner._alone(place), pytest.raises(Busy):
        run(study, place, again=True)
    assert runner.finished_rows(study, place) == rows


def test_a_cell_that_could_not_be_prepared_is_tried_again(tmp_path, monkeypatch):
    study, place = read_study(declare(tmp_path, CENTRAL)), tmp_path / "results"
    with monkeypatch.context() as changed:
        changed.setattr(runner, "PREPARATION_LIMITS", (0.01, 10**9))
        (row,) = run(study, place)
        assert (row["status"], row["reason"]) == ("undecided", "no reference: more than 0.01 s")
        assert runner.finished_rows(study, place) == []
    (row,) = run(study, place)
    assert row["status"] == "ok"


def test_a_damaged_reference_is_made_anew(tmp_path):
    study, place = read_study(declare(tmp_path, CENTRAL)), tmp_path / "results"
    run(study, place)
    (path,) = place.glob("references/*.npz")
    path.write_bytes(path.read_bytes()[:1000])
    (row,) = run(study, place, again=True)
    assert row["status"] == "ok"


def test_missing_data_are_said_before_anything_is_recorded(tmp_path, monkeypatch):
    monkeypatch.setattr(runner.datasets.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match="pip install 'difflab\\[data\\]'"):
        run(read_study(declare(tmp_path, CENTRAL)), tmp_path / "results")
    assert not (tmp_path / "results").exists()


def test_a_branch_that_nobody_can_tell_is_undecided(tmp_path, monkeypatch):
    def cannot_tell(cell, path):
        raise Undecided("no precision tells which branch holds")

    (cell,) = cells(read_study(declare(tmp_path, CENTRAL)))
    monkeypatch.setattr(worker, "run_cell", cannot_tell)
    row = worker.answer(Request(runner=os.getpid(), limit_bytes=10**10, cell=cell))["row"]
    assert row == {"status": "undecided", "reason": "no precision tells which branch holds"}


def test_a_worker_whose_runner_is_gone_stops(tmp_path):
    """Even if it was gone before the worker could look: the request names the runner."""
    (cell,) = cells(read_study(declare(tmp_path, CENTRAL)))
    request = Request(runner=2**22 + 1, limit_bytes=10**10, path=str(tmp_path / "reference.npz"), task=cell.task)
    command = [sys.executable, "-m", "difflab.study.worker"]
    done = subprocess.run(command, input=msgspec.json.encode(request), capture_output=True, timeout=60)
    assert (done.returncode, done.stdout) == (1, b"")


def test_a_loss_that_takes_no_classes_gets_one_hot_rows(tmp_path):
    path = declare(tmp_path, CENTRAL, 'name = "backprop"\ndtype = "float32"', measures=("accuracy", "speed"))
    path.write_text(path.read_text().replace("[[networks]]", '[[networks]]\nloss = "squared_error"'))
    rows = run(read_study(path), tmp_path / "results")
    assert [row["status"] for row in rows] == ["ok", "ok"]
    assert all("handwritten_seconds" not in row for row in rows)


IN_FULL = """
inputs = 4
data = "digits-2x2"
l2 = 0.01
label_smoothing = 0.1
init = "he_normal"
layers = [
    { kind = "dense", units = 2, activation = "elu(0.5)" },
    { kind = "residual", layers = [
        { kind = "dense", units = 2, activation = "tanh" },
        { kind = "dropout", p = 0.5, seed = 1 },
    ] },
    { kind = "dense", units = 10 },
]
"""


def test_a_network_declared_in_full_runs_like_any_other(tmp_path):
    path = declare(tmp_path, 'name = "symbolic"', 'name = "backprop"', measures=("accuracy", "speed", "swell"))
    path.write_text(path.read_text().replace('widths = [4, 2, 10]\ndata = "digits-2x2"\n', IN_FULL))
    rows = run(read_study(path), tmp_path / "results")
    assert [row["status"] for row in rows] == ["ok", "ok"], rows
    assert all("handwritten_seconds" not in row for row in rows)
    row = rows[0]
    assert (row["network"], row["hidden"], row["output"]) == ("4-2-res(2-dropout 0.5)-10", None, None)
    assert (row["l2"], row["label_smoothing"], row["init"], row["loss"]) == (
        0.01,
        0.1,
        "he_normal",
        "softmax_cross_entropy",
    )
    name = "4 → 2 elu(0.5) → res(2 tanh → dropout p 0.5, seed 1) → 10 l2 0.01 label_smoothing 0.1 he_normal"
    assert names.network_name(row) == name


def test_rows_of_dense_networks_keep_their_fields(tmp_path):
    (cell,) = cells(read_study(declare(tmp_path, CENTRAL)))
    row = runner._names(cell)
    shown = {name: row[name] for name in ("network", "hidden", "output", "reduction", "loss")}
    assert list(shown.values()) == ["4-2-10", "tanh", "identity", "mean", "softmax_cross_entropy"]
    assert row["layers"] is None
    assert names.network_name(row) == "4-2-10 tanh"


def test_a_problem_starts_as_its_network_says(tmp_path):
    path = declare(tmp_path, CENTRAL)
    (usual,) = cells(read_study(path))
    path.write_text(path.read_text().replace("[[networks]]", '[[networks]]\ninit = "zeros"'))
    (zeros,) = cells(read_study(path))
    assert problem(usual.task)[1].any()
    assert not problem(zeros.task)[1].any()
    assert key(usual) != key(zeros)


def test_another_limit_or_seed_is_another_cell(tmp_path):
    keys = {key(cells(read_study(declare(tmp_path, CENTRAL, seconds=s)))[0]) for s in (1.0, 2.0, 1.0)}
    assert len(keys) == 2


class OffByOnePercent(FiniteDifference):
    """A planted fault: the gradient that complex step gives, times 1.01."""

    def _prepare(self, net):
        prepared = super()._prepare(net)
        right = prepared._value_and_gradient

        def wrong(arguments):
            value = right(arguments)
            arguments.out[:] *= 1.01
            return value

        prepared._value_and_gradient = wrong
        return prepared


@pytest.mark.parametrize(("backend", "status"), [(FiniteDifference, "ok"), (OffByOnePercent, "wrong")])
def test_a_wrong_gradient_has_no_time(tmp_path, monkeypatch, backend, status):
    study = read_study(declare(tmp_path, COMPLEX, measures=("accuracy", "speed")))
    (cell,) = cells(study)
    worker.make_reference(cell.task, tmp_path / "reference.npz")
    monkeypatch.setattr(worker, "build_backend", lambda declared: backend("complex"))
    row = worker.run_cell(cell, tmp_path / "reference.npz")
    assert row["status"] == status
    assert ("gradient_seconds" in row) == (status == "ok")


def command(path, results):
    return [sys.executable, "-m", "difflab", "run", str(path), "--results", str(results)]


LISTENING = """
import runpy, signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # Jobs in the background ignore it, and what they start too.
runpy.run_module("difflab", run_name="__main__", alter_sys=True)
"""


def started(path, results):
    """A run in a process of its own, once its first row is in the store."""
    listening = [sys.executable, "-c", LISTENING, *command(path, results)[3:]]
    process = subprocess.Popen(listening, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    while "/4]" not in process.stderr.readline():
        assert process.poll() is None
    return process


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_an_interrupted_run_goes_on_where_it_was(tmp_path, sent, code):
    steps = ("", "\nstep = 1e-5", "\nstep = 1e-6", "\nstep = 1e-7")
    path, results = declare(tmp_path, *(CENTRAL + step for step in steps)), tmp_path / "results"
    process = started(path, results)
    workers = psutil.Process(process.pid).children(recursive=True)
    os.kill(process.pid, sent)
    _, errors = process.communicate()
    assert process.returncode == code, errors
    assert sent == signal.SIGKILL or "difflab resume" in errors
    kept = Store(results / "tiny" / "store.sqlite").rows()
    assert 1 <= len(kept) < 4
    assert psutil.wait_procs(workers, timeout=10)[1] == []
    finished = subprocess.run(command(path, results), capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    rows = Store(results / "tiny" / "store.sqlite").rows()
    assert len(rows) == 4
    assert all(rows[name] == row for name, row in kept.items())
    assert finished.stderr.count("/4]") == 4 - len(kept)


def test_two_runs_in_one_place_are_refused(tmp_path):
    study = read_study(declare(tmp_path, CENTRAL))
    (tmp_path / "results").mkdir()
    with runner._alone(tmp_path / "results"), pytest.raises(Busy, match="one process at a time"):
        run(study, tmp_path / "results")


@pytest.mark.parametrize(("factor", "status"), [(1.0, "ok"), (1.01, "wrong"), (0.0, "wrong")])
def test_a_prediction_that_says_nothing_excuses_nothing(factor, status):
    """Planted: a back-end that predicts an infinite error must still get half of the digits right."""
    net = MLP.dense([2, 3, 2])
    theta, x, y = net.init(0), np.ones((1, 2)), np.array([1])
    prepared = Backprop().prepare(net)
    prepared.predicted_error = lambda *_: np.full(net.n_params, np.inf)
    value, gradient = prepared.value_and_gradient(theta, x, y)
    truth = reference_gradient(net, theta, x, y)
    subject = Subject(prepared, truth, theta, x, y, value, factor * gradient, 0)
    assert accuracy.measure(subject)["status"] == status


PLACED = """[[networks]]
loss = "squared_error"
{}"""


def placed(tmp_path, fields):
    path = declare(tmp_path, CENTRAL, measures=("error_estimates",))
    path.write_text(path.read_text().replace("[[networks]]", PLACED.format(fields)))
    return path


def test_a_place_moves_theta_inputs_and_targets_and_all_stay_float32_numbers(tmp_path):
    (usual,) = cells(read_study(placed(tmp_path, "")))
    (moved,) = cells(read_study(placed(tmp_path, "scale = 3.3\nx_shift = 0.1\ny_shift = 1000.1")))
    (_, theta, x, y), (_, theta_moved, x_moved, y_moved) = problem(usual.task), problem(moved.task)
    half_ulp = np.finfo(np.float32).eps / 2
    for before, after in ((3.3 * theta, theta_moved), (x + 0.1, x_moved), (y + 1000.1, y_moved)):
        assert np.array_equal(after, after.astype(np.float32))
        assert after.dtype == np.float64
        # One rounding before the move and one after it, of what is at most 3.3 times as large or 1 larger.
        assert (np.abs(after - before) <= half_ulp * (4 * np.abs(before) + 1)).all()
    assert key(usual.task) != key(moved.task)
    row = runner._names(moved)
    assert (row["scale"], row["x_shift"], row["y_shift"]) == (3.3, 0.1, 1000.1)
    assert names.network_name(row) == "4-2-10 tanh squared_error scale 3.3 x_shift 0.1 y_shift 1000.1"
    assert runner._names(usual)["scale"] == 1.0


class NothingReported(FiniteDifference):
    """A planted fault: differences that are said to be without error."""

    def _prepare(self, net):
        prepared = super()._prepare(net)
        prepared.predicted_error = lambda *_: np.zeros(net.n_params)
        return prepared


@pytest.mark.parametrize(
    ("measures", "status"), [(["error_estimates"], "ok"), (["error_estimates", "accuracy"], "wrong")]
)
def test_error_estimates_are_findings_where_nothing_else_is_asked(tmp_path, monkeypatch, measures, status):
    (cell,) = cells(read_study(declare(tmp_path, CENTRAL, measures=measures)))
    worker.make_reference(cell.task, tmp_path / "reference.npz")
    monkeypatch.setattr(worker, "build_backend", lambda declared: NothingReported())
    row = worker.run_cell(cell, tmp_path / "reference.npz")
    assert row["status"] == status
    assert row["understated_entries"] == row["judged_entries"] == 40
    assert row["reported_to_true_max"] == 0.0
    assert ("error_relative" in row) == ("accuracy" in measures)


def test_estimates_without_bound_survive_process_store_and_table(tmp_path):
    """One of saturated softmax: true errors of 0 make ratios infinite."""
    text = declare(tmp_path, COMPLEX, 'name = "scipy_differentiate"', CERTIFIED, measures=("error_estimates",))
    text.write_text(text.read_text().replace("[[networks]]", "[[networks]]\nscale = 1e4"))
    study = read_study(text)
    rows = run(study, tmp_path / "results")
    assert [row["status"] for row in rows] == ["ok"] * 3
    assert rows == runner.finished_rows(study, tmp_path / "results")
    ours, peer, certified = rows
    assert (ours["judged_entries"], ours["understated_entries"]) == (40, 0)
    assert ours["reported_to_true_max"] == float("inf")
    assert peer["library"].startswith("scipy ")
    assert 0 < peer["understated_entries"] <= peer["judged_entries"]
    assert "judged_entries" not in certified
    assert "inf" in tables.markdown("?", study.measures, rows, "")


def test_a_library_that_is_missing_is_a_row_that_says_how_to_install_it(tmp_path, monkeypatch):
    (cell,) = cells(read_study(declare(tmp_path, 'name = "jacobi"', measures=("error_estimates",))))
    worker.make_reference(cell.task, tmp_path / "reference.npz")
    monkeypatch.setattr(Jacobi, "module", "no_such_module")
    row = worker.run_cell(cell, tmp_path / "reference.npz")
    assert row["status"] == "refused"
    assert row["reason"].endswith("pip install 'difflab[estimates]'")


def test_what_is_not_there_has_no_code_to_compile(tmp_path, monkeypatch):
    """Its cell says so by itself."""
    monkeypatch.setattr(Pytensor, "module", "no_such_module")
    (cell,) = cells(read_study(declare(tmp_path, 'name = "pytensor"', measures=("speed",))))
    assert runner._compiled_for(cell) == []
