"""The mean of a function of p over a set, from samples of environments and of references, with an error that is true.

Sums over a random sample of references S_0 < S_1 < ... < S_L (the whole set), each 30 times as large as the one before,
give p_0(y), p_1(y), ..., p_L(y) = p(y) for any y. With f_l = f(p_l), the mean over the set is

    mean f_L = mean f_0 + mean (f_1 - f_0) + ... + mean (f_L - f_{L-1})

and each of these means is estimated from a random sample of environments of its own. The first needs many, but each
is cheap; the last is dear, but its terms are small and a few are enough. Nothing is lost on the way: given the samples
of references, whatever they are, every f_l is a fixed function, so that the estimate is unbiased for f of the *exact*
p, the bias of the logarithm included, and its variance is the sum of the variances of independent means, which the
samples tell. A shared sample of references adds no error of its own.

The numbers of environments minimise the work for a given error (M. B. Giles, Oper. Res. 56 (2008) 607).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from quests_zenn._core.parallel import Workers
from quests_zenn._core.remote import Task
from quests_zenn._core.rows import MemoryRows, Rows, piece_edges, read_ahead
from quests_zenn.entropy._engine import PackedReference
from quests_zenn.entropy._packing import FloatArray
from quests_zenn.entropy._squares import key_of_sums
from quests_zenn.entropy._sweep import Progress

Array = npt.NDArray[np.float64]

#: Half-width of a 95 % interval in standard errors.
Z95 = 1.959963984540054

#: Each sample of references is this much larger than the one before ...
GROWTH = 30
#: ... and the first has at least so many.
FEWEST_REFERENCES = 300

#: Environments asked at each level before the rest is planned.
PILOT = 1_000
#: On the first level, where each is cheap, up to so many, but a quarter of all at most: rare environments, such as the
#: few defects of a crystal, must show up before spreads are believed. (On later levels they differ little: what is rare
#: has few references in any sample.)
FIRST_PILOT = 50_000

#: Work of one more environment beyond its pairs, in pairs: packing it.
OVERHEAD = 2_000


@dataclass
class Level:
    """Differences of f between two samples of references (or f itself, on the first level)."""

    cost: float  #: pairs for one environment
    evaluate: Callable[[npt.NDArray[np.int64]], Array]  #: environments (m,) to differences (F, m)
    order: npt.NDArray[np.integer]  #: all environments, in the order in which they are asked
    values: Array = field(default_factory=lambda: np.empty((0, 0)))

    @property
    def asked(self) -> int:
        return int(self.values.shape[1])

    def ask(self, m: int) -> None:
        """Ask environments until m have been asked."""
        if m > self.asked:
            new = self.evaluate(self.order[self.asked : m].astype(np.int64))
            self.values = new if self.asked == 0 else np.concatenate([self.values, new], axis=1)

    def variances(self) -> Array:
        """Variances of the differences (F,)."""
        return self.values.var(axis=1, ddof=1) if self.asked > 1 else np.zeros(len(self.values))

    def variance_of_mean(self) -> Array:
        """Variances of their means over the set (F,), none left when all have been asked."""
        return self.variances() * (1.0 / self.asked - 1.0 / len(self.order))


def reference_sizes(n: int) -> list[int]:
    """Sizes of the samples of references, the whole set last."""
    sizes = [n]
    while sizes[0] // GROWTH >= FEWEST_REFERENCES:
        sizes.insert(0, sizes[0] // GROWTH)
    return sizes


class SampledSums:
    """p of environments of a set from a random sample of the others: p_l = 1 + (N - 1) / m sum_j K over m others.

    Samples, and sets, of more than a piece are never packed as a whole: their pieces are summed one after the other.

    Parameters
    ----------
    x : Rows
        The whole set.
    members : (m,)
        The sample: different rows, in any order.
    key : str
        Under which finished sums are kept; empty to keep nothing.
    """

    def __init__(
        self, x: Rows, h: Array, members: npt.NDArray[np.integer], precision: str, workers: Workers, key: str = ""
    ) -> None:
        self.x, self.h, self.precision, self.workers, self.key = x, h, precision, workers, key
        self.members = np.sort(members)
        self.whole = len(members) == len(x)
        self.sample: Rows = x if self.whole else MemoryRows(x.take(self.members))
        self.pieces = piece_edges(*self.sample.shape)
        self._packed: dict[str, PackedReference] = {}

    def __call__(self, queries: npt.NDArray[np.integer], progress: Progress | None = None) -> Array:
        """p (H, m), the environment itself counted exactly."""
        parts = [queries[first:last] for first, last in piece_edges(len(queries), 4 * self.x.shape[1])]
        return np.concatenate([self._of_some(part, progress) for part in parts], axis=1)

    def _of_some(self, queries: npt.NDArray[np.integer], progress: Progress | None) -> Array:
        n, m = len(self.x), len(self.members)
        y = self.x.take(queries)
        if self.whole:
            return np.maximum(self._sums(y, self.precision, progress), 1.0)
        at = np.searchsorted(self.members, queries)
        own = self.members[np.minimum(at, m - 1)] == queries
        sums = np.empty((len(self.h), len(queries)))
        if not own.all():
            sums[:, ~own] = self._sums(y[~own], self.precision, progress)
        if own.any():
            # its own term is taken out again, and the rest is scaled up: only float64 leaves enough of it
            sums[:, own] = np.maximum(self._sums(y[own], "float64", None) - 1.0, 0.0)
        return 1.0 + (n - 1) / (m - own) * sums

    def _sums(self, y: FloatArray, precision: str, progress: Progress | None) -> Array:
        """Kernel sums (H, len(y)) over the sample."""
        if len(self.pieces) > 1:
            return self._sums_by_piece(y, precision, progress)
        if precision not in self._packed:
            self._packed[precision] = pack_sample(
                self.sample.read(0, len(self.sample)), self.h, precision, self.workers
            )
        return self._packed[precision].sums(y, self.workers, progress)

    def _sums_by_piece(self, y: FloatArray, precision: str, progress: Progress | None) -> Array:
        keeper = self.workers.keeper if self.key else None
        key = key_of_sums(self.key, self.members, y, precision) if keeper is not None else ""
        state = None if keeper is None else keeper.load(key)
        total, done = np.zeros((len(self.h), len(y))), 0
        if state is not None and state["total"].shape == total.shape:
            total, done = state["total"].copy(), int(state["done"])
            if progress is not None:
                progress(sum(last - first for first, last in self.pieces[:done]) * len(y))
        left = self.pieces[done:]
        for part, (first, last) in zip(self._parts(y, precision, left, progress), left, strict=True):
            total += part
            done += 1
            if self.workers.remote is None and progress is not None:
                progress((last - first) * len(y))
            if keeper is not None:
                keeper.save(key, lambda: {"total": total, "done": np.array(done)}, done == len(self.pieces))  # noqa: B023
        return total

    def _parts(
        self, y: FloatArray, precision: str, pieces: list[tuple[int, int]], progress: Progress | None
    ) -> Iterator[Array]:
        """Sums over each piece, in their order."""
        remote = self.workers.remote
        if remote is None:
            for x in read_ahead(self.sample, pieces):
                yield pack_sample(x, self.h, precision, self.workers).sums(y, self.workers)
            return

        def finished(number: int) -> None:
            if progress is not None:
                progress((pieces[number][1] - pieces[number][0]) * len(y))

        data = [y, *(self.sample.piece(*edges) for edges in pieces)]
        tasks = [Task((0, number + 1), (self.h, precision)) for number in range(len(pieces))]
        yield from remote.map(sums_over_piece, data, tasks, finished)


def pack_sample(x: FloatArray, h: Array, precision: str, workers: Workers) -> PackedReference:
    """A sample of references, packed; its digits suffice for it as it is."""
    return PackedReference.pack(x, h, None, precision, workers, len(x), as_they_are=True)


def sums_over_piece(y: FloatArray, x: FloatArray, h: Array, precision: str) -> Array:
    """Kernel sums (H, len(y)) over x, in the calling thread."""
    with Workers(1) as workers:
        return pack_sample(x, h, precision, workers).sums(y, workers)


def estimate_means(levels: list[Level], targets: Array, most_work: float = np.inf) -> tuple[Array, Array] | None:
    """Ask environments until the standard errors of the first ``len(targets)`` means reach their targets.

    Returns the means (F,) and their standard errors (F,); None as soon as it is clear that this takes more work than
    `most_work` pairs.
    """
    n = len(levels[0].order)
    for number, level in enumerate(levels):
        level.ask(min(n, PILOT if number else max(PILOT, min(n // 4, FIRST_PILOT))))
    while (missed := means_and_errors(levels)[1][: len(targets)] > targets).any():
        costs = [level.cost for level in levels]
        plan = np.max(
            [
                allocate(np.array([level.variances()[f] for level in levels]), costs, float(targets[f]) ** 2, n)
                for f in np.flatnonzero(missed)
            ],
            axis=0,
        )
        if plan @ costs > most_work:
            return None
        before = [level.asked for level in levels]
        for level, m in zip(levels, plan.tolist(), strict=True):
            level.ask(m)
        if [level.asked for level in levels] == before:  # variances were underestimated when this was planned
            for level in levels:
                level.ask(min(n, level.asked + level.asked // 20 + 1))
    return means_and_errors(levels)


def means_and_errors(levels: list[Level]) -> tuple[Array, Array]:
    """The sums of the means of all levels (F,), and their standard errors (F,)."""
    errors = np.sqrt(np.sum([level.variance_of_mean() for level in levels], axis=0))
    return np.sum([level.values.mean(axis=1) for level in levels], axis=0), errors


def allocate(variances: Array, costs: list[float], target: float, n: int) -> npt.NDArray[np.int64]:
    """Numbers of environments that reach a variance of the sum of means with the least work.

    Sampling is without replacement: a level on which all `n` environments are asked has no error left.
    """
    cost = np.asarray(costs)
    numbers = np.zeros(len(cost))
    full = np.zeros(len(cost), bool)
    while not full.all():
        v, c = variances[~full], cost[~full]
        room = target + v.sum() / n
        numbers[~full] = np.sqrt(v / c) * np.sqrt(v * c).sum() / room
        now = ~full & (numbers >= n)
        if not now.any():
            break
        full |= now
    numbers[full] = n
    return np.minimum(n, np.ceil(numbers)).astype(np.int64)
