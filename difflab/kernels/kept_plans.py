"""The plans of one network, each made when it is first asked for and kept with its workspace."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import psutil

from difflab.kernels.layout import TURN
from difflab.kernels.plans import RESULTS, Plan, make_plan, needs_all_samples, share, workspace_bytes
from difflab.kernels.rules import Kind
from difflab.kernels.tables import Choice
from difflab.kernels.threads import Crew
from difflab.network import MLP
from difflab.program import Program


KEPT_SIZES = 2
"""Numbers of samples whose plans are kept: that of most batches, and that of the last one."""


class KeptPlans:
    """Plans by their kinds, and what else was chosen.

    Parameters
    ----------
    net : the network.
    choice : what all plans have in common; their kinds are their own.
    crew : who shares the samples of a batch, or None.
    turn : the address of what threads take turns by.

    Attributes
    ----------
    kept : by what was chosen, and then by the number of samples, None for any.
    at_hand : of kinds that may be shared, the plan that was asked for last.
    """

    def __init__(self, net: MLP, choice: Choice, crew: Crew | None, turn: int) -> None:
        self._net, self._choice, self._crew, self._turn = net, choice, crew, turn
        self.kept: dict[tuple[Any, ...], dict[int | None, Plan]] = {}
        self.at_hand: dict[Kind, Plan] = {}

    def of(self, kind: Kind, samples: int, program: Program | None = None, name: object = None, **choice: Any) -> Plan:
        """The plan of a kind, of the network's own program or of another one, which has a name if the kind has two.

        Where samples cannot be cut, those of the last numbers of samples are kept.
        """
        is_shared = kind in RESULTS and program is None and not choice
        kept = self.kept.setdefault((kind, name, program is None, *choice.items()), {})
        plan = kept.get(samples) or kept.get(None)
        if plan is None:
            chosen = replace(self._choice, kind=kind, **choice)
            plan = self._made(program or self._net.program, chosen, samples, self._crew if is_shared else None)
            while len(kept) >= KEPT_SIZES:
                del kept[next(iter(kept))]
            kept[plan.samples] = plan
        if is_shared:
            self.at_hand[kind] = plan
        return plan

    def forget(self) -> None:
        self.kept.clear()
        self.at_hand.clear()

    def _made(self, program: Program, choice: Choice, samples: int, crew: Crew | None) -> Plan:
        of_one, workspaces = workspace_bytes(program, choice, samples), crew.partners if crew else 1
        is_cut = not needs_all_samples(program)
        _check_memory(self._net, samples, of_one * workspaces, is_cut, workspaces > 1)
        plan = make_plan(program, self._net.n_params, choice, samples)
        if crew:
            plan = share(plan, program, self._net.n_params, choice, crew.words, crew.partners)
        plan.words[TURN] = self._turn
        return plan


def _check_memory(net: MLP, batch: int, needed: int, is_cut: bool, is_shared: bool) -> None:
    available = psutil.virtual_memory().available
    if needed > available:
        what = "tiles of a batch" if is_cut else f"a batch of {batch}"
        remedy = "fewer threads" if is_shared else ("a narrower network" if is_cut else "a smaller batch")
        raise MemoryError(f"{what} through {net} must fit into {available} bytes, got {needed}; use {remedy}")
