"""What a network is made of: its layers with their parameters and operations, and its program, in words and figures."""

from __future__ import annotations

import dataclasses
import itertools
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from difflab.counting import primal_operations, sweep_operations
from difflab.layers import AnyLayer, Layer
from difflab.lowering import Lowering
from difflab.network import MLP
from difflab.network_files import TERMS, layer_table
from difflab.primitives.activations import ACTIVATIONS
from difflab.primitives.operations import INPUTS, OPERATIONS
from difflab.program import Instruction, Program


SCHEMA = "difflab.network/1"
MAX_NUMBERS = 4
"""Of a list that is written out."""
SIZES = ("units", "kind", "layers")
"""Fields of a layer that are said elsewhere."""


@dataclass(frozen=True)
class LayerRow:
    """One layer.

    Attributes
    ----------
    depth : how many residual layers it is within.
    what : its fields in words, as far as they differ from the usual ones.
    width : of its output.
    parameters, shared : entries of theta that it is the first to use, and that an earlier layer uses too.
    multiply_adds : multiplications and additions of W a + b for one sample [lecture notes 002, slide 12].
    """

    name: str
    kind: str
    depth: int
    what: str
    width: int
    parameters: int
    shared: int
    multiply_adds: int


@dataclass(frozen=True)
class StepRow:
    """One instruction: the value it makes, from which values and parameters."""

    value: str
    operation: str
    function: str | None
    constants: tuple[float, ...]
    reads: tuple[str, ...]
    parameters: tuple[str, ...]
    width: int


# --- layers


class _Noted(Layer, frozen=True):
    """A layer that notes what another one is lowered to."""

    layer: Any
    notes: list[Any]
    depth: int = 0

    def lower(self, lowering: Lowering, a: int) -> int:
        note = _Note(self.layer, self.depth, _next_name(lowering, self.layer), range(len(lowering.instructions)))
        self.notes.append(note)
        end = self._with_notes_within().lower(lowering, a)
        note.made = range(len(note.made), len(lowering.instructions))
        note.width = lowering.widths[end]
        return end

    def _with_notes_within(self) -> Layer:
        if "layers" not in self.layer.__struct_fields__:
            return self.layer
        within = tuple(_Noted(layer, self.notes, self.depth + 1) for layer in self.layer.layers)
        return msgspec.structs.replace(self.layer, layers=within)

    @property
    def n_masks(self) -> int:
        return self.layer.n_masks


@dataclass
class _Note:
    layer: AnyLayer
    depth: int
    name: str
    made: range
    width: int = 0


def _next_name(lowering: Lowering, layer: Layer) -> str:
    """What the layer will be called, asked of a copy."""
    copy = dataclasses.replace(lowering, counts=Counter(lowering.counts))
    return copy.name(_kind(layer), getattr(layer, "share", None))


def _kind(layer: Layer) -> str:
    return str(layer.__struct_config__.tag)


def layer_rows(net: MLP) -> list[LayerRow]:
    """Every layer, those within residual layers after these."""
    notes: list[_Note] = []
    lowering = Lowering({INPUTS: net.n_inputs}, n_masks=len(net.program.masks))
    a = INPUTS
    for layer in net.layers:
        a = _Noted(layer, notes).lower(lowering, a)
    seen: set[str] = set()
    return [_layer_row(note, _own(note, notes), lowering, seen) for note in notes]


def _own(note: _Note, notes: list[_Note]) -> list[int]:
    """The instructions of a layer but for those of the layers within it."""
    return [i for i in note.made if not any(i in other.made for other in notes if other.depth > note.depth)]


def _layer_row(note: _Note, own: list[int], lowering: Lowering, seen: set[str]) -> LayerRow:
    steps = [lowering.instructions[i] for i in own]
    slices = {parameter.name: parameter.size for step in steps for parameter in step.parameters}
    new = {name: size for name, size in slices.items() if name not in seen}
    seen.update(new)
    counted, shared = sum(new.values()), sum(slices.values()) - sum(new.values())
    flops = sum(_multiply_adds(step, lowering.widths) for step in steps)
    return LayerRow(note.name, _kind(note.layer), note.depth, what(note.layer), note.width, counted, shared, flops)


def _multiply_adds(step: Instruction, widths: dict[int, int]) -> int:
    if step.operation != "affine":
        return 0
    return OPERATIONS[step.operation].operations(step, tuple(widths[i] for i in step.inputs))[0]


def what(layer: Layer) -> str:
    """What there is to say of a layer beside its kind, its width and the layers within it."""
    return words({name: value for name, value in layer_table(layer).items() if name not in SIZES})


def words(fields: dict[str, Any]) -> str:
    """``tanh, no bias, pieces 3``."""
    return ", ".join(_word(name, value) for name, value in fields.items())


