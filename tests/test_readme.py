"""The README says what is true: its code runs, its table is the recorded one, its files and commands exist."""

import json
import math
import os
import re
import shlex
import shutil
import subprocess
import sys

import click
import msgspec
import numpy as np
import pytest
from readme import (
    README,
    ROOT,
    SUPPORTED,
    activation_table,
    agreement_table,
    aims_table,
    certified_table,
    code_blocks,
    example_output,
    forecasts_kept,
    headline_table,
    initialisation_table,
    loss_table,
    operation_examples,
    other_aims_table,
    part,
    peers_table,
    recorded_rows,
    support_table,
    swell_table,
)

import difflab as dl
from difflab.backends.symbolic import CHEAP_GRADIENT
from difflab.cli import commands
from difflab.derivation.forecasting import forecast
from difflab.network_files import read_network
from difflab.primitives.operations import OPERATIONS
from difflab.study.forecasts import size
from difflab.study.reading import read_study


TEXT = README.read_text()
FIGURE = re.compile(r"-?\d+(?:\.\d+)?(?:e[+-]?\d+)?")


def test_the_example_is_eight_lines_of_python():
    assert len(re.findall(r"^\S|^    \S", code_blocks(TEXT, "python")[0], re.MULTILINE)) <= 9


def test_the_example_prints_what_the_readme_shows():
    """Last digits may differ between processors: words must match, and figures to a factor of 10 or within 10 ulp."""
    shown, printed = code_blocks(part(TEXT, "example output"), "text")[0], example_output()
    assert FIGURE.sub("#", shown) == FIGURE.sub("#", printed)
    for one, other in zip(FIGURE.findall(shown), FIGURE.findall(printed), strict=True):
        assert abs(float(one) - float(other)) <= max(10.0, 9 * abs(float(one)))


TABLES = {
    "headline table": headline_table,
    "agreement table": agreement_table,
    "certified table": certified_table,
    "other aims table": other_aims_table,
    "peers table": peers_table,
    "aims table": aims_table,
    "forecasts kept": forecasts_kept,
    "swell table": swell_table,
}


@pytest.mark.parametrize("name", TABLES)
def test_tables_of_studies_are_the_recorded_ones(name):
    assert part(TEXT, name) in (TABLES[name](committed=True), TABLES[name](committed=False))


def times_the_loss(method: str) -> list[float]:
    """Operations of loss and gradient by those of the loss of the program, of all recorded networks."""
    rows = [row for row in recorded_rows("expression_swell", committed=False) if row["method"] == method]
    return [row["gradient_ops"] / row["loss_ops"] for row in rows if row.get("own_loss_ops")]


def operations(method: str) -> dict[tuple, int]:
    """Of loss and gradient, by network."""
    rows = recorded_rows("expression_swell", committed=False)
    mine = [row for row in rows if row["method"] == method and row.get("gradient_ops")]
    return {(row["network"], row.get("hidden"), row.get("scale")): row["gradient_ops"] for row in mine}


LIBRARIES = dict.fromkeys(("Casadi()", "Casadi('MX')", "Jax('float64')", "Pytensor('float64')"), 19)
"""Of how many networks each counts the operations."""


def test_sharing_while_differentiating_takes_the_fewest_operations_of_all():
    """By how many hundredths, on the smallest network and on the largest."""
    during, fewer = operations("Symbolic('during')"), {"4-1-10": [], "64-32-10": []}
    for method, networks in (*LIBRARIES.items(), ("Backprop('float64')", len(during))):
        others = operations(method)
        ratios = {network: during[network] / others[network] for network in others}
        assert len(ratios) == networks
        assert max(ratios.values()) < 1
        for (network, *_), ratio in ratios.items():
            if network in fewer:
                fewer[network].append(round(100 * (1 - ratio)))
    assert {network: (min(found), max(found)) for network, found in fewer.items()} == {
        "4-1-10": (18, 35),
        "64-32-10": (1, 3),
    }


