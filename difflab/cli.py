"""The command line: data on standard output, everything else on standard error.

Commands import what they need when they run, so that ``--help`` loads no heavy library.
"""

from __future__ import annotations

import os
import re
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from difflab.terminal import print_forecasts, print_json, print_network, print_table, progress


if TYPE_CHECKING:
    import numpy as np

    from difflab import MLP, Discrepancy, Reference
    from difflab.study.declaration import Study
    from difflab.study.runner import Row

FAILED, USAGE, INVALID, INCOMPLETE, UNDECIDED, MISSING, INTERRUPTED = 1, 2, 3, 4, 5, 6, 130
EXIT_OF_STATUS = {
    "wrong": FAILED,
    "crashed": FAILED,
    "undecided": UNDECIDED,
    "refused": INCOMPLETE,
    "timeout": INCOMPLETE,
    "memory": INCOMPLETE,
}
STUDIES = Path("studies")
results_option = click.option(
    "--results", type=click.Path(file_okay=False, path_type=Path), default=Path("results"), show_default=True,
    help="Directory of results; a study STUDY has DIR/STUDY.",
)  # fmt: skip
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="difflab")
def commands() -> None:
    """Differentiate one network in several independent ways, and judge them by a certified truth.

    A STUDY is a TOML file, or the name of one in studies/.

    Exit codes: 0 ok, 1 a gradient is wrong or a cell crashed, 2 usage, 3 invalid file, 4 some cells were refused or
    hit a limit, 5 undecided, 6 an optional part is missing, 130 interrupted with nothing lost.
    """


@commands.command()
@click.argument("studies", nargs=-1, required=True, metavar="STUDY...")
@results_option
@click.option("--again", is_flag=True, help="Measure finished cells again.")
@json_option
def run(studies: tuple[str, ...], results: Path, again: bool, as_json: bool) -> None:
    """Run studies: the cells that have no row yet, then tables and figures."""
    stems = [Path(name).stem for name in studies]
    if len(set(stems)) < len(stems):
        raise click.UsageError(
            f"studies must have different names, got {', '.join(stems)}; their results share a place"
        )
    _finish([_run(name, results, as_json, again) for name in studies])


@commands.command()
@click.argument("study")
@results_option
@json_option
def resume(study: str, results: Path, as_json: bool) -> None:
    """Go on with a study that was interrupted."""
    if not (_directory(study, results) / "store.sqlite").exists():
        raise click.UsageError(f"nothing to resume in {_directory(study, results)}; start with: difflab run {study}")
    _finish([_run(study, results, as_json, again=False)])


@commands.command("list")
@results_option
@json_option
def list_(results: Path, as_json: bool) -> None:
    """List the studies here and how far they are."""
    from difflab.documents import InvalidFile
    from difflab.study import runner
    from difflab.study.cells import cells

    found = []
    for path in sorted(STUDIES.glob("*.toml")):
        try:
            study = _read(str(path))
        except InvalidFile as error:
            click.echo(str(error), err=True)
            continue
        done = len(runner.finished_rows(study, _directory(str(path), results)))
        found.append({"study": path.stem, "question": study.question, "cells": len(cells(study)), "finished": done})
    if as_json:
        print_json({"schema": "difflab.studies/1", "studies": found})
    for entry in [] if as_json else found:
        click.echo(f"{entry['study']:<20} {entry['finished']:>3} of {entry['cells']} cells here  {entry['question']}")


@commands.command()
@click.argument("study")
@results_option
@click.option(
    "--format", "kind", type=click.Choice(["terminal", "markdown", "latex", "csv"]), default="terminal",
    show_default=True, help="How to write the table.",
)  # fmt: skip
@json_option
def table(study: str, results: Path, kind: str, as_json: bool) -> None:
    """Print the table of recorded rows; nothing is run."""
    from difflab.study import csv_rows, report, tables

    declared, directory = _read(study), _directory(study, results)
    rows = _recorded(declared, directory)
    if as_json:
        _print_rows(study, declared, rows)
    elif kind == "markdown":
        records = report.recorded_environments(declared, directory)
        click.echo(tables.markdown(declared.question, list(declared.measures), rows, report.machine(records)), nl=False)
    elif kind == "latex":
        click.echo(tables.latex(list(declared.measures), rows), nl=False)
    elif kind == "csv":
        click.echo(csv_rows.csv(rows), nl=False)
    else:
        print_table(declared, rows)


@commands.command()
@click.argument("study")
@results_option
@json_option
def plot(study: str, results: Path, as_json: bool) -> None:
    """Draw the figures of recorded rows; nothing is run."""
    from difflab.study import report

    declared, directory = _read(study), _directory(study, results)
    _recorded(declared, directory)
    paths = [str(path) for path in report.write_figures(declared, directory)]
    if as_json:
        print_json({"schema": "difflab.figures/1", "figures": paths})
    else:
        click.echo("\n".join(paths))


