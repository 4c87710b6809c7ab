"""Study files: what is read, and every way of being wrong that is named with its line."""

import sys

import pytest

from difflab import MLP
from difflab.backends import Backprop, FiniteDifference
from difflab.documents import InvalidFile
from difflab.network_files import read_network
from difflab.peers import PEERS, ScipyDifferentiate
from difflab.study.cells import cells
from difflab.study.declaration import build_backend
from difflab.study.reading import checked_backend, read_study


GOOD = """
question = "Which is right?"
measures = ["accuracy"]

[[networks]]
widths = [4, 2, 10]
data = "digits-2x2"

[[backends]]
name = "finite_difference"
scheme = "forward"
"""


@pytest.fixture
def study(tmp_path):
    def write(text):
        path = tmp_path / "some.toml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def problems_of(path):
    with pytest.raises(InvalidFile) as raised:
        read_study(path)
    return [(problem.line, problem.message) for problem in raised.value.problems]


def test_a_good_study_is_read_with_its_defaults(study):
    declared = read_study(study(GOOD))
    assert declared.question == "Which is right?"
    assert declared.networks[0].build() == MLP.dense([4, 2, 10])
    assert (declared.batch, declared.seed) == (128, 0)
    assert build_backend(declared.backends[0]) == FiniteDifference("forward")


def test_every_problem_is_listed_with_its_line(study):
    text = """question = 7
measure = ["accuracy"]
measures = ["acuracy"]
batch = 0

[[networks]]
widths = [4, 0, 10]
data = "digits-2x2"

[[networks]]
widths = [4, 3, 10]
hidden = "tahn"
data = "digits-2x2"

[[networks]]
widths = [5, 3, 10]
data = "digits-2x2"

[[networks]]
wdths = [4, 3, 10]

[[backends]]
name = "bakprop"

[[backends]]
name = "finite_difference"
scheme = "sideways"

[[backends]]
name = "symbolic"
max_ops = "many"

[[backends]]
scheme = "central"
"""
    found = problems_of(study(text))
    lines = [line for line, _ in found]
    assert lines == sorted(lines)
    for line, word in (
        (1, "Expected `str`, got `int`"),
        (2, "unknown field 'measure'"),
        (3, "measures[0]: unknown measure 'acuracy'; known: accuracy, agreement"),
        (4, "batch must be from 1 to 65536, got 0"),
        (7, "must be from 1 to"),
        (12, "unknown activation 'tahn'; known: elu"),
        (16, "widths: must start with 4 and end with 10"),
        (20, "unknown field 'wdths'"),
        (19, "networks[3].widths is required"),
        (23, "unknown backend 'bakprop'; known: autograd"),
        (25, "unknown scheme 'sideways'"),
        (31, "Expected `int`, got `str`"),
        (33, "name is required"),
    ):
        assert any(at == line and word in message for at, message in found), (line, word, found)


def test_the_error_text_is_one_line_per_problem_naming_the_file(study):
    path = study(GOOD.replace("forward", "sideways").replace("accuracy", "speeed"))
    with pytest.raises(InvalidFile) as raised:
        read_study(path)
    lines = str(raised.value).splitlines()
    assert len(lines) == 2
    assert all(line.startswith(f"{path}:") for line in lines)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("question = ", "not TOML"),
        (b"\xff\xfe", "not TOML"),
        ("a = " + "[" * 100_000, "nested at most"),
        ("# " + "x" * 1_000_001, "at most 1000000 bytes"),
        ("", "question is required"),
        (GOOD.replace("[[networks]]", "[networks]"), "Expected `array`"),
        (GOOD + "\n[[backends]]\nname = 3\n", "unknown backend 3"),
        (GOOD + '\n[[backends]]\nname = ["symbolic"]\n', "unknown backend"),
        (GOOD + '\n[[backends]]\nname = "finite_difference"\nscheme = "forward"\n', "repeats backends[0]"),
        (GOOD.replace('data = "digits-2x2"', ""), "data is required"),
        (GOOD.replace("digits-2x2", "../../etc/passwd"), "unknown dataset"),
        (GOOD.replace('["accuracy"]', "[]"), "at least one entry"),
        ("batch = 1e400\n" + GOOD, "Expected `int`"),
        ("seed = 99999999999999999999\n" + GOOD, "seed"),
        ("limit_seconds = nan\n" + GOOD, "limit_seconds"),
        (
            GOOD + '\n[[backends]]\nname = "symbolic"\nsharing = "durin"\n',
            "unknown sharing 'durin'; known: after, during, layerwise, none; did you mean 'during'?",
        ),
        (
            GOOD.replace('["accuracy"]', '["a - at `$[9]`"]'),
            "measures[0]: unknown measure 'a - at `$[9]`'; known: accuracy",
        ),
        (
            GOOD + '\n[[backends]]\nname = "symbolic"\nengine = "it\'s - at `$`"\n',
            'backends[1].engine: unknown engine "it\'s - at `$`"; known: symengine, sympy',
        ),
    ],
)
def test_what_is_wrong_is_said(study, text, word):
    assert any(word in message for _, message in problems_of(study(text)))


