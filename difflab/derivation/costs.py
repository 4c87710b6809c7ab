"""Laws of what deriving and compiling took, by tests/fit_costs.py from ``results/expression_swell/rows.csv``.

By label and figure: factor, exponent, quantile, count, centre and scatter of a law.
"""

from __future__ import annotations


PROCESSOR = "Intel(R) Xeon(R) Processor, family 6 model 167"
"""Of the machine of the record."""

FITTED: dict[str, dict[str, tuple[float, float, float, int, float, float]]] = {
    "Symbolic('none')": {
        "seconds": (8.477e-05, 0.9131, 1.667, 13, 11.35, 15.04),
        "extra_bytes": (8354, 0.7266, 1.434, 13, 11.35, 15.04),
    },
    "Symbolic()": {
        "seconds": (0.0003546, 0.713, 0.8038, 17, 11.72, 27.1),
        "extra_bytes": (1.139e05, 0.3373, 0.4436, 17, 11.72, 27.1),
    },
    "Symbolic('during')": {
        "seconds": (0.0004024, 0.8025, 0.3992, 23, 7.094, 16.79),
        "extra_bytes": (4964, 0.8974, 0.2321, 14, 7.47, 11.63),
    },
    "Symbolic('layerwise')": {
        "seconds": (0.0004613, 0.7817, 0.4063, 23, 7.094, 16.79),
        "extra_bytes": (6439, 0.8702, 0.2193, 15, 7.413, 12.3),
    },
    "Symbolic('during', order='forward')": {
        "seconds": (0.002262, 0.4577, 1.135, 22, 10.38, 38.44),
        "extra_bytes": (1.877e05, 0.3663, 0.9945, 22, 10.38, 38.44),
    },
    "Symbolic('during', evaluation='numba')": {
        "seconds": (1.257e-05, 1.72, 0.6618, 19, 6.779, 2.527),
        "extra_bytes": (7896, 1.16, 0.3822, 19, 6.779, 2.527),
    },
    "Symbolic('during', evaluation='c')": {
        "seconds": (0.0002325, 0.9597, 0.2483, 23, 7.094, 16.79),
        "extra_bytes": (6889, 0.7618, 0.1918, 5, 8.453, 3.777),
    },
    "Symbolic(simplification='factor_terms')": {
        "seconds": (0.0001016, 0.9617, 1.915, 10, 11.04, 10.6),
        "extra_bytes": (7.536e04, 0.3496, 0.3261, 9, 11.26, 6.426),
    },
    "Symbolic(engine='symengine')": {
        "seconds": (0.001031, 0.4355, 1.019, 22, 12.69, 100.6),
        "extra_bytes": (1.348e05, 0.298, 0.5788, 20, 12.99, 79.93),
    },
}
