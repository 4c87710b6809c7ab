"""Swell: operations of the loss and of its gradient for one sample, as a tree and as computed."""

from __future__ import annotations

from typing import Any

from difflab.counting import loss_tree_operations, primal_operations
from difflab.network import MLP
from difflab.study.measures.subject import Subject


FACTS = ("gradient_tree_ops", "gradient_ops", "derive_seconds", "cse_seconds", "compile_seconds")


def measure(subject: Subject) -> dict[str, Any]:
    """Columns that the back-end knows of itself."""
    return {name: subject.prepared.facts[name] for name in FACTS if name in subject.prepared.facts}


def of_network(net: MLP) -> dict[str, Any]:
    """Columns that need no derivative; the tree is counted as the program writes it, without being written out."""
    return {
        "loss_tree_ops": loss_tree_operations(net.program, net.n_params),
        "loss_ops": primal_operations(net.program),
    }