@pytest.mark.parametrize("seconds", [0.1, 1e6])
def test_a_cell_may_take_as_long_as_a_derivation(study, seconds):
    text = f"limit_seconds = {seconds}\n" + GOOD + f'\n[[backends]]\nname = "symbolic"\nlimit_seconds = {seconds}\n'
    assert read_study(study(text)).limit_seconds == seconds


@pytest.mark.parametrize("seconds", [0.09, 1.01e6])
def test_neither_may_take_more_or_less(study, seconds):
    text = f"limit_seconds = {seconds}\n" + GOOD + f'\n[[backends]]\nname = "symbolic"\nlimit_seconds = {seconds}\n'
    messages = [message for _, message in problems_of(study(text))]
    assert len(messages) == 2
    assert all(message.endswith(f"from 0.1 to 1e+06, got {seconds}") for message in messages)


@pytest.mark.parametrize("field", ["data", "hidden", "loss"])
def test_reading_a_study_runs_nothing(study, tmp_path, field):
    """A hostile text may stand wherever a name does: it is looked up, never run."""
    witness = tmp_path / "witness"
    hostile = f"__import__('pathlib').Path('{witness}').touch()"
    run_events = []
    sys.addaudithook(lambda event, _: run_events.append(event) if event in ("os.system", "subprocess.Popen") else None)
    text = GOOD.replace('data = "digits-2x2"', f'data = "digits-2x2"\n{field} = "{hostile}"'.replace("\n\n", "\n"))
    problems_of(study(text if field != "data" else GOOD.replace("digits-2x2", hostile)))
    problems_of(study(GOOD.replace("forward", hostile)))
    problems_of(study(GOOD + f'\n[[backends]]\nname = "symbolic"\n"{hostile}" = 1\n'))
    assert not witness.exists()
    assert run_events == []


FULL = """
question = "Which is right?"
measures = ["accuracy"]

[[networks]]
inputs = 4
data = "digits-2x2"
init = "he_normal"
layers = [
    { kind = "dense", units = 3, activation = "elu(0.5)" },
    { kind = "dense", units = 10 },
]

[[networks]]
inputs = 4
data = "digits-2x2"
[[networks.layers]]
kind = "residual"
[[networks.layers.layers]]
kind = "dense"
units = 4
[[networks.layers]]
kind = "dense"
units = 10

[[backends]]
name = "finite_difference"
"""


def test_networks_in_full_stand_beside_dense_ones(study):
    short = '[[networks]]\nwidths = [4, 2, 10]\ndata = "digits-2x2"\nl2 = 0.1\n\n[[backends]]'
    networks = read_study(study(FULL.replace("[[backends]]", short))).networks
    assert [network.build().label for network in networks] == ["4-3-10", "4-res(4)-10", "4-2-10"]
    assert [network.init for network in networks] == ["he_normal", "glorot_uniform", "glorot_uniform"]
    assert networks[2].build().l2 == 0.1


