"""Certificates hold for the truth, and break at every error: in the gradient, in a file, in each rule of the sweep."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from typing import Any

import naive
import numpy as np
import pytest
from campaigns import problem
from flint import arb

import difflab as dl
from difflab import reference
from difflab.backends.certified import ENCLOSED, KINK, ROUNDED
from difflab.enclosures import certificate, derivatives, symbolic_balls
from difflab.enclosures import sweep as ball_sweep
from difflab.enclosures.certificate import DIFFERENCES, POWER_SERIES, ROUTES, SYMBOLIC, Certificate, certify
from difflab.enclosures.slopes import FirstSlopes
from difflab.number_systems import Balls, Series
from difflab.number_systems.vocabulary import elementwise
from difflab.primitives.operations import OPERATIONS, Instruction
from difflab.program import Program, primal
from difflab.reference import CertificateBroken


SMALL_ERROR = 1e-6
MOST_SYMBOLIC_WORK = 2000


@cache
def truth(seed: int) -> dl.Reference:
    return dl.reference_gradient(*problem(seed))


@cache
def small(seed: int) -> dl.Reference:
    """Of a network so small that SymPy takes part of a second."""
    rng, work = np.random.default_rng([9, seed]), MOST_SYMBOLIC_WORK
    while work >= MOST_SYMBOLIC_WORK:
        net = naive.random_mixed_network(rng, most_layers=3, most_units=3)
        of = dl.reference_gradient(net, *naive.random_problem(net, rng, batch=2))
        work = certificate._symbolic_work(net, of.point)
    return of


def certified(of: dl.Reference, *routes: str, **changed: np.ndarray) -> Certificate:
    """By these routes, with some arrays of the gradient in place of its own."""
    found = replace(of.entries, **{{"gradient": "nearest"}.get(name, name): array for name, array in changed.items()})
    return certify(of.net, of.point, found, routes or (POWER_SERIES,))


def is_caught(of: dl.Reference, gradient: np.ndarray, *routes: str) -> bool:
    return not certified(of, *routes, gradient=gradient).holds


def telling(of: dl.Reference) -> np.ndarray:
    """Entries that are known well enough to speak of an error in them."""
    return np.flatnonzero((of.status != ENCLOSED) & (np.abs(of.gradient) >= 2.0**-1022))


def with_error(of: dl.Reference, i: int, relative: float) -> np.ndarray:
    gradient = of.gradient.copy()
    gradient[i] *= 1 + relative
    return gradient


# --- it holds


def test_all_routes_hold_on_random_networks():
    """Saturated and dead ones, and some at kinks."""
    found = [truth(seed) for seed in range(100)]
    assert all(of.certificate.holds for of in found if of.certificate.routes)
    assert sum(bool((of.status == KINK).any()) for of in found) > 5
    unknown = [of for of in found if not of.certificate.routes]
    assert all(np.isinf(of.upper).any() for of in unknown)
    assert not any(of.certificate.holds for of in unknown)
    assert len(unknown) < 10


def test_other_directions_hold_too():
    for seed in range(20):
        assert reference.verify(truth(seed), n_directions=5, seed=seed).holds


@pytest.mark.parametrize("seed", range(12))
def test_thorough_certificates_hold_entry_by_entry(seed):
    of = small(seed)
    made = reference.verify(of, thorough=True)
    assert [route.name for route in made.routes] == list(ROUTES)
    assert {route.n_checks for route in made.routes[1:]} == {int((of.status != KINK).sum())}


AT_A_KINK = {
    "relu": (dl.MLP.dense([1, 1, 1], "relu", "squared_error"), 2),
    "elu": (dl.MLP.dense([1, 1, 1], "elu", "squared_error"), 2),
    "softsign, whose slope bends": (dl.MLP.dense([1, 1, 1], "softsign", "squared_error"), 4),
    "maxout": (dl.MLP(1, [dl.Maxout(1), dl.Dense(1)], "squared_error"), 2),
    "|w|": (dl.MLP(1, [dl.Dense(1), dl.Dense(1)], "squared_error", l1=0.5), 2),
}


@pytest.mark.parametrize("case", AT_A_KINK)
def test_all_routes_hold_at_a_kink(case):
    """Entries at it are left to the power series; a bend of the slope is none."""
    net, n_smooth = AT_A_KINK[case]
    theta = np.zeros(net.n_params)
    theta[-2:] = 1.0, 0.0
    of = dl.reference_gradient(net, theta, np.zeros((1, 1)), np.full((1, 1), -1.0), thorough=True)
    assert [route.name for route in of.certificate.routes] == list(ROUTES)
    assert of.certificate.routes[2].n_checks == int((of.status != KINK).sum()) >= n_smooth


def test_slopes_that_differ_by_less_than_an_ulp_satisfy_the_differences():
    """The difference is the mean of both one-sided derivatives; one sample is at a kink, the other far steeper."""
    net = dl.MLP(1, [dl.Dense(1, "leaky_relu(0.75)"), dl.Dense(1)], "squared_error", "sum")
    theta, x, y = np.array([1.0, 0.0, 1.0, 0.0]), np.array([[0.0], [3.0]]), np.array([[-1.0], [-(2.0**60)]])
    of = dl.reference_gradient(net, theta, x, y, thorough=True)
    bias = 1
    assert of.status[bias] == ROUNDED
    assert of.gradient[bias] == 2.0**60
    assert of.residual[bias] == 3 + 0.75
    assert of.certificate.holds


def test_routes_that_are_not_feasible_are_left_out(monkeypatch):
    monkeypatch.setattr(certificate, "MAX_SYMBOLIC_WORK", 0)
    monkeypatch.setattr(certificate, "MAX_DIFFERENCE_WORK", 0)
    assert [route.name for route in reference.verify(small(0), thorough=True).routes] == [POWER_SERIES]


def test_maxouts_of_maxouts_are_too_much_for_sympy():
    """A minute's work for 30 parameters, whose loss has no more operations than others that take a second."""
    net = dl.MLP(3, [dl.Maxout(2, 3), dl.Maxout(2, 3), dl.Dense(1)], "squared_error")
    of = dl.reference_gradient(net, *naive.random_problem(net, np.random.default_rng(0), batch=1))
    assert certified(of, SYMBOLIC).routes == ()


