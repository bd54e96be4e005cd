"""What structures are worth given those that were chosen: the methods that the loop knows."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from quests_zenn._core.jit import strict_kernel
from quests_zenn._core.parallel import Workers, split_by_cost
from quests_zenn.compression._greedy import Array, Indices
from quests_zenn.entropy._growing import ROWS, WIDTH, GrowingSums, Space, add_squares, append, gather, with_room

State = dict[str, npt.NDArray[np.generic]]

#: Pairs that one task takes.
_PAIRS = 1_000_000

#: Means that differ by less, relative to them, are equal: a logarithm would make much of their rounding.
_MEANS_APART = 1e-13


@strict_kernel
def stale_rows(offsets, structures, floors, dh, seen, labels, counts, rows, owners):  # type: ignore[no-untyped-def]
    """Rows of some structures whose dH is not up to date and reaches their floor, and whose they are; their number."""
    count = 0
    for m in range(len(structures)):
        for i in range(offsets[structures[m]], offsets[structures[m] + 1]):
            if seen[i] < counts[labels[i]] and (dh[i] >= floors[m] or dh[i] == np.inf):
                rows[count], owners[count] = i, m
                count += 1
    return count


@strict_kernel
def find_tops(offsets, structures, dh, values, tops):  # type: ignore[no-untyped-def]
    """Largest dH of each of some structures, and the first row that has it."""
    for m in range(len(structures)):
        s = structures[m]
        top = offsets[s]
        for i in range(offsets[s] + 1, offsets[s + 1]):
            if dh[i] > dh[top]:
                top = i
        values[s], tops[s] = dh[top], top


class Novelty:
    """The largest dH of a structure given those that were chosen: `msc`."""

    def __init__(self, space: Space, offsets: Indices, workers: Workers) -> None:
        self.sums, self._offsets, self._workers = GrowingSums(space), offsets, workers
        n = len(offsets) - 1
        self.values, self._tops = np.full(n, np.inf), offsets[:-1].copy()
        self._rows, self._owners = np.empty(int(offsets[-1]), np.int64), np.empty(int(offsets[-1]), np.int64)

    def add(self, structure: int) -> None:
        space, mine = self.sums.space, slice(*self._offsets[structure : structure + 2])
        self.sums.columns.add(space.z[mine], space.labels[mine])

    def know(self, x: npt.NDArray[np.floating], labels: Indices) -> None:
        """Environments from elsewhere count as chosen."""
        self.sums.columns.add(self.sums.space.place(x, self._workers), labels)

    def exact(self) -> npt.NDArray[np.bool_]:
        return self.sums.is_fresh(self._tops)

    def refresh(self, structures: Indices, floors: Array) -> None:
        self._refresh_rows(structures, floors)
        find_tops(self._offsets, structures, self.sums.dh, self.values, self._tops)

    def _refresh_rows(self, structures: Indices, floors: Array) -> None:
        """Bring the environments of some structures up to date that reach their floor."""
        sums, space = self.sums, self.sums.space
        count = stale_rows(
            self._offsets, structures, floors, sums.dh, sums.seen, space.labels, sums.columns.counts, self._rows,
            self._owners,
        )  # fmt: skip
        sums.refresh(self._rows[:count], self._workers, floors[self._owners[:count]])

    def state(self) -> State:
        sums = self.sums
        return {"seen": sums.seen, "peaks": sums.peaks, "sums": sums.sums, "dh": sums.dh}

    def restore(self, state: State) -> None:
        for name, values in state.items():
            getattr(self.sums, name)[:] = values
        find_tops(self._offsets, np.arange(len(self.values)), self.sums.dh, self.values, self._tops)


@strict_kernel
def find_totals(offsets, structures, dh, values):  # type: ignore[no-untyped-def]
    """Sum of the positive dH of each of some structures."""
    for m in range(len(structures)):
        total = 0.0
        for i in range(offsets[structures[m]], offsets[structures[m] + 1]):
            total += max(dh[i], 0.0)
        values[structures[m]] = total


class TotalNovelty(Novelty):
    """The sum of dH over the environments of a structure, as far as they are novel: `msc_sum`."""

    def __init__(self, space: Space, offsets: Indices, workers: Workers) -> None:
        super().__init__(space, offsets, workers)
        self._seen = np.zeros(len(self.values), np.int64)

    def exact(self) -> npt.NDArray[np.bool_]:
        fresh: npt.NDArray[np.bool_] = self._seen == self.sums.columns.counts.sum()
        return fresh

    def refresh(self, structures: Indices, floors: Array) -> None:
        # an environment whose dH is below 0 counts for nothing, and will not count again
        self._refresh_rows(structures, np.zeros(len(structures)))
        find_totals(self._offsets, structures, self.sums.dh, self.values)
        self._seen[structures] = self.sums.columns.counts.sum()

    def state(self) -> State:
        return super().state() | {"totals_seen": self._seen}

    def restore(self, state: State) -> None:
        self._seen[:] = state["totals_seen"]
        super().restore({name: values for name, values in state.items() if name != "totals_seen"})
        find_totals(self._offsets, np.arange(len(self.values)), self.sums.dh, self.values)


@strict_kernel
def nearest_means(z, offsets, means, structures, chosen, seen, gone, panels, starts, least):  # type: ignore[no-untyped-def]
    """Lower ``least[s]`` to the mean distance between the rows of s and those of each structure chosen since.

    No mean of distances is below the distance of the means: most structures are passed over for that.
    """
    d = z.shape[1]
    gathered, totals, limits = np.empty(d * ROWS), np.empty(ROWS * WIDTH), np.full(ROWS, np.inf)
    for m in range(len(structures)):
        s = structures[m]
        rows = np.arange(offsets[s], offsets[s + 1])
        for number in range(seen[s], gone):
            other = chosen[number]
            apart = 0.0
            for c in range(d):
                apart += (means[s, c] - means[other, c]) ** 2
            # a trifle less, for rounding
            if math.sqrt(apart) * (1.0 - 1e-12) >= least[s]:
                continue
            n = offsets[other + 1] - offsets[other]
            total = 0.0
            for start in range(0, len(rows), ROWS):
                count = min(ROWS, len(rows) - start)
                gather(z, rows, start, count, gathered)
                for panel in range((n + WIDTH - 1) // WIDTH):
                    totals[:] = 0.0
                    add_squares(gathered, panels, (starts[number] + panel) * WIDTH * d, 0, d, totals, limits)
                    for r in range(count):
                        for lane in range(min(WIDTH, n - panel * WIDTH)):
                            total += math.sqrt(totals[r * WIDTH + lane])
            least[s] = min(least[s], total / (len(rows) * n))
        seen[s] = gone


class MeanDistance:
    """The smallest mean distance between the environments of a structure and those of one chosen: `fps`.

    Values are logarithms, so that weights add up as in the other methods.
    """

    def __init__(self, space: Space, offsets: Indices, means: Array, workers: Workers) -> None:
        n = len(offsets) - 1
        self._space, self._offsets, self._workers = space, offsets, workers
        self._means = space.place(means, workers)
        self.values = np.full(n, np.inf)
        self._least, self._seen = np.full(n, np.inf), np.zeros(n, np.int64)
        self._chosen: list[int] = []
        self._starts = [0]
        self._panels = np.empty(0)

    def add(self, structure: int) -> None:
        rows = np.arange(*self._offsets[structure : structure + 2])
        first = self._starts[-1]
        last = first - (-len(rows) // WIDTH)
        self._panels = with_room(self._panels, last * WIDTH * self._space.d)
        append(self._space.z, rows, self._panels, first * WIDTH)
        self._chosen.append(structure)
        self._starts.append(last)

    def exact(self) -> npt.NDArray[np.bool_]:
        fresh: npt.NDArray[np.bool_] = self._seen == len(self._chosen)
        return fresh

    def refresh(self, structures: Indices, floors: Array) -> None:
        chosen, starts = np.array(self._chosen), np.array(self._starts)
        gone = len(chosen)
        sizes = np.diff(self._offsets)
        added = int(sizes[chosen[int(self._seen[structures].min()) :]].sum())
        self._workers.run(
            lambda part: nearest_means(
                self._space.z, self._offsets, self._means, structures[slice(*part)], chosen, self._seen, gone,
                self._panels, starts, self._least,
            ),
            split_by_cost((sizes[structures] * max(1, added)).tolist(), _PAIRS),
        )  # fmt: skip
        with np.errstate(divide="ignore"):
            self.values[structures] = np.log(self._least[structures])

    def state(self) -> State:
        return {"least": self._least, "seen": self._seen}

    def restore(self, state: State) -> None:
        self._least[:], self._seen[:] = state["least"], state["seen"]
        with np.errstate(divide="ignore"):
            self.values[:] = np.log(self._least)


class DistanceOfMeans:
    """The smallest distance of the mean descriptor to that of a structure chosen: `mean_fps`. Values are logarithms."""

    def __init__(self, means: Array) -> None:
        self._means, self._norms = means, np.linalg.norm(means, axis=1)
        self.values, self._squares = np.full(len(means), np.inf), np.full(len(means), np.inf)

    def add(self, structure: int) -> None:
        apart = self._means - self._means[structure]
        squares = np.einsum("sc,sc->s", apart, apart)
        squares[np.sqrt(squares) <= _MEANS_APART * (self._norms + self._norms[structure])] = 0.0
        np.minimum(self._squares, squares, out=self._squares)
        with np.errstate(divide="ignore"):
            self.values = 0.5 * np.log(self._squares)

    def exact(self) -> npt.NDArray[np.bool_]:
        return np.ones(len(self.values), bool)

    def refresh(self, structures: Indices, floors: Array) -> None:
        pass  # always up to date

    def state(self) -> State:
        return {}

    def restore(self, state: State) -> None:
        pass  # nothing but what was added


class Chance:
    """A number drawn once for each structure: `random`.

    Drawn from Gumbel's distribution, so that with logarithms of weights added the order is that of drawing structures
    one after the other in proportion to their weights.
    """

    def __init__(self, n: int, rng: np.random.Generator) -> None:
        self.values = rng.gumbel(size=n)

    def add(self, structure: int) -> None:
        pass

    def exact(self) -> npt.NDArray[np.bool_]:
        return np.ones(len(self.values), bool)

    def refresh(self, structures: Indices, floors: Array) -> None:
        pass

    def state(self) -> State:
        return {"values": self.values}

    def restore(self, state: State) -> None:
        self.values[:] = state["values"]
