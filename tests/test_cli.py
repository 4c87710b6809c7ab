"""The command line, as a person types it: what it prints where, and how it ends."""

import contextlib
import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios

import numpy as np
import pytest

from difflab import MLP, reference_gradient


STUDY = """
question = "Which?"
measures = ["accuracy", "speed"]
batch = 8

[[networks]]
widths = [4, 2, 10]
data = "digits-2x2"

[[backends]]
name = "finite_difference"

[[backends]]
name = "finite_difference"
scheme = "complex"
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with one study that has been run, and a network file."""
    directory = tmp_path_factory.mktemp("place")
    (directory / "studies").mkdir()
    (directory / "studies" / "tiny.toml").write_text(STUDY)
    (directory / "net.toml").write_text('widths = [4, 2, 10]\nhidden = "relu"\n')
    finished = difflab(directory, "run", "tiny")
    assert finished.returncode == 0, finished.stderr
    (directory / "run.out").write_text(finished.stdout)
    (directory / "run.err").write_text(finished.stderr)
    return directory


def difflab(directory, *arguments):
    command = [sys.executable, "-m", "difflab", *map(str, arguments)]
    return subprocess.run(command, cwd=directory, capture_output=True, text=True)


def test_a_run_prints_its_table_and_writes_its_files(place):
    table = (place / "run.out").read_text()
    assert "FiniteDifference('complex')" in table
    assert "Which?" in table
    written = {path.name for path in (place / "results" / "tiny").iterdir()}
    assert {"table.md", "table.tex", "rows.csv", "provenance.json", "error.svg", "time.png"} <= written


def test_progress_goes_to_standard_error_a_line_per_cell(place):
    lines = [line for line in (place / "run.err").read_text().splitlines() if "/2]" in line]
    assert len(lines) == 2
    assert "MLP 4-2-10 FiniteDifference('central'): ok, relative error" in lines[0]


def test_a_second_run_repeats_nothing(place):
    again = difflab(place, "run", "tiny")
    assert again.returncode == 0
    assert "/2]" not in again.stderr
    assert again.stdout == (place / "run.out").read_text()


def test_json_is_one_document_of_exact_figures(place):
    document = json.loads(difflab(place, "run", "tiny", "--json").stdout)
    assert document["schema"] == "difflab.rows/1"
    assert [row["status"] for row in document["rows"]] == ["ok", "ok"]
    assert document == json.loads(difflab(place, "table", "tiny", "--json").stdout)


@pytest.mark.parametrize(
    ("kind", "word"), [("markdown", "| network |"), ("latex", r"\toprule"), ("csv", "error_relative")]
)
def test_tables_come_in_formats(place, kind, word):
    shown = difflab(place, "table", "tiny", "--format", kind)
    assert shown.returncode == 0
    assert word in shown.stdout


def test_a_table_without_a_store_comes_from_the_recorded_rows(place, tmp_path):
    (tmp_path / "studies").mkdir()
    (tmp_path / "studies" / "tiny.toml").write_text(STUDY)
    (tmp_path / "results" / "tiny").mkdir(parents=True)
    for name in ("rows.csv", "provenance.json"):
        (tmp_path / "results" / "tiny" / name).write_bytes((place / "results" / "tiny" / name).read_bytes())
    for kind in ("terminal", "markdown"):
        shown, wanted = (difflab(where, "table", "tiny", "--format", kind).stdout for where in (tmp_path, place))
        assert shown == wanted


def test_list_says_how_far_studies_are(place):
    assert "2 of 2 cells" in " ".join(difflab(place, "list").stdout.split())
    (entry,) = json.loads(difflab(place, "list", "--json").stdout)["studies"]
    assert (entry["study"], entry["cells"], entry["finished"]) == ("tiny", 2, 2)


def test_plot_names_the_figures_it_wrote(place):
    paths = difflab(place, "plot", "tiny").stdout.split()
    assert {path.rpartition("/")[2] for path in paths} == {"error.svg", "error.png", "time.svg", "time.png"}
    assert all((place / path).is_file() for path in paths)


def test_a_limit_ends_with_exit_code_4(place):
    text = STUDY.replace('name = "finite_difference"\n\n', 'name = "symbolic"\nmax_ops = 1\n\n')
    (place / "studies" / "limited.toml").write_text(text)
    finished = difflab(place, "run", "limited")
    assert finished.returncode == 4
    assert "refused" in finished.stdout


