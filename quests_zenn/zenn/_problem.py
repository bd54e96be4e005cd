"""Rows of data against a model: residuals, their derivatives, and normal equations in fixed pieces."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from quests_zenn._core.parallel import Workers
from quests_zenn.zenn import _mixture
from quests_zenn.zenn._jets import Orders
from quests_zenn.zenn._parts import Design, Parts, View

if TYPE_CHECKING:
    import torch

FloatArray = npt.NDArray[np.float64]

#: Rows worked on at a time: small enough to stay near the cache, large enough for matrix products.
CHUNK = 256

#: Partial sums of normal equations; fixed, so that results do not depend on the number of threads.
SLOTS = 8

#: Bytes that partial sums of normal equations may take in all.
SLOT_BYTES = 2 * 2**30


#: Densities below this share of the largest one at their T count as nothing where logarithms are compared.
FAINTEST = 1e-12


@contextmanager
def one_thread() -> Iterator[None]:
    """torch on one thread within a block: work is cut into tasks by us, and sums have one order."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@dataclass
class Rows:
    """What a model is fitted on, in eV, Å3 and K (or the units of the user's k_B).

    Attributes
    ----------
    x : (R, q)
    T : (R,)
    targets : dict of (R,)
        By kind: F, U, S, P (eV per unit of x), mu_0, mu_1, ..., density (probabilities of the rows of one T, summing
        to 1); NaN where there is none.
    errors : dict of (R,)
        Standard errors, for kinds where they are known; else one is learned for the kind.
    weight : (R,)
        Weights of rows, of mean 1.
    cell : (R,)
        Share of x that a row of density stands for, among those of its T.
    """

    x: FloatArray
    T: FloatArray
    targets: dict[str, FloatArray]
    errors: dict[str, FloatArray]
    weight: FloatArray
    cell: FloatArray | None = None

    def __len__(self) -> int:
        return len(self.T)

    def kinds(self) -> list[str]:
        """Kinds of targets, in a fixed order."""
        return sorted(self.targets)


def orders_for(kinds: list[str], n_inputs: int) -> Orders:
    """Derivatives that targets need."""
    wanted = [(0,) * (n_inputs + 1)]
    if "P" in kinds:
        wanted.append((1, *(0,) * n_inputs))
    if {"U", "S"} & set(kinds):
        wanted.append((0,) * n_inputs + (1,))
    for kind in kinds:
        if kind.startswith("mu_"):
            i = int(kind[3:])
            wanted.append(tuple(int(j == i) for j in range(n_inputs + 1)))
    return Orders(wanted)


