"""Columns of tables: cotangents share room in turn, and none is written over before it is read."""

from __future__ import annotations

import naive
import numpy as np
import pytest

import difflab as dl
from difflab.kernels.bars import Bars
from difflab.kernels.layout import INPUT_BAR, KEEPS, OTHER_BAR, OUTPUT_BAR
from difflab.kernels.rules import RULES
from difflab.kernels.tables import Choice, make_table
from difflab.primitives.operations import INPUTS, OPERATIONS


GRADIENT = Choice("gradient", "float64")


def lost(net: dl.MLP) -> list[str]:
    """Cotangents that somebody else wrote over, found by noting who wrote last to each column."""
    program, table = net.program, make_table(net.program, GRADIENT)
    writer, began, found = np.full(table.bar_columns, -1), {program.outputs}, []
    widths = program.widths
    for row, (number, step) in zip(table.rows[::-1], program.numbered[::-1], strict=True):
        if row[KEEPS] < 0 or OPERATIONS[step.operation].is_total:
            continue
        own = slice(row[OUTPUT_BAR], row[OUTPUT_BAR] + widths[number])
        if step.operation != "loss" and (writer[own] != number).any():
            found.append(f"{number} before {step.operation} reads it")
        carried = step.inputs[: RULES[step.operation](step.function, "gradient", "float64", fused=True).carries]
        for value, at in zip(carried, (INPUT_BAR, OTHER_BAR), strict=False):
            there = slice(row[at], row[at] + widths[value])
            if value in began and step.operation != "loss" and value != INPUTS and (writer[there] != value).any():
                found.append(f"{value} before {step.operation} adds to it")
            began.add(value)
            writer[there] = value
        if step.operation != "loss" and (writer[own] != number).any():
            found.append(f"{number} while {step.operation} reads it")
    return found


def networks() -> list[dl.MLP]:
    rng = np.random.default_rng(0)
    return [naive.random_mixed_network(rng, most_layers=8) for _ in range(200)]


def test_no_cotangent_is_written_over_before_it_is_read():
    for net in networks():
        assert not lost(net), net


def test_rooms_that_are_given_back_too_soon_are_noticed(monkeypatch):
    """As soon as somebody else wants them."""

    def take(self, value):
        self.of.setdefault(value, self._program.n_inputs)
        self.columns = max(self.columns, self._program.n_inputs + self._program.widths[value])

    monkeypatch.setattr(Bars, "_take", take)
    assert sum(bool(lost(net)) for net in networks()) > 100


@pytest.mark.parametrize("depth", [2, 8, 32])
def test_cotangents_of_a_deep_network_need_the_room_of_two_layers(depth):
    program = dl.MLP.dense([7, *[20] * depth, 3], "tanh").program
    table = make_table(program, GRADIENT)
    assert table.columns >= depth * 40
    assert table.bar_columns <= 7 + 2 * 20 + 3
