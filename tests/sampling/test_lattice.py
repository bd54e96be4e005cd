"""Lattice Monte Carlo: against a plain twin, exact sums over all states, Onsager and Yang, and ideal solutions."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import scipy.special
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from quests_zenn._core.checks import DataError
from quests_zenn._core.parallel import Workers
from quests_zenn.sampling import lattice
from quests_zenn.sampling.lattice import LatticeMC, LatticeResult
from quests_zenn.sampling.oracles import MonteCarloOracle

Array = npt.NDArray[Any]
CRITICAL = 2.0 / math.log(1.0 + math.sqrt(2.0))


# --- the twin: from the formulas, without tables ----------------------------------------------------------------------


def site_index(cell: tuple[int, ...], k: int, repeats: tuple[int, ...], b: int) -> int:
    index = 0
    for c, r in zip(cell, repeats, strict=True):
        index = index * r + c % r
    return index * b + k


def naive_energy(mc: LatticeMC, clusters: Any, occupations: Any) -> float:
    """Every cluster in every cell."""
    b = len(mc.basis)
    values = [2 * int(n) - 1 if mc.variables == "spin" else int(n) for n in occupations]
    terms = []
    for energy, members in clusters:
        for cluster in members:
            for cell in itertools.product(*(range(r) for r in mc.repeats)):
                value = 1
                for site in cluster:
                    k = site[mc.dim] if len(site) > mc.dim else 0
                    moved = tuple(c + o for c, o in zip(cell, site[: mc.dim], strict=True))
                    value *= values[site_index(moved, k, mc.repeats, b)]
                terms.append(energy * value)
    return math.fsum(terms)


def naive_eta(mc: LatticeMC, occupations: Any) -> list[float]:
    x = []
    for a in range(max(mc.labels) + 1):
        mine = [int(n) for n, label in zip(occupations, mc.labels, strict=True) if label == a]
        x.append(sum(mine) / len(mine))
    return [math.fsum(q * share for q, share in zip(row, x, strict=True)) for row in mc.Q]


class NaiveGenerator:
    """xoshiro256++ in whole numbers of any size."""

    mask = 2**64 - 1

    def __init__(self, state: list[int]) -> None:
        self.s = list(state)

    def rotated(self, x: int, k: int) -> int:
        return ((x << k) | (x >> (64 - k))) & self.mask

    def __call__(self) -> int:
        s = self.s
        number = (self.rotated((s[0] + s[3]) & self.mask, 23) + s[0]) & self.mask
        t = (s[1] << 17) & self.mask
        s[2] ^= s[0]
        s[3] ^= s[1]
        s[1] ^= s[2]
        s[0] ^= s[3]
        s[2] ^= t
        s[3] = self.rotated(s[3], 45)
        return number


def naive_walk(
    mc: LatticeMC,
    clusters: Any,
    start: Array,
    T: float,
    sweeps: int,
    seed: int,
    mu: Any = None,
    phi: Any = None,
    kappa: Any = None,
) -> tuple[list[int], list[float], list[list[float]], int]:
    """Occupations at the end, energies and order parameters after each sweep, accepted moves."""
    occupations = [int(n) for n in start]
    state = np.random.default_rng(seed).integers(0, 2**64, 4, dtype=np.uint64)
    draw = NaiveGenerator([int(word) for word in state])
    filled = [i for i, n in enumerate(occupations) if n]
    empty = [i for i, n in enumerate(occupations) if not n]

    def whole(n: list[int]) -> float:
        energy, eta = naive_energy(mc, clusters, n), naive_eta(mc, n)
        if mu is not None:
            energy -= mc.normalisation * math.fsum(m * e for m, e in zip(mu, eta, strict=True))
        if phi is not None:
            energy += mc.normalisation * math.fsum(
                p * (e - k) ** 2 for p, e, k in zip(phi, eta, kappa, strict=True)
            )  # fmt: skip
        return energy

    energies, etas, accepted, now = [], [], 0, whole(occupations)
    for _ in range(sweeps):
        for _ in range(len(occupations)):
            first, second = draw(), draw()
            proposal = list(occupations)
            if mu is None and phi is None:
                x = ((first >> 32) * len(filled)) >> 32
                y = ((first & 0xFFFFFFFF) * len(empty)) >> 32
                proposal[filled[x]], proposal[empty[y]] = 0, 1
            else:
                i = ((first >> 32) * len(occupations)) >> 32
                proposal[i] = 1 - proposal[i]
            then = whole(proposal)
            if (second >> 11) / 2**53 < math.exp(min(0.0, -(then - now) / (mc.boltzmann * T))):
                occupations, now = proposal, then
                accepted += 1
                if mu is None and phi is None:
                    filled[x], empty[y] = empty[y], filled[x]
        energies.append(naive_energy(mc, clusters, occupations))
        etas.append(naive_eta(mc, occupations))
    return occupations, energies, etas, accepted


@st.composite
def models(draw: Any, largest: int = 4) -> tuple[LatticeMC, Any]:
    """A small random lattice with a random Hamiltonian, and its clusters as they were given."""
    d, b = draw(st.integers(1, 3)), draw(st.integers(1, 2))
    repeats = tuple(draw(st.integers(2, 3)) for _ in range(d))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    clusters: list[Any] = []
    for size in draw(st.lists(st.integers(1, largest), min_size=0, max_size=4)):
        members = [
            [[*(int(o) for o in rng.integers(-1, 2, d)), int(rng.integers(b))] for _ in range(size)]
            for _ in range(rng.integers(1, 4))
        ]
        clusters.append((float(rng.normal()) if rng.random() < 0.7 else 0.25, members))
    cell = np.eye(d) + 0.3 * rng.random((d, d))
    labels = rng.permutation(np.arange(math.prod(repeats) * b) % 2)
    try:
        mc = LatticeMC(
            cell,
            np.linspace(0.0, 0.5, b)[:, None] * np.ones(d),
            repeats,
            clusters,
            variables=draw(st.sampled_from(["occupation", "spin"])),
            boltzmann=1.0,
            labels=labels,
            Q=[[0.5, 0.5], [0.5, -0.5]],
            normalisation=draw(st.sampled_from([None, 3.0])),
        )
    except DataError:
        assume(False)
        raise
    return mc, clusters


@given(model=models(), seed=st.integers(0, 1000))
def test_energies_are_direct_sums(model: Any, seed: int) -> None:
    mc, clusters = model
    n = np.random.default_rng(seed).integers(0, 2, mc.n_sites)
    assert mc.energy(n) == pytest.approx(naive_energy(mc, clusters, n), abs=1e-10)
    assert mc.order_parameters(n) == pytest.approx(np.array(naive_eta(mc, n)))


@settings(max_examples=12)
@given(
    model=st.one_of(models(), models(largest=2)),
    ensemble=st.sampled_from(["canonical", "semi-grand", "biased"]),
    seed=st.integers(0, 2**40),
)
def test_runs_follow_the_twin_step_by_step(model: Any, ensemble: str, seed: int) -> None:
    mc, clusters = model
    rng = np.random.default_rng([1, seed])
    start = rng.permutation(np.arange(mc.n_sites) % 2)
    given: dict[str, Any] = {}
    if ensemble == "semi-grand":
        given = {"mu": rng.normal(size=2)}
    elif ensemble == "biased":
        given = {"phi": rng.random(2) + 0.1, "kappa": rng.normal(size=2)}
    sweeps = 32
    found = mc.run(1.3, start=start, sweeps=sweeps, seed=seed, series=True, jobs=1, **given)
    occupations, energies, etas, accepted = naive_walk(mc, clusters, start, 1.3, sweeps, seed, **given)
    assert found.ensemble == ensemble
    assert found.occupations[0].tolist() == occupations
    assert found.energy_series is not None
    assert found.eta_series is not None
    # incremental energies against direct sums
    np.testing.assert_allclose(found.energy_series[0] * mc.n_sites, energies, atol=1e-9)
    np.testing.assert_allclose(found.eta_series[0], etas, atol=1e-12)
    assert found.acceptance[0] == accepted / (sweeps * mc.n_sites)
    assert found.final_energy[0] == pytest.approx(naive_energy(mc, clusters, occupations), abs=1e-10)


@pytest.mark.parametrize("ensemble", ["canonical", "semi-grand", "biased"])
@pytest.mark.parametrize("variables", ["occupation", "spin"])
def test_tables_and_sums_take_the_same_path(ensemble: str, variables: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels that look energies up, and those that sum them, on a lattice that is too large for the twin."""
    given: Any = {
        "canonical": {"composition": 0.25}, "semi-grand": {"mu": -0.02}, "biased": {"phi": 0.7, "kappa": 0.3}
    }[ensemble]  # fmt: skip

    def run() -> LatticeResult:
        mc = LatticeMC.fcc(4, 0.02, -0.01, 0.004, point_energy=0.01, variables=variables)
        assert (mc._steps is None) == (lattice.LARGEST_TABLE == 1)
        return mc.run(1500.0, sweeps=64, seed=5, series=True, jobs=1, **given)

    fast = run()
    monkeypatch.setattr(lattice, "LARGEST_TABLE", 1)
    slow = run()
    assert fast.energy_series is not None
    assert slow.energy_series is not None
    assert np.array_equal(fast.occupations, slow.occupations)
    np.testing.assert_allclose(fast.energy_series, slow.energy_series, atol=1e-12)
    assert 0.05 < fast.acceptance[0] < 0.95


