"""Thermodynamics of known surfaces: van der Waals, an Einstein crystal, polynomials with known wells; identities."""

from __future__ import annotations

import csv
import dataclasses
import itertools
import json
import math
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy.interpolate import RectBivariateSpline
from scipy.optimize import brentq

from quests_zenn._core.checks import DataWarning
from quests_zenn.zenn import _curves, thermo
from quests_zenn.zenn.thermo import GPA

Array = npt.NDArray[Any]
KB = 8.617333262e-5

# --- surfaces whose derivatives are exact -----------------------------------------------------------------------------


class Jet:
    """Taylor coefficients c[i, j] of a function of (V, T), i + j <= 4: derivatives without differences."""

    def __init__(self, c: Array) -> None:
        self.c = c

    @staticmethod
    def of(value: Any) -> Jet:
        return (
            value if isinstance(value, Jet) else Jet(np.pad(np.atleast_1d(value)[None, None], ((0, 4), (0, 4), (0, 0))))
        )

    def __add__(self, other: Any) -> Jet:
        return Jet(self.c + Jet.of(other).c)

    def __mul__(self, other: Any) -> Jet:
        b = Jet.of(other).c
        out = np.zeros(np.broadcast_shapes(self.c.shape, b.shape))
        for i in range(5):
            for j in range(5 - i):
                for k in range(5 - i - j):
                    for l in range(5 - i - j - k):
                        out[i + k, j + l] += self.c[i, j] * b[k, l]
        return Jet(out)

    __radd__, __rmul__ = __add__, __mul__

    def __neg__(self) -> Jet:
        return Jet(-self.c)

    def __sub__(self, other: Any) -> Jet:
        return self + (-Jet.of(other))

    def __rsub__(self, other: Any) -> Jet:
        return Jet.of(other) - self

    def through(self, taylor: Sequence[Array]) -> Jet:
        """A function of this, given its derivatives 0 to 4 divided by k!."""
        small = Jet(self.c.copy())
        small.c[0, 0] = 0.0
        out = Jet.of(taylor[4])
        for k in (3, 2, 1, 0):
            out = out * small + taylor[k]
        return out

    def log(self) -> Jet:
        x = self.c[0, 0]
        return self.through([np.log(x), 1 / x, -1 / (2 * x**2), 1 / (3 * x**3), -1 / (4 * x**4)])

    def exp(self) -> Jet:
        e = np.exp(self.c[0, 0])
        return self.through([e, e, e / 2, e / 6, e / 24])

    def inverse(self) -> Jet:
        x = self.c[0, 0]
        return self.through([(-1.0) ** k / x ** (k + 1) for k in range(5)])


Formula = Callable[[Jet, Jet], Jet]


class Model:
    """What thermo asks of a model; each formula is a member."""

    coordinate = "volume"

    def __init__(self, *members: Formula, x: tuple[float, float], T: tuple[float, float]) -> None:
        self.members, self.n_members_ = members, len(members)
        self.x_range_, self.T_range_ = np.array([x]), np.array(T)
        self.most = 0

    def derivatives(self, x: Array, T: Array, orders: Any, members: bool = False) -> dict[tuple[int, int], Array]:
        assert x.shape == T.shape
        assert x.ndim == 1
        self.most = max(self.most, len(x) * (len(self.members) if members else 1))
        v, t = Jet.of(x), Jet.of(T)
        v.c[1, 0], t.c[0, 1] = 1.0, 1.0
        jets = [np.broadcast_to(formula(v, t).c, (5, 5, len(x))) for formula in self.members]
        out = {(i, j): np.stack([math.factorial(i) * math.factorial(j) * jet[i, j] for jet in jets]) for i, j in orders}
        return out if members else {order: values.mean(axis=0) for order, values in out.items()}

    def extrapolates(self, x: Array, T: Array) -> Array:
        (low, high), (cold, hot) = self.x_range_[0], self.T_range_
        return np.asarray(~((low <= x) & (x <= high) & (cold <= T) & (hot >= T)))


R, B_, TC = 40.0 * KB, 30.0, 300.0
VC = 3.0 * B_


def a_of(t_critical: float) -> float:
    return 27.0 * B_ * R * t_critical / 8.0


A_ = a_of(TC)
PC = A_ / (27.0 * B_**2) * GPA


def waals(t_critical: float = TC, dv: float = 0.0, dt: float = 0.0, dp: float = 0.0) -> Formula:
    """Van der Waals, shifted in V, T and P (GPa); C_V = 3/2 R."""

    def formula(v: Jet, t: Jet) -> Jet:
        v0, t0 = v - dv, t - dt
        return -R * t0 * (v0 - B_).log() - a_of(t_critical) * v0.inverse() - 1.5 * R * t0 * t0.log() - dp / GPA * v

    return formula


def fluid(*members: Formula, **kwargs: Any) -> Model:
    return Model(*(members or (waals(),)), **({"x": (33.0, 2500.0), "T": (150.0, 400.0)} | kwargs))


N, V0, B0, THETA, GAMMA = 4.0, 50.0, 0.6, 300.0, 2.0


def crystal_formula(b0: float = B0, gamma: float = GAMMA, shift: float = 0.0) -> Formula:
    """Quadratic in V, plus 3 N Einstein oscillators with θ = θ0 (V/V0)^-γ."""

    def formula(v: Jet, t: Jet) -> Jet:
        theta = THETA * ((v * (1.0 / V0)).log() * -gamma).exp()
        y = theta * t.inverse()
        thermal = 3.0 * N * KB * (0.5 * theta + t * (1.0 - (-y).exp()).log())
        return b0 / (2.0 * V0) * (v - V0) * (v - V0) + thermal + shift

    return formula


def crystal(*members: Formula, **kwargs: Any) -> Model:
    return Model(*(members or (crystal_formula(),)), **({"x": (42.0, 60.0), "T": (20.0, 800.0)} | kwargs))


def polynomial(function: Callable[[Jet, Jet], Jet], *more: Callable[[Jet, Jet], Jet], **kwargs: Any) -> Model:
    """Functions of u = V - 50 and T."""
    members = [lambda v, t, f=f: f(v - 50.0, t) for f in (function, *more)]
    return Model(*members, **({"x": (45.0, 55.0), "T": (100.0, 500.0)} | kwargs))


def power(u: Jet, n: int) -> Jet:
    out = Jet.of(1.0)
    for _ in range(n):
        out = out * u
    return out


def close(a: Any, b: Any, rtol: float = 1e-10, atol: float = 0.0) -> None:
    np.testing.assert_allclose(a, b, rtol=rtol, atol=atol)