def test_what_is_said_of_the_accuracy_of_expressions_is_in_the_record():
    rows = [row for row in recorded_rows("symbolic_accuracy", committed=False) if row.get("error_ulp_max") is not None]
    balls = [row["error_ulp_max"] for row in rows if "balls" in row["method"]]
    assert len(balls) >= 70
    assert max(balls) <= 0.5
    assert max(row["error_ulp_max"] for row in rows if row["method"].startswith("Backprop")) < 300
    floats = [row for row in rows if row["method"].startswith("Symbolic") and "balls" not in row["method"]]
    for hidden, scales, least in (
        ("tanh", (32, 1024), 1e11),
        ("softplus", (32, 1024), math.inf),
        ("elu", (32,), math.inf),
        ("gelu", (32,), math.inf),
        ("sigmoid", (1024,), math.inf),
    ):
        found = [row["error_ulp_max"] for row in floats if row["hidden"] == hidden and row.get("scale") in scales]
        assert len(found) >= 11
        assert min(found) >= least
    moderate = {row["hidden"]: set() for row in floats}
    for row in floats:
        if row["network"] == "4-3-10" and row.get("scale") in (None, 1):
            moderate[row["hidden"]].add(row["error_ulp_max"])
    assert all(len(errors) > 1 for errors in moderate.values())


def test_recorded_forecasts_are_by_the_laws_as_they_are():
    rows = [row for row in recorded_rows("forecast", committed=False) if row.get("forecast_seconds") is not None]
    assert rows
    for row in rows:
        found = forecast(row["method"], size(row))
        assert {name: row[name] for name in found} == pytest.approx(found, rel=1e-6)


def test_what_is_said_of_gradients_by_their_losses_is_in_the_record():
    timed = [row for row in recorded_rows("speed", committed=False) if row["method"].startswith("Backprop(")]
    assert {row["hidden"] for row in timed} == {"relu", "tanh", "softplus"}
    (gelu,) = (
        row
        for row in recorded_rows("expression_swell", committed=False)
        if row["method"].startswith("Backprop") and row.get("hidden") == "gelu"
    )
    ratio = gelu["gradient_seconds"] / gelu["primal_seconds"]
    assert f"With gelu, on {gelu['parameters']} parameters, a gradient took {ratio:.1f} times its loss" in " ".join(
        TEXT.split()
    )


def test_what_is_said_of_expression_swell_is_in_the_record():
    kept = (
        "Symbolic('during')",
        "Symbolic('layerwise')",
        "Symbolic(simplification='factor_terms')",
        "Backprop('float64')",
    )
    libraries = ("Casadi()", "Casadi('MX')", "Jax('float64')")
    for method in (*kept, *libraries):
        assert max(times_the_loss(method)) <= CHEAP_GRADIENT
    for method in ("Symbolic('none')", "Symbolic()", "Symbolic('during', order='forward')"):
        assert max(times_the_loss(method)) > CHEAP_GRADIENT
    done = [len(times_the_loss(f"Symbolic({option})")) for option in ("'during'", "simplification='factor_terms'")]
    assert done == [23, 11]


def test_a_changed_table_would_be_noticed():
    planted = TEXT.replace("| Backprop('float64') | ok |", "| Backprop('float64') | wrong |", 1)
    assert planted != TEXT
    assert part(planted, "headline table") != headline_table()


@pytest.mark.parametrize("path", sorted(set(re.findall(r"\]\(((?!http)[^)]+)\)", TEXT))))
def test_linked_files_exist(path):
    study = re.match(r"results/\w+", path)
    if study and not (ROOT / study[0]).exists():
        pytest.skip(f"{study[0]} has not been measured yet")
    assert (ROOT / path).is_file()


def test_every_command_is_in_the_readme_and_every_line_of_the_readme_is_a_command():
    lines = [line for block in code_blocks(TEXT, "sh") for line in block.splitlines() if line.startswith(".venv")]
    used = {shlex.split(line, comments=True)[1] for line in lines}
    assert used <= set(commands.commands)
    assert set(commands.commands) - used == {"resume"}
    for line in lines:
        _, name, *arguments = shlex.split(line, comments=True)
        command = commands.commands[name]
        options = {flag for p in command.params if isinstance(p, click.Option) for flag in p.opts}
        assert {argument for argument in arguments if argument.startswith("--")} <= options


def test_every_command_has_help():
    assert all(command.help for command in commands.commands.values())


def test_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^make (\w+)", TEXT, re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)


def test_the_files_of_the_readme_are_valid(tmp_path):
    short, full, study = code_blocks(TEXT, "toml")
    for name, text in {"short": short, "full": full, "study": study}.items():
        (tmp_path / f"{name}.toml").write_text(text)
    assert read_network(tmp_path / "short.toml") == dl.MLP.dense([4, 3, 10])
    assert read_network(tmp_path / "full.toml").n_outputs == 10
    assert msgspec.to_builtins(read_study(tmp_path / "study.toml"))["backends"][0]["step"] == 1e-6


