"""A certificate of a gradient that does not trust the reverse sweep which made it: other routes to the same numbers.

Along random directions, the primal in power series; for small problems, entry by entry, SymPy's derivative evaluated in
balls, and a central difference, where derivatives only bound what it leaves. All are proven enclosures, and must
overlap the gradient's.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import msgspec
import numpy as np

from difflab.counting import loss_tree_operations
from difflab.enclosures.derivatives import Point
from difflab.enclosures.enclosed import ENCLOSED, KINK, Enclosed
from difflab.enclosures.precision import FIRST_BITS, MAX_BITS, doubling
from difflab.errors import Undecided
from difflab.network import MLP
from difflab.number_systems import BALLS, FORMATS, SERIES, SERIES_BOTH_SIDES, Array, ball_precision
from difflab.program import primal


N_DIRECTIONS = 2
DIFFERENCE_DIGITS = 80
"""Digits to which a central difference follows its derivative, where that is of order 1."""

MAX_DIFFERENCE_WORK = 20_000
MAX_SYMBOLIC_WORK = 50_000
"""Some seconds' worth of what each of the two costs most of."""

RouteName = Literal["power series", "symbolic", "central differences"]
POWER_SERIES: RouteName = "power series"
SYMBOLIC: RouteName = "symbolic"
DIFFERENCES: RouteName = "central differences"
ROUTES = POWER_SERIES, SYMBOLIC, DIFFERENCES


Count = Annotated[int, msgspec.Meta(ge=1)]
Size = Annotated[float, msgspec.Meta(ge=0)]


