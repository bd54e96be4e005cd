"""Isotherms of a free energy F(V, T): where they are stable, and points on them, all temperatures and members at once.

Surface 0 is the mean of the committee, surface m its m-th member. Inside, units are eV, Å3 and K, so that pressures are
in eV/Å3. A grid over V finds brackets; the numbers come from Newton steps with derivatives of the model, kept inside of
their brackets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
Order = tuple[int, int]

#: Points of the grid over V. Cells in which more may happen than their ends show are split; see `Surfaces.scan`.
N_GRID = 129

#: Into how many a cell is split, and how often.
SPLIT, N_SPLITS = 4, 2

#: Most by which F_VV may differ from a smooth curve through the ends of a cell, as a share of its size there.
ROUGH = 0.02

#: Points on which barriers between two branches are compared.
N_BARRIER = 513

#: Most points per call of the model, which bounds the memory.
MOST_POINTS = 65536

_EPS = float(np.finfo(np.float64).eps)


def safe_newton(
    function: Callable[[FloatArray, IntArray], tuple[FloatArray, FloatArray]],
    low: FloatArray,
    high: FloatArray,
    rising: BoolArray,
    start: FloatArray | None = None,
    n_steps: int = 120,
) -> FloatArray:
    """Roots of many functions, each in a bracket where it changes sign: Newton steps, and bisection where they fail.

    Parameters
    ----------
    function : callable
        ``function(x, which)`` gives values and derivatives of the functions numbered ``which`` at ``x``.
    low, high : numpy.ndarray, shape (n,)
    rising : numpy.ndarray of bool, shape (n,)
        Whether the function is negative at ``low`` and positive at ``high``, or the other way round.
    start : numpy.ndarray, shape (n,), optional
        By default the middle.
    n_steps : int
        Most steps; bisection alone needs 60.

    Returns
    -------
    numpy.ndarray, shape (n,)
        An end of the bracket where the function has no root in it.
    """
    low, high = low.copy(), high.copy()
    x = 0.5 * (low + high) if start is None else np.clip(start, low, high)
    last = 2.0 * (high - low)
    active = np.arange(len(x))
    for _ in range(n_steps):
        if not len(active):
            break
        here = x[active]
        value, slope = function(here, active)
        below = (value > 0.0) != rising[active]  # the root lies above x
        low[active] = np.where(below, here, low[active])
        high[active] = np.where(below, high[active], here)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            step = -value / slope
        tolerance = 4.0 * _EPS * np.abs(here)
        done = (value == 0.0) | (high[active] - low[active] <= tolerance)
        # steps that no longer shrink, far below any bracket, are rounding of the function
        stuck = (np.abs(step) <= 1e-12 * np.abs(here)) & (np.abs(step) > 0.5 * last[active])
        small = (np.abs(step) <= tolerance) | stuck
        new = here + step
        # the bracket must shrink fast: steps that are not half of the one before give way to bisection
        bad = ~((new > low[active]) & (new < high[active])) | ~(np.abs(step) <= 0.5 * last[active])
        new = np.where(bad & ~small, 0.5 * (low[active] + high[active]), new)
        new = np.clip(new, low[active], high[active])
        last[active] = np.abs(new - here)
        x[active] = np.where(value == 0.0, here, new)
        active = active[~(done | small)]
    return x


@dataclass(frozen=True)
class Segments:
    """Pieces of isotherms, ordered by row, then by volume.

    Attributes
    ----------
    row : numpy.ndarray of int, shape (n,)
        Isotherm.
    low, high : numpy.ndarray, shape (n,), Å3
        Ends.
    p_low, p_high : numpy.ndarray, shape (n,), eV/Å3
        Pressure at ``low`` and at ``high``.
    closed_low, closed_high : numpy.ndarray of bool, shape (n,)
        Whether the end is a spinodal point; otherwise it is an end of the bounds.
    """

    row: IntArray
    low: FloatArray
    high: FloatArray
    p_low: FloatArray
    p_high: FloatArray
    closed_low: BoolArray
    closed_high: BoolArray


@dataclass(frozen=True)
class Scan:
    """Isotherms with their stable branches (F_VV > 0) and the unstable gaps between them.

    Attributes
    ----------
    who : numpy.ndarray of int, shape (R,)
        Surface of each isotherm.
    t : numpy.ndarray, shape (R,), K
    p : numpy.ndarray, shape (R, N), eV/Å3
        Pressure at the grid of volumes.
    f_ends : numpy.ndarray, shape (R, 2), eV
        F at both ends of the bounds.
    branches, gaps : Segments
    """

    who: IntArray
    t: FloatArray
    p: FloatArray
    f_ends: FloatArray
    branches: Segments
    gaps: Segments


def expand(counts: IntArray) -> tuple[IntArray, IntArray]:
    """For counts (2, 0, 3): owners (0, 0, 2, 2, 2) and numbers within the owner (0, 1, 0, 1, 2)."""
    owner = np.repeat(np.arange(len(counts)), counts)
    return owner, np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)


def _dips(f2: FloatArray, f3: FloatArray, h: FloatArray | float) -> BoolArray:
    """Cells (n,) with F_VV (2, n) of one sign at both ends, bent towards zero, and tangents that meet beyond it."""
    sign = np.where(f2[0] > 0.0, 1.0, -1.0)
    (left, right), (d_left, d_right) = sign * f2, sign * f3
    bent = ((f2[0] > 0.0) == (f2[1] > 0.0)) & (d_left < 0.0) & (d_right > 0.0)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        meet = left + d_left * (right - left - d_right * h) / (d_left - d_right)
    return np.asarray(bent & (meet <= 0.0))


def _may_cross(ends: FloatArray, h: float) -> BoolArray:
    """Whether F_VV may change its sign in cells (n,) of width h, from p, F_VV and F_VVV at their ends, (3, 2, n)."""
    p, f2, f3 = ends
    changes = (f2[0] > 0.0) != (f2[1] > 0.0)
    # the integral of F_VV is the fall of pressure; the trapezoid with its correction has it for smooth curves
    smooth = 0.5 * h * (f2[0] + f2[1]) + h * h / 12.0 * (f3[0] - f3[1])
    rough = np.abs((p[0] - p[1]) - smooth) > ROUGH * h * np.abs(f2).min(axis=0)
    return np.asarray(changes | rough | _dips(f2, f3, h))


class Surfaces:
    """The mean surface of a model and those of its members.

    Parameters
    ----------
    model : object with ``derivatives`` and ``n_members_``
    bounds : (float, float), Å3
        Volumes between which isotherms are looked at.
    """

    def __init__(self, model: Any, bounds: tuple[float, float]) -> None:
        self.model = model
        self.n_members = int(model.n_members_)
        # with one member, the mean is this member
        self.n = 1 if self.n_members == 1 else 1 + self.n_members
        self.low, self.high = bounds
        self.v = np.linspace(self.low, self.high, N_GRID)

    def _all(self, v: FloatArray, t: FloatArray, orders: list[Order]) -> dict[Order, FloatArray]:
        """Derivatives of all surfaces at the same points, (n_surfaces, n) each."""
        if self.n == 1:
            values = self.model.derivatives(v, t, orders)
            return {order: np.asarray(values[order], np.float64).reshape(1, -1) for order in orders}
        values = self.model.derivatives(v, t, orders, members=True)
        # derivatives are linear in F: those of the mean surface are means
        return {order: np.concatenate([values[order].mean(axis=0)[None], values[order]]) for order in orders}

    def at(self, v: FloatArray, t: FloatArray, who: IntArray, *orders: Order) -> list[FloatArray]:
        """Derivatives at points (v, t), each on a surface of its own: a list of (n,) in the order asked for."""
        result = [np.empty(len(v)) for _ in orders]
        asked = list(dict.fromkeys(orders))
        step = max(1, MOST_POINTS // self.n)
        for begin in range(0, len(v), step):
            part = slice(begin, begin + step)
            values = self._all(v[part], t[part], asked)
            pick = np.arange(len(v[part]))
            for out, order in zip(result, orders, strict=True):
                out[part] = values[order][who[part], pick]
        return result

    def temperatures_at_once(self) -> int:
        """Isotherms of all surfaces that are held in memory at a time."""
        return max(1, 4 * MOST_POINTS // (N_GRID * self.n))

    def scan(self, who: IntArray, t: FloatArray) -> Scan:
        """Isotherms of surfaces ``who`` (R,) at temperatures ``t`` (R,).

        Cells of the grid are split where F_VV changes its sign, where its tangents at both ends meet on the other side
        of zero, and where the difference of pressure between both ends is not that of a smooth F_VV: a narrow piece
        of another sign shows there, wherever in the cell it is.
        """
        unique, inverse = np.unique(t, return_inverse=True)
        n = len(self.v)
        p, f2, f3 = (np.empty((len(t), n)) for _ in range(3))
        step = max(1, MOST_POINTS // (n * self.n))
        for begin in range(0, len(unique), step):
            some = unique[begin : begin + step]
            values = self._all(np.tile(self.v, len(some)), np.repeat(some, n), [(1, 0), (2, 0), (3, 0)])
            rows = np.flatnonzero((inverse >= begin) & (inverse < begin + len(some)))
            for out, order, sign in ((p, (1, 0), -1.0), (f2, (2, 0), 1.0), (f3, (3, 0), 1.0)):
                out[rows] = sign * values[order].reshape(self.n, len(some), n)[who[rows], inverse[rows] - begin]
        row, v, p_at, rising = self._crossings(who, t, *self._cells(who, t, p, f2, f3))
        positive = f2 > 0.0
        branches = self._segments(p, positive, row, v, p_at, rising)
        gaps = self._segments(p, ~positive, row, v, p_at, ~rising)
        ends = np.tile([self.low, self.high], len(t))
        (f_ends,) = self.at(ends, np.repeat(t, 2), np.repeat(who, 2), (0, 0))
        return Scan(who, t, p, f_ends.reshape(-1, 2), branches, gaps)

    def _cells(
        self, who: IntArray, t: FloatArray, p: FloatArray, f2: FloatArray, f3: FloatArray
    ) -> tuple[IntArray, FloatArray, FloatArray]:
        """Cells in which F_VV may change its sign, the finest ones: row (n,), both ends (2, n), and F_VV and F_VVV at
        them (2, 2, n).
        """
        row, cell = (index.reshape(-1) for index in np.indices((len(t), len(self.v) - 1)))
        # pressure, F_VV and F_VVV at both ends of each cell
        ends = np.stack([np.stack([values[:, :-1].ravel(), values[:, 1:].ravel()]) for values in (p, f2, f3)])
        v, h = self.v, float(self.v[1] - self.v[0])
        for split in range(N_SPLITS + 1):
            some = np.flatnonzero(_may_cross(ends, h))
            row, cell, ends = row[some], cell[some], ends[:, :, some]
            if split == N_SPLITS or not len(row):
                break
            count = (len(v) - 1) * SPLIT
            v, h = np.linspace(self.low, self.high, count + 1), h / SPLIT
            inner = SPLIT * cell[:, None] + np.arange(1, SPLIT)
            at = self._of_all(inner.reshape(-1), v, np.repeat(row, SPLIT - 1), who, t)
            # (3, n, SPLIT + 1): the ends of a cell and the points between
            at = np.concatenate([ends[:, 0, :, None], at.reshape(3, -1, SPLIT - 1), ends[:, 1, :, None]], axis=2)
            ends = np.stack([at[:, :, :-1].reshape(3, -1), at[:, :, 1:].reshape(3, -1)], axis=1)
            row, cell = np.repeat(row, SPLIT), (SPLIT * cell[:, None] + np.arange(SPLIT)).reshape(-1)
        return row, np.stack([v[cell], v[cell + 1]]), ends[1:]

    def _of_all(self, node: IntArray, v: FloatArray, row: IntArray, who: IntArray, t: FloatArray) -> FloatArray:
        """Pressure, F_VV and F_VVV, (3, n), at nodes of a grid ``v`` on rows; what rows share is asked for once."""
        unique, number = np.unique(t, return_inverse=True)
        point, inverse = np.unique(number[row] * len(v) + node, return_inverse=True)
        result = np.empty((3, len(row)))
        step = max(1, MOST_POINTS // self.n)
        for begin in range(0, len(point), step):
            some = point[begin : begin + step]
            values = self._all(v[some % len(v)], unique[some // len(v)], [(1, 0), (2, 0), (3, 0)])
            here = np.flatnonzero((inverse >= begin) & (inverse < begin + len(some)))
            for out, order, sign in zip(result, ((1, 0), (2, 0), (3, 0)), (-1.0, 1.0, 1.0), strict=True):
                out[here] = sign * values[order][who[row[here]], inverse[here] - begin]
        return result

    def _crossings(
        self, who: IntArray, t: FloatArray, rows: IntArray, ends: FloatArray, values: FloatArray
    ) -> tuple[IntArray, FloatArray, FloatArray, BoolArray]:
        """Where F_VV = 0 in cells of rows (n,): row, volume, pressure, and whether F_VV rises with V."""
        positive = values[0] > 0.0
        through = positive[0] != positive[1]
        row, (low, high), rising = rows[through], ends[:, through], positive[1, through]

        # both ends of one sign, bent towards zero, and tangents that meet beyond it
        dips = np.flatnonzero(_dips(values[0], values[1], ends[1] - ends[0]))
        r, (a, b), sign = rows[dips], ends[:, dips], np.where(positive[0, dips], 1.0, -1.0)
        if len(r):

            def slope(x: FloatArray, which: IntArray) -> tuple[FloatArray, FloatArray]:
                f3, f4 = self.at(x, t[r[which]], who[r[which]], (3, 0), (4, 0))
                return f3, f4

            turn = safe_newton(slope, a, b, sign > 0.0)
            (value,) = self.at(turn, t[r], who[r], (2, 0))
            through = sign * value < 0.0
            r, a, b, turn = r[through], a[through], b[through], turn[through]
            first = sign[through] < 0.0  # a negative stretch rises first
            row = np.concatenate([row, r, r])
            low, high = np.concatenate([low, a, turn]), np.concatenate([high, turn, b])
            rising = np.concatenate([rising, first, ~first])

        def curvature(x: FloatArray, which: IntArray) -> tuple[FloatArray, FloatArray]:
            f2, f3 = self.at(x, t[row[which]], who[row[which]], (2, 0), (3, 0))
            return f2, f3

        v = safe_newton(curvature, low, high, rising)
        (f1,) = self.at(v, t[row], who[row], (1, 0))
        order = np.lexsort((v, row))
        return row[order], v[order], -f1[order], rising[order]

    def _segments(
        self, p: FloatArray, wanted: BoolArray, row: IntArray, v: FloatArray, p_at: FloatArray, opens: BoolArray
    ) -> Segments:
        """Stretches of ``wanted``: each begins at an end of the bounds or where it opens, and ends where it closes."""
        first, last = np.flatnonzero(wanted[:, 0]), np.flatnonzero(wanted[:, -1])
        sides = []
        for edge, volume, column, which in ((first, self.low, 0, opens), (last, self.high, -1, ~opens)):
            rows = np.concatenate([edge, row[which]])
            volumes = np.concatenate([np.full(len(edge), volume), v[which]])
            pressures = np.concatenate([p[edge, column], p_at[which]])
            closed = np.arange(len(rows)) >= len(edge)
            order = np.lexsort((volumes, rows))
            sides.append((rows[order], volumes[order], pressures[order], closed[order]))
        (rows, low, p_low, closed_low), (_, high, p_high, closed_high) = sides
        return Segments(rows, low, high, p_low, p_high, closed_low, closed_high)

    def on_branch(self, scan: Scan, branch: IntArray, p: FloatArray, start: FloatArray | None = None) -> FloatArray:
        """Volumes (n,) at which stable branches have pressures (n,); an end of the branch where they never have.

        A guess ``start`` (n,) saves steps. Pressure falls with V along a stable branch, so that there is one volume at
        most.
        """
        row, low, high = scan.branches.row[branch], scan.branches.low[branch], scan.branches.high[branch]
        # nodes i <= node < j of the grid lie within the branch; those with higher pressure come first
        i = np.searchsorted(self.v, low, side="right")
        j = np.maximum(np.searchsorted(self.v, high, side="left"), i)
        begin, end, a, b = i.copy(), j.copy(), i, j
        while (a < b).any():
            middle = (a + b) // 2
            above = (a < b) & (scan.p[row, np.minimum(middle, len(self.v) - 1)] > p)
            a, b = np.where(above, middle + 1, a), np.where((a < b) & ~above, middle, b)
        left = np.where(a > begin, self.v[np.maximum(a - 1, 0)], low)
        right = np.where(a < end, self.v[np.minimum(a, len(self.v) - 1)], high)

        def excess(x: FloatArray, which: IntArray) -> tuple[FloatArray, FloatArray]:
            f1, f2 = self.at(x, scan.t[row[which]], scan.who[row[which]], (1, 0), (2, 0))
            return f1 + p[which], f2

        return safe_newton(excess, left, right, np.ones(len(p), bool), start)

    def lowest(self, scan: Scan, row: IntArray, p: FloatArray) -> tuple[FloatArray, IntArray]:
        """Volumes (n,) and branches (n,) of lowest Gibbs energy on isotherms ``row`` (n,) at pressures ``p`` (n,).

        NaN and -1 where no branch has this pressure, and where F + PV is lower at an end of the bounds: the stable
        state is outside, and what is found inside is metastable.
        """
        branches = scan.branches
        begin = np.searchsorted(branches.row, row, side="left")
        point, number = expand(np.searchsorted(branches.row, row, side="right") - begin)
        branch = begin[point] + number
        inside = (p[point] <= branches.p_low[branch]) & (p[point] >= branches.p_high[branch])
        point, branch = point[inside], branch[inside]
        volume = np.full(len(row), np.nan)
        winner = np.full(len(row), -1)
        if len(point):
            v = self.on_branch(scan, branch, p[point])
            (f,) = self.at(v, scan.t[row[point]], scan.who[row[point]], (0, 0))
            order = np.lexsort((f + p[point] * v, point))
            best = order[np.unique(point[order], return_index=True)[1]]
            g = f[best] + p[point[best]] * v[best]
            at_ends = scan.f_ends[row[point[best]]] + p[point[best], None] * np.array([self.low, self.high])
            best = best[at_ends.min(axis=1) >= g - 8.0 * _EPS * np.abs(g)]
            volume[point[best]], winner[point[best]] = v[best], branch[best]
        return volume, winner

    def chunks(self, t: FloatArray) -> Iterator[tuple[FloatArray, IntArray, IntArray]]:
        """Points by temperature, as many temperatures at a time as memory allows.

        Yields the temperatures, the numbers of the points there, and the temperature of each.
        """
        unique, inverse = np.unique(t, return_inverse=True)
        step = self.temperatures_at_once()
        for begin in range(0, len(unique), step):
            some = unique[begin : begin + step]
            points = np.flatnonzero((inverse >= begin) & (inverse < begin + len(some)))
            yield some, points, inverse[points] - begin

    def stable(self, who: IntArray, p: FloatArray, t: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Stable volumes (n,) at pressures and temperatures (n,), and the two ends of the branch on which they lie."""
        volume, low, high = (np.full(len(p), np.nan) for _ in range(3))
        for some, points, number in self.chunks(t):
            isotherm, row = np.unique(who[points] * len(some) + number, return_inverse=True)
            scan = self.scan(isotherm // len(some), some[isotherm % len(some)])
            v, branch = self.lowest(scan, row, p[points])
            found = branch >= 0
            volume[points] = v
            low[points[found]] = scan.branches.low[branch[found]]
            high[points[found]] = scan.branches.high[branch[found]]
        return volume, low, high

    def coexistence(self, scan: Scan) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Pressure and both volumes (R,) of the common tangent of each isotherm; NaN where there is none.

        Among several, the one with the highest barrier (largest distance of F above the tangent). Tangents with F
        below them somewhere else within the bounds are left out.
        """
        branches, rows = scan.branches, len(scan.t)
        p_out, left_out, right_out = (np.full(rows, np.nan) for _ in range(3))
        count = np.bincount(branches.row, minlength=rows)
        first = np.cumsum(count) - count
        pairs = [
            (r, first[r] + i, first[r] + j)
            for r in np.flatnonzero(count > 1)
            for j in range(count[r])
            for i in range(j)
        ]
        if not pairs:
            return p_out, left_out, right_out
        row, left, right = (np.array(column) for column in zip(*pairs, strict=True))
        t, who = scan.t[row], scan.who[row]
        last = 0.5 * (branches.low + branches.high)[np.stack([left, right])]  # volumes of the tangent before

        def tangent(p: FloatArray, which: IntArray) -> tuple[FloatArray, FloatArray, FloatArray]:
            both = np.concatenate([left[which], right[which]])
            v = self.on_branch(scan, both, np.concatenate([p, p]), last[:, which].reshape(-1))
            last[:, which] = v.reshape(2, -1)
            (f,) = self.at(v, np.tile(t[which], 2), np.tile(who[which], 2), (0, 0))
            v_left, v_right = np.split(v, 2)
            f_left, f_right = np.split(f, 2)
            # less cancellation than in the difference of two G; what is left of rounding counts as zero
            value = (f_left - f_right) + p * (v_left - v_right)
            return np.where(np.abs(value) <= 2.0 * _EPS * np.abs(f_left), 0.0, value), v_left, v_right

        def difference(p: FloatArray, which: IntArray) -> tuple[FloatArray, FloatArray]:
            value, v_left, v_right = tangent(p, which)
            return value, v_left - v_right

        low = np.maximum(branches.p_high[left], branches.p_high[right])
        high = np.minimum(branches.p_low[left], branches.p_low[right])
        possible = np.flatnonzero(low < high)
        # G_left - G_right falls with pressure, since the left volume is the smaller one
        ends = [tangent(p[possible], possible)[0] for p in (low, high)]
        possible = possible[(ends[0] >= 0.0) & (ends[1] <= 0.0)]
        row, left, right, t, who = row[possible], left[possible], right[possible], t[possible], who[possible]
        last = last[:, possible]
        if not len(row):
            return p_out, left_out, right_out
        p = safe_newton(difference, low[possible], high[possible], np.zeros(len(row), bool))
        _, v_left, v_right = tangent(p, np.arange(len(row)))

        several = count[row] > 2
        _, winner = self.lowest(scan, row, p)
        good, barrier = (winner == left) | (winner == right), np.zeros(len(row))
        if several.any():
            some = np.flatnonzero(several)
            n, grid = N_BARRIER, np.linspace(self.low, self.high, N_BARRIER)
            f = self.at(np.tile(grid, len(some)), np.repeat(t[some], n), np.repeat(who[some], n), (0, 0))[0]
            (f_left,) = self.at(v_left[some], t[some], who[some], (0, 0))
            above = f.reshape(-1, n) - f_left[:, None] + p[some, None] * (grid - v_left[some, None])
            between = (grid > v_left[some, None]) & (grid < v_right[some, None])
            barrier[some] = np.where(between, above, 0.0).max(axis=1)
        order = np.lexsort((barrier, good, row))
        order = order[good[order]]
        # later ones replace earlier ones: the highest barrier stays
        p_out[row[order]], left_out[row[order]], right_out[row[order]] = p[order], v_left[order], v_right[order]
        return p_out, left_out, right_out

    def deepest(self, scan: Scan) -> IntArray:
        """Number (R,) of the deepest unstable gap of each isotherm, -1 where it has none.

        Depth is width times rise of pressure, an energy. Gaps with both ends inside of the bounds come first.
        """
        gaps = scan.gaps
        depth = (gaps.high - gaps.low) * np.abs(gaps.p_high - gaps.p_low)
        order = np.lexsort((depth, gaps.closed_low & gaps.closed_high, gaps.row))
        result = np.full(len(scan.t), -1)
        result[gaps.row[order]] = order
        return result


#: Temperatures at which instabilities are looked for, between which they are followed.
N_TEMPERATURES = 129


def critical(surfaces: Surfaces, low: float, high: float, upper: bool) -> tuple[FloatArray, FloatArray]:
    """Temperature and volume of the critical point of each surface, (n_surfaces,); NaN where there is none.

    Unstable gaps are followed from one temperature to the next. Where one closes, Newton steps on F_VV = F_VVV = 0 must
    end between the two temperatures, at a minimum of F_VV over V that rises through zero; if they do not, the interval
    is halved.

    Parameters
    ----------
    surfaces : Surfaces
    low, high : float, K
    upper : bool
        Highest temperature at which a gap closes on heating; otherwise the lowest at which one closes on cooling.
    """
    sign = 1 if upper else -1
    t = np.linspace(low, high, N_TEMPERATURES)[::sign]
    who = np.repeat(np.arange(surfaces.n), len(t))
    gaps = surfaces.scan(who, np.tile(t, surfaces.n)).gaps
    found = []  # surface, interval of temperature, volumes of the gap
    begin = np.searchsorted(gaps.row, np.arange(len(who) + 1))
    for k, row in enumerate(gaps.row):
        i = row % len(t)
        if i + 1 < len(t):
            after = slice(begin[row + 1], begin[row + 2])
            if not ((gaps.low[after] < gaps.high[k]) & (gaps.high[after] > gaps.low[k])).any():
                found.append((who[row], t[i], t[i + 1], gaps.low[k], gaps.high[k]))
    t_best, v_best = np.full(surfaces.n, np.nan), np.full(surfaces.n, np.nan)
    if not found:
        return t_best, v_best
    s, inside, outside, v_low, v_high = (np.array(column) for column in zip(*found, strict=True))
    first, last = np.minimum(inside, outside), np.maximum(inside, outside)
    t_found, v_found = np.full(len(s), np.nan), np.full(len(s), np.nan)
    open_ = np.arange(len(s))
    for halvings in range(49):
        if halvings % 6 == 0:
            # from outside as well as from inside: next to the critical point, both work
            v, at, good = _closing(
                surfaces, s[open_], 0.5 * (v_low + v_high)[open_], 0.5 * (inside + outside)[open_], last - first, sign
            )
            slack = 1e-9 * last[open_]
            good &= (at >= first[open_] - slack) & (at <= last[open_] + slack)
            good &= (v >= surfaces.low) & (v <= surfaces.high)
            t_found[open_[good]], v_found[open_[good]] = at[good], v[good]
            open_ = open_[~good]
        if not len(open_):
            break
        middle = 0.5 * (inside + outside)[open_]
        gaps = surfaces.scan(s[open_], middle).gaps
        still = np.zeros(len(open_), bool)
        for k, row in enumerate(gaps.row):
            if not still[row] and gaps.low[k] < v_high[open_[row]] and gaps.high[k] > v_low[open_[row]]:
                still[row] = True
                v_low[open_[row]], v_high[open_[row]] = gaps.low[k], gaps.high[k]
        inside[open_] = np.where(still, middle, inside[open_])
        outside[open_] = np.where(still, outside[open_], middle)
    for k in np.argsort(sign * t_found):
        if np.isfinite(t_found[k]):
            t_best[s[k]], v_best[s[k]] = t_found[k], v_found[k]
    return t_best, v_best


def _closing(
    surfaces: Surfaces, who: IntArray, v: FloatArray, t: FloatArray, most: FloatArray, sign: int
) -> tuple[FloatArray, FloatArray, BoolArray]:
    """Newton steps on F_VV = F_VVV = 0: volumes, temperatures, and whether an instability closes there."""
    good = np.zeros(len(v), bool)
    if not len(v):
        return v, t, good
    coldest = 0.05 * t  # far outside of where a result counts
    wide, long = 0.2 * (surfaces.high - surfaces.low), float(most.max())
    for _ in range(40):
        f2, f3, f4, f21, f31 = surfaces.at(v, t, who, (2, 0), (3, 0), (4, 0), (2, 1), (3, 1))
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            determinant = f3 * f31 - f21 * f4
            dv = np.clip(np.nan_to_num((f3 * f21 - f2 * f31) / determinant), -wide, wide)
            dt = np.clip(np.nan_to_num((f2 * f4 - f3 * f3) / determinant), -long, long)
        # steps may leave the bounds a little, never the quadrant where F is defined
        v, t = np.maximum(v + dv, 0.5 * surfaces.low), np.maximum(np.maximum(t + dt, 0.5 * t), coldest)
        good = (np.abs(dv) <= 1e-9 * v) & (np.abs(dt) <= 1e-9 * t)
        if good.all():
            break
    return v, t, good & (f4 > 0.0) & (sign * f21 > 0.0)
