"""Tables: what is recorded is what is printed, in every format."""

import io

import pytest

from difflab.study import columns, csv_rows, names, tables


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
    assert columns.number(value) == text


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
    assert "* Backprop('float64'): kernels compiled before cells ran, in 6.5 s" in lines
    assert "* timed on a contended machine: 4-3-10 Backprop('float64')" in lines
    assert lines[-1] == "Measured here."


def test_latex_escapes_what_latex_would_read():
    text = tables.latex(["accuracy"], [ROWS[0] | {"worst_entry": "a_b & 50%"}])
    assert r"a\_b \& 50\%" in text
    assert text.count(r"\\") == 2
    assert r"\toprule" in text


def test_csv_is_exact():
    back = csv_rows.from_csv(io.StringIO(csv_rows.csv(ROWS)))
    assert back[0]["error_relative"] == ROWS[0]["error_relative"]
    assert back[0]["error_ulp_max"] == float("inf")
    assert back[1]["parameters"] == 2410
    assert "gradient_seconds" not in back[1]
    assert tables.markdown("?", ["accuracy", "speed"], back, "") == tables.markdown(
        "?", ["accuracy", "speed"], ROWS, ""
    )


def test_csv_runs_nothing_in_a_spreadsheet():
    assert "'=1+1" in csv_rows.csv([{"network": "=1+1", "status": "ok"}])


def test_networks_that_differ_have_different_names():
    usual = {"network": "4-3-10", "hidden": "tanh", "output": "identity", "loss": "softmax_cross_entropy"}
    others = [usual | {"reduction": "sum"}, usual | {"output": "tanh"}, usual | {"loss": "squared_error"}]
    found = {names.network_name(row) for row in [usual | {"reduction": "mean"}, *others]}
    assert len(found) == 4
    assert "4-3-10 tanh" in found


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
    found = [names.network_name(full | {"layers": DENSE} | change) for change in changes]
    assert found == [
        "4 → 3 tanh → 10", "4 → 3 → 10", "4 → res(4) → 10", "4 → 3 tanh → 10 l1 0.1", "4 → 3 tanh → 10 l2 0.1",
        "4 → 3 tanh → 10 label_smoothing 0.1", "4 → 3 tanh → 10 he_normal", "4 → 3 tanh → 10 squared_error",
        "4 → 3 tanh → 10 sum",
    ]  # fmt: skip


def test_rows_of_both_forms_come_back_from_csv_with_their_names():
    rows = [ROWS[0] | {"hidden": "tanh", "l2": 0.0}, ROWS[1] | {"layers": SKIP, "l2": 0.5}]
    back = csv_rows.from_csv(io.StringIO(csv_rows.csv(rows)))
    assert [names.network_name(row) for row in back] == ["4-3-10 tanh", "64 → res(4) → 10 l2 0.5"]


@pytest.mark.parametrize("layers", ["[", "7", '[{"kind": "dense"}]', "[" * 100_000, '[{"kind": "__import__"}]'])
def test_layers_that_are_none_are_named(layers):
    with pytest.raises(ValueError, match="layers of 4-3-10 must be a list of layers"):
        names.network_name({"network": "4-3-10", "layers": layers})


def test_arrows_of_names_are_latex():
    assert r"4 $\to$ 3 tanh $\to$ 10" in tables.latex([], [ROWS[0] | {"network": "4-3-10", "layers": DENSE}])


ESTIMATES = {
    "network": "4-3-10",
    "parameters": 50,
    "method": "Numdifftools()",
    "status": "ok",
    "library": "numdifftools 0.11.2",
    "judged_entries": 40,
    "silent_entries": 10,
    "undecided_entries": 0,
    "understated_entries": 10,
    "reported_to_true_min": 0.0,
    "reported_to_true_median": 3.5,
    "true_error_relative_median": 1e-12,
    "primal_calls": 3101,
    "raised": "10 entries, first dense1.bias[0]: ValueError: no",
}


def shown(row, measures=("error_estimates",)):
    return {column.title: column.text(row) for column in tables.columns(measures)}


def test_error_estimates_are_shares_of_what_is_judged():
    found = shown(ESTIMATES)
    assert (found["entries"], found["understated %"], found["silent %"]) == ("40", "25", "20")
    assert (found["reported ÷ true, median"], found["primal calls"]) == ("3.5", "3101")
    assert (found["flagged %"], found["of converged %"]) == (columns.MISSING, columns.MISSING)
    flagged = {"flagged_entries": 5, "converged_entries": 36, "converged_understated_entries": 9}
    assert (shown(ESTIMATES | flagged)["flagged %"], shown(ESTIMATES | flagged)["of converged %"]) == ("10", "25")


@pytest.mark.parametrize(("ratio", "text"), [(0.0, "inf"), (0.25, "4"), (float("inf"), "0"), (None, columns.MISSING)])
def test_the_worst_estimate_is_one_even_where_no_error_is_reported(ratio, text):
    assert shown(ESTIMATES | {"reported_to_true_min": ratio})["true ÷ reported, worst"] == text


