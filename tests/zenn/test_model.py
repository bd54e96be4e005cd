"""Models: observables are derivatives of F, identities hold, known surfaces are recovered from any kind of data."""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Callable
from typing import Any

import naive_zenn as naive
import numpy as np
import numpy.typing as npt
import pytest
from scipy.optimize import brentq
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from quests_zenn._core.checks import DataError, DataWarning, MissingExtraError

torch = pytest.importorskip("torch")

from handmade import DESIGNS, VOLUME, by_hand, drawn, points, single, values  # noqa: E402

from quests_zenn.zenn import model as model_module  # noqa: E402
from quests_zenn.zenn._parts import BOLTZMANN, GPA, Design, stretches  # noqa: E402
from quests_zenn.zenn.model import DNN, IDNN, ZENN  # noqa: E402

pytestmark = pytest.mark.extra

Array = npt.NDArray[Any]
NAN = float("nan")

#: A fit that takes no time.
BRIEF: dict[str, Any] = {
    "n_members": 2,
    "max_iterations": 12,
    "random_state": 0,
    "n_jobs": 1,
    "verbose": False,
}


def made(name: str, seed: int = 30, members: int = 2) -> Any:
    return by_hand(DESIGNS[name], drawn(DESIGNS[name], members, seed), shift=-3.25)


VOLUMES = [name for name, design in DESIGNS.items() if design.coordinate == "volume"]

#: All that changes with T does so by physics.
PHYSICAL = [
    name
    for name in VOLUMES
    if DESIGNS[name].thermal != "none" and not DESIGNS[name].explicit_temperature and math.isinf(DESIGNS[name].gamma)
]
ORDERS = [name for name, design in DESIGNS.items() if design.coordinate == "order"]

# --- observables are derivatives of F ---------------------------------------------------------------------------------


def slope(function: Callable[[float], float], at: float, h: float, order: int) -> tuple[float, float]:
    """A derivative by differences, and how far it can be trusted."""
    fine, coarse = (naive.difference(function, at, step, order) for step in (h, 2 * h))
    return fine, 0.05 * abs(fine - coarse)


@pytest.mark.parametrize("name", VOLUMES)
def test_observables_of_volumes_are_derivatives_of_free_energies(name: str) -> None:
    model, design = made(name), DESIGNS[name]
    x, T = points(design, 4, 31)
    x = x[:, 0]
    found = {
        what: getattr(model, what)(x, T)
        for what in (
            "free_energy",
            "entropy",
            "internal_energy",
            "heat_capacity",
            "pressure",
            "bulk_modulus",
            "chemical_potential",
        )
    }
    curvature = model.hessian(x, T)
    assert curvature.shape == (4, 1, 1)
    for r in range(4):
        v, t = float(x[r]), float(T[r])

        def in_T(s: float, v: float = v) -> float:
            return float(model.derivatives(v, s, [(0, 0)])[0, 0])

        def in_V(w: float, t: float = t) -> float:
            return float(model.derivatives(w, t, [(0, 0)])[0, 0])

        dT, eT = slope(in_T, t, 4.0, 1)
        dTT, eTT = slope(in_T, t, 10.0, 2)
        dV, eV = slope(in_V, v, 0.02, 1)
        dVV, eVV = slope(in_V, v, 0.02, 2)
        F = in_T(t)
        assert found["free_energy"][r] == pytest.approx(F, rel=1e-15)
        assert found["entropy"][r] == pytest.approx(-dT, rel=1e-7, abs=1e-13 + eT)
        assert found["internal_energy"][r] == pytest.approx(F - t * dT, rel=1e-8, abs=t * (1e-13 + eT))
        assert found["heat_capacity"][r] == pytest.approx(-t * dTT, rel=1e-6, abs=t * (1e-15 + eTT) + 1e-12)
        assert found["pressure"][r] == pytest.approx(-dV * GPA, rel=1e-7, abs=GPA * (1e-11 + eV))
        assert found["chemical_potential"][r] == pytest.approx(dV, rel=1e-7, abs=1e-11 + eV)
        assert found["bulk_modulus"][r] == pytest.approx(v * dVV * GPA, rel=1e-6, abs=v * GPA * (1e-10 + eVV))
        assert curvature[r, 0, 0] == pytest.approx(dVV, rel=1e-6, abs=1e-10 + eVV)


@pytest.mark.parametrize("name", ORDERS)
def test_observables_of_other_coordinates_are_derivatives_of_free_energies(name: str) -> None:
    model, design = made(name), DESIGNS[name]
    x, T = points(design, 3, 32)
    mu, hessian = model.chemical_potential(x, T), model.hessian(x, T)
    S, U, C = model.entropy(x, T), model.internal_energy(x, T), model.heat_capacity(x, T)
    assert mu.shape == (3, 2)
    assert hessian.shape == (3, 2, 2)
    np.testing.assert_array_equal(hessian, np.swapaxes(hessian, 1, 2))
    unit = 1.0 if design.boltzmann < 1e-3 else 1e-3

    def at(place: Array, t: float) -> float:
        return float(model.free_energy(place[None], t)[0])

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)  # steps may leave the range
        for r in range(3):
            t = float(T[r])
            dT, eT = slope(lambda s, r=r: at(x[r], s), t, 8.0 * unit, 1)
            dTT, eTT = slope(lambda s, r=r: at(x[r], s), t, 16.0 * unit, 2)
            assert S[r] == pytest.approx(-dT, rel=1e-6, abs=1e-12 + eT)
            assert U[r] == pytest.approx(at(x[r], t) - t * dT, rel=1e-7, abs=t * (1e-12 + eT))
            assert C[r] == pytest.approx(-t * dTT, rel=1e-5, abs=t * (1e-14 / unit + eTT))
            for i in range(2):
                e = np.eye(2)[i]
                d, error = slope(lambda s, r=r, e=e, t=t: at(x[r] + s * e, t), 0.0, 0.01, 1)
                assert mu[r, i] == pytest.approx(d, rel=1e-7, abs=1e-11 + error)
                for j in range(2):
                    f = np.eye(2)[j]

                    def first(s: float, r: int = r, e: Array = e, f: Array = f, t: float = t, i: int = i) -> float:
                        return float(model.chemical_potential((x[r] + s * f)[None], t)[0, i])

                    d, error = slope(first, 0.0, 0.01, 1)
                    assert hessian[r, i, j] == pytest.approx(d, rel=1e-7, abs=1e-10 + error)


