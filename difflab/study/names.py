"""What networks are called in tables and figures, from recorded rows."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import msgspec

from difflab.layers import AnyLayer
from difflab.network_files import TERMS, USUAL, layer_table
from difflab.study.declaration import PLACE, PlacedNetwork
from difflab.summary import in_short


Row = dict[str, Any]
MOST_IN_A_ROW = 8
"""Equal widths that are written out one by one."""

DEFAULTS = {field.name: field.default for field in msgspec.structs.fields(PlacedNetwork)} | USUAL
TERMS_IN_NAMES = ("output", *TERMS, "init", *PLACE)
NAMED = ("l1", "l2", "label_smoothing", *PLACE)
"""Terms whose figures say nothing without their names."""


def network_name(row: Row) -> str:
    """Widths and hidden activation, or all layers; output activation, loss and so on where they are not the usual."""
    return " ".join([*layer_words(row), *term_words(row)])


def layer_words(row: Row) -> list[str]:
    """A network by its widths and hidden activation, or by all its layers."""
    if row.get("layers"):
        return [in_short(row["network"].split("-")[0], _layers(row))]
    return [_without_long_runs(row["network"]), *([row["hidden"]] if row.get("hidden") else [])]


def _without_long_runs(label: str) -> str:
    """Widths, where many equal ones in a row are counted: 64-(32×16)-10."""
    runs = [(width, len(list(run))) for width, run in itertools.groupby(label.split("-"))]
    return "-".join(f"({width}×{n})" if n > MOST_IN_A_ROW else "-".join([width] * n) for width, n in runs)


def _layers(row: Row) -> list[dict[str, Any]]:
    """The layers as they were recorded, checked, since rows may come from a file."""
    try:
        layers = msgspec.json.decode(row["layers"], type=list[AnyLayer])
    except (msgspec.MsgspecError, RecursionError) as error:
        raise ValueError(f"layers of {row['network']} must be a list of layers, got: {error}; run it again") from error
    return [layer_table(layer) for layer in layers]


def made_of(row: Row) -> list[str]:
    """What the hidden layers are made of, whatever their number and widths."""
    if row.get("layers"):
        return list(dict.fromkeys(_ingredients(_layers(row))))
    return [str(row["hidden"])] if row.get("hidden") else []


def _ingredients(layers: list[dict[str, Any]]) -> Iterator[str]:
    for layer in layers:
        yield from [] if layer["kind"] == "dense" else [layer["kind"]]
        yield from [layer["activation"]] if "activation" in layer else []
        yield from _ingredients(layer.get("layers", []))


def term_words(row: Row) -> list[str]:
    """What is not as usual, beside the layers."""
    said = {name: row[name] for name in TERMS_IN_NAMES if row.get(name) not in (None, DEFAULTS[name])}
    words = [f"{name} {value:g}" if name in NAMED else str(value) for name, value in said.items()]
    return [*words, *([f"batch {row['own_batch']}"] if row.get("own_batch") else [])]
