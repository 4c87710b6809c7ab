"""Laws of what deriving and compiling took, by tests/fit_costs.py from ``results/expression_swell/rows.csv``.

By label and figure: factor, exponent, quantile, count, centre and scatter of a law.
"""

from __future__ import annotations


PROCESSOR = "Intel(R) Xeon(R) Processor, family 6 model 167"
"""Of the machine of the record."""

FITTED: dict[str, dict[str, tuple[float, float, float, int, float, float]]] = {
    "Symbolic('none')": {
        "seconds": (0.0002678, 0.7599, 0.9202, 17, 11.71, 27.11),
        "extra_bytes": (3216, 0.8304, 1.641, 17, 11.71, 27.11),
    },
    "Symbolic()": {
        "seconds": (0.0005376, 0.6919, 0.742, 18, 11.87, 35.21),
        "extra_bytes": (1.786e05, 0.2982, 0.4115, 18, 11.87, 35.21),
    },
    "Symbolic('during')": {
        "seconds": (0.0001959, 0.9014, 0.4369, 23, 7.094, 16.79),
        "extra_bytes": (5059, 0.8985, 0.2298, 14, 7.47, 11.63),
    },
    "Symbolic('layerwise')": {
        "seconds": (0.0003743, 0.8289, 0.2789, 23, 7.094, 16.79),
        "extra_bytes": (5917, 0.8849, 0.2237, 15, 7.413, 12.3),
    },
    "Symbolic('during', order='forward')": {
        "seconds": (0.001006, 0.5621, 1.214, 22, 10.38, 38.44),
        "extra_bytes": (1.76e05, 0.3763, 1.011, 22, 10.38, 38.44),
    },
    "Symbolic(evaluation='numba')": {
        "seconds": (0.01104, 0.5727, 0.9325, 13, 11.22, 12.7),
        "extra_bytes": (2.76e06, 0.2541, 0.7096, 13, 11.22, 12.7),
    },
    "Symbolic(evaluation='c')": {
        "seconds": (0.0008837, 0.6609, 0.6976, 18, 11.87, 35.21),
        "extra_bytes": (1.455e05, 0.2919, 0.4376, 17, 12.03, 27.11),
    },
    "Symbolic('during', evaluation='numba')": {
        "seconds": (1.636e-05, 1.708, 0.6662, 20, 6.82, 3.17),
        "extra_bytes": (4549, 1.243, 0.3989, 20, 6.82, 3.17),
    },
    "Symbolic('during', evaluation='c')": {
        "seconds": (0.0002377, 0.9766, 0.3018, 23, 7.094, 16.79),
        "extra_bytes": (6522, 0.7743, 0.2117, 5, 8.453, 3.777),
    },
    "Symbolic(simplification='factor_terms')": {
        "seconds": (8.911e-05, 0.9974, 1.913, 11, 11.09, 10.81),
        "extra_bytes": (8.202e04, 0.3424, 0.3177, 10, 11.29, 6.484),
    },
    "Symbolic(engine='symengine')": {
        "seconds": (0.001269, 0.4404, 1.003, 22, 12.68, 101.1),
        "extra_bytes": (1.408e05, 0.297, 0.5751, 20, 12.98, 80.6),
    },
}
