"""Which frames are of one phase: clusters of whole frames."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from quests_zenn._core.checks import DataError, whole_number
from quests_zenn.descriptors.environments import DEFAULT_CUTOFF, DEFAULT_K
from quests_zenn.states._frames import Settings, described
from quests_zenn.states.grouping import State, name_of
from quests_zenn.states.samples import Samples

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

#: Frames of each state that are looked at; what lies between them in time is of the phase of the nearest one.
LOOKED_AT = 40

#: Principal components of the mean environments of frames.
COMPONENTS = 6

#: Phases that are looked for.
MOST_PHASES = 6

#: Clusters explain the frames if what is left is at most so many times the scatter of frames inside a state.
EXPLAINED = 2.0

#: One phase more has to explain so many times as much.
WORTH = 1.5

#: A run holds two phases if the means of their frames are so many standard deviations of a frame apart.
APART = 4.0

#: Fewer frames of a run in another phase are a passing fluctuation of it.
LEAST_SHARE = 0.1

#: Starts with random labels of states, beside those of k-means.
STARTS = 30

#: Rounds of an assignment, at most.
TURNS = 100

#: Frames of a run that scatter by less than this share of all variance are copies of one.
SAME = 1e-12

#: Ridge on the trends of a phase: a phase of two states has a trend of no more than two states.
RIDGE = 1e-3


@dataclass(frozen=True)
class Phases:
    """Phases of all frames.

    Attributes
    ----------
    n : int
        Phases that were found, ordered by their mean temperature, then volume.
    labels : list of (array of int)
        For each `Samples`, the phase of each frame.
    left_over : list of float
        For one, two, ... phases: the variance of mean environments that phases and their trends leave, over that of
        frames inside a state. About 1 where all is explained.
    """

    n: int
    labels: list[IntArray]
    left_over: list[float]


def find_phases(
    samples: Sequence[Samples],
    states: Sequence[State],
    n: int | str = "auto",
    *,
    k: int = DEFAULT_K,
    cutoff: float = DEFAULT_CUTOFF,
    species: str = "none",
    random_state: int = 0,
    jobs: int | None = None,
) -> Phases:
    """Cluster whole frames into phases.

    A frame is described by its mean environment, at one volume per atom for all frames, so that compression alone
    makes no phase. What is left depends on the phase, and within a phase smoothly on T and V (the mean environment
    widens with the amplitude of vibrations, as the square root of T, to first order). So each cluster has a trend of
    its own: clusterwise linear regression (Späth, Computing 22, 367 (1979)), started from k-means and from random
    labels. The number of phases is the smallest that leaves no more than twice the scatter of frames inside a state;
    it is one where states have one frame each.

    Parameters
    ----------
    samples : sequence of Samples
    states : sequence of State
        Those of `group_states` of the same samples.
    n : int or "auto"
        Number of phases.
    k, cutoff, species
        See `describe`.
    random_state : int
    jobs : int, optional

    Returns
    -------
    Phases

    Raises
    ------
    DataError
        If there are fewer states than phases.
    ValueError
        If an argument makes no sense.
    """
    given = None if n == "auto" else whole_number(n, "n", 1)
    if given is not None and given > len(states):
        raise DataError(f"{given} phases need as many states, and there are {len(states)}")
    looked = [_looked_at(state) for state in states]
    means, owner, origin = _mean_environments(states, looked, Settings(k, cutoff, species, jobs))
    T = np.array([state.temperature for state in states])[owner]
    V = np.array([state.volume for state in states])[owner]
    z = _components(means)
    # a run at a state stays together, unless it changes its phase; two runs at one state may be of two phases
    run = np.unique(np.column_stack([owner, origin[:, 0]]), axis=0, return_inverse=True)[1].reshape(-1)
    noise = _scatter(z, run)
    if given is None and noise <= SAME * float(z.var(0).sum()):
        # without the scatter of frames inside of states nothing tells a phase from a state
        given = 1
    trends = _trends(T, V)
    rng = np.random.default_rng(random_state)
    tried: list[tuple[float, IntArray]] = []
    for count in range(1, (given or min(MOST_PHASES, len(states))) + 1):
        tried.append(_clusters(z, trends, run, count, rng))
        if given is None and tried[-1][0] <= EXPLAINED * noise:
            break
    count = given or _enough([left for left, _ in tried], noise)
    found = _settled(tried[count - 1][1], z, run, noise)
    order = sorted(range(count), key=lambda p: _place(T, V, found == p))
    rank = np.empty(count, np.int64)
    rank[order] = np.arange(count)
    labels = [np.zeros(len(part), np.int64) for part in samples]
    places = {id(part): i for i, part in enumerate(samples)}
    rows = rank[found]
    for s, state in enumerate(states):
        mine = owner == s
        for p, (part, frames) in enumerate(state.parts):
            here = mine & (origin[:, 0] == p)
            seen = origin[here, 1]
            nearest = np.abs(frames[:, None] - seen[None, :]).argmin(1)
            labels[places[id(part)]][frames] = rows[here][nearest]
    kept = sorted(set(np.concatenate(labels).tolist()))
    again = {old: new for new, old in enumerate(kept)}
    return Phases(
        len(kept),
        [np.array([again[p] for p in part.tolist()], np.int64) for part in labels],
        [left / noise if noise > 0.0 else math.inf for left, _ in tried],
    )


def _enough(left: list[float], noise: float) -> int:
    """How many phases are enough: the first number that explains the frames, if each one before is worth it."""
    count = 1
    while count < len(left) and left[count - 1] > EXPLAINED * noise:
        if left[count - 1] < WORTH * left[count]:
            break
        count += 1
    return count


def _looked_at(state: State) -> list[IntArray]:
    """Frames of each part of a state, evenly spread."""
    share = LOOKED_AT / state.n_frames
    found = []
    for _, rows in state.parts:
        count = min(len(rows), max(1, math.ceil(share * len(rows))))
        found.append(rows[np.linspace(0, len(rows) - 1, count).round().astype(np.int64)])
    return found


def _mean_environments(
    states: Sequence[State], looked: list[list[IntArray]], settings: Settings
) -> tuple[FloatArray, IntArray, IntArray]:
    """Mean environments of frames, the state of each frame, and its part and number."""
    volume = float(np.mean([state.volume for state in states]))
    means, origin = [], []
    for state, part, frame, x in described(states, looked, settings, volume):
        means.append(x.mean(0, dtype=np.float64))
        origin.append((state, part, frame))
    places = np.array(origin, np.int64)
    return np.array(means), places[:, 0], places[:, 1:]


def _components(means: FloatArray) -> FloatArray:
    from sklearn.decomposition import PCA

    count = min(COMPONENTS, *means.shape)
    return np.asarray(PCA(count, svd_solver="full").fit_transform(means))


def _scatter(z: FloatArray, run: IntArray) -> float:
    """Variance of frames inside a run at one state, the median over runs: some may hold two phases."""
    counts = np.bincount(run)
    found = [float(z[run == s].var(0, ddof=1).sum()) for s in np.flatnonzero(counts > 1)]
    return float(np.median(found)) if found else 0.0


def _trends(T: FloatArray, V: FloatArray) -> FloatArray:
    """What a mean environment may depend on, within a phase."""
    root, log = np.sqrt(T), np.log(V)
    columns = [root, T, log, root * log]
    scaled = [(c - c.mean()) / c.std() if c.std() > 1e-9 * abs(c.mean()) else np.zeros_like(c) for c in columns]
    return np.column_stack([np.ones_like(T), *scaled])


def _clusters(
    z: FloatArray, trends: FloatArray, run: IntArray, count: int, rng: np.random.Generator
) -> tuple[float, IntArray]:
    """Mean square left over, and the label of each frame."""
    from sklearn.cluster import KMeans

    n = int(run.max()) + 1
    starts = [np.zeros(n, np.int64)]
    if count > 1:
        centres = np.array([z[run == s].mean(0) for s in range(n)])
        seeds = rng.integers(2**31, size=5)
        starts = [KMeans(count, n_init=1, random_state=int(seed)).fit_predict(centres) for seed in seeds]
        starts += [rng.integers(count, size=n) for _ in range(STARTS)]
    best: tuple[float, IntArray] | None = None
    for start in starts:
        label = start.astype(np.int64)[run]
        # runs as a whole first, then frames on their own, for runs that hold two phases
        for whole in (True, False):
            for _ in range(TURNS):
                distance = _from_others(z, trends, run, label, count)
                fresh = _sums(distance, run).argmin(1)[run] if whole else distance.argmin(1)
                if np.array_equal(fresh, label):
                    break
                label = fresh
        left = 0.0
        for p in range(count):
            x, y = trends[label == p], z[label == p]
            if len(x):
                left += float(((y - x @ _solve(x.T @ x, x.T @ y, len(x))) ** 2).sum()) / len(z)
        if best is None or left < best[0] * (1.0 - 1e-9):
            best = left, label.astype(np.int64)
    assert best is not None
    return best


def _sums(values: FloatArray, run: IntArray) -> FloatArray:
    """Sums over the frames of each run."""
    total = np.zeros((int(run.max()) + 1, *values.shape[1:]))
    np.add.at(total, run, values)
    return total


def _from_others(z: FloatArray, trends: FloatArray, run: IntArray, label: IntArray, count: int) -> FloatArray:
    """Square distances of frames from the trend of each cluster in all *other* runs.

    A few runs have a trend through anything: with its own frames a run at the rim would hold on to any cluster.
    """
    distance = np.full((len(z), count), np.inf)
    for p in range(count):
        mine = label == p
        x, y, of = trends[mine], z[mine], run[mine]
        n = int(run.max()) + 1
        left, right, rows = np.zeros((n, x.shape[1], x.shape[1])), np.zeros((n, x.shape[1], z.shape[1])), np.zeros(n)
        np.add.at(left, of, x[:, :, None] * x[:, None, :])
        np.add.at(right, of, x[:, :, None] * y[:, None, :])
        np.add.at(rows, of, 1.0)
        others = rows.sum() - rows
        known = others > 0
        c = np.zeros((n, x.shape[1], z.shape[1]))
        c[known] = _solve(left.sum(0) - left[known], right.sum(0) - right[known], others[known])
        gap = z - np.einsum("nt,ntc->nc", trends, c[run])
        distance[:, p] = np.where(known[run], (gap**2).sum(1), np.inf)
    return distance


def _solve(left: FloatArray, right: FloatArray, rows: Any) -> FloatArray:
    """Coefficients of trends."""
    unit = np.full(left.shape[-1], RIDGE)
    unit[0] = 1e-9  # the mean is free
    return np.asarray(np.linalg.solve(left + np.asarray(rows)[..., None, None] * np.diag(unit), right))


def _settled(label: IntArray, z: FloatArray, run: IntArray, noise: float) -> IntArray:
    """Labels, of a whole run where its frames do not fall into two groups: frames at the rim of one may look odd."""
    result = label.copy()
    for s in range(int(run.max()) + 1):
        mine = run == s
        present, counts = np.unique(label[mine], return_counts=True)
        top = int(present[counts.argmax()])
        usual = z[mine & (label == top)].mean(0)
        for p in present.tolist():
            odd = mine & (label == p)
            few = odd.sum() < LEAST_SHARE * mine.sum()
            if few or float(((z[odd].mean(0) - usual) ** 2).sum()) < APART**2 * noise:
                result[odd] = top
    return result


def _place(T: FloatArray, V: FloatArray, mine: npt.NDArray[np.bool_]) -> tuple[float, float]:
    return (float(T[mine].mean()), float(V[mine].mean())) if mine.any() else (math.inf, math.inf)


def phase_shares(states: Sequence[State], phases: Phases, samples: Sequence[Samples]) -> list[dict[str, Any]]:
    """Shares of phases in the frames of each state that holds several of them.

    They reflect what was simulated. They are estimates of p_k only where runs went from one phase to another and back
    again and again: ``conversions`` counts changes from frame to frame.

    Parameters
    ----------
    states : sequence of State
        Those of `group_states` without phases.
    phases : Phases
    samples : sequence of Samples

    Returns
    -------
    list of dict
        ``volume``, ``temperature``, ``n_frames``, ``share`` (of each phase) and ``conversions``.
    """
    places = {id(part): i for i, part in enumerate(samples)}
    found = []
    for state in states:
        of = [phases.labels[places[id(part)]][rows] for part, rows in state.parts]
        share = np.bincount(np.concatenate(of), minlength=phases.n) / state.n_frames
        if (share > 0.0).sum() > 1:
            found.append(
                {
                    "volume": state.volume,
                    "temperature": state.temperature,
                    "n_frames": state.n_frames,
                    "share": share.tolist(),
                    "conversions": int(sum(np.count_nonzero(np.diff(labels)) for labels in of)),
                }
            )
    return found


def phases_told(phases: Phases, states: Sequence[State]) -> Iterator[dict[str, Any]]:
    """Each phase: its states, frames, and where it is."""
    for p in range(phases.n):
        mine = [state for state in states if state.phase == p]
        yield {
            "number": p,
            "n_states": len(mine),
            "n_frames": sum(state.n_frames for state in mine),
            "T_range": [min(s.temperature for s in mine), max(s.temperature for s in mine)],
            "x_range": [min(s.volume for s in mine), max(s.volume for s in mine)],
            "example": name_of(max(mine, key=lambda state: state.n_frames)),
        }