@pytest.mark.parametrize("name", ["birch-murnaghan and debye", "bound entropy", "no vibrations", "one free energy"])
def test_higher_derivatives_up_to_four(name: str) -> None:
    """Each order is the derivative of the one below, in x and in T."""
    model, design = made(name), DESIGNS[name]
    wanted = [(i, j) for i in range(5) for j in range(5) if i + j <= 4]
    v, t = 12.3, 480.0
    exact = model.derivatives(v, t, wanted)
    assert set(exact) == set(wanted)
    for i, j in wanted:
        if (i, j) == (0, 0):
            continue
        below = (i - 1, j) if i else (i, j - 1)
        h = 0.02 if i else 4.0

        def lower(s: float, below: tuple[int, int] = below, i: int = i) -> float:
            return float(model.derivatives(*((s, t) if i else (v, s)), [below])[below])

        d, error = slope(lower, v if i else t, h, 1)
        assert float(exact[i, j]) == pytest.approx(d, rel=1e-6, abs=3 * error), (i, j)
    assert design.n_inputs == 1


@pytest.mark.parametrize("name", ["birch-murnaghan and debye", "no vibrations", "vinet and einstein"])
def test_identities_of_thermodynamics(name: str) -> None:
    model = made(name)
    x, T = points(DESIGNS[name], 20, 33)
    x = x[:, 0]
    F, S, U = model.free_energy(x, T), model.entropy(x, T), model.internal_energy(x, T)
    np.testing.assert_allclose(U, F + T * S, rtol=1e-12)
    # Maxwell: dS/dV at constant T is dP/dT at constant V, each taken from its own quantity
    dS = [slope(lambda v, t=t: float(model.entropy(v, t)), float(v), 0.01, 1)[0] for v, t in zip(x, T, strict=True)]
    dP = [slope(lambda s, v=v: float(model.pressure(v, s)), float(t), 2.0, 1)[0] for v, t in zip(x, T, strict=True)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)
        np.testing.assert_allclose(dS, np.array(dP) / GPA, rtol=1e-5, atol=1e-9)
    # C_V is dU/dT
    dU = [
        slope(lambda s, v=v: float(model.internal_energy(v, s)), float(t), 2.0, 1)[0] for v, t in zip(x, T, strict=True)
    ]
    np.testing.assert_allclose(model.heat_capacity(x, T), dU, rtol=1e-5, atol=1e-10)


@pytest.mark.parametrize("name", [name for name in VOLUMES if DESIGNS[name].split])
def test_entropy_is_that_of_configurations_and_of_mixing(name: str) -> None:
    """S = sum p_k S_k - (k_B / n) sum p_k ln p_k where dE_k/dT = T dS_k/dT and there is no bound; not otherwise."""
    model, design = made(name, members=1), DESIGNS[name]
    x, T = points(design, 10, 34)
    parts = model.configurations(x[:, 0], T)
    p = parts["p"]
    mixing = -(p * np.log(np.where(p > 0, p, 1.0))).sum(1)
    S = (p * parts["S"]).sum(1) + BOLTZMANN / design.coherence * mixing
    gap = np.abs(S - model.entropy(x[:, 0], T))
    if math.isinf(design.gamma) and not design.explicit_temperature:
        assert gap.max() < 1e-15
    elif design.n_configurations > 1:
        assert gap.max() > 1e-9
    F = (p * parts["F"]).sum(1) - BOLTZMANN * T / design.coherence * mixing
    np.testing.assert_allclose(F, model.free_energy(x[:, 0], T), rtol=1e-12)
    np.testing.assert_allclose(parts["E"], parts["F"] + T[:, None] * parts["S"], rtol=1e-12)
    if design.thermal != "classical":  # without quanta there is no lower bound
        assert (parts["S"] >= 0.0).all()


@pytest.mark.parametrize("name", PHYSICAL)
def test_heat_capacities_are_positive_where_the_model_builds_it_in(name: str) -> None:
    """Vibrations and electrons bring C_k > 0; mixing adds n Var(E_k) / (k_B T^2)."""
    design = DESIGNS[name]
    model = made(name, members=1)
    x, T = points(design, 60, 35)
    x = x[:, 0]
    C = model.heat_capacity(x, T)
    if design.thermal != "classical":
        assert (C > 0.0).all()
    parts = model.configurations(x, T)
    p, E = parts["p"], parts["E"]
    fluctuation = (p * E**2).sum(1) - (p * E).sum(1) ** 2
    each = np.zeros((60, design.n_configurations))
    for k in range(design.n_configurations):
        alone = dataclasses.replace(design, n_configurations=1)
        z = torch.zeros(1, alone.n_parameters, dtype=torch.float64)
        for block, whole in zip(alone.blocks(), design.blocks(), strict=True):
            part = (model.z_[0, whole.first : whole.stop] * whole.scales()).reshape(whole.shape)
            rows = [k + g for g in range(0, whole.shape[0], design.n_configurations)]
            z[0, block.first : block.stop] = part[rows].reshape(-1) / block.scales()
        each[:, k] = by_hand(alone, z).heat_capacity(x, T)
    if design.thermal != "classical":  # anharmonicity may have either sign
        assert (each > 0.0).all()
    expected = (p * each).sum(1) + design.coherence * fluctuation / (BOLTZMANN * T**2)
    np.testing.assert_allclose(C, expected, rtol=1e-7)