# --- against exact sums over all states -------------------------------------------------------------------------------


def exact(mc: LatticeMC, clusters: Any, T: float, **given: Any) -> dict[str, Array]:
    """Means over all states."""
    weights, etas, energies, wholes = [], [], [], []
    for n in itertools.product((0, 1), repeat=mc.n_sites):
        if "composition" in given and sum(n) != round(given["composition"] * mc.n_sites):
            continue
        energy, eta = naive_energy(mc, clusters, n), np.array(naive_eta(mc, n))
        whole = energy
        if "mu" in given:
            whole -= mc.normalisation * float(np.dot(given["mu"], eta))
        if "phi" in given:
            whole += mc.normalisation * float(np.dot(given["phi"], (eta - given["kappa"]) ** 2))
        etas.append(eta)
        energies.append(energy)
        wholes.append(whole)
    h = np.array(wholes)
    weights = np.exp(-(h - h.min()) / (mc.boltzmann * T))
    weights /= weights.sum()
    mean = weights @ h
    return {
        "eta": weights @ np.array(etas),
        "energy": weights @ np.array(energies) / mc.n_sites,
        "heat_capacity": weights @ (h - mean) ** 2 / (mc.boltzmann * T**2) / mc.n_sites,
    }


ENSEMBLES: list[dict[str, Any]] = [
    {"composition": 4 / 9},
    {"mu": [0.3, -0.4]},
    {"phi": [2.0, 0.8], "kappa": [0.2, 0.3]},
    {"phi": [1.5, 0.0], "kappa": [0.9, 5.0]},
]
PAIRS: Any = [(-0.3, [[[0, 0], [1, 0]], [[0, 0], [0, 1]]]), (0.2, [[[0, 0]]])]
TRIPLETS: Any = [*PAIRS, (0.4, [[[0, 0], [1, 0], [0, 1]], [[0, 0], [1, 0], [1, -1]]])]


