"""Networks as files, TOML or JSON: declared, read with all their problems, and written."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import msgspec
import tomli_w

from difflab.datasets import SHAPES
from difflab.documents import (
    MAX_FILE_BYTES,
    MAX_MESSAGE,
    InvalidFile,
    Lines,
    Place,
    Problem,
    field_problems,
    line_of,
    parse,
    spelled,
)
from difflab.errors import known
from difflab.files import write_atomically
from difflab.initialisation import INITIALISATIONS
from difflab.layers import KINDS, AnyLayer, Layer, checked_units
from difflab.lowering import Misfit, activation_and_parameter
from difflab.network import MLP, REDUCTIONS
from difflab.primitives.losses import LOSSES


FULL_FORM = ("inputs", "layers")
TERMS = ("loss", "reduction", "l1", "l2", "label_smoothing")
"""Fields of a network beside its layers."""
USUAL = {"hidden": "tanh", "output": "identity"}
"""Activations of a network declared by its widths, where it does not say otherwise."""

WORDS: dict[str, Callable[[str], Any]] = {
    "hidden": activation_and_parameter,
    "output": activation_and_parameter,
    "loss": lambda word: known(word, LOSSES, "loss"),
    "reduction": lambda word: known(word, REDUCTIONS, "reduction"),
    "init": lambda word: known(word, INITIALISATIONS, "initialisation"),
    "data": lambda word: known(word, SHAPES, "dataset"),
}
"""What refuses a name in a network that no table has."""


class Network(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A network, how it is initialised and the data set it reads, as a study or network file declares it.

    Either dense by its ``widths``, with one activation for all hidden layers and one for the output, or in full by its
    ``inputs`` and ``layers``.

    Raises
    ------
    ValueError
        If it is neither, or both.
    """

    widths: list[int] | None = None
    hidden: str | None = None
    output: str | None = None
    inputs: int | None = None
    layers: tuple[AnyLayer, ...] | None = None
    loss: str = MLP.loss
    reduction: str = MLP.reduction
    l1: float = MLP.l1
    l2: float = MLP.l2
    label_smoothing: float = MLP.label_smoothing
    init: str = MLP.initialisation
    data: str | None = None

    def __post_init__(self) -> None:
        for _, message in _form_problems({name for name in self.__struct_fields__ if getattr(self, name) is not None}):
            raise ValueError(message)
        for name, usual in USUAL.items() if self.widths is not None else ():
            msgspec.structs.force_setattr(self, name, getattr(self, name) or usual)

    def build(self) -> MLP:
        """The network itself; raises what ``MLP`` raises."""
        terms = {name: getattr(self, name) for name in TERMS} | {"initialisation": self.init}
        if self.layers is not None and self.inputs is not None:
            return MLP(checked_units(self.inputs, "inputs"), self.layers, **terms)
        dense = MLP.dense(self.widths or [], str(self.hidden), self.loss, str(self.output))
        return dataclasses.replace(dense, **terms)


def read_network(path: str | Path) -> MLP:
    """The network in a file, JSON if it is called ``.json``, else TOML.

    Raises
    ------
    InvalidFile
        With every problem found, each with its line.
    """
    return read_declaration(Path(path)).build()


def read_declaration(path: Path) -> Network:
    """A network file with all that it says: the fields of one ``[[networks]]`` entry of a study.

    Raises
    ------
    InvalidFile
        With every problem found, each with its line.
    """
    table, lines = parse(path)
    if found := list(network_problems(table, (), lines)):
        raise InvalidFile(path, found)
    return msgspec.convert(table, Network)


# --- writing


def write_network(net: MLP, path: str | Path) -> None:
    """Write a network, as TOML or JSON by the suffix, such that :func:`read_network` gives an equal one."""
    path = Path(path)
    if not isinstance(net, MLP):
        raise TypeError(f"write_network takes a difflab.MLP, got {net!r}")
    if path.suffix not in _TEXTS:
        raise ValueError(f"a network file must end with {' or '.join(_TEXTS)}, got {path.name!r}")
    content = _TEXTS[path.suffix](as_table(net)).encode()
    if len(content) > MAX_FILE_BYTES:
        raise ValueError(f"a network file must have at most {MAX_FILE_BYTES} bytes, got {len(content)} for {net}")
    write_atomically(path, content)


_TEXTS: dict[str, Callable[[dict[str, Any]], str]] = {
    ".toml": tomli_w.dumps,
    ".json": lambda table: json.dumps(table, indent=1, ensure_ascii=False) + "\n",
}


def as_table(net: MLP) -> dict[str, Any]:
    """A network in full form; what has its default is left out."""
    terms = {name: getattr(net, name) for name in TERMS if getattr(net, name) != getattr(MLP, name)}
    start = {"init": net.initialisation} if net.initialisation != MLP.initialisation else {}
    return {"inputs": net.n_inputs, "layers": [layer_table(layer) for layer in net.layers]} | terms | start


def layer_table(layer: Layer) -> dict[str, Any]:
    """A layer by its kind and all fields that differ from their defaults."""
    fields = {entry.name: getattr(layer, entry.name) for entry in msgspec.structs.fields(layer)}
    if "layers" in fields:
        fields["layers"] = [layer_table(inner) for inner in fields["layers"]]
    defaults = {entry.name: entry.default for entry in msgspec.structs.fields(layer)}
    return {"kind": layer.__struct_config__.tag} | {n: value for n, value in fields.items() if value != defaults[n]}


# --- what can be wrong


