"""What a network is shown as: figures beside ones computed by hand, and a picture with all that the program has."""

import itertools
import json
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

import pytest
from test_network_files import NETS

from difflab import MLP, BatchNorm, Dense, Dropout, Elementwise, Maxout, Multiply, Residual, Softmax, diagram, summary
from difflab.network_files import as_table, write_network


SVG = "{http://www.w3.org/2000/svg}"
DIGITS = MLP.dense([64, 32, 10])
MIXED = MLP(
    6,
    [
        Dense(6, "elu(0.5)", share="tied"),
        Dense(6, "tanh", share="tied"),
        Residual([BatchNorm(), Elementwise("prelu"), Dropout(0.25, seed=3), Dense(4, bias=False)], project=True),
        Residual([Dense(4, "relu"), Residual([Dense(4)])]),
        Maxout(6, 3),
        Multiply(2),
    ],
    loss="squared_error",
    l2=0.01,
)
PICTURED = NETS | {"digits": DIGITS, "mixed": MIXED}


def rows(net):
    return {row.name if row.name != "tied" else i: row for i, row in enumerate(summary.layer_rows(net))}


# --- figures


def test_parameters_and_multiply_adds_of_the_digits_network():
    """2 M N for every layer with bias [lecture notes 002, slide 12]: 2 * 32 * 64 and 2 * 10 * 32."""
    found = [(r.name, r.what, r.width, r.parameters, r.multiply_adds) for r in summary.layer_rows(DIGITS)]
    assert found == [
        ("dense1", "tanh", 32, 32 * 64 + 32, 4096),
        ("dense2", "", 10, 10 * 32 + 10, 640),
    ]
    assert summary.totals(DIGITS, summary.layer_rows(DIGITS))["multiply_adds"] == 4736
    assert summary.totals(DIGITS, summary.layer_rows(DIGITS))["parameters"] == 2410


def test_parameters_and_multiply_adds_of_a_network_of_many_kinds():
    found = {name: (r.width, r.parameters, r.shared, r.multiply_adds) for name, r in rows(MIXED).items()}
    assert found == {
        0: (6, 42, 0, 2 * 6 * 6),
        1: (6, 0, 42, 2 * 6 * 6),
        "residual1": (4, 24, 0, 2 * 4 * 6 - 4),
        "batchnorm1": (6, 12, 0, 0),
        "elementwise1": (6, 6, 0, 0),
        "dropout1": (6, 0, 0, 0),
        "dense3": (4, 24, 0, 2 * 4 * 6 - 4),
        "residual2": (4, 0, 0, 0),
        "dense4": (4, 20, 0, 2 * 4 * 4),
        "residual3": (4, 0, 0, 0),
        "dense5": (4, 20, 0, 2 * 4 * 4),
        "maxout1": (6, 6 * 3 * 4 + 6 * 3, 0, 2 * 18 * 4),
        "multiply1": (2, 0, 0, 0),
    }
    assert sum(row.parameters for row in summary.layer_rows(MIXED)) == MIXED.n_params


@pytest.mark.parametrize("net", PICTURED.values(), ids=PICTURED)
def test_every_parameter_is_counted_once(net):
    found = summary.layer_rows(net)
    assert sum(row.parameters for row in found) == net.n_params
    assert found[-1].width == net.n_outputs or found[-1].depth
    named = {parameter.name.partition(".")[0] for parameter in net.parameters}
    assert named <= {row.name for row in found}


def test_layers_within_layers_say_so():
    assert [row.depth for row in summary.layer_rows(MIXED)] == [0, 0, 0, 1, 1, 1, 1, 0, 1, 1, 2, 0, 0]


def test_layers_are_described_in_words():
    whats = {name: row.what for name, row in rows(MIXED).items()}
    assert whats[0] == "elu(0.5), share tied"
    assert whats["dropout1"] == "p 0.25, seed 3"
    assert whats["dense3"] == "no bias"
    assert whats["residual1"] == "project"
    assert whats["maxout1"] == "pieces 3"