# --- transitions ------------------------------------------------------------------------------------------------------


def transition(coherence: float) -> tuple[float, float]:
    """Temperature at which two configurations weigh the same at one volume, and the width from p = 1/4 to 3/4.

    The second lies 0.03 eV higher and has 0.03 / 400 eV/K more entropy: they cross at 400 K.
    """
    extra = 0.03 / 400.0 / BOLTZMANN
    design, z = single(
        Design(2, thermal="none", hidden=(), coherence=coherence, **VOLUME),
        energy=[0.0, 0.03],
        entropy_root=[1.0, math.sqrt(1.0 + extra)],
    )
    model = by_hand(design, z)

    def p(T: float) -> float:
        return float(model.probabilities(12.0, T)[1])

    low, mid, high = (brentq(lambda T, v=v: p(T) - v, 150.0, 890.0, xtol=1e-10) for v in (0.25, 0.5, 0.75))
    return mid, high - low


def test_transitions_sharpen_with_coherence() -> None:
    """p = 1 / (1 + exp(n dF / kT)), dF = 0.03 (1 - T / 400): 1 / T is linear in ln(p / (1 - p)), by k / (0.03 n)."""
    widths = []
    for n in (4.0, 16.0, 64.0):
        mid, width = transition(n)
        assert mid == pytest.approx(400.0, abs=1e-6)
        turn = math.log(3.0) * BOLTZMANN / (0.03 * n)
        assert width == pytest.approx(1.0 / (1.0 / 400.0 - turn) - 1.0 / (1.0 / 400.0 + turn), rel=1e-8)
        widths.append(width)
    assert widths[1] / widths[2] == pytest.approx(4.0, rel=0.02)
    assert widths[0] / widths[2] == pytest.approx(16.0, rel=0.15)


def test_probabilities_sum_to_one_and_the_lowest_rules_in_the_cold() -> None:
    for name in ("birch-murnaghan and debye", "order, bound", "coherent"):
        model, design = made(name), DESIGNS[name]
        x, T = points(design, 15, 36)
        p, spread = model.probabilities(x if design.n_inputs > 1 else x[:, 0], T, std=True)
        assert p.shape == spread.shape == (15, design.n_configurations)
        np.testing.assert_allclose(p.sum(1), 1.0, rtol=1e-13)
        assert (p >= 0.0).all()
    model = made("birch-murnaghan and debye", members=1)
    with pytest.warns(DataWarning, match="lie outside"):
        cold = model.probabilities(12.0, 0.5)
    with pytest.warns(DataWarning, match="lie outside"):
        pass_through = model.probabilities([12.0], [0.5])
    np.testing.assert_array_equal(pass_through, cold[None])
    assert cold[np.argmin(model.configurations(12.0, 0.5)["F"])] == pytest.approx(1.0)


# --- shapes, committees, extrapolation --------------------------------------------------------------------------------


def test_the_mean_of_a_committee_and_its_spread() -> None:
    model = made("birch-murnaghan and debye", members=3)
    x, T = np.array([11.0, 12.0]), np.array([300.0, 500.0])
    each = [by_hand(model.design_, model.z_[m : m + 1], model.shift_) for m in range(3)]
    for name in ("free_energy", "pressure", "heat_capacity", "bulk_modulus", "entropy", "internal_energy"):
        alone = np.stack([getattr(one, name)(x, T) for one in each])
        mean, spread = getattr(model, name)(x, T, std=True)
        np.testing.assert_allclose(mean, alone.mean(0), rtol=1e-13)
        np.testing.assert_allclose(spread, alone.std(0, ddof=1), rtol=1e-9)
        np.testing.assert_array_equal(getattr(model, name)(x, T), mean)
        assert np.isnan(getattr(each[0], name)(x, T, std=True)[1]).all()
    members = model.derivatives(x, T, [(0, 0), (1, 1)], members=True)
    assert members[1, 1].shape == (3, 2)
    np.testing.assert_allclose(members[1, 1].mean(0), model.derivatives(x, T, [(1, 1)])[1, 1], rtol=1e-13)


def test_volumes_and_temperatures_broadcast() -> None:
    model = made("without networks")
    V, T = np.array([11.0, 12.0, 13.0]), np.array([300.0, 500.0, 700.0])
    assert np.ndim(model.free_energy(12.0, 300.0)) == 0
    assert model.free_energy(V, 300.0).shape == model.free_energy(12.0, T).shape == (3,)
    rows = np.array([[float(model.pressure(v, t)) for t in T] for v in V])
    np.testing.assert_allclose(model.pressure(V[:, None], T[None, :]), rows, rtol=1e-13)
    np.testing.assert_allclose(model.pressure(V[:, None], T), np.diag(rows), rtol=1e-13)  # a column, as elsewhere
    np.testing.assert_allclose(model.pressure(*np.meshgrid(V, T, indexing="ij")), rows, rtol=1e-13)
    assert model.probabilities(V, T).shape == (3, 2)
    assert model.free_energy([], []).shape == (0,)
    with pytest.raises(DataError, match="do not go together"):
        model.free_energy(V, T[:2])


