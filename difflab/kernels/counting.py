"""Operations of one sample's gradient by the compiled sweep, counted from the program and the rules' source."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable

from difflab.primitives.activations import ACTIVATIONS
from difflab.primitives.losses import LOSSES
from difflab.program import INPUTS, Instruction, Program


def rule_operations(rule: Callable[[float], float]) -> int:
    """Arithmetic operations and function calls written in a scalar rule; signs and comparisons count nothing."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(rule)))
    body = tree.body[0]
    assert isinstance(body, ast.FunctionDef)
    nodes = [node for statement in body.body for node in ast.walk(statement)]
    calls = [node for node in nodes if isinstance(node, ast.Call) and ast.unparse(node.func) != "abs"]
    return len(calls) + sum(isinstance(node, ast.BinOp) for node in nodes)


def _affine(program: Program, instruction: Instruction) -> int:
    """2 m n forward [lecture notes 002, slide 12]; outer product m n; a_bar m (2 n - 1) unless it is x's."""
    m, n = program.width_of(instruction.inputs[0]), instruction.width
    return 2 * m * n + m * n + (0 if instruction.inputs[0] == INPUTS else m * (2 * n - 1))


def _activation(program: Program, instruction: Instruction) -> int:
    row = ACTIVATIONS[str(instruction.function)]
    return instruction.width * (rule_operations(row.value) + rule_operations(row.derivative) + 1)


def _loss(program: Program, instruction: Instruction) -> int:
    return LOSSES[str(instruction.function)].sweep_operations(program.n_outputs)


_COUNTS = {"affine": _affine, "activation": _activation, "loss": _loss}


def sweep_operations(program: Program) -> int:
    """Operations of loss and gradient of one sample by the reverse sweep.

    Every sum, product, quotient and function call counts one, as in ``difflab.expressions.tree_operations``.
    """
    return sum(_COUNTS[instruction.operation](program, instruction) for instruction in program.instructions)
