"""Binary floating-point formats, by their parameters [IEEE 754-2019; bfloat16 as in Intel 338302-001]."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Format:
    """A format with ``precision`` bits, the hidden one included, and normal numbers from ``2**least_exponent`` up."""

    name: str
    precision: int
    least_exponent: int

    @property
    def unit_roundoff(self) -> float:
        """The largest relative error of rounding to nearest a number that is not subnormal."""
        return 2.0**-self.precision

    @property
    def smallest_normal(self) -> float:
        return 2.0**self.least_exponent

    @property
    def smallest(self) -> float:
        """The smallest positive number, a subnormal one."""
        return 2.0 ** (self.least_exponent + 1 - self.precision)

    @property
    def largest(self) -> float:
        """The largest finite number."""
        return (2.0 - 2.0 ** (1 - self.precision)) * 2.0 ** (1 - self.least_exponent)

    def holds(self, numbers: np.ndarray) -> np.ndarray:
        """Which numbers are of this format, bool of their shape."""
        numbers = np.asarray(numbers, np.float64)
        ulp = self.ulp(numbers)
        with np.errstate(invalid="ignore"):
            return np.isfinite(ulp) & (np.fmod(numbers, np.where(np.isfinite(ulp), ulp, 1.0)) == 0)

    def ulp(self, numbers: np.ndarray) -> np.ndarray:
        """The distance from the magnitude of each number to the next larger one in this format; inf beyond the largest.

        For a number between two of the format it is the distance of these two [Muller et al. 2018, 2.3.2].
        """
        numbers = np.abs(np.asarray(numbers, np.float64))
        exponents = np.where(numbers > 0, np.frexp(numbers)[1] - 1, self.least_exponent)
        exponents = np.maximum(exponents, self.least_exponent)
        return np.where(numbers <= self.largest, np.ldexp(1.0, exponents + 1 - self.precision), np.inf)


FORMATS = {
    made.name: made
    for made in (
        Format("float64", 53, -1022),
        Format("float32", 24, -126),
        Format("float16", 11, -14),
        Format("bfloat16", 8, -126),
    )
}