@pytest.mark.parametrize("given", ENSEMBLES, ids=["canonical", "semi-grand", "biased", "one-bias"])
@pytest.mark.parametrize("clusters", [PAIRS, TRIPLETS], ids=["pairs", "triplets"])
@pytest.mark.parametrize("variables", ["occupation", "spin"])
def test_means_over_all_states(given: dict[str, Any], clusters: Any, variables: str) -> None:
    labels = np.array([0, 0, 1, 0, 1, 1, 0, 1, 0])
    Q = [[5 / 9, 4 / 9], [0.5, -0.5]]
    mc = LatticeMC(
        np.eye(2), [[0.0, 0.0]], 3, clusters, variables=variables, labels=labels, Q=Q, boltzmann=1.0, normalisation=5.0
    )
    found = mc.run(0.9, sweeps=300_000, seed=11, jobs=1, **given)
    known = exact(mc, clusters, 0.9, **given)
    for name, error in (("eta", found.eta_error), ("energy", found.energy_error),
                        ("heat_capacity", found.heat_capacity_error)):  # fmt: skip
        value = getattr(found, name)[0]
        assert np.all(np.abs(value - known[name]) < 4.5 * error[0] + 1e-12), name
        assert np.all(error[0] < 0.02 * (1.0 + np.abs(known[name]))), name
    assert found.equilibrated[0], found.reason
    if "phi" in given:
        phi, kappa = np.array(given["phi"]), np.array(given["kappa"])
        np.testing.assert_allclose(found.mu[0], -2.0 * phi * (found.eta[0] - kappa))
        np.testing.assert_allclose(found.mu_error[0], 2.0 * phi * found.eta_error[0])


def test_a_bias_that_holds_a_lattice_against_an_edge_says_nothing_of_mu() -> None:
    """No site is ever filled: mu is larger than 2 phi kappa, which is no answer, least of all one without error."""
    mc = LatticeMC.square(8, boltzmann=1.0)
    found = mc.run(0.1, phi=[[10.0], [10.0]], kappa=[[-5.0], [0.3]], sweeps=200, seed=1, jobs=1)
    assert found.eta[0, 0] == 0.0
    assert np.isnan(found.mu[0]).all()
    assert np.isnan(found.mu_error[0]).all()
    assert not found.equilibrated[0]
    assert np.isfinite(found.mu[1]).all()
    assert found.mu_error[1, 0] > 0.0
    # an order parameter without a bias is free: there mu is zero, whatever it did
    labels = np.indices((8, 8)).sum(0).ravel() % 2
    two = mc.with_order_parameters(labels, [[0.5, 0.5], [0.5, -0.5]])
    free = two.run(0.1, phi=[10.0, 0.0], kappa=[0.3, 0.0], sweeps=200, seed=1, jobs=1)
    assert free.mu[0, 1] == 0.0


def test_errors_are_those_of_repeated_runs() -> None:
    """Ideal solution under a bias: the distribution of the number of occupied sites is known, and so is its mean."""
    N, T, runs = 100, 1.0, 300
    mc = LatticeMC.square(10, boltzmann=1.0)
    found = mc.run(T, phi=0.5, kappa=0.2, sweeps=600, seed=np.arange(runs), jobs=2)
    c = np.arange(N + 1)
    log_p = scipy.special.gammaln(N + 1) - scipy.special.gammaln(c + 1) - scipy.special.gammaln(N - c + 1)
    log_p -= N * 0.5 * (c / N - 0.2) ** 2
    p = np.exp(log_p - log_p.max())
    x = p @ c / p.sum() / N
    z = (found.eta[:, 0] - x) / found.eta_error[:, 0]
    assert abs(z.mean()) < 4.0 / math.sqrt(runs)
    assert 0.85 < z.std() < 1.2
    np.testing.assert_allclose(found.mu_error, found.eta_error)
    assert found.equilibrated.mean() > 0.97


# --- systems that are known -------------------------------------------------------------------------------------------


def onsager_energy(T: float) -> float:
    """Energy per site of the square Ising model, J = k = 1."""
    k = 2.0 * math.sinh(2.0 / T) / math.cosh(2.0 / T) ** 2
    bracket = 1.0 + 2.0 / math.pi * (2.0 * math.tanh(2.0 / T) ** 2 - 1.0) * float(scipy.special.ellipk(k * k))
    return -bracket / math.tanh(2.0 / T)


def yang_magnetisation(T: float) -> float:
    return (1.0 - math.sinh(2.0 / T) ** -4) ** 0.125


def ising(n: int, energy: float = -1.0) -> LatticeMC:
    return LatticeMC.square(n, energy, variables="spin", boltzmann=1.0)


def test_ising_chain() -> None:
    """Ring of n spins, transfer matrix: Z = (2 cosh K)^n + (2 sinh K)^n."""
    n, T = 12, 1.5
    clusters = [(-1.0, [[[0], [1]]])]
    mc = LatticeMC([[1.0]], [[0.0]], n, clusters, variables="spin", boltzmann=1.0)
    found = mc.run(T, mu=0.0, sweeps=60_000, jobs=1)
    t = math.tanh(1.0 / T)
    energy = -t * (1.0 + t ** (n - 2)) / (1.0 + t**n)
    assert found.energy[0] == pytest.approx(energy, abs=4.5 * found.energy_error[0])
    assert found.energy_error[0] < 0.005


