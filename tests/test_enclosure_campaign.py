"""Enclosures of many small random networks, beside 2000 bits and beside a forward pass that shares no adjoint.

A few networks in every run of the tests. The campaign, with its record in ``results/campaigns/enclosures.json``::

    export DIFFLAB_ENCLOSURE_NETWORKS=100000 DIFFLAB_CAMPAIGN_RESULTS=results/campaigns
    python -m pytest tests/test_enclosure_campaign.py -k test_the_campaign

It takes all cores, or as many as ``DIFFLAB_CAMPAIGN_PROCESSES`` says. A violation is named with its seed, from which
``campaigns.problem(seed)`` makes the same network again.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import campaigns
import naive
import numpy as np
import pytest
from campaigns import problem
from flint import arb

import difflab as dl
from difflab.backends.arguments import checked
from difflab.backends.certified import DTYPES, ENCLOSED, KINK, ROUNDED, Enclosure
from difflab.enclosures.derivatives import Point, gradient_sweep
from difflab.enclosures.precision import FIRST_BITS
from difflab.number_systems import BALLS, SERIES_AHEAD, Array, Series, ball_precision
from difflab.primitives.losses import LOSSES
from difflab.primitives.operations import OPERATIONS
from difflab.program import primal, total, values


N_DEFAULT = 400
N_NETWORKS = campaigns.size("DIFFLAB_ENCLOSURE_NETWORKS", N_DEFAULT)
PROCESSES = campaigns.size("DIFFLAB_CAMPAIGN_PROCESSES", (os.cpu_count() or 1) if N_NETWORKS > N_DEFAULT else 1)
MORE_BITS = 2000
"""Or four times what an enclosure took, if that is more."""

ALL_ENTRIES = 51
"""One network in so many is differentiated forward along every entry."""

N_NAMED = 100
"""Violations beyond which they are only counted."""


# --- the check


@dataclass(frozen=True)
class Truth:
    """Balls at a precision far beyond that of an enclosure.

    Attributes
    ----------
    value : the loss.
    swept : the gradient by the reverse sweep, with left slopes at kinks.
    sides : of entries at a kink, the derivatives to the left and to the right by forward power series.
    forward : of some entries, the derivative with left slopes by forward power series.
    direction, slope : a direction, and the derivative along it by a forward power series.
    """

    value: Any
    swept: Array
    sides: dict[int, tuple[Any, Any]]
    forward: dict[int, Any]
    direction: Array
    slope: Any


def truth(point: Point, made: Enclosure, entries: Iterable[int], rng: np.random.Generator) -> Truth:
    """Everything that an enclosure is compared with; ``entries`` are those to differentiate forward one by one."""
    mantissas = rng.uniform(0.5, 1, len(made.gradient)) * rng.choice([-1.0, 1.0], len(made.gradient))
    for bits in precisions(made):
        with ball_precision(bits):
            try:
                return _truth(point, made, entries, mantissas)
            except (ValueError, ZeroDivisionError):
                continue
    raise ArithmeticError(f"no precision up to {bits} bits will do")


def precisions(made: Enclosure) -> list[int]:
    """More than the enclosure took, and more again where Arb then still divides by a series around 0."""
    return [max(MORE_BITS, made.bits + 1000) * 2**k for k in range(4)]


def _truth(point: Point, made: Enclosure, entries: Iterable[int], mantissas: np.ndarray) -> Truth:
    theta, x, y = point.balls()
    computed = values(point.program, BALLS, theta, x, y)

    def forward(axis: Array, m: Series) -> Any:
        return primal(point.program, m, m.line(theta, axis), m.array(x), m.array(y))[1]

    def of_entry(i: int, side: int, m: Series) -> Any:
        axis = np.zeros(len(theta), object)
        axis[i] = side
        return side * forward(axis, m)

    direction = BALLS.array(mantissas) * equalising(made)
    return Truth(
        value=total(point.program, BALLS, computed),
        swept=gradient_sweep(point.program, theta, computed, Series()).gradient,
        sides={i: (of_entry(i, -1, SERIES_AHEAD), of_entry(i, 1, SERIES_AHEAD)) for i in torn(made)},
        forward={i: of_entry(i, 1, Series()) for i in entries},
        direction=direction,
        slope=forward(direction, Series()),
    )


def torn(made: Enclosure) -> list[int]:
    return np.flatnonzero(made.status == KINK).tolist()


def equalising(made: Enclosure) -> Array:
    """Powers of two that bring all entries of a gradient to one size, but for those that are known badly."""
    sizes, radii = (np.frexp(np.where(np.isfinite(a), a, 0))[1] for a in (made.gradient, made.radius))
    exponents = np.where(made.radius > 0, np.maximum(sizes, radii + 64), sizes)
    return np.array([arb((1, -int(e))) for e in exponents], object)


def violations(made: Enclosure, true: Truth) -> Iterator[str]:
    """What an enclosure says that the truth contradicts for certain."""
    if true.value < made.value_lower or true.value > made.value_upper:
        yield "value"
    at_kink = set(torn(made))
    for i, t in [*enumerate(true.swept), *true.forward.items()]:
        name = made.net.name_of(i)
        if is_beyond_the_radius(made, i, t):
            yield f"radius of {name}"
        if i not in at_kink and (t < float(made.lower[i]) or t > float(made.upper[i])):
            yield f"bounds of {name}"
        if made.status[i] == ROUNDED and (float(t.upper()) < made.gradient[i] or float(t.lower()) > made.gradient[i]):
            yield f"rounding of {name}"
    for i, sides in true.sides.items():
        if any(side < float(made.lower[i]) or side > float(made.upper[i]) for side in sides):
            yield f"sides of {made.net.name_of(i)}"
    if not (true.swept * true.direction).sum().overlaps(true.slope):
        yield "the sweep itself"
    if np.isfinite(made.radius).all() and not (stated(made) * true.direction).sum().overlaps(true.slope):
        yield "direction"


def is_beyond_the_radius(made: Enclosure, i: int, t: Any) -> bool:
    if not np.isfinite(made.radius[i]):
        return False
    return bool(abs(t - float(made.gradient[i]) - float(made.residual[i])) > float(made.radius[i]))


def stated(made: Enclosure) -> Array:
    """The gradient as an enclosure gives it."""
    balls = [arb(0, radius) for radius in made.radius.tolist()]
    return BALLS.array(made.gradient) + BALLS.array(made.residual) + np.array(balls, object)


def undecided(made: Enclosure, true: Truth) -> int:
    """Entries called rounded that the truth is too wide to confirm."""
    rounded = zip(true.swept, made.status == ROUNDED, strict=True)
    return sum(bool(is_rounded) and float(t.lower()) != float(t.upper()) for t, is_rounded in rounded)


Tamper = Callable[[Enclosure], Enclosure]


def check(seed: int, tamper: Tamper | None = None) -> tuple[Counter, list[str]]:
    """Counts, and violations by name, of one network."""
    net, *arguments = problem(seed)
    made = dl.Certified().prepare(net).enclose(*arguments)
    made = tamper(made) if tamper else made
    given = checked(net, *arguments, DTYPES)
    point = Point(net.program, given.theta, given.x, given.y)
    entries = range(net.n_params) if seed % ALL_ENTRIES == 0 else ()
    try:
        true = truth(point, made, entries, np.random.default_rng([8, seed]))
    except ArithmeticError:
        return Counter({"networks": 1, "entries": net.n_params, "undecided": net.n_params}), []
    with ball_precision(precisions(made)[0]):
        found = [f"{seed}: {violation}" for violation in violations(made, true)]
        n_undecided = undecided(made, true)
    counts = {name: int((made.status == name).sum()) for name in (ROUNDED, ENCLOSED, KINK)}
    figures = {
        "networks": 1,
        "entries": net.n_params,
        "entries_forward": len(entries),
        "networks_forward_in_every_entry": int(bool(entries)),
        "networks_at_a_kink": int(bool(true.sides)),
        "networks_of_more_than_128_bits": int(made.bits > FIRST_BITS),
        "entries_that_are_zero": int((made.gradient == 0).sum()),
        "undecided": n_undecided,
        "violations": len(found),
        **counts,
    }
    return Counter(figures), found


def check_all(seeds: Sequence[int], tamper: Tamper | None = None) -> tuple[Counter, list[str]]:
    counts, found = Counter(), []
    for seed in seeds:
        more, named = check(seed, tamper)
        counts.update(more)
        found += named
    return counts, found


def campaign(n: int, processes: int = 1, tamper: Tamper | None = None) -> dict[str, Any]:
    """Figures of the first ``n`` networks."""
    start, counts, found = time.perf_counter(), Counter(), []
    for more, named in campaigns.in_blocks(partial(check_all, tamper=tamper), range(n), processes):
        counts.update(more)
        found += named
    return {
        "seeds": [0, n],
        **counts,
        "seconds": round(time.perf_counter() - start, 1),
        "processes": processes,
        "bits": f"{MORE_BITS}, or 1000 more than an enclosure took",
        "violations_by_name": found[:N_NAMED],
    }


# --- the campaign


@pytest.mark.timeout(0 if N_NETWORKS > N_DEFAULT else 300)
def test_the_campaign_finds_no_violation():
    figures = campaign(N_NETWORKS, PROCESSES)
    campaigns.record("enclosures", figures)
    assert figures["networks"] == N_NETWORKS
    assert figures["violations_by_name"] == []
    assert figures["undecided"] == 0


def test_the_default_networks_are_of_every_kind():
    """All rows of all tables; kinks, ties and saturation; one unit and several samples."""
    problems = [problem(seed) for seed in range(N_DEFAULT)]
    steps = [step for net, *_ in problems for step in net.program.instructions]
    assert {step.operation for step in steps} == set(OPERATIONS)
    functions = {step.function for step in steps if step.operation == "activation"}
    assert functions == set(naive.ACTIVATION_NAMES) - {"identity"}
    assert {net.loss for net, *_ in problems} == set(LOSSES)
    assert {len(x) for _, _, x, _ in problems} == {1, 2, 3}


# --- the check is one


def one_float_up(a: np.ndarray) -> np.ndarray:
    return np.nextafter(a, np.inf)


FAULTS: dict[str, tuple[Tamper, str]] = {
    "a lower bound": (lambda made: replace(made, lower=one_float_up(made.lower)), "bounds"),
    "an upper bound": (lambda made: replace(made, upper=-one_float_up(-made.upper)), "bounds"),
    "an entry": (lambda made: replace(made, gradient=one_float_up(made.gradient)), "rounding"),
    "a residual": (lambda made: replace(made, residual=made.residual + np.spacing(np.abs(made.gradient))), "radius"),
    "the value's bounds": (lambda made: replace(made, value_lower=one_float_up(made.value)), "value"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_float_too_high_is_noticed_in_every_network(fault):
    tamper, word = FAULTS[fault]
    for seed in range(20):
        _, found = check(seed, tamper)
        assert any(word in violation for violation in found), seed


def with_a_side_cut_off(made: Enclosure) -> Enclosure:
    return replace(made, upper=np.where(made.status == KINK, -one_float_up(-made.upper), made.upper))


def test_a_one_sided_derivative_that_is_left_out_is_noticed():
    n_torn = 0
    for seed in range(60):
        counts, found = check(seed, with_a_side_cut_off)
        assert any("sides" in violation for violation in found) == bool(counts["networks_at_a_kink"]), seed
        n_torn += counts["networks_at_a_kink"]
    assert n_torn >= 3


def test_an_error_beyond_the_residual_shows_along_a_direction():
    """Of one part in 1e12, where entries are known to 1e-16; in the last of them, however small that is."""
    n_planted = 0
    for seed in range(100):
        found = check(seed, with_one_entry_off)[1]
        assert not found or any("direction" in violation for violation in found), seed
        n_planted += bool(found)
    assert n_planted > 80


def with_one_entry_off(made: Enclosure) -> Enclosure:
    residual, normal = made.residual.copy(), np.flatnonzero(np.abs(made.gradient) > 1e-290)
    if len(normal):
        residual[normal[-1]] += 1e-12 * made.gradient[normal[-1]]
    return replace(made, residual=residual)


def test_a_network_without_a_truth_is_undecided_and_ends_no_campaign(monkeypatch):
    def refused(*_: Any) -> Truth:
        raise ValueError("planted")

    monkeypatch.setattr(sys.modules[__name__], "_truth", refused)
    figures = campaign(2)
    assert figures["networks"] == 2
    assert figures["undecided"] == figures["entries"] > 0


def test_processes_find_what_one_finds():
    one, two = campaign(2 * campaigns.BLOCK), campaign(2 * campaigns.BLOCK, processes=2)
    assert {**one, "seconds": 0, "processes": 0} == {**two, "seconds": 0, "processes": 0}


# --- the record


def test_a_record_has_figures_and_provenance_and_no_path(tmp_path, monkeypatch):
    monkeypatch.setenv(campaigns.RESULTS, str(tmp_path))
    path = campaigns.record("tried", {"networks": 3})
    content = json.loads(path.read_text())
    assert path == tmp_path / "tried.json"
    assert content["figures"] == {"networks": 3}
    assert {"campaign", "date", "commit", "environment"} < set(content)
    assert content["environment"]["packages"]["python-flint"]
    assert str(tmp_path.parent) not in path.read_text()


def test_without_a_folder_there_is_no_record(monkeypatch):
    monkeypatch.delenv(campaigns.RESULTS, raising=False)
    assert campaigns.record("tried", {"networks": 3}) is None
