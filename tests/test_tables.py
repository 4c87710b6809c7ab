"""Tables: what is recorded is what is printed, in every format."""

import io

import pytest

from difflab.study import tables


ROWS = [
    {
        "network": "4-3-10",
        "parameters": 55,
        "method": "Backprop('float64')",
        "status": "ok",
        "error_relative": 4.1437e-16,
        "error_ulp_median": 2.31,
        "error_ulp_max": float("inf"),
        "worst_entry": "dense1.weight[0,1]",
        "prepare_seconds": 0.34,
        "gradient_seconds": 6e-5,
        "primal_seconds": 4e-5,
        "kernel_compile_seconds": 6.5,
        "loss_tree_ops": 10**30,
        "contended": True,
    },
    {"network": "64-32-10", "parameters": 2410, "method": "Symbolic()", "status": "refused", "reason": "forecast 9e99"},
]


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "—"), (0, "0"), (0.0, "0"), (55, "55"), (99_999, "99999"), (1_234_567, "1.2e6"), (10**30, "1.0e30")]
    + [(1630.2, "1630"), (0.0123456, "0.0123"), (123.456, "123"), (9999.7, "1.0e4"), (4.1437e-16, "4.1e-16")]
    + [(float("inf"), "inf"), (float("nan"), "nan"), (-2.5, "-2.5")],
)
def test_numbers_are_short(value, text):
    assert tables.number(value) == text


def test_ratios_are_derived_from_recorded_figures():
    shown = {column.title: column.text(ROWS[0]) for column in tables.columns(["speed"])}
    assert shown["÷ primal"] == "1.5"
    assert shown["÷ NumPy"] == "—"


def test_only_columns_of_the_measures_are_shown():
    titles = [column.title for column in tables.columns(["accuracy"])]
    assert "rel. error" in titles
    assert "gradient s" not in titles


def test_markdown_has_a_row_per_row_and_says_why_one_is_empty():
    text = tables.markdown("Why?", ["accuracy", "speed", "swell"], ROWS, "Measured here.")
    lines = text.splitlines()
    assert lines[0] == "**Why?**"
    table = [line for line in lines if line.startswith("|")]
    assert len(table) == 2 + len(ROWS)
    assert len({line.count("|") for line in table}) == 1
    assert "* 64-32-10 Symbolic(): refused, forecast 9e99" in lines
    assert "* Backprop('float64'): kernels compiled once for all networks in 6.5 s" in lines
    assert "* timed on a contended machine: 4-3-10 Backprop('float64')" in lines
    assert lines[-1] == "Measured here."


def test_latex_escapes_what_latex_would_read():
    text = tables.latex(["accuracy"], [ROWS[0] | {"worst_entry": "a_b & 50%"}])
    assert r"a\_b \& 50\%" in text
    assert text.count(r"\\") == 2
    assert r"\toprule" in text


def test_csv_is_exact():
    back = tables.from_csv(io.StringIO(tables.csv(ROWS)))
    assert back[0]["error_relative"] == ROWS[0]["error_relative"]
    assert back[0]["error_ulp_max"] == float("inf")
    assert back[1]["parameters"] == 2410
    assert "gradient_seconds" not in back[1]
    assert tables.markdown("?", ["accuracy", "speed"], back, "") == tables.markdown(
        "?", ["accuracy", "speed"], ROWS, ""
    )


def test_csv_runs_nothing_in_a_spreadsheet():
    assert "'=1+1" in tables.csv([{"network": "=1+1", "status": "ok"}])


def test_networks_that_differ_have_different_names():
    usual = {"network": "4-3-10", "hidden": "tanh", "output": "identity", "loss": "softmax_cross_entropy"}
    others = [usual | {"reduction": "sum"}, usual | {"output": "tanh"}, usual | {"loss": "squared_error"}]
    names = {tables.network_name(row) for row in [usual | {"reduction": "mean"}, *others]}
    assert len(names) == 4
    assert "4-3-10 tanh" in names


DENSE = '[{"kind": "dense", "units": 3, "activation": "tanh"}, {"kind": "dense", "units": 10}]'
BARE = '[{"kind": "dense", "units": 3}, {"kind": "dense", "units": 10}]'
SKIP = '[{"kind": "residual", "layers": [{"kind": "dense", "units": 4}]}, {"kind": "dense", "units": 10}]'


def test_networks_in_full_are_named_by_their_layers_and_what_is_not_usual():
    full = {"network": "4-3-10", "loss": "softmax_cross_entropy", "reduction": "mean", "hidden": None}
    full |= {"output": None, "l1": 0.0, "l2": 0.0, "label_smoothing": 0.0, "init": "glorot_uniform"}
    changes = [
        {}, {"layers": BARE}, {"layers": SKIP}, {"l1": 0.1}, {"l2": 0.1}, {"label_smoothing": 0.1},
        {"init": "he_normal"}, {"loss": "squared_error"}, {"reduction": "sum"},
    ]  # fmt: skip
    names = [tables.network_name(full | {"layers": DENSE} | change) for change in changes]
    assert names == [
        "4 → 3 tanh → 10", "4 → 3 → 10", "4 → res(4) → 10", "4 → 3 tanh → 10 l1 0.1", "4 → 3 tanh → 10 l2 0.1",
        "4 → 3 tanh → 10 label_smoothing 0.1", "4 → 3 tanh → 10 he_normal", "4 → 3 tanh → 10 squared_error",
        "4 → 3 tanh → 10 sum",
    ]  # fmt: skip


def test_rows_of_both_forms_come_back_from_csv_with_their_names():
    rows = [ROWS[0] | {"hidden": "tanh", "l2": 0.0}, ROWS[1] | {"layers": SKIP, "l2": 0.5}]
    back = tables.from_csv(io.StringIO(tables.csv(rows)))
    assert [tables.network_name(row) for row in back] == ["4-3-10 tanh", "64 → res(4) → 10 l2 0.5"]


@pytest.mark.parametrize("layers", ["[", "7", '[{"kind": "dense"}]', "[" * 100_000, '[{"kind": "__import__"}]'])
def test_layers_that_are_none_are_named(layers):
    with pytest.raises(ValueError, match="layers of 4-3-10 must be a list of layers"):
        tables.network_name({"network": "4-3-10", "layers": layers})


def test_arrows_of_names_are_latex():
    assert r"4 $\to$ 3 tanh $\to$ 10" in tables.latex([], [ROWS[0] | {"network": "4-3-10", "layers": DENSE}])