def spinodal_of_waals(t: float) -> tuple[Array, Array]:
    """Volumes outside of b where R T V³ = 2 a (V - b)², and pressures."""
    roots = np.roots([R * t, -2 * A_, 4 * A_ * B_, -2 * A_ * B_**2])
    v = np.sort(roots[np.abs(roots.imag) < 1e-9].real)
    v = v[v > B_]
    return v, pressure_of_waals(v, t)


def pressure_of_waals(v: Any, t: float) -> Any:
    return (R * t / (v - B_) - A_ / v**2) * GPA


def maxwell(t: float) -> tuple[float, float, float]:
    """Pressure and volumes of equal areas, in this test's own way."""
    _, p = spinodal_of_waals(t)

    def volumes(at: float) -> tuple[float, float]:
        roots = np.roots([at / GPA, -(at / GPA * B_ + R * t), A_, -A_ * B_])
        real = np.sort(roots[np.abs(roots.imag) < 1e-7 * np.abs(roots)].real)
        polished = []
        for guess in (real[0], real[-1]):
            x = guess
            for _ in range(5):
                slope = (-R * t / (x - B_) ** 2 + 2 * A_ / x**3) * GPA
                x = x - (pressure_of_waals(x, t) - at) / slope
            polished.append(x)
        return polished[0], polished[1]

    def area(at: float) -> float:
        low, high = volumes(at)
        return R * t * math.log((high - B_) / (low - B_)) + A_ * (1 / high - 1 / low) - at / GPA * (high - low)

    top, bottom = p[1], max(p[0], 1e-7)
    width = top - bottom
    at = float(brentq(area, bottom + 1e-6 * width, top - 1e-6 * width, xtol=1e-16, rtol=1e-14))
    return (at, *volumes(at))


def test_jets_of_this_test_are_right() -> None:
    v, t = np.array([70.0, 200.0]), np.array([200.0, 350.0])
    d = fluid().derivatives(v, t, [(1, 0), (2, 0), (3, 0), (4, 0), (1, 1), (2, 1), (3, 1), (0, 1), (0, 2), (1, 2)])
    w = v - B_
    close(-d[1, 0], R * t / w - A_ / v**2)
    close(d[2, 0], R * t / w**2 - 2 * A_ / v**3)
    close(d[3, 0], -2 * R * t / w**3 + 6 * A_ / v**4)
    close(d[4, 0], 6 * R * t / w**4 - 24 * A_ / v**5)
    close(d[1, 1], -R / w)
    close(d[2, 1], R / w**2)
    close(d[3, 1], -2 * R / w**3)
    close(d[0, 1], -R * np.log(w) - 1.5 * R * (np.log(t) + 1))
    close(d[0, 2], -1.5 * R / t)
    close(d[1, 2], [0.0, 0.0], atol=1e-18)
    c = crystal().derivatives(np.array([49.0, 51.0]), np.array([100.0, 100.0]), [(0, 0), (1, 0)])
    assert c[1, 0].shape == (2,)


# --- van der Waals ----------------------------------------------------------------------------------------------------


def test_critical_point_of_van_der_waals() -> None:
    point = thermo.critical_point(fluid())
    assert point is not None
    close([point.temperature, point.volume, point.pressure], [TC, VC, PC], rtol=1e-9)
    assert point.kind == "upper"
    assert point.share_of_members == 1.0
    assert not point.extrapolated
    assert math.isnan(point.temperature_std)
    assert math.isnan(point.volume_std)
    assert math.isnan(point.pressure_std)


@pytest.mark.parametrize("t", [170.0, 230.0, 280.0, 299.0, 299.99])
def test_spinodal_solves_a_cubic(t: float) -> None:
    found = thermo.spinodal(fluid(), t)
    v, p = spinodal_of_waals(t)
    # next to the critical point the roots of the cubic themselves have few digits
    rtol = 1e-10 if t < 299 else 1e-7
    close([found.volume_low, found.volume_high], v, rtol=rtol)
    close([found.pressure_low, found.pressure_high], p, rtol=1e-9)
    assert found.pressure_low < found.pressure_high
    assert found.volume_low.shape == ()
    f2 = fluid().derivatives(np.array([found.volume_low, found.volume_high]), np.full(2, t), [(2, 0)])[2, 0]
    assert np.abs(f2).max() < 1e-14 * R * t / (v[0] - B_) ** 2 * 100


@pytest.mark.parametrize("t", [200.0, 240.0, 280.0, 297.0, 299.9])
def test_binodal_has_equal_areas(t: float) -> None:
    found = thermo.binodal(fluid(), t)
    p, low, high = maxwell(t)
    close(found.pressure, p, rtol=1e-9)
    close([found.volume_low, found.volume_high], [low, high], rtol=1e-6 if t > 299 else 1e-8)


def test_binodal_encloses_the_spinodal_and_both_end_at_the_critical_point() -> None:
    t = np.array([200.0, 299.0, 299.999, 299.99999, 300.0001, 350.0])
    outer, inner = thermo.binodal(fluid(), t), thermo.spinodal(fluid(), t)
    below = t < TC
    assert (np.isfinite(outer.pressure) == below).all()
    assert (np.isfinite(inner.volume_low) == below).all()
    assert (outer.volume_low < inner.volume_low)[below].all()
    assert (outer.volume_high > inner.volume_high)[below].all()
    assert ((inner.pressure_low < outer.pressure) & (outer.pressure < inner.pressure_high))[below].all()
    # V - V_c = ±V_c 2 sqrt(1 - T/T_c) on the binodal of van der Waals, and smaller by sqrt(3) on the spinodal
    width = 4 * VC * math.sqrt(1 - t[3] / TC)
    close(outer.volume_high[3] - outer.volume_low[3], width, rtol=1e-3)
    close(inner.volume_high[3] - inner.volume_low[3], width / math.sqrt(3), rtol=1e-3)
    close(outer.pressure[3], PC, rtol=1e-6)
    assert outer.share_of_members.tolist() == below.astype(float).tolist()


def test_the_stable_branch_wins() -> None:
    t = 250.0
    p, low, high = maxwell(t)
    state = thermo.equilibrium(fluid(), p * np.array([1 - 1e-7, 1 + 1e-7]), t)
    close(state.volume, [high, low], rtol=1e-5)
    # metastable roots exist at both
    v, (bottom, top) = spinodal_of_waals(t)
    pressures = np.linspace(bottom * 1.001, top * 0.999, 40)
    state = thermo.equilibrium(fluid(), pressures[pressures > 0.3 * p], t)
    assert (np.where(state.pressure < p, state.volume > v[1], state.volume < v[0])).all()
    close(pressure_of_waals(state.volume, t), state.pressure, rtol=1e-9)