def test_square_ising_energy_and_magnetisation() -> None:
    T = np.array([1.5, 1.9, 2.05, 3.0, 5.0])
    mc = ising(32)
    found = mc.run(T, mu=0.0, start=np.ones(mc.n_sites, int), sweeps=12_000, seed=2)
    for c, t in enumerate(T):
        assert found.energy[c] == pytest.approx(onsager_energy(t), abs=4.5 * found.energy_error[c] + 1e-4)
        assert found.energy_error[c] < 0.003
        m = yang_magnetisation(t) if t < CRITICAL else 0.0
        assert 2.0 * found.eta[c, 0] - 1.0 == pytest.approx(m, abs=9.0 * found.eta_error[c, 0] + 1e-4)
        assert found.eta_error[c, 0] < 0.003
    assert found.equilibrated.all(), found.reason


@pytest.mark.slow
def test_larger_square_ising_near_criticality() -> None:
    T = np.array([2.15, 2.4])
    mc = ising(128)
    found = mc.run(T, mu=0.0, start=np.ones(mc.n_sites, int), sweeps=40_000, seed=3)
    for c, t in enumerate(T):
        assert found.energy[c] == pytest.approx(onsager_energy(t), abs=4.5 * found.energy_error[c] + 1e-4)
        assert found.energy_error[c] < 0.001
    assert 2.0 * found.eta[0, 0] - 1.0 == pytest.approx(yang_magnetisation(2.15), abs=9.0 * found.eta_error[0, 0])


def test_ideal_solution() -> None:
    """mu = k T ln(x / (1 - x)), from the bias and into the reservoir; electronvolts and kelvins."""
    mc = LatticeMC.fcc(8)
    T, kT = 800.0, 800.0 * lattice.BOLTZMANN
    found = mc.run(T, phi=0.5, kappa=np.linspace(-0.3, 1.3, 9), sweeps=4000, seed=1)
    x = found.eta[:, 0]
    assert x.min() < 0.05
    assert x.max() > 0.95
    # dg/deta at the mean and its mean differ by g''' / 2 times the variance
    apart = np.abs(kT * (1.0 / (1.0 - x) ** 2 - 1.0 / x**2) / 2.0 * x * (1.0 - x) / mc.n_sites)
    assert np.all(np.abs(found.mu[:, 0] - kT * np.log(x / (1.0 - x))) < 4.5 * found.mu_error[:, 0] + apart)
    assert np.all(found.mu_error < 0.002)
    assert found.equilibrated.all(), found.reason
    asked = np.array([-0.1, 0.0, 0.05])
    open_run = mc.run(T, mu=asked, sweeps=2000)
    expected = 1.0 / (1.0 + np.exp(-asked / kT))
    assert np.all(np.abs(open_run.eta[:, 0] - expected) < 4.5 * open_run.eta_error[:, 0])
    assert np.array_equal(open_run.mu[:, 0], asked)
    assert np.all(open_run.energy == 0.0)


def checkerboard(n: int) -> tuple[LatticeMC, Array]:
    """Lattice gas whose neighbours repel; composition and staggered order; and its ground state at half filling."""
    mc = ising(n, 1.0)
    labels = mc.period_labels(2)
    mc = mc.with_order_parameters(labels, [[0.25, 0.25, 0.25, 0.25], [0.25, -0.25, -0.25, 0.25]])
    return mc, np.isin(labels, (0, 3)).astype(int)


def test_an_ordering_lattice_gas() -> None:
    """Flipping one sublattice makes it the Ising model: same transition, same order."""
    mc, ordered = checkerboard(32)
    T = np.array([1.5, 1.9, 2.7, 3.5])
    found = mc.run(T, composition=0.5, start=ordered, sweeps=8000, seed=4)
    assert found.ensemble == "canonical"
    assert np.isnan(found.mu).all()
    np.testing.assert_allclose(found.eta[:, 0], 0.5, atol=1e-14)
    np.testing.assert_allclose(found.eta_error[:, 0], 0.0, atol=1e-14)
    for c, t in enumerate(T):
        order = yang_magnetisation(t) if t < CRITICAL else 0.0
        assert 2.0 * found.eta[c, 1] == pytest.approx(order, abs=9.0 * found.eta_error[c, 1] + 2e-3)
        assert found.eta_error[c, 1] < 0.012
        assert found.energy[c] == pytest.approx(onsager_energy(t), abs=4.5 * found.energy_error[c] + 4e-3)
    # disordered to begin with, above the transition: the same
    other = mc.run(T[2:], composition=0.5, sweeps=8000, seed=5)
    assert np.all(np.abs(other.energy - found.energy[2:]) < 4.5 * np.hypot(other.energy_error, found.energy_error[2:]))


@pytest.mark.slow
def test_binder_cumulants_cross_at_the_transition() -> None:
    T = CRITICAL * np.array([0.97, 1.0, 1.03])
    cumulants = []
    for n in (8, 24):
        mc, ordered = checkerboard(n)
        found = mc.run(T, mu=[0.0, 0.0], start=ordered, sweeps=200_000, seed=6, series=True)
        assert found.eta_series is not None
        m = found.eta_series[:, 2000:, 1]
        cumulants.append(1.0 - (m**4).mean(axis=1) / (3.0 * (m**2).mean(axis=1) ** 2))
    small, large = cumulants
    assert large[0] > small[0] + 0.01
    assert large[2] < small[2] - 0.02
    # the universal value of the square with periodic boundaries
    assert small[1] == pytest.approx(0.6107, abs=0.015)
    assert large[1] == pytest.approx(0.6107, abs=0.03)


