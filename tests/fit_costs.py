"""The laws that forecasts go by: run this file to fit them anew to the recorded study of expression swell."""

from __future__ import annotations

import json
from pathlib import Path

from difflab.derivation.forecasting import FIGURES, Cost, CostLaw
from difflab.study.csv_rows import from_csv
from difflab.study.forecasts import fitted


ROOT = Path(__file__).parents[1]
RECORD = ROOT / "results" / "expression_swell" / "rows.csv"
PROVENANCE = RECORD.with_name("provenance.json")
COSTS = ROOT / "difflab" / "derivation" / "costs.py"
HEAD = '''"""Laws of what deriving and compiling took, by tests/fit_costs.py from ``results/expression_swell/rows.csv``.

By label and figure: factor, exponent, quantile, count, centre and scatter of a law.
"""

from __future__ import annotations


PROCESSOR = "{processor}"
"""Of the machine of the record."""

FITTED: dict[str, dict[str, tuple[float, float, float, int, float, float]]] = {
'''


def text(costs: dict[str, Cost]) -> str:
    """The source of the table."""
    lines = []
    for label, cost in costs.items():
        known = {name: law for name in FIGURES if (law := getattr(cost, name)) is not None}
        laws = [f'        "{name}": ({_numbers(law)}),' for name, law in known.items()]
        lines += [f'    "{label}": {{', *laws, "    },"]
    (processor,) = {each["processor"] for each in json.loads(PROVENANCE.read_text())}
    return HEAD.replace("{processor}", processor) + "\n".join([*lines, "}"]) + "\n"


def _numbers(law: CostLaw) -> str:
    """To four digits, as the formatter of the sources writes them."""
    numbers = (f"{value:.4g}" if isinstance(value, float) else str(value) for value in vars(law).values())
    return ", ".join(numbers).replace("e+", "e")


if __name__ == "__main__":
    COSTS.write_text(text(fitted(from_csv(RECORD))))