def test_volumes_do_not_depend_on_the_grid() -> None:
    p, t = np.array([0.2, PC, 2.0]), np.array([[220.0], [299.0], [380.0]])
    a = thermo.equilibrium(fluid(), p, t)
    b = thermo.equilibrium(fluid(), p, t, bounds=(33.3, 2417.0))
    close(a.volume, b.volume, rtol=1e-11)
    close(a.gibbs, b.gibbs, rtol=1e-13)


def test_a_metastable_state_does_not_stand_in_for_one_outside() -> None:
    t = 250.0
    p, low, high = maxwell(t)
    v, _ = spinodal_of_waals(t)
    # the gas is outside of the bounds, the liquid inside is metastable, and the end of the bounds says so
    model = fluid(x=(33.0, 0.5 * (v[1] + high)))
    state = thermo.equilibrium(model, [0.2 * p, 1.5 * p], t)
    assert np.isnan(state.volume[0])
    assert np.isnan(state.gibbs[0])
    assert state.volume[1] < low
    close(thermo.equilibrium(fluid(), 1.5 * p, t).volume, state.volume[1], rtol=1e-12)


def test_fluid_in_closed_form() -> None:
    t = np.array([310.0, 350.0])
    state = thermo.equilibrium(fluid(), 0.3, t)
    v = state.volume
    f2 = R * t / (v - B_) ** 2 - 2 * A_ / v**3
    close(state.heat_capacity, 1.5 * R, rtol=1e-12)
    close(state.bulk_modulus, v * f2 * GPA)
    close(state.thermal_expansion, R / (v - B_) / (v * f2))
    close(state.heat_capacity_p - state.heat_capacity, t * (R / (v - B_)) ** 2 / f2)
    close(state.internal_energy, 1.5 * R * t - A_ / v)
    close(state.gibbs, state.free_energy + 0.3 / GPA * v)