@pytest.mark.parametrize("wide", [arb("nan"), arb(0, "inf")])
def test_entries_of_which_a_route_knows_nothing_do_not_count(wide, monkeypatch, tmp_path):
    def partly_unknown(net: dl.MLP, point: derivatives.Point) -> np.ndarray:
        return np.concatenate([[wide], gradient(net, point)[1:]])

    gradient, of = symbolic_balls.gradient, square()
    monkeypatch.setattr(symbolic_balls, "gradient", partly_unknown)
    made = certified(of, SYMBOLIC)
    assert made.routes[0].n_checks == of.net.n_params - 1
    assert np.isfinite(made.routes[0].detects)
    reference.write(replace(of, certificate=made), tmp_path / "truth.npz")
    assert reference.read(tmp_path / "truth.npz").certificate == made


def test_a_branch_that_balls_leave_open_ends_the_symbolic_route():
    """Relu of tanh(1) - tanh(1), which no precision tells from 0."""
    net = dl.MLP(1, [dl.Dense(2, "tanh"), dl.Dense(1, "relu"), dl.Dense(1)], "squared_error")
    theta = np.array([1.0, 1.0, 0.0, 0.0, 1.0, -1.0, 0.0, 2.0, 0.0])
    of = dl.reference_gradient(net, theta, np.ones((1, 1)), np.array([[-1.0]]), thorough=True)
    assert [route.name for route in of.certificate.routes] == [POWER_SERIES, DIFFERENCES]


def test_where_nothing_is_known_no_route_runs():
    net = dl.MLP(1, [dl.Dense(1)], "squared_error")
    of = dl.reference_gradient(net, np.array([1e200, 0.0]), np.full((1, 1), 1e200), np.ones((1, 1)))
    assert of.certificate.routes == ()
    assert not of.certificate.holds
    assert of.certificate.left_out == ("power series",)


