"""Operations of one sample's loss and gradient, counted from the program and the code of its rules.

Every sum, product, power and function call counts one, a sign nothing.
"""

from __future__ import annotations

import dis
from collections.abc import Callable

from difflab.number_systems import TREE_SIZES
from difflab.primitives.activations import ACTIVATIONS
from difflab.primitives.losses import LOSSES
from difflab.program import INPUTS, Instruction, Program, primal


def rule_operations(rule: Callable[[float], float]) -> int:
    """Operations written in a scalar rule, in all its branches; ``abs`` is a sign."""
    instructions = list(dis.get_instructions(rule))
    signs = sum(step.argval == "abs" for step in instructions if step.opname == "LOAD_GLOBAL")
    return sum(step.opname in ("BINARY_OP", "CALL") for step in instructions) - signs


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


def loss_tree_operations(program: Program, n_params: int) -> int:
    """Operations of one sample's loss written out as a tree, exactly, without writing it out."""
    theta, x, y = (TREE_SIZES.array([0] * n) for n in (n_params, program.n_inputs, program.n_outputs))
    return primal(program, TREE_SIZES, theta, x[None], y[None]).operations
