"""Networks of a study that differ in one thing alone, found in recorded rows: what a figure can be drawn over."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from difflab.network_files import TERMS
from difflab.study.declaration import PLACE
from difflab.study.names import DEFAULTS, network_name, term_words


Row = dict[str, Any]

KNOBS = {
    "depth": "hidden layers",
    "width": "units n of each hidden layer",
    "hidden": "activation of the hidden layers",
    "scale": "scale: what all parameters are multiplied by",
    "x_shift": "x_shift: what is added to all inputs",
    "y_shift": "y_shift: what is added to all targets",
    "batch": "samples of a batch",
}
"""What networks can differ in, in words for an axis."""

LEAST = 3
"""Networks that make a family."""


@dataclass(frozen=True)
class Family:
    """Rows of networks that differ in one knob.

    Attributes
    ----------
    knob : one of ``KNOBS``.
    name : what they have in common.
    members : the rows of every setting of the knob, by the setting in words; numbers in order.
    """

    knob: str
    name: str
    members: dict[str, list[Row]]

    @property
    def numbered(self) -> list[tuple[float, Row]]:
        """Every row with its setting, where that is a number."""
        return [(float(setting), row) for setting, rows in self.members.items() for row in rows]


def families(rows: list[Row]) -> list[Family]:
    """All families, by knob; a network may belong to several."""
    traits = [_traits(row) for row in rows]
    found = []
    for knob in KNOBS:
        groups: dict[tuple[Any, ...], list[int]] = {}
        for i, trait in enumerate(traits):
            if trait[knob] is not None:
                groups.setdefault(tuple(value for name, value in trait.items() if name != knob), []).append(i)
        for group in groups.values():
            settings = list(dict.fromkeys(traits[i][knob] for i in group))
            if len(settings) >= LEAST:
                ordered = settings if knob == "hidden" else sorted(settings)
                members = {_text(s): [rows[i] for i in group if traits[i][knob] == s] for s in ordered}
                found.append(Family(knob, _name(knob, rows[group[0]], traits[group[0]]), members))
    return found


def _traits(row: Row) -> dict[str, Any]:
    """All that tells networks apart; depth and width where all hidden layers are alike."""
    widths = [] if row.get("layers") else row["network"].split("-")
    hidden = {int(width) for width in widths[1:-1]} if all(width.isdigit() for width in widths) else set()
    is_even = len(hidden) == 1
    rest = {name: row.get(name, DEFAULTS[name]) for name in ("output", *TERMS, "init", "data", *PLACE)}
    return {
        "ends": (widths[0], widths[-1]) if is_even else (row["network"], row.get("layers")),
        "depth": len(widths) - 2 if is_even else None,
        "width": hidden.pop() if is_even else None,
        "hidden": row.get("hidden"),
        "batch": row.get("batch"),
        **rest,
    }


def _name(knob: str, row: Row, traits: dict[str, Any]) -> str:
    """A network of the family without what tells its members apart."""
    if knob in ("depth", "width"):
        first, last = traits["ends"]
        inner = [str(traits["width"]), "…"] if knob == "depth" else ["n"] * traits["depth"]
        hidden = [row["hidden"]] if row.get("hidden") else []
        return " ".join(["-".join([first, *inner, last]), *hidden, *term_words(row)])
    left_out = {"batch": "own_batch"}.get(knob, knob)
    return network_name({name: value for name, value in row.items() if name != left_out})


def _text(setting: Any) -> str:
    return f"{setting:g}".replace("e+0", "e") if isinstance(setting, int | float) else str(setting)