def test_bad_points_get_one_sentence() -> None:
    model = made("without networks")
    for x, T, sentence in (
        ("a", 300.0, "must be numbers"),
        (-1.0, 300.0, "volumes must be positive"),
        (12.0, 0.0, "T of row 0 is 0.0: temperatures must be positive"),
        (NAN, 300.0, "x of row 0 is not finite"),
        (np.ones((4, 2)), 300.0, r"row|columns|outside|x has"),
    ):
        if np.ndim(x) == 2:
            continue
        with pytest.raises(DataError, match=sentence):
            model.free_energy(x, T)
    order = made("order")
    with pytest.raises(DataError, match="x has 3 columns, but the model was fitted on 2"):
        order.free_energy(np.ones((4, 3)), 300.0)
    with pytest.raises(DataError, match="T must hold one temperature for each of the 4 rows"):
        order.free_energy(np.ones((4, 2)), [300.0, 400.0])
    with pytest.raises(ValueError, match="an order names 1 components of x and T"):
        model.derivatives(12.0, 300.0, [(1, 0, 0)])
    with pytest.raises(ValueError, match="an order names"):
        model.derivatives(12.0, 300.0, [(-1, 0)])
    for name in ("pressure", "bulk_modulus"):
        with pytest.raises(ValueError, match=f"{name} needs x to be a volume"):
            getattr(order, name)(np.ones((4, 2)), 300.0)
    with pytest.raises(ValueError, match="member must lie below 2"):
        model.configurations(12.0, 300.0, member=2)


def test_one_point_of_several_coordinates() -> None:
    model = made("order")
    x = np.array([0.2, -0.1])
    assert model.free_energy(x, 500.0).shape == (1,)
    assert model.chemical_potential(x, 500.0).shape == (1, 2)


def test_no_extrapolation_without_a_warning() -> None:
    """Inside and at the very edge none; beyond it one warning that names ranges and counts points."""
    model = made("without networks")
    low, high = model.x_range_[0]
    cold, hot = model.T_range_
    edges = np.array([low, high, 12.0, low, high]), np.array([cold, hot, 500.0, hot, cold])
    assert not model.extrapolates(*edges).any()
    model.free_energy(*edges)
    grid = np.linspace(low, high, 7)
    assert not model.extrapolates(np.nextafter(grid, np.inf), hot).any()  # a rounding is no extrapolation
    outside = np.array([low - 0.01, high + 0.01, 12.0, 12.0]), np.array([500.0, 500.0, cold - 1.0, hot + 1.0])
    assert model.extrapolates(*outside).all()
    for name in ("free_energy", "entropy", "internal_energy", "heat_capacity", "pressure", "bulk_modulus", "hessian"):
        with pytest.warns(
            DataWarning, match="1 of 2 points lie outside the data .*x 10 to 14; T 100 to 900 K"
        ) as caught:
            getattr(model, name)([12.0, 15.0], 500.0)
        assert len(caught) == 1
        assert caught[0].filename == __file__  # the line of the user
    with pytest.warns(DataWarning, match="extrapolation"):
        model.probabilities(15.0, 500.0)
    model.derivatives(15.0, 5000.0, [(0, 0)])  # never warns: thermo says so itself
    order = made("order")
    assert order.extrapolates([[0.1, -0.3], [0.1, 0.9], [9.0, -0.3]], 500.0).tolist() == [False, True, True]


# --- fits -------------------------------------------------------------------------------------------------------------

E0, V0, B0 = (0.0, 0.012), (11.4, 12.6), (1.0, 0.7)
THETA, GRUENEISEN, ROOT = (320.0, 250.0), (2.0, 2.0), (0.5, 0.9)


def two_solids(V: Array, T: Array) -> tuple[Array, Array]:
    """F and p_2 of a known mixture of two Einstein solids, each with an equation of state and a degeneracy."""
    F, p = np.empty(V.shape), np.empty(V.shape)
    for i in np.ndindex(V.shape):
        free = []
        for k in range(2):
            theta = THETA[k] * (V[i] / 12.0) ** -GRUENEISEN[k]
            free.append(
                naive.birch_murnaghan(float(V[i]), E0[k], V0[k], B0[k], 4.5)
                + naive.KB * float(T[i]) * naive.einstein_free(theta / float(T[i]))
                - naive.KB * float(T[i]) * ROOT[k] ** 2
            )
        F[i], shares = naive.mixture(free, [0.0, 0.0], float(T[i]))
        p[i] = shares[1]
    return F, p


def grid(volumes: int = 9, temperatures: int = 6) -> tuple[Array, Array]:
    V, T = np.meshgrid(np.linspace(10.6, 13.4, volumes), np.linspace(60.0, 700.0, temperatures))
    return V.ravel(), T.ravel()


def interior() -> tuple[Array, Array]:
    V, T = np.meshgrid(np.linspace(10.9, 13.1, 5), np.linspace(130.0, 620.0, 4))
    return V.ravel(), T.ravel()


def exact(V: Array, T: Array, what: str) -> Array:
    """A derivative of the known mixture."""

    def in_T(v: float) -> Callable[[float], float]:
        return lambda s: float(two_solids(np.array([v]), np.array([s]))[0][0])

    def in_V(t: float) -> Callable[[float], float]:
        return lambda s: float(two_solids(np.array([s]), np.array([t]))[0][0])

    pairs = list(zip(V.tolist(), T.tolist(), strict=True))
    if what == "P":
        return np.array([-GPA * naive.difference(in_V(t), v, 0.01, 1) for v, t in pairs])
    if what == "S":
        return np.array([-naive.difference(in_T(v), t, 2.0, 1) for v, t in pairs])
    if what == "U":
        return two_solids(V, T)[0] + T * exact(V, T, "S")
    assert what == "C_V"
    return np.array([-t * naive.difference(in_T(v), t, 4.0, 2) for v, t in pairs])


SOLIDS: dict[str, Any] = {
    "n_configurations": 2,
    "thermal": "einstein",
    "hidden": (),
    "n_members": 1,
    "n_starts": 6,
    "validation_fraction": 0.0,
    "max_iterations": 80,
    "random_state": 0,
    "n_jobs": 1,
    "verbose": False,
}


@pytest.fixture(scope="module")
def solids() -> Any:
    V, T = grid()
    return ZENN(**SOLIDS).fit(V, T, F=two_solids(V, T)[0])


