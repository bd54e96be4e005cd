"""Information entropy of states that can be compared: the same k, cutoff, bandwidth and number of environments."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from quests_zenn._core.checks import DataError, DataWarning, bandwidth, whole_number
from quests_zenn.descriptors.environments import DEFAULT_CUTOFF, DEFAULT_K
from quests_zenn.entropy import DEFAULT_BANDWIDTH, block_error, entropy, time_blocks
from quests_zenn.states._frames import Settings, described
from quests_zenn.states.grouping import State, name_of

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

#: Environments of each state, at most: what exact sums do in a second.
MOST = 20_000

#: Frames are taken, evenly, until they have so many times the environments that are drawn.
SPARE = 4

#: Blocks of frames, one of which is left out at a time.
BLOCKS = 10

#: Fewer than so many decorrelated frames make no blocks.
LEAST_FRAMES = 4


@dataclass(frozen=True)
class StateEntropies:
    """Entropies of S states. H of two states may be compared: they were taken at the same settings and N.

    Attributes
    ----------
    H, error : array (S,), nats per atom
        H, and its error from leaving out one block of frames at a time.
    n_environments : int
        N, the same for all states.
    stride : array of int (S,)
        Frames between those that were taken: at least twice the correlation time of energy and pressure.
    n_frames : array of int (S,)
        Frames that were taken.
    bandwidth : float, 1/Å
    environments : list of Environments
        Those of each state.
    """

    H: FloatArray
    error: FloatArray
    n_environments: int
    stride: npt.NDArray[np.int64]
    n_frames: npt.NDArray[np.int64]
    bandwidth: float
    environments: list[npt.NDArray[np.floating[Any]]]


def state_entropies(
    states: Sequence[State],
    h: float = DEFAULT_BANDWIDTH,
    *,
    k: int = DEFAULT_K,
    cutoff: float = DEFAULT_CUTOFF,
    species: str = "none",
    n_environments: int | None = None,
    random_state: int = 0,
    jobs: int | None = None,
) -> StateEntropies:
    """H of each state.

    H grows with the number of environments until the density is resolved, and frames that remember each other count
    twice, so that every state gives the same number N of environments, from frames at least two correlation times
    apart: as many as the poorest state has, at most 20,000. From what is left, environments are drawn at random.

    Parameters
    ----------
    states : sequence of State
    h : float, 1/Å
        Bandwidth.
    k, cutoff, species
        See `describe`.
    n_environments : int, optional
        N.
    random_state : int
    jobs : int, optional

    Returns
    -------
    StateEntropies

    Raises
    ------
    DataError
        If a state has fewer than four frames, or fewer environments than asked for.

    Warns
    -----
    DataWarning
        If a state has fewer than four decorrelated frames: more are taken then.
    """
    width = bandwidth(h)
    if not states:
        raise DataError("there are no states")
    strides = np.array([_stride(state) for state in states])
    taken = [_spaced(state, int(stride)) for state, stride in zip(states, strides, strict=True)]
    counts = np.array([sum(len(rows) for rows in parts) for parts in taken])
    for state, count in zip(states, counts, strict=True):
        if count < LEAST_FRAMES:
            raise DataError(
                f"the state {name_of(state)} has {count} frame{'' if count == 1 else 's'}; an entropy needs "
                f"{LEAST_FRAMES} or more"
            )
    hasty = [state for state, stride in zip(states, strides, strict=True) if stride < _wanted(state)]
    if hasty:
        warnings.warn(
            f"{len(hasty)} of {len(states)} states have fewer than {LEAST_FRAMES} frames that do not remember each "
            f"other ({name_of(hasty[0])}: correlation time {hasty[0].correlation_time:.3g} of {hasty[0].n_frames} "
            "frames), and give H from frames that do; H and its error are too small there: run them longer",
            DataWarning,
            stacklevel=2,
        )
    there = [
        sum(int(samples.n_atoms[rows].sum()) for (samples, _), rows in zip(state.parts, parts, strict=True))
        for state, parts in zip(states, taken, strict=True)
    ]
    n = min(MOST, *there) if n_environments is None else whole_number(n_environments, "n_environments", 2)
    if n > min(there):
        poorest = states[int(np.argmin(there))]
        raise DataError(f"the state {name_of(poorest)} has {min(there)} environments, fewer than the {n} asked for")
    taken = [_enough(state, parts, SPARE * n) for state, parts in zip(states, taken, strict=True)]
    counts = np.array([sum(len(rows) for rows in parts) for parts in taken])
    kept, owner = _draw(states, taken, n, Settings(k, cutoff, species, jobs), random_state)
    H, error = np.empty(len(states)), np.empty(len(states))
    for i, (x, frames) in enumerate(zip(kept, owner, strict=True)):
        H[i] = float(entropy(x, width, jobs=jobs))
        blocks = time_blocks(int(counts[i]), min(BLOCKS, int(counts[i])))[frames]
        if len(np.unique(blocks)) < 2:
            raise DataError(
                f"{n} environments of the state {name_of(states[i])} are of one block of frames, and tell no error; "
                "take more"
            )
        error[i] = float(np.asarray(block_error(x, width, blocks=blocks, jobs=jobs).standard_error))
    return StateEntropies(H, error, n, strides.astype(np.int64), counts, width, kept)


def _draw(
    states: Sequence[State], taken: Sequence[list[IntArray]], n: int, settings: Settings, random_state: int
) -> tuple[list[npt.NDArray[np.floating[Any]]], list[IntArray]]:
    """Of each state n environments at random, in order, and the number of the frame that each is from."""
    drawn: list[dict[tuple[int, int], tuple[int, IntArray, IntArray]]] = []
    for s, (state, parts) in enumerate(zip(states, taken, strict=True)):
        sizes = np.concatenate([samples.n_atoms[rows] for (samples, _), rows in zip(state.parts, parts, strict=True)])
        ends = np.cumsum(sizes)
        chosen = np.sort(np.random.default_rng([random_state, s]).permutation(int(ends[-1]))[:n])
        places = [(p, int(row)) for p, rows in enumerate(parts) for row in rows]
        edges = np.searchsorted(chosen, np.concatenate([[0], ends]))
        drawn.append(
            {
                place: (f, np.arange(edges[f], edges[f + 1]), chosen[edges[f] : edges[f + 1]] - (ends[f] - sizes[f]))
                for f, place in enumerate(places)
            }
        )
    kept: list[Any] = [None] * len(states)
    owner = [np.empty(n, np.int64) for _ in states]
    for s, p, row, x in described(states, taken, settings):
        f, where, atoms = drawn[s][p, row]
        if kept[s] is None:
            kept[s] = np.empty((n, x.shape[1]), x.dtype)
        kept[s][where], owner[s][where] = x[atoms], f
    return kept, owner


def _stride(state: State) -> int:
    """Two correlation times, or less where a state would have too few frames."""
    return max(1, min(_wanted(state), state.n_frames // LEAST_FRAMES))


def _wanted(state: State) -> int:
    """Frames between those that do not remember each other."""
    return max(1, math.ceil(2.0 * state.correlation_time))


def _enough(state: State, parts: list[IntArray], n: int) -> list[IntArray]:
    """Some of these frames, evenly spaced, that have n environments or more, and `LEAST_FRAMES` frames or more."""
    count = sum(len(rows) for rows in parts)
    total = sum(int(samples.n_atoms[rows].sum()) for (samples, _), rows in zip(state.parts, parts, strict=True))
    step = max(1, min(total // n, count // max(LEAST_FRAMES, BLOCKS)))
    return [rows[::step] for rows in parts]


def _spaced(state: State, stride: int) -> list[IntArray]:
    """Frames of each part, so far apart."""
    return [rows[::stride] for _, rows in state.parts]