def _word(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return name.replace("_", " ") if value else f"no {name.replace('_', ' ')}"
    if name == "activation":
        return " ".join(value.split())
    return f"{name} {_numbers(value) if isinstance(value, list | tuple) else number(value)}"


def number(value: Any) -> str:
    """All digits of a number, but no ``.0``; a text as it is."""
    return f"{value}".removesuffix(".0") if isinstance(value, float) else f"{value}"


def _numbers(values: Sequence[float]) -> str:
    """A long list is told from others by a digest."""
    if len(values) <= MAX_NUMBERS:
        return " ".join(map(number, values))
    return f"of {len(values)} numbers #{zlib.crc32(repr(tuple(values)).encode()):08x}"


def in_short(inputs: int | str, layers: list[dict[str, Any]]) -> str:
    """A network in one line from the tables of its layers: ``64 → 32 tanh → 10``; layers that repeat are counted."""
    return f"{inputs} → {_chain(layers)}"


def _chain(layers: list[dict[str, Any]]) -> str:
    parts = [(part, len(list(group))) for part, group in itertools.groupby(map(_part, layers))]
    return " → ".join(part if times == 1 else f"{part} ×{times}" for part, times in parts)


def _part(table: dict[str, Any]) -> str:
    kind = "res" if table["kind"] == "residual" else "" if table["kind"] == "dense" else table["kind"]
    head = f"{kind} {table.get('units', '')}".strip()
    inner = f"({_chain(table['layers'])})" if "layers" in table else ""
    rest = words({name: value for name, value in table.items() if name not in SIZES})
    return " ".join(part for part in (f"{head}{inner}", rest) if part)


# --- the program


def value_names(program: Program) -> list[str]:
    """``x``, ``y``, ``mask 1``, then ``v3`` and so on."""
    masks = [f"mask {i}" for i in range(1, len(program.masks) + 1)]
    return ["x", "y", *masks, *(f"v{number}" for number, _ in program.numbered)]


def step_rows(program: Program) -> list[StepRow]:
    """Every instruction in order."""
    names = value_names(program)
    return [
        StepRow(
            names[number],
            step.operation,
            step.function,
            step.constants,
            tuple(names[i] for i in step.inputs),
            tuple(parameter.name for parameter in step.parameters),
            step.width,
        )
        for number, step in program.numbered
    ]


CONSTANTS: dict[str, tuple[str, ...]] = {
    "dropout": ("p",),
    "label_smoothing": ("s", "classes"),
    "penalty": ("l1", "l2"),
    "batch_norm": ("eps",),
    "batch_norm_inference": ("eps",),
}
"""What the first constants of an operation are called."""


def function_text(row: StepRow) -> str:
    """The function of an instruction with its constants: ``elu, alpha 0.5`` or ``p 0.5``."""
    names = CONSTANTS.get(row.operation, ())
    if row.operation == "activation":
        names = (str(ACTIVATIONS[str(row.function)].parameter),)
    said = [f"{name} {number(value)}" for name, value in zip(names, row.constants, strict=False)]
    return ", ".join([*([row.function] if row.function else []), *said])


def parameter_texts(program: Program) -> dict[str, str]:
    """Every parameter by name with its shape: ``dense1.weight 32×64``."""
    slices = [parameter for step in program.instructions for parameter in step.parameters]
    return {p.name: f"{p.name} {'×'.join(map(str, p.shape))}" for p in slices}


def shared_parameters(program: Program) -> set[str]:
    """Parameters that several instructions use, penalties aside."""
    used = [step for step in program.instructions if not OPERATIONS[step.operation].is_total]
    counts = Counter(parameter.name for step in used for parameter in step.parameters)
    return {name for name, times in counts.items() if times > 1}


# --- the whole


def terms(net: MLP, init: str, data: str | None = None) -> dict[str, Any]:
    """Loss, reduction, penalties, smoothing, initialisation, and the data set where there is one."""
    return {name: getattr(net, name) for name in TERMS} | {"init": init} | ({"data": data} if data else {})


def document(net: MLP, init: str, data: str | None = None) -> dict[str, Any]:
    """All of it as one document."""
    layers = layer_rows(net)
    return {
        "schema": SCHEMA,
        "label": net.label,
        "network": msgspec.to_builtins(net),
        "init": init,
        "data": data,
        "inputs": net.n_inputs,
        "outputs": net.n_outputs,
        "layers": [dataclasses.asdict(row) for row in layers],
        "parameters": [{"name": p.name, "offset": p.offset, "shape": list(p.shape)} for p in net.parameters],
        "masks": [dataclasses.asdict(mask) for mask in net.program.masks],
        "program": [dataclasses.asdict(row) for row in step_rows(net.program)],
        "totals": totals(net, layers),
    }


def totals(net: MLP, layers: list[LayerRow]) -> dict[str, int]:
    """Parameters, and operations of one sample."""
    return {
        "parameters": net.n_params,
        "multiply_adds": sum(row.multiply_adds for row in layers),
        "loss_ops": primal_operations(net.program),
        "gradient_ops": sweep_operations(net.program),
    }