def test_the_program_is_listed_with_what_it_reads():
    first, second, third, fourth = summary.step_rows(DIGITS.program)
    assert (first.value, first.operation, first.reads) == ("v2", "affine", ("x",))
    assert (first.parameters, first.width) == (("dense1.weight", "dense1.bias"), 32)
    assert (second.value, second.function, second.reads) == ("v3", "tanh", ("v2",))
    assert (fourth.function, fourth.reads, fourth.width) == ("softmax_cross_entropy", ("v4", "y"), 1)
    dropout = next(row for row in summary.step_rows(MIXED.program) if row.operation == "dropout")
    assert dropout.reads[1] == "mask 1"
    assert summary.function_text(dropout) == "p 0.25"


CONSTANTS = {
    "a constant of the function": ([Elementwise("elu(0.5)")], "elu, alpha 0.5"),
    "a learnable one is a parameter": ([Elementwise("prelu(0.5)")], "prelu"),
    "one number": ([BatchNorm(eps=0.5)], "eps 0.5"),
    "a number for each unit": ([BatchNorm((1, 2, 0.5), (4, 5, 6), eps=0.5)], "eps 0.5, mean 1 2 0.5, variance 4 5 6"),
    "a number for one unit": ([Multiply(1), BatchNorm((1,), (4,), eps=0.5)], "eps 0.5, mean 1, variance 4"),
    "none": ([Softmax()], ""),
}


@pytest.mark.parametrize("case", CONSTANTS)
def test_an_instruction_says_its_constants_by_their_names(case):
    layers, said = CONSTANTS[case]
    *_, last, _ = summary.step_rows(MLP(3, layers, "squared_error").program)
    assert summary.function_text(last) == said


def test_smoothing_and_penalties_say_their_constants():
    found = summary.step_rows(MLP(3, [Dense(3)], label_smoothing=0.25, l1=2, l2=0.5).program)
    assert [summary.function_text(row) for row in found] == [
        *("", "s 0.25, classes 3", "softmax_cross_entropy", "l1 2, l2 0.5"),
    ]


def test_many_numbers_are_told_from_others_by_a_digest():
    net = MLP(5, [BatchNorm((1,) * 5, (4,) * 5)], "squared_error")
    text = summary.function_text(summary.step_rows(net.program)[0])
    assert re.fullmatch(r"eps 1e-05, mean of 5 numbers #\w{8}, variance of 5 numbers #\w{8}", text)


def test_a_network_in_short_counts_what_repeats_and_tells_networks_apart():
    def short(net):
        return summary.in_short(net.n_inputs, as_table(net)["layers"])

    assert short(NETS["long"]) == "3 → 3 tanh ×60"
    assert short(MIXED).endswith("res(4 relu → res(4)) → maxout 6 pieces 3 → multiply 2")
    apart = [*NETS.values(), *(MLP(8, [BatchNorm((0.1,) * 8, (k,) * 8)]) for k in (1.0, 2.0))]
    layers = [(net.n_inputs, net.layers) for net in apart]
    assert len({short(net) for net in apart}) == len(set(layers))


# --- the picture


def drawn(net):
    return ElementTree.fromstring(diagram.svg(net))


def box_of(group):
    return {name: float(group.find(f"{SVG}rect").get(name)) for name in ("x", "y", "width", "height")}


@pytest.mark.parametrize("net", PICTURED.values(), ids=PICTURED)
def test_a_picture_has_a_box_for_every_value_and_an_arrow_for_every_read(net):
    root = drawn(net)
    boxes = [group.get("id") for group in root.iter(f"{SVG}g") if group.get("class") == "instruction"]
    assert boxes == [row.value for row in summary.step_rows(net.program)]
    given = [group.get("id") for group in root.iter(f"{SVG}g") if group.get("class") == "given"]
    assert sorted(given) == sorted(["x", "y", *(f"mask{i + 1}" for i in range(len(net.program.masks)))])
    arrows = [(p.get("data-from"), p.get("data-to")) for p in root.iter(f"{SVG}path") if p.get("class") == "read"]
    assert sorted(arrows) == sorted((name, row.value) for row in summary.step_rows(net.program) for name in row.reads)