def test_error_estimates_come_back_from_csv_as_they_were():
    rows = [ESTIMATES | {"reported_to_true_max": float("inf")}, ROWS[1]]
    back = csv_rows.from_csv(io.StringIO(csv_rows.csv(rows)))
    assert back[0] == rows[0]
    assert "judged_entries" not in back[1]
    written = [tables.markdown("?", ["error_estimates"], some, "") for some in (rows, back)]
    assert written[0] == written[1]
    assert "* Numdifftools(): numdifftools 0.11.2" in written[0]
    assert "raised errors at 10 entries, first dense1.bias[0]: ValueError: no" in written[0]
    assert "understated: the error it reports is smaller than the true one" in written[0]


def test_primal_calls_are_shown_once():
    titles = [column.title for column in tables.columns(["speed", "error_estimates"])]
    assert titles.count("primal calls") == 1
    assert "primal calls" not in [column.title for column in tables.columns(["accuracy"])]


TRUTH_ROW = {
    "network": "4-3-10",
    "parameters": 55,
    "method": "Backprop('float32')",
    "status": "ok",
    "dtype": "float32",
    "error_relative": 3 * 2.0**-24,
    "error_ulp_median": 1.0,
    "error_ulp_p99": 20.0,
    "error_ulp_max": 300.0,
    "error_per_bound_max": 0.125,
    "bound_per_error_median": 64.0,
    "condition": 12.0,
}


def test_errors_are_shown_by_condition_in_the_unit_roundoff_of_their_own_dtype():
    found = shown(TRUTH_ROW, ("accuracy", "condition"))
    assert (found["condition"], found["error ÷ κu"]) == ("12", "0.25")
    assert (
        shown(TRUTH_ROW | {"dtype": "float64", "error_relative": 6 * 2.0**-53}, ("condition",))["error ÷ κu"] == "0.5"
    )
    for unknown in ({"condition": None}, {"error_relative": None}):
        assert shown(TRUTH_ROW | unknown, ("condition",))["error ÷ κu"] == columns.MISSING
    assert (found["ulp p99"], found["error ÷ bound, max"], found["bound ÷ error, median"]) == ("20", "0.125", "64")


def test_columns_can_be_left_out_with_what_explains_them():
    whole = tables.markdown("?", ["accuracy"], [TRUTH_ROW], "")
    less = tables.markdown("?", ["accuracy"], [TRUTH_ROW], "", without=("ulp p99", "error ÷ bound, max"))
    for word in ("ulp p99", "error ÷ bound"):
        assert word in whole
        assert word not in less
    assert "rel. error: norm" in less


def test_the_legend_explains_what_is_shown_and_nothing_else():
    said = tables.legend(tables.columns(["accuracy"]), [TRUTH_ROW])
    assert sum(map(len, said)) < sum(map(len, tables.LEGEND.values()))
    assert tables.PLACES not in said
    assert tables.PLACES in tables.legend(tables.columns(["accuracy"]), [TRUTH_ROW | {"scale": 4.0}])
    assert set(tables.LEGEND) <= {column.title for column in tables.COLUMNS}


def agreeing(method, other, **changes):
    found = {"falsely_agreeing_entries": 5, "agreement_ulp": 1.0, "agreement_error_ulp": 8.07e13}
    found |= {"agreement_entry": "dense1.bias[0]", "agreement_got": -3.5e-15, "agreement_truth": -3.45e-15}
    return TRUTH_ROW | {"method": method, "agrees_with": other} | found | changes


def test_every_two_methods_that_agree_where_neither_is_right_are_a_row():
    """Once, in whichever order, for every network; those that agree on what is right are none."""
    rows = [
        agreeing("Symbolic()", "Handwritten()"),
        agreeing("Handwritten()", "Symbolic()"),
        agreeing("Handwritten()", "Symbolic()", scale=64.0),
        agreeing("A()", "B()", falsely_agreeing_entries=0),
        TRUTH_ROW,
    ]
    lines = tables.agreements(rows)
    assert lines[2:] == [
        "| 4-3-10 | Symbolic() | Handwritten() | 1 | 8.1e13 | dense1.bias[0] | -3.50e-15 | -3.45e-15 |",
        "| 4-3-10 scale 64 | Handwritten() | Symbolic() | 1 | 8.1e13 | dense1.bias[0] | -3.50e-15 | -3.45e-15 |",
    ]
    text = tables.markdown("?", ["accuracy", "agreement"], rows, "")
    assert "\n".join(lines) in text
    assert "falsely agreeing: entries" in text
    assert tables.agreements(rows[3:]) == ["No two methods agree where neither is right."]
    assert tables.agreements(csv_rows.from_csv(io.StringIO(csv_rows.csv(rows)))) == lines


