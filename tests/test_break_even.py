"""Break-even: the number of gradients from which on the sums of times are the other way round."""

from __future__ import annotations

import math

import pytest

from difflab.study import break_even
from difflab.study.break_even import found, gradients, lines


ROW = {"network": "2-2-2", "hidden": "tanh", "batch": 16, "parameters": 12, "status": "ok"}
DERIVED = ROW | {
    "method": "Symbolic(evaluation='c')",
    "prepare_seconds": 2.0,
    "gradient_seconds": 0.25,
    "backprop_seconds": 0.5,
}
BACKPROP = ROW | {"method": "Backprop('float64')", "prepare_seconds": 0.5, "gradient_seconds": 9.0}
DIFFERENCES = ROW | {"method": "FiniteDifference('central')", "prepare_seconds": 0.0, "gradient_seconds": 1.25}


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ((2.0, 0.25, 0.5, 0.5), 6),
        ((2.0, 0.25, 0.0, 1.25), 2),
        ((0.0, 1.0, 5.0, 2.0), 0),
        ((0.0, 1.0, 5.0, 1.0), math.inf),
    ],
)
def test_sums_are_the_other_way_round_from_there_on(times, expected):
    prepare, each, other_prepare, other_each = times
    assert gradients(*times) == expected
    if 0 < expected < math.inf:
        assert prepare + expected * each <= other_prepare + expected * other_each
        assert prepare + (expected - 1) * each > other_prepare + (expected - 1) * other_each


def test_backprop_is_taken_as_it_was_in_turns_and_differences_by_their_own_row():
    (row,) = found([DERIVED, BACKPROP, DIFFERENCES])
    assert (row["over_backprop"], row["over_differences"]) == (6, 2)


def test_rows_of_other_networks_and_batches_are_not_beside_it():
    others = [DIFFERENCES | {"batch": 8}, DIFFERENCES | {"network": "3-2-2"}]
    (row,) = found([DERIVED, *others])
    assert row["over_differences"] is None


def test_what_never_pays_off_and_what_was_not_measured_are_told_apart():
    slow = DERIVED | {"gradient_seconds": 0.75}
    text = "\n".join(lines([slow, BACKPROP]))
    assert f"| {break_even.NEVER} | — |" in text
    assert lines([BACKPROP, DIFFERENCES]) == []