class Route(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One independent way to the gradient, and how it compares.

    Attributes
    ----------
    name : one of ``ROUTES``.
    n_checks : directions, or entries, that were compared.
    holds : whether all enclosures overlapped.
    gradient_radius, route_radius : the largest radii of the two sides, relative to what the gradient's entries add up
        to along a direction, or to the entry.
    detects : the least relative error that is sure to have been noticed in any one entry, unless that is only
        enclosed, or subnormal; entries at a kink are seen by power series alone, and their bounds by no route.
    """

    name: RouteName
    n_checks: Count
    holds: bool
    gradient_radius: Size
    route_radius: Size
    detects: Size

    def __str__(self) -> str:
        verdict = "holds" if self.holds else "BROKEN"
        what = "directions" if self.name == POWER_SERIES else "entries"
        radii = f"radii {self.gradient_radius:.1e} of the gradient, {self.route_radius:.1e} of the route"
        return f"{self.name}: {verdict} in {self.n_checks} {what}; {radii}; detects {self.detects:.1e}"


class Certificate(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What other routes say of a gradient.

    Attributes
    ----------
    routes : those that ran and tell something.
    left_out : those that were to run, and take too much work for this network or tell nothing of this gradient.
    """

    routes: tuple[Route, ...]
    left_out: tuple[RouteName, ...] = ()

    @property
    def holds(self) -> bool:
        """Whether there is a route, and none contradicts the gradient."""
        return bool(self.routes) and not self.is_broken

    @property
    def is_broken(self) -> bool:
        return not all(route.holds for route in self.routes)

    def __str__(self) -> str:
        left_out = [f"{name}: too much work, or nothing to tell" for name in self.left_out]
        return "\n".join([*map(str, self.routes), *left_out]) or "no route was to run"


class CertificateBroken(ArithmeticError):
    """Two proven enclosures of one derivative do not overlap: one of the two routes is wrong."""


@dataclass(frozen=True)
class _Comparison:
    """Two balls that ought to overlap, and what entries at stake weigh in them."""

    of_gradient: Any
    of_route: Any
    weight: float

    @property
    def overlaps(self) -> bool:
        return bool(self.of_gradient.overlaps(self.of_route))

    @property
    def is_telling(self) -> bool:
        """Whether it contradicts, or would contradict an entry of twice its size."""
        return not self.overlaps or self.relative(self.of_gradient) + self.relative(self.of_route) < 0.5

    def relative(self, ball: Any) -> float:
        return float((ball.rad() / self.weight).upper()) if self.weight else np.inf


def certify(
    net: MLP,
    point: Point,
    found: Enclosed,
    routes: Collection[str] = ROUTES,
    n_directions: int = N_DIRECTIONS,
    seed: int = 0,
) -> Certificate:
    """Compare a gradient with what other routes give; those that are not feasible for this network are left out.

    Parameters
    ----------
    point : where the gradient was taken
    found : enclosures of its entries, (n_params,)
    routes : names of those that may run
    n_directions : how many random directions the power series go along
    seed : of these directions
    """
    if not point.is_finite:
        return Certificate(())
    smooth = np.flatnonzero((found.status != KINK) & _is_known(found))
    compared: dict[RouteName, list[_Comparison]] = {}
    if POWER_SERIES in routes:
        compared[POWER_SERIES] = _along_directions(point, found, n_directions, np.random.default_rng(seed))
    if SYMBOLIC in routes and _symbolic_work(net, point) <= MAX_SYMBOLIC_WORK:
        compared[SYMBOLIC] = _symbolic(net, point, found, smooth)
    if DIFFERENCES in routes and _difference_work(point) <= MAX_DIFFERENCE_WORK:
        compared[DIFFERENCES] = _differences(point, found, smooth)
    telling = {name: [comparison for comparison in made if comparison.is_telling] for name, made in compared.items()}
    made = tuple(_route(name, comparisons) for name, comparisons in telling.items() if comparisons)
    return Certificate(made, tuple(name for name in ROUTES if name in routes and not telling.get(name)))


def _is_known(found: Enclosed) -> np.ndarray:
    """Which entries have a finite enclosure."""
    return np.isfinite(found.nearest) & np.isfinite(found.radius)


def _difference_work(point: Point) -> int:
    """In products of weights: two primals for every parameter."""
    return 2 * len(point.theta) ** 2 * len(point.x)


def _symbolic_work(net: MLP, point: Point) -> int:
    """In operations of the loss written out: one derivative of it for every parameter.

    SymPy goes through the orders in which the pieces of a maxout may lie, and of all maxouts together.
    """
    batch, program = len(point.x) if net.program.couples_samples else 1, net.program
    maxouts = (step for step in program.instructions if step.operation == "maxout")
    orders = math.prod(math.factorial(program.widths[step.inputs[0]] // step.width) for step in maxouts)
    return loss_tree_operations(program, net.n_params, batch) * net.n_params * orders


def _route(name: RouteName, compared: list[_Comparison]) -> Route:
    """A relative error in an entry is noticed once it moves its side by more than both radii, twice."""
    gradient_radius = max(c.relative(c.of_gradient) for c in compared)
    route_radius = max(c.relative(c.of_route) for c in compared)
    return Route(
        name=name,
        n_checks=len(compared),
        holds=all(c.overlaps for c in compared),
        gradient_radius=gradient_radius,
        route_radius=route_radius,
        detects=2 * (gradient_radius + route_radius),
    )


def _along_directions(point: Point, found: Enclosed, n: int, rng: np.random.Generator) -> list[_Comparison]:
    made = (_along_a_direction(point, found, rng) for _ in range(n))
    return [comparison for comparison in made if comparison is not None]


def _along_a_direction(point: Point, found: Enclosed, rng: np.random.Generator) -> _Comparison | None:
    """<gradient, v> beside the first-order term of the loss at theta + t v, at a precision that makes it sharp.

    Directions are weighted so that all entries of the gradient count alike: an error in the least of them shows as
    much as one in the largest. Entries without an enclosure stay where they are.
    """
    known = _is_known(found)
    entries, radii = found.mapped(lambda array: array[known]), []
    mantissas = rng.choice([-1.0, 1.0], len(known)) * rng.uniform(0.5, 1.0, len(known))

    def compare(bits: int) -> tuple[_Comparison, bool]:
        moves = BALLS.array(mantissas[known]) * _powers_of_two(_exponents(entries))
        terms, direction = _balls(entries) * moves, np.full(len(known), 0, object)
        direction[known] = moves
        inner, weight = terms.sum(), _least(terms[_is_certain(entries)])
        line = SERIES.line(BALLS.array(point.theta), direction)
        slope = primal(point.program, SERIES, line, SERIES.array(point.x), SERIES.array(point.y))[1]
        radii.append(slope.rad())
        is_sharp = radii[-1] <= inner.rad() or radii[-1] <= SHARP * weight
        return _Comparison(inner, slope, weight), bool(is_sharp or _is_stuck(radii))

    return doubling(compare, None, 4 * MAX_BITS, max(found.bits, FIRST_BITS)) if known.any() else None


def _is_stuck(radii: list[Any]) -> bool:
    """Whether more precision did not help, as around a kink that no precision tells the side of."""
    return len(radii) > 1 and bool(radii[-1] > radii[-2] / 2)


def _symbolic(net: MLP, point: Point, found: Enclosed, entries: np.ndarray) -> list[_Comparison]:
    """Nothing where balls leave a branch open, as at a kink."""
    # Here and not above: importing SymPy takes longer than most certificates.
    from difflab.enclosures import symbolic_balls

    with ball_precision(4 * max(found.bits, FIRST_BITS)):
        try:
            derived = symbolic_balls.gradient(net, point)
        except Undecided:
            return []
        return [_of_entry(found, int(i), derived[i]) for i in entries]


SHARP = 2.0**-60
"""Of the least entry's weight: a radius beyond which more precision would not make a certificate more telling."""

DOUBT = 64
"""Bits to which an entry must be known to count as much as the others along a direction."""


def _exponents(found: Enclosed) -> np.ndarray:
    """Of powers of two that bring all entries to one size; those that are known badly count for little."""
    nearest, radius = (np.frexp(a)[1] for a in (found.nearest, found.radius))
    known = found.nearest != 0
    sizes = np.where(known, nearest, np.median(nearest[known]).astype(int) if known.any() else 0)
    return -np.where(found.radius > 0, np.maximum(sizes, radius + DOUBT), sizes)


def _is_certain(found: Enclosed) -> np.ndarray:
    """Whether an entry is known well enough to speak of a relative error in it."""
    return (found.status != ENCLOSED) & (np.abs(found.nearest) >= FORMATS["float64"].smallest_normal)


def _powers_of_two(exponents: np.ndarray) -> Array:
    from flint import arb

    distinct, which = np.unique(exponents, return_inverse=True)
    powers = np.array([arb((1, int(exponent))) for exponent in distinct], object)
    return powers[which]


def _balls(found: Enclosed) -> Array:
    """The gradient as it is stated: nearest + residual +- radius."""
    from flint import arb

    radii = np.frompyfunc(lambda radius: arb(0, radius), 1, 1)(found.radius)
    return BALLS.array(found.nearest) + BALLS.array(found.residual) + radii


def _least(terms: Array) -> float:
    return min((float(term.abs_lower()) for term in terms), default=1.0)


def _of_entry(found: Enclosed, i: int, route: Any) -> _Comparison:
    """An entry beside what the route gives for it; where it is 0, errors are absolute."""
    entry = found.mapped(lambda a: a[i : i + 1])
    size = abs(float(found.nearest[i]))
    weight = size if _is_certain(entry)[0] else (np.inf if size else 1.0)
    return _Comparison(_balls(entry)[0], route, weight)


def _differences(point: Point, found: Enclosed, entries: np.ndarray) -> list[_Comparison]:
    """Central differences of the primal in balls, each with a ball around it for what the slope changes on the way.

    [f(w + h) - f(w - h)] / 2 h is a mean of the slopes between, and f'(w) is one of them: by no more than all of them
    spread, which a power series over the whole step encloses, do the two differ. That is true at kinks, too.
    """
    digits = DIFFERENCE_DIGITS * 10 // 3
    bits, step = max(found.bits, FIRST_BITS) + 4 * digits, (1, -digits)
    with ball_precision(bits):
        return [_of_entry(found, int(i), _difference(point, int(i), step)) for i in entries]


def _difference(point: Point, i: int, step: tuple[int, int]) -> Any:
    from flint import arb

    theta, x, y = point.balls()
    h = arb(step)

    def loss_at(offset: Any) -> Any:
        moved = theta.copy()
        moved[i] = moved[i] + offset
        return primal(point.program, BALLS, moved, x, y)

    return (loss_at(h) - loss_at(-h)) / (2 * h) + arb(0, 2 * _slopes_within(point, i, h).rad())


def _slopes_within(point: Point, i: int, h: Any) -> Any:
    """A ball of all slopes of the loss along entry ``i``, to either side of every point within ``h``."""
    from flint import arb

    m = SERIES_BOTH_SIDES
    theta, x, y = point.balls()
    theta[i] = theta[i] + arb(0, h)
    axis = np.zeros(len(theta), object)
    axis[i] = 1
    return primal(point.program, m, m.line(theta, axis), m.array(x), m.array(y))[1]


__all__ = ["Certificate", "CertificateBroken", "Route", "certify"]
