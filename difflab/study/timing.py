"""Honest timing: contenders take turns in random order, in calibrated repeats, without what others take of one core."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter, process_time

import numpy as np

from difflab.study.accounts import displaced_seconds


SAMPLE_SECONDS = 2e-3
"""Least length of one sample; far above the clock's resolution and its overhead."""
CALIBRATIONS = 3
WAIT_SECONDS = 0.1
"""What schedulers let programs wait for one another is rarely more."""
MOST_WAITED = 0.05
"""Share of the time of timing that threads may have waited for others to run before a row is flagged."""
MIN_ROUNDS, MAX_ROUNDS = 5, 41


@dataclass(frozen=True)
class Timing:
    """Seconds per call.

    Attributes
    ----------
    seconds : median over the samples.
    spread : distance of the quartiles, divided by the median.
    """

    seconds: float
    spread: float


@dataclass(frozen=True)
class Contest:
    """The timings of contenders that took turns, and the share of wall time this process was running."""

    timings: dict[str, Timing]
    cpu_share: float


def contest(contenders: dict[str, Callable[[], object]], rng: np.random.Generator, budget_seconds: float) -> Contest:
    """Time contenders against one another.

    Parameters
    ----------
    contenders : calls without arguments, by name
    rng : decides the order in every round
    budget_seconds : rounds stop being added beyond it, though each contender runs at least six times in all
    """
    counts = {name: repeats(call) for name, call in contenders.items()}
    cost = sum(n * seconds for n, seconds in counts.values())
    rounds = min(MAX_ROUNDS, max(MIN_ROUNDS, int(budget_seconds / cost)))
    samples: dict[str, list[float]] = {name: [] for name in contenders}
    wall, cpu = perf_counter(), process_time()
    for _ in range(rounds):
        for name in rng.permutation(list(contenders)):
            samples[name].append(sample(contenders[name], counts[name][0]))
    cpu_share = (process_time() - cpu) / (perf_counter() - wall)
    return Contest({name: summary(times) for name, times in samples.items()}, cpu_share)


def repeats(call: Callable[[], object]) -> tuple[int, float]:
    """How many calls make one sample, and the seconds of one; the first call, which warms caches, is not counted.

    One sample that had to wait for a processor would make all later ones short, and those of one contender shorter than
    another's.
    """
    call()
    n = 1
    while (seconds := _undisturbed(call, n)) * n < SAMPLE_SECONDS:
        n = max(2 * n, math.ceil(SAMPLE_SECONDS / max(seconds, 1e-7)))
    return math.ceil(SAMPLE_SECONDS / seconds), seconds


def _undisturbed(call: Callable[[], object], n: int) -> float:
    """The best of some samples; of one where that is longer than most waits."""
    first = sample(call, n)
    others = CALIBRATIONS - 1 if first * n < WAIT_SECONDS else 0
    return min([first, *(sample(call, n) for _ in range(others))])


def sample(call: Callable[[], object], n: int) -> float:
    """Seconds of one call, of ``n`` in a row, without those that other programs had the one core of this process."""
    came, displaced, started = perf_counter(), displaced_seconds(), perf_counter()
    for _ in range(n):
        call()
    seconds = perf_counter() - started
    displaced = displaced_seconds() - displaced
    # Others may have had the processor while the clock of displacement was read, which is no part of the sample.
    aside = perf_counter() - came - seconds
    return (seconds - max(0.0, displaced - aside)) / n


def summary(times: list[float]) -> Timing:
    """Median and spread of samples."""
    low, median, high = np.quantile(times, [0.25, 0.5, 0.75])
    return Timing(float(median), float((high - low) / median))
