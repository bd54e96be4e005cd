"""Minima of a predicted free energy inside a polytope, and the lowest paths between them."""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import dijkstra, minimum_spanning_tree
from scipy.spatial import cKDTree
from scipy.spatial.distance import cdist

from quests_zenn.sampling._context import SEPARATION, Context
from quests_zenn.sampling._novelty import FloatArray, IntArray, spread

#: Candidates that are looked at for starts and for paths.
NODES = 4000

#: Minimisations at most.
STARTS = 12

#: Minima nearer to each other than this are one, in units of the domain.
SAME = 0.01

#: Paths avoid energies that lie this fraction of the usual height above the bottom.
WARMTH = 0.1


def minima(context: Context, n: int) -> FloatArray:
    """Minima of g - p . x inside the domain, (k, q) with k <= n, lowest first.

    With SLSQP from points near wells and from candidates that are lower than their neighbours, the best first. p is
    `Context.plane`; for conserved components it is the chemical potential at the start, so that the minimum is a phase
    in equilibrium with it.
    """
    rows = _some(context, NODES)
    if not len(rows) or n < 1:
        return np.empty((0, context.q))
    energy, mu, x = context.free_energy[rows], context.mu[rows], context.x[rows]
    slope = np.tile(context.reservoir, (len(rows), 1))
    held = list(context.conserved)
    slope[:, held] = mu[:, held]
    k = min(2 * context.q + 2, len(rows))
    near = cKDTree(x / context.units).query(x / context.units, k=list(range(1, k + 1)))[1]
    rise = energy[near] - energy[:, None] - ((x[near] - x[:, None]) * slope[:, None]).sum(2)
    # what is lower than its neighbours comes first, then all others
    height = energy - (x * slope).sum(1)
    order = np.lexsort((*x.T, height, (rise < 0.0).any(1)))
    wells = context.well_centres
    under = np.tile(context.reservoir, (len(wells), 1))
    under[:, held] = context.at(wells).mu[:, held]
    x, slope = np.concatenate([wells, x[order]]), np.concatenate([under, slope[order]])
    starts = spread(x, None, SEPARATION * context.reach, min(STARTS, max(n, 4)), context.units)
    found: list[tuple[float, FloatArray]] = []
    for start in starts:
        end = _descend(context, x[start], slope[start], float(np.std(energy)))
        if end is not None:
            found.append(end)
    if not held:
        # heights above different planes do not compare
        found.sort(key=lambda entry: entry[0])
    ends = np.array([end for _, end in found]).reshape(-1, context.q)
    return ends[spread(ends, None, SAME * context.reach, n, context.units)]


def _descend(context: Context, start: FloatArray, slope: FloatArray, unit: float) -> tuple[float, FloatArray] | None:
    """Height and place of the minimum of g - slope . x that a start leads to; None where the model gives no numbers."""
    q, scale = context.q, context.units
    A, b = np.asarray(context.domain.A), np.asarray(context.domain.b)
    unit = unit if unit > 0.0 else 1.0
    orders = [(0,) * (q + 1), *(tuple(int(i == j) for j in range(q + 1)) for i in range(q))]

    def height(step: FloatArray) -> tuple[float, FloatArray]:
        x = (start + step * scale)[None]
        found = context.model.derivatives(x[:, 0] if q == 1 else x, context.T, orders)
        mu = np.array([float(found[order][0]) for order in orders[1:]])
        value = float(found[orders[0]][0]) - float(slope @ x[0])
        return value / unit, (mu - slope) * scale / unit

    first = height(np.zeros(q))[0]
    walls = {"type": "ineq", "fun": lambda step: b - A @ (start + step * scale), "jac": lambda step: -A * scale}
    result = minimize(
        height, np.zeros(q), jac=True, method="SLSQP", constraints=[walls], options={"maxiter": 100, "ftol": 1e-10}
    )
    if not np.isfinite(result.x).all():
        return None
    move = result.x * scale
    # rounding may leave the end a little outside: back along the line to the start, which is inside
    room, speed = b - A @ start, A @ move
    against = speed > 0.0
    part = min(1.0, float((np.maximum(room[against], 0.0) / speed[against]).min())) if against.any() else 1.0
    move = move * (part if part == 1.0 else part * (1.0 - 1e-12))
    last = height(move / scale)[0]
    if not np.isfinite(last) or last > first + 1e-9 * max(1.0, abs(first)):
        return None
    end: FloatArray = start + move
    return last * unit, end


