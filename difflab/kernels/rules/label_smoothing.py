"""Targets mixed with equal shares of all classes."""

from __future__ import annotations

from difflab.kernels.layout import INPUT, OUTPUT, VALUES, WIDTH, block, constants
from difflab.kernels.rules.rule import Rule


def label_smoothing(row, state, zero):
    """Of targets, which have no cotangents."""
    y = block(state, VALUES, row[INPUT], row[WIDTH], zero)
    smooth = block(state, VALUES, row[OUTPUT], row[WIDTH], zero)
    given = constants(row, state, 2)
    share, classes = given[0], given[1]
    for i in range(y.size):
        smooth[i] = y[i] * (1.0 - share) + share / classes


LABEL_SMOOTHING = Rule(label_smoothing, carries=0)
