"""The README says what is true: its code runs, its table is the recorded one, its files and commands exist."""

import io
import re
import shlex
import subprocess

import click
import msgspec
import naive
import pytest
from readme import README, ROOT, code_blocks, committed_table, example_output, part

from difflab.cli import commands
from difflab.primitives.activations import ACTIVATIONS
from difflab.study.reading import read_network, read_study


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


def test_the_table_is_the_one_that_was_recorded():
    recorded = (ROOT / "results/headline/table.md").read_text()
    assert part(TEXT, "headline table") in (committed_table(), recorded)


def test_a_changed_table_would_be_noticed():
    planted = TEXT.replace("| Backprop('float64') | ok |", "| Backprop('float64') | wrong |", 1)
    assert planted != TEXT
    assert part(planted, "headline table") != committed_table()


@pytest.mark.parametrize("path", sorted(set(re.findall(r"\]\(((?!http)[^)]+)\)", TEXT))))
def test_linked_files_exist(path):
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
    network, study = code_blocks(TEXT, "toml")
    (tmp_path / "net.toml").write_text(network)
    (tmp_path / "study.toml").write_text(study)
    assert read_network(tmp_path / "net.toml").build().widths == (4, 3, 10)
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


def test_a_new_row_is_all_that_an_activation_takes(monkeypatch):
    """A made-up activation on every method that compiles nothing ahead."""
    import numpy as np

    import difflab as dl
    from difflab.primitives.activations import Activation

    row = Activation(
        "cubic",
        expression=lambda m, z: z * z * z,
        value=lambda z: z * z * z,
        derivative=lambda z: 3.0 * z * z,
        max_curvature=100.0,
        value_ulp=1.0,
        derivative_ulp=1.5,
        known_values=((2.0, 8.0, 12.0),),
        source="made up",
    )
    monkeypatch.setitem(ACTIVATIONS, "cubic", row)
    net = dl.MLP.dense([2, 3, 2], hidden="cubic", loss="squared_error")
    theta, x, y = net.init(1), np.array([[0.5, -1.0]]), np.array([[1.0, 0.0]])
    truth = dl.reference_gradient(net, theta, x, y)
    for backend in (dl.Symbolic(), dl.FiniteDifference("complex")):
        prepared = backend.prepare(net)
        _, gradient = prepared.value_and_gradient(theta, x, y)
        assert dl.discrepancy(gradient, truth).error_relative <= naive.predicted(prepared, truth, theta, x, y)


def committed_rows():
    from difflab.study.tables import from_csv

    shown = subprocess.run(["git", "show", "HEAD:results/headline/rows.csv"], cwd=ROOT, capture_output=True, text=True)
    return from_csv(io.StringIO(shown.stdout) if shown.returncode == 0 else ROOT / "results/headline/rows.csv")


def row_of(network, method):
    return next(row for row in committed_rows() if (row["network"], row["method"]) == (network, method))


def test_recorded_backprop_takes_at_most_twice_the_time_of_handwritten_numpy():
    row = row_of("64-32-10", "Backprop('float64')")
    assert row["batch"] == 128
    assert row["gradient_seconds"] <= 2 * row["handwritten_seconds"]


def test_recorded_certified_gradient_of_the_digits_takes_less_than_2_seconds():
    assert row_of("64-32-10", "Certified()")["gradient_seconds"] < 2


def test_every_rung_has_every_method_and_every_empty_row_its_reason():
    rows = committed_rows()
    networks, methods = ({row[name] for row in rows} for name in ("network", "method"))
    assert {"4-3-10", "16-8-10", "64-32-10", "64-256-256-10"} <= networks
    assert len(rows) == len(networks) * len(methods)
    for row in rows:
        assert row["status"] in ("ok", "refused", "timeout")
        assert ("gradient_seconds" in row) == (row["status"] == "ok")
        assert ("reason" in row) == (row["status"] != "ok")
