"""Operations of one sample's loss and gradient, counted from the program and the code of its rules.

The convention of the whole lab: every sum, product, quotient, power and call of a function counts one; signs,
comparisons and choices, a maximum among them, count nothing.
"""

from __future__ import annotations

import numpy as np

from difflab.number_systems import TREE_SIZES
from difflab.primitives.operations import OPERATIONS
from difflab.program import Program, primal


def _counts(program: Program) -> list[tuple[int, int]]:
    """Forward and reverse operations of each instruction."""
    return [
        OPERATIONS[step.operation].operations(step, tuple(program.widths[i] for i in step.inputs))
        for step in program.instructions
    ]


def primal_operations(program: Program) -> int:
    """Operations of one forward sweep."""
    return sum(forward for forward, _ in _counts(program))


def sweep_operations(program: Program) -> int:
    """Operations of one forward and reverse sweep."""
    return sum(forward + reverse for forward, reverse in _counts(program))


def loss_tree_operations(program: Program, n_params: int, batch: int = 1) -> int:
    """Operations of the loss of a batch as the program writes it, as a tree, counted without writing it out.

    SymPy joins factors as it multiplies, and its tree of the same loss may have fewer.
    """
    shapes = n_params, (batch, program.n_inputs), (batch, program.n_outputs)
    theta, x, y = (TREE_SIZES.array(np.zeros(shape)) for shape in shapes)
    return primal(program, TREE_SIZES, theta, x, y).operations