def test_a_malformed_study_lists_all_its_problems_and_exits_3(place):
    (place / "bad.toml").write_text(STUDY.replace("complex", "sideways").replace("4, 2, 10", "4, 2, 9"))
    finished = difflab(place, "run", "bad.toml")
    assert finished.returncode == 3
    assert finished.stdout == ""
    lines = finished.stderr.splitlines()
    assert [line.split(": ")[0] for line in lines] == ["bad.toml:7", "bad.toml:13"]


@pytest.mark.parametrize(
    ("arguments", "code", "word"),
    [
        (("run",), 2, "Missing argument"),
        (("run", "nosuch"), 2, "no study 'nosuch'"),
        (("frobnicate",), 2, "No such command"),
        (("run", "studies/tiny.toml", "tiny"), 2, "must have different names"),
        (("table", "..toml"), 2, "must be named in letters"),
        (("resume", "other.toml"), 2, "nothing to resume"),
        (("table", "empty.toml"), 2, "no rows yet"),
        (("gradient", "net.toml", "nosuch"), 2, "neither a file nor a data set; known: digits-28x28, digits-8x8"),
        (("gradient", "nosuch.toml", "digits-2x2"), 2, "does not exist"),
        (("gradient", "net.toml", "digits-8x8"), 2, "x must have shape (batch, 4)"),
        (("gradient", "net.toml", "digits-2x2", "--backend", "bakprop"), 2, "did you mean 'backprop'"),
        (("gradient", "net.toml", "digits-2x2", "--option", "dtype"), 2, "KEY=VALUE"),
        (("gradient", "net.toml", "digits-2x2", "--option", "name=symbolic"), 2, "an option of the back-end"),
        (("gradient", "net.toml", "digits-2x2", "--option", "dtype=float16"), 2, "unknown dtype 'float16'"),
        (("gradient", "bad-net.toml", "digits-2x2"), 3, "unknown activation 'tahn'"),
        (("show", "bad-net.toml"), 3, "bad-net.toml:2: hidden: unknown activation 'tahn'"),
        (("show", "net.toml", "--svg", "/dev/null/net.svg"), 1, "error: "),
        (("gradient", "net.toml", "digits-2x2", "--backend", "symbolic", "--option", "max_ops=1"), 4, "refuses"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_mistakes_get_one_sentence(place, arguments, code, word):
    (place / "bad-net.toml").write_text('widths = [4, 2, 10]\nhidden = "tahn"\n')
    (place / "empty.toml").write_text(STUDY)
    (place / "..toml").write_text(STUDY)
    finished = difflab(place, *arguments)
    assert (finished.returncode, finished.stdout) == (code, "")
    assert word in finished.stderr
    assert "Traceback" not in finished.stderr


def test_a_gradient_of_a_data_set_comes_with_its_error(place):
    arguments = ("gradient", "net.toml", "digits-2x2", "--batch", 5, "--backend", "finite_difference")
    shown = difflab(place, *arguments)
    assert "4-2-10, 40 parameters, batch 5, FiniteDifference('central')" in shown.stdout
    assert "relative error" in shown.stdout
    document = json.loads(difflab(place, *arguments, "--json").stdout)
    assert len(document["gradient"]) == 40
    assert document["error"]["error_relative"] < 1e-6
    assert set(document["certified"]["status"]) == {"rounded"}


def test_a_gradient_starts_as_its_network_says(place):
    (place / "full.json").write_text(
        '{"inputs": 4, "init": "zeros", "layers": [{"kind": "dense", "units": 10, "activation": "softplus"}]}'
    )
    arguments = ("gradient", "full.json", "digits-2x2", "--batch", 5, "--json")
    document = json.loads(difflab(place, *arguments).stdout)
    assert document["value"] == pytest.approx(np.log(10), abs=4 * np.finfo(float).eps)


def test_a_gradient_of_a_file_is_written_whole(place, tmp_path):
    rng = np.random.default_rng(0)
    net = MLP.dense([4, 2, 10], "relu")
    theta, x, y = net.init(rng), rng.standard_normal((3, 4)), rng.integers(0, 10, 3)
    np.savez(tmp_path / "data.npz", x=x, y=y, theta=theta)
    out = tmp_path / "out.npz"
    finished = difflab(place, "gradient", "net.toml", tmp_path / "data.npz", "--out", out, "--backend", "certified")
    assert finished.returncode == 0, finished.stderr
    with np.load(out) as written:
        assert np.array_equal(written["gradient"], reference_gradient(net, theta, x, y).gradient)
        assert written["names"][0] == "dense1.weight[0,0]"


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 nonsense", b"\x80\x04\x95pickled"])
def test_a_data_file_that_is_none_is_said_in_one_sentence(place, tmp_path, content):
    (tmp_path / "data.npz").write_bytes(content)
    finished = difflab(place, "gradient", "net.toml", tmp_path / "data.npz")
    assert finished.returncode == 2
    assert "must be an npz file" in finished.stderr
    assert len(finished.stderr.splitlines()) == 1


def test_help_loads_no_heavy_library(place):
    code = "import sys, difflab.cli; sys.argv[1:] = ['--help']; difflab.cli.main(); print(sorted(sys.modules))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=place)
    loaded = shown.stdout.splitlines()[-1]
    assert not any(f"'{name}'" in loaded for name in ("sympy", "numba", "pandas", "matplotlib", "sklearn"))


def test_a_data_set_serves_losses_that_take_no_classes(place):
    (place / "square.toml").write_text('widths = [4, 2, 10]\nloss = "squared_error"\n')
    shown = difflab(place, "gradient", "square.toml", "digits-2x2", "--option", "dtype=float32", "--batch", 4)
    assert shown.returncode == 0, shown.stderr
    assert "Backprop('float32')" in shown.stdout


@pytest.mark.parametrize("shape", [(), (3,), (3, 5)])
def test_arrays_of_a_wrong_shape_get_one_sentence(place, tmp_path, shape):
    np.savez(tmp_path / "data.npz", x=np.zeros(shape), y=np.zeros((), int))
    finished = difflab(place, "gradient", "net.toml", tmp_path / "data.npz", "--batch", 2)
    assert finished.returncode == 2
    assert "Traceback" not in finished.stderr
    assert " must " in finished.stderr


def words(table: str) -> list[str]:
    """What stands in the rows of a printed table, without colours and the header."""
    lines = re.sub(r"\x1b\[[0-9;]*m", "", table).splitlines()
    return [word for line in lines if line.startswith(("Finite", "4-2-10")) for word in line.split()]


def on_terminal(directory, columns: int, *arguments: str) -> str:
    """What a terminal that many columns wide is sent."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    clean = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    command = [sys.executable, "-m", "difflab", *arguments]
    with subprocess.Popen(command, cwd=directory, stdin=slave, stdout=slave, env=clean | {"TERM": "xterm"}):
        os.close(slave)
        received = b""
        with contextlib.suppress(OSError):  # the end of a terminal is an error on Linux
            while chunk := os.read(master, 65536):
                received += chunk
    os.close(master)
    return received.decode()


@pytest.mark.parametrize("columns", [40, 80, 130])
def test_no_figure_is_cut_however_narrow_the_terminal(place, columns):
    shown = on_terminal(place, columns, "table", "tiny")
    assert "…" not in shown
    assert set(words((place / "run.out").read_text())) <= set(words(shown))


@pytest.mark.parametrize("columns", [40, 130])
def test_show_cuts_nothing_either(place, columns):
    shown = re.sub(r"\x1b\[[0-9;]*m", "", on_terminal(place, columns, "show", "net.toml"))
    assert "…" not in shown
    assert set(difflab(place, "show", "net.toml").stdout.split()) <= set(shown.split())


def test_a_terminal_that_is_too_narrow_gets_a_table_per_measure(place):
    wide, narrow = (on_terminal(place, columns, "table", "tiny").count("status") for columns in (130, 70))
    assert (wide, narrow) == (1, 2)


def test_a_reader_who_leaves_early_gets_no_complaint(place):
    command = f"{sys.executable} -m difflab table tiny --format csv | head -c 1"
    shown = subprocess.run(["bash", "-c", command], cwd=place, capture_output=True, text=True)
    assert shown.stderr == ""


def test_a_gradient_that_is_not_finite_is_one_sentence(place, tmp_path):
    np.savez(tmp_path / "huge.npz", theta=np.full(40, 1e200), x=np.full((1, 4), 1e200), y=np.array([1]))
    finished = difflab(place, "gradient", "net.toml", tmp_path / "huge.npz", "--backend", "finite_difference")
    assert (finished.returncode, finished.stdout) == (1, "")
    assert "not finite" in finished.stderr or "a loss of" in finished.stderr
    assert "Traceback" not in finished.stderr
