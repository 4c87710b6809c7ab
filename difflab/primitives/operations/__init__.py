"""Layer-level operations: one file and one row each, in the table ``OPERATIONS``."""

from difflab.primitives.operations.activation import ACTIVATION
from difflab.primitives.operations.add import ADD
from difflab.primitives.operations.affine import AFFINE
from difflab.primitives.operations.batch_norm import BATCH_NORM, BATCH_NORM_INFERENCE
from difflab.primitives.operations.dropout import DROPOUT
from difflab.primitives.operations.instruction import INPUTS, TARGETS, Instruction, Parameter
from difflab.primitives.operations.label_smoothing import LABEL_SMOOTHING
from difflab.primitives.operations.loss import LOSS
from difflab.primitives.operations.maxout import MAXOUT
from difflab.primitives.operations.multiply import MULTIPLY
from difflab.primitives.operations.operation import Bars, Operation
from difflab.primitives.operations.penalty import PENALTY
from difflab.primitives.operations.softmax import SOFTMAX


OPERATIONS: dict[str, Operation] = {
    row.name: row
    for row in (
        AFFINE,
        ACTIVATION,
        ADD,
        MULTIPLY,
        MAXOUT,
        SOFTMAX,
        BATCH_NORM,
        BATCH_NORM_INFERENCE,
        DROPOUT,
        LABEL_SMOOTHING,
        LOSS,
        PENALTY,
    )
}

__all__ = ["INPUTS", "OPERATIONS", "TARGETS", "Bars", "Instruction", "Operation", "Parameter"]
