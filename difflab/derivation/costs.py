"""Laws of what deriving and compiling took, by tests/fit_costs.py from ``results/expression_swell/rows.csv``.

By label and figure: factor, exponent, quantile, count, centre and scatter of a law.
"""

from __future__ import annotations


FITTED: dict[str, dict[str, tuple[float, float, float, int, float, float]]] = {
    "Symbolic('none')": {
        "seconds": (0.0003062, 0.8015, 1.211, 13, 11.35, 15.04),
        "extra_bytes": (8132, 0.7287, 1.443, 13, 11.35, 15.04),
    },
    "Symbolic()": {
        "seconds": (0.0004237, 0.7003, 0.5995, 16, 11.75, 27.06),
        "extra_bytes": (1.071e05, 0.3404, 0.3748, 16, 11.75, 27.06),
    },
    "Symbolic('during')": {
        "seconds": (0.0002824, 0.8921, 0.2407, 22, 7.12, 16.45),
        "extra_bytes": (5147, 0.8932, 0.2329, 14, 7.47, 11.63),
    },
    "Symbolic('layerwise')": {
        "seconds": (0.0005934, 0.8029, 0.2627, 22, 7.12, 16.45),
        "extra_bytes": (6318, 0.8713, 0.2316, 15, 7.413, 12.3),
    },
    "Symbolic('during', 'forward')": {
        "seconds": (0.004044, 0.4406, 1.112, 21, 10.42, 37.53),
        "extra_bytes": (1.833e05, 0.3685, 1.034, 21, 10.42, 37.53),
    },
    "Symbolic('during', 'numba')": {
        "seconds": (0.0001987, 1.32, 0.5289, 18, 6.793, 2.458),
        "extra_bytes": (7885, 1.157, 0.3781, 18, 6.793, 2.458),
    },
    "Symbolic('during', 'c')": {
        "seconds": (0.0001856, 1.016, 0.2799, 22, 7.12, 16.45),
        "extra_bytes": (7385, 0.7541, 0.2211, 5, 8.453, 3.777),
    },
    "Symbolic('factor_terms')": {
        "seconds": (0.001297, 0.7118, 1.481, 9, 10.97, 10.15),
        "extra_bytes": (7.036e04, 0.3572, 0.348, 8, 11.21, 6.223),
    },
    "Symbolic('symengine')": {
        "seconds": (0.003112, 0.3641, 0.7338, 21, 12.75, 98.74),
        "extra_bytes": (9.883e04, 0.3181, 0.3461, 19, 13.08, 77.1),
    },
}
