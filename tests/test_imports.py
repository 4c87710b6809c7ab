"""Imports go one way, and what is dangerous or heavy has one door: read off the sources, never by running them."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest


PACKAGE = Path(__file__).parents[1] / "difflab"

LAYERS = (
    ("stencils", "number_systems", "initialisation"),
    ("primitives",),
    ("program",),
    ("lowering",),
    ("layers",),
    ("network",),
    ("counting", "kernels", "network_files"),
    ("summary", "derivation"),
    ("diagram",),
    ("enclosures",),
    ("backends",),
    ("reference", "registration"),
    ("discrepancy", "peers"),
    ("difflab",),
    ("study",),
    ("terminal",),
    ("cli",),
    ("__main__",),
)
"""Lower first; a module imports from lower layers or its own package. ``difflab`` stands for its public names."""

RANK = {unit: rank for rank, units in enumerate(LAYERS) for unit in units}
FREE = ("began", "blas", "blas_libraries", "child", "errors", "files", "datasets", "documents", "loading", "memory")
"""They import nothing of ours but ``errors``, and anyone may import them."""

SHARED_BY_BACKENDS = ("arguments", "contract")

DOORS = {
    "difflab.kernels": ("difflab/kernels/", "difflab/backends/backprop.py", "difflab/registration.py"),
    "numba": ("difflab/kernels/", "difflab/derivation/straight_lines.py"),
    "llvmlite": ("difflab/kernels/",),
    "matplotlib": ("difflab/study/drawing.py",),
    "flint": ("difflab/number_systems/balls.py", "difflab/enclosures/"),
    "sympy": (
        "difflab/number_systems/symbols.py",
        "difflab/primitives/translation.py",
        "difflab/derivation/",
        "difflab/enclosures/symbolic_balls.py",
    ),
    "click": ("difflab/cli.py", "difflab/terminal.py"),
    "scipy.differentiate": ("difflab/peers/scipy_differentiate.py",),
    "numdifftools": ("difflab/peers/numdifftools.py",),
    "jacobi": ("difflab/peers/jacobi.py",),
    "jax": ("difflab/peers/jax.py",),
    "torch": ("difflab/peers/torch.py",),
    "casadi": ("difflab/peers/casadi.py",),
    "autograd": ("difflab/peers/hips_autograd.py",),
    "pytensor": ("difflab/peers/pytensor.py",),
    "symengine": ("difflab/derivation/symengine_engine.py",),
    "rich": ("difflab/terminal.py",),
}
PRINTS = ("print", "echo", "secho")
PRINTERS = ("difflab/cli.py", "difflab/terminal.py")
VAGUE = {"utils", "helpers", "common", "core", "base", "config"}
BANNED_MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "yaml", "shelve", "marshal"}
BANNED_CALLS = {"eval", "exec", "sympify", "parse_expr"}
HEAVY = ("sympy", "numba", "pandas", "matplotlib", "sklearn")


# --- reading a source


def imported(tree: ast.AST) -> Iterator[str]:
    """Dotted names of all imports, those within functions and by name included."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and called(node) in ("import_module", "__import__"):
            yield from (a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str))


def called(call: ast.Call) -> str:
    """The last part of what is called: ``echo`` of ``click.echo(...)``."""
    function = call.func
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def calls(tree: ast.AST) -> Iterator[str]:
    return (called(node) for node in ast.walk(tree) if isinstance(node, ast.Call))


