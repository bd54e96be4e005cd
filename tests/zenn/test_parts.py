"""Configurations and their mixture against the slow twin; residuals and their derivatives against autograd."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import naive_zenn as naive
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from handmade import DESIGNS, ORDER, VOLUME, drawn, points, values  # noqa: E402

from quests_zenn._core.parallel import Workers  # noqa: E402
from quests_zenn.zenn import _mixture, _problem  # noqa: E402
from quests_zenn.zenn._jets import Orders  # noqa: E402
from quests_zenn.zenn._parts import BOLTZMANN, GPA, Design, Parts, View  # noqa: E402
from quests_zenn.zenn._problem import Problem, Rows  # noqa: E402

pytestmark = pytest.mark.extra

Array = np.ndarray[Any, Any]


def test_constants() -> None:
    assert pytest.approx(naive.KB, rel=1e-15) == BOLTZMANN
    assert pytest.approx(1.602176634e-19 / 1e-30 / 1e9, rel=1e-8) == GPA


def evaluate(design: Design, z: Any, x: Array, T: Array) -> tuple[Array, Array, Array, Array]:
    """F (M, R), and F_k, S_k, p_k (M, K, R)."""
    parts, orders = Parts(design), Orders([(0,) * (design.n_inputs + 1)])
    heat = orders.constant(torch.from_numpy(T))
    view = View(parts.blocks, z, len(T))
    free, S = parts.free_energies(view, orders, orders.constant(torch.from_numpy(x)), heat, True)
    assert S is not None
    shares = _mixture.log_probabilities(design, orders, free, S, heat)[0].exp().numpy()
    F = _mixture.free_energy(design, orders, free, S if math.isfinite(design.gamma) else None, heat)
    return F[0].numpy(), free[0].numpy(), S[0].numpy(), shares


@pytest.mark.parametrize("name", DESIGNS)
def test_every_form_is_that_of_the_slow_twin(name: str) -> None:
    design = DESIGNS[name]
    z = drawn(design, 2, seed=1)
    x, T = points(design, 6, seed=2)
    F, free, S, p = evaluate(design, z, x, T)
    assert free.shape == S.shape == p.shape == (2, design.n_configurations, 6)
    np.testing.assert_allclose(p.sum(1), 1.0, rtol=1e-13)
    for m in range(2):
        for r in range(6):
            total, free_k, entropy_k, p_k = naive.free_energy(design, values(design, z[m]), x[r].tolist(), float(T[r]))
            assert F[m, r] == pytest.approx(total, rel=1e-11, abs=1e-13)
            np.testing.assert_allclose(free[m, :, r], free_k, rtol=1e-11, atol=1e-13)
            np.testing.assert_allclose(S[m, :, r], entropy_k, rtol=1e-11, atol=1e-16)
            np.testing.assert_allclose(p[m, :, r], p_k, rtol=1e-8, atol=1e-13)


def test_parameters_do_something() -> None:
    """Each parameter of each form changes F somewhere: none is without use."""
    for name, design in DESIGNS.items():
        z = drawn(design, 1, seed=3)
        x, T = points(design, 20, seed=4)
        before = evaluate(design, z, x, T)[0]
        for block in design.blocks():
            moved = z.clone()
            moved[:, block.first : block.stop] += 0.3
            assert np.abs(evaluate(design, moved, x, T)[0] - before).max() > 1e-12, (name, block.name)


def test_blocks_lie_one_after_the_other() -> None:
    for design in DESIGNS.values():
        at = 0
        for block in design.blocks():
            assert block.first == at
            assert block.stop == at + block.size
            assert block.shape[0] in (design.n_configurations, 2 * design.n_configurations)
            at = block.stop
        assert at == design.n_parameters
        assert len({block.name for block in design.blocks()}) == len(design.blocks())


def test_means_and_scales_of_parameters_can_be_set() -> None:
    design = Design(2, hidden=(), centres={"energy": 3.0}, widths={"energy": 0.5}, **VOLUME)
    z = torch.zeros(1, design.n_parameters, dtype=torch.float64)
    z[0, 0] = 2.0
    assert View(design.blocks(), z, 1).block("energy").tolist() == [[4.0, 3.0]]


@pytest.mark.parametrize("name", DESIGNS)
def test_derivatives_in_x_and_T_are_those_of_the_slow_twin(name: str) -> None:
    design = DESIGNS[name]
    z = drawn(design, 1, seed=5)
    x, T = points(design, 3, seed=6)
    p, q = values(design, z[0]), design.n_inputs
    orders = Orders([tuple(2 * int(i == j) for j in range(q + 1)) for i in range(q + 1)])
    parts = Parts(design)
    jet_x = torch.stack([orders.variable(torch.from_numpy(x[:, i]), i) for i in range(q)], dim=-1)
    jet_T = orders.variable(torch.from_numpy(T), q)
    free, S = parts.free_energies(View(parts.blocks, z, 3), orders, jet_x, jet_T, math.isfinite(design.gamma))
    F = _mixture.free_energy(design, orders, free, S, jet_T)
    for r in range(3):
        for i in range(q + 1):

            def along(v: float, r: int = r, i: int = i) -> float:
                place = [*x[r].tolist(), float(T[r])]
                place[i] = v
                return naive.free_energy(design, p, place[:-1], place[-1])[0]

            h = 0.02 * (design.T_scale if i == q else design.x_scale[i])
            at = float(T[r]) if i == q else float(x[r, i])
            for n in (1, 2):
                found = float(orders.derivative(F, tuple(n * int(i == j) for j in range(q + 1)))[0, r])
                coarse, fine = (naive.difference(along, at, s, n) for s in (2 * h, h))
                assert found == pytest.approx(fine, rel=1e-6, abs=1e-9 / h**n + 0.1 * abs(fine - coarse)), (r, i, n)


@pytest.mark.parametrize("name", DESIGNS)
def test_no_overflow_however_cold_or_strained(name: str) -> None:
    design = DESIGNS[name]
    z = drawn(design, 2, seed=7, width=1.0)
    x, _ = points(design, 4, seed=8)
    T = np.array([1e-2, 0.3, 1e4, 1e6]) * (1.0 if design.boltzmann < 1e-3 else 1e-3)  # theta / T from 1e4 to 1e-4
    q = design.n_inputs
    wanted = [(4, *(0,) * q), (0,) * q + (3,), (1, *(0,) * (q - 1), 1)]
    orders = Orders(wanted)
    parts = Parts(design)
    jet_x = torch.stack([orders.variable(torch.from_numpy(x[:, i]), i) for i in range(q)], dim=-1)
    jet_T = orders.variable(torch.from_numpy(T), q)
    free, S = parts.free_energies(View(parts.blocks, z, 4), orders, jet_x, jet_T, True)
    F = _mixture.free_energy(design, orders, free, S, jet_T)
    assert bool(torch.isfinite(F).all())


def low_heat_capacity(design: Design, z: Any, T: float) -> tuple[float, float]:
    """C_V of the mixture and of the first configuration alone, at V = 12."""
    orders, parts = Orders([(0, 2)]), Parts(design)
    x = orders.constant(torch.tensor([12.0], dtype=torch.float64))[..., None]
    t = orders.variable(torch.tensor([T], dtype=torch.float64), 1)
    free, _ = parts.free_energies(View(parts.blocks, z, 1), orders, x, t)
    F = _mixture.free_energy(design, orders, free, None, t)
    return tuple(-T * float(orders.derivative(jet, (0, 2)).reshape(-1)[0]) for jet in (F, free))  # type: ignore[return-value]


@pytest.mark.parametrize("T", [10.0, 1.0, 0.1])
def test_near_absolute_zero_the_lowest_configuration_rules(T: float) -> None:
    """|F| of 1 eV is 10^4 kT: the heat capacity, below 10^-9 eV/K, must not drown in rounding."""
    design = Design(2, hidden=(), centres={"energy": 1.0, "log_electronic": -60.0}, **VOLUME)
    z = torch.zeros(1, design.n_parameters, dtype=torch.float64)
    z[0, 1] = 5.0  # 0.2 eV higher
    mixed, alone = low_heat_capacity(design, z, T)
    assert alone > 0.0
    assert mixed == pytest.approx(alone, rel=1e-9, abs=0.0)


# --- convex by construction -------------------------------------------------------------------------------------------

CONVEX = [name for name, design in DESIGNS.items() if design.convex]


@given(st.sampled_from(CONVEX), st.integers(0, 10**6), st.floats(0.1, 4.0), st.floats(0.0, 10.0))
def test_configurations_that_are_convex_by_construction(name: str, seed: int, width: float, reach: float) -> None:
    """Whatever the parameters, and far outside of the data: all curvatures are at least zero."""
    design = DESIGNS[name]
    z = drawn(design, 2, seed, width)
    rng = np.random.default_rng(seed)
    q = design.n_inputs
    x = np.asarray(design.x_centre) + np.asarray(design.x_scale) * rng.uniform(-1, 1, (8, q)) * (1.0 + reach)
    T = design.T_centre + design.T_scale * rng.uniform(-1, 1, 8)
    orders = Orders([(*(int(i == m) + int(j == m) for m in range(q)), 0) for i in range(q) for j in range(q)])
    parts = Parts(design)
    jet_x = torch.stack([orders.variable(torch.from_numpy(x[:, i]), i) for i in range(q)], dim=-1)
    free, _ = parts.free_energies(View(parts.blocks, z, 8), orders, jet_x, orders.constant(torch.from_numpy(T)))
    hessian = torch.stack(
        [
            torch.stack(
                [orders.derivative(free, (*(int(i == m) + int(j == m) for m in range(q)), 0)) for j in range(q)],
                -1,
            )
            for i in range(q)
        ],
        -1,
    )
    lowest = torch.linalg.eigvalsh(hessian)[..., 0]
    assert float(lowest.min()) >= -1e-10 * max(1.0, float(hessian.abs().max()))


def test_without_construction_configurations_need_not_be_convex() -> None:
    """The same test finds plain networks guilty, so that it can find something."""
    design = DESIGNS["order"]
    z = drawn(design, 2, 0, 2.0)
    x, T = points(design, 50, 0)
    orders, parts = Orders([(2, 0, 0)]), Parts(design)
    jet_x = torch.stack([orders.variable(torch.from_numpy(x[:, i]), i) for i in range(2)], dim=-1)
    free, _ = parts.free_energies(View(parts.blocks, z, 50), orders, jet_x, orders.constant(torch.from_numpy(T)))
    assert float(orders.derivative(free, (2, 0, 0)).min()) < -1e-3


# --- residuals and their derivatives ----------------------------------------------------------------------------------


def make(design: Design, kinds: list[str], seed: int, count: int = 12, missing: bool = True) -> Rows:
    """Rows with random targets of these kinds, some of them missing."""
    rng = np.random.default_rng(seed)
    x, T = points(design, count, seed)
    targets = {kind: rng.normal(size=count) for kind in kinds}
    cell = None
    if "density" in kinds:
        T = np.sort(rng.choice(design.T_centre + design.T_scale * np.array([-0.5, 0.1, 0.8]), count))
        density, cell = rng.uniform(0.05, 1.0, count), rng.uniform(0.5, 1.5, count)
        for t in np.unique(T):
            density[t == T] /= density[t == T].sum()
            cell[t == T] /= cell[t == T].sum()
        targets["density"] = density
    if missing:
        for kind in kinds:
            if kind != "density":
                targets[kind][rng.random(count) < 0.3] = np.nan
    weight = rng.uniform(0.5, 2.0, count)
    return Rows(x, T, targets, {}, weight / weight.mean(), cell)


def all_kinds(design: Design) -> list[str]:
    first = ["F", "U", "S", "density", *(f"mu_{i}" for i in range(design.n_inputs))]
    return [*first, "P"] if design.coordinate == "volume" else first


def reference(problem: Problem, kind: str, z: Any) -> Any:
    """(R,) residuals of one member, written from their definition, open to autograd."""
    count = len(problem.rows)
    _, F = problem.free_energy(z[None], 0, count, taps=False)
    value = problem.predicted(kind, F, problem.T)[0]
    if kind != "density":
        return torch.where(problem.known[kind], value - problem.targets[kind], 0.0 * value)
    p, cell = problem.targets["density"], problem.cell
    terms = []
    heat = problem.rows.T
    for t in np.unique(heat):
        here = torch.from_numpy(np.flatnonzero(heat == t))
        assert cell is not None
        q = torch.softmax(-value[here] / (problem.design.boltzmann * t) + torch.log(cell[here]), 0)
        m = 0.5 * (p[here] + q)
        j = 0.5 * (p[here] * torch.log(p[here] / m) + q * torch.log(q / m))
        terms.append(torch.sign(q - p[here]) * torch.sqrt(j))
    return torch.cat(terms)


@pytest.mark.parametrize("name", DESIGNS)
def test_derivatives_by_row_are_those_of_autograd(name: str) -> None:
    design = DESIGNS[name]
    kinds = all_kinds(design)
    problem = Problem(design, make(design, kinds, seed=11))
    z = drawn(design, 2, seed=12, width=0.5)
    seen = []
    for kind, gap, slope in problem.residuals(z, 0, len(problem.rows), True):
        seen.append(kind)
        assert slope is not None
        assert slope.shape == (2, len(problem.rows), design.n_parameters)
        for m in range(2):
            expected = torch.autograd.functional.jacobian(lambda v, kind=kind: reference(problem, kind, v), z[m])
            np.testing.assert_allclose(gap[m].numpy(), reference(problem, kind, z[m]).numpy(), rtol=1e-9, atol=1e-12)
            scale = float(expected.abs().max())
            assert scale > 0.0
            np.testing.assert_allclose(slope[m].numpy(), expected.numpy(), rtol=1e-7, atol=1e-9 * scale, err_msg=kind)
    assert seen == sorted(kinds)
    plain = list(problem.residuals(z, 0, len(problem.rows), False))
    with_slopes = list(problem.residuals(z, 0, len(problem.rows), True))
    for (kind, gap, slope), (other, same, _) in zip(plain, with_slopes, strict=True):
        assert slope is None
        assert kind == other
        np.testing.assert_allclose(gap.numpy(), same.numpy(), rtol=1e-12, atol=1e-14)


def test_densities_by_logarithm() -> None:
    """(ln q - ln p) / 10 less its mean at each T, over the rows where p can be seen; and its derivatives."""
    design = DESIGNS["order"]
    rows = make(design, ["density"], seed=51, count=20)
    rows.targets["density"][[2, 11]] = [0.0, 1e-30]
    problem, z = Problem(design, rows), drawn(design, 2, seed=52, width=0.5)
    problem.by_logarithm = True
    assert rows.cell is not None
    cell, seen = torch.from_numpy(rows.cell), torch.from_numpy(rows.targets["density"] > 1e-20)

    def gaps(one: Any) -> Any:
        F = problem.free_energy(one[None], 0, 20, taps=False)[1][0][0]
        gap = -F / (design.boltzmann * problem.T) + torch.log(cell) - torch.log(problem.targets["density"] + 1e-300)
        result = torch.zeros_like(gap)
        for t in np.unique(rows.T):
            here = torch.from_numpy(np.isclose(rows.T, t)) & seen
            result = torch.where(here, gap - gap[here].mean(), result)
        return result / 10.0

    ((_, found, slope),) = problem.residuals(z, 0, 20, True)
    assert slope is not None
    for m in range(2):
        np.testing.assert_allclose(found[m].numpy(), gaps(z[m]).numpy(), rtol=1e-9, atol=1e-12)
        expected = torch.autograd.functional.jacobian(gaps, z[m]).numpy()
        np.testing.assert_allclose(slope[m].numpy(), expected, rtol=1e-7, atol=1e-9 * np.abs(expected).max())
    assert (found[:, [2, 11]] == 0.0).all()
    scales, noise, train = weighted(problem, 2, 3)
    total = problem.half_squares(z, 0, 20, scales, train, noise)
    assert float(total) == pytest.approx(float(sums(problem, z, scales, noise, train).cost.sum()), rel=1e-12)


@pytest.mark.parametrize("name", ["birch-murnaghan and debye", "order", "one free energy", "coherent"])
def test_residuals_are_predictions_of_the_slow_twin_less_targets(name: str) -> None:
    design = DESIGNS[name]
    rows = make(design, all_kinds(design), seed=13, missing=False)
    problem, z = Problem(design, rows), drawn(design, 1, seed=14, width=0.4)
    p = values(design, z[0])
    h = 1e-3 * design.T_scale * 20
    found = {kind: gap[0].numpy() for kind, gap, _ in problem.residuals(z, 0, len(rows), False)}
    F = np.array([naive.free_energy(design, p, x.tolist(), float(t))[0] for x, t in zip(rows.x, rows.T, strict=True)])
    for r in range(3):
        x, t = rows.x[r].tolist(), float(rows.T[r])
        S = -naive.difference(lambda v, x=x: naive.free_energy(design, p, x, v)[0], t, h, 1)
        assert found["F"][r] == pytest.approx(F[r] - rows.targets["F"][r], abs=1e-10)
        assert found["S"][r] == pytest.approx(S - rows.targets["S"][r], abs=1e-8)
        assert found["U"][r] == pytest.approx(F[r] + t * S - rows.targets["U"][r], abs=1e-6)
        for i in range(design.n_inputs):

            def along(v: float, i: int = i, x: list[float] = x, t: float = t) -> float:
                return naive.free_energy(design, p, [*x[:i], v, *x[i + 1 :]], t)[0]

            mu = naive.difference(along, x[i], 0.01 * design.x_scale[i], 1)
            assert found[f"mu_{i}"][r] == pytest.approx(mu - rows.targets[f"mu_{i}"][r], abs=1e-7)
            if "P" in found:
                assert found["P"][r] == pytest.approx(-mu - rows.targets["P"][r], abs=1e-7)
    assert rows.cell is not None
    heat = rows.T
    for t in np.unique(heat):
        here = np.flatnonzero(heat == t)
        q = rows.cell[here] * np.exp(-(F[here] - F[here].min()) / (design.boltzmann * t))
        q /= q.sum()
        terms = naive.jensen_shannon(rows.targets["density"][here].tolist(), q.tolist())
        np.testing.assert_allclose(found["density"][here] ** 2, terms, rtol=1e-6, atol=1e-12)
        assert (np.sign(found["density"][here]) == np.sign(q - rows.targets["density"][here])).all()


def test_the_divergence_where_it_vanishes_and_where_it_is_largest() -> None:
    p = torch.tensor([[0.3, 0.2, 0.5, 0.0, 1e-12, 0.4]], dtype=torch.float64)
    q = torch.tensor([[0.3, 0.2 + 1e-9, 0.5 - 1e-4, 0.7, 0.0, 1e-40]], dtype=torch.float64)
    terms, root, pull = _problem._jensen_shannon(p, q)
    assert bool(torch.isfinite(torch.stack([terms, root, pull])).all())
    assert float(terms[0, 0]) == 0.0
    assert float(root[0, 0]) == 0.0
    assert float(terms[0, 1]) == pytest.approx(1e-18 / (8 * 0.2), rel=1e-6, abs=0.0)
    assert float(terms[0, 3]) == pytest.approx(0.5 * 0.7 * math.log(2), rel=1e-9)
    assert float(terms[0, 5]) == pytest.approx(0.5 * 0.4 * math.log(2), rel=1e-9)
    # d root / d ln q at q = p: root = (q - p) / sqrt(8 p), so q / sqrt(8 p)
    assert float(pull[0, 0]) == pytest.approx(0.3 / math.sqrt(8 * 0.3), rel=1e-9)
    exact = [naive.jensen_shannon([a], [b])[0] for a, b in zip(p[0, 2:4].tolist(), q[0, 2:4].tolist(), strict=True)]
    np.testing.assert_allclose(terms[0, 2:4].numpy(), exact, rtol=1e-6)


@pytest.mark.parametrize("m", [1e-9, 1e-3, 0.7])
def test_the_series_of_the_divergence_joins_its_formula(m: float) -> None:
    """Around |u| = 0.05 one form takes over from the other; both are the same function of u = (q - p) / (p + q)."""
    u = np.concatenate([10.0 ** np.arange(-12.0, -1.0), [0.049, 0.0499999, 0.0500001, 0.051, 0.2, 0.6, 0.9]])
    u = np.concatenate([-u, u])
    p, q = m * (1.0 - u), m * (1.0 + u)
    u = (q - p) / (p + q)  # as rounded
    exact = [math.fsum(v ** (2 * n) / (2 * n * (2 * n - 1)) for n in range(1, 400)) for v in u]
    terms, root, pull = _problem._jensen_shannon(torch.from_numpy(p), torch.from_numpy(q))
    np.testing.assert_allclose(terms.numpy(), m * np.array(exact), rtol=1e-10)
    np.testing.assert_allclose(root.numpy(), np.sign(u) * np.sqrt(m * np.array(exact)), rtol=1e-10)
    # d root / d ln q = q j' / (2 root), with j' = ln(q / m) / 2
    slope = q * np.log1p(u) / 4.0 / (np.sign(u) * np.sqrt(m * np.array(exact)))
    np.testing.assert_allclose(pull.numpy(), slope, rtol=1e-6)


def weighted(problem: Problem, members: int, seed: int) -> tuple[Any, Any, Any]:
    """Scales, noise, and rows held out, at random."""
    count, rng = len(problem.rows), np.random.default_rng(seed)
    scales = {kind: torch.from_numpy(rng.uniform(0.05, 0.3, count)) for kind in problem.kinds}
    noise = {kind: torch.from_numpy(rng.normal(size=(members, count))) for kind in problem.kinds}
    if "density" in noise:
        noise["density"] *= 0.0
    return scales, noise, torch.from_numpy((rng.random((members, count)) < 0.7).astype(float))


def sums(problem: Problem, z: Any, scales: Any, noise: Any, train: Any, jobs: int = 1, jacobian: bool = True) -> Any:
    with _problem.one_thread(), Workers(jobs) as workers:
        return problem.normal_equations(z, scales, noise, train, workers, jacobian)


@pytest.mark.parametrize("name", ["birch-murnaghan and debye", "order", "convex", "order, bound"])
@pytest.mark.parametrize("convexity", [0.0, 2.0])
def test_normal_equations_are_those_of_half_the_squares(name: str, convexity: float) -> None:
    """Their gradient is what autograd makes of half_squares; their cost is its value."""
    design = DESIGNS[name]
    problem = Problem(design, make(design, all_kinds(design), seed=15), convexity)
    assert problem.convexity == (0.0 if design.convex else convexity)
    z = drawn(design, 2, seed=16, width=0.8)
    scales, noise, train = weighted(problem, 2, 0)
    found = sums(problem, z, scales, noise, train)
    leaf = z.clone().requires_grad_()
    total = problem.half_squares(leaf, 0, len(problem.rows), scales, train, noise)
    (gradient,) = torch.autograd.grad(total, leaf)
    assert float(found.cost.sum()) == pytest.approx(float(total.detach()), rel=1e-9)
    largest = float(gradient.abs().max())
    np.testing.assert_allclose(found.gradient.numpy(), gradient.numpy(), rtol=1e-6, atol=1e-8 * largest)
    plain = sums(problem, z, scales, noise, train, jacobian=False)
    np.testing.assert_allclose(plain.cost.numpy(), found.cost.numpy(), rtol=1e-12)
    assert plain.matrix is None
    eigenvalues = torch.linalg.eigvalsh(found.matrix)
    assert float(eigenvalues.min()) > -1e-9 * float(eigenvalues.max())


def test_normal_equations_by_hand() -> None:
    """J^T J and J^T r from residuals, weights, scales, noise, and rows held out."""
    design = DESIGNS["without networks"]
    rows = make(design, ["F", "P"], seed=17)
    problem, z = Problem(design, rows), drawn(design, 2, seed=18)
    scales, noise, train = weighted(problem, 2, 1)
    found = sums(problem, z, scales, noise, train)
    for m in range(2):
        matrix, gradient, cost = 0.0, 0.0, 0.0
        for kind, gap, slope in problem.residuals(z, 0, len(rows), True):
            assert slope is not None
            known = ~np.isnan(rows.targets[kind])
            w = np.sqrt(rows.weight) * train[m].numpy() * known
            r = w * (gap[m].numpy() / scales[kind].numpy() - noise[kind][m].numpy())
            j = w[:, None] * slope[m].numpy() / scales[kind].numpy()[:, None]
            matrix, gradient, cost = matrix + j.T @ j, gradient + j.T @ r, cost + 0.5 * (r @ r)
            held = rows.weight * (1.0 - train[m].numpy()) * known * (gap[m].numpy() / scales[kind].numpy()) ** 2
            shown = rows.weight * train[m].numpy() * known * (gap[m].numpy() / scales[kind].numpy()) ** 2
            assert float(found.held[kind][m]) == pytest.approx(held.sum())
            assert float(found.squares[kind][m]) == pytest.approx(shown.sum())
        np.testing.assert_allclose(found.matrix[m].numpy(), matrix, rtol=1e-10, atol=1e-9)
        np.testing.assert_allclose(found.gradient[m].numpy(), gradient, rtol=1e-10, atol=1e-9)
        assert float(found.cost[m]) == pytest.approx(cost)


@pytest.mark.parametrize("kinds", [["F", "P"], ["density", "F"]])
def test_pieces_of_rows_and_threads_change_nothing(kinds: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    design = DESIGNS["without networks"]
    rows = make(design, kinds, seed=19, count=60)
    z = drawn(design, 2, seed=20)
    problem = Problem(design, rows)
    given = weighted(problem, 2, 2)
    whole = sums(problem, z, *given)
    monkeypatch.setattr(_problem, "CHUNK", 7)
    problem = Problem(design, rows)
    assert len(problem.chunks) >= 3
    assert [problem.chunks[0][0], problem.chunks[-1][1]] == [0, 60]
    assert all(a[1] == b[0] for a, b in zip(problem.chunks, problem.chunks[1:], strict=False))
    if "density" in kinds:
        for first, end in problem.chunks:  # no temperature is cut in two
            assert not set(rows.T[first:end]) & set(np.delete(rows.T, np.arange(first, end)))
    one, two = sums(problem, z, *given, jobs=1), sums(problem, z, *given, jobs=2)
    assert torch.equal(one.matrix, two.matrix)
    assert torch.equal(one.gradient, two.gradient)
    assert torch.equal(one.cost, two.cost)
    np.testing.assert_allclose(one.matrix.numpy(), whole.matrix.numpy(), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(one.cost.numpy(), whole.cost.numpy(), rtol=1e-12)


def test_the_penalty_is_where_configurations_are_not_convex() -> None:
    """None for an equation of state near its minimum; some where the same is turned over."""
    design = Design(2, hidden=(), thermal="none", **VOLUME)
    rows = make(design, ["F"], seed=21)
    problem = Problem(design, rows, convexity=1.0)
    z = torch.zeros(1, design.n_parameters, dtype=torch.float64)
    flat = problem.concavity(z, False)[0]
    assert float(flat.max()) < 1e-5
    order = Design(2, **ORDER)
    bent = Problem(order, make(order, ["F"], seed=22), convexity=1.0)
    value, slope = bent.concavity(drawn(order, 2, 1, 2.0), True)
    assert float(value.max()) > 1e-2
    assert slope is not None
    assert slope.shape == (*value.shape, order.n_parameters)
    twice = Problem(order, make(order, ["F"], seed=22), convexity=2.0).concavity(drawn(order, 2, 1, 2.0), False)[0]
    np.testing.assert_allclose(twice.numpy(), 2.0 * value.numpy(), rtol=1e-12)


# --- the order of configurations --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name, design in DESIGNS.items() if design.n_configurations > 1])
def test_configurations_have_no_order(name: str) -> None:
    design = DESIGNS[name]
    k = design.n_configurations
    z = drawn(design, 1, seed=23)
    order = np.roll(np.arange(k), 1)
    turned = z.clone()
    for block in design.blocks():
        part = (z[0, block.first : block.stop] * block.scales()).reshape(block.shape)
        index = np.concatenate([order + g for g in range(0, block.shape[0], k)])
        turned[0, block.first : block.stop] = part[torch.from_numpy(index)].reshape(-1) / block.scales()
    x, T = points(design, 8, seed=24)
    F, free, S, p = evaluate(design, z, x, T)
    F2, free2, S2, p2 = evaluate(design, turned, x, T)
    np.testing.assert_allclose(F2, F, rtol=1e-13)
    for before, after in ((free, free2), (S, S2), (p, p2)):
        np.testing.assert_allclose(after, before[:, order], rtol=1e-10, atol=1e-14)


def test_equal_configurations_are_one_with_more_entropy() -> None:
    """K equal configurations: F = F_1 - (kT / n) ln K."""
    for n in (1.0, 5.0):
        design = Design(4, hidden=(), coherence=n, **VOLUME)
        z = torch.zeros(1, design.n_parameters, dtype=torch.float64)
        x, T = points(design, 5, seed=25)
        F, free, _, p = evaluate(design, z, x, T)
        np.testing.assert_allclose(F[0], free[0, 0] - BOLTZMANN * T / n * math.log(4), rtol=1e-13)
        np.testing.assert_allclose(p, 0.25, rtol=1e-13)


def test_the_bound_of_entropy_vanishes_as_it_widens() -> None:
    design = DESIGNS["bound entropy"]
    z = drawn(design, 1, seed=26)
    x, T = points(design, 5, seed=27)
    free = evaluate(dataclasses.replace(design, gamma=math.inf), z, x, T)[0]
    wide = evaluate(dataclasses.replace(design, gamma=1e6), z, x, T)[0]
    narrow = evaluate(design, z, x, T)[0]
    np.testing.assert_allclose(wide, free, rtol=1e-9)
    assert np.abs(narrow - free).max() > 1e-5