def test_a_certificate_says_what_ran_and_how_sharp_it_was():
    lines = str(reference.verify(small(1), thorough=True)).splitlines()
    assert [line.split(":")[0] for line in lines] == list(ROUTES)
    assert all("holds in" in line and "; detects " in line for line in lines)


# --- an error in the gradient


@pytest.mark.parametrize("seed", [1, 5, 7, 10])
def test_an_error_of_a_millionth_in_any_entry_breaks_it(seed):
    of = truth(seed)
    missed = [i for i in telling(of) if not is_caught(of, with_error(of, i, SMALL_ERROR))]
    assert missed == []
    assert len(telling(of)) > 5


def spread() -> dl.Reference:
    """Entries from 1 to 1e-300, as samples have columns of such sizes."""
    net = dl.MLP.dense([4, 3, 2], "tanh")
    theta, x, y = naive.random_problem(net, np.random.default_rng(0), batch=3)
    return dl.reference_gradient(net, theta, x * np.array([1.0, 1e-100, 1e-200, 1e-300]), y)


def test_an_error_in_an_entry_that_is_1e300_times_smaller_breaks_it():
    of = spread()
    assert np.abs(of.gradient).min() < 1e-298 * np.abs(of.gradient).max()
    assert all(is_caught(of, with_error(of, i, SMALL_ERROR)) for i in range(of.net.n_params))


def test_subnormal_entries_do_not_blind_it_to_the_others():
    net = dl.MLP.dense([2, 3, 2], "tanh")
    theta, x, y = naive.random_problem(net, np.random.default_rng(0), batch=3)
    of = dl.reference_gradient(net, theta, x * np.array([1.0, 1e-321]), y)
    subnormal = (of.gradient != 0) & (np.abs(of.gradient) < 2.0**-1022)
    assert subnormal.any()
    assert len(telling(of)) > 5
    assert of.certificate.routes[0].detects < 1e-12
    assert all(is_caught(of, with_error(of, i, SMALL_ERROR)) for i in telling(of))


def test_an_entry_that_is_not_zero_but_called_so_breaks_it():
    of = truth(5)
    for i in telling(of):
        gradient = of.gradient.copy()
        gradient[i] = 0
        assert is_caught(of, gradient), i


def test_an_entry_that_is_zero_but_not_called_so_breaks_it():
    net = dl.MLP.dense([2, 3, 2], "relu")
    rng = np.random.default_rng(0)
    of = dl.reference_gradient(net, rng.normal(size=net.n_params), rng.normal(size=(2, 2)), np.array([0, 1]))
    zeros = np.flatnonzero(of.gradient == 0)
    for i in zeros:
        gradient = of.gradient.copy()
        gradient[i] = SMALL_ERROR * np.median(np.abs(gradient[gradient != 0]))
        assert is_caught(of, gradient), i
    assert len(zeros)


@pytest.fixture
def one_primal(monkeypatch):
    """The primal of a large network once for every line, as errors in its gradient do not change it."""
    known: dict[Any, Any] = {}

    def kept(program: Any, m: Any, line: Any, x: Any, y: Any) -> Any:
        key = tuple(map(str, line))
        if key not in known:
            known[key] = primal(program, m, line, x, y)
        return known[key]

    primal = certificate.primal
    monkeypatch.setattr(certificate, "primal", kept)
    return known


def test_an_error_in_any_of_50_entries_of_a_real_sized_network_breaks_it(one_primal):
    rng, net = np.random.default_rng(0), dl.MLP.dense([64, 32, 10], "tanh")
    of = dl.reference_gradient(net, net.init(0), rng.normal(size=(128, 64)), rng.integers(10, size=128))
    assert of.certificate.routes[0].detects < 1e-20
    for k, i in enumerate(rng.choice(net.n_params, 50, replace=False)):
        residual = of.residual + np.where(np.arange(net.n_params) == i, 1e-20 * of.gradient, 0)
        wrong = {"residual": residual} if k % 2 else {"nearest": with_error(of, i, SMALL_ERROR)}
        found = replace(of.entries, **wrong)
        assert not certify(net, of.point, found, (POWER_SERIES,), n_directions=1).holds, net.name_of(i)
    assert len(one_primal) < 10


