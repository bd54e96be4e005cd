"""What the beginnings of an order know of all environments.

Whether an environment is known asks for no more than a decision, which a tree takes in a small part of the time of a
sum (`entropy._decide`). Since whatever knows it goes on knowing it, the first beginning that does is found by halving.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from quests_zenn._core.parallel import Workers, split_evenly
from quests_zenn.entropy._decide import Decider

Indices = npt.NDArray[np.int64]
Known = tuple[npt.NDArray[np.floating], Indices]

#: Rows that are copied and asked about at once.
_ROWS = 100_000


class Coverage:
    """An order of environments, and what its beginnings know of a set: dH < eps, decided as in float64.

    Parameters
    ----------
    x : (M, d)
    labels : (M,) or None
        Environments of different labels do not see each other.
    h, eps : float
    known : tuple of arrays or None
        Environments that are known from the start, and their labels.
    """

    def __init__(
        self, x: npt.NDArray[np.floating], labels: Indices | None, h: float, eps: float, known: Known | None
    ) -> None:
        self._x, self._labels, self._h, self._limit, self._known = x, labels, h, -eps, known

    def knows(self, rows: Indices, columns: Indices, workers: Workers) -> npt.NDArray[np.bool_]:
        """Whether each of some rows of x is known by the rows `columns` of x, and what is known from the start."""
        found = np.zeros(len(rows), bool)
        for label in [None] if self._labels is None else np.unique(self._labels[rows]).tolist():
            asked = np.arange(len(rows)) if self._labels is None else np.flatnonzero(self._labels[rows] == label)
            mine = columns if self._labels is None else columns[self._labels[columns] == label]
            parts = [self._x[mine]]
            if self._known is not None:
                known, known_labels = self._known
                parts.append(known if self._labels is None else known[known_labels == label])
            among = np.concatenate(parts)
            if len(among) == 0:
                continue
            decider = Decider(among, self._h, workers)
            for part in split_evenly(len(asked), _ROWS):
                some = asked[slice(*part)]
                limits = np.full(len(some), self._limit)
                found[some] = decider.exceeds(self._x[rows[some]], limits, workers)
        return found

    def first(
        self,
        rows: Indices,
        columns: Indices,
        ends: Indices,
        workers: Workers,
    ) -> Indices:
        """Which of the beginnings ``columns[:end]``, for all (increasing) ends, is the first that knows each row.

        ``len(ends)`` where none does.
        """
        last = len(ends) - 1
        low, high = np.zeros(len(rows), np.int64), np.full(len(rows), last)
        low[~self.knows(rows, columns[: ends[last]], workers)] = last + 1
        while True:
            middle = (low + high) // 2
            active = low < high
            if not active.any():
                return np.maximum(low, high)
            for step in np.unique(middle[active]).tolist():
                mine = np.flatnonzero(active & (middle == step))
                found = self.knows(rows[mine], columns[: ends[step]], workers)
                high[mine[found]] = step
                low[mine[~found]] = step + 1
