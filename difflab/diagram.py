"""The program of a network as a picture: SVG with a box for every value and an arrow for every read."""

from __future__ import annotations

import textwrap
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from xml.etree.ElementTree import Element, SubElement

from difflab.network import MLP
from difflab.network_files import as_table
from difflab.primitives.operations import INPUTS, OPERATIONS
from difflab.program import Program
from difflab.summary import (
    StepRow,
    function_text,
    in_short,
    parameter_texts,
    shared_parameters,
    step_rows,
    value_names,
)


FONT = "DejaVu Sans, Helvetica, Arial, sans-serif"
SIZE = 12
CHARACTER = 0.64 * SIZE
"""Width that a character takes at most on average, in DejaVu Sans."""
INK, GREY, SHARED = "#222222", "#666666", "#D55E00"
FILLS = {"affine": "#dbe9f6", "activation": "#e3f3e1", "loss": "#fbdfd6", "penalty": "#fdf2d0"}
OTHER_FILL, GIVEN_FILL = "#eeeeee", "#ffffff"

MARGIN, GAP, LINE, PADDING = 16, 24, 18, 8
SMALL_GAP = 8
"""Before what reads no value."""
PILL_WIDTH, LEAST_WIDTH = 132, 340
SIDE = 40
"""Room for the arrow from what stands at the side."""
LANE = 14
"""Distance of the curves at the side."""
TITLE_LINES = 6
RADIUS = 8


@dataclass(frozen=True)
class Box:
    """Where a value stands."""

    left: float
    top: float
    width: float
    height: float

    @property
    def right(self) -> float:
        return self.left + self.width

    @property
    def bottom(self) -> float:
        return self.top + self.height

    @property
    def middle(self) -> float:
        return self.top + self.height / 2

    @property
    def centre(self) -> float:
        return self.left + self.width / 2


@dataclass(frozen=True)
class Read:
    """An arrow: value ``source`` is the ``place``-th that the instruction making ``target`` reads."""

    source: int
    target: int
    place: int


def svg(net: MLP) -> bytes:
    """The picture of a network's program."""
    return _Drawing(net).bytes()


def _text_width(text: str) -> float:
    return CHARACTER * len(text)


def _reads(program: Program) -> list[Read]:
    return [Read(i, number, k) for number, step in program.numbered for k, i in enumerate(step.inputs)]