# --- lattices ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "neighbours"),
    [
        (LatticeMC.square, [4, 4, 4, 8]),
        (LatticeMC.triangular, [6, 6, 6, 12]),
        (LatticeMC.bcc, [8, 6, 12, 24, 8]),
        (LatticeMC.fcc, [12, 6, 24, 12, 24]),
    ],
)
def test_shells_of_known_lattices(make: Any, neighbours: list[int]) -> None:
    for shell, many in enumerate(neighbours, 1):
        mc = make(6, *([0.0] * (shell - 1)), 1.0, a=3.7)
        assert mc.energy(np.ones(mc.n_sites)) == pytest.approx(mc.n_sites * many / 2)
        one = np.zeros(mc.n_sites)
        one[5] = 1
        assert mc.energy(one) == 0.0


@pytest.mark.parametrize(
    ("make", "shells", "per_site"),
    [
        (LatticeMC.square, (1, 1, 2), 4),
        (LatticeMC.triangular, (1, 1, 1), 2),
        (LatticeMC.triangular, (1, 1, 2), 6),
        (LatticeMC.bcc, (1, 1, 2), 12),
        (LatticeMC.fcc, (1, 1, 1), 8),
        (LatticeMC.fcc, (1, 1, 2), 12),
    ],
)
def test_triplets_of_known_lattices(make: Any, shells: tuple[int, int, int], per_site: int) -> None:
    mc = make(4, triplet_energies={shells: 1.0})
    assert mc.energy(np.ones(mc.n_sites)) == pytest.approx(mc.n_sites * per_site)


def test_shells_are_distances() -> None:
    """A skewed cell with two sites: pairs by shell against a search over positions."""
    cell, basis = np.array([[3.0, 0.1, 0.0], [0.7, 2.5, 0.3], [-0.2, 0.4, 4.1]]), np.array([[0.0] * 3, [0.3, 0.6, 0.4]])
    mc = LatticeMC.from_neighbours(cell, basis, 5, {1: 1.0, 3: 10.0, 6: 100.0})
    cells = np.array(list(itertools.product(range(-4, 5), repeat=3)))
    lengths = {
        (k, m): np.linalg.norm((cells + basis[m] - basis[k]) @ cell, axis=1) for k in range(2) for m in range(2)
    }  # fmt: skip
    every = np.unique(np.round(np.concatenate(list(lengths.values())), 6))[1:7]
    expected = 0.0
    for shell, energy in ((0, 1.0), (2, 10.0), (5, 100.0)):
        expected += energy * sum(int((np.abs(one - every[shell]) < 1e-5).sum()) for one in lengths.values()) / 2
    assert mc.energy(np.ones(mc.n_sites)) == pytest.approx(expected * 125)


def test_clusters_that_wrap_round_a_small_cell() -> None:
    """Two cells along an axis: two pairs link the same two atoms. One cell: a pair of an atom with itself."""
    mc = ising(2)
    assert mc.energy(np.ones(4)) == -8.0
    assert mc.energy([1, 0, 0, 1]) == 8.0
    assert mc.energy([1, 0, 0, 0]) == 0.0
    with pytest.raises(DataError, match=r"repeats \(1, 4\) are too small: the cluster .* meets its own periodic image"):
        LatticeMC.square((1, 4), -1.0)
    with pytest.raises(DataError, match="meets its own periodic image"):
        LatticeMC(np.eye(2), [[0.0, 0.0]], 2, [(1.0, [[[0, 0], [1, 0], [2, 0]]])])
    # points fit into any cell
    assert LatticeMC(np.eye(2), [[0.0, 0.0]], 1, [(0.5, [[[0, 0]]])]).energy([1]) == 0.5


def test_positions_and_periods() -> None:
    mc = LatticeMC.bcc((2, 4, 2), a=3.0)
    assert mc.positions.shape == (32, 3)
    assert mc.positions[:3].tolist() == [[0.0, 0.0, 0.0], [1.5, 1.5, 1.5], [0.0, 0.0, 3.0]]
    labels = mc.period_labels((1, 2, 1))
    assert np.unique(labels).tolist() == [0, 1, 2, 3]
    # a label means a place in the superstructure
    for label in range(4):
        places = mc.positions[labels == label] % np.array([3.0, 6.0, 3.0])
        assert len(np.unique(places, axis=0)) == 1
    with pytest.raises(ValueError, match=r"repeats \(2, 4, 2\) must be multiples of the period \(3, 3, 3\)"):
        mc.period_labels(3)


def test_atoms_of_a_configuration() -> None:
    mc = LatticeMC.fcc(2, a=4.0)
    n = np.arange(mc.n_sites) % 2
    both = mc.atoms(n, ("Ni", "Al"))
    assert both.get_chemical_formula() == "Al16Ni16"
    assert both.pbc.all()
    assert both.cell.lengths().tolist() == [8.0, 8.0, 8.0]
    np.testing.assert_allclose(both.positions, mc.positions)
    assert [atom.symbol == "Al" for atom in both] == (n == 1).tolist()
    some = mc.atoms(n, (None, "Li"))
    assert len(some) == 16
    np.testing.assert_allclose(some.positions, mc.positions[n == 1])
    flat = ising(2).atoms([1, 0, 0, 1], ("Cu", "Au"))
    assert flat.pbc.tolist() == [True, True, False]
    assert np.all(flat.positions[:, 2] == 0.0)


def test_fingerprints_tell_models_apart() -> None:
    models = [ising(4), ising(6), ising(4, 1.0), LatticeMC.square(4, -1.0, boltzmann=1.0), checkerboard(4)[0]]
    assert len({mc.fingerprint() for mc in models}) == len(models)
    assert ising(4).fingerprint() == ising(4).fingerprint()


# --- runs -------------------------------------------------------------------------------------------------------------


def same(a: LatticeResult, b: LatticeResult, rows: slice = slice(None)) -> None:
    for name in ("eta", "eta_error", "energy", "heat_capacity", "occupations", "energy_series", "snapshots"):
        assert np.array_equal(getattr(a, name)[rows], getattr(b, name)), name