def test_the_map_is_the_layout():
    listed = re.findall(r"^ {2}(\w+(?:\.py|/))", code_blocks(TEXT, "text")[-1], re.MULTILINE)
    places = {p.name + "/" * p.is_dir() for p in (ROOT / "difflab").iterdir() if not p.name.startswith(("__", "."))}
    assert set(listed) == places - {"py.typed", "files.py"} | {"files.py"} & set(listed)


def test_committed_studies_are_valid():
    for path in (ROOT / "studies").glob("*.toml"):
        assert read_study(path).question


def test_exit_codes_of_readme_and_help_agree():
    def codes(text):
        return re.findall(r"(\d+) (ok|a|usage|invalid|some|undecided|an|interrupted)", " ".join(text.split()))

    assert codes(TEXT.split("Exit codes:")[1].split("##")[0]) == codes(commands.help.split("Exit codes:")[1])


def how_to_add(kind):
    """The Python blocks below the words in bold."""
    return code_blocks(TEXT.split(f"**{kind}**")[1].split("\n**A")[0], "python")


@pytest.fixture(scope="module")
def copy_with_the_activation(tmp_path_factory):
    """A copy of the package in which the README was followed to the letter, in one file."""
    place = tmp_path_factory.mktemp("copy")
    shutil.copytree(ROOT / "difflab", place / "difflab", ignore=shutil.ignore_patterns("__pycache__"))
    rules, row = how_to_add("An activation")[:2]
    file = place / "difflab/primitives/activations.py"
    before, rows, after = file.read_text().partition("ROWS = (\n")
    file.write_text(f"{before}{rules}\n\n{rows}{row.rstrip()},\n{after}")
    return place


def run_in(place, *arguments):
    """In that folder, which is the first place where Python looks for packages; then this folder."""
    environment = {**os.environ, "PYTHONPATH": f"{place}{os.pathsep}{ROOT / 'tests'}"}
    return subprocess.run([sys.executable, *arguments], cwd=place, env=environment, capture_output=True, text=True)


LOOPS_OVER_ACTIVATIONS = ("activations", "float32_activations", "contract", "random_networks", "extremes", "kinks")


def activation_tests_in(place, *names):
    files = [str(ROOT / f"tests/test_{name}.py") for name in names]
    options = "-c", str(ROOT / "pyproject.toml"), "-k", "bent_identity or every_row", "-p", "no:cacheprovider"
    return run_in(place, "-m", "pytest", *files, *options)


ALL_BACKENDS = """
import difflab as dl, naive, numpy as np
assert {place!r} in dl.__file__
net = dl.MLP.dense([2, 3, 2], hidden="bent_identity")
rng = np.random.default_rng(0)
for backend in (*dl.BACKENDS.values(), dl.FiniteDifference("complex"), dl.Backprop("float32")):
    prepared = backend.prepare(net)
    x, y = rng.normal(size=(5, 2)).astype(prepared.dtypes[0]), rng.integers(2, size=5)
    theta = rng.normal(size=net.n_params).astype(prepared.dtypes[0])
    truth = dl.reference_gradient(net, theta, x, y)
    _, gradient = prepared.value_and_gradient(theta, x, y)
    assert dl.discrepancy(gradient, truth).error_relative <= naive.predicted(prepared, truth, theta, x, y) < 1e-3
    print(backend.name)
"""


def test_an_activation_takes_one_file_and_every_backend_has_it(copy_with_the_activation):
    place = str(copy_with_the_activation)
    done = run_in(place, "-c", ALL_BACKENDS.format(place=place))
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.split()) == set(dl.BACKENDS)


def test_the_tests_of_activations_take_it_up(copy_with_the_activation):
    done = activation_tests_in(copy_with_the_activation, *LOOPS_OVER_ACTIVATIONS)
    assert done.returncode == 0, done.stdout
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) >= 50


def test_a_wrong_rule_in_the_how_to_would_be_noticed(copy_with_the_activation, tmp_path):
    shutil.copytree(copy_with_the_activation / "difflab", tmp_path / "difflab")
    file = tmp_path / "difflab/primitives/activations.py"
    file.write_text(file.read_text().replace("return 1.0 + 0.5 * (z", "return 1.0 + 0.5005 * (z"))
    assert activation_tests_in(tmp_path, "activations").returncode == 1