@pytest.mark.parametrize(
    ("old", "new", "line", "word"),
    [
        ("units = 3", "units = 0", 10, "networks[0].layers[0]: units of Dense must be from 1"),
        ('"elu(0.5)"', '"elo(0.5)"', 10, "unknown activation 'elo'"),
        ("units = 10 },", "units = 10, unit = 1 },", 11, "unknown field 'unit'; known: activation, bias, share, units"),
        ("units = 10 },", "units = 9 },", 9, "networks[0].layers: must start with 4 and end with 10 for digits-2x2"),
        ("units = 4", "units = 5", 17, "networks[1].layers[0]: the layers of Residual must keep its width of 4"),
        ('[[networks.layers.layers]]\nkind = "dense"', '[[networks.layers.layers]]\nkind = "dens"', 20, "'dens'"),
        ("he_normal", "he_norm", 8, "unknown initialisation 'he_norm'"),
        ('inputs = 4\ndata = "digits-2x2"\n[[', 'data = "digits-2x2"\n[[', 16, "inputs is required beside layers"),
    ],
)
def test_a_problem_within_layers_has_its_line(study, old, new, line, word):
    assert old in FULL
    assert [(at, word in message) for at, message in problems_of(study(FULL.replace(old, new)))] == [(line, True)]


def test_networks_that_mean_the_same_repeat_however_they_are_declared(study):
    twin = """[[networks]]
inputs = 4
data = "digits-2x2"
layers = [{ kind = "dense", units = 2, activation = "tanh" }, { kind = "dense", units = 10 }]

[[backends]]"""
    assert problems_of(study(GOOD.replace("[[backends]]", twin))) == [
        (9, "networks[1] repeats networks[0]; remove one")
    ]


def test_a_backend_from_the_command_line_is_checked_like_one_from_a_file():
    assert checked_backend({"name": "backprop", "dtype": "float32"}) == Backprop("float32")
    with pytest.raises(ValueError, match="unknown dtype 'float16'"):
        checked_backend({"name": "backprop", "dtype": "float16"})
    with pytest.raises(ValueError, match="unknown field 'scheme'"):
        checked_backend({"name": "backprop", "scheme": "central"})


PLACED = GOOD.replace('data = "digits-2x2"', 'data = "digits-2x2"\nloss = "squared_error"\n{}')


def test_a_network_says_where_it_is_differentiated(study):
    (network,) = read_study(study(PLACED.format("scale = 20\nx_shift = -0.5\ny_shift = 1e6"))).networks
    assert (network.scale, network.x_shift, network.y_shift) == (20.0, -0.5, 1e6)
    (usual,) = read_study(study(GOOD)).networks
    assert (usual.scale, usual.x_shift, usual.y_shift) == (1.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ("scale = 0", "networks[0].scale must be from 1e-06 to 1e+06, got 0"),
        ("scale = -1.0", "networks[0].scale must be from 1e-06 to 1e+06, got -1.0"),
        ("scale = nan", "networks[0].scale must be from 1e-06 to 1e+06, got nan"),
        ("x_shift = inf", "networks[0].x_shift must be from -1e+06 to 1e+06, got inf"),
        ("y_shift = 1e7", "networks[0].y_shift must be from -1e+06 to 1e+06, got 10000000.0"),
        ('scale = "large"', "networks[0].scale: Expected `float`, got `str`, got 'large'"),
        ("scale = true", "networks[0].scale: Expected `float`, got `bool`, got True"),
        ("scales = 2.0", "networks[0]: unknown field 'scales'"),
        ("batch = 0", "networks[0].batch must be from 1 to 65536, got 0"),
        ("batch = 65537", "networks[0].batch must be from 1 to 65536, got 65537"),
        ("batch = 2.5", "networks[0].batch: Expected `int | null`, got `float`, got 2.5"),
    ],
)
def test_a_place_that_will_not_do_has_its_line(study, field, message):
    ((line, said),) = problems_of(study(PLACED.format(field)))
    assert (line, said[: len(message)]) == (9, message)


@pytest.mark.parametrize(
    ("loss", "targets"),
    [
        ("softmax_cross_entropy", "classes"),
        ("sigmoid_cross_entropy", "from 0 to 1"),
        ("binary_cross_entropy", "from 0 to 1"),
        ("kl_divergence", "classes"),
    ],
)
def test_targets_that_are_classes_or_bounded_stay_where_they_are(study, loss, targets):
    text = PLACED.format("y_shift = 1.0").replace("squared_error", loss)
    expected = (
        f"networks[0].y_shift has no place with {loss}, whose targets are {targets}; "
        "use squared_error or mean_squared_error"
    )
    assert (9, expected) in problems_of(study(text))
    in_place = PLACED.format("y_shift = 0.0").replace("squared_error", loss).replace("[4, 2", "[4, 3")
    if loss.endswith("cross_entropy") and not loss.startswith("binary"):
        assert read_study(study(in_place)).networks[0].y_shift == 0.0