def test_no_root_within_the_bounds_is_nan() -> None:
    model = fluid(x=(40.0, 80.0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        state = thermo.equilibrium(model, [1e-4, 3.0, 50.0], 350.0)
    assert np.isnan(state.volume[[0, 2]]).all()
    assert np.isfinite(state.volume[1])
    assert np.isnan(state.gibbs[[0, 2]]).all()
    assert state.share_of_members.tolist() == [0.0, 1.0, 0.0]
    assert not state.extrapolated.any()
    # half a loop: one end of the spinodal gap is outside
    gap = thermo.spinodal(model, 250.0)
    close(gap.volume_low, spinodal_of_waals(250.0)[0][0])
    assert np.isnan(gap.volume_high)
    assert np.isnan(gap.pressure_high)
    assert np.isnan(thermo.binodal(model, 250.0).pressure)
    assert thermo.critical_point(model) is None


# --- an Einstein crystal ----------------------------------------------------------------------------------------------


def test_expansion_of_the_crystal_is_that_of_grueneisen() -> None:
    p, t = np.array([0.0, 2.0, 5.0]), np.array([[50.0], [300.0], [700.0]])
    state = thermo.equilibrium(crystal(), p, t)
    assert state.volume.shape == (3, 3)
    y = THETA * (state.volume / V0) ** -GAMMA / t
    c_v = 3 * N * KB * (y / 2 / np.sinh(y / 2)) ** 2
    close(state.heat_capacity, c_v, rtol=1e-9)
    close(state.thermal_expansion, GAMMA * c_v * GPA / (state.bulk_modulus * state.volume), rtol=1e-9)
    # P = -B0 (V/V0 - 1) + γ U_thermal/V
    u = 3 * N * KB * THETA * (state.volume / V0) ** -GAMMA * (0.5 + 1 / np.expm1(y))
    close((-B0 * (state.volume / V0 - 1) + GAMMA * u / state.volume) * GPA, np.broadcast_to(p, (3, 3)), atol=1e-11)
    assert (thermo.thermal_expansion(crystal(), p, t) == state.thermal_expansion).all()
    assert (thermo.gibbs(crystal(), p, t) == state.gibbs).all()


def test_thermodynamic_identities() -> None:
    model, p, t = crystal(), np.linspace(0.0, 8.0, 9), 350.0
    state = thermo.equilibrium(model, p, t)
    h = 1e-3
    up, down = thermo.equilibrium(model, p + h, t), thermo.equilibrium(model, p - h, t)
    close((up.gibbs - down.gibbs) / (2 * h) * GPA, state.volume, rtol=1e-8)
    close(-state.volume * 2 * h / (up.volume - down.volume), state.bulk_modulus, rtol=1e-6)
    assert (up.gibbs - 2 * state.gibbs + down.gibbs < 0.0).all(), "G is concave in P"
    h = 0.05
    up, down = thermo.equilibrium(model, p, t + h), thermo.equilibrium(model, p, t - h)
    close(-(up.gibbs - down.gibbs) / (2 * h), state.entropy, rtol=1e-7)
    close((up.volume - down.volume) / (2 * h) / state.volume, state.thermal_expansion, rtol=1e-6)
    close(t * (up.entropy - down.entropy) / (2 * h), state.heat_capacity_p, rtol=1e-6)
    enthalpy = [s.internal_energy + s.pressure / GPA * s.volume for s in (up, down)]
    close((enthalpy[0] - enthalpy[1]) / (2 * h), state.heat_capacity_p, rtol=1e-6)
    expected = t * state.volume * state.thermal_expansion**2 * state.bulk_modulus / GPA
    close(state.heat_capacity_p - state.heat_capacity, expected, rtol=1e-9)
    close(state.internal_energy, state.free_energy + t * state.entropy, rtol=1e-13)


def test_gibbs_is_concave_through_a_transition() -> None:
    p = np.linspace(0.5, 1.5, 60) * maxwell(250.0)[0]
    g = thermo.gibbs(fluid(), p, 250.0)
    assert np.isfinite(g).all()
    assert (np.diff(g, 2) <= 1e-14).all()
    assert (np.diff(g) > 0.0).all()


def test_a_crystal_has_no_instability() -> None:
    t = np.linspace(20.0, 800.0, 7)
    gap, both = thermo.spinodal(crystal(), t), thermo.binodal(crystal(), t)
    for result in (gap, both):
        for field in dataclasses.fields(result):
            values = getattr(result, field.name)
            assert values.shape == (7,)
            if field.name not in ("temperature", "share_of_members", "extrapolated"):
                assert np.isnan(values).all(), field.name
        assert (result.share_of_members == 0.0).all()
        assert not result.extrapolated.any()
    assert thermo.critical_point(crystal()) is None
    assert thermo.critical_point(crystal(), kind="lower") is None
    assert thermo.negative_expansion(crystal(), [0.0, 5.0]).ranges == ((), ())


# --- committees -------------------------------------------------------------------------------------------------------


def test_spread_of_critical_points_is_that_of_the_shifts() -> None:
    dv, dt, dp = np.array([0.0, 1.5, -2.0, 0.4]), np.array([3.0, -4.0, 0.5, 1.0]), np.array([0.0, 1e-3, -4e-4, 2e-3])
    members = [waals(dv=v, dt=t, dp=p) for v, t, p in zip(dv, dt, dp, strict=True)]
    point = thermo.critical_point(fluid(*members))
    assert point is not None
    close(point.temperature_std, dt.std(ddof=1), rtol=1e-7)
    close(point.volume_std, dv.std(ddof=1), rtol=1e-6)
    close(point.pressure_std, dp.std(ddof=1), rtol=1e-6)
    assert point.share_of_members == 1.0
    assert abs(point.temperature - TC - dt.mean()) < 1.0
    # and on the curves, at temperatures shifted alike for all
    gap = thermo.spinodal(fluid(*[waals(dv=v) for v in dv]), [200.0, 280.0])
    close(gap.volume_low_std, dv.std(ddof=1), rtol=1e-8)
    close(gap.volume_high_std, dv.std(ddof=1), rtol=1e-8)
    close(gap.pressure_low_std, 0.0, atol=1e-12)
    both = thermo.binodal(fluid(*[waals(dp=p) for p in dp]), [220.0, 280.0])
    close(both.pressure_std, dp.std(ddof=1), rtol=1e-7)
    close(both.volume_low_std, 0.0, atol=1e-7)
    close(both.volume_high_std, 0.0, atol=1e-6)


def test_values_are_those_of_the_mean_surface() -> None:
    """Van der Waals is linear in a, so that the mean surface is van der Waals with the mean a."""
    t_critical = np.array([270.0, 320.0, 310.0])
    model = fluid(*[waals(t) for t in t_critical])
    point = thermo.critical_point(model)
    assert point is not None
    close([point.temperature, point.volume], [TC, VC], rtol=1e-9)
    close(point.temperature_std, t_critical.std(ddof=1), rtol=1e-8)
    close(point.volume_std, 0.0, atol=1e-6)
    # at 305 K, two members of three still have a gap, and the mean has none
    gap, both = thermo.spinodal(model, [260.0, 305.0, 330.0]), thermo.binodal(model, [260.0, 305.0, 330.0])
    for result in (gap, both):
        close(result.share_of_members, [1.0, 2 / 3, 0.0])
        assert np.isfinite(result.volume_low).tolist() == [True, False, False]
        assert np.isfinite(result.volume_low_std).tolist() == [True, True, False]
    close(both.pressure[0], maxwell(260.0)[0], rtol=1e-9)
    close(gap.volume_low[0], spinodal_of_waals(260.0)[0][0])
    # a member whose critical point is out of reach does not count
    point = thermo.critical_point(model, temperature=(150.0, 315.0))
    assert point is not None
    close(point.share_of_members, 2 / 3)
    close(point.temperature_std, np.std([270.0, 310.0], ddof=1), rtol=1e-8)


def test_spread_of_equilibrium_is_that_of_single_members() -> None:
    formulas = [crystal_formula(0.55, 1.8, 0.01), crystal_formula(0.6, 2.0, -0.02), crystal_formula(0.63, 2.3)]
    p, t = np.array([0.0, 4.0]), np.array([300.0, 500.0])
    state = thermo.equilibrium(crystal(*formulas), p, t)
    single = [thermo.equilibrium(crystal(formula), p, t) for formula in formulas]
    names = [f.name[:-4] for f in dataclasses.fields(state) if f.name.endswith("_std")]
    assert len(names) == 9
    for name in names:
        own = np.array([getattr(s, name) for s in single])
        close(getattr(state, name + "_std"), own.std(axis=0, ddof=1), rtol=1e-7)
        assert np.isnan(getattr(single[0], name + "_std")).all()
    value, std = thermo.thermal_expansion(crystal(*formulas), p, t, std=True)
    assert (value == state.thermal_expansion).all()
    close(std, state.thermal_expansion_std, rtol=1e-12)
    value, std = thermo.gibbs(crystal(*formulas), p, t, std=True)
    assert (value == state.gibbs).all()
    close(std, state.gibbs_std, rtol=1e-12)


def test_one_member_twice_has_no_spread() -> None:
    state = thermo.equilibrium(crystal(crystal_formula(), crystal_formula()), 1.0, 300.0)
    assert state.volume_std < 1e-12
    alone = thermo.equilibrium(crystal(), 1.0, 300.0)
    close(state.volume, alone.volume, rtol=1e-13)
    assert math.isnan(float(alone.volume_std))
    assert alone.share_of_members == 1.0


# --- many wells and narrow gaps ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [1e-4, 3e-3, 0.015, 0.05, 2.0])
def test_gaps_narrower_than_a_cell_are_found(width: float) -> None:
    """F = k u⁴ - ε u²/2: spinodal at ±sqrt(ε/12k), binodal at ±sqrt(ε/4k) with P = 0."""
    k = 1e-2
    eps = 12 * k * (width / 2) ** 2
    for offset in (0.0, 0.0061, 0.01234):
        model = polynomial(lambda u, t, o=offset: k * power(u - o, 4) - 0.5 * eps * power(u - o, 2))
        gap, both = thermo.spinodal(model, 300.0), thermo.binodal(model, 300.0)
        close([gap.volume_low, gap.volume_high], 50.0 + offset + np.array([-0.5, 0.5]) * width, rtol=1e-10)
        if width > 1e-3:  # below, the barrier drowns in rounding
            far = math.sqrt(3) * width / 2
            close([both.volume_low, both.volume_high], 50.0 + offset + np.array([-far, far]), rtol=1e-7)
            close(both.pressure, 0.0, atol=1e-9)


@pytest.mark.parametrize("width", [0.002, 0.004, 0.02])
@pytest.mark.parametrize("offset", [0.0, 0.0391, 0.051, -0.013, 0.07])
def test_narrow_steps_anywhere_in_a_cell_are_found(width: float, offset: float) -> None:
    """F = k u²/2 - s w ln(1 + exp(u / w)): two states of slopes s apart; F_VV = k - s σ (1 - σ) / w.

    Far from the step nothing is seen of it in F_VV, but in the pressure.
    """
    k, depth = 0.01, 8.0
    s = depth * k * width

    def step(u: Jet, t: Jet) -> Jet:
        v = (u - offset) * (1.0 / width)
        side = np.where(v.c[0, 0] > 0.0, 1.0, 0.0)  # ln(1 + exp v) = v + ln(1 + exp -v)
        softplus = ((v * (1.0 - 2.0 * side)).exp() + 1.0).log() + v * side
        return 0.5 * k * power(u - offset, 2) - (s * width) * softplus

    gap = thermo.spinodal(polynomial(step), 300.0)
    share = 0.5 * (1.0 - math.sqrt(1.0 - 4.0 / depth))
    far = width * math.log((1.0 - share) / share)
    close([gap.volume_low, gap.volume_high], 50.0 + offset + np.array([-far, far]), rtol=1e-9)


def test_both_ends_of_an_instability() -> None:
    """Unstable between 180 and 390 K: F = A (T - 180)(T - 390) u²/2 + k u⁴ - u T/1000."""
    model = polynomial(lambda u, t: 1e-6 * (t - 180.0) * (t - 390.0) * power(u, 2) + 1e-3 * power(u, 4) - 1e-5 * u * t)
    upper, lower = thermo.critical_point(model), thermo.critical_point(model, kind="lower")
    assert upper is not None
    assert lower is not None
    close([upper.temperature, upper.volume, upper.pressure], [390.0, 50.0, 390e-5 * GPA], rtol=1e-8)
    close([lower.temperature, lower.volume, lower.pressure], [180.0, 50.0, 180e-5 * GPA], rtol=1e-8)
    assert (upper.kind, lower.kind) == ("upper", "lower")
    # a gap that lives up to the end of the range has no critical point in it
    assert thermo.critical_point(model, temperature=(150.0, 350.0)) is None
    assert thermo.critical_point(model, kind="lower", temperature=(200.0, 450.0)) is None


def test_gaps_within_the_bounds_come_first() -> None:
    """F_VV = c (u² - 1/4) (9 - u²): a shallow gap in the middle, and deep ones at both ends of the bounds."""
    model = polynomial(lambda u, t: 1e-3 * (-2.25 / 2 * power(u, 2) + 9.25 / 12 * power(u, 4) - 1 / 30 * power(u, 6)))
    gap = thermo.spinodal(model, 300.0)
    close([gap.volume_low, gap.volume_high], [49.5, 50.5])
    gap = thermo.spinodal(model, 300.0, bounds=(51.0, 55.0))
    close(gap.volume_low, 53.0)
    assert np.isnan(gap.volume_high)
    assert gap.share_of_members == 1.0


def test_a_critical_point_that_newton_steps_alone_miss() -> None:
    """F_VV(u = 0) is x/sqrt(1 + x²) with x = (T - 320.3)/0.3: flat but for a fraction of a kelvin."""

    def f(u: Jet, t: Jet) -> Jet:
        x = (t - 320.3) * (1 / 0.3)
        return 1e-3 * (0.5 * x * ((1.0 + x * x).log() * -0.5).exp() * power(u, 2) + power(u, 4))

    point = thermo.critical_point(polynomial(f, T=(100.0, 900.0)))
    assert point is not None
    close([point.temperature, point.volume], [320.3, 50.0], rtol=1e-9)


def test_of_two_instabilities_the_hotter_critical_point_counts() -> None:
    """F_VV = (T - 200)/1000 or (T - 400)/1000, plus quadratic terms, at u = -2 and u = 2, from one sextic."""

    def f(u: Jet, t: Jet) -> Jet:
        # F_VV = c (u² - 4)² + (T - 300 - 50 u)/1000: minima near ±2
        c = 0.02
        curvature = [16 * c, 0.0, -8 * c, 0.0, c]
        out = (t - 300.0) * 1e-3 * power(u, 2) * 0.5 - 50e-3 / 6 * power(u, 3)
        for n, value in enumerate(curvature):
            out = out + value / ((n + 1) * (n + 2)) * power(u, n + 2)
        return out

    def closing(near: float) -> float:
        # minimum over u of c (u² - 4)² - u/20, solved apart
        u = brentq(lambda u: 0.02 * 4 * u * (u * u - 4) - 0.05, near - 0.4, near + 0.4, xtol=1e-14)
        return 300.0 - 1e3 * (0.02 * (u * u - 4) ** 2 - 0.05 * u)

    model = polynomial(f)
    hot = thermo.critical_point(model)
    assert hot is not None
    close(hot.temperature, closing(2.0), rtol=1e-9)
    # in the colder range, only one closes, while the other persists
    cold = thermo.critical_point(model, temperature=(120.0, 300.0))
    assert cold is not None
    close(cold.temperature, closing(-2.0), rtol=1e-9)
    gap = thermo.spinodal(model, 150.0)
    assert gap.volume_low > 50.0, "the gap around u = 2 is deeper"


def test_three_wells() -> None:
    """u² (u² - d²)² + e u²: with e < 0 the outer wells coexist, with e > 0 each of them with the middle one."""
    d2, k = 4.0, 1e-3

    def wells(e: float, tilt: float = 0.0) -> Model:
        return polynomial(
            lambda u, t: (
                k * (power(u, 6) - 2 * d2 * power(u, 4) + d2**2 * power(u, 2)) + e * power(u, 2) + tilt * power(u, 3)
            )
        )

    outer = thermo.binodal(wells(-1e-3), 300.0)
    # minima: 3 u⁴ - 4 d² u² + d⁴ - 1 = 0
    far = math.sqrt((4 * d2 + math.sqrt(16 * d2**2 - 12 * (d2**2 - 1.0))) / 6)
    close([outer.volume_low, outer.volume_high], [50.0 - far, 50.0 + far], rtol=1e-10)
    close(outer.pressure, 0.0, atol=1e-11)

    # with the right well cut off, left and middle have a tangent still, but F at the cut is below it
    assert np.isnan(thermo.binodal(wells(-1e-3), 300.0, bounds=(45.0, 51.8)).pressure)
    assert np.isfinite(thermo.binodal(wells(-1e-3), 300.0, bounds=(45.0, 50.5)).pressure)

    for tilt in (1e-4, -1e-4):
        model = wells(1e-3, tilt)
        found = thermo.binodal(model, 300.0)
        # brute force: steps of the lower convex hull, and how far F rises above them
        v = np.linspace(45.0, 55.0, 40001)
        f = model.derivatives(v, np.full(len(v), 300.0), [(0, 0)])[0, 0]
        hull: list[int] = []
        for i in range(len(v)):
            while len(hull) > 1 and (f[hull[-1]] - f[hull[-2]]) * (v[i] - v[hull[-2]]) >= (f[i] - f[hull[-2]]) * (
                v[hull[-1]] - v[hull[-2]]
            ):
                hull.pop()
            hull.append(i)
        steps = []
        for a, b in itertools.pairwise(hull):
            if b - a > 10:
                line = f[a] + (f[b] - f[a]) / (v[b] - v[a]) * (v[a:b] - v[a])
                steps.append(((f[a:b] - line).max(), v[a], v[b], -(f[b] - f[a]) / (v[b] - v[a]) * GPA))
        assert len(steps) == 2
        _, low, high, p = max(steps)
        close([found.volume_low, found.volume_high], [low, high], atol=5e-4)
        close(found.pressure, p, rtol=1e-4)


# --- negative thermal expansion ---------------------------------------------------------------------------------------


def spring(t1: float, t2: float, k: float = 0.01) -> Callable[[Jet, Jet], Jet]:
    """F_VT = c (T - t1)(t2 - T) at all volumes: α < 0 between t1 and t2."""

    def f(u: Jet, t: Jet) -> Jet:
        h = -1.0 / 3.0 * power(t, 3) + 0.5 * (t1 + t2) * power(t, 2) - t1 * t2 * t
        return 0.5 * k * power(u, 2) + 1e-9 * h * u

    return f


def test_negative_expansion_between_two_zeros() -> None:
    found = thermo.negative_expansion(polynomial(spring(203.3, 371.7)), [0.0, 1.0])
    assert found.temperature == (100.0, 500.0)
    assert len(found.ranges) == 2
    for ranges in found.ranges:
        (span,) = ranges
        close([span.low, span.high], [203.3, 371.7], rtol=1e-10)
        assert (span.low_kind, span.high_kind) == ("zero", "zero")
        assert math.isnan(span.low_std)
        assert math.isnan(span.high_std)
        assert span.share_of_members == 1.0
    assert found.share_of_members.tolist() == [1.0, 1.0]
    alpha = thermo.thermal_expansion(polynomial(spring(203.3, 371.7)), 0.5, [150.0, 203.2, 203.4, 371.6, 371.8])
    assert (np.sign(alpha) == [1, 1, -1, -1, 1]).all()


def test_negative_expansion_cut_by_the_range() -> None:
    model = polynomial(spring(203.3, 371.7))
    ((span,),) = thermo.negative_expansion(model, 0.0, temperature=(250.0, 480.0)).ranges
    assert (span.low, span.low_kind, span.high_kind) == (250.0, "range", "zero")
    close(span.high, 371.7, rtol=1e-10)
    assert math.isnan(span.low_std)
    # stable volumes leave the bounds on the way
    edge = float(thermo.equilibrium(model, 0.0, 330.0).volume)
    ((span,),) = thermo.negative_expansion(model, 0.0, bounds=(edge, 54.0)).ranges
    assert (span.low_kind, span.high_kind) == ("zero", "bounds")
    assert 327.9 < span.high <= 330.0


def test_spread_of_negative_expansion() -> None:
    low, high = np.array([180.0, 190.0, 215.0]), np.array([360.0, 350.0, 400.0])
    springs = [spring(a, b) for a, b in zip(low, high, strict=True)]
    found = thermo.negative_expansion(polynomial(*springs), 0.5)
    ((span,),) = found.ranges
    close([span.low_std, span.high_std], [low.std(ddof=1), high.std(ddof=1)], rtol=1e-8)
    # F_VT of the mean is a parabola, the mean of three
    roots = np.sort(np.roots([-3.0, (low + high).sum(), -(low * high).sum()]))
    close([span.low, span.high], roots, rtol=1e-9)
    assert span.share_of_members == 1.0
    # ends that are only those of the range searched have no spread, whatever the members find
    wide = [spring(a, b) for a, b in zip([150.0, 190.0, 215.0], high, strict=True)]
    ((span,),) = thermo.negative_expansion(polynomial(*wide), 0.5, temperature=(189.0, 450.0)).ranges
    assert (span.low, span.low_kind) == (189.0, "range")
    assert math.isnan(span.low_std)
    assert np.isfinite(span.high_std)
    # a member without
    found = thermo.negative_expansion(polynomial(*springs, lambda u, t: 0.005 * power(u, 2) - 1e-6 * u * t), 0.5)
    ((span,),) = found.ranges
    assert span.share_of_members == 0.75
    assert found.share_of_members.tolist() == [0.75]
    close(span.low_std, low.std(ddof=1), rtol=1e-8)


def two_wells(h: Callable[[Jet], Jet]) -> Callable[[Jet, Jet], Jet]:
    """k (u² - 4)² + h(T) u: the stable well changes where P = -h(T)."""
    return lambda u, t: 1e-3 * (power(u, 4) - 8.0 * power(u, 2)) + h(t) * u


def test_a_jump_is_an_end() -> None:
    # falling all along, with a jump at 321.7 K
    found = thermo.negative_expansion(polynomial(two_wells(lambda t: 1e-6 * (t - 321.7))), [0.0, 1e-6 * 50 * GPA])
    first, second = found.ranges[0]
    assert [first.low_kind, first.high_kind, second.low_kind, second.high_kind] == ["range", "jump", "jump", "range"]
    close([first.low, first.high, second.low, second.high], [100.0, 321.7, 321.7, 500.0], rtol=1e-9)
    close(found.ranges[1][0].high, 271.7, rtol=1e-9)
    # rising all along: the jump upwards is no negative expansion
    assert thermo.negative_expansion(polynomial(two_wells(lambda t: -1e-6 * (t - 321.7))), 0.0).ranges == ((),)
    # up at 210 K, over the top at 300 K, down at 390 K
    parabola = two_wells(lambda t: 1e-8 * (t - 210.0) * (t - 390.0))
    first, second = thermo.negative_expansion(polynomial(parabola), 0.0).ranges[0]
    assert [first.low_kind, first.high_kind, second.low_kind, second.high_kind] == ["zero", "jump", "jump", "range"]
    close([first.low, first.high, second.low, second.high], [300.0, 390.0, 390.0, 500.0], rtol=1e-9)
    v = thermo.equilibrium(polynomial(parabola), 0.0, [209.9, 210.1, 389.9, 390.1]).volume
    assert (np.sign(v - 50.0) == [-1, 1, 1, -1]).all()


def test_spread_of_jumps() -> None:
    at = np.array([310.0, 325.0, 322.0])
    members = [two_wells(lambda t, a=a: 1e-6 * (t - a)) for a in at]
    first, second = thermo.negative_expansion(polynomial(*members), 0.0).ranges[0]
    close([first.high, second.low], at.mean(), rtol=1e-9)
    close([first.high_std, second.low_std], at.std(ddof=1), rtol=1e-7)
    assert math.isnan(first.low_std)


def test_two_jumps_between_two_temperatures() -> None:
    """A grid of two temperatures sees one change of sign, and bisection finds an end of it."""
    parabola = two_wells(lambda t: 1e-8 * (t - 210.0) * (t - 390.0))
    (ranges,) = thermo.negative_expansion(polynomial(parabola), 0.0, (100.0, 480.0), n_temperatures=2).ranges
    assert len(ranges) == 1
    assert min(abs(ranges[0].low - x) for x in (210.0, 300.0, 390.0)) < 1e-6


# --- extrapolation, memory, arguments ---------------------------------------------------------------------------------


def test_extrapolation_warns_once_and_is_marked() -> None:
    model = crystal(T=(100.0, 500.0))
    text = r"temperatures of 50 to 800 K are outside of the training data \(100 to 500 K\): results extrapolate"
    with pytest.warns(DataWarning, match=text) as caught:
        state = thermo.equilibrium(model, 1.0, [50.0, 300.0, 700.0, 800.0])
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert state.extrapolated.tolist() == [True, False, True, True]
    assert np.isfinite(state.volume).all()
    calls = [
        lambda: thermo.gibbs(model, 1.0, 600.0),
        lambda: thermo.thermal_expansion(model, 1.0, 600.0),
        lambda: thermo.spinodal(model, 600.0),
        lambda: thermo.binodal(model, 600.0),
        lambda: thermo.negative_expansion(model, 1.0, temperature=(150.0, 600.0)),
        lambda: thermo.critical_point(fluid(T=(150.0, 250.0)), temperature=(150.0, 350.0)),
    ]
    for call in calls:
        with pytest.warns(DataWarning, match="outside of the training data") as caught:
            call()
        assert len(caught) == 1
        assert caught[0].filename == __file__
    with pytest.warns(DataWarning, match=r"volumes found are outside of the training data \(49 to 49.5 Å3\)"):
        state = thermo.equilibrium(crystal(x=(49.0, 49.5)), 1.0, 300.0, bounds=(42.0, 60.0))
    assert state.extrapolated
    with pytest.warns(DataWarning):
        point = thermo.critical_point(fluid(T=(150.0, 250.0)), temperature=(150.0, 350.0))
    assert point is not None
    assert point.extrapolated


def test_memory_is_bounded_and_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    members = [waals(295.0), waals(305.0)]
    t = np.linspace(160.0, 390.0, 14)
    model = fluid(*members)
    at_once = [thermo.equilibrium(model, 0.4, t).volume, thermo.binodal(model, t).pressure]
    monkeypatch.setattr(_curves, "MOST_POINTS", 4000)
    model = fluid(*members)
    parts = [thermo.equilibrium(model, 0.4, t).volume, thermo.binodal(model, t).pressure]
    assert model.most <= 4000
    for a, b in zip(at_once, parts, strict=True):
        close(a, b, rtol=1e-12)
    shuffled = np.random.default_rng(0).permutation(14)
    close(thermo.equilibrium(model, 0.4, t[shuffled]).volume, at_once[0][shuffled], rtol=1e-12)


def test_shapes() -> None:
    state = thermo.equilibrium(crystal(), np.zeros((4, 1)), np.full(3, 300.0))
    for field in dataclasses.fields(state):
        assert getattr(state, field.name).shape == (4, 3), field.name
    assert thermo.gibbs(crystal(), 0.0, 300.0).shape == ()
    assert thermo.spinodal(fluid(), np.full((2, 3), 200.0)).volume_low.shape == (2, 3)
    assert thermo.binodal(fluid(), np.full((2, 3), 200.0)).pressure.shape == (2, 3)
    assert thermo.equilibrium(crystal(), np.zeros(0), 300.0).volume.shape == (0,)


def test_results_are_frozen_and_go_to_json() -> None:
    model = fluid(waals(290.0), waals(310.0), x=(33.0, 500.0))
    results = [
        thermo.equilibrium(model, [2.0, 90.0], 250.0),
        thermo.spinodal(model, [250.0, 350.0]),
        thermo.binodal(model, 250.0),
        thermo.critical_point(model),
        thermo.negative_expansion(polynomial(spring(203.3, 371.7)), 0.0),
    ]
    for result in results:
        assert result is not None
        document = json.loads(json.dumps(result.to_dict(), allow_nan=False))
        assert set(document) == {field.name for field in dataclasses.fields(result)}
        with pytest.raises(dataclasses.FrozenInstanceError):
            result.temperature = 0.0  # type: ignore[misc]
    assert results[1].to_dict()["volume_low"][1] is None  # type: ignore[union-attr]
    assert results[4].to_dict()["ranges"][0][0]["low_kind"] == "zero"  # type: ignore[union-attr]
    assert results[0].to_dict()["share_of_members"] == [1.0, 0.0]  # type: ignore[union-attr]


def test_what_the_data_do_not_fix_is_refused() -> None:
    model = crystal()
    model.known_ = {"P"}  # type: ignore[attr-defined]
    state = thermo.equilibrium(model, 1.0, 300.0)
    for name in ("gibbs", "free_energy", "entropy", "internal_energy", "heat_capacity", "heat_capacity_p"):
        assert np.isnan(getattr(state, name)), name
    full = thermo.equilibrium(crystal(), 1.0, 300.0)
    assert state.volume == full.volume
    assert state.thermal_expansion == full.thermal_expansion
    with pytest.raises(ValueError, match="F is not known: the data to which the model was fitted do not fix it"):
        thermo.gibbs(model, 1.0, 300.0)
    model.known_ = {"F", "P", "S"}  # type: ignore[attr-defined]
    state = thermo.equilibrium(model, 1.0, 300.0)
    assert state.gibbs == full.gibbs == thermo.gibbs(model, 1.0, 300.0)
    assert state.entropy == full.entropy
    assert np.isnan(state.internal_energy)


def test_only_volumes() -> None:
    model = crystal()
    model.coordinate = "order"
    calls: list[Callable[[], Any]] = [
        lambda: thermo.equilibrium(model, 0.0, 300.0),
        lambda: thermo.gibbs(model, 0.0, 300.0),
        lambda: thermo.thermal_expansion(model, 0.0, 300.0),
        lambda: thermo.spinodal(model, 300.0),
        lambda: thermo.binodal(model, 300.0),
        lambda: thermo.critical_point(model),
        lambda: thermo.negative_expansion(model, 0.0),
    ]
    for call in calls:
        with pytest.raises(
            ValueError, match="needs a model whose coordinate is a volume, and this one has coordinate='order'"
        ):
            call()


@pytest.mark.parametrize("wrong", [0.0, -5.0, math.nan, math.inf, [300.0, 0.0]])
def test_bad_temperatures(wrong: Any) -> None:
    for call in (thermo.spinodal, thermo.binodal):
        with pytest.raises(ValueError, match="temperature must be positive and finite, in K, got"):
            call(crystal(), wrong)
    for function in (thermo.equilibrium, thermo.gibbs, thermo.thermal_expansion):
        with pytest.raises(ValueError, match="temperature must be positive and finite, in K, got"):
            function(crystal(), 0.0, wrong)


def test_bad_arguments() -> None:
    model = crystal()
    for wrong in (math.nan, math.inf, [1.0, math.nan]):
        with pytest.raises(ValueError, match="pressure must be finite, in GPa, got"):
            thermo.equilibrium(model, wrong, 300.0)
        with pytest.raises(ValueError, match="pressure must be finite, in GPa, got"):
            thermo.negative_expansion(model, wrong)
    with pytest.raises(ValueError, match="pressure must be numbers in GPa, got 'high'"):
        thermo.equilibrium(model, "high", 300.0)
    with pytest.raises(ValueError, match=r"shapes \(2,\) and \(3,\) do not fit together"):
        thermo.equilibrium(model, [0.0, 1.0], [300.0, 400.0, 500.0])
    for bounds in ((60.0, 40.0), (0.0, 40.0), (-1.0, 3.0), (40.0, math.inf), (math.nan, 3.0), (40.0, 40.0)):
        with pytest.raises(ValueError, match="bounds must be two positive volumes in Å3, the smaller one first"):
            thermo.spinodal(model, 300.0, bounds=bounds)
    for bad in (3.0, (1.0, 2.0, 3.0), ("a", "b")):
        with pytest.raises(ValueError, match="bounds must be two volumes in Å3"):
            thermo.equilibrium(model, 0.0, 300.0, bounds=bad)  # type: ignore[arg-type]
    for pair in ((300.0, 200.0), (300.0,), (100.0, 200.0, 300.0)):
        with pytest.raises(ValueError, match="temperature must be two temperatures in K, the lower one first"):
            thermo.critical_point(model, temperature=pair)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="temperature must be two temperatures in K, the lower one first"):
            thermo.negative_expansion(model, 0.0, temperature=pair)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="kind must be one of upper, lower, got 'middle'"):
        thermo.critical_point(model, kind="middle")
    with pytest.raises(ValueError, match="n_temperatures must be a whole number of at least 2, got 1"):
        thermo.negative_expansion(model, 0.0, n_temperatures=1)
    with pytest.raises(
        ValueError, match=r"pressure must be a number or a list of them, got an array of shape \(1, 2\)"
    ):
        thermo.negative_expansion(model, [[0.0, 1.0]])