WHOLE: dict[str, Callable[[dl.Reference], np.ndarray]] = {
    "a block transposed": lambda of: turned(of),
    "a bias dropped": lambda of: without(of, "dense1.bias"),
    "two entries swapped": lambda of: of.gradient[[1, 0, *range(2, len(of.gradient))]],
    "the sign": lambda of: -of.gradient,
    "the sum for the mean": lambda of: of.gradient * len(of.x),
    "one float off in one entry": lambda of: np.append(np.nextafter(of.gradient[:1], np.inf), of.gradient[1:]),
    "float32": lambda of: of.gradient.astype(np.float32).astype(np.float64),
}


def square() -> dl.Reference:
    net = dl.MLP.dense([3, 3, 3], "tanh")
    return dl.reference_gradient(net, *naive.random_problem(net, np.random.default_rng(0), batch=3))


def turned(of: dl.Reference) -> np.ndarray:
    gradient = of.gradient.copy()
    gradient[:9] = gradient[:9].reshape(3, 3).T.ravel()
    return gradient


def without(of: dl.Reference, name: str) -> np.ndarray:
    names = [of.net.name_of(i) for i in range(of.net.n_params)]
    return np.where([found.startswith(name) for found in names], 0, of.gradient)


@pytest.mark.parametrize("fault", WHOLE)
@pytest.mark.parametrize("route", ROUTES)
def test_a_wrong_gradient_breaks_every_route_alone(fault, route):
    of = square()
    assert certified(of, route).holds
    assert is_caught(of, WHOLE[fault](of), route)


@pytest.mark.parametrize("route", [SYMBOLIC, DIFFERENCES])
def test_an_error_of_a_millionth_in_any_entry_breaks_every_other_route_alone(route, monkeypatch):
    """Routes are asked for one entry at a time."""
    of = square()
    for i in range(of.net.n_params):
        one = replace(of.entries, nearest=with_error(of, i, SMALL_ERROR), status=only(i, of))
        made = certify(of.net, of.point, one, (route,))
        assert made.routes[0].n_checks == 1
        assert not made.holds


def only(i: int, of: dl.Reference) -> np.ndarray:
    return np.where(np.arange(of.net.n_params) == i, of.status, KINK)


# --- detects is honest


@pytest.mark.parametrize("route", ROUTES)
def test_an_error_a_little_above_what_a_route_detects_always_breaks_it(route):
    rng, n_tried = np.random.default_rng(3), 0
    for of in [square(), *(small(seed) for seed in range(6))]:
        made = certified(of, route)
        for i in rng.permutation(telling(of))[:4] if made.routes else ():
            detects = max(1.01 * made.routes[0].detects, 2.0**-52 * abs(of.residual[i] / of.gradient[i]))
            residual = of.residual.copy()
            residual[i] += rng.choice([-1, 1]) * detects * of.gradient[i]
            if of.status[i] != KINK or route == POWER_SERIES:
                assert not certified(of, route, residual=residual).holds, of.net.name_of(i)
                n_tried += 1
    assert n_tried > 12


def test_what_power_series_detect_is_honest_on_networks_of_any_scale():
    rng, n_tried = np.random.default_rng(4), 0
    for seed in range(60):
        of = truth(seed)
        for i in rng.permutation(telling(of))[:2] if of.certificate.routes else ():
            detects = max(1.01 * of.certificate.routes[0].detects, 2.0**-52 * abs(of.residual[i] / of.gradient[i]))
            if detects < 1:
                residual = of.residual.copy()
                residual[i] += rng.choice([-1, 1]) * detects * of.gradient[i]
                assert not certified(of, residual=residual).holds, (seed, of.net.name_of(i))
                n_tried += 1
    assert n_tried > 80


def test_wide_enclosures_detect_little_and_say_so():
    of = square()
    wide = certified(of, radius=np.abs(of.gradient) * 1e-3)
    assert wide.holds
    assert wide.routes[0].detects > 1e-3
    narrow = certified(of)
    assert narrow.routes[0].detects < 1e-20


# --- a wrong adjoint, one for every operation, in each of its places


