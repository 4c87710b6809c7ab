"""Network files: every kind of layer there and back in both formats, and every mistake with its line."""

import json
import math
import re

import numpy as np
import pytest

import difflab as dl
from difflab import MLP, BatchNorm, Dense, Dropout, Elementwise, Maxout, Multiply, Residual, Softmax
from difflab.documents import MAX_FILE_BYTES, InvalidFile, parse
from difflab.layers import KINDS, MAX_DEPTH
from difflab.network import MAX_LAYERS
from difflab.network_files import Network, read_declaration, read_network, write_network


def nested(depth):
    layer = Residual([Dense(3, "tanh")])
    for _ in range(depth - 1):
        layer = Residual([layer])
    return layer


NETS = {
    "dense": MLP.dense([4, 3, 2]),
    "terms": MLP.dense([4, 3, 2], loss="kl_divergence", output="sigmoid", reduction="sum"),
    "penalties": MLP(2, [Dense(2)], l1=1e-300, l2=0.1 + 0.2, label_smoothing=1 / 3),
    "activations": MLP(2, [Dense(3, "elu(0.5)"), Dense(3, " leaky_relu( 1e-3 ) "), Dense(2, "prelu(0.1)")]),
    "bias and share": MLP(3, [Dense(3, "tanh", share="tied"), Dense(3, share="tied"), Dense(2, bias=False)]),
    "maxout": MLP(3, [Maxout(4, 3, share="größe"), Maxout(2)]),
    "elementwise": MLP(3, [Elementwise("swish(2)", per_unit=False), Dense(2), Elementwise("tanh")]),
    "softmax": MLP(3, [Dense(2), Softmax()], loss="binary_cross_entropy"),
    "multiply": MLP(6, [Multiply(3), Dense(2)]),
    "batch norm": MLP(2, [BatchNorm(eps=5e-324), BatchNorm((0.1, -1e300), (math.pi, 0.0)), Dense(1)]),
    "dropout": MLP(3, [Dropout(1 / 3, seed=2**70), Dropout(0.0, training=False), Dense(2)]),
    "residual": MLP(
        3, [Residual([Dropout(0.1, seed=0), Dense(5), Residual([Dense(5, "relu")])], project=True), Dense(2)]
    ),
    "deep": MLP(3, [nested(MAX_DEPTH)]),
    "initialisation": MLP(3, [Dense(2)], initialisation="he_normal"),
    "long": MLP(3, [Dense(3, "tanh")] * 60),
}


@pytest.fixture
def file(tmp_path):
    def write(text, name="net.toml"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def problems_of(path):
    with pytest.raises(InvalidFile) as raised:
        read_network(path)
    return [(problem.line, problem.message) for problem in raised.value.problems]


# --- there and back


@pytest.mark.parametrize("suffix", ["toml", "json"])
@pytest.mark.parametrize("net", NETS.values(), ids=NETS)
def test_a_network_comes_back_as_it_was_written(tmp_path, net, suffix):
    write_network(net, tmp_path / f"net.{suffix}")
    back = read_network(tmp_path / f"net.{suffix}")
    assert back == net
    assert repr(back) == repr(net)


def test_every_kind_of_layer_is_among_them():
    def kinds(layers):
        return {type(layer) for layer in layers} | {k for layer in layers for k in kinds(getattr(layer, "layers", ()))}

    assert set().union(*(kinds(net.layers) for net in NETS.values())) == set(KINDS.values())


def test_a_path_may_be_text_and_defaults_are_left_out(tmp_path):
    write_network(NETS["dense"], str(tmp_path / "net.json"))
    assert json.loads((tmp_path / "net.json").read_text()) == {
        "inputs": 4,
        "layers": [{"kind": "dense", "units": 3, "activation": "tanh"}, {"kind": "dense", "units": 2}],
    }
    assert read_network(str(tmp_path / "net.json")) == NETS["dense"]


def test_only_formats_that_can_be_read_are_written(tmp_path):
    with pytest.raises(ValueError, match=re.escape("must end with .toml or .json, got 'net.yaml'")):
        write_network(NETS["dense"], tmp_path / "net.yaml")
    assert list(tmp_path.iterdir()) == []


# --- the two forms


def test_widths_are_short_for_layers(file):
    text = 'widths = [4, 3, 2]\nhidden = "relu"\nloss = "squared_error"\nreduction = "sum"\nl2 = 0.5\n'
    short = read_network(file(text))
    layers = 'layers = [{ kind = "dense", units = 3, activation = "relu" }, { kind = "dense", units = 2 }]\n'
    assert short == read_network(file("inputs = 4\n" + layers + text.partition('"relu"\n')[2]))
    assert short == MLP(4, [Dense(3, "relu"), Dense(2)], "squared_error", "sum", l2=0.5)


def test_a_declaration_says_how_to_start_and_which_data_to_read(file):
    declared = read_declaration(file('widths = [4, 10]\ninit = "he_normal"\ndata = "digits-2x2"\n'))
    assert (declared.init, declared.data) == ("he_normal", "digits-2x2")
    assert (declared.hidden, declared.output) == ("tanh", "identity")


@pytest.mark.parametrize("form", ["widths = [4, 10]", 'inputs = 4\nlayers = [{ kind = "dense", units = 10 }]'])
def test_a_network_is_initialised_as_its_file_says(file, form):
    net = read_network(file(f'init = "he_normal"\n{form}\n'))
    assert net == MLP(4, [Dense(10)], initialisation="he_normal")
    assert (net.init(5) == MLP(4, [Dense(10)]).init(5, "he_normal")).all()


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({}, "widths is required, or inputs and layers"),
        ({"widths": [1, 1], "inputs": 1}, "inputs has no place beside widths"),
        ({"inputs": 1}, "layers is required beside inputs"),
        ({"inputs": 1, "layers": (Dense(1),), "hidden": "tanh"}, "hidden has no place beside inputs"),
    ],
)
def test_a_declaration_in_python_has_one_form_too(fields, word):
    with pytest.raises(ValueError, match=word):
        Network(**fields)