class Problem:
    """Residuals of all rows, for all members at once.

    Parameters
    ----------
    design : Design
    rows : Rows
        For densities, rows of one T stand together.
    convexity : float
        Weight of the penalty on configurations that are not convex in x.
    seed : int
        Of the points where convexity is looked at.
    """

    def __init__(self, design: Design, rows: Rows, convexity: float = 0.0, seed: int = 0) -> None:
        import torch

        self.design, self.parts, self.rows = design, Parts(design), rows
        self.kinds = rows.kinds()
        self.orders = orders_for(self.kinds, design.n_inputs)
        self.x, self.T = torch.from_numpy(rows.x), torch.from_numpy(rows.T)
        self.known = {kind: torch.from_numpy(~np.isnan(rows.targets[kind])) for kind in self.kinds}
        self.targets = {kind: torch.from_numpy(np.nan_to_num(rows.targets[kind])) for kind in self.kinds}
        self.errors = {kind: torch.from_numpy(np.where(np.isnan(e), 1.0, e)) for kind, e in rows.errors.items()}
        self.root_weight = torch.from_numpy(np.sqrt(rows.weight))
        self.cell = None if rows.cell is None else torch.from_numpy(rows.cell)
        self.temperatures = torch.from_numpy(np.unique(rows.T, return_inverse=True)[1].reshape(-1))
        self.chunks = self._chunks()
        #: Whether densities are compared by their logarithms: far from a fit the divergence is flat.
        self.by_logarithm = False
        self.log_density, self.visible = self._logarithms()
        self.convexity = 0.0 if design.convex else convexity
        if self.convexity:
            self._collocate(seed)

    def _chunks(self) -> list[tuple[int, int]]:
        n = len(self.rows)
        if "density" not in self.kinds:
            return [(i, min(i + CHUNK, n)) for i in range(0, n, CHUNK)]
        # rows of one T are normalised together: they cannot be in two chunks
        edges = [0, *(np.flatnonzero(np.diff(self.rows.T)) + 1).tolist(), n]
        chunks, first = [], 0
        for end, after in zip(edges[1:], [*edges[2:], None], strict=True):
            if after is None or after - first > CHUNK:
                chunks.append((first, end))
                first = end
        return chunks

    def _logarithms(self) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """ln p of densities, less its mean at each T over the rows where p can be seen, and which these are."""
        import torch

        if "density" not in self.kinds:
            return None, None
        p = self.targets["density"]
        n = int(self.temperatures[-1]) + 1
        top = p.new_zeros(n).scatter_reduce(0, self.temperatures, p, "amax")
        visible = (p > FAINTEST * top[self.temperatures]).to(torch.float64)
        logarithm = torch.log(p.clamp(min=1e-300)) * visible
        return _centred_by(logarithm, visible, self.temperatures, n), visible

    def _collocate(self, seed: int) -> None:
        """Points and directions where configurations shall be convex, and how large a curvature is usual there."""
        import torch
        from scipy.stats import qmc

        q, count = self.design.n_inputs, 64 * self.design.n_inputs
        unit = qmc.Sobol(q + 1, seed=seed).random_base2((count - 1).bit_length())[:count]
        low, high = self.rows.x.min(0), self.rows.x.max(0)
        self.at_x = torch.from_numpy(low + unit[:, :q] * (high - low))
        self.at_T = torch.from_numpy(self.rows.T.min() + unit[:, q] * np.ptp(self.rows.T))
        ways = np.random.default_rng(seed).normal(size=(count, q))
        ways /= np.linalg.norm(ways, axis=1, keepdims=True)
        self.ways = torch.from_numpy(ways * np.asarray(self.design.x_scale))

    def free_energy(self, z: torch.Tensor, first: int, end: int, taps: bool) -> tuple[View, torch.Tensor]:
        """Jet of F (C, M, R) of some rows."""
        import torch

        x, T = self.x[first:end], self.T[first:end]
        view = View(self.parts.blocks, z, end - first, taps)
        jet_x = torch.stack([self.orders.variable(x[:, i], i) for i in range(x.shape[1])], dim=-1)
        jet_T = self.orders.variable(T, x.shape[1])
        free, entropies = self.parts.free_energies(
            view, self.orders, jet_x, jet_T, entropies=np.isfinite(self.design.gamma)
        )
        return view, _mixture.free_energy(self.design, self.orders, free, entropies, jet_T)

    def predicted(self, kind: str, F: torch.Tensor, T: torch.Tensor) -> torch.Tensor:
        """(M, R) what a kind of target is compared with."""
        o, q = self.orders, self.design.n_inputs
        heat = (0,) * q + (1,)
        if kind in ("F", "density"):
            return F[0]
        if kind == "P":
            return -o.derivative(F, (1, *(0,) * q))
        if kind == "S":
            return -o.derivative(F, heat)
        if kind == "U":
            return F[0] - T * o.derivative(F, heat)
        i = int(kind[3:])
        return o.derivative(F, tuple(int(j == i) for j in range(q + 1)))

    def residuals(
        self, z: torch.Tensor, first: int, end: int, jacobian: bool
    ) -> list[tuple[str, torch.Tensor, torch.Tensor | None]]:
        """For each kind: predicted less target (M, R), 0 where there is no target; and its derivatives (M, R, P)."""
        import torch

        found: list[tuple[str, torch.Tensor, torch.Tensor | None]] = []
        with torch.set_grad_enabled(jacobian):
            view, F = self.free_energy(z, first, end, taps=jacobian)
            shared: torch.Tensor | None = None
            for kind in self.kinds:
                known = self.known[kind][first:end]
                if not bool(known.any()):
                    continue
                value = self.predicted(kind, F, self.T[first:end])
                slope = None
                if jacobian:
                    slope = shared if kind in ("F", "density") and shared is not None else view.jacobian(value)
                    shared = slope if kind in ("F", "density") else shared
                value = value.detach()
                if kind == "density":
                    found.append((kind, *self._density(value, slope, first, end)))
                    continue
                gap = (value - self.targets[kind][first:end]) * known
                found.append((kind, gap, None if slope is None else slope * known[:, None]))
        return found

    def _divergence(
        self, F: torch.Tensor, first: int, end: int
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Terms of the divergence of each row, see `_jensen_shannon`, with q and the number of its temperature."""
        import torch

        assert self.cell is not None
        T = self.T[first:end]
        log_q = -F / (self.design.boltzmann * T) + torch.log(self.cell[first:end])
        local = self.temperatures[first:end] - self.temperatures[first]
        n = int(local[-1]) + 1
        top = log_q.new_full((F.shape[0], n), -torch.inf)
        top = top.scatter_reduce(1, local.expand(F.shape[0], -1), log_q.detach(), "amax")
        q = torch.exp(log_q - top[:, local])
        q = q / q.new_zeros((F.shape[0], n)).index_add(1, local, q)[:, local]
        p = self.targets["density"][first:end].expand_as(q)
        return *_jensen_shannon(p, q), q, local

    def _log_gap(self, F: torch.Tensor, first: int, end: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Differences of ln q and ln p up to a constant at each T, where p can be seen; in units of ten."""
        import torch

        assert self.cell is not None
        assert self.log_density is not None
        assert self.visible is not None
        seen = self.visible[first:end]
        local = self.temperatures[first:end] - self.temperatures[first]
        log_q = -F / (self.design.boltzmann * self.T[first:end]) + torch.log(self.cell[first:end])
        gap = _centred_by(log_q, seen, local, int(local[-1]) + 1) - self.log_density[first:end]
        return gap * seen / 10.0, seen, local

    def _density(
        self, F: torch.Tensor, slope: torch.Tensor | None, first: int, end: int
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Signed roots of the terms of the Jensen-Shannon divergence: their squares sum to it.

        With m = (p + q) / 2 a term is (p ln(p / m) + q ln(q / m)) / 2, which is never negative; its root with the sign
        of q - p is a smooth function of both.
        """
        if self.by_logarithm:
            gap, seen, local = self._log_gap(F, first, end)
            if slope is None:
                return gap, None
            rows = -slope / (self.design.boltzmann * self.T[first:end])[:, None]
            centred = _centred_by(rows.transpose(1, 2), seen, local, int(local[-1]) + 1).transpose(1, 2)
            return gap, centred * (seen / 10.0)[:, None]
        _, root, pull, q, local = self._divergence(F, first, end)
        if slope is None:
            return root, None
        # d ln q_i = -(dF_i - sum_j q_j dF_j) / kT
        n = int(local[-1]) + 1
        mean = slope.new_zeros((F.shape[0], n, slope.shape[2])).index_add(1, local, slope * q[..., None])
        centred = slope - mean[:, local]
        return root, -(pull / (self.design.boltzmann * self.T[first:end]))[..., None] * centred

    def half_squares(
        self,
        z: torch.Tensor,
        first: int,
        end: int,
        scales: dict[str, torch.Tensor],
        train: torch.Tensor,
        noise: dict[str, torch.Tensor],
    ) -> torch.Tensor:
        """Half the sum of squared residuals of some rows over all members, open to differentiation in z.

        The first rows bring the penalty on what is not convex. See `normal_equations`.
        """
        _, F = self.free_energy(z, first, end, taps=False)
        root = self.root_weight[first:end] * train[:, first:end]
        total = z.new_zeros(())
        for kind in self.kinds:
            value, scale = self.predicted(kind, F, self.T[first:end]), scales[kind][first:end]
            if kind == "density":
                # a root would have no derivative where the densities agree
                terms = (
                    self._log_gap(value, first, end)[0] ** 2
                    if self.by_logarithm
                    else self._divergence(value, first, end)[0]
                )
                total = total + 0.5 * (terms * (root / scale) ** 2).sum()
                continue
            known = self.known[kind][first:end]
            gap = (value - self.targets[kind][first:end]) / scale - noise[kind][:, first:end]
            total = total + 0.5 * ((gap * known * root) ** 2).sum()
        if first == 0 and self.convexity:
            total = total + 0.5 * (self._violations(View(self.parts.blocks, z, len(self.at_x))) ** 2).sum()
        return total

    def concavity(self, z: torch.Tensor, jacobian: bool) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Violations of convexity by the configurations at chosen points: (M, points), and derivatives."""
        import torch

        with torch.set_grad_enabled(jacobian):
            view = View(self.parts.blocks, z, len(self.at_x), jacobian)
            value = self._violations(view)
            return value.detach(), view.jacobian(value) if jacobian else None

    def _violations(self, view: View) -> torch.Tensor:
        import torch

        orders = Orders([(2, 0)])
        count, q = self.at_x.shape
        along = orders.variable(torch.zeros(count, dtype=torch.float64), 0)
        x = torch.stack([along * self.ways[:, i] + orders.constant(self.at_x[:, i]) for i in range(q)], dim=-1)
        free, _ = self.parts.free_energies(view, orders, x, orders.variable(self.at_T, 1))
        below = torch.clamp(-orders.derivative(free, (2, 0)) / self.design.energy_scale, min=0.0)
        return self.convexity * torch.sqrt((below**2).sum(1) + 1e-12)

    def normal_equations(
        self,
        z: torch.Tensor,
        scales: dict[str, torch.Tensor],
        noise: dict[str, torch.Tensor],
        train: torch.Tensor,
        workers: Workers,
        jacobian: bool,
    ) -> Sums:
        """Sums over all rows, for all members.

        Parameters
        ----------
        z : (M, P)
        scales : dict of (R,)
            What residuals are divided by, by kind.
        noise : dict of (M, R)
            What is taken from residuals after that.
        train : (M, R)
            1 for rows that count, 0 for those that are held out.
        workers : Workers
        jacobian : bool
            Whether matrices and gradients are asked for.
        """

        members, size = z.shape
        each = 8 * members * size * (size + 1) if jacobian else 1
        slots = max(1, min(SLOTS, len(self.chunks), SLOT_BYTES // each))
        sums = [Sums.empty(members, size, self.kinds, jacobian) for _ in range(slots)]

        def work(slot: int) -> None:
            total = sums[slot]
            for first, end in self.chunks[slot::slots]:
                root = self.root_weight[first:end] * train[:, first:end]
                held = self.root_weight[first:end] * (1.0 - train[:, first:end])
                for kind, gap, slope in self.residuals(z, first, end, jacobian):
                    scaled = gap / scales[kind][first:end]
                    total.squares[kind] += ((scaled * root) ** 2).sum(1)
                    total.held[kind] += ((scaled * held) ** 2).sum(1)
                    total.held_fourth[kind] += ((scaled * held) ** 4).sum(1)
                    r = (scaled - noise[kind][:, first:end] * self.known[kind][first:end]) * root
                    total.cost += 0.5 * (r**2).sum(1)
                    if slope is not None:
                        j = slope * (root / scales[kind][first:end])[..., None]
                        total.add(r, j)
            if slot == 0 and self.convexity:
                r, slope = self.concavity(z, jacobian)
                total.cost += 0.5 * (r**2).sum(1)
                if slope is not None:
                    total.add(r, slope)

        workers.run(work, list(range(slots)))
        result = sums[0]
        for other in sums[1:]:
            result.join(other)
        return result


@dataclass
class Sums:
    """Sums over rows: cost, squares of residuals by kind (trained on, held out), J^T J and J^T r."""

    cost: torch.Tensor
    squares: dict[str, torch.Tensor]
    held: dict[str, torch.Tensor]
    held_fourth: dict[str, torch.Tensor]
    matrix: torch.Tensor | None
    gradient: torch.Tensor | None

    @classmethod
    def empty(cls, members: int, size: int, kinds: list[str], jacobian: bool) -> Sums:
        """Zeros."""
        import torch

        def zeros(*shape: int) -> torch.Tensor:
            return torch.zeros(shape, dtype=torch.float64)

        return cls(
            zeros(members),
            {kind: zeros(members) for kind in kinds},
            {kind: zeros(members) for kind in kinds},
            {kind: zeros(members) for kind in kinds},
            zeros(members, size, size) if jacobian else None,
            zeros(members, size) if jacobian else None,
        )

    def add(self, r: torch.Tensor, j: torch.Tensor) -> None:
        """Residuals (M, R) and their derivatives (M, R, P)."""
        import torch

        assert self.matrix is not None
        assert self.gradient is not None
        torch.baddbmm(self.matrix, j.transpose(1, 2), j, out=self.matrix)
        self.gradient += torch.bmm(r[:, None, :], j)[:, 0]

    def join(self, other: Sums) -> None:
        """Add the sums over other rows."""
        self.cost += other.cost
        for mine, theirs in (
            (self.squares, other.squares),
            (self.held, other.held),
            (self.held_fourth, other.held_fourth),
        ):
            for kind in mine:
                mine[kind] += theirs[kind]
        if self.matrix is not None and self.gradient is not None:
            assert other.matrix is not None
            assert other.gradient is not None
            self.matrix += other.matrix
            self.gradient += other.gradient


def _centred_by(a: torch.Tensor, weight: torch.Tensor, group: torch.Tensor, n: int) -> torch.Tensor:
    """(..., R) less its weighted mean over the rows of each of n groups."""
    total = a.new_zeros((*a.shape[:-1], n)).index_add(-1, group, a * weight)
    count = weight.new_zeros(n).index_add(0, group, weight).clamp(min=1e-300)
    return a - (total / count)[..., group]


def _jensen_shannon(p: torch.Tensor, q: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Terms j of the divergence, their signed roots, and the slope of these in ln q. No cancellation at p = q."""
    import torch

    tiny = 1e-300
    mean = 0.5 * (p + q) + tiny
    u = (q - p) / (2.0 * mean)  # q = m (1 + u), p = m (1 - u)
    # ((1 + u) ln(1 + u) + (1 - u) ln(1 - u)) / 2 = u^2 / 2 + u^4 / 12 + u^6 / 30 + ...
    inner = torch.clamp(u, -1.0 + 1e-15, 1.0 - 1e-15)
    exact = 0.5 * ((1.0 + inner) * torch.log1p(inner) + (1.0 - inner) * torch.log1p(-inner))
    s = u * u
    series = s * (0.5 + s * (1.0 / 12 + s * (1.0 / 30 + s * (1.0 / 56 + s * (1.0 / 90 + s / 132)))))
    small = u.abs() < 0.05
    j = mean * torch.where(small, series, exact)
    root = torch.sign(u) * torch.sqrt(j)
    # dj / dq = ln(1 + u) / 2 and d root = dj / (2 root)
    slope = 0.5 * torch.log1p(inner)
    flat = 1.0 / (2.0 * torch.sqrt(2.0 * mean))
    pull = torch.where(u.abs() < 1e-7, flat, slope / (2.0 * torch.where(root == 0.0, torch.ones_like(root), root)))
    return j, root, pull * q