class _Drawing:
    """All places first, then everything drawn at its place."""

    def __init__(self, net: MLP) -> None:
        self.net, self.program = net, net.program
        self.names = value_names(self.program)
        self.rows = dict(zip((number for number, _ in self.program.numbered), step_rows(self.program), strict=True))
        self.texts = parameter_texts(self.program)
        self.shared = shared_parameters(self.program)
        self.reads = _reads(self.program)
        self.left = MARGIN + PILL_WIDTH + SIDE
        self.width = max(LEAST_WIDTH, self._width_of_end(), *map(self._width_of, self.rows.values()))
        self.title = self._wrapped(in_short(net.n_inputs, as_table(net)["layers"]))
        self.boxes = self._places()
        self.lanes = self._lanes()
        self.root = Element("svg", xmlns="http://www.w3.org/2000/svg")

    # places

    def _width_of(self, row: StepRow) -> float:
        head = f"{row.operation}  {function_text(row)}      {self._size(row)}"
        return 2 * PADDING + max(_text_width(head), _text_width(", ".join(self._parameters(row))))

    def _end_text(self) -> str:
        program = self.program
        losses = f"{program.reduction} of {self.names[program.losses]} over the samples"
        return f"loss of the batch: {losses}" + " + penalties" * bool(program.totals)

    def _width_of_end(self) -> float:
        return 4 * PADDING + _text_width(self._end_text())

    def _wrapped(self, text: str) -> list[str]:
        columns = int(self.width / CHARACTER)
        return textwrap.wrap(text, columns, max_lines=TITLE_LINES, placeholder=" …", break_on_hyphens=False)

    def _size(self, row: StepRow) -> str:
        """The value, and its width where it is not one number."""
        is_number = row.operation == "loss" or OPERATIONS[row.operation].is_total
        return row.value if is_number else f"{row.value}, width {row.width}"

    def _parameters(self, row: StepRow) -> list[str]:
        return [self.texts[name] for name in row.parameters]

    def _places(self) -> dict[int, Box]:
        """x on top, then instruction below instruction; y and masks at the side of the first that reads them."""
        top = float(MARGIN + LINE * (len(self.title) + 2))
        boxes = {INPUTS: Box(self.left + (self.width - PILL_WIDTH) / 2, top, PILL_WIDTH, LINE + PADDING)}
        bottom = boxes[INPUTS].bottom
        for number, row in self.rows.items():
            top = bottom + (GAP if row.reads else SMALL_GAP)
            height = PADDING * 2 + LINE * (1 + bool(row.parameters)) - 4
            boxes[number] = Box(self.left, top, self.width, height)
            for given in (read.source for read in self.reads if read.target == number):
                beside = Box(MARGIN, top + (height - LINE - PADDING) / 2, PILL_WIDTH, LINE + PADDING)
                boxes.setdefault(given, beside)
            bottom = top + height
        return boxes

    def _end(self) -> Box:
        """What the losses and penalties are added up to."""
        top = max(box.bottom for box in self.boxes.values()) + GAP
        return Box(self.left, top, self.width, LINE + 2 * PADDING - 4)

    def _is_beside(self, number: int) -> bool:
        return self.boxes[number].left == MARGIN

    def _is_above(self, read: Read) -> bool:
        """Whether a straight arrow does it: the box before, and no arrow there yet."""
        gap = self.boxes[read.target].top - self.boxes[read.source].bottom
        twin = Read(read.source, read.target, 0)
        return gap == GAP and (read.place == 0 or twin not in self.reads)

    def _lanes(self) -> dict[Read, int]:
        """Lanes for the curves that pass by boxes: the shorter the nearer, and no two on one another."""
        passing = [read for read in self.reads if not self._is_beside(read.source) and not self._is_above(read)]
        taken: list[list[tuple[float, float]]] = []
        lanes = {}
        for read in sorted(passing, key=lambda read: (read.target - read.source, read.source)):
            start, end = self._ends(read)
            free = (i for i, spans in enumerate(taken) if all(end < a or b < start for a, b in spans))
            lane = lanes[read] = next(free, len(taken))
            taken[lane:] = taken[lane:] or [[]]
            taken[lane].append((start, end))
        return lanes

    def _ends(self, read: Read) -> tuple[float, float]:
        """Heights at which a curve leaves and arrives, a little apart so that those of one box do not meet."""
        return self.boxes[read.source].middle + (6 if read.source in self.rows else 0), self.boxes[
            read.target
        ].middle - 4 - 6 * read.place

    # drawing

    def bytes(self) -> bytes:
        end = self._end()
        bus = self.left + self.width + LANE * (len(set(self.lanes.values())) + 2)
        width, height = bus + MARGIN, end.bottom + MARGIN + (2 * LINE if self.shared else 0)
        self.root.attrib |= {"viewBox": f"0 0 {width:g} {height:g}", "width": f"{width:g}", "height": f"{height:g}"}
        self.root.attrib |= {"font-family": FONT, "font-size": str(SIZE), "role": "img"}
        SubElement(self.root, "title").text = str(self.net)
        self._arrowhead()
        SubElement(self.root, "rect", width="100%", height="100%", fill="#ffffff")
        self._heading()
        for read in self.reads:
            self._arrow(read)
        self._totals(end, bus)
        for number, box in self.boxes.items():
            self._value(number, box)
        self._legend(end.bottom + 2 * LINE)
        for element in self.root:
            element.tail = "\n"
        return ElementTree.tostring(self.root, encoding="utf-8", xml_declaration=True) + b"\n"

    def _arrowhead(self) -> None:
        shape = {"viewBox": "0 0 8 8", "refX": "8", "refY": "4", "markerWidth": "7", "markerHeight": "7"}
        marker = SubElement(SubElement(self.root, "defs"), "marker", {"id": "head", "orient": "auto"} | shape)
        SubElement(marker, "path", d="M0 0.5 L8 4 L0 7.5 z", fill=INK)

    def _heading(self) -> None:
        y = MARGIN + SIZE
        for line in self.title:
            self._text(self.left, y, line, {"font-weight": "bold"})
            y += LINE
        net = self.net
        self._text(self.left, y, f"{net.n_inputs} inputs, {net.n_outputs} outputs, {net.n_params} parameters")

    def _legend(self, y: float) -> None:
        if self.shared:
            self._text(self.left, y, "in this colour: parameters that several instructions share", {"fill": SHARED})

    def _value(self, number: int, box: Box) -> None:
        row = self.rows.get(number)
        group = SubElement(self.root, "g", {"class": "instruction" if row else "given", "id": _id(self.names[number])})
        fill = FILLS.get(row.operation, OTHER_FILL) if row else GIVEN_FILL
        self._rect(group, box, fill, RADIUS / 2 if row else box.height / 2)
        if row:
            self._instruction(group, row, box)
        else:
            text = f"{self.names[number]}, width {self.program.widths[number]}"
            self._text(box.centre, box.middle + 4, text, {"text-anchor": "middle"}, group)

    def _rect(self, parent: Element, box: Box, fill: str, radius: float) -> None:
        size = {"x": box.left, "y": box.top, "width": box.width, "height": box.height, "rx": radius}
        SubElement(parent, "rect", {n: f"{v:g}" for n, v in size.items()} | {"fill": fill, "stroke": INK})

    def _instruction(self, group: Element, row: StepRow, box: Box) -> None:
        left, y = box.left + PADDING, box.top + PADDING + SIZE - 1
        head = self._text(left, y, row.operation, {"font-weight": "bold"}, group)
        if function := function_text(row):
            SubElement(head, "tspan", {"font-weight": "normal", "dx": "8"}).text = function
        self._text(box.right - PADDING, y, self._size(row), {"text-anchor": "end", "fill": GREY}, group)
        if row.parameters:
            self._parameter_line(group, row, left, y + LINE)

    def _parameter_line(self, group: Element, row: StepRow, x: float, y: float) -> None:
        line = self._text(x, y, "", {}, group)
        for i, name in enumerate(row.parameters):
            colour = {"fill": SHARED, "font-weight": "bold"} if name in self.shared else {}
            SubElement(line, "tspan", colour).text = self.texts[name] + ("," if i + 1 < len(row.parameters) else "")
            line[-1].tail = " "

    def _text(
        self, x: float, y: float, text: str, style: dict[str, str] | None = None, parent: Element | None = None
    ) -> Element:
        parent = self.root if parent is None else parent
        element = SubElement(parent, "text", {"x": f"{x:g}", "y": f"{y:g}", "fill": INK} | (style or {}))
        element.text = text
        return element

    def _arrow(self, read: Read) -> None:
        source, target = self.boxes[read.source], self.boxes[read.target]
        if read in self.lanes:
            self._path("read", self._curve(read), read)
        elif self._is_beside(read.source):
            turn = f"H{target.left - SIDE / 2:g} V{target.middle:g} " if target.middle != source.middle else ""
            self._path("read", f"M{source.right:g} {source.middle:g} {turn}H{target.left:g}", read)
        else:
            self._path("read", f"M{source.centre:g} {source.bottom:g} V{target.top:g}", read)

    def _curve(self, read: Read) -> str:
        """Out at the side, down a lane, and in again, with round corners."""
        (start, end), lane = self._ends(read), self.left + self.width + LANE * (self.lanes[read] + 1)
        r = min(RADIUS, (end - start) / 2)
        out = f"M{self.boxes[read.source].right:g} {start:g} H{lane - r:g} Q{lane:g} {start:g} {lane:g} {start + r:g}"
        return f"{out} V{end - r:g} Q{lane:g} {end:g} {lane - r:g} {end:g} H{self.boxes[read.target].right:g}"

    def _path(self, kind: str, d: str, read: Read | None = None) -> None:
        ends = {"data-from": self.names[read.source], "data-to": self.names[read.target]} if read else {}
        line = {"fill": "none", "stroke": INK, "stroke-width": "1.2", "marker-end": "url(#head)"}
        SubElement(self.root, "path", {"class": kind, "d": d} | ends | line)

    def _totals(self, end: Box, bus: float) -> None:
        """The loss of the batch: straight below the losses, or with the penalties along a line of their own."""
        program = self.program
        loss = self.boxes[program.losses]
        group = SubElement(self.root, "g", {"class": "end"})
        self._rect(group, end, GIVEN_FILL, end.height / 2)
        self._text(end.centre, end.middle + 4, self._end_text(), {"text-anchor": "middle"}, group)
        if not program.totals:
            self._path("total", f"M{loss.centre:g} {loss.bottom:g} V{end.top:g}")
            return
        for number in program.totals:
            stub = f"M{self.boxes[number].right:g} {self.boxes[number].middle:g} H{bus:g}"
            SubElement(self.root, "path", {"class": "total", "d": stub, "stroke": INK, "stroke-width": "1.2"})
        self._path("total", f"M{loss.right:g} {loss.middle + 6:g} H{bus:g} V{end.middle:g} H{end.right:g}")


def _id(name: str) -> str:
    return name.replace(" ", "")
