"""Other libraries: as yardsticks of Backprop and Certified in float64, and as back-ends that keep the contract."""

import importlib
from functools import cache
from typing import Any

import naive
import numpy as np
import pytest

import difflab as dl
from difflab.layers import KINDS, BatchNorm, Dense, Dropout, Elementwise, Maxout, Multiply, Residual, Softmax
from difflab.peers import (
    PEERS,
    Casadi,
    HipsAutograd,
    Jax,
    Pytensor,
    Torch,
    Whole,
    calls,
    gradient_of,
    plain_dense,
    ready,
)
from difflab.primitives.losses import LOSSES


AGREEMENT = 1e-13
"""Relative in norm: some 500 roundings, of which depth 5, widths of 40 and batches of 64 make a few hundred."""

AGREEMENT_WITH_CERTIFIED = 1e-12
"""Relative in norm: networks of any layers cancel more than dense ones do, by some 10 at most here."""

N_MIXED = 80
ACTIVATION_NAMES = ("identity", "sigmoid", "tanh", "relu", "softplus")
LOSS_NAMES = ("squared_error", "softmax_cross_entropy")


def problem(seed: int) -> tuple:
    """A dense network of depth 1 to 5 with Glorot weights, normal biases and samples, and targets of its loss."""
    rng = np.random.default_rng(seed)
    widths = rng.integers(2, 41, size=rng.integers(2, 7)).tolist()
    layers = [dl.Dense(units, str(rng.choice(ACTIVATION_NAMES))) for units in widths[1:]]
    net = dl.MLP(widths[0], layers, str(rng.choice(LOSS_NAMES)), str(rng.choice(naive.REDUCTIONS)))
    _, x, y = naive.random_problem(net, rng, int(rng.integers(1, 65)))
    theta = net.init(rng) + 0.1 * rng.normal(size=net.n_params)
    return net, theta, x, y


def rows(net: dl.MLP, y: np.ndarray) -> np.ndarray:
    return np.eye(net.n_outputs)[y] if y.ndim == 1 else y


def assert_agrees(gradient_of_peer: Any, seed: int) -> None:
    net, theta, x, y = problem(seed)
    _, gradient = dl.Backprop().prepare(net).value_and_gradient(theta, x, y)
    expected = gradient_of_peer(net, theta, x, rows(net, y))
    error = np.linalg.norm(gradient - expected) / np.linalg.norm(expected)
    assert error <= AGREEMENT, net


