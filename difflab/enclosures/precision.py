"""Working precision, doubled until nothing more is to be learned."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from difflab.number_systems import ball_precision


FIRST_BITS = 128
MAX_BITS = 2**14

Found = TypeVar("Found")


def doubling(
    evaluate: Callable[[int], tuple[Found, bool]], unknown: Found, max_bits: int, first_bits: int = FIRST_BITS
) -> Found:
    """The first result that is final, or that of the highest precision.

    Arb refuses a quotient of series whose denominator's ball reaches 0: at that precision nothing is known.

    Parameters
    ----------
    evaluate : ``bits -> (result, whether it is final)``, run at that precision
    unknown : the result of what was refused
    max_bits, first_bits : where to end and where to start
    """
    bits = first_bits
    while True:
        with ball_precision(bits):
            try:
                made, is_final = evaluate(bits)
            except (ValueError, ZeroDivisionError):
                made, is_final = unknown, False
        if is_final or bits >= max_bits:
            return made
        bits = min(2 * bits, max_bits)