@commands.command()
@click.argument("network", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("data")
@click.option("--backend", default="backprop", show_default=True, help="Name of a back-end.")
@click.option("--option", "options", multiple=True, metavar="KEY=VALUE", help="Option of the back-end, any number.")
@click.option("--batch", type=click.IntRange(min=1), help="Only the first rows of the data.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="For theta, if DATA has none.")
@click.option("--thorough", is_flag=True, help="Certify the truth by SymPy and differences too, if it is small.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Write everything to this npz file.")
@json_option
def gradient(
    network: Path, data: str, backend: str, options: tuple[str, ...], batch: int | None, seed: int, thorough: bool,
    out: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Gradient of a NETWORK at DATA, with its error against the certified truth and the certificate of that.

    NETWORK is a TOML or JSON file with the fields of one [[networks]] entry of a study, but for scale and shifts. DATA
    is the name of a data set, or an npz file with x, y and, if you like, theta.
    """
    import numpy as np

    from difflab import discrepancy, reference_gradient
    from difflab.backends.certified import ENCLOSED, Certified
    from difflab.network_files import read_declaration
    from difflab.study.reading import checked_backend

    chosen = checked_backend(dict(map(_option, options)) | {"name": backend})
    declared = read_declaration(network)
    net = declared.build()
    prepared = chosen.prepare(net)
    theta, x, y = _problem(net, data, batch, net.init(seed, declared.init), prepared.dtypes[0])
    value, found = prepared.value_and_gradient(theta, x, y)
    truth = reference_gradient(net, theta, x, y, thorough)
    error = None
    if not isinstance(chosen, Certified):
        predicted = prepared.predicted_error(theta, x, y)
        error = discrepancy(found, truth, bound=np.where(np.isnan(predicted), np.inf, predicted))
    if out:
        _write_gradient(out, net, value, found, truth)
    if as_json:
        _print_gradient(net, repr(chosen), value, found, truth, error)
    else:
        click.echo(f"{net}, {net.n_params} parameters, batch {len(x)}, {chosen!r}")
        click.echo(f"value {value!r}")
        click.echo(f"gradient of norm {_norm(found)!r}" + (f" in {out}" if out else ""))
        click.echo(f"{error or 'certified: this is the truth'}")
        for route in truth.certificate.routes:
            click.echo(f"truth by {route}")
    if (truth.status == ENCLOSED).any():
        sys.exit(UNDECIDED)


@commands.command()
@click.argument("network", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--svg", type=click.Path(dir_okay=False, path_type=Path), help="Draw its program to this file.")
@json_option
def show(network: Path, svg: Path | None, as_json: bool) -> None:
    """Show what a NETWORK is made of, and what it would take to derive: layers, operations, program, forecasts.

    NETWORK is a TOML or JSON file with the fields of one [[networks]] entry of a study.
    """
    from difflab import diagram, summary
    from difflab.backends.symbolic import forecasts
    from difflab.files import write_atomically
    from difflab.network_files import read_declaration

    declared = read_declaration(network)
    net = declared.build()
    if svg:
        write_atomically(svg, diagram.svg(net))
        click.echo(f"written to {svg}", err=True)
    if as_json:
        print_json(summary.document(net, declared.init, declared.data) | {"to_derive": forecasts(net)})
    else:
        print_network(net, summary.terms(net, declared.init, declared.data))
        print_forecasts(forecasts(net))


def _option(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or name == "name":
        raise click.UsageError(f"--option must be KEY=VALUE with an option of the back-end, got {text!r}")
    try:
        return name, tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return name, value


def _problem(
    net: MLP, data: str, batch: int | None, start: np.ndarray, dtype: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Parameters, samples and targets from a data set or a file, in the dtype of the back-end."""
    from difflab import datasets
    from difflab.primitives.losses import LOSSES
    from difflab.reference import load_arrays

    if data in datasets.SHAPES:
        found = datasets.load(data)
        targets = found.targets(LOSSES[net.loss].accepts_classes)
        arrays = {"x": found.x.astype(dtype), "y": targets if targets.ndim == 1 else targets.astype(dtype)}
    elif Path(data).is_file():
        arrays = load_arrays(Path(data))
        missing = {"x", "y"} - set(arrays)
        if missing:
            raise ValueError(f"{data} must hold x and y, got {sorted(arrays)}; add {' and '.join(sorted(missing))}")
    else:
        raise click.UsageError(f"{data!r} is neither a file nor a data set; known: {', '.join(datasets.SHAPES)}")
    theta = arrays["theta"] if "theta" in arrays else start.astype(dtype)
    x, y = (array[:batch] if batch and array.ndim else array for array in (arrays["x"], arrays["y"]))
    return theta, x, y


def _write_gradient(out: Path, net: MLP, value: float, found: np.ndarray, truth: Reference) -> None:
    """The gradient with the names of its entries, the arguments, and the certified truth with its bounds."""
    import io

    import numpy as np

    from difflab.files import write_atomically

    names = np.array([net.name_of(i) for i in range(net.n_params)])
    of_truth = ("gradient", "residual", "radius", "lower", "upper", "status")
    certified = {f"certified_{name}": getattr(truth, name) for name in of_truth}
    buffer = io.BytesIO()
    np.savez(buffer, theta=truth.theta, x=truth.x, y=truth.y, value=value, gradient=found, names=names, **certified)
    write_atomically(out, buffer.getvalue())


def _print_gradient(net: MLP, method: str, value: float, found: np.ndarray, truth: Any, error: Any) -> None:
    import msgspec

    document = {
        "schema": "difflab.gradient/1",
        "network": msgspec.to_builtins(net),
        "method": method,
        "value": value,
        "gradient": [float(g) for g in found],
        "certified": {
            "value": truth.value,
            "gradient": truth.gradient.tolist(),
            "status": truth.status.tolist(),
            "certificate": msgspec.to_builtins(truth.certificate.routes),
        },
        "error": error and _summary(error),
    }
    print_json(document)


def _summary(error: Discrepancy) -> dict[str, Any]:
    import msgspec

    return {
        "arithmetic": error.arithmetic,
        "error_relative": error.error_relative,
        "error_ulp_median": error.error_ulp_median,
        "error_ulp_max": error.error_ulp_max,
        "percentiles_ulp": {str(percent): ulp for percent, ulp in error.percentiles_ulp.items()},
        "is_within_bound": error.is_within_bound,
        "worst": msgspec.to_builtins(error.worst),
    }


def _norm(gradient: np.ndarray) -> float:
    import numpy as np

    return float(np.linalg.norm(gradient))


def _directory(study: str, results: Path) -> Path:
    return results / Path(study).stem


def _read(study: str) -> Study:
    from difflab.study.reading import read_study

    path = Path(study) if study.endswith(".toml") else STUDIES / f"{study}.toml"
    if not re.fullmatch(r"\w[\w.-]*", path.stem):
        raise click.UsageError(f"a study must be named in letters, digits, '.', '_' and '-', got {path.stem!r}")
    if not path.is_file():
        names = ", ".join(sorted(p.stem for p in STUDIES.glob("*.toml"))) or "none"
        raise click.UsageError(f"no study {study!r}: {path} is not a file; studies here: {names}")
    return read_study(path)


def _recorded(study: Study, directory: Path) -> list[Row]:
    from difflab.study import report

    rows = report.recorded_rows(study, directory)
    if not rows:
        raise click.UsageError(f"{directory} has no rows yet; start with: difflab run {directory.name}")
    return rows


def _run(name: str, results: Path, as_json: bool, again: bool) -> list[Row]:
    """Run one study, write what it leaves behind, and print its table."""
    from difflab.errors import MissingExtra
    from difflab.study import report, runner

    study, directory = _read(name), _directory(name, results)
    with progress(Path(name).stem) as listen:
        rows = runner.run(study, directory, listen, again)
    paths = report.write_tables(study, directory, rows)
    try:
        paths += report.write_figures(study, directory)
    except MissingExtra as missing:
        click.echo(f"no figures: {missing}", err=True)
    if as_json:
        _print_rows(name, study, rows)
    else:
        print_table(study, rows)
    click.echo(f"written to {directory}: {', '.join(path.name for path in paths)}", err=True)
    return rows


def _finish(runs: list[list[Row]]) -> None:
    """Exit by the worst status: a failed check before an undecided one before a limit."""
    statuses = {row["status"] for rows in runs for row in rows}
    for code in (FAILED, UNDECIDED, INCOMPLETE):
        if any(EXIT_OF_STATUS.get(status) == code for status in statuses):
            sys.exit(code)


def _print_rows(name: str, study: Study, rows: list[Row]) -> None:
    print_json({"schema": "difflab.rows/1", "study": Path(name).stem, "question": study.question, "rows": rows})


def main() -> None:
    """Run a command; every error is one sentence, and its kind is the exit code."""
    try:
        commands(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(USAGE)
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted; finished cells of a study are kept, go on with: difflab resume STUDY", err=True)
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nobody reads on: leave without a word
    except (ValueError, TypeError, ArithmeticError, ImportError, OSError, MemoryError, RuntimeError) as error:
        code = _exit_code(error)
        click.echo(f"{'' if code == INVALID else 'error: '}{error}", err=True)
        sys.exit(code)


def _exit_code(error: BaseException) -> int:
    from difflab.backends import Refused, Unsupported
    from difflab.documents import InvalidFile
    from difflab.errors import MissingExtra
    from difflab.reference import InvalidReference
    from difflab.study.store import InvalidStore

    codes: dict[type[BaseException], int] = {
        InvalidFile: INVALID, InvalidReference: INVALID, InvalidStore: INVALID, MissingExtra: MISSING,
        Refused: INCOMPLETE, Unsupported: INCOMPLETE,
    }  # fmt: skip
    otherwise = FAILED if isinstance(error, OSError | MemoryError | ArithmeticError) else USAGE
    return next((code for kind, code in codes.items() if isinstance(error, kind)), otherwise)