def torch_gradient(net: dl.MLP, theta: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    import torch

    leaf = torch.tensor(theta, requires_grad=True)
    cut = naive.Theta(leaf, float)
    outputs = torch_through(net.layers, cut, torch.tensor(x))
    losses = torch_losses(net, outputs, torch.tensor(y))
    total = losses.mean() if net.reduction == "mean" else losses.sum()
    for weight in cut.weights:
        total = total + net.l1 * weight.abs().sum() + net.l2 / 2 * (weight**2).sum()
    total.backward()
    return leaf.grad.numpy()


def torch_through(layers: Any, theta: naive.Theta, a: Any) -> Any:
    for layer in layers:
        a = torch_layer(layer, theta, a)
    return a


def torch_layer(layer: Any, theta: naive.Theta, a: Any) -> Any:
    if isinstance(layer, Dense):
        a = torch_linear(theta, a, layer.units, layer.share, layer.bias)
        return torch_activated(layer.activation, theta, a, layer.units, layer.share)
    if isinstance(layer, Maxout):
        pieces = torch_linear(theta, a, layer.units * layer.pieces, layer.share)
        return pieces.reshape(len(a), layer.units, layer.pieces).max(dim=-1).values
    if isinstance(layer, Elementwise):
        return torch_activated(layer.activation, theta, a, a.shape[1] if layer.per_unit else 1)
    if isinstance(layer, Multiply):
        return a.reshape(len(a), layer.units, -1).prod(dim=-1)
    if isinstance(layer, BatchNorm):
        return torch_batch_norm(layer, theta, a)
    if isinstance(layer, Dropout):
        return torch_dropout(layer, a)
    if isinstance(layer, Residual):
        ends = torch_through(layer.layers, theta, a)
        return ends + (torch_linear(theta, a, ends.shape[1], has_bias=False) if layer.project else a)
    assert isinstance(layer, Softmax)
    return a.softmax(dim=1)


def torch_linear(theta: naive.Theta, a: Any, units: int, share: str | None = None, has_bias: bool = True) -> Any:
    import torch

    weight = theta.take(units * a.shape[1], "weight", share).reshape(units, -1)
    return torch.nn.functional.linear(a, weight, theta.take(units, "bias", share) if has_bias else None)


def torch_batch_norm(layer: BatchNorm, theta: naive.Theta, a: Any) -> Any:
    import torch

    given = [None if layer.mean is None else torch.tensor(np.array(a)) for a in (layer.mean, layer.variance)]
    gamma, beta = theta.take(a.shape[1], "gamma"), theta.take(a.shape[1], "beta")
    return torch.nn.functional.batch_norm(a, *given, gamma, beta, training=layer.mean is None, eps=layer.eps)


def torch_dropout(layer: Dropout, a: Any) -> Any:
    """With the network's own mask: PyTorch draws others."""
    import torch

    mask = np.random.default_rng(layer.seed).random(a.shape) >= layer.p
    return a * torch.tensor(mask) / (1 - layer.p) if layer.training else a


def torch_activated(text: str, theta: naive.Theta, z: Any, n: int, share: str | None = None) -> Any:
    import torch

    f = torch.nn.functional
    name, p = naive.named(text)
    if name in naive.LEARNABLE:
        p = theta.take(n, name, share)
    functions = {
        "identity": lambda: z,
        "sigmoid": lambda: torch.sigmoid(z),
        "tanh": lambda: torch.tanh(z),
        "relu": lambda: f.relu(z),
        "leaky_relu": lambda: f.leaky_relu(z, p),
        "prelu": lambda: f.prelu(z, p),
        "elu": lambda: f.elu(z, p),
        # By default PyTorch's is linear from 20 on.
        "softplus": lambda: f.softplus(z, threshold=1000),
        "silu": lambda: f.silu(z) if p == 1 else z * torch.sigmoid(p * z),
        "swish": lambda: z * torch.sigmoid(p * z),
        "gelu": lambda: f.gelu(z),
        "softsign": lambda: f.softsign(z),
    }
    return functions[name]()


def torch_losses(net: dl.MLP, z: Any, y: Any) -> Any:
    """The loss of every sample; only the cross-entropy of PyTorch smooths labels itself."""
    import torch

    f, share = torch.nn.functional, net.label_smoothing
    if net.loss == "squared_error":
        return f.mse_loss(z, y, reduction="none").sum(dim=1) / 2
    if net.loss == "mean_squared_error":
        return f.mse_loss(z, y, reduction="none").mean(dim=1)
    if net.loss == "softmax_cross_entropy":
        return f.cross_entropy(z, y, reduction="none", label_smoothing=share)
    y = y * (1 - share) + share / (z.shape[1] if net.loss == "kl_divergence" else 2)
    if net.loss == "sigmoid_cross_entropy":
        return f.binary_cross_entropy_with_logits(z, y, reduction="none").sum(dim=1)
    if net.loss == "binary_cross_entropy":
        return f.binary_cross_entropy(z, y, reduction="none").sum(dim=1)
    assert net.loss == "kl_divergence"
    return f.kl_div(z.log(), y, reduction="none").sum(dim=1)


def jax_gradient(net: dl.MLP, theta: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    import jax

    jax.config.update("jax_enable_x64", True)
    nn, jnp = jax.nn, jax.numpy
    activations = {"sigmoid": nn.sigmoid, "tanh": jnp.tanh, "relu": nn.relu, "softplus": nn.softplus}

    def loss(flat: Any) -> Any:
        a = jnp.asarray(x)
        for number, layer in enumerate(net.layers):
            weight, bias = (p.of(flat) for p in net.parameters[2 * number : 2 * number + 2])
            a = activations.get(layer.activation, lambda z: z)(a @ weight.T + bias)
        if net.loss == "squared_error":
            losses = ((a - y) ** 2).sum(axis=1) / 2
        else:
            losses = -(y * nn.log_softmax(a)).sum(axis=1)
        return losses.mean() if net.reduction == "mean" else losses.sum()

    return np.asarray(jax.grad(loss)(jnp.asarray(theta)))


@pytest.mark.parametrize("seed", range(40))
def test_pytorch_agrees(seed):
    pytest.importorskip("torch", reason="PyTorch is not installed: pip install 'difflab[peers]'")
    assert_agrees(torch_gradient, seed)


@pytest.mark.parametrize("seed", range(12))
def test_jax_agrees(seed):
    pytest.importorskip("jax", reason="JAX is not installed: pip install 'difflab[peers]'")
    assert_agrees(jax_gradient, seed)


@cache
def mixed_problem(seed: int) -> tuple:
    """PyTorch normalises no batch of one sample."""
    rng = np.random.default_rng([3, seed])
    net = naive.random_mixed_network(rng)
    return net, *naive.random_problem(net, rng, batch=int(rng.integers(2, 9)))


@pytest.mark.parametrize("seed", range(N_MIXED))
def test_pytorch_agrees_with_the_truth_on_networks_of_any_layers(seed):
    pytest.importorskip("torch", reason="PyTorch is not installed: pip install 'difflab[peers]'")
    net, theta, x, y = mixed_problem(seed)
    gradient = torch_gradient(net, theta, x, rows(net, y))
    found = dl.discrepancy(gradient, dl.reference_gradient(net, theta, x, y))
    assert found.error_relative <= AGREEMENT_WITH_CERTIFIED, (net.layers, str(found))


def test_networks_of_any_layers_hold_every_layer_and_loss():
    nets = [mixed_problem(seed)[0] for seed in range(N_MIXED)]
    assert {type(layer) for net in nets for layer in net.layers} == set(KINDS.values())
    assert {net.loss for net in nets} == set(LOSSES)
    assert any(net.l1 for net in nets)
    assert any(net.l2 for net in nets)
    assert any(net.label_smoothing for net in nets)


# --- as back-ends

LIBRARIES = [
    Jax(), Jax("float32"), Torch(), Torch("float32"), HipsAutograd(), HipsAutograd("float32"), Casadi(),
    Casadi(threads=2), Casadi(form="MX"), Pytensor(), Pytensor("float32"),
]  # fmt: skip


@pytest.fixture
def backend(request):
    pytest.importorskip(request.param.module, reason="a library is not installed: pip install 'difflab[peers]'")
    return request.param


each_library = pytest.mark.parametrize("backend", LIBRARIES, ids=repr, indirect=True)
each_activation = pytest.mark.parametrize("hidden", plain_dense.ACTIVATIONS)


def small_problem(hidden: str, dtype: str, batch: int = 5) -> tuple:
    rng = np.random.default_rng(4)
    net = dl.MLP.dense([3, 5, 4, 3], hidden)
    theta = net.init(rng) + rng.uniform(-0.1, 0.1, net.n_params)
    return net, theta.astype(dtype), rng.normal(size=(batch, 3)).astype(dtype), rng.integers(0, 3, batch)


def dtype_of(backend: Any) -> str:
    return getattr(backend, "dtype", "float64")


@each_activation
@each_library
def test_a_peer_keeps_within_the_error_it_predicts(backend, hidden):
    net, theta, x, y = small_problem(hidden, dtype_of(backend))
    prepared, before = backend.prepare(net), (theta.copy(), x.copy(), y.copy())
    value, gradient = prepared.value_and_gradient(theta, x, y)
    truth = dl.reference_gradient(net, theta, x, y)
    found = dl.discrepancy(gradient, truth, bound=prepared.predicted_error(theta, x, y))
    assert found.is_within_bound, str(found)
    assert gradient.dtype == theta.dtype
    assert abs(value - truth.value) <= 50 * np.finfo(theta.dtype).eps * truth.value  # some 50 roundings
    assert prepared.value(theta, x, y) == pytest.approx(value, rel=50 * float(np.finfo(theta.dtype).eps))
    assert all(map(np.array_equal, before, (theta, x, y)))


@pytest.mark.parametrize("batch", [1, 5])
@each_library
def test_what_is_timed_is_the_gradient(backend, batch):
    """The call that a contest times, in the form that is faster here, gives what the contract gives."""
    net, theta, x, y = small_problem("tanh", dtype_of(backend), batch)
    prepared = backend.prepare(net)
    expected, made = prepared.value_and_gradient(theta, x, y)[1], calls(prepared, theta, x, y)
    for _ in range(2):
        gradient = gradient_of(prepared, made["gradient"]())
        assert np.abs(gradient - expected).max() <= 50 * np.finfo(theta.dtype).eps  # some 50 roundings
    assert float(made["primal"]()) == pytest.approx(prepared.value(theta, x, y))


@each_library
def test_targets_in_rows_need_not_be_classes(backend):
    net, theta, x, y = small_problem("sigmoid", dtype_of(backend))
    rows_of_targets = (np.eye(3)[y] + 0.25).astype(theta.dtype)
    _, gradient = backend.prepare(net).value_and_gradient(theta, x, rows_of_targets)
    truth = dl.reference_gradient(net, theta, x, rows_of_targets)
    error = np.linalg.norm(gradient - truth.gradient) / np.linalg.norm(truth.gradient)
    assert error <= 100 * np.finfo(theta.dtype).eps  # some 100 roundings


@each_library
def test_a_peer_says_which_library_it_is(backend):
    net, theta, x, y = small_problem("relu", dtype_of(backend))
    facts = backend.prepare(net).facts
    assert facts["library"].startswith(f"{backend.package} ")
    assert facts["primal_calls"] == 1


COUNTING = [Casadi(), Casadi(form="MX"), Jax(), Pytensor()]
SAME_ALGORITHM = 1.4
"""Times the operations of the lab's own derivation, or less by as much: libraries differ in what they simplify."""


@pytest.mark.parametrize("widths", [[4, 8, 8, 3], [4, 2, 2, 2, 10], [16, 16, 10]], ids=str)
@pytest.mark.parametrize("backend", COUNTING, ids=repr, indirect=True)
@each_activation
def test_operations_of_a_library_are_counted_by_the_convention_of_the_lab(backend, widths, hidden):
    """Ways to count, none of which knows of another, come to nearly the same."""
    net = dl.MLP.dense(widths, hidden)
    prepared, own = backend.prepare(net), dl.Symbolic("during").prepare(net).facts
    counted = prepared.facts | prepared.counted()
    assert min(counted["derive_seconds"], counted["compile_seconds"]) > 0
    for name in ("gradient_ops", "own_loss_ops"):
        assert own[name] / SAME_ALGORITHM <= counted[name] <= own[name] * SAME_ALGORITHM


@pytest.mark.parametrize("backend", [Jax(), Casadi(), Pytensor()], ids=repr, indirect=True)
def test_an_operation_more_is_counted(backend, monkeypatch):
    """Both outputs taken through tanh once more."""
    module = importlib.import_module(type(backend).__module__)
    net, right = dl.MLP.dense([4, 3, 2], hidden="tanh"), module.activations
    before = backend.prepare(net).counted()["own_loss_ops"]
    monkeypatch.setattr(module, "activations", lambda net: [*right(net)[:-1], "tanh"])
    assert backend.prepare(net).counted()["own_loss_ops"] - before == 2


@pytest.mark.parametrize(
    ("backend", "table"), [(Jax(), "ONE_EACH"), (Pytensor(), "OF_ROW")], ids=repr, indirect=["backend"]
)
def test_an_operation_that_no_table_has_is_named_instead_of_counted(backend, table, monkeypatch):
    prepared = backend.prepare(dl.MLP.dense([4, 3, 2], hidden="tanh"))
    monkeypatch.setattr(importlib.import_module(type(backend).__module__), table, {})
    with pytest.raises(ValueError, match="must be known for counting, got .*; add .* to a table here"):
        prepared.counted()


@pytest.mark.parametrize("chosen", [0, 1])
@pytest.mark.parametrize("backend", [Jax(), Casadi(threads=2)], ids=repr, indirect=True)
def test_both_forms_of_a_peer_give_loss_and_gradient(backend, chosen, monkeypatch):
    net, theta, x, y = small_problem("softplus", "float64", 6)
    prepared = backend.prepare(net)
    value, expected = prepared.value_and_gradient(theta, x, y)
    seconds = iter([1.0 * chosen, 1.0 - chosen] * 2)
    monkeypatch.setattr(ready, "_least_seconds", lambda call: next(seconds))
    gradient = gradient_of(prepared, prepared.gradient_call(theta, x, y)())
    assert np.abs(gradient - expected).max() <= 50 * np.finfo(float).eps  # some 50 roundings
    assert float(prepared.primal_call(theta, x, y)()) == pytest.approx(value, rel=50 * np.finfo(float).eps)
    assert next(seconds, None) is None


def test_the_fastest_of_several_calls_is_the_one_that_takes_the_least():
    clock = [0.0]

    def taking(seconds):
        def call():
            clock[0] += seconds

        return call

    slow, fast = taking(0.3), taking(0.2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ready, "perf_counter", lambda: clock[0])
        assert ready.fastest(slow, fast) is fast
        assert ready.fastest(fast, slow) is fast
        assert clock[0] < 2 * 2 * (ready.TRIAL_SECONDS + 2 * 0.3)
    assert ready.fastest(slow) is slow


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_torch_compiles_value_and_gradient():
    pytest.importorskip("torch", reason="PyTorch is not installed: pip install 'difflab[peers]'")
    net, theta, x, y = small_problem("tanh", "float64")
    eager, compiled = (Torch(compiled=compiled).prepare(net) for compiled in (False, True))
    assert type(compiled).__name__ == "PreparedCompiled"
    held = compiled.held(dl.backends.arguments.checked(net, theta, x, y, ("float64",)))
    assert not any(parameter.requires_grad for parameter in held[0])
    compiled._gradient = eager._torch.func.grad_and_value(compiled._loss)  # as it is before compiling
    _, gradient = compiled.value_and_gradient(theta, x, y)
    assert np.abs(gradient - eager.value_and_gradient(theta, x, y)[1]).max() <= 50 * np.finfo(float).eps


@pytest.mark.parametrize("peer", [Jax(), Torch(), HipsAutograd(), Casadi(), Pytensor()], ids=repr)
def test_a_missing_library_is_named_with_the_line_that_installs_it(monkeypatch, peer):
    monkeypatch.setattr(type(peer), "module", "no_such_module")
    reason = peer.unsupported(dl.MLP.dense([2, 3, 2]))
    assert reason == "no_such_module is not installed; install it with: pip install 'difflab[peers]'"


@each_library
def test_other_networks_are_not_supported(backend):
    assert "only the mean softmax" in backend.unsupported(dl.MLP.dense([2, 2], loss="squared_error"))
    assert "gelu is not written by hand" in backend.unsupported(dl.MLP.dense([2, 2, 2], "gelu"))


def test_casadi_refuses_code_that_explodes():
    pytest.importorskip("casadi", reason="CasADi is not installed: pip install 'difflab[peers]'")
    with pytest.raises(dl.backends.Refused, match="each a line of C, limit 20000"):
        Casadi().prepare(dl.MLP.dense([64, 128, 10]))


def test_peers_of_whole_gradients_are_methods_of_studies():
    assert {name for name, peer in PEERS.items() if isinstance(peer, Whole)} == {
        "handwritten", "jax", "torch", "autograd", "casadi", "pytensor",
    }  # fmt: skip