# --- real data --------------------------------------------------------------------------------------------------------


class Spline:
    """A quintic spline through a table, as a model of one member."""

    coordinate, n_members_ = "volume", 1

    def __init__(self, v: Array, t: Array, f: Array) -> None:
        self.spline = RectBivariateSpline(v, t, f, kx=5, ky=5, s=0)
        self.x_range_, self.T_range_ = np.array([[v[0], v[-1]]]), np.array([t[0], t[-1]])

    def derivatives(self, x: Array, T: Array, orders: Any, members: bool = False) -> dict[tuple[int, int], Array]:
        return {(i, j): self.spline.ev(x, T, dx=i, dy=j) for i, j in orders}

    def extrapolates(self, x: Array, T: Array) -> Array:
        return np.zeros(len(x), bool)


def test_fe3pt(data_dir: Path) -> None:
    with (data_dir / "fe3pt_helmholtz.csv").open(encoding="utf-8") as file:
        rows = np.array(
            [[float(row[name]) for name in ("volume_A3", "T_K", "free_energy_eV")] for row in csv.DictReader(file)]
        )
    f = rows[:, 2].reshape(120, 78).T
    model = Spline(rows[:78, 0], rows[::78, 1], f)
    point = thermo.critical_point(model)
    assert point is not None
    assert 160.0 < point.temperature < 165.0
    assert abs(point.pressure - 6.4) < 0.1
    gap = thermo.spinodal(model, [100.0, 160.0, 165.0])
    assert np.isfinite(gap.volume_low).tolist() == [True, True, False]
    both = thermo.binodal(model, [100.0, 150.0])
    assert (both.volume_low < gap.volume_low[0]).any()
    found = thermo.negative_expansion(model, [0.0, 5.0])
    assert all(found.ranges), "Fe3Pt is an Invar alloy"


class Tilted:
    """Curvatures that send Newton steps far outside: to volumes and temperatures below zero."""

    n_members_ = 1

    def __init__(self) -> None:
        self.lowest = [np.inf, np.inf]

    def derivatives(self, v: Any, t: Any, orders: Any, members: bool = False) -> dict[tuple[int, int], Any]:
        self.lowest = [min(self.lowest[0], float(v.min())), min(self.lowest[1], float(t.min()))]
        one = np.ones(len(v))
        values = {(2, 0): 1e6 * one, (3, 0): one, (4, 0): one, (2, 1): one, (3, 1): 0.0 * one}
        return {order: values[order] for order in orders}


def test_steps_to_a_closing_stay_where_free_energies_are_defined() -> None:
    from quests_zenn.zenn._curves import Surfaces, _closing

    model = Tilted()
    surfaces = Surfaces(model, (10.0, 12.0))
    v, t, good = _closing(
        surfaces, np.zeros(2, np.int64), np.array([10.5, 11.0]), np.full(2, 300.0), np.full(2, 600.0), 1
    )
    assert not good.any()
    assert (v >= 5.0).all()
    assert (t >= 15.0).all()
    assert model.lowest[0] >= 5.0
    assert model.lowest[1] >= 15.0
