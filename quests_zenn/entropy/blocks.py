"""Trajectories, whose frames resemble the frames before them: autocorrelation time, and the error of H that is left."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.constants

from quests_zenn._core.arrays import as_bandwidths, as_codes, as_matrix
from quests_zenn._core.checks import one_of, whole_number
from quests_zenn._core.parallel import Workers, use_workers
from quests_zenn._core.rng import as_rng
from quests_zenn.entropy._engine import log_sums_by_part
from quests_zenn.entropy.approximate import approx_delta_entropy
from quests_zenn.entropy.bandwidth import DEFAULT_BANDWIDTH
from quests_zenn.entropy.estimate import DEFAULT_TOLERANCE, EntropyEstimate, estimate_entropy
from quests_zenn.entropy.metrics import PRECISIONS

Array = npt.NDArray[np.float64]

#: Blocks that a trajectory is cut into. The error of an error from B blocks is about 1 / sqrt(2 B) of it.
DEFAULT_BLOCKS = 10

#: Environments that the jackknife takes its means over, at most.
ASKED = 50_000

#: J/(mol K): an entropy of one nat, k_B, for each atom of a mole.
GAS_CONSTANT: float = scipy.constants.R


@dataclass(frozen=True)
class BlockError:
    """Error of H that the correlation of frames leaves.

    Attributes
    ----------
    standard_error : float, or numpy.ndarray (H,) for several bandwidths; nats
        Delete-one-block jackknife.
    without : numpy.ndarray, shape (B,) or (H, B), nats
        H of the set without each block.
    sampled : int
        Environments that the means were taken over: all of them, or a sample where there are very many.
    """

    standard_error: float | Array
    without: Array
    sampled: int


def block_error(
    x: npt.ArrayLike,
    h: float | npt.ArrayLike = DEFAULT_BANDWIDTH,
    *,
    blocks: npt.ArrayLike,
    labels: npt.ArrayLike | None = None,
    precision: str = "auto",
    random_state: int | np.random.Generator | None = None,
    jobs: int | None = None,
    workers: Workers | None = None,
    progress: Callable[[int], None] | None = None,
) -> BlockError:
    """Standard error of H, by leaving out one block of frames at a time.

    H depends on the number of environments, so that a mean over blocks would be another quantity; what is left after
    one block is taken out is still nearly the whole set. With H_b without block b, the square of the error is
    ``(B - 1) / B sum_b (H_b - mean H_b)^2``. It holds if blocks are longer than the autocorrelation time.

    Parameters
    ----------
    x : array_like, shape (N, d)
        Environments, 1/Å.
    h : float or array_like, shape (H,)
        Bandwidth, 1/Å.
    blocks : array_like, shape (N,)
        The block of each environment: labels of any kind that can be sorted; at least two different ones. For frames of
        a trajectory, ``time_blocks(n_frames)[frame of each environment]``.
    labels, precision, jobs
        See `entropy`.
    random_state : int, numpy.random.Generator or None
        Above 50,000 environments the means are taken over a random sample of them. Its error is part of the result.
    workers, progress
        See `get_all_metrics`.

    Returns
    -------
    BlockError

    Raises
    ------
    ValueError
        If there are fewer than two blocks, or an argument is out of range.

    References
    ----------
    H. R. Künsch, Ann. Stat. 17 (1989) 1217.
    """
    matrix = as_matrix(x, "x")
    n = len(matrix)
    bandwidths, single = as_bandwidths(h)
    one_of(precision, "precision", PRECISIONS)
    member, kinds = as_codes(blocks, n, "blocks"), as_codes(labels, n, "labels")
    if member is None or member.max() == 0:
        raise ValueError("a block error needs at least two blocks")
    count = int(member.max()) + 1
    rows = np.arange(n)
    if n > ASKED:
        rows = np.sort(as_rng(random_state).choice(n, ASKED, replace=False))
    sums, taken = np.zeros((len(bandwidths), count)), np.zeros(count)
    with use_workers(workers, jobs) as pool:
        for kind in range(1 if kinds is None else int(kinds.max()) + 1):
            mine = np.arange(n) if kinds is None else np.flatnonzero(kinds == kind)
            asked = np.intersect1d(rows, mine, assume_unique=True)
            if len(asked) == 0:
                continue
            present, parts = np.unique(member[mine], return_inverse=True)
            y = None if len(asked) == len(mine) else matrix[asked]
            log_p = log_sums_by_part(
                matrix[mine], bandwidths, parts, y=y, precision=precision, workers=pool, progress=progress
            )
            # sums over the parts up to each one, and from each one on
            nothing = np.full((1, *log_p.shape[1:]), -np.inf)
            before = np.concatenate([nothing, np.logaddexp.accumulate(log_p)])
            after = np.concatenate([np.logaddexp.accumulate(log_p[::-1])[::-1], nothing])
            for block in range(count):
                at = int(np.searchsorted(present, block))
                here = at < len(present) and present[at] == block
                stay = member[asked] != block
                sums[:, block] += np.logaddexp(before[at], after[at + here])[:, stay].sum(axis=1)
                taken[block] += stay.sum()
    if (taken == 0).any():
        raise ValueError("a block error needs at least two blocks with environments among those sampled")
    without = np.log(n - np.bincount(member)) - sums / taken
    spread = without - without.mean(axis=1, keepdims=True)
    error = np.sqrt((count - 1) / count * (spread**2).sum(axis=1))
    return BlockError(float(error[0]) if single else error, without[0] if single else without, len(rows))


def autocorrelation_time(series: npt.ArrayLike) -> float:
    """Integrated autocorrelation time of a series of frames, ``1/2 + sum_t rho(t)``, in frames; 0.5 if independent.

    The sum ends at the first t of at least five times itself, so that the noise of later terms stays out.

    Parameters
    ----------
    series : array_like, shape (n,)
        A property of each frame, in order of time; the mean dH of the frame, say.

    Returns
    -------
    float
        Frames; 0.5 for a series without variation. From series shorter than some fifty times itself it is a guess, and
        too low.

    Raises
    ------
    ValueError
        If the series is not one-dimensional and finite.

    References
    ----------
    A. D. Sokal, in Functional Integration (1997), p. 131.
    """
    given = np.asarray(series)
    values = np.asarray(given if given.dtype.kind in "fiub" else np.nan, dtype=np.float64)
    if values.ndim != 1 or len(values) == 0 or not np.isfinite(values).all():
        raise ValueError("a series must be a list of finite numbers, one for each frame")
    n = len(values)
    largest = np.abs(values).max()
    if largest > 0.0:
        values = values / largest
    centred = values - values.mean()
    if not np.abs(centred).max() > 1e-12:
        return 0.5
    spectrum = np.fft.rfft(centred, 2 * n)
    correlation = np.fft.irfft(np.abs(spectrum) ** 2)[:n] / np.arange(n, 0, -1)
    times = np.cumsum(correlation / correlation[0]) - 0.5
    window = np.flatnonzero(np.arange(n) >= 5.0 * times)
    return float(max(0.5, times[window[0] if len(window) else n - 1]))


@dataclass(frozen=True)
class TrajectoryEntropy:
    """Entropy of a trajectory, with its errors.

    Attributes
    ----------
    estimate : EntropyEstimate
        H, and the error that samples leave.
    block_error : float, nats
        What the correlation of frames leaves.
    error : float, nats
        Both together.
    frame_dh : numpy.ndarray, shape (F,), nats
        Mean dH of each frame, among all environments of the trajectory.
    autocorrelation_time : float
        Of that mean, in frames.
    block_length : float
        Frames in a block.
    """

    estimate: EntropyEstimate
    block_error: float
    error: float
    frame_dh: Array
    autocorrelation_time: float
    block_length: float


def trajectory_entropy(
    x: npt.ArrayLike,
    h: float = DEFAULT_BANDWIDTH,
    *,
    frames: npt.ArrayLike,
    blocks: int = DEFAULT_BLOCKS,
    labels: npt.ArrayLike | None = None,
    estimator: str = "auto",
    tolerance: float = DEFAULT_TOLERANCE,
    random_state: int | np.random.Generator | None = None,
    precision: str = "auto",
    jobs: int | None = None,
    workers: Workers | None = None,
    progress: Callable[[int], None] | None = None,
) -> TrajectoryEntropy:
    """Entropy of a trajectory, its error from blocks of frames, and how long frames remember each other.

    Parameters
    ----------
    x : array_like, shape (N, d)
        Environments, 1/Å.
    h : float
        Bandwidth, 1/Å.
    frames : array_like, shape (N,)
        Number of the frame of each environment, in order of time.
    blocks : int
        Blocks of consecutive frames, at most one for each frame. See `block_error`.
    labels, estimator, tolerance, random_state, precision, jobs, workers, progress
        See `estimate_entropy`.

    Returns
    -------
    TrajectoryEntropy

    Raises
    ------
    ValueError
        If there are fewer than two frames, or an argument is out of range.
    """
    owner = as_codes(frames, len(as_matrix(x, "x")), "frames")
    assert owner is not None
    n_frames, rng = int(owner.max()) + 1, as_rng(random_state)
    with use_workers(workers, jobs) as pool:
        common: dict[str, Any] = {"precision": precision, "workers": pool, "progress": progress}
        found = estimate_entropy(x, h, estimator, tolerance, labels=labels, random_state=rng, **common)
        block = block_error(
            x, h, blocks=time_blocks(n_frames, blocks)[owner], labels=labels, random_state=rng, **common
        )
        dh = approx_delta_entropy(
            x, None, h, estimator=estimator, y_labels=labels, random_state=rng, **common
        ).values  # fmt: skip
    by_frame = np.bincount(owner, dh) / np.bincount(owner)
    error = float(np.asarray(block.standard_error))
    return TrajectoryEntropy(
        found,
        error,
        math.hypot(error, float(found.standard_error)),
        by_frame,
        autocorrelation_time(by_frame),
        n_frames / min(blocks, n_frames),
    )


def time_blocks(n_frames: int, blocks: int = DEFAULT_BLOCKS) -> npt.NDArray[np.int64]:
    """The block (n_frames,) of each frame: consecutive frames, blocks of nearly equal length.

    Raises
    ------
    ValueError
        If a number is out of range.
    """
    whole_number(n_frames, "n_frames", 0)
    whole_number(blocks, "blocks", 1)
    return np.arange(n_frames) * min(blocks, n_frames) // max(n_frames, 1)