@pytest.mark.parametrize("net", PICTURED.values(), ids=PICTURED)
def test_boxes_stand_in_order_within_the_picture_and_nothing_runs_through_them(net):
    root = drawn(net)
    width, height = (float(part) for part in root.get("viewBox").split()[2:])
    boxes = [box_of(group) for group in root.iter(f"{SVG}g")]
    assert all(b["x"] >= 0 and b["x"] + b["width"] <= width and b["y"] + b["height"] <= height for b in boxes)
    for one, other in itertools.combinations(boxes, 2):
        assert not (overlap(one, other, "x", "width") and overlap(one, other, "y", "height"))
    for path in root.iter(f"{SVG}path"):
        if path.get("class") == "read":
            for box, (x, y) in itertools.product(boxes, points(path.get("d"))):
                inside_x = box["x"] < x < box["x"] + box["width"]
                assert not (inside_x and box["y"] < y < box["y"] + box["height"])


@pytest.mark.parametrize("net", PICTURED.values(), ids=PICTURED)
def test_texts_fit_their_boxes(net):
    """By the width of a character in DejaVu Sans at this size, 7.1 on average."""
    for group in drawn(net).iter(f"{SVG}g"):
        box, lines = box_of(group), {}
        for text in group.iter(f"{SVG}text"):
            lines.setdefault(text.get("y"), []).append("".join(text.itertext()))
        assert all(7.1 * len(" ".join(parts)) < box["width"] - 8 for parts in lines.values())


def overlap(one, other, start, size):
    return one[start] < other[start] + other[size] and other[start] < one[start] + one[size]


