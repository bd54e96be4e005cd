"""Weights of states and of single structures from dH of their environments."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from quests_zenn._core.checks import DataError, bandwidth, one_of
from quests_zenn.descriptors.environments import DEFAULT_CUTOFF, DEFAULT_K
from quests_zenn.entropy import DEFAULT_BANDWIDTH
from quests_zenn.sampling.weights import DEFAULT_CLIP, KINDS, GroupScores, group_scores, row_weights
from quests_zenn.states._frames import Settings, described
from quests_zenn.states.entropies import StateEntropies
from quests_zenn.states.grouping import State

FloatArray = npt.NDArray[np.float64]

#: Environments of all states that are scored, at most: sums are exact.
MOST_SCORED = 60_000


def state_scores(entropies: StateEntropies, jobs: int | None = None) -> GroupScores:
    """dH of the environments of each state, given all states and given the others; see `GroupScores`.

    Sums are exact, so that of many states each shows evenly spaced ones of its environments, 60,000 in all.
    """
    return _scores(entropies.environments, entropies.bandwidth, jobs)


def state_weights(
    entropies: StateEntropies,
    kind: str = "uniform",
    clip: tuple[float, float] = DEFAULT_CLIP,
    *,
    scores: GroupScores | None = None,
    jobs: int | None = None,
) -> FloatArray:
    """Weights (S,) of states from their environments, see `row_weights`. Averages inside a state are not touched.

    `scores` are those of `state_scores`, where they are known already.
    """
    one_of(kind, "kind", KINDS)
    if kind == "uniform":
        return np.ones(len(entropies.H))
    return _weights(state_scores(entropies, jobs) if scores is None else scores, kind, clip)


def structure_weights(
    states: Sequence[State],
    kind: str,
    h: float = DEFAULT_BANDWIDTH,
    *,
    k: int = DEFAULT_K,
    cutoff: float = DEFAULT_CUTOFF,
    species: str = "none",
    clip: tuple[float, float] = DEFAULT_CLIP,
    jobs: int | None = None,
) -> FloatArray:
    """Weights (S,) of single structures, see `single_states`, or of short states, from all their environments.

    See `row_weights`, and `state_scores` for the number of environments.

    Raises
    ------
    DataError
        If there are no structures.
    """
    one_of(kind, "kind", KINDS)
    if not states:
        raise DataError("there are no structures")
    if kind == "uniform":
        return np.ones(len(states))
    parts: list[list[Any]] = [[] for _ in states]
    for s, _, _, x in described(
        states, [[rows for _, rows in state.parts] for state in states], Settings(k, cutoff, species, jobs)
    ):
        parts[s].append(x)
    return _weights(_scores([np.concatenate(of) for of in parts], bandwidth(h), jobs), kind, clip)


def _scores(parts: Sequence[npt.NDArray[Any]], h: float, jobs: int | None) -> GroupScores:
    step = max(1, math.ceil(sum(map(len, parts)) / MOST_SCORED))
    shown = [x[::step] for x in parts]
    groups = np.repeat(np.arange(len(shown)), [len(x) for x in shown])
    return group_scores(np.concatenate(shown), groups, h, jobs=jobs)


def _weights(scores: GroupScores, kind: str, clip: tuple[float, float]) -> FloatArray:
    return row_weights(scores.density if kind == "density" else scores.novel, kind, clip=clip)