# --- mistakes

GOOD = """inputs = 4
loss = "squared_error"
layers = [
    { kind = "dense", units = 3, activation = "tanh" },
    { kind = "residual", layers = [
        { kind = "dropout", p = 0.5, seed = 1 },
        { kind = "dense", units = 3 },
    ] },
    { kind = "dense", units = 2 },
]
"""

MISTAKES = [
    ("inputs = 4", "", 3, "inputs is required beside layers; add inputs = ..."),
    ("inputs = 4", "widths = [4, 2]", 3, "layers has no place beside widths; write widths, or inputs and layers"),
    ("inputs = 4", "inputs = 0", 1, "inputs must be from 1 to 1000000, got 0"),
    ("inputs = 4", "inputs = 4.0", 1, "inputs: Expected `int | null`, got `float`, got 4.0"),
    ("inputs = 4", "inputs = 4\nhidden = 'relu'", 2, "hidden has no place beside inputs; give layers their activation"),
    ("inputs = 4", "inpts = 4", 1, "top level: unknown field 'inpts'"),
    ("inputs = 4", "inputs = 4\nl2 = -1", 2, "l2 must be a number from 0"),
    ("inputs = 4", "inputs = 4\nl2 = nan", 2, "l2 must be a number from 0"),
    ("inputs = 4", "inputs = 4\nlabel_smoothing = 0.1", 2, "label_smoothing must be 0 for squared_error"),
    ("inputs = 4", "inputs = 4\ndata = 'digits-2x2'", 4, "must start with 4 and end with 10 for digits-2x2, got 4-3"),
    ("squared_error", "squred_error", 2, "loss: unknown loss 'squred_error'; known: "),
    ("squared_error", "binary_cross_entropy", 2, "binary_cross_entropy takes probabilities"),
    ('"tanh"', '"tahn"', 4, "layers[0]: unknown activation 'tahn'"),
    ('"tanh"', '"tanh(2)"', 4, "activation 'tanh' takes no parameter"),
    ('"tanh"', '"elu(two)"', 4, "alpha of elu must be a finite number"),
    ("units = 3, ", "", 4, "layers[0].units is required; add units = ..."),
    ("units = 3, ", 'units = "3", ', 4, "layers[0].units: Expected `int`, got `str`, got '3'"),
    ("units = 3, ", "units = true, ", 4, "layers[0].units: Expected `int`, got `bool`"),
    ('kind = "dropout"', 'kind = "dropot"', 6, "unknown kind 'dropot'; known: batchnorm"),
    ('kind = "dropout"', "kind = 7", 6, "layers[1].layers[0]: unknown kind 7"),
    ('kind = "dropout", ', "", 6, "layers[1].layers[0].kind is required; known: batchnorm"),
    ("p = 0.5", "p = 1", 6, "layers[1].layers[0]: p of Dropout must be from 0 to below 1, got 1.0"),
    ("p = 0.5", "p = nan", 6, "p of Dropout must be finite, got nan"),
    ("p = 0.5, seed = 1", "p = 0.5", 6, "layers[1].layers[0]: seed of Dropout must be given in training, got none"),
    ("p = 0.5", "prob = 0.5", 6, "layers[1].layers[0]: unknown field 'prob'; known: p, seed, training"),
    ('"squared_error"', '"squared_error"\ninit = "he"', 3, "init: unknown initialisation 'he'; known: glorot_normal"),
    (
        'kind = "dropout", p = 0.5, seed = 1',
        'kind = "multiply", units = 2',
        6,
        "layers[1].layers[0]: units of Multiply",
    ),
    ("units = 3 }", "units = 4 }", 5, "layers[1]: the layers of Residual must keep its width of 3, got 4"),
    (
        '{ kind = "dense", units = 2 }',
        '{ kind = "multiply", units = 2 }',
        9,
        "layers[2]: units of Multiply must divide",
    ),
    ('{ kind = "dense", units = 2 }', '"dense"', 9, "layers[2] must be a table, got str; write [[layers]] or {...}"),
    ('{ kind = "dense", units = 2 }', '{ kind = "batchnorm", mean = [1] }', 9, "must have both mean and variance"),
    ('{ kind = "dense", units = 2 }', '{ kind = "batchnorm", mean = ["a"] }', 9, "layers[2].mean[0]: Expected `float`"),
]