def points(d):
    """A point every few pixels along a path of straight lines; corners count by their ends."""
    x = y = 0.0
    for command, numbers in re.findall(r"([MHVQ])([^MHVQ]*)", d):
        values = [float(number) for number in numbers.split()]
        to = {"M": values, "Q": values[-2:], "H": [values[0], y], "V": [x, values[0]]}[command]
        steps = 1 if command in "MQ" else max(1, round(abs(to[0] - x) + abs(to[1] - y)) // 3)
        yield from ((x + (to[0] - x) * k / steps, y + (to[1] - y) * k / steps) for k in range(1, steps + 1))
        x, y = to


def test_curves_do_not_lie_on_one_another():
    root = drawn(MIXED)
    lanes = [
        (float(found[1]), float(found[2]), float(found[3]))
        for path in root.iter(f"{SVG}path")
        if (found := re.search(r"Q([\d.]+) [\d.]+ [\d.]+ ([\d.]+) V([\d.]+)", path.get("d")))
    ]
    assert len(lanes) >= 3
    for (lane, top, bottom), (other, start, end) in itertools.combinations(lanes, 2):
        assert lane != other or bottom < start or end < top


def test_shared_parameters_have_their_colour_and_others_do_not():
    texts = {span.text.split(" ")[0]: span.get("fill") for span in drawn(MIXED).iter(f"{SVG}tspan")}
    assert texts["tied.weight"] == texts["tied.bias"] == diagram.SHARED
    assert texts["dense4.weight"] is None


def test_texts_are_escaped_and_equal_networks_give_equal_bytes():
    net = MLP(2, [Dense(2, "\x0celu( 2 )\n", share="größe")])
    assert "größe.weight" in "".join(drawn(net).itertext())
    assert diagram.svg(net) == diagram.svg(MLP(2, net.layers))


# --- the command


def difflab(directory, *arguments):
    command = [sys.executable, "-m", "difflab", *map(str, arguments)]
    return subprocess.run(command, cwd=directory, capture_output=True, text=True)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    directory = tmp_path_factory.mktemp("shown")
    write_network(MIXED, directory / "mixed.toml")
    (directory / "digits.json").write_text('{"widths": [64, 32, 10], "init": "he_normal", "data": "digits-8x8"}')
    return directory


def test_show_prints_layers_terms_and_program(place):
    shown = difflab(place, "show", "mixed.toml")
    assert (shown.returncode, shown.stderr) == (0, "")
    lines = [" ".join(line.split()) for line in shown.stdout.splitlines()]
    assert "tied dense tanh, share tied 6 42 72" in lines
    assert "maxout1 maxout pieces 3 6 90 144" in lines
    assert "l2 0.01" in lines
    assert "init glorot_uniform" in lines
    assert any(line.startswith("v3 affine x tied.weight 6×6, tied.bias 6 6") for line in lines)
    assert any(line.startswith(f"total {MIXED.n_params} ") for line in lines)
    assert "\x1b" not in shown.stdout


def test_show_forecasts_what_it_would_take_to_derive(place):
    lines = [" ".join(line.split()) for line in difflab(place, "show", "digits.json").stdout.splitlines()]
    assert any(re.match(r"Symbolic\('none'\) \d", line) for line in lines)
    assert any(re.match(r"Symbolic\('during', order='forward'\) \d", line) for line in lines)
    ahead = json.loads(difflab(place, "show", "digits.json", "--json").stdout)["to_derive"]
    assert ahead["Symbolic('none')"]["forecast_tree_ops"] > ahead["Symbolic('during')"]["forecast_ops"] > 0


def test_what_couples_samples_has_no_forecast(tmp_path):
    write_network(MLP(2, [BatchNorm(), Dense(2)]), tmp_path / "net.json")
    assert json.loads(difflab(tmp_path, "show", "net.json", "--json").stdout)["to_derive"] == {}
    assert "to derive" not in difflab(tmp_path, "show", "net.json").stdout


def test_show_as_json_is_one_document(place):
    document = json.loads(difflab(place, "show", "digits.json", "--json").stdout)
    assert document["schema"] == "difflab.network/1"
    assert (document["label"], document["init"], document["data"]) == ("64-32-10", "he_normal", "digits-8x8")
    assert document["totals"] == {"parameters": 2410, "multiply_adds": 4736, "loss_ops": 4831, "gradient_ops": 8143}
    assert [row["multiply_adds"] for row in document["layers"]] == [4096, 640]
    assert [row["reads"] for row in document["program"]] == [["x"], ["v2"], ["v3"], ["v4", "y"]]
    assert document["parameters"][0] == {"name": "dense1.weight", "offset": 0, "shape": [32, 64]}


def test_show_draws_where_it_is_told(place):
    shown = difflab(place, "show", "mixed.toml", "--svg", "out/mixed.svg", "--json")
    assert json.loads(shown.stdout)["label"] == MIXED.label
    assert shown.stderr == "written to out/mixed.svg\n"
    assert (place / "out" / "mixed.svg").read_bytes() == diagram.svg(MIXED)


def test_show_is_in_the_help(place):
    assert re.search(r"^  show +Show what a NETWORK is made of", difflab(place, "--help").stdout, re.MULTILINE)


@pytest.mark.parametrize(
    ("text", "code", "word"),
    [("inputs = 1\nlayers = [{kind = 'dens'}]\n", 3, "did you mean 'dense'?"), (None, 2, "does not exist")],
)
def test_mistakes_get_one_sentence(place, text, code, word):
    if text:
        (place / "bad.toml").write_text(text)
    shown = difflab(place, "show", "bad.toml" if text else "nosuch.toml")
    assert (shown.returncode, shown.stdout) == (code, "")
    assert word in shown.stderr
    assert "Traceback" not in shown.stderr
