"""Derivation: what it takes to derive and compile a gradient, and its operations beside those of its own loss."""

from __future__ import annotations

from typing import Any

from difflab.counting import primal_operations
from difflab.peers import Ready
from difflab.study.measures.subject import Subject


STAGES = ("derive", "simplify", "cse", "codegen", "compile", "count")
FACTS = (
    *(f"{stage}_{figure}" for stage in STAGES for figure in ("seconds", "peak_bytes")),
    *("gradient_ops", "gradient_tree_ops", "graph_nodes", "graph_ops", "gradient_sympy_ops"),
    *("source_bytes", "code_bytes"),
)


def measure(subject: Subject) -> dict[str, Any]:
    """Columns that the back-end knows of itself; a loss that is no expression of its own is that of the program."""
    prepared = subject.prepared
    facts = prepared.facts | (prepared.counted() if isinstance(prepared, Ready) else {})
    own = primal_operations(prepared.net.program)
    return {name: facts[name] for name in FACTS if name in facts} | {"own_loss_ops": facts.get("own_loss_ops", own)}
