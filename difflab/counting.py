"""Operations of one sample's loss and gradient, counted from the program and the source of its rules.

Every sum, product, power and function call counts one, a sign nothing.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable

from difflab.primitives.activations import ACTIVATIONS
from difflab.primitives.losses import LOSSES
from difflab.program import INPUTS, Instruction, Program


def rule_operations(rule: Callable[[float], float]) -> int:
    """Operations written in a scalar rule; ``abs`` is a sign."""
    body = ast.parse(textwrap.dedent(inspect.getsource(rule))).body[0]
    assert isinstance(body, ast.FunctionDef)
    nodes = [node for statement in body.body for node in ast.walk(statement)]
    calls = [node for node in nodes if isinstance(node, ast.Call) and ast.unparse(node.func) != "abs"]
    return len(calls) + sum(isinstance(node, ast.BinOp) for node in nodes)


def _affine(program: Program, instruction: Instruction) -> tuple[int, int]:
    """2 m n for W a + b [lecture notes 002, slide 12]; m n for W_bar, m (2 n - 1) for a_bar unless a is x."""
    m, n = program.width_of(instruction.inputs[0]), instruction.width
    return 2 * m * n, m * n + (0 if instruction.inputs[0] == INPUTS else m * (2 * n - 1))


def _activation(program: Program, instruction: Instruction) -> tuple[int, int]:
    row = ACTIVATIONS[str(instruction.function)]
    width = instruction.width
    return width * rule_operations(row.value), width * (rule_operations(row.derivative) + 1)


def _loss(program: Program, instruction: Instruction) -> tuple[int, int]:
    row = LOSSES[str(instruction.function)]
    return row.value_operations(program.n_outputs), row.cotangent_operations(program.n_outputs)


_COUNTS: dict[str, Callable[[Program, Instruction], tuple[int, int]]] = {
    "affine": _affine,
    "activation": _activation,
    "loss": _loss,
}


def primal_operations(program: Program) -> int:
    """Operations of one forward sweep."""
    return sum(_COUNTS[i.operation](program, i)[0] for i in program.instructions)


def sweep_operations(program: Program) -> int:
    """Operations of one forward and reverse sweep."""
    return sum(sum(_COUNTS[i.operation](program, i)) for i in program.instructions)