@pytest.mark.parametrize("given", [{"composition": [0.25, 0.5, 0.75]}, {"mu": 0.1}, {"phi": 1.0, "kappa": 0.4}])
def test_threads_and_company_change_nothing(given: dict[str, Any]) -> None:
    mc = LatticeMC.square(8, 0.02, 0.01)
    T = [300.0, 500.0, 700.0]
    options: dict[str, Any] = {"sweeps": 96, "every": 3, "warmup": 5, "series": True, "snapshots": 4}
    one = mc.run(T, seed=9, jobs=1, **options, **given)
    same(one, mc.run(T, seed=9, jobs=3, **options, **given))
    counted: list[int] = []
    with Workers(2) as pool:
        same(one, mc.run(T, seed=one.seeds, workers=pool, progress=counted.append, **options, **given))
    assert counted == [1, 1, 1]
    alone = {name: value[1] if isinstance(value, list) else value for name, value in given.items()}
    same(one, mc.run(T[1], seed=one.seeds[1], jobs=1, **options, **alone), slice(1, 2))
    assert len(set(one.seeds)) == 3
    assert not np.array_equal(one.occupations[0], mc.run(T[0], seed=1, **options, **alone).occupations[0])


def test_calls_of_the_kernel_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    mc = LatticeMC.square(8, -0.02)
    given: dict[str, Any] = {"phi": 0.5, "kappa": 0.3, "sweeps": 96, "every": 3, "series": True, "snapshots": 3}
    whole = mc.run(400.0, **given)
    monkeypatch.setattr(lattice, "CHUNK", 64 * 3 * 4)
    parts = mc.run(400.0, **given)
    assert np.array_equal(whole.occupations, parts.occupations)
    assert whole.energy_series == pytest.approx(parts.energy_series)


def test_snapshots_and_series() -> None:
    mc, _ = checkerboard(8)
    found = mc.run([2.0, 3.0], mu=[0.2, 0.1], sweeps=120, every=2, snapshots=7, series=True)
    assert found.snapshots.shape == (2, 7, 64)
    assert found.eta_series is not None
    assert found.energy_series is not None
    assert found.snapshot_sweeps[-1] == 120
    assert np.array_equal(found.snapshots[:, -1], found.occupations)
    for c in range(2):
        at = found.snapshot_sweeps // 2 - 1
        np.testing.assert_allclose(mc.order_parameters(found.snapshots[c]), found.eta_series[c, at], atol=1e-12)
        for i, n in zip(at, found.snapshots[c], strict=True):
            assert mc.energy(n) / 64 == pytest.approx(found.energy_series[c, i])


def test_samples_are_where_they_should_be() -> None:
    """Every third sweep of a run is every third sample of the same run; a warm-up is the beginning of it."""
    mc = LatticeMC.square(6, -0.02)
    fine = mc.run(400.0, mu=0.0, sweeps=120, series=True)
    coarse = mc.run(400.0, mu=0.0, sweeps=120, every=3, series=True)
    later = mc.run(400.0, mu=0.0, sweeps=80, warmup=40, series=True)
    assert fine.eta_series is not None
    assert coarse.eta_series is not None
    assert later.eta_series is not None
    assert np.array_equal(fine.eta_series[:, 2::3], coarse.eta_series)
    assert np.array_equal(fine.eta_series[:, 40:], later.eta_series)
    assert np.array_equal(fine.occupations, later.occupations)


def test_runs_begin_where_they_are_told() -> None:
    mc, ordered = checkerboard(16)
    # by the order parameters that are held, without the others
    biased = mc.run(1e-3, phi=[1e3, 1e3], kappa=[0.375, 0.125], sweeps=32)
    np.testing.assert_allclose(biased.eta, [[0.375, 0.125]], atol=5e-3)
    frozen = mc.run(1e-3, start=ordered, sweeps=32)
    assert np.array_equal(frozen.occupations[0], ordered)
    assert frozen.reason == ["no move was accepted"]
    again = mc.run([1e-3, 1e-3], start=np.stack([ordered, 1 - ordered]), composition=0.5, sweeps=32)
    assert np.array_equal(again.occupations, [ordered, 1 - ordered])
    # one state only: nothing to equilibrate, and nothing to divide by
    for x in (0.0, 1.0):
        only = mc.run(1.0, composition=x, sweeps=32)
        assert only.energy[0] == 2.0
        assert only.energy_error[0] == only.heat_capacity[0] == 0.0
        assert only.equilibrated[0]


def test_equilibration_is_found() -> None:
    rng = np.random.default_rng(0)
    noise = rng.normal(size=4000)
    relaxing = noise + 50.0 * np.exp(-np.arange(4000) / 100.0)
    assert lattice._equilibration(noise) < 800
    assert 250 <= lattice._equilibration(relaxing) <= 1000
    assert lattice._equilibration(np.ones(40)) == 0
    # an ordered start far above the transition, in a run that is long and one that is short
    mc = ising(64)
    start = np.ones(mc.n_sites, int)
    long = mc.run(3.0, mu=0.0, start=start, sweeps=8000, seed=1)
    assert long.equilibration[0] > 0
    assert long.equilibrated[0], long.reason
    short = mc.run(2.3, mu=0.0, start=start, sweeps=64, seed=1)
    assert not short.equilibrated[0]
    assert "run longer" in short.reason[0]