CERTIFIED = {
    "network": "64-32-10",
    "parameters": 2410,
    "method": "Certified()",
    "status": "ok",
    "gradient_seconds": 0.9,
    "backprop_seconds": 1e-3,
    "loaded_bytes": 80_000_000,
    "peak_bytes": 250_000_000,
    "rounded_entries": 669_706,
    "enclosed_entries": 10,
    "kink_entries": 0,
    "certificate_seconds": 1.5,
    "certificate_detects": 4e-29,
}


def test_what_certainty_costs_is_in_one_row():
    found = shown(CERTIFIED, ("speed", "certificate"))
    assert [found[title] for title in ("÷ backprop", "peak MB", "rounded", "enclosed", "kink", "detects")] == [
        "900", "250", "669706", "10", "0", "4.0e-29",
    ]  # fmt: skip
    assert "÷ backprop" not in shown(CERTIFIED, ("speed",))


def test_a_batch_of_its_own_is_in_the_name():
    rows = [TRUTH_ROW | {"own_batch": 1797, "batch": 1797}, TRUTH_ROW | {"batch": 16}]
    back = csv_rows.from_csv(io.StringIO(csv_rows.csv(rows)))
    assert [names.network_name(row) for row in back] == ["4-3-10 batch 1797", "4-3-10"]


def test_names_say_where_a_network_is_differentiated():
    usual = {"network": "4-3-10", "hidden": "tanh", "scale": 1.0, "x_shift": 0.0, "y_shift": 0.0}
    changes = [{}, {"scale": 20.0}, {"x_shift": -0.5}, {"y_shift": 1e6}]
    assert [names.network_name(usual | change) for change in changes] == [
        "4-3-10 tanh", "4-3-10 tanh scale 20", "4-3-10 tanh x_shift -0.5", "4-3-10 tanh y_shift 1e+06",
    ]  # fmt: skip


CONTEST = {
    "network": "4-8-8-3",
    "hidden": "tanh",
    "parameters": 139,
    "method": "Jax('float64')",
    "status": "ok",
    "dtype": "float64",
    "threads": 1,
    "gradient_seconds": 5e-5,
    "primal_seconds": 2e-5,
    "backprop_seconds": 5e-6,
    "ratio": 10.2,
    "ratio_low": 9.9,
    "ratio_high": 10.5,
    "first_call_seconds": 1.5,
    "peak_bytes": 250_000_000,
    "rounds": 41,
}
SLOWER = {"method": "Casadi()", "ratio": 0.5, "ratio_low": 0.4, "ratio_high": 0.6}


def test_a_contest_shows_how_many_times_faster_backprop_is():
    found = shown(CONTEST, ("contest",))
    assert [found[title] for title in ("÷ primal", "÷ backprop", "interval", "first call s", "process MB")] == [
        "2.5", "10.2", "9.9 … 10.5", "1.5", "250",
    ]  # fmt: skip
    refused = shown({"network": "4-3", "parameters": 1, "method": "Casadi()", "status": "refused"}, ("contest",))
    assert (refused["÷ backprop"], refused["interval"]) == (columns.MISSING, columns.MISSING)


def test_the_fastest_other_of_every_network_dtype_and_number_of_threads_is_found():
    rows = [
        CONTEST,
        CONTEST | SLOWER,
        CONTEST | {"dtype": "float32"},
        CONTEST | {"threads": 2, "ratio": 1.01, "ratio_low": 0.99, "ratio_high": 1.02},
        CONTEST | {"method": "Backprop('float64')", "ratio": 0.1},
        CONTEST | {"method": "Torch('float64')", "status": "wrong", "ratio": None},
        {"network": "4-8-8-3", "parameters": 139, "method": "Casadi('float32')", "status": "refused"},
    ]
    lines = tables.fastest_others(rows)[2:]
    assert [line.split(" | ")[1:4] + line.removesuffix(" |").split(" | ")[-2:] for line in lines] == [
        ["float64", "1", "Casadi()", "Backprop is slower", "Torch('float64') wrong"],
        ["float32", "1", "Jax('float64')", "Backprop is faster", "—"],
        ["float64", "2", "Jax('float64')", "no difference", "—"],
    ]
    assert "\n".join(lines) in tables.markdown("?", ["contest"], rows, "")
    assert tables.fastest_others(csv_rows.from_csv(io.StringIO(csv_rows.csv(rows))))[2:] == lines
    assert tables.fastest_others(rows[4:]) == ["No other method could be timed."]


def test_shares_of_the_roofline_are_in_percent():
    row = {"floor_fraction": 0.8, "roofline_fraction": 0.5, "gemm_flops_per_second": 6e10}
    found = shown(CONTEST | row, ("roofline",))
    assert [found[title] for title in ("of floor %", "of roofline %", "BLAS GFLOP/s")] == ["80", "50", "60"]


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("64-32-10", "64-32-10"),
        ("64-" + "32-" * 8 + "10", "64-" + "32-" * 8 + "10"),
        ("64-" + "32-" * 16 + "10", "64-(32×16)-10"),
    ],
)
def test_many_equal_widths_in_a_row_are_counted(label, name):
    assert names.network_name({"network": label}) == name
