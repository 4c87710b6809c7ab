"""Derivation: what it takes to derive and compile a gradient, and its operations beside those of its own loss."""

from __future__ import annotations

from typing import Any

from difflab.counting import primal_operations
from difflab.study.measures.subject import Subject


FACTS = ("derive_seconds", "cse_seconds", "compile_seconds", "source_bytes")


def measure(subject: Subject) -> dict[str, Any]:
    """Columns that the back-end knows of itself; a loss that is no expression of its own is that of the program."""
    facts, own = subject.prepared.facts, primal_operations(subject.prepared.net.program)
    return {name: facts[name] for name in FACTS if name in facts} | {"own_loss_ops": facts.get("own_loss_ops", own)}