def test_drift_is_told() -> None:
    n = 4000
    noise = np.random.default_rng(1).normal(size=n)
    drift = np.where(np.arange(n) < n // 2, 0.0, 0.5)
    assert lattice._why_not([noise], 0, 1, 1.0, n, 5) == ""
    assert lattice._why_not([noise, noise + drift], 0, 1, 1.0, n, 5).startswith("the halves of the run differ by")
    assert lattice._why_not([noise], 2001, 2, 1.0, n, 5) == "equilibration takes 4002 of 8000 sweeps: run longer"


def test_heat_capacity_is_the_derivative_of_the_energy() -> None:
    """kelvins and electronvolts: by the fluctuation, and from energies at neighbouring temperatures."""
    mc = LatticeMC.square(12, -0.05)
    T = np.array([480.0, 500.0, 520.0])
    found = mc.run(T, composition=0.5, sweeps=60_000, seed=8)
    slope = (found.energy[2] - found.energy[0]) / 40.0
    error = math.hypot(found.energy_error[2], found.energy_error[0]) / 40.0
    assert found.heat_capacity[1] == pytest.approx(slope, abs=4.5 * math.hypot(error, found.heat_capacity_error[1]))
    assert math.hypot(error, found.heat_capacity_error[1]) < 0.1 * slope


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"T": 0.0}, "T must be positive, but condition 0 has 0"),
        ({"T": [300.0, -1.0]}, "T must be positive, but condition 1 has -1"),
        ({"T": [300.0, math.nan]}, "T must be finite, but condition 1 has nan"),
        ({"T": []}, r"T must be a number, or one for each condition, got shape \(0,\)"),
        ({"T": "hot"}, "T must be numbers, got 'hot'"),
        ({"T": [1.0, 2.0], "mu": [1.0, 2.0, 3.0]}, "conditions must be of equal length, or single, got T 2, mu 3"),
        ({"T": [1.0, 2.0], "start": np.zeros((3, 16))}, "equal length, or single, got T 2, start 3"),
        ({"mu": math.inf}, r"mu must be finite, but condition 0 has \[inf\]"),
        ({"mu": [[1.0, 2.0]]}, r"mu must have one row for each condition and 1 columns, got shape \(1, 2\)"),
        ({"mu": None}, "a run needs a composition, or mu, or phi and kappa, or occupations to start from"),
        ({"composition": 0.5}, "a run takes one of composition, mu, or phi and kappa, not several"),
        ({"phi": 1.0}, "a biased run needs both phi and kappa"),
        ({"mu": None, "phi": -1.0, "kappa": 0.5}, "nor all zero, but condition 0 has"),
        ({"mu": None, "phi": 0.0, "kappa": 0.5}, "phi must not be negative nor all zero"),
        ({"mu": None, "phi": 1.0, "kappa": math.nan}, r"kappa must be finite, but condition 0 has \[nan\]"),
        ({"mu": None, "composition": 0.3}, "not reachable with 16 sites; the nearest is 5/16 = 0.3125"),
        ({"mu": None, "composition": 1.5}, "composition must lie between 0 and 1, but condition 0 has 1.5"),
        ({"mu": None, "composition": 0.5, "start": np.zeros(16)}, "start must have the composition that is asked for"),
        ({"start": np.full(16, 2)}, "occupations must be 0 or 1, for spins too"),
        ({"start": np.zeros(15)}, r"occupations must have 16 sites in their last axis, got shape \(15,\)"),
        ({"start": np.zeros((1, 1, 16))}, r"start must have shape \(N,\) or \(n, N\), got \(1, 1, 16\)"),
        ({"sweeps": 20}, "sweeps must be a multiple of every, and at least 32 times as much, got 20 and 1"),
        ({"sweeps": 100, "every": 3}, "sweeps must be a multiple of every"),
        ({"every": 0}, "every must be a whole number of at least 1"),
        ({"warmup": -1}, "warmup must be a whole number of at least 0"),
        ({"snapshots": 65}, "there can be at most one snapshot for each of the 64 samples, got 65"),
        ({"seed": -1}, "seed must be a whole number of at least 0, got -1"),
        ({"seed": 0.5}, "seed must be a whole number of at least 0, got 0.5"),
        ({"seed": None}, "seed must be a whole number of at least 0, got None"),
        ({"T": [1.0, 2.0], "seed": [1, 2, 3]}, "conditions must be of equal length, or single, got T 2, seed 3"),
        ({"seed": []}, "seed must be one whole number, or one for each condition, got an empty list"),
        ({"jobs": 0}, "jobs must be a whole number of at least 1"),
    ],
)  # fmt: skip
def test_conditions_that_are_refused(given: dict[str, Any], message: str) -> None:
    mc = LatticeMC.square(4, -0.1)
    with pytest.raises(ValueError, match=message):
        mc.run(**{"T": 300.0, "mu": 0.0, "sweeps": 64, **given})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"cell": np.ones((2, 2))}, "the vectors of the cell are linearly dependent"),
        ({"cell": np.eye(4)}, r"cell must have shape \(d, d\) with d = 1, 2 or 3, got \(4, 4\)"),
        ({"cell": [[1.0, math.nan], [0.0, 1.0]]}, "cell and basis must be finite"),
        ({"basis": [[0.0, 0.0], [1.0, 2.0]]}, "sites 0 and 1 of the basis coincide"),
        ({"basis": [0.0, 0.0]}, r"basis must have shape \(b, 2\) with at least one site"),
        ({"repeats": 0}, "repeats must be a whole number of at least 1, got 0"),
        ({"repeats": (2, 2, 2)}, "repeats must be one whole number, or 2 of them, got 3"),
        ({"repeats": 50_000}, r"a lattice must have fewer than 2\^31 sites"),
        ({"clusters": [(math.nan, [])]}, "the energy of orbit 0 must be finite, got nan"),
        ({"clusters": [1.0]}, "orbit 0 must be an energy and a list of clusters"),
        ({"clusters": [(1.0, [[]])]}, "orbit 0 has a cluster without sites"),
        ({"clusters": [(1.0, [[[0]]])]}, r"must be 2 whole numbers and the number of its basis site, got \[0\]"),
        ({"clusters": [(1.0, [[[0, 0.5]]])]}, r"a site of orbit 0 must be whole numbers, got \[0, 0.5\]"),
        ({"clusters": [(1.0, [[[0, 0, 1]]])]}, "a site of orbit 0 has basis site 1, but they are 0 to 0"),
        ({"clusters": [(1.0, [[[0, 0], [0, 0]]])]}, "orbit 0 has a cluster that names a site twice"),
        ({"clusters": [(1.0, [[[0, 0], [0, 1]]]), (2.0, [[[3, 4], [3, 3]]])]}, "that orbit 0 has already"),
        ({"variables": "ternary"}, "variables must be one of occupation, spin, got 'ternary'"),
        ({"boltzmann": 0.0}, "boltzmann must be positive and finite"),
        ({"normalisation": -1.0}, "normalisation must be positive and finite"),
        ({"labels": [0, 1]}, r"labels must be 16 whole numbers, one for each site, got shape \(2,\)"),
        ({"labels": np.full(16, -1)}, "labels must be numbered from 0 without gaps, got -1 to -1"),
        ({"labels": np.arange(16) % 2 * 2}, "labels must be numbered from 0 without gaps, but no site has label 1"),
        ({"Q": [[1.0, 1.0]]}, r"one column for each of the 1 sublattices, got shape \(1, 2\)"),
        ({"Q": [[math.nan]]}, "Q must hold finite numbers"),
    ],
)  # fmt: skip
def test_lattices_that_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LatticeMC(**{"cell": np.eye(2), "basis": [[0.0, 0.0]], "repeats": 4, "clusters": [], **given})