def paths(context: Context) -> list[FloatArray]:
    """Lowest paths between neighbouring wells, each a list of places (k, q) that are joined by straight lines.

    A path makes the integral of exp(g / w) over its length least (Huo and Straub, J. Chem. Phys. 107 (1997) 5000), on
    the graph of nearest neighbours among candidates; w is a fraction of the usual height of g above its lowest point.
    """
    wells = context.well_centres
    rows = _some(context, NODES)
    if len(wells) < 2 or not len(rows):
        return []
    x = np.concatenate([wells, context.x[rows]])
    energy = np.concatenate([context.at(wells).free_energy, context.free_energy[rows]])
    unit = x / context.units
    k = min(2 * context.q + 4, len(x))
    gap, near = cKDTree(unit).query(unit, k=list(range(1, k + 1)))
    pairs = minimum_spanning_tree(csr_matrix(cdist(unit[: len(wells)], unit[: len(wells)]))).tocoo()
    ties = sorted(zip(pairs.row.tolist(), pairs.col.tolist(), strict=True))
    found = []
    for a, b in ties:
        height = energy - x @ _between(context, x[a], x[b], float(energy[b] - energy[a]))
        height = height - height.min()
        warm = WARMTH * float(np.median(height))
        if warm > 0.0:
            # beyond this nothing is ever crossed, and exp must stay finite
            height = np.minimum(height / warm, 200.0)
        cost = np.exp(np.maximum(height[:, None], height[near])) * np.maximum(gap, 1e-12)
        graph = csr_matrix((cost.ravel(), (np.repeat(np.arange(len(x)), k), near.ravel())), shape=(len(x), len(x)))
        before = dijkstra(graph, directed=False, indices=a, return_predecessors=True)[1]
        path = [b]
        while path[-1] != a:
            previous = int(before[path[-1]])
            # where neighbours do not lead from one to the other the straight line does: a polytope is convex
            path.append(previous if previous >= 0 else a)
        found.append(x[path[::-1]])
    return found


def _between(context: Context, a: FloatArray, b: FloatArray, rise: float) -> FloatArray:
    """Slope of the plane from which a path is judged: along conserved components it lifts both ends to one height."""
    slope = context.reservoir.copy()
    held = list(context.conserved)
    if held:
        way = (b - a)[held]
        length = float(((way / context.units[held]) ** 2).sum())
        if length > 0.0:
            rise -= float(slope @ (b - a)) - float(slope[held] @ way)
            slope[held] = rise * way / context.units[held] ** 2 / length
    return slope


def along(path: FloatArray, n: int, scale: FloatArray) -> FloatArray:
    """n places on a path, its ends left out, at equal lengths; the middle first, so that the first few lie apart."""
    pieces = np.linalg.norm(np.diff(path / scale, axis=0), axis=1)
    length = np.concatenate([[0.0], np.cumsum(pieces)])
    if n < 1 or length[-1] <= 0.0:
        return np.empty((0, path.shape[1]))
    at = np.arange(1, n + 1) / (n + 1) * length[-1]
    places = np.stack([np.interp(at, length, path[:, i]) for i in range(path.shape[1])], axis=1)
    # halves, then quarters, and so on
    order: list[int] = []
    queue = [(0, n)]
    while queue:
        low, high = queue.pop(0)
        if low < high:
            middle = (low + high) // 2
            order.append(middle)
            queue += [(low, middle), (middle + 1, high)]
    return places[order]


def _some(context: Context, n: int) -> IntArray:
    """Candidates in the domain that the model says something of, at most n."""
    rows = np.flatnonzero(context.inside & np.isfinite(context.free_energy))
    if len(rows) > n:
        rows = np.sort(context.rng.choice(rows, n, replace=False))
    return rows
