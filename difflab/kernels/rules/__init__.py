"""The steps of every operation: forward, along a tangent, in reverse, and in reverse along a tangent."""

from __future__ import annotations

from collections.abc import Callable

from difflab.kernels.rules.activation import activation
from difflab.kernels.rules.add import ADD
from difflab.kernels.rules.affine import AFFINE
from difflab.kernels.rules.batch_norm import BATCH_NORM, BATCH_NORM_INFERENCE
from difflab.kernels.rules.dropout import DROPOUT
from difflab.kernels.rules.label_smoothing import LABEL_SMOOTHING
from difflab.kernels.rules.loss import loss
from difflab.kernels.rules.maxout import MAXOUT
from difflab.kernels.rules.multiply import MULTIPLY
from difflab.kernels.rules.penalty import PENALTY
from difflab.kernels.rules.rule import Kind, Rule, Step
from difflab.kernels.rules.softmax import softmax
from difflab.primitives.activations import ACTIVATIONS
from difflab.primitives.losses import LOSSES


RULES: dict[str, Callable[[str | None, Kind, str, bool], Rule]] = {
    "affine": lambda function, kind, dtype, fused: AFFINE,
    "activation": lambda function, kind, dtype, fused: activation(ACTIVATIONS[str(function)], kind, dtype, fused),
    "add": lambda function, kind, dtype, fused: ADD,
    "multiply": lambda function, kind, dtype, fused: MULTIPLY,
    "maxout": lambda function, kind, dtype, fused: MAXOUT,
    "softmax": lambda function, kind, dtype, fused: softmax(fused),
    "batch_norm": lambda function, kind, dtype, fused: BATCH_NORM,
    "batch_norm_inference": lambda function, kind, dtype, fused: BATCH_NORM_INFERENCE,
    "dropout": lambda function, kind, dtype, fused: DROPOUT,
    "label_smoothing": lambda function, kind, dtype, fused: LABEL_SMOOTHING,
    "loss": lambda function, kind, dtype, fused: loss(LOSSES[str(function)], kind, dtype, fused),
    "penalty": lambda function, kind, dtype, fused: PENALTY,
}
"""Of every operation, the rule for its function, what a sweep is for, the dtype of arrays, and whether elementary
functions are fused."""

__all__ = ["RULES", "Kind", "Rule", "Step"]