def network_problems(entry: Any, place: Place, lines: Lines, kind: type[Network] = Network) -> Iterator[Problem]:
    """Problems of every field and layer on its own, and of the whole only if there are none.

    ``kind`` has the fields that the entry may have.
    """
    if not isinstance(entry, dict):
        yield from field_problems(entry, kind, place, lines)
        return
    shallow, layers = _apart(entry, kind)
    found = [
        *field_problems(shallow, kind, place, lines),
        *_layers_problems(layers, (*place, "layers"), lines),
        *_problems_of_form(entry, place, lines),
        *_word_problems(entry, place, lines),
    ]
    yield from found or _problems_of_whole(msgspec.convert(entry, kind), entry, place, lines)


def _form_problems(given: Collection[str]) -> Iterator[tuple[str, str]]:
    """Fields that are missing or have no place beside the others, each with the sentence that says so."""
    full = [name for name in FULL_FORM if name in given]
    if not full and "widths" not in given:
        yield "widths", "widths is required, or inputs and layers; add widths = ..."
    if full and "widths" in given:
        yield full[0], f"{full[0]} has no place beside widths; write widths, or inputs and layers"
        return
    for name in FULL_FORM if full else ():
        if name not in given:
            yield full[0], f"{name} is required beside {full[0]}; add {name} = ..."
    for name in USUAL if full else ():
        if name in given:
            yield name, f"{name} has no place beside {full[0]}; give layers their activation"


def _problems_of_form(entry: dict[str, Any], place: Place, lines: Lines) -> Iterator[Problem]:
    for name, message in _form_problems({name for name, value in entry.items() if value is not None}):
        yield Problem(line_of((*place, name), lines), f"{spelled(place)}.{message}".lstrip("."))


def _apart(table: dict[str, Any], kind: type[msgspec.Struct]) -> tuple[dict[str, Any], list[Any]]:
    """A table without the entries of its list of layers, and these."""
    layers = table.get("layers")
    if isinstance(layers, list) and "layers" in kind.__struct_fields__:
        return table | {"layers": []}, layers
    return table, []


def _layers_problems(layers: list[Any], place: Place, lines: Lines) -> Iterator[Problem]:
    for index, layer in enumerate(layers):
        yield from _layer_problems(layer, (*place, index), lines)


def _layer_problems(table: Any, place: Place, lines: Lines) -> Iterator[Problem]:
    """Problems of a layer's fields and of the layers within it, and of the whole only if there are none."""
    word = table.get("kind") if isinstance(table, dict) else None
    if not isinstance(word, str) or word not in KINDS:
        yield from _kind_problems(table, place, lines)
        return
    kind = KINDS[word]
    shallow, layers = _apart({name: value for name, value in table.items() if name != "kind"}, kind)
    found = [*field_problems(shallow, kind, place, lines), *_layers_problems(layers, (*place, "layers"), lines)]
    yield from found or _problems_of_layer(table, kind, place, lines)


def _kind_problems(table: Any, place: Place, lines: Lines) -> Iterator[Problem]:
    """What is no table, or a table that says no kind or one that there is not."""
    if not isinstance(table, dict):
        yield from field_problems(table, Layer, place, lines)
    elif "kind" not in table:
        message = f"{spelled((*place, 'kind'))} is required; known: {', '.join(sorted(KINDS))}"
        yield Problem(line_of(place, lines), message)
    else:
        try:
            known(table["kind"], KINDS, "kind")
        except ValueError as error:
            yield Problem(line_of((*place, "kind"), lines), f"{spelled(place)}: {error}"[:MAX_MESSAGE])


def _problems_of_layer(table: dict[str, Any], kind: type[Layer], place: Place, lines: Lines) -> Iterator[Problem]:
    try:
        msgspec.convert(table, kind)
    except msgspec.ValidationError as error:
        line = line_of((*place, *_named(str(error), table)), lines)
        yield Problem(line, f"{spelled(place)}: {error}"[:MAX_MESSAGE])


def _named(message: str, table: dict[str, Any]) -> tuple[str, ...]:
    """The first field that a message names, or whose word it repeats, if there is one."""
    said = re.findall(r"\w+", message)
    named = (
        name
        for name, value in table.items()
        if name in said or (isinstance(value, str) and (value in said or repr(value) in message))
    )
    return tuple(named)[:1]


def _word_problems(entry: dict[str, Any], place: Place, lines: Lines) -> Iterator[Problem]:
    """Names that no table has."""
    for name, check in WORDS.items():
        try:
            if isinstance(entry.get(name), str):
                check(entry[name])
        except ValueError as error:
            message = f"{spelled((*place, name))}: {error}"[:MAX_MESSAGE]
            yield Problem(line_of((*place, name), lines), message)


def _problems_of_whole(network: Network, entry: dict[str, Any], place: Place, lines: Lines) -> Iterator[Problem]:
    try:
        net = network.build()
    except (ValueError, TypeError) as error:
        at = (*place, *_blamed(error, entry))
        yield Problem(line_of(at, lines), f"{spelled(at)}: {error}"[:MAX_MESSAGE])
        return
    shape = SHAPES[network.data] if network.data else None
    if shape and (net.n_inputs, net.n_outputs) != shape:
        form = "widths" if network.widths else "layers"
        message = f"must start with {shape[0]} and end with {shape[1]} for {network.data}, got {net.label}"
        yield Problem(line_of((*place, form), lines), f"{spelled((*place, form))}: {message}")


def _blamed(error: Exception, entry: dict[str, Any]) -> Place:
    """The layer that does not fit, or the field that the network speaks of."""
    if isinstance(error, Misfit):
        return tuple(part for index in error.place for part in ("layers", index))
    return _named(str(error), entry) or ("widths" if entry.get("layers") is None else "layers",)