def test_neighbours_that_are_refused() -> None:
    cell, basis = np.eye(2), [[0.0, 0.0]]
    with pytest.raises(ValueError, match="a shell of pair_energies must be a whole number of at least 1, got 0"):
        LatticeMC.from_neighbours(cell, basis, 4, {0: 1.0})
    with pytest.raises(ValueError, match=r"must be three shells in ascending order, got \(2, 1, 1\)"):
        LatticeMC.from_neighbours(cell, basis, 4, {}, triplet_energies={(2, 1, 1): 1.0})
    with pytest.raises(ValueError, match=r"no triplets whose pairs belong to shells \(1, 1, 1\)"):
        LatticeMC.from_neighbours(cell, basis, 4, {}, triplet_energies={(1, 1, 1): 1.0})
    with pytest.raises(ValueError, match="a pair energy must be finite"):
        LatticeMC.square(4, math.nan)
    with pytest.raises(ValueError, match="a must be positive and finite"):
        LatticeMC.fcc(2, a=0.0)
    with pytest.raises(ValueError, match=r"species must be two symbols"):
        LatticeMC.square(2).atoms([0, 1, 0, 1], ("Cu",))  # type: ignore[arg-type]


def test_the_offset_of_mu_is_what_a_small_cell_is_off_by() -> None:
    """Ideal solution on few sites: mu of a bias is the mean of dg/deta over the cell, not dg/deta at the mean."""
    mc = LatticeMC.square(4, 0.0)
    kT = mc.boltzmann * 600.0
    found = mc.run(600.0, phi=[0.5], kappa=[[-0.1], [0.3], [0.5]], sweeps=20_000, seed=1, jobs=1)
    x = found.eta[:, 0]
    apart = np.abs(found.mu[:, 0] - kT * np.log(x / (1.0 - x)))
    assert (apart < 3.0 * np.hypot(found.mu_error[:, 0], found.mu_offset[:, 0])).all()
    # next to the edge the cell is far off, and says so; in the middle it is not
    assert apart[0] > 5.0 * found.mu_error[0, 0]
    assert found.mu_offset[0, 0] > 10.0 * found.mu_offset[2, 0]
    assert found.mu_offset[2, 0] < 0.2 * found.mu_error[2, 0]
    larger = LatticeMC.square(16, 0.0).run(600.0, phi=[0.5], kappa=[[0.3]], sweeps=2_000, seed=1, jobs=1)
    assert larger.mu_offset[0, 0] < 0.2 * found.mu_offset[1, 0]


def test_a_species_that_never_came_tells_next_to_nothing() -> None:
    mc = LatticeMC.square(4, 0.0).with_order_parameters(np.arange(16) % 2, [[0.5, 0.5], [0.5, -0.5]])
    found = mc.run(300.0, phi=[5.0, 5.0], kappa=[[0.2, 0.5]], sweeps=2_000, seed=1, jobs=1)
    assert (found.mu_offset[0] > 1.0).all()  # one sublattice stayed empty: eV, beyond any mu


def test_an_oracle_adds_the_offset_to_its_errors() -> None:
    mc = LatticeMC.square(4, 0.0)
    answer = MonteCarloOracle(mc, [0.5], 500).evaluate([[0.1]], 600.0, seeds=[3])
    found = mc.run(600.0, phi=[0.5], kappa=[[0.1]], sweeps=500, seed=[3], jobs=1)
    np.testing.assert_allclose(answer.mu_error, np.hypot(found.mu_error, found.mu_offset))


def test_other_ensembles_have_no_offset() -> None:
    mc = LatticeMC.square(4, 0.02)
    assert (mc.run(600.0, mu=[0.1], sweeps=100, seed=1, jobs=1).mu_offset == 0.0).all()