def within(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def unit_of(name: str) -> str:
    """The part of the package that a dotted name belongs to; a public name belongs to ``difflab`` itself."""
    parts = name.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in (*RANK, *FREE) else "difflab"


def unit_at(path: str) -> str:
    first = path.removesuffix(".py").split("/")[1]
    return "difflab" if first == "__init__" else first


# --- the rules


def against_the_order(path: str, tree: ast.AST) -> Iterator[str]:
    own = unit_at(path)
    for name in imported(tree):
        if not within(name, "difflab") or (other := unit_of(name)) == own:
            continue
        if own in FREE and other != "errors":
            yield f"{own} imports nothing of ours, but {name}"
        elif other not in FREE and RANK[other] >= RANK[own]:
            yield f"{own} lies below {name}"


def off_the_map(path: str, tree: ast.AST) -> Iterator[str]:
    if unit_at(path) not in (*RANK, *FREE):
        yield f"{unit_at(path)} is in no layer"


def between_backends(path: str, tree: ast.AST) -> Iterator[str]:
    if not path.startswith("difflab/backends/") or path.endswith("__init__.py"):
        return
    for name in imported(tree):
        part = (name.split(".") + [""] * 3)[2]
        if within(name, "difflab.backends") and part not in SHARED_BY_BACKENDS:
            yield f"a back-end imports {name}"


def through_the_wall(path: str, tree: ast.AST) -> Iterator[str]:
    for name in imported(tree):
        for module, doors in DOORS.items():
            if within(name, module) and not path.startswith(doors):
                yield f"{name} has its doors in {', '.join(doors)}"


def printing(path: str, tree: ast.AST) -> Iterator[str]:
    if path not in PRINTERS:
        yield from (f"{call}: only {PRINTERS} print" for call in calls(tree) if call in PRINTS)


def vaguely_named(path: str, tree: ast.AST) -> Iterator[str]:
    yield from (f"{part} says nothing" for part in path.removesuffix(".py").split("/") if part in VAGUE)


def dangerous(path: str, tree: ast.AST) -> Iterator[str]:
    yield from (name for name in imported(tree) if name.split(".")[0] in BANNED_MODULES)
    yield from (name for name in imported(tree) if name.split(".")[-1] in BANNED_CALLS)
    yield from (f"{call}(...)" for call in calls(tree) if call in BANNED_CALLS)
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
            if not (isinstance(node.value, ast.Constant) and node.value.value is False):
                yield "allow_pickle is False"


def relative(path: str, tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level:
            yield f"line {node.lineno}"


RULES = (
    against_the_order,
    off_the_map,
    between_backends,
    through_the_wall,
    printing,
    vaguely_named,
    dangerous,
    relative,
)


def violations(path: str, source: str) -> dict[str, list[str]]:
    """What a source at a path, like ``difflab/stencils.py``, does against which rules."""
    tree = ast.parse(source)
    found = {rule.__name__: list(rule(path, tree)) for rule in RULES}
    return {rule: names for rule, names in found.items() if names}


# --- the package keeps them


SOURCES = sorted(file.relative_to(PACKAGE.parent).as_posix() for file in PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", SOURCES)
def test_every_source_keeps_every_rule(path):
    assert violations(path, (PACKAGE.parent / path).read_text()) == {}


def test_the_sources_were_found():
    assert {"difflab/backends/certified.py", "difflab/kernels/sweeps.py", "difflab/__init__.py"} <= set(SOURCES)


# --- the rules catch what is planted


PLANTED = [
    ("against_the_order", "difflab/stencils.py", "from difflab.network import MLP"),
    ("against_the_order", "difflab/stencils.py", "import difflab.number_systems"),
    ("against_the_order", "difflab/primitives/losses.py", "from difflab import program"),
    ("against_the_order", "difflab/primitives/operations/affine.py", "from difflab.program import Program"),
    ("against_the_order", "difflab/primitives/rules.py", "from difflab.kernels import rules"),
    ("against_the_order", "difflab/layers.py", "from difflab.network import MLP"),
    ("against_the_order", "difflab/initialisation.py", "from difflab.layers import Dense"),
    ("against_the_order", "difflab/kernels/rules/affine.py", "from difflab.backends import Backprop"),
    ("against_the_order", "difflab/network.py", "def f():\n    from difflab.backends import Backprop"),
    ("against_the_order", "difflab/kernels/sweeps.py", "from difflab.derivation.expressions import share"),
    ("against_the_order", "difflab/backends/certified.py", "from difflab.discrepancy import discrepancy"),
    ("against_the_order", "difflab/discrepancy.py", "import difflab"),
    ("against_the_order", "difflab/backends/finite_difference.py", "from difflab.peers import PEERS"),
    ("against_the_order", "difflab/peers/jacobi.py", "from difflab.study.declaration import Study"),
    ("against_the_order", "difflab/reference.py", "from difflab import reference_gradient"),
    ("against_the_order", "difflab/study/cells.py", "from difflab.cli import main"),
    ("against_the_order", "difflab/files.py", "from difflab.stencils import CENTRAL"),
    ("against_the_order", "difflab/datasets.py", "from difflab.files import write_atomically"),
    ("against_the_order", "difflab/program.py", "import importlib\nimportlib.import_module('difflab.network')"),
    ("off_the_map", "difflab/zoo.py", ""),
    ("between_backends", "difflab/backends/symbolic.py", "from difflab.backends.backprop import Backprop"),
    ("between_backends", "difflab/backends/symbolic.py", "from difflab.backends import certified"),
    ("between_backends", "difflab/backends/symbolic.py", "from difflab.backends import BACKENDS"),
    ("between_backends", "difflab/backends/contract.py", "import difflab.backends.certified"),
    ("between_backends", "difflab/backends/backprop.py", "def f():\n    import difflab.backends.finite_difference"),
    ("through_the_wall", "difflab/backends/symbolic.py", "from difflab.kernels import sweeps"),
    ("through_the_wall", "difflab/backends/backprop.py", "import numba"),
    ("through_the_wall", "difflab/study/timing.py", "def f():\n    from numba import njit"),
    ("through_the_wall", "difflab/study/provenance.py", "import llvmlite.binding"),
    ("through_the_wall", "difflab/study/tables.py", "import matplotlib.pyplot as plt"),
    ("through_the_wall", "difflab/network.py", "from flint import arb"),
    ("through_the_wall", "difflab/backends/symbolic.py", "import sympy"),
    ("through_the_wall", "difflab/backends/certified.py", "import importlib\nimportlib.import_module('sympy')"),
    ("through_the_wall", "difflab/study/runner.py", "from rich.progress import Progress"),
    ("through_the_wall", "difflab/study/runner.py", "import click"),
    ("through_the_wall", "difflab/stencils.py", "from scipy.differentiate import derivative"),
    ("through_the_wall", "difflab/peers/scipy_differentiate.py", "import numdifftools"),
    ("through_the_wall", "difflab/study/worker.py", "def f():\n    from jacobi import jacobi"),
    ("through_the_wall", "difflab/peers/torch.py", "def f():\n    import jax.numpy"),
    ("through_the_wall", "difflab/peers/jax.py", "import torch"),
    ("through_the_wall", "difflab/peers/torch.py", "import pytensor.tensor"),
    ("through_the_wall", "difflab/study/contender.py", "def f():\n    import casadi"),
    ("through_the_wall", "difflab/peers/handwritten.py", "import autograd.numpy"),
    ("through_the_wall", "difflab/derivation/expressions.py", "import symengine"),
    ("printing", "difflab/study/runner.py", "print('done')"),
    ("printing", "difflab/datasets.py", "def f(console):\n    console.print(1)"),
    ("printing", "difflab/study/runner.py", "click.echo('done')"),
    *(("vaguely_named", f"difflab/study/{name}.py", "") for name in sorted(VAGUE)),
    ("vaguely_named", "difflab/core/sweeps.py", ""),
    *(("dangerous", "difflab/study/store.py", f"import {name}") for name in sorted(BANNED_MODULES)),
    ("dangerous", "difflab/study/store.py", "def f():\n    from pickle import loads"),
    ("dangerous", "difflab/study/store.py", "__import__('pickle')"),
    ("dangerous", "difflab/derivation/expressions.py", "eval('1')"),
    ("dangerous", "difflab/derivation/expressions.py", "exec('1')"),
    ("dangerous", "difflab/derivation/expressions.py", "sympy.sympify('1')"),
    ("dangerous", "difflab/derivation/expressions.py", "from sympy import sympify as s"),
    ("dangerous", "difflab/derivation/expressions.py", "from sympy.parsing.sympy_parser import parse_expr"),
    ("dangerous", "difflab/reference.py", "np.load(path, allow_pickle=True)"),
    ("dangerous", "difflab/reference.py", "np.load(path, allow_pickle=anything)"),
    ("relative", "difflab/network.py", "from .program import Program"),
    ("relative", "difflab/study/cells.py", "def f():\n    from .. import network"),
]


@pytest.mark.parametrize(("rule", "path", "source"), PLANTED)
def test_a_planted_violation_is_caught(rule, path, source):
    assert rule in violations(path, source)


def test_every_rule_has_a_planted_violation_and_every_door_one_too():
    assert {rule for rule, _, _ in PLANTED} == {rule.__name__ for rule in RULES}
    walls = " ".join(source for rule, _, source in PLANTED if rule == "through_the_wall")
    assert all(module.split(".")[-1] in walls for module in DOORS)


HARMLESS = [
    ("difflab/network.py", "from difflab.primitives.losses import LOSSES"),
    ("difflab/layers.py", "from difflab.program import Parameter\nfrom difflab.errors import known"),
    ("difflab/network.py", "from difflab.initialisation import INITIALISATIONS\nfrom difflab.layers import Dense"),
    ("difflab/primitives/operations/activation.py", "from difflab.primitives.rules import rule_operations"),
    ("difflab/kernels/plans.py", "from difflab.kernels.rules import RULES\nfrom difflab.kernels import rules"),
    ("difflab/kernels/rules/affine.py", "from difflab.kernels.target import compiled\nimport numba"),
    ("difflab/backends/backprop.py", "def f():\n    from difflab.kernels import sweeps"),
    ("difflab/backends/symbolic.py", "from difflab.backends.contract import Backend"),
    ("difflab/backends/__init__.py", "from difflab.backends.symbolic import Symbolic"),
    ("difflab/reference.py", "from difflab.files import write_atomically\nnp.load(path, allow_pickle=False)"),
    ("difflab/study/cells.py", "from difflab import __version__, datasets"),
    ("difflab/__init__.py", "from difflab.reference import Reference"),
    ("difflab/cli.py", "import click\nclick.echo('hello')"),
    ("difflab/network.py", "'''import numba; print(eval)'''"),
    ("difflab/network.py", "fingerprint = 1\nblueprint()"),
]


@pytest.mark.parametrize(("path", "source"), HARMLESS)
def test_what_is_allowed_raises_no_alarm(path, source):
    assert violations(path, source) == {}


# --- what starting loads


def loaded_by(statements: str) -> set[str]:
    """Which heavy libraries a fresh interpreter has loaded after these statements."""
    report = f"import sys; sys.stderr.write('loaded:' + ' '.join(m for m in {HEAVY!r} if m in sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", f"{statements}\n{report}"],
        capture_output=True,
        text=True,
        check=True,
        cwd=PACKAGE.parent,
    )
    return set(done.stderr.rpartition("loaded:")[2].split())


COMMAND = """
import runpy, sys
sys.argv = ["difflab", {argument!r}]
try:
    runpy.run_module("difflab", run_name="__main__")
except SystemExit as stopped:
    assert not stopped.code, stopped.code
"""


def test_the_probe_sees_what_is_loaded():
    assert loaded_by("import pandas") == {"pandas"}


def test_importing_difflab_loads_nothing_heavy():
    assert loaded_by("import difflab") == set()


@pytest.mark.parametrize("argument", ["--help", "--version"])
@pytest.mark.skipif(not (PACKAGE / "cli.py").exists(), reason="the command line is not written yet")
def test_asking_the_command_line_for_help_loads_nothing_heavy(argument):
    assert loaded_by(COMMAND.format(argument=argument)) == set()
