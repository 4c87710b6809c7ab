"""What a network is made of: its layers with their parameters and operations, and its program, in words and figures."""

from __future__ import annotations

import dataclasses
import itertools
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from difflab.counting import primal_operations, sweep_operations
from difflab.layers import Layer
from difflab.lowering import Record
from difflab.network import MLP
from difflab.network_files import TERMS, layer_table
from difflab.primitives.activations import ACTIVATIONS
from difflab.primitives.operations import OPERATIONS
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


def layer_rows(net: MLP) -> list[LayerRow]:
    """Every layer, those within residual layers after these."""
    seen: set[str] = set()
    return [_layer_row(record, net, seen) for record in net.lowered]


def _layer_row(record: Record, net: MLP, seen: set[str]) -> LayerRow:
    steps = [net.program.instructions[i] for i in _own(record, net.lowered)]
    slices = {parameter.name: parameter.size for step in steps for parameter in step.parameters}
    new = {name: size for name, size in slices.items() if name not in seen}
    seen.update(new)
    counted, shared = sum(new.values()), sum(slices.values()) - sum(new.values())
    flops = sum(_multiply_adds(step, net.program.widths) for step in steps)
    kind = str(record.layer.__struct_config__.tag)
    return LayerRow(record.name, kind, record.depth, what(record.layer), record.width, counted, shared, flops)


def _own(record: Record, records: Sequence[Record]) -> list[int]:
    """Where the instructions of a layer are, but for those of the layers within it."""
    return [i for i in record.made if not any(i in other.made for other in records if other.depth > record.depth)]


def _multiply_adds(step: Instruction, widths: Sequence[int]) -> int:
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


def function_text(row: StepRow) -> str:
    """The function of an instruction with its constants: ``elu, alpha 0.5`` or ``p 0.5``."""
    said = [f"{name} {_numbers(values)}" for name, values in _constants(row)]
    return ", ".join([*([row.function] if row.function else []), *said])


def _constants(row: StepRow) -> Iterator[tuple[str, Sequence[float]]]:
    """Constants by their names; where there are more than names, the last names have one for each unit."""
    names, numbers = _constant_names(row), iter(row.constants)
    n_wide = (len(row.constants) - len(names)) // max(1, row.width - 1)
    for i, name in enumerate(names):
        yield name, list(itertools.islice(numbers, row.width if i >= len(names) - n_wide else 1))


def _constant_names(row: StepRow) -> tuple[str, ...]:
    if row.operation == "activation" and row.constants:
        return (str(ACTIVATIONS[str(row.function)].parameter),)
    return OPERATIONS[row.operation].constants


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