def test_an_activation_of_ones_own_works_as_shown():
    """In a process of its own: it stays registered."""
    show = """
for backend in dl.BACKENDS.values():
    net = dl.MLP.dense([2, 3, 2], hidden="bump")
    print(dl.value_and_gradient(net, net.init(0), np.ones((1, 2)), np.array([1]), backend)[0])
"""
    done = run_in(ROOT, "-c", f"import numpy as np\n{how_to_add('An activation')[2]}{show}")
    assert done.returncode == 0, done.stderr
    assert len({f"{float(value):.12f}" for value in done.stdout.split()}) == 1


def test_what_the_readme_says_of_symbolic_gradients_with_sharing_holds(capsys):
    exec(code_blocks(TEXT, "python")[1], {"dl": dl})  # noqa: S102
    ratio, tree = capsys.readouterr().out.split()
    assert 1 < float(ratio) <= CHEAP_GRADIENT
    assert int(tree) > 10**8


def test_second_derivatives_of_the_readme_are_those_that_are_certified():
    namespace = {"dl": dl, "np": np}
    exec(code_blocks(TEXT, "python")[2], namespace)  # noqa: S102
    net, v, at = namespace["net"], namespace["v"], [namespace[name] for name in ("theta", "x", "y")]
    of_hessian, of_gauss_newton = namespace["curvature"]
    truth = v @ dl.Certified().prepare(net).enclose_hvp(*at, v).nearest
    assert of_hessian == pytest.approx(truth, rel=net.n_params * np.finfo(float).eps)
    assert of_gauss_newton > 0
    assert namespace["spread"].shape == (net.n_params,)


def test_the_truth_of_the_readme_is_certified_and_float32_is_within_its_bounds(capsys):
    exec(code_blocks(TEXT, "python")[3], {"dl": dl, "np": np})  # noqa: S102
    certificate, judged = capsys.readouterr().out.strip().rsplit("\n", 1)
    assert certificate.count("holds") == len(certificate.splitlines()) == 3
    assert "of the bound of an entry" in judged


def test_the_network_of_the_readme_is_one():
    namespace = {"dl": dl}
    exec(code_blocks(TEXT, "python")[4], namespace)  # noqa: S102
    assert namespace["theta"].shape == (namespace["net"].n_params,)


@pytest.mark.parametrize("name", ["support table", "activation table", "loss table", "initialisation table"])
def test_tables_of_what_there_is_are_up_to_date(name):
    assert (
        part(TEXT, name)
        == {
            "support table": support_table,
            "activation table": activation_table,
            "loss table": loss_table,
            "initialisation table": initialisation_table,
        }[name]()
    )


def test_every_operation_is_in_the_support_table_with_every_backend():
    table = part(TEXT, "support table")
    assert set(operation_examples()) == set(OPERATIONS)
    for name, net in operation_examples().items():
        assert name in {step.operation for step in net.program.instructions}
    assert {type(backend) for backend in SUPPORTED.values()} == {type(backend) for backend in dl.BACKENDS.values()}
    assert "wrong" not in table


def row_of(network, method):
    return next(row for row in recorded_rows("headline") if (row["network"], row["method"]) == (network, method))


def test_recorded_backprop_takes_less_time_than_handwritten_numpy():
    row = row_of("64-32-10", "Backprop('float64')")
    assert row["batch"] == 128
    assert row["gradient_seconds"] < row["handwritten_seconds"]


def test_the_contests_were_recorded_with_the_blas_that_is_said():
    measured = [row for row in recorded_rows("peers") if row["status"] == "ok"]
    text = TEXT.replace("\n", " ")
    assert {"mkl" in row["backprop_blas"] for row in measured} == {"`Backprop` has MKL here" in text}
    assert {"mkl" not in row["backprop_blas"] for row in measured} == {"`Backprop` has SciPy's OpenBLAS here" in text}


