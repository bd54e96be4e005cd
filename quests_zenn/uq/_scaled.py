"""dH in units of what is usual where the reference is sparse itself."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from quests_zenn._core.parallel import Workers, split_evenly
from quests_zenn.entropy._leave_out import log_sums_of_others
from quests_zenn.entropy._neighbours import nearest
from quests_zenn.uq.reference import Reference
from quests_zenn.uq.thresholds import find_copies, merge_copies

#: Leave-out dH of an environment of the reference, nats, at which dH beside it counts half. (Some three bandwidths to
#: its nearest neighbour; 2 and 10 flag nearly the same frames.)
SPARSE = 5.0

#: Neighbours among which one of another group is looked for first; then ever more.
_FIRST_LOOK = 8

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


class Surroundings:
    """How well the environments of a reference know each other, which tells what a dH beside them is worth.

    The *scaled* dH of an atom is its dH where that is 0 or less, and else ``dH / (1 + b / 5)``. b is the dH, or 0 if it
    is less, of the nearest environment of the reference, given all other groups than its own: where the reference holds
    single frames far from each other, new frames beside them may be that far away as well. (A score in units of what
    the nearest neighbour has itself: D. M. J. Tax, R. P. W. Duin, Data description in subspaces, ICPR 2000; in
    conformal prediction: H. Papadopoulos, V. Vovk, A. Gammerman, J. Artif. Intell. Res. 40, 815, 2011.)
    """

    def __init__(self, reference: Reference) -> None:
        self.reference = reference
        found = reference._left_out
        offsets = reference.frame_offsets
        groups = found.groups if found is not None else merge_copies(
            reference.groups, find_copies(reference.x, reference.numbers, offsets)
        )  # fmt: skip
        self._member = groups[np.repeat(np.arange(len(groups)), np.diff(offsets))]
        self._codes = reference._codes(reference.numbers)
        self._own = np.full(len(self._member), np.nan)  # b, where it is known
        self._columns: dict[int, tuple[IntArray, FloatArray]] = {}
        if found is not None:
            self._own[found.rows] = np.maximum(found.dh, 0.0)

    def scaled(self, dh: FloatArray, x: npt.NDArray[np.floating], numbers: IntArray, workers: Workers) -> FloatArray:
        """Scaled dH (m,) of atoms whose environments x (m, d) have the layout of the reference."""
        out = dh.copy()
        codes = self.reference._codes(numbers)
        asked = np.isfinite(dh) & (dh > 0.0)
        for code in np.unique(codes[asked]).tolist():
            rows = np.flatnonzero(asked & (codes == code))
            alike = np.flatnonzero(self._codes == code)
            there = alike[nearest(x[rows], self.reference.x[alike], 1, workers=workers)[0][:, 0]]
            out[rows] = self._reduced(dh[rows], there, workers)
        return out

    def scaled_own(self, dh: FloatArray, rows: IntArray, workers: Workers) -> FloatArray:
        """Scaled dH (m,) of environments of the reference itself, from their dH given all other groups."""
        out = dh.copy()
        asked = np.isfinite(dh) & (dh > 0.0)
        for code in np.unique(self._codes[rows[asked]]).tolist():
            part = np.flatnonzero(asked & (self._codes[rows] == code))
            there = self._nearest_of_others(rows[part], np.flatnonzero(self._codes == code), workers)
            out[part] = self._reduced(dh[part], there, workers)
        return out

    def _reduced(self, dh: FloatArray, there: IntArray, workers: Workers) -> FloatArray:
        own = self._known(there, workers)
        own[np.isinf(own)] = 0.0  # no other group has its element, which tells nothing of what is usual there
        scaled: FloatArray = dh / (1.0 + own / SPARSE)
        return scaled

    def _nearest_of_others(self, rows: IntArray, alike: IntArray, workers: Workers) -> IntArray:
        """The nearest environment of another group, among those that can resemble it at all; there is one."""
        x, member = self.reference.x, self._member
        found = np.full(len(rows), -1)
        n = _FIRST_LOOK
        while (left := np.flatnonzero(found < 0)).size:
            n = min(n, len(alike))
            near = alike[nearest(x[rows[left]], x[alike], n, workers=workers)[0]]
            other = member[near] != member[rows[left]][:, None]
            first = other.argmax(axis=1)
            there = other.any(axis=1)
            found[left[there]] = near[there, first[there]]
            if n == len(alike):
                break
            n *= 8
        return found

    def _known(self, rows: IntArray, workers: Workers) -> FloatArray:
        """b of environments of the reference (m,); found once for each. inf: no other group has the element."""
        missing = np.unique(rows[np.isnan(self._own[rows])])
        for code in np.unique(self._codes[missing]).tolist():
            if code not in self._columns:
                alike = np.flatnonzero(self._codes == code)
                scale = math.sqrt(2.0) * self.reference.bandwidth
                self._columns[code] = alike, np.ascontiguousarray(self.reference.x[alike].T, np.float64) / scale
            alike, columns = self._columns[code]
            here = missing[self._codes[missing] == code]
            asked = np.searchsorted(alike, here)
            out = np.full((1, len(asked)), -np.inf)
            wanted, member = np.ones(out.shape, bool), self._member[alike]

            def work(
                part: tuple[int, int], asked: IntArray = asked, out: FloatArray = out, columns: FloatArray = columns,
                wanted: npt.NDArray[np.bool_] = wanted, member: IntArray = member,
            ) -> None:  # fmt: skip
                log_sums_of_others(columns, member, asked, np.arange(*part), wanted, np.ones(1), out)

            workers.run(work, split_evenly(len(asked), 16))
            self._own[here] = np.maximum(0.0 - out[0], 0.0)
        own: FloatArray = self._own[rows]
        return own
