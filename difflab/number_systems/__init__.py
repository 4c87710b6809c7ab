"""Number systems: what the one primal runs on.

A number system is a small vocabulary over arrays whose rows are samples.
Formulas are written in that vocabulary once, and mean the same in all of them::

    array(values)    the exact image of floating-point values
    matmul(a, b)     matrix product
    sum(z)           sum over the last axis
    square(z)        z times z
    sqrt, exp, expm1, log, sin, cos, tanh, erfc   the functions of those names
    expit(z)         1 / (1 + exp(-z))
    log1pexp(z)      log(1 + exp(z))
    xlogx(z)         z log(z), and 0 at 0
    positive_part(z) z where z > 0, else 0; its derivative at 0 is 0
    negative_part(z) z where z <= 0, else 0; its derivative at 0 is 1
    deviation(z, c)  the square root of c + the mean of z**2 over the last axis
    maximum(z)       the largest entry of the last axis; at a tie the derivative is that of the first
    shift(z)         per row, a constant worth subtracting before exp; 0 where nothing overflows
"""

from difflab.number_systems.balls import Balls, Series, ball_precision, coefficient
from difflab.number_systems.floats import Floats
from difflab.number_systems.formats import FORMATS, Format
from difflab.number_systems.symbols import Symbols
from difflab.number_systems.tree_sizes import TreeSize, TreeSizes
from difflab.number_systems.vocabulary import Array, NumberSystem


FLOAT64 = Floats("float64")
FLOAT32 = Floats("float32")
COMPLEX128 = Floats("complex128")
BALLS = Balls()
SERIES = Series()
SERIES_BOTH_SIDES = Series("both")
SERIES_AHEAD = Series("ahead")
TREE_SIZES = TreeSizes()

__all__ = [
    "BALLS",
    "COMPLEX128",
    "FLOAT32",
    "FLOAT64",
    "FORMATS",
    "SERIES",
    "SERIES_AHEAD",
    "SERIES_BOTH_SIDES",
    "TREE_SIZES",
    "Array",
    "Balls",
    "Floats",
    "Format",
    "NumberSystem",
    "Series",
    "Symbols",
    "TreeSize",
    "TreeSizes",
    "ball_precision",
    "coefficient",
]