@pytest.mark.parametrize(("old", "new", "line", "word"), MISTAKES, ids=[new for _, new, *_ in MISTAKES])
def test_a_mistake_is_one_sentence_with_its_line(file, old, new, line, word):
    assert GOOD.count(old) == 1 or old == "units = 3, "
    found = problems_of(file(GOOD.replace(old, new, 1)))
    assert any(at == line and word in message for at, message in found), found
    assert all("\n" not in message for _, message in found)


def test_the_file_without_a_mistake_is_right(file):
    assert read_network(file(GOOD)).label == "4-3-res(dropout 0.5-3)-2"


def test_mistakes_of_all_layers_are_listed_at_once(file):
    text = GOOD.replace('"tanh"', '"tahn"').replace("p = 0.5", "p = 2").replace("units = 2", "unit = 2")
    assert [line for line, _ in problems_of(file(text))] == [4, 6, 9, 9]


@pytest.mark.parametrize(
    ("field", "near"), [("unts", "units"), ("actvation", "activation"), ("bia", "bias"), ("shared", "share")]
)
def test_an_unknown_field_names_the_nearest(file, field, near):
    text = GOOD.replace("units = 3 }", f"units = 3, {field} = 1 }}")
    assert any(f"did you mean {near!r}?" in message for _, message in problems_of(file(text)))


def test_headers_within_headers_have_their_lines(file):
    text = """inputs = 4
[[layers]]
kind = "residual"
[[layers.layers]]
kind = "dense"
units = 4

[[layers.layers]]   # the second one
kind = "dense"
"units" = 0

[[layers]]
kind = "dense"
unit = 2
"""
    assert [line for line, _ in problems_of(file(text))] == [10, 12, 14]


def test_a_json_file_has_lines_too(file):
    text = '{\n "inputs": 4,\n "layers": [\n  {"kind": "dense", "units": 0},\n  {"kind": "dens"}\n ]\n}\n'
    assert [line for line, _ in problems_of(file(text, "net.json"))] == [4, 5]


def test_lines_are_right_behind_texts_that_look_like_more(file):
    text = '''"a.b" = """
[[not]] # a header
"""
c = 'x # "' # [comment]
d.e = [1, # {
  { f = "]" }, [[2],
  3]]
[ g . "h" ]
i = { j = [
  5] }
when = 1979-05-27 07:32:00
[[k]]
[[k]]
l = 1
[k.m]
n = 2
'''
    _, lines = parse(file(text))
    wanted = {
        ("a.b",): 1, ("c",): 4, ("d", "e"): 5, ("d", "e", 0): 5, ("d", "e", 1, "f"): 6, ("d", "e", 2, 1): 7,
        ("g", "h", "i", "j"): 9, ("g", "h", "i", "j", 0): 10, ("g", "h", "when"): 11, ("k", 0): 12,
        ("k", 1, "l"): 14, ("k", 1, "m", "n"): 16,
    }  # fmt: skip
    assert {place: lines.get(place) for place in wanted} == wanted