def classifier(*layers: Any, width: int = 3, **options: Any) -> dl.MLP:
    """A network whose first layer leaves what follows something to pass on."""
    return dl.MLP(3, [dl.Dense(width, "tanh"), *layers, dl.Dense(3)], **options)


NETWORKS: dict[str, dl.MLP] = {
    "affine": classifier(dl.Dense(3)),
    "activation": classifier(dl.Elementwise("prelu")),
    "add": classifier(dl.Residual([dl.Dense(3, "softplus")])),
    "multiply": classifier(dl.Multiply(2), width=4),
    "maxout": classifier(dl.Maxout(2)),
    "softmax": classifier(dl.Softmax()),
    "batch_norm": classifier(dl.BatchNorm()),
    "batch_norm_inference": classifier(dl.BatchNorm((0.1, -0.2, 0.3), (1.0, 2.0, 0.5))),
    "dropout": classifier(dl.Dropout(0.4, seed=4)),
    "label_smoothing": classifier(label_smoothing=0.1),
    "loss": classifier(),
    "penalty": classifier(l1=0.1, l2=0.2),
}
CHANGES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "off by a millionth": lambda bar: bar * (1 + SMALL_ERROR),
    "forgotten": lambda bar: 0 * bar,
    "rows swapped": lambda bar: bar[::-1],
    "columns swapped": lambda bar: bar[..., ::-1],
    "with its sign turned": lambda bar: -bar,
}