def test_who_was_faster_than_backprop_is_said():
    measured = [row for row in recorded_rows("peers") if row["status"] == "ok"]
    faster = {(row["network"], row["batch"], row["dtype"], row["method"]) for row in measured if row["ratio"] < 1}
    assert {(network, batch, dtype, method.split("(")[0]) for network, batch, dtype, method in faster} == {
        ("4-8-8-3", 1, "float64", "Casadi"),
        ("784-1024-1024-10", 1024, "float32", "Jax"),
    }
    of_jax = [row["ratio"] for row in measured if row["ratio"] < 1 and row["method"].startswith("Jax")]
    shares = [f"{100 * (1 / ratio - 1):.1g}" for ratio in (max(of_jax), min(of_jax))]
    text = TEXT.replace("\n", " ")
    assert "CasADi's C" in text
    assert f"and JAX in float32 for 784-1024-1024-10 by {shares[0]} to {shares[1]} %" in text


def test_how_far_the_bound_of_cheap_gradients_is_kept_is_what_the_record_has():
    rows = [row for row in recorded_rows("speed") if row["method"].startswith("Backprop(") and row["status"] == "ok"]
    assert len(rows) > 100
    text, ratios = TEXT.replace("\n", " "), sorted(row["gradient_seconds"] / row["primal_seconds"] for row in rows)
    kept, beyond = [ratio for ratio in ratios if ratio <= 3], [ratio for ratio in ratios if ratio > 3]
    assert f"at most 3 times its own loss in {len(kept)} of {len(rows)} cells" in text
    (said,) = re.findall(r"and ([\d. and]+) times in the other", text)
    assert [f"{ratio:.3g}" for ratio in beyond] == said.split(" and ")
    most = max(row["hvp_seconds"] / row["called_gradient_seconds"] for row in rows if row.get("hvp_seconds"))
    assert f"at most {most:.2g} times a gradient" in text


def test_claims_between_a_kernel_and_itself_are_those_of_the_record():
    figures = json.loads((ROOT / "results/campaigns/same.json").read_bytes())["figures"]
    (said,) = re.findall(r"a difference was claimed (in .*?)\(\[record", TEXT.replace("\n", " "))
    claims = [tuple(map(int, pair)) for pair in re.findall(r"in (\d+) of (\d+)", said)]
    assert claims == [(kind["claims"], kind["trials"]) for kind in figures.values() if isinstance(kind, dict)]
    assert all(claimed <= 0.05 * trials for claimed, trials in claims)


def test_expressions_written_out_pay_off_beside_differences_for_networks_of_products_alone():
    lines = (ROOT / "results/expression_swell/break_even.md").read_text().splitlines()
    rows = [line.split("|") for line in lines[2:] if line.startswith("|")]
    assert all(row[5].strip() == "never" for row in rows)
    never = {row[1] for row in rows if row[6].strip() == "never"}
    assert never == {row[1] for row in rows if row[2].strip() == "Symbolic('none')" and "multiply" not in row[1]}
    assert {row[2].strip() for row in rows if row[6].strip() == "never"} == {"Symbolic('none')"}


@pytest.mark.parametrize(
    ("network", "batch", "seconds"), [("784-512-512-10", 1, 2), ("64-32-10", 1797, 5), ("64-32-10", 128, 2)]
)
def test_recorded_certified_gradients_are_all_decided_and_in_time(network, batch, seconds):
    if not (rows := recorded_rows("certified")):
        pytest.skip("results/certified has not been measured yet")
    (row,) = [r for r in rows if (r["network"], r["batch"], r["method"]) == (network, batch, "Certified()")]
    assert row["rounded_entries"] + row["enclosed_entries"] + row["kink_entries"] == row["parameters"]
    assert row["gradient_seconds"] < seconds


def test_recorded_methods_agree_where_neither_is_right():
    if not (rows := recorded_rows("truth")):
        pytest.skip("results/truth has not been measured yet")
    assert any(row.get("falsely_agreeing_entries") and row["agreement_error_ulp"] > 1e13 for row in rows)


def test_recorded_certified_gradient_of_the_digits_takes_less_than_2_seconds():
    assert row_of("64-32-10", "Certified()")["gradient_seconds"] < 2


def test_every_rung_has_every_method_and_every_empty_row_its_reason():
    rows = recorded_rows("headline")
    networks, methods = ({row[name] for row in rows} for name in ("network", "method"))
    assert {"4-3-10", "16-8-10", "64-32-10", "64-256-256-10"} <= networks
    assert len(rows) == len(networks) * len(methods)
    for row in rows:
        assert row["status"] in ("ok", "refused", "timeout")
        assert ("gradient_seconds" in row) == (row["status"] == "ok")
        assert ("reason" in row) == (row["status"] != "ok")
