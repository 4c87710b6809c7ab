"""Laws of what deriving and compiling took, fitted to ``results/expression_swell/rows.csv`` by tests/fit_costs.py.

By label and figure: factor, exponent, quantile, count, centre and scatter of a law.
"""

from __future__ import annotations


FITTED: dict[str, dict[str, tuple[float, float, float, int, float, float]]] = {}