HOSTILE = [
    ("a = " + "[" * 100_000, "net.toml", "nested at most"),
    ("a = " + "{a=" * 100_000, "net.toml", "nested at most"),
    ("[" + "a." * 100_000 + "a]", "net.toml", "nested at most"),
    ("[[layers" + ".layers" * 1000 + "]]", "net.toml", "nested at most"),
    ('{"layers":[' * 50_000, "net.json", "nested at most"),
    ('{"layers":[' * 60 + "]}" * 60, "net.json", "is required"),
    ("[1, 2]", "net.json", "must be a table, got list"),
    ("", "net.json", "not JSON"),
    (b"\xff\xfe", "net.toml", "not TOML"),
    (b"\xff\xfe", "net.json", "not JSON"),
    ("# " + "x" * MAX_FILE_BYTES, "net.toml", "must have at most 1000000 bytes, got more"),
    ('{"inputs": 1, "inputs": 2}', "net.json", "a field must be given once, got 'inputs' twice"),
    ('{"l2": NaN}', "net.json", "numbers must be finite, got NaN"),
    ('{"l2": 1' + "0" * 400 + "}", "net.json", "l2: Number out of range"),
    ('{"inputs": ' + "9" * 5000 + "}", "net.json", "not JSON"),
    ("widths = [1, 1" + "0" * 40 + "]", "net.toml", "units of Dense must be from 1 to 1000000"),
    ("inputs = 1\nlayers = [" + '{kind="softmax"},' * (MAX_LAYERS + 1) + "]", "net.toml", "from 1 to 1000 layers"),
    ("inputs = 1\nlayers = [" + "{}," * 200_000 + "]", "net.toml", "kind is required"),
    ("inputs = 1\nlayers = [" + "[" * 140 + "]" * 140 + "]", "net.toml", "layers[0] must be a table, got list"),
    ('inputs = 1\nlayers = [{kind="dense", units=1, share="\\u001b[31m"}]', "net.toml", "share must be a name"),
]


@pytest.mark.parametrize(("text", "name", "word"), HOSTILE, ids=range(len(HOSTILE)))
def test_a_hostile_file_is_refused_in_words(file, text, name, word):
    found = problems_of(file(text, name))
    assert any(word in message for _, message in found), found[:3]
    assert all(len(message) < 600 and message.isprintable() for _, message in found)


def test_residual_layers_beyond_the_depth_are_refused(file):
    text = "inputs = 3\nlayers = [" + '{kind="residual", layers=[' * 60 + '{kind="dense", units=3}' + "]}" * 60 + "]"
    assert any(f"nested at most {MAX_DEPTH} deep" in message for _, message in problems_of(file(text)))


def test_an_endless_file_is_not_read_to_its_end(tmp_path):
    (tmp_path / "net.toml").symlink_to("/dev/zero")
    assert problems_of(tmp_path / "net.toml") == [(1, f"must have at most {MAX_FILE_BYTES} bytes, got more")]


def test_what_could_not_be_read_is_not_written(tmp_path):
    n = 60_000
    net = dl.MLP(n, [dl.BatchNorm([0.123456789] * n, [1.123456789] * n), dl.Dense(1)], loss="squared_error")
    with pytest.raises(ValueError, match="must have at most 1000000 bytes"):
        dl.write_network(net, tmp_path / "net.toml")
    with pytest.raises(TypeError, match="takes a difflab.MLP, got 3"):
        dl.write_network(3, tmp_path / "net.toml")
    assert not list(tmp_path.iterdir())


def test_a_null_is_no_table(tmp_path):
    (tmp_path / "net.json").write_text("null")
    with pytest.raises(ValueError, match="must be a table, got NoneType"):
        dl.read_network(tmp_path / "net.json")


def test_words_of_numpy_become_plain_ones(tmp_path):
    net = dl.MLP(2, [dl.Dense(2, str(np.str_("tanh")))], loss=np.str_("squared_error"), l1=np.float32(0.5))
    dl.write_network(net, tmp_path / "net.json")
    assert dl.read_network(tmp_path / "net.json") == net
    assert type(net.loss) is str