def test_networks_in_other_places_do_not_repeat_one_another(study):
    def twice(first, second):
        header, _, rest = PLACED.partition("[[networks]]")
        network, _, backend = rest.partition("[[backends]]")
        entries = [f"[[networks]]{network.format(field)}" for field in (first, second)]
        return f"{header}{entries[0]}{entries[1]}[[backends]]{backend}"

    for first, second in (("", "scale = 2.0"), ("x_shift = 1.0", "y_shift = 1.0"), ("", "batch = 1")):
        assert len(read_study(study(twice(first, second))).networks) == 2
    (repeated,) = problems_of(study(twice("", "scale = 1")))
    assert repeated[1] == "networks[1] repeats networks[0]; remove one"


def test_a_network_may_have_a_batch_of_its_own(study):
    declared = read_study(study("batch = 16\n" + PLACED.format("batch = 7").replace("[[backends]]", OTHER)))
    assert [cell.task.batch for cell in cells(declared)] == [7, 16]


OTHER = """[[networks]]
widths = [4, 3, 10]
data = "digits-2x2"

[[backends]]"""


def test_a_network_file_has_no_place(tmp_path):
    (tmp_path / "net.toml").write_text("widths = [4, 10]\nscale = 2.0\n")
    with pytest.raises(InvalidFile, match="net.toml:2: top level: unknown field 'scale'"):
        read_network(tmp_path / "net.toml")


def test_peers_are_declared_like_back_ends(study):
    declared = read_study(study(GOOD + '\n[[backends]]\nname = "scipy_differentiate"\norder = 4\n'))
    assert build_backend(declared.backends[1]) == ScipyDifferentiate(order=4)
    assert all(checked_backend({"name": name}) == peer for name, peer in PEERS.items())
    with pytest.raises(ValueError, match="order must be even"):
        checked_backend({"name": "numdifftools", "order": 3})
    with pytest.raises(ValueError, match="did you mean 'numdifftools'"):
        checked_backend({"name": "numdiftools"})


# --- lists that stand for many entries

MANY = """question = "?"
measures = ["accuracy"]

[[networks]]
widths = [4, 3, 10]
hidden = {hidden}
data = "digits-2x2"
batch = [1, 8]

[[backends]]
name = "backprop"
dtype = {dtypes}
"""


def test_a_list_stands_for_each_of_its_values(study):
    found = read_study(study(MANY.format(hidden=["relu", "tanh"], dtypes=["float64", "float32"])))
    assert [(network.hidden, network.batch) for network in found.networks] == [
        ("relu", 1), ("relu", 8), ("tanh", 1), ("tanh", 8),
    ]  # fmt: skip
    assert all(network.widths == [4, 3, 10] for network in found.networks)
    assert found.backends == [{"name": "backprop", "dtype": dtype} for dtype in ("float64", "float32")]


@pytest.mark.parametrize(
    ("hidden", "dtypes", "line", "word"),
    [
        (["relu", "tahn"], ["float64"], 6, "networks[0].hidden: unknown activation 'tahn'"),
        (["relu", "relu"], ["float64"], 4, "networks[0] repeats networks[0]; remove one"),
        (["relu"], ["float64", "float16"], 10, "unknown dtype 'float16'"),
        ([], ["float64"], 6, "Expected `str | null`, got `array`"),
        (["relu"] * 1001, ["float64"], 6, "Expected `str | null`, got `array`"),
    ],
)
def test_problems_of_lists_are_said_once(study, hidden, dtypes, line, word):
    found = problems_of(study(MANY.format(hidden=hidden, dtypes=dtypes)))
    assert [at for at, message in found if word in message] == [line], found


def test_a_contest_stands_alone(study):
    text = GOOD.replace('["accuracy"]', '["contest", "speed"]')
    assert any("stands alone" in message for _, message in problems_of(study(text)))
    assert read_study(study(GOOD.replace('["accuracy"]', '["contest"]'))).measures == ["contest"]
