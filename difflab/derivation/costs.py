"""Laws of what deriving and compiling took, by tests/fit_costs.py from ``results/expression_swell/rows.csv``.

By label and figure: factor, exponent, quantile, count, centre and scatter of a law.
"""

from __future__ import annotations


PROCESSOR = "Intel(R) Xeon(R) Processor, family 6 model 167"
"""Of the machine of the record."""

FITTED: dict[str, dict[str, tuple[float, float, float, int, float, float]]] = {
    "Symbolic('none')": {
        "seconds": (0.0003207, 0.8384, 1.647, 11, 11.09, 10.81),
        "extra_bytes": (2.29e04, 0.6314, 1.598, 11, 11.09, 10.81),
    },
    "Symbolic()": {
        "seconds": (0.001127, 0.6485, 0.8006, 16, 11.59, 23.09),
        "extra_bytes": (9.172e04, 0.3568, 0.3517, 16, 11.59, 23.09),
    },
    "Symbolic('during')": {
        "seconds": (0.0001634, 0.9748, 0.8904, 23, 7.094, 16.79),
        "extra_bytes": (4951, 0.8978, 0.2277, 14, 7.47, 11.63),
    },
    "Symbolic('layerwise')": {
        "seconds": (0.0002938, 0.9019, 0.8272, 23, 7.094, 16.79),
        "extra_bytes": (6379, 0.8708, 0.2272, 15, 7.413, 12.3),
    },
    "Symbolic('during', order='forward')": {
        "seconds": (0.002683, 0.4952, 1.378, 22, 10.38, 38.44),
        "extra_bytes": (1.858e05, 0.3673, 0.9961, 22, 10.38, 38.44),
    },
    "Symbolic(evaluation='numba')": {
        "seconds": (0.03997, 0.4977, 1.881, 7, 10.83, 6.003),
        "extra_bytes": (1.725e06, 0.2865, 0.9382, 7, 10.83, 6.003),
    },
    "Symbolic(evaluation='c')": {
        "seconds": (0.002061, 0.6116, 0.7297, 15, 11.43, 16.94),
        "extra_bytes": (1.029e05, 0.3203, 0.4337, 14, 11.59, 11.16),
    },
    "Symbolic('during', evaluation='numba')": {
        "seconds": (3.375e-05, 1.652, 1.07, 18, 6.717, 1.216),
        "extra_bytes": (1.062e04, 1.116, 0.3961, 18, 6.717, 1.216),
    },
    "Symbolic('during', evaluation='c')": {
        "seconds": (0.0003581, 0.9668, 0.9086, 23, 7.094, 16.79),
        "extra_bytes": (7255, 0.7569, 0.2419, 5, 8.453, 3.777),
    },
    "Symbolic(simplification='factor_terms')": {
        "seconds": (0.0004224, 0.8924, 3.094, 7, 10.8, 9.171),
        "extra_bytes": (5.835e04, 0.3781, 0.3774, 6, 11.08, 5.825),
    },
    "Symbolic(engine='symengine')": {
        "seconds": (0.00127, 0.459, 0.9789, 22, 12.68, 101.1),
        "extra_bytes": (1.388e05, 0.296, 0.5662, 20, 12.98, 80.6),
    },
}