def test_a_known_mixture_is_recovered_with_its_probabilities(solids: Any) -> None:
    V, T = interior()
    F, p = two_solids(V, T)
    assert ((p > 0.1) & (p < 0.9)).sum() > 8  # a mixture indeed
    assert np.abs(solids.free_energy(V, T) - F).max() < 1e-8
    found = solids.probabilities(V, T)
    assert np.abs(found[:, 1] - p).max() < 1e-5  # in order of volume
    assert np.abs(solids.pressure(V, T) - exact(V, T, "P")).max() < 1e-5
    np.testing.assert_allclose(solids.entropy(V, T), exact(V, T, "S"), rtol=0, atol=1e-5 * BOLTZMANN)
    np.testing.assert_allclose(solids.heat_capacity(V, T), exact(V, T, "C_V"), rtol=0, atol=1e-4 * BOLTZMANN)


def test_a_report_says_what_was_fitted(solids: Any) -> None:
    report = solids.report_
    assert report["targets"]["F"]["n"] == 54
    assert report["targets"]["F"]["rms"] < 1e-8
    assert report["targets"]["F"]["unit"] == "eV"
    assert report["n_parameters"] == solids.n_parameters_ == 2 * 9
    shares = [entry["share"] for entry in report["configurations"]]
    assert sum(shares) == pytest.approx(1.0)
    assert sum(entry["rules_rows"] for entry in report["configurations"]) == report["n_rows"] == 54
    first, second = report["configurations"]
    assert first["x_range"][0] < second["x_range"][0]


@pytest.fixture(scope="module")
def from_U_and_P() -> Any:
    V, T = grid()
    return ZENN(**SOLIDS).fit(V, T, U=exact(V, T, "U"), P=exact(V, T, "P"))


def test_energies_and_pressures_fix_all_but_a_constant_of_entropy(from_U_and_P: Any) -> None:
    model = from_U_and_P
    V, T = interior()
    assert model.known_ == {"F", "S", "U", "C_V", "P", "B", "mu"}
    assert "constant" in model.relative_to_
    assert np.abs(model.pressure(V, T) - exact(V, T, "P")).max() < 0.05
    assert np.abs(model.internal_energy(V, T) - exact(V, T, "U")).max() < 2e-4
    np.testing.assert_allclose(model.heat_capacity(V, T), exact(V, T, "C_V"), atol=0.1 * BOLTZMANN)
    gap = model.entropy(V, T) - exact(V, T, "S")
    assert np.ptp(gap) < 0.05 * BOLTZMANN
    F = model.free_energy(V, T) - two_solids(V, T)[0] + T * gap.mean()
    assert np.abs(F).max() < 5e-4


def polynomial(x: Array) -> tuple[Array, Array, Array]:
    """A polynomial of two variables, its gradient and its Hessian."""
    a, b = x[:, 0], x[:, 1]
    f = 0.3 * a**4 - 0.5 * a**2 + 0.2 * a * b + 0.4 * b**2
    mu = np.stack([1.2 * a**3 - a + 0.2 * b, 0.2 * a + 0.8 * b], axis=1)
    hessian = np.stack([np.stack([3.6 * a**2 - 1.0, 0.2 + 0 * a], 1), np.stack([0.2 + 0 * a, 0.8 + 0 * a], 1)], 1)
    return f, mu, hessian


@pytest.fixture(scope="module")
def from_mu() -> Any:
    x = np.random.default_rng(0).uniform(-1.2, 1.2, (120, 2))
    settings = {**BRIEF, "max_iterations": 60, "n_starts": 3, "adam_steps": 100, "hidden": (8, 8)}
    return IDNN(**settings).fit(x, 300.0, mu=polynomial(x)[1])


def test_chemical_potentials_alone_fix_the_gradient(from_mu: Any) -> None:
    x = np.random.default_rng(1).uniform(-1.0, 1.0, (50, 2))
    f, mu, hessian = polynomial(x)
    assert np.sqrt(np.mean((from_mu.chemical_potential(x, 300.0) - mu) ** 2)) < 5e-3
    assert np.sqrt(np.mean((from_mu.hessian(x, 300.0) - hessian) ** 2)) < 0.1
    gap = from_mu.free_energy(x, 300.0) - f
    assert np.std(gap) < 5e-3
    assert from_mu.known_ == {"F", "P", "B", "mu"}
    for name in ("entropy", "internal_energy", "heat_capacity"):
        with pytest.raises(ValueError, match=r"cannot be had from this model: the data .* fix only B, F, P, mu "):
            getattr(from_mu, name)(x, 300.0)
    assert {"mu_0", "mu_1"} == set(from_mu.report_["targets"])


@pytest.fixture(scope="module")
def from_density() -> Any:
    x = np.tile(np.linspace(-1.5, 1.5, 41), 3)
    T = np.repeat([0.6, 1.0, 1.6], 41)
    settings = {**BRIEF, "max_iterations": 60, "adam_steps": 100, "validation_fraction": 0.0}
    model = ZENN(3, coordinate="order", hidden=(6,), boltzmann=1.0, **settings)
    return model.fit(x, T, density=7.0 * np.exp(-(x**4 - x**2 + 0.2 * x) / T))


def test_densities_alone_fix_differences_at_one_temperature(from_density: Any) -> None:
    x = np.linspace(-1.4, 1.4, 31)
    for T in (0.6, 1.0, 1.6):
        gap = from_density.free_energy(x, T) - (x**4 - x**2 + 0.2 * x)
        weight = np.exp(-(x**4 - x**2 + 0.2 * x) / T)
        mean = np.average(gap, weights=weight)
        assert math.sqrt(np.average((gap - mean) ** 2, weights=weight)) < 0.01
    assert from_density.known_ == {"F", "P", "B", "mu"}
    assert "up to a function of T" in from_density.relative_to_
    for name in ("entropy", "internal_energy", "heat_capacity"):
        with pytest.raises(ValueError, match=r"^(S|U|C_V) cannot be had"):
            getattr(from_density, name)(x, 1.0)
    assert from_density.report_["targets"]["density"]["rms"] < 0.01