def arguments_of(name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return naive.random_problem(NETWORKS[name], np.random.default_rng(6), batch=3)


def last_of(program: Program, operation: str) -> Instruction:
    return [step for step in program.instructions if step.operation == operation][-1]


def places(name: str) -> list[tuple[str, int]]:
    """What an operation contributes to: cotangents of inputs that are not given, and gradients of parameters."""
    program = NETWORKS[name].program
    step = last_of(program, name)
    inputs = [("input", k) for k, value in enumerate(step.inputs) if value >= program.n_given]
    return inputs + [("parameter", k) for k in range(len(step.parameters))]


def test_a_network_holds_every_operation():
    assert set(NETWORKS) == set(OPERATIONS)
    for name, net in NETWORKS.items():
        assert name in {step.operation for step in net.program.instructions}
    silent = {name for name in NETWORKS if not places(name)}
    assert silent == {"label_smoothing"}, "it reads targets, of which no parameter knows"


PLACES = [(name, *place) for name in NETWORKS for place in places(name)]


def changed(rule: Callable, kind: str, place: int, change: Callable[[np.ndarray], np.ndarray]) -> Callable:
    """The rule, with one of its contributions changed in the last instruction that it is used for."""

    def wrong(sweep: ball_sweep.Sweep, instruction: Instruction, number: int) -> None:
        if instruction != last_of(sweep.program, instruction.operation):
            rule(sweep, instruction, number)
            return
        if kind == "parameter":
            parameter, before = instruction.parameters[place], sweep.gradient.copy()
            rule(sweep, instruction, number)
            contribution = parameter.of(sweep.gradient) - parameter.of(before)
            parameter.of(sweep.gradient)[...] = parameter.of(before) + change(contribution)
            return
        wanted = iter([k for k, value in enumerate(instruction.inputs) if sweep.wants(value)])
        add = sweep.add
        sweep.add = lambda value, bar: add(value, change(bar) if next(wanted) == place else bar)  # type: ignore
        rule(sweep, instruction, number)
        sweep.add = add  # type: ignore

    return wrong


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize(("name", "kind", "place"), PLACES)
def test_a_wrong_contribution_of_an_operation_is_caught(name, kind, place, change, monkeypatch):
    rule = ball_sweep.RULES.get(name, ball_sweep.by_series)
    monkeypatch.setitem(ball_sweep.RULES, name, changed(rule, kind, place, CHANGES[change]))
    with pytest.raises(CertificateBroken):
        dl.reference_gradient(NETWORKS[name], *arguments_of(name))


@pytest.mark.parametrize("name", NETWORKS)
def test_without_a_fault_the_same_networks_pass(name, monkeypatch):
    rule = ball_sweep.RULES.get(name, ball_sweep.by_series)
    for kind, place in places(name):
        monkeypatch.setitem(ball_sweep.RULES, name, changed(rule, kind, place, lambda bar: bar))
        assert dl.reference_gradient(NETWORKS[name], *arguments_of(name)).certificate.holds


def every_value(program: Any) -> frozenset[int]:
    return frozenset(range(len(program.widths)))


def slopes_scaled(*arguments: Any) -> np.ndarray:
    return SLOPES_ALONG(*arguments) * (1 + SMALL_ERROR)


def seeds_of_a_sum(program: Any, system: Any, batch: int, parts: int | None = None) -> dict[int, np.ndarray]:
    return {program.losses: system.array(np.ones(batch))}


SLOPES_ALONG = FirstSlopes._along
AROUND_THE_RULES: dict[str, Callable[[Any], None]] = {
    "all slopes off by a millionth": lambda patch: patch.setattr(FirstSlopes, "_along", slopes_scaled),
    "biases that count nowhere": lambda patch: patch.setattr(ball_sweep, "_centred", every_value),
    "the sum for the mean": lambda patch: patch.setattr(derivatives, "loss_seeds", seeds_of_a_sum),
    "no penalties": lambda patch: patch.setitem(ball_sweep.RULES, "penalty", lambda *_: None),
}


@pytest.mark.parametrize("fault", AROUND_THE_RULES)
def test_a_fault_around_the_rules_is_caught(fault, monkeypatch):
    AROUND_THE_RULES[fault](monkeypatch)
    with pytest.raises(CertificateBroken, match=r"gradient of MLP 3-3-3 must agree on all routes, got\npower series"):
        dl.reference_gradient(NETWORKS["penalty"], *arguments_of("penalty"))


# --- the routes do not share what they check


def verdicts(made: dl.Reference) -> Iterator[tuple[str, bool]]:
    for route in certify(made.net, made.point, made.entries).routes:
        yield route.name, route.holds


def bare_reference(net: dl.MLP, *arguments: np.ndarray) -> dl.Reference:
    """Without the power series, which raise an exception if they are broken."""
    enclosure = dl.Certified().prepare(net).enclose(*arguments)
    fields = {field.name: getattr(enclosure, field.name) for field in dataclasses.fields(enclosure)}
    return dl.Reference(**fields, **dict(zip("theta x y".split(), arguments, strict=True)), certificate=Certificate(()))


def tanh(z: Any) -> Any:
    up, down = z.exp(), (-z).exp()
    return (up - down) / (up + down)


def steeper(z: Any) -> Any:
    """The right value, and a slope that is off by a millionth."""
    return tanh(z + (z - z[0]) * SMALL_ERROR)


def squashed(z: Any) -> Any:
    """Another function, with its own slope."""
    return tanh(z) * (1 - SMALL_ERROR)


def test_a_slope_that_sweep_and_series_share_breaks_differences_and_symbols(monkeypatch):
    monkeypatch.setattr(Series, "tanh", elementwise(steeper))
    made = bare_reference(NETWORKS["loss"], *arguments_of("loss"))
    assert dict(verdicts(made)) == {POWER_SERIES: True, SYMBOLIC: False, DIFFERENCES: False}


def test_a_function_that_is_wrong_in_all_balls_breaks_symbols(monkeypatch):
    for system in (Series, Balls):
        monkeypatch.setattr(system, "tanh", elementwise(squashed))
    made = bare_reference(NETWORKS["loss"], *arguments_of("loss"))
    assert dict(verdicts(made)) == {POWER_SERIES: True, SYMBOLIC: False, DIFFERENCES: True}


def test_a_wrong_rule_breaks_all_three(monkeypatch):
    rule = changed(ball_sweep.affine, "input", 0, CHANGES["off by a millionth"])
    monkeypatch.setitem(ball_sweep.RULES, "affine", rule)
    made = bare_reference(NETWORKS["loss"], *arguments_of("loss"))
    assert dict(verdicts(made)) == dict.fromkeys(ROUTES, False)


# --- SymPy's derivatives in balls


@pytest.mark.parametrize("pieces", [2, 3])
def test_pieces_within_pieces_are_evaluated(pieces):
    net = dl.MLP(2, [dl.Maxout(2, pieces), dl.Dense(2)])
    of = dl.reference_gradient(net, *naive.random_problem(net, np.random.default_rng(pieces), batch=2), thorough=True)
    assert [route.name for route in of.certificate.routes] == list(ROUTES)


def test_powers_that_are_neither_whole_nor_half_are_refused():
    import sympy

    with pytest.raises(NotImplementedError, match="powers must be whole or half, got 1/3"):
        symbolic_balls._power(None, sympy.Rational(1, 3))


# --- references


def test_a_file_whose_entry_and_bounds_were_changed_is_read_and_caught(tmp_path):
    of = truth(5)
    for i in telling(of)[::4]:
        wrong = with_error(of, i, SMALL_ERROR)
        lower, upper = (np.where(wrong == of.gradient, bound, wrong) for bound in (of.lower, of.upper))
        reference.write(replace(of, gradient=wrong, lower=lower, upper=upper), tmp_path / "truth.npz")
        read = reference.read(tmp_path / "truth.npz")
        assert read.certificate == of.certificate
        with pytest.raises(CertificateBroken, match="must agree on all routes"):
            reference.verify(read)


def test_a_file_as_it_was_written_is_verified_as_it_was_made(tmp_path):
    of = truth(5)
    reference.write(of, tmp_path / "truth.npz")
    assert reference.verify(reference.read(tmp_path / "truth.npz")) == of.certificate


@pytest.mark.parametrize("changed", ["theta", "x"])
def test_a_file_whose_arguments_were_changed_is_caught(changed):
    of = truth(5)
    with pytest.raises(CertificateBroken):
        reference.verify(replace(of, **{changed: getattr(of, changed) * (1 + SMALL_ERROR)}))


def test_a_certificate_can_be_made_again():
    assert reference.verify(truth(3)) == truth(3).certificate
    assert reference.verify(truth(3), seed=1) != truth(3).certificate


# --- what a certificate cannot be talked out of


def test_an_entry_that_overflows_keeps_no_other_from_being_certified():
    net = dl.MLP.dense([2, 2], loss="squared_error")
    theta, x = np.array([1e200, 0.0, 0.0, 1.0, 0.0, 0.0]), np.array([[1e150, 1.0]])
    of = dl.reference_gradient(net, theta, x, np.zeros((1, 2)))
    assert np.isinf(of.gradient).any()
    assert of.certificate.holds
    forged = replace(of, gradient=of.gradient + 5 * np.eye(6)[5])
    with pytest.raises(CertificateBroken):
        reference.verify(forged)


@pytest.mark.parametrize("options", [{"n_directions": 0}, {"n_directions": 2.5}, {"seed": -1}])
def test_no_direction_is_no_certificate(options):
    with pytest.raises(ValueError, match="n_directions must be 1 or more and seed 0 or more, got"):
        reference.verify(truth(0), **options)


def test_only_a_reference_can_be_verified():
    with pytest.raises(TypeError, match="reference must have its arguments, got ndarray"):
        reference.verify(truth(0).gradient)


def test_what_is_left_out_is_said():
    net = dl.MLP.dense([30, 30, 10])
    of = dl.reference_gradient(net, net.init(0), np.ones((2, 30)), np.array([0, 1]), thorough=True)
    assert of.certificate.left_out == ("symbolic", "central differences")
    assert "symbolic: too much work, or nothing to tell" in str(of.certificate)


def test_precision_is_not_doubled_where_it_does_not_help(monkeypatch):
    """Two equal units under a maxout: no ball tells which is larger, however narrow."""
    calls = []
    monkeypatch.setattr(certificate, "primal", lambda *given: calls.append(0) or primal(*given))
    net = dl.MLP(2, [dl.Dense(2, "tanh"), dl.Maxout(1), dl.Dense(2)])
    of = dl.reference_gradient(net, np.full(net.n_params, 0.01), np.ones((1, 2)), np.array([0]))
    assert len(calls) <= 3 * certificate.N_DIRECTIONS
    assert all(route.detects < 1 for route in of.certificate.routes)
