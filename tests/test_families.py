"""Families: networks that differ in one thing alone, found in rows."""

import io

from difflab.study import csv_rows
from difflab.study.families import families


USUAL = {"hidden": "tanh", "output": "identity", "loss": "softmax_cross_entropy", "scale": 1.0, "x_shift": 0.0}


def row(network="4-3-10", method="A()", **changes):
    return USUAL | {"network": network, "parameters": 55, "method": method, "status": "ok", "batch": 16} | changes


def found(*rows):
    return {(family.knob, family.name): list(family.members) for family in families(list(rows))}


def test_depth_is_how_many_hidden_layers_there_are_of_one_width():
    rows = [row("4-3-10"), row("4-3-3-3-10"), row("4-3-3-10")]
    assert found(*rows) == {("depth", "4-3-…-10 tanh"): ["1", "2", "3"]}


def test_width_is_that_of_all_hidden_layers():
    rows = [row("4-32-32-10"), row("4-2-2-10"), row("4-8-8-10")]
    assert found(*rows) == {("width", "4-n-n-10 tanh"): ["2", "8", "32"]}


def test_two_networks_are_no_family_and_neither_are_some_that_differ_twice():
    assert found(row("4-2-10"), row("4-8-10")) == {}
    assert found(row("4-2-10"), row("4-8-10"), row("4-32-10", hidden="relu")) == {}
    assert found(row("4-2-10"), row("4-8-10"), row("5-32-10")) == {}
    assert found(row("4-2-10"), row("4-8-10"), row("4-32-10", batch=17)) == {}
    assert found(row("4-2-3-10"), row("4-8-3-10"), row("4-32-3-10")) == {}


def test_a_network_may_belong_to_several_families():
    scales = [row(scale=scale) for scale in (16.0, 1.0, 4.0)]
    activations = [row(hidden=hidden) for hidden in ("softplus", "relu")]
    assert found(*scales, *activations) == {
        ("hidden", "4-3-10"): ["tanh", "softplus", "relu"],
        ("scale", "4-3-10 tanh"): ["1", "4", "16"],
    }


def test_networks_in_full_have_no_depth_but_a_place():
    layers = '[{"kind": "dense", "units": 3, "bias": false}, {"kind": "batchnorm"}, {"kind": "dense", "units": 10}]'
    rows = [row("4-3-batchnorm-10", layers=layers, hidden=None, x_shift=shift) for shift in (0.0, 1e2, 1e6)]
    assert found(*rows) == {("x_shift", "4 → 3 no bias → batchnorm → 10"): ["0", "100", "1e6"]}


def test_batches_of_their_own_are_a_family():
    rows = [row(batch=batch, own_batch=None if batch == 16 else batch) for batch in (16, 1, 128)]
    assert found(*rows) == {("batch", "4-3-10 tanh"): ["1", "16", "128"]}


def test_members_hold_the_rows_of_all_methods():
    rows = [row(scale=scale, method=method) for scale in (1.0, 4.0, 16.0) for method in ("A()", "B()")]
    (family,) = families(rows)
    assert {setting: [r["method"] for r in members] for setting, members in family.members.items()} == {
        setting: ["A()", "B()"] for setting in ("1", "4", "16")
    }


def test_rows_from_csv_are_of_the_same_families():
    rows = [row(scale=scale, layers=None) for scale in (1.0, 4.0, 16.0)] + [row("4-3-3-10"), row("4-3-3-3-10")]
    back = csv_rows.from_csv(io.StringIO(csv_rows.csv(rows)))
    assert found(*back) == found(*rows)
    assert len(found(*back)) == 2


def test_rows_that_say_little_are_of_no_family():
    assert families([{"network": f"{n}", "parameters": n, "method": "A()", "status": "ok"} for n in range(5)]) == []