def smooth(V: Array, T: Array) -> Array:
    return 0.05 * (V - 12.0) ** 2 - 0.004 * (V - 12.0) ** 3 - 1.5e-7 * T**2 * (1.0 + 0.05 * (V - 12.0))


@pytest.fixture(scope="module")
def plain() -> Any:
    V, T = grid(7, 5)
    return ZENN(2, hidden=(3,), **BRIEF).fit(V, T, F=smooth(V, T))


def test_the_same_seed_gives_the_same_bits_with_any_number_of_threads(plain: Any) -> None:
    V, T = grid(7, 5)
    for jobs in (1, 2):
        again = clone(plain).set_params(n_jobs=jobs).fit(V, T, F=smooth(V, T))
        assert torch.equal(again.z_, plain.z_)
        assert again.report_["cost"] == plain.report_["cost"]
        points_ = interior()
        np.testing.assert_array_equal(again.pressure(*points_), plain.pressure(*points_))
    other = clone(plain).set_params(random_state=1).fit(V, T, F=smooth(V, T))
    assert not torch.equal(other.z_, plain.z_)


def test_weights_have_no_scale(plain: Any) -> None:
    V, T = grid(7, 5)
    again = clone(plain).fit(V, T, F=smooth(V, T), sample_weight=np.full(35, 4.0))
    assert torch.equal(again.z_, plain.z_)


def test_a_constant_added_to_energies_is_only_a_constant(plain: Any) -> None:
    """1024 eV: nothing but F and U, and those by that."""
    V, T = grid(7, 5)
    F = np.round(smooth(V, T) * 2.0**36) / 2.0**36  # exact when 1024 is added
    near, far = clone(plain).fit(V, T, F=F), clone(plain).fit(V, T, F=F + 1024.0)
    v, t = interior()
    np.testing.assert_allclose(far.free_energy(v, t), near.free_energy(v, t) + 1024.0, rtol=0, atol=2e-6)
    np.testing.assert_allclose(far.internal_energy(v, t), near.internal_energy(v, t) + 1024.0, rtol=0, atol=2e-5)
    np.testing.assert_allclose(far.pressure(v, t), near.pressure(v, t), rtol=0, atol=2e-3)
    np.testing.assert_allclose(far.entropy(v, t), near.entropy(v, t), rtol=0, atol=1e-3 * BOLTZMANN)


def test_the_order_of_rows_is_of_no_importance() -> None:
    """Without draws and rows held out there is nothing but rounding."""
    V, T = grid(7, 5)
    settings = {**BRIEF, "n_members": 1, "n_starts": 2, "validation_fraction": 0.0, "max_iterations": 40}
    order = np.random.default_rng(0).permutation(35)
    one = ZENN(1, hidden=(3,), **settings).fit(V, T, F=smooth(V, T))
    two = ZENN(1, hidden=(3,), **settings).fit(V[order], T[order], F=smooth(V, T)[order])
    v, t = interior()
    np.testing.assert_allclose(two.free_energy(v, t), one.free_energy(v, t), atol=2e-5)
    np.testing.assert_allclose(two.pressure(v, t), one.pressure(v, t), atol=0.02)


def test_weights_and_errors_say_what_matters() -> None:
    """Two contradictory sets of data: the one of more weight, or of smaller errors, is followed."""
    V, T = grid(7, 5)
    V, T = np.tile(V, 2), np.tile(T, 2)
    F = smooth(V, T)
    F[35:] += 0.02 * (V[35:] - 12.0)
    settings = {**BRIEF, "n_members": 1, "validation_fraction": 0.0, "n_starts": 1}
    first = np.concatenate([np.full(35, 1.0), np.full(35, 1e-4)])
    v, t = interior()
    for more in (
        {"sample_weight": first},
        {"errors": {"F": 1e-4 / np.sqrt(first)}},
    ):
        model = ZENN(1, hidden=(), **settings).fit(V, T, F=F, **more)
        assert np.abs(model.free_energy(v, t) - smooth(v, t)).max() < 4e-3
    half = ZENN(1, hidden=(), **settings).fit(V, T, F=F)
    assert np.abs(half.free_energy(v, t) - smooth(v, t) - 0.01 * (v - 12.0)).max() < 4e-3


def test_missing_targets_are_no_targets(plain: Any) -> None:
    """NaN marks what is not known: the same as leaving the row out, and other columns of it still count."""
    V, T = grid(7, 5)
    F = smooth(V, T)
    gaps = F.copy()
    gaps[::3] = NAN
    with_gaps = clone(plain).fit(V, T, F=gaps)
    without = clone(plain).fit(
        np.delete(V, slice(0, None, 3)), np.delete(T, slice(0, None, 3)), F=np.delete(F, slice(0, None, 3))
    )
    assert torch.equal(with_gaps.z_, without.z_)
    both = clone(plain).fit(V, T, F=gaps, P=np.where(np.isnan(gaps), 0.0, NAN))
    assert both.report_["targets"]["F"]["n"] == 23
    assert both.report_["targets"]["P"]["n"] == 12


def test_a_target_known_only_where_weights_are_zero_does_no_harm(plain: Any) -> None:
    V, T = grid(7, 5)
    weight, F = np.ones(35), np.full(35, NAN)
    weight[:3], F[:3] = 0.0, 1.0
    model = clone(plain).fit(V, T, F=F, S=np.full(35, 2e-4), P=smooth(V, T), sample_weight=weight)
    assert set(model.report_["targets"]) == {"P", "S"}


