"""Generation: the loss of a network and its gradient as code, every stage on the way timed and sized."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from time import perf_counter
from typing import Literal

import msgspec

from difflab.derivation import c_code, expressions, loop_code, numpy_code
from difflab.derivation.expressions import Derivation, Shared
from difflab.derivation.sharing import Way
from difflab.memory import peak_bytes, peak_bytes_of_ended
from difflab.network import MLP


Part = Literal["sample", "totals", "batch"]
"""Of a loss: that of one sample, what is added once to that of a batch, or all of a batch of coupled samples."""

Language = Literal["numpy", "numba", "c"]
MOST_WALKED = 100_000
"""Operations up to which SymPy's own count is asked for."""


class Generated(msgspec.Struct, frozen=True):
    """Code for a loss and its gradient.

    Attributes
    ----------
    outputs : how many numbers these are.
    text : source of the functions ``loss_and_gradient`` and ``loss``.
    library : what the compiler made of it, for C.
    facts : seconds and memory of every stage, operations, and bytes of code.
    """

    outputs: int
    text: str
    library: bytes
    facts: dict[str, int | float]


@dataclass(frozen=True)
class Recipe:
    """What is generated: a part of the loss, by a way to differentiate it, in a language."""

    part: Part
    batch: int
    way: Way
    language: Language
    compiler: str = "cc"


def derived(net: MLP, recipe: Recipe) -> Derivation:
    """The expressions of a part."""
    if recipe.part == "batch":
        return expressions.derive_batch(net, recipe.batch, recipe.way)
    if recipe.part == "totals":
        return expressions.derive_totals(net, recipe.way)
    return expressions.derive_sample(net, recipe.way)


def generate(net: MLP, recipe: Recipe) -> Generated:
    """Differentiate, simplify, share, print and, for C, compile.

    Raises
    ------
    RuntimeError
        If the compiler refuses the source.
    """
    stages, way = _Stages(), recipe.way
    with stages.of("derive"):
        derivation = derived(net, recipe)
    if way.simplification != "none":
        with stages.of("simplify"):
            derivation = expressions.simplified(derivation, way)
    with stages.of("cse") if way.shares_afterwards else nullcontext():
        shared = expressions.share(derivation, way)
    of_loss = expressions.share_loss(derivation, way)
    with stages.of("codegen"):
        functions = LANGUAGES[recipe.language](derivation, shared, of_loss)
    text, library = "\n".join(functions), b""
    if recipe.language == "c":
        with stages.of("compile"):
            library = c_code.library(text, recipe.compiler)
    with stages.of("count"):
        counts = _counts(derivation, shared, of_loss)
    facts = stages.facts | counts | {"source_bytes": len(functions[0])}
    return Generated(len(shared.outputs), text, library, facts)


def _counts(derivation: Derivation, shared: Shared, of_loss: Shared) -> dict[str, int]:
    """Operations; by SymPy's own count too, which walks all that is written, if that is not too much."""
    nodes, operations = expressions.graph(derivation)
    counts = {
        "graph_nodes": nodes,
        "graph_ops": operations,
        "own_loss_ops": expressions.shared_operations(of_loss),
        "gradient_tree_ops": expressions.tree_operations(derivation.gradient, derivation.lines),
        "gradient_ops": expressions.shared_operations(shared),
    }
    if counts["gradient_ops"] <= MOST_WALKED:
        counts["gradient_sympy_ops"] = expressions.counted_by_sympy(shared)
    return counts


LANGUAGES = {"numpy": numpy_code.source, "numba": loop_code.source, "c": c_code.source}


class _Stages:
    """Seconds of each stage, and the most memory that the process, or a compiler it started, had held by its end."""

    def __init__(self) -> None:
        self.facts: dict[str, int | float] = {}

    @contextmanager
    def of(self, name: str) -> Iterator[None]:
        before, started = peak_bytes_of_ended(), perf_counter()
        yield
        self.facts[f"{name}_seconds"] = perf_counter() - started
        of_ended = peak_bytes_of_ended()
        self.facts[f"{name}_peak_bytes"] = max(peak_bytes(), of_ended if of_ended > before else 0)