def test_one_temperature_only() -> None:
    V = np.linspace(10.6, 13.4, 12)
    with pytest.raises(DataError, match=r"all rows have T = 300 K; .* needs two temperatures or more .*thermal='none'"):
        ZENN(2, **BRIEF).fit(V, 300.0, F=smooth(V, 300.0))
    model = ZENN(1, thermal="none", hidden=(), **BRIEF).fit(V, 300.0, F=smooth(V, 300.0))
    assert np.abs(model.free_energy(V, 300.0) - smooth(V, 300.0)).max() < 5e-3
    assert model.known_ == {"F", "P", "B", "mu"}
    with pytest.raises(ValueError, match="S cannot be had"):
        model.entropy(V, 300.0)


def test_a_cell_without_its_number_of_atoms_is_noticed() -> None:
    V, T = grid(5, 3)
    with pytest.warns(DataWarning, match=r"volumes are 120 Å3 per atom; .* say so with n_atoms"):
        ZENN(1, hidden=(), **{**BRIEF, "max_iterations": 1}).fit(10 * V, T, F=smooth(V, T))
    ZENN(1, hidden=(), n_atoms=10, **{**BRIEF, "max_iterations": 1}).fit(10 * V, T, F=smooth(V, T))


def test_going_on_from_the_last_fit(plain: Any) -> None:
    V, T = grid(7, 5)
    model = clone(plain).set_params(warm_start=True, max_iterations=5).fit(V, T, F=smooth(V, T))
    before = sum(model.report_["cost"])
    z = model.z_.clone()
    for _ in range(3):
        model.fit(V, T, F=smooth(V, T))
    assert not torch.equal(z, model.z_)
    assert model.report_["targets"]["F"]["rms"] < 2e-3
    assert math.isfinite(before)


@pytest.mark.parametrize("change", [{"gamma": 2.0}, {"coherence": 3.0}, {"energy": "vinet"}, {"n_atoms": 2}])
def test_going_on_with_other_settings_does_not_ignore_them(plain: Any, change: dict[str, Any]) -> None:
    """A changed form either begins anew or is used: it is never dropped in silence."""
    V, T = grid(7, 5)
    model = clone(plain).set_params(warm_start=True, max_iterations=2).fit(V, T, F=smooth(V, T))
    model.set_params(**change).fit(V, T, F=smooth(V, T))
    name, value = next(iter(change.items()))
    assert getattr(model.design_, name) == value


def test_rivals_have_as_many_parameters(plain: Any) -> None:
    zenn = Design(12, hidden=(8,), x_centre=(12.0,)).n_parameters
    V, T = grid(7, 5)
    dnn = DNN(**{**BRIEF, "max_iterations": 2, "n_starts": 2}).fit(V, T, F=smooth(V, T))
    assert zenn <= dnn.n_parameters_ <= 1.15 * zenn
    assert dnn.design_.n_configurations == 1
    assert dnn.design_.explicit_temperature
    assert "configurations" not in dnn.report_
    assert not hasattr(dnn, "probabilities")


def test_a_convex_model_is_convex_as_fitted() -> None:
    rng = np.random.default_rng(2)
    x, T = rng.uniform(-1.5, 1.5, (60, 1)), rng.choice([200.0, 400.0], 60)
    F = np.minimum((x[:, 0] - 0.8) ** 2, (x[:, 0] + 0.8) ** 2)
    settings = {**BRIEF, "adam_steps": 60, "max_iterations": 15, "n_starts": 2}
    model = ZENN(2, coordinate="order", hidden=(4,), convexity="construction", **settings).fit(x, T, F=F)
    at = np.linspace(-3.0, 3.0, 201)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)
        each = model.configurations(at, np.full(201, 300.0))["F"]
    assert (np.diff(each, 2, axis=0) >= -1e-10).all()
    assert np.sqrt(np.mean((model.free_energy(x, T) - F) ** 2)) < 0.2


# --- the door ---------------------------------------------------------------------------------------------------------


def test_conventions_of_scikit_learn(plain: Any) -> None:
    for kind in (ZENN, DNN, IDNN):
        model = kind(n_members=3, random_state=7)
        copy = clone(model)
        assert copy.get_params() == model.get_params()
        assert copy.set_params(n_members=4).n_members == 4
        for name in ("free_energy", "pressure", "extrapolates"):
            with pytest.raises(NotFittedError, match=f"this {kind.__name__} is not fitted: call fit first"):
                getattr(model, name)(12.0, 300.0)
        with pytest.raises(NotFittedError):
            model.derivatives(12.0, 300.0, [(0, 0)])
        with pytest.raises(NotFittedError):
            model.save("/nowhere")
    V, T = grid(7, 5)
    F = smooth(V, T)
    assert not hasattr(clone(plain), "z_")
    score = plain.score(V, T, F)
    residual = F - plain.free_energy(V, T)
    assert score == pytest.approx(1.0 - (residual @ residual) / ((F - F.mean()) @ (F - F.mean())), rel=1e-12)
    assert score > 0.9
    assert plain.score(V, T, F, sample_weight=np.arange(35.0)) != score
    assert ZENN(2, hidden=(), **{**BRIEF, "max_iterations": 1}).fit(V, T, F).n_features_in_ == 1


def test_parameters_are_not_changed_by_a_fit(plain: Any) -> None:
    model = ZENN(2, hidden=(3,), **BRIEF)
    assert plain.get_params() == model.get_params()


SETTINGS: list[tuple[dict[str, Any], str]] = [
    ({"n_configurations": 0}, "n_configurations"),
    ({"n_configurations": 2.5}, "n_configurations"),
    ({"coordinate": "pressure"}, "coordinate"),
    ({"energy": "murnaghan"}, "energy"),
    ({"thermal": "quantum"}, "thermal"),
    ({"hidden": "deep"}, "hidden"),
    ({"hidden": (0,)}, "a width of hidden"),
    ({"n_atoms": 0}, "n_atoms"),
    ({"coherence": -1.0}, "coherence"),
    ({"gamma": 0.0}, "gamma"),
    ({"gamma": NAN}, "gamma"),
    ({"boltzmann": 0.0}, "boltzmann"),
    ({"convexity": -1.0}, "convexity"),
    ({"convexity": "construction"}, "convexity='construction' needs energy='network'"),
    ({"energy": "network", "hidden": ()}, "energy='network' needs hidden layers"),
    ({"coordinate": "order", "energy": "vinet"}, "equations of state and vibrations need coordinate='volume'"),
    ({"coordinate": "order", "thermal": "debye"}, "equations of state and vibrations need coordinate='volume'"),
    ({"n_members": 0}, "n_members"),
    ({"n_members": 3, "n_starts": 2}, "n_starts"),
    ({"learning_rate": 0.0}, "learning_rate"),
    ({"adam_steps": -1}, "adam_steps"),
    ({"adam_steps": "many"}, "adam_steps"),
    ({"max_iterations": 0}, "max_iterations"),
    ({"tolerance": 0.0}, "tolerance"),
    ({"validation_fraction": 0.6}, "validation_fraction must lie between 0 and 0.5"),
    ({"validation_fraction": -0.1}, "validation_fraction"),
    ({"n_jobs": 0}, "jobs must be a whole number"),
    ({"random_state": -1}, "random_state"),
    ({"random_state": "dice"}, "random_state"),
]


@pytest.mark.parametrize(("settings", "words"), SETTINGS)
def test_bad_settings_get_one_sentence(settings: dict[str, Any], words: str) -> None:
    V, T = grid(5, 3)
    with pytest.raises(ValueError, match=words) as caught:
        ZENN(**{**BRIEF, **settings}).fit(V, T, F=smooth(V, T))
    assert not isinstance(caught.value, DataError)
    assert "\n" not in str(caught.value)


def test_convexity_by_construction_is_not_promised_where_vibrations_break_it() -> None:
    """Vibrations of a solid whose temperature follows the volume are not convex in it."""
    V, T = grid(5, 3)
    model = ZENN(2, energy="network", thermal="debye", convexity="construction", hidden=(3,), **BRIEF)
    with pytest.raises(ValueError, match="convexity='construction'"):
        model.fit(V, T, F=smooth(V, T))


def test_rivals_refuse_what_they_cannot_do() -> None:
    V, T = grid(5, 3)
    with pytest.raises(ValueError, match="convexity='construction' would forbid"):
        DNN(convexity="construction", **BRIEF).fit(V, T, F=smooth(V, T))
    with pytest.raises(ValueError, match="energy='network' needs hidden layers"):
        IDNN(hidden=(), **BRIEF).fit(V, T, mu=smooth(V, T))


def test_without_torch_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'quests_zenn\[zenn\]'"):
        ZENN().fit([10.0, 11.0, 12.0, 13.0], 300.0, F=[1.0, 2.0, 3.0, 4.0])
    with pytest.raises(MissingExtraError, match="torch"):
        ZENN.load("nowhere")


def test_configurations_are_aligned_between_members() -> None:
    """Members whose configurations stand in another order are put in the same; F does not notice."""
    design, z = single(Design(3, hidden=(3,), **VOLUME), log_volume=np.log([11.0, 12.0, 13.0]))
    turned = z.clone()
    for block in design.blocks():
        part = z[0, block.first : block.stop].reshape(block.shape)
        index = np.concatenate([np.array([2, 0, 1]) + g for g in range(0, block.shape[0], 3)])
        turned[0, block.first : block.stop] = part[torch.from_numpy(index)].reshape(-1)
    model = by_hand(design, torch.cat([turned, z, turned]))
    x, T = points(design, 40, 40)
    before = model.free_energy(x[:, 0], T)
    rows = model_module.Rows(x, T, {"F": T}, {}, np.ones(40))
    model.z_ = model_module._aligned(model, rows)
    np.testing.assert_allclose(model.free_energy(x[:, 0], T), before, rtol=1e-13)
    for m in range(3):
        assert torch.equal(model.z_[m], z[0])
    np.testing.assert_allclose(np.exp(values(design, model.z_[0])["log_volume"]), [11.0, 12.0, 13.0])


@pytest.mark.parametrize("q", [2, 11])
def test_slopes_of_mu_are_those_of_the_parameters(q: int) -> None:
    """Against differences in z, in units of the learned widths of priors. Names of components have two digits."""
    rng = np.random.default_rng(0)
    x = rng.uniform(-1.0, 1.0, (30, q))
    mu = x * np.where(np.arange(q) == 0, 2.0, 0.02 + 0.001 * np.arange(q))  # two networks
    model = IDNN(hidden=(3,), n_members=2, max_iterations=5, random_state=0, n_jobs=1, verbose=False)
    model.fit(x, 300.0, mu=mu)
    assert model.design_.gains
    at = 0.3 * rng.uniform(-1.0, 1.0, (3, q))
    found = model.slopes_of_mu(at, 300.0, member=1)
    assert found.shape == (3, q, model.n_parameters_)
    orders = [tuple(int(i == j) for j in range(q + 1)) for i in range(q)]
    z = model.z_.clone()
    for name, (block, which) in stretches(model.design_.blocks()).items():
        width = model.report_["prior_widths"][name] / block.scale
        for p in {int(which[0]), int(which[-1])}:
            ends = []
            for step in (1e-5, -1e-5):
                model.z_ = z.clone()
                model.z_[1, p] += step
                values = model.derivatives(at, 300.0, orders, members=True)
                ends.append(np.stack([values[order][1] for order in orders], axis=1))
            slope = (ends[0] - ends[1]) / 2e-5 * width
            np.testing.assert_allclose(found[:, :, p], slope, rtol=1e-5, atol=1e-8)
    model.z_ = z
    with pytest.raises(ValueError, match="member must lie below 2"):
        model.slopes_of_mu(at, 300.0, member=2)
