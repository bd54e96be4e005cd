"""What follows from a free energy F(V, T): equilibrium at given P and T, instabilities, coexistence, critical points.

All functions take a fitted model whose coordinate is a volume, or any object with the same ``derivatives``,
``n_members_``, ``x_range_``, ``T_range_`` and ``extrapolates``. Pressures are in GPa, volumes in Å3, temperatures in K,
energies in eV per unit that the model speaks of (atom or cell).

Values are those of the mean surface of the committee. ``*_std`` is the standard deviation (ddof = 1) over the
solutions that each member finds on its own surface, NaN where fewer than two members have one; ``share_of_members`` is
the share of members that have one. Solutions are searched inside of ``bounds``, by default the volumes of the training
data: what lies outside is NaN. ``extrapolated`` marks points outside of the ranges of the training data.

Volumes are found on a grid and refined by Newton steps with the derivatives of the model, never by finite differences.
"""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from quests_zenn._core.checks import DataWarning, one_of, whole_number
from quests_zenn.zenn._curves import BoolArray, FloatArray, IntArray, Surfaces, critical, safe_newton
from quests_zenn.zenn._parts import GPA

#: What `CriticalPoint` and `TemperatureRange` call their kinds.
KINDS = ("upper", "lower")


class _Result:
    """What results have in common."""

    def to_dict(self) -> dict[str, Any]:
        """The result as lists, numbers and strings, ready for JSON; NaN becomes None."""
        return {field.name: _plain(getattr(self, field.name)) for field in dataclasses.fields(self)}  # type: ignore[arg-type]


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, float):
        return None if math.isnan(value) else value
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value.to_dict() if isinstance(value, _Result) else value


@dataclass(frozen=True, eq=False)
class Equilibrium(_Result):
    """States of lowest Gibbs energy at given pressures and temperatures. All arrays have the broadcast shape of both.

    Attributes
    ----------
    pressure : numpy.ndarray, GPa
    temperature : numpy.ndarray, K
    volume : numpy.ndarray, Å3
    gibbs : numpy.ndarray, eV
        G = F + PV.
    free_energy : numpy.ndarray, eV
    entropy : numpy.ndarray, eV/K
        S = -∂F/∂T.
    internal_energy : numpy.ndarray, eV
        U = F + TS.
    heat_capacity : numpy.ndarray, eV/K
        C_V = -T ∂²F/∂T².
    heat_capacity_p : numpy.ndarray, eV/K
        C_P = C_V + T V α² B.
    bulk_modulus : numpy.ndarray, GPa
        B = V ∂²F/∂V².
    thermal_expansion : numpy.ndarray, 1/K
        α = (1/V) (∂V/∂T)_P = -F_VT/(V F_VV).
    volume_std, gibbs_std, ... : numpy.ndarray
        Spread of each over the members. Where members disagree on the stable branch, it contains the jump between both.
    share_of_members : numpy.ndarray
        Share of members that have a stable state within the bounds.
    extrapolated : numpy.ndarray of bool
        Temperature or volume outside of the training data.
    """

    pressure: FloatArray
    temperature: FloatArray
    volume: FloatArray
    gibbs: FloatArray
    free_energy: FloatArray
    entropy: FloatArray
    internal_energy: FloatArray
    heat_capacity: FloatArray
    heat_capacity_p: FloatArray
    bulk_modulus: FloatArray
    thermal_expansion: FloatArray
    volume_std: FloatArray
    gibbs_std: FloatArray
    free_energy_std: FloatArray
    entropy_std: FloatArray
    internal_energy_std: FloatArray
    heat_capacity_std: FloatArray
    heat_capacity_p_std: FloatArray
    bulk_modulus_std: FloatArray
    thermal_expansion_std: FloatArray
    share_of_members: FloatArray
    extrapolated: BoolArray


@dataclass(frozen=True, eq=False)
class Spinodal(_Result):
    """Ends of the unstable gap (F_VV < 0) of isotherms. All arrays have the shape of the temperatures.

    Attributes
    ----------
    temperature : numpy.ndarray, K
    volume_low, volume_high : numpy.ndarray, Å3
        Ends of the gap; NaN where the isotherm is stable, and for an end outside of the bounds.
    pressure_low, pressure_high : numpy.ndarray, GPa
        Pressures at these volumes; the first is the lower one, too.
    volume_low_std, volume_high_std, pressure_low_std, pressure_high_std : numpy.ndarray
        Spread over the members.
    share_of_members : numpy.ndarray
        Share of members with an unstable gap.
    extrapolated : numpy.ndarray of bool
        Temperature or a volume outside of the training data.
    """

    temperature: FloatArray
    volume_low: FloatArray
    volume_high: FloatArray
    pressure_low: FloatArray
    pressure_high: FloatArray
    volume_low_std: FloatArray
    volume_high_std: FloatArray
    pressure_low_std: FloatArray
    pressure_high_std: FloatArray
    share_of_members: FloatArray
    extrapolated: BoolArray


@dataclass(frozen=True, eq=False)
class Binodal(_Result):
    """Coexistence of two volumes on isotherms. All arrays have the shape of the temperatures.

    Attributes
    ----------
    temperature : numpy.ndarray, K
    pressure : numpy.ndarray, GPa
        Of the common tangent; NaN where there is none.
    volume_low, volume_high : numpy.ndarray, Å3
        Where it touches.
    pressure_std, volume_low_std, volume_high_std : numpy.ndarray
        Spread over the members.
    share_of_members : numpy.ndarray
        Share of members with a coexistence.
    extrapolated : numpy.ndarray of bool
        Temperature or a volume outside of the training data.
    """

    temperature: FloatArray
    pressure: FloatArray
    volume_low: FloatArray
    volume_high: FloatArray
    pressure_std: FloatArray
    volume_low_std: FloatArray
    volume_high_std: FloatArray
    share_of_members: FloatArray
    extrapolated: BoolArray


@dataclass(frozen=True, eq=False)
class CriticalPoint(_Result):
    """Where an instability closes: F_VV = F_VVV = 0.

    Attributes
    ----------
    temperature : float, K
    volume : float, Å3
    pressure : float, GPa
    temperature_std, volume_std, pressure_std : float
        Spread over the members that have one.
    share_of_members : float
        Share of members that have one within the ranges.
    extrapolated : bool
        Outside of the training data.
    kind : str
        ``"upper"``: unstable below this temperature, stable above; ``"lower"``: the other way round.
    """

    temperature: float
    volume: float
    pressure: float
    temperature_std: float
    volume_std: float
    pressure_std: float
    share_of_members: float
    extrapolated: bool
    kind: str


@dataclass(frozen=True, eq=False)
class TemperatureRange(_Result):
    """Temperatures between which thermal expansion is negative at one pressure.

    Attributes
    ----------
    low, high : float, K
    low_kind, high_kind : str
        What ends the range: ``"zero"``, α passes through zero; ``"jump"``, the stable state jumps to another branch;
        ``"range"``, the temperatures searched end; ``"bounds"``, beyond it no stable volume lies within the bounds (an
        end to the precision of the search grid).
    low_std, high_std : float, K
        Spread of the ends over the ranges of members that overlap most with this one; only zeros and jumps count.
    share_of_members : float
        Share of members with a range that overlaps with this one.
    extrapolated : bool
        An end lies outside of the training data.
    """

    low: float
    high: float
    low_kind: str
    high_kind: str
    low_std: float
    high_std: float
    share_of_members: float
    extrapolated: bool


@dataclass(frozen=True, eq=False)
class NegativeExpansion(_Result):
    """Ranges of temperature with negative thermal expansion, for each pressure.

    Attributes
    ----------
    pressure : numpy.ndarray, shape (n,), GPa
    temperature : (float, float), K
        Range that was searched.
    ranges : tuple of n tuples of TemperatureRange
        In ascending order; empty where α is positive throughout.
    share_of_members : numpy.ndarray, shape (n,)
        Share of members that have any range.
    """

    pressure: FloatArray
    temperature: tuple[float, float]
    ranges: tuple[tuple[TemperatureRange, ...], ...]
    share_of_members: FloatArray


# --- what comes in and what goes out ----------------------------------------------------------------------------------


def _surfaces(model: Any, bounds: tuple[float, float] | None) -> Surfaces:
    """The surfaces of a model of volumes between bounds; ValueError if it is none, or if they are none."""
    coordinate = getattr(model, "coordinate", "volume")
    if coordinate != "volume":
        raise ValueError(f"this needs a model whose coordinate is a volume, and this one has coordinate={coordinate!r}")
    if bounds is None:
        low, high = np.asarray(model.x_range_, np.float64).reshape(-1, 2)[0]
        return Surfaces(model, (float(low), float(high)))
    try:
        low, high = (float(value) for value in bounds)
    except (TypeError, ValueError):
        raise ValueError(f"bounds must be two volumes in Å3, got {bounds!r}") from None
    if not (0.0 < low < high < math.inf):
        raise ValueError(f"bounds must be two positive volumes in Å3, the smaller one first, got {bounds!r}")
    return Surfaces(model, (low, high))


def _require(model: Any, what: str) -> None:
    """ValueError if the data of the model do not fix `what`."""
    if not _knows(model, what):
        raise ValueError(f"{what} is not known: the data to which the model was fitted do not fix it")


def _knows(model: Any, what: str) -> bool:
    known = getattr(model, "known_", None)
    return known is None or what in known


def _numbers(values: npt.ArrayLike, name: str, unit: str, positive: bool) -> FloatArray:
    """Values as an array of finite (and positive) numbers."""
    try:
        array = np.asarray(values, np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"{name} must be numbers in {unit}, got {values!r}") from None
    wrong = ~np.isfinite(array) | (positive & (array <= 0.0))
    if wrong.any():
        adjective = "positive and finite" if positive else "finite"
        raise ValueError(f"{name} must be {adjective}, in {unit}, got {array[wrong].flat[0]:g}")
    return array


def _broadcast(pressure: npt.ArrayLike, temperature: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
    p = _numbers(pressure, "pressure", "GPa", positive=False)
    t = _numbers(temperature, "temperature", "K", positive=True)
    try:
        p, t = np.broadcast_arrays(p, t)
    except ValueError:
        raise ValueError(f"pressure and temperature of shapes {p.shape} and {t.shape} do not fit together") from None
    return p.copy(), t.copy()


def _outside(model: Any, volumes: Iterable[FloatArray], t: FloatArray) -> BoolArray:
    """Whether the temperature, or any volume that is not NaN, is outside of the training data. Flat arrays."""
    low, high = np.asarray(model.T_range_, np.float64)
    result = (t < low) | (t > high)
    for v in volumes:
        there = np.flatnonzero(np.isfinite(v))
        if len(there):
            result[there] |= np.asarray(model.extrapolates(v[there], t[there]), bool).reshape(-1)
    return result


def _warn(model: Any, t: FloatArray, outside: BoolArray, stacklevel: int = 3) -> None:
    """One warning for all that extrapolates."""
    low, high = np.asarray(model.T_range_, np.float64)
    beyond = t[(t < low) | (t > high)]
    if len(beyond):
        span = f"{beyond.min():g} K" if beyond.min() == beyond.max() else f"{beyond.min():g} to {beyond.max():g} K"
        message = (
            f"temperatures of {span} are outside of the training data ({low:g} to {high:g} K): results extrapolate"
        )
    elif outside.any():
        v_low, v_high = np.asarray(model.x_range_, np.float64).reshape(-1, 2)[0]
        message = (
            f"some volumes found are outside of the training data ({v_low:g} to {v_high:g} Å3): results extrapolate"
        )
    else:
        return
    warnings.warn(message, DataWarning, stacklevel=stacklevel)


def _spread(values: FloatArray) -> FloatArray:
    """Standard deviation (ddof = 1) over the first axis, leaving out NaN; NaN where fewer than two are left."""
    there = np.isfinite(values)
    count = there.sum(axis=0)
    total = np.where(there, values, 0.0).sum(axis=0)
    deviation = np.where(there, values - total / np.maximum(count, 1), 0.0)
    variance = (deviation**2).sum(axis=0) / np.maximum(count - 1, 1)
    return np.asarray(np.where(count >= 2, np.sqrt(variance), np.nan))


def _members(surfaces: Surfaces, values: FloatArray) -> FloatArray:
    """Rows of the members among the rows of all surfaces."""
    return values if surfaces.n == 1 else values[1:]


def _collect(surfaces: Surfaces, values: dict[str, FloatArray], shape: tuple[int, ...]) -> dict[str, Any]:
    """Values of the mean surface and spreads over the members, of the wanted shape; (n_surfaces, n) each comes in."""
    result = {name: value[0].reshape(shape) for name, value in values.items()}
    result |= {f"{name}_std": _spread(_members(surfaces, value)).reshape(shape) for name, value in values.items()}
    return result


def _share(surfaces: Surfaces, found: BoolArray) -> FloatArray:
    """Share of members that found something, from (n_surfaces, n)."""
    members = found if surfaces.n == 1 else found[1:]
    return np.asarray(members.mean(axis=0))


# --- equilibrium ------------------------------------------------------------------------------------------------------


def _expansion(f2: FloatArray, f11: FloatArray, v: FloatArray) -> FloatArray:
    return -f11 / (v * f2)


def _states(surfaces: Surfaces, p: FloatArray, t: FloatArray) -> tuple[IntArray, FloatArray, FloatArray, FloatArray]:
    """Surface, pressure (eV/Å3), temperature and stable volume for all surfaces and points, flat, surfaces first."""
    who = np.repeat(np.arange(surfaces.n), p.size)
    p, t = np.tile(p.reshape(-1) / GPA, surfaces.n), np.tile(t.reshape(-1), surfaces.n)
    volume, _, _ = surfaces.stable(who, p, t)
    return who, p, t, volume


def equilibrium(
    model: Any,
    pressure: npt.ArrayLike,
    temperature: npt.ArrayLike,
    *,
    bounds: tuple[float, float] | None = None,
) -> Equilibrium:
    """The stable state at each pressure and temperature.

    Among all volumes within the bounds with P(V, T) = P and F_VV > 0, the one with the lowest Gibbs energy F + PV wins,
    so that metastable branches never do. Results are NaN where there is none, and where F + PV is lower at an end of
    the bounds, since the stable state is outside then. Energies, entropy and heat capacities are NaN where the data of
    the model do not fix them (``model.known_``).

    Parameters
    ----------
    model : FreeEnergyModel
    pressure : array_like, GPa
    temperature : array_like, K
        Broadcast against the pressures.
    bounds : (float, float), optional, Å3
        Volumes between which states are searched. By default the range of the training data.

    Returns
    -------
    Equilibrium

    Raises
    ------
    ValueError
        For models of something else than volumes; temperatures that are not positive, pressures that are not finite,
        shapes that do not fit together, or wrong bounds.

    Warns
    -----
    DataWarning
        Once, if temperatures or volumes found are outside of the training data.
    """
    surfaces = _surfaces(model, bounds)
    p_gpa, t_k = _broadcast(pressure, temperature)
    who, p, t, v = _states(surfaces, p_gpa, t_k)
    names = ("gibbs", "free_energy", "entropy", "internal_energy", "heat_capacity", "heat_capacity_p")
    values = {name: np.full(len(v), np.nan) for name in ("volume", *names, "bulk_modulus", "thermal_expansion")}
    there = np.flatnonzero(np.isfinite(v))
    if len(there):
        p, t, v = p[there], t[there], v[there]
        orders = [(0, 0), (0, 1), (0, 2), (2, 0), (1, 1)]
        f, f_t, f_tt, f2, f11 = surfaces.at(v, t, who[there], *orders)
        alpha = _expansion(f2, f11, v)
        c_v = -t * f_tt
        found = {
            "volume": v,
            "gibbs": f + p * v,
            "free_energy": f,
            "entropy": -f_t,
            "internal_energy": f - t * f_t,
            "heat_capacity": c_v,
            "heat_capacity_p": c_v + t * v * alpha**2 * (v * f2),
            "bulk_modulus": v * f2 * GPA,
            "thermal_expansion": alpha,
        }
        needs = dict(zip(names, ("F", "F", "S", "U", "C_V", "C_V"), strict=True))
        for name, value in found.items():
            if name not in needs or _knows(model, needs[name]):
                values[name][there] = value
    tables = {name: value.reshape(surfaces.n, -1) for name, value in values.items()}
    outside = _outside(model, [tables["volume"][0]], t_k.reshape(-1))
    _warn(model, t_k.reshape(-1), outside)
    return Equilibrium(
        pressure=p_gpa,
        temperature=t_k,
        share_of_members=_share(surfaces, np.isfinite(tables["volume"])).reshape(p_gpa.shape),
        extrapolated=outside.reshape(p_gpa.shape),
        **_collect(surfaces, tables, p_gpa.shape),
    )


def gibbs(
    model: Any,
    pressure: npt.ArrayLike,
    temperature: npt.ArrayLike,
    *,
    bounds: tuple[float, float] | None = None,
    std: bool = False,
) -> Any:
    """Gibbs energy G = F + PV of the stable state, eV.

    Parameters
    ----------
    model, pressure, temperature, bounds
        As of `equilibrium`.
    std : bool
        Return the spread over the members as well.

    Returns
    -------
    numpy.ndarray, or a pair of them
        Of the broadcast shape; NaN where there is no stable state within the bounds.

    Raises
    ------
    ValueError
        As of `equilibrium`; and if the data of the model do not fix F.

    Warns
    -----
    DataWarning
        Once, if temperatures or volumes found are outside of the training data.
    """
    _require(model, "F")
    return _one(model, pressure, temperature, bounds, std, expansion=False)


def thermal_expansion(
    model: Any,
    pressure: npt.ArrayLike,
    temperature: npt.ArrayLike,
    *,
    bounds: tuple[float, float] | None = None,
    std: bool = False,
) -> Any:
    """Thermal expansion α = (1/V) (∂V/∂T)_P = -F_VT/(V F_VV) of the stable state, 1/K.

    Parameters
    ----------
    model, pressure, temperature, bounds
        As of `equilibrium`.
    std : bool
        Return the spread over the members as well.

    Returns
    -------
    numpy.ndarray, or a pair of them
        Of the broadcast shape; NaN where there is no stable state within the bounds.

    Raises
    ------
    ValueError
        As of `equilibrium`.

    Warns
    -----
    DataWarning
        Once, if temperatures or volumes found are outside of the training data.
    """
    return _one(model, pressure, temperature, bounds, std, expansion=True)


def _one(
    model: Any,
    pressure: npt.ArrayLike,
    temperature: npt.ArrayLike,
    bounds: tuple[float, float] | None,
    std: bool,
    *,
    expansion: bool,
) -> Any:
    """One property of the stable state, without the others."""
    surfaces = _surfaces(model, bounds)
    p_gpa, t_k = _broadcast(pressure, temperature)
    who, p, t, v = _states(surfaces, p_gpa, t_k)
    values = np.full(len(v), np.nan)
    there = np.flatnonzero(np.isfinite(v))
    if len(there):
        if expansion:
            f2, f11 = surfaces.at(v[there], t[there], who[there], (2, 0), (1, 1))
            values[there] = _expansion(f2, f11, v[there])
        else:
            (f,) = surfaces.at(v[there], t[there], who[there], (0, 0))
            values[there] = f + p[there] * v[there]
    _warn(model, t_k.reshape(-1), _outside(model, [v[: t_k.size]], t_k.reshape(-1)), stacklevel=4)
    table = values.reshape(surfaces.n, -1)
    value = table[0].reshape(p_gpa.shape)
    return (value, _spread(_members(surfaces, table)).reshape(p_gpa.shape)) if std else value


# --- instabilities ----------------------------------------------------------------------------------------------------


def spinodal(model: Any, temperature: npt.ArrayLike, *, bounds: tuple[float, float] | None = None) -> Spinodal:
    """Where isotherms lose their mechanical stability: F_VV = 0.

    An isotherm with several unstable gaps gives the deepest one: that with the largest product of width and rise of
    pressure, an energy. Gaps with both ends within the bounds come before those that reach out of them, of which one
    end is NaN.

    Parameters
    ----------
    model : FreeEnergyModel
    temperature : array_like, K
    bounds : (float, float), optional, Å3
        As of `equilibrium`.

    Returns
    -------
    Spinodal

    Raises
    ------
    ValueError
        For models of something else than volumes, temperatures that are not positive, or wrong bounds.

    Warns
    -----
    DataWarning
        Once, if temperatures or volumes found are outside of the training data.
    """
    surfaces = _surfaces(model, bounds)
    t = _numbers(temperature, "temperature", "K", positive=True).copy()
    flat = t.reshape(-1)
    names = ("volume_low", "volume_high", "pressure_low", "pressure_high")
    values = {name: np.full((surfaces.n, len(flat)), np.nan) for name in names}
    found = np.zeros((surfaces.n, len(flat)), bool)
    for some, points, number in surfaces.chunks(flat):
        scan = surfaces.scan(np.repeat(np.arange(surfaces.n), len(some)), np.tile(some, surfaces.n))
        gaps, gap = scan.gaps, surfaces.deepest(scan)
        row = np.arange(surfaces.n)[:, None] * len(some) + number
        there = gap[row] >= 0
        found[:, points] = there
        if not len(gaps.row):
            continue
        ends = (gaps.low, gaps.closed_low), (gaps.high, gaps.closed_high)
        pressures = (gaps.p_low * GPA, gaps.closed_low), (gaps.p_high * GPA, gaps.closed_high)
        for name, (value, closed) in zip(names, (*ends, *pressures), strict=True):
            values[name][:, points] = np.where(there & closed[gap[row]], value[gap[row]], np.nan)
    outside = _outside(model, [values["volume_low"][0], values["volume_high"][0]], flat)
    _warn(model, flat, outside)
    return Spinodal(
        temperature=t,
        share_of_members=_share(surfaces, found).reshape(t.shape),
        extrapolated=outside.reshape(t.shape),
        **_collect(surfaces, values, t.shape),
    )


def binodal(model: Any, temperature: npt.ArrayLike, *, bounds: tuple[float, float] | None = None) -> Binodal:
    """Coexistence of two volumes: the common tangent of F at each temperature.

    For each pair of stable branches of an isotherm, the pressure is found at which both have the same Gibbs energy. It
    is unique, since the difference of the two falls with pressure; so temperatures do not depend on each other. A pair
    is left out if a third branch, or an end of the bounds, is more stable at its pressure. Among several coexistences,
    that with the highest barrier (distance of F above the tangent) is given.

    Parameters
    ----------
    model : FreeEnergyModel
    temperature : array_like, K
    bounds : (float, float), optional, Å3
        As of `equilibrium`. Both volumes must lie within.

    Returns
    -------
    Binodal

    Raises
    ------
    ValueError
        For models of something else than volumes, temperatures that are not positive, or wrong bounds.

    Warns
    -----
    DataWarning
        Once, if temperatures or volumes found are outside of the training data.
    """
    surfaces = _surfaces(model, bounds)
    t = _numbers(temperature, "temperature", "K", positive=True).copy()
    flat = t.reshape(-1)
    values = {name: np.full((surfaces.n, len(flat)), np.nan) for name in ("pressure", "volume_low", "volume_high")}
    for some, points, number in surfaces.chunks(flat):
        scan = surfaces.scan(np.repeat(np.arange(surfaces.n), len(some)), np.tile(some, surfaces.n))
        row = np.arange(surfaces.n)[:, None] * len(some) + number
        for value, result, unit in zip(values.values(), surfaces.coexistence(scan), (GPA, 1.0, 1.0), strict=True):
            value[:, points] = result[row] * unit
    outside = _outside(model, [values["volume_low"][0], values["volume_high"][0]], flat)
    _warn(model, flat, outside)
    return Binodal(
        temperature=t,
        share_of_members=_share(surfaces, np.isfinite(values["pressure"])).reshape(t.shape),
        extrapolated=outside.reshape(t.shape),
        **_collect(surfaces, values, t.shape),
    )


def critical_point(
    model: Any,
    *,
    kind: str = "upper",
    bounds: tuple[float, float] | None = None,
    temperature: tuple[float, float] | None = None,
) -> CriticalPoint | None:
    """The critical point: F_VV = F_VVV = 0 where an instability closes.

    Unstable gaps are followed over temperature, and Newton steps with fourth derivatives end at the point where one
    closes. Of several, that of the highest temperature is given. An instability may end at a low temperature as well:
    ``kind="lower"`` asks for the lowest temperature at which one closes on cooling. Gaps that live for less than 1/128
    of the range of temperature may be missed.

    Parameters
    ----------
    model : FreeEnergyModel
    kind : {"upper", "lower"}
        Whether the instability closes on heating or on cooling.
    bounds : (float, float), optional, Å3
        As of `equilibrium`.
    temperature : (float, float), optional, K
        Range of temperature to search. By default that of the training data.

    Returns
    -------
    CriticalPoint or None
        None if the mean surface has none within the ranges, whatever the members have.

    Raises
    ------
    ValueError
        For models of something else than volumes, an unknown kind, or wrong bounds or temperatures.

    Warns
    -----
    DataWarning
        If the point is outside of the training data.
    """
    one_of(kind, "kind", KINDS)
    surfaces = _surfaces(model, bounds)
    low, high = _temperatures(model, temperature)
    t, v = critical(surfaces, low, high, kind == "upper")
    p = np.full(surfaces.n, np.nan)
    there = np.flatnonzero(np.isfinite(t))
    if np.isnan(t[0]):
        return None
    p[there] = -surfaces.at(v[there], t[there], there, (1, 0))[0] * GPA
    outside = _outside(model, [v[:1]], t[:1])
    _warn(model, t[:1], outside)
    values = {"temperature": t[:, None], "volume": v[:, None], "pressure": p[:, None]}
    return CriticalPoint(
        **{name: float(value) for name, value in _collect(surfaces, values, ()).items()},
        share_of_members=float(_share(surfaces, np.isfinite(t))),
        extrapolated=bool(outside[0]),
        kind=kind,
    )


def _temperatures(model: Any, temperature: tuple[float, float] | None) -> tuple[float, float]:
    """A range of temperature; ValueError if it is none."""
    if temperature is None:
        low, high = np.asarray(model.T_range_, np.float64)
        return float(low), float(high)
    pair = _numbers(temperature, "temperature", "K", positive=True).reshape(-1)
    if len(pair) != 2 or not pair[0] < pair[1]:
        raise ValueError(f"temperature must be two temperatures in K, the lower one first, got {temperature!r}")
    return float(pair[0]), float(pair[1])


# --- negative thermal expansion ---------------------------------------------------------------------------------------


def negative_expansion(
    model: Any,
    pressure: npt.ArrayLike,
    temperature: tuple[float, float] | None = None,
    *,
    bounds: tuple[float, float] | None = None,
    n_temperatures: int = 201,
) -> NegativeExpansion:
    """Temperatures at which the stable state shrinks when heated, for each pressure.

    The stable state is found at ``n_temperatures`` temperatures. Ends of ranges are then refined: zeros of α along a
    branch, and temperatures of equal Gibbs energy where the stable state jumps to another branch. A jump ends a range
    even if α is negative on both sides. Ranges that fit between two temperatures of the grid may be missed.

    Parameters
    ----------
    model : FreeEnergyModel
    pressure : float or array_like, shape (n,), GPa
    temperature : (float, float), optional, K
        Range to search. By default that of the training data.
    bounds : (float, float), optional, Å3
        As of `equilibrium`.
    n_temperatures : int

    Returns
    -------
    NegativeExpansion

    Raises
    ------
    ValueError
        For models of something else than volumes, pressures that are not finite, temperatures that are no range, wrong
        bounds, or fewer than two temperatures.

    Warns
    -----
    DataWarning
        Once, if temperatures are outside of the training data.
    """
    surfaces = _surfaces(model, bounds)
    p_gpa = np.atleast_1d(_numbers(pressure, "pressure", "GPa", positive=False)).copy()
    if p_gpa.ndim != 1:
        raise ValueError(f"pressure must be a number or a list of them, got an array of shape {p_gpa.shape}")
    low, high = _temperatures(model, temperature)
    t = np.linspace(low, high, whole_number(n_temperatures, "n_temperatures", 2))
    series = _Series(surfaces, np.repeat(np.arange(surfaces.n), len(p_gpa)), np.tile(p_gpa / GPA, surfaces.n), t)
    found = series.ranges()
    members = range(0, 1) if surfaces.n == 1 else range(1, surfaces.n)
    result, shares = [], []
    for j in range(len(p_gpa)):
        own = [found[m * len(p_gpa) + j] for m in members]
        result.append(tuple(_with_spread(model, span, own) for span in found[j]))
        shares.append(np.mean([len(spans) > 0 for spans in own]))
    ends = np.array([low, high])
    _warn(model, ends, _outside(model, [], ends))
    return NegativeExpansion(p_gpa, (low, high), tuple(result), np.array(shares))


#: Ends of a range and their kinds.
_Span = tuple[float, float, str, str]


def _with_spread(model: Any, span: _Span, members: list[list[_Span]]) -> TemperatureRange:
    """A range of the mean surface, with the spread of the ranges of the members that overlap with it."""

    def overlap(other: _Span) -> float:
        return min(span[1], other[1]) - max(span[0], other[0])

    best = [max(own, key=overlap) for own in members if own]
    best = [other for other in best if overlap(other) > 0.0]
    spreads = []
    for end in (0, 1):
        real = span[2 + end] in ("zero", "jump")
        values = [other[end] for other in best if real and other[2 + end] in ("zero", "jump")]
        spreads.append(float(_spread(np.array(values))))
    outside = bool(_outside(model, [], np.array(span[:2])).any())
    low, high, low_kind, high_kind = span
    share = len(best) / len(members)
    return TemperatureRange(low, high, low_kind, high_kind, spreads[0], spreads[1], share, outside)


class _Series:
    """Stable states of isobars over a grid of temperatures.

    Parameters
    ----------
    surfaces : Surfaces
    who : numpy.ndarray of int, shape (K,)
        Surface of each isobar.
    p : numpy.ndarray, shape (K,), eV/Å3
    t : numpy.ndarray, shape (n,), K
    """

    def __init__(self, surfaces: Surfaces, who: IntArray, p: FloatArray, t: FloatArray) -> None:
        self.surfaces, self.who, self.p, self.t = surfaces, who, p, t
        shape = len(who), len(t)
        flat = surfaces.stable(np.repeat(who, len(t)), np.repeat(p, len(t)), np.tile(t, len(who)))
        self.v, self.low, self.high = (values.reshape(shape) for values in flat)
        self.falls = self._falls(np.repeat(who, len(t)), self.v.reshape(-1), np.tile(t, len(who))).reshape(shape)

    def _falls(self, who: IntArray, v: FloatArray, t: FloatArray) -> BoolArray:
        """Whether volumes fall with temperature: α < 0 where F_VT > 0."""
        result = np.zeros(len(v), bool)
        there = np.flatnonzero(np.isfinite(v))
        if len(there):
            result[there] = self.surfaces.at(v[there], t[there], who[there], (1, 1))[0] > 0.0
        return result

    def ranges(self) -> list[list[_Span]]:
        """Ranges of negative expansion of each isobar."""
        k, i, t_jump, before, after = self._jumps()
        jumps = dict(
            zip(zip(k.tolist(), i.tolist(), strict=True), zip(t_jump, before, after, strict=True), strict=True)
        )
        # stretches without jumps: temperatures, volumes and signs; and what ends them
        stretches: list[tuple[int, list[tuple[float, float, bool]], str, str]] = []
        for number in range(len(self.who)):
            nodes: list[tuple[float, float, bool]] = []
            kind = "range"
            for j, t in enumerate(self.t):
                if np.isnan(self.v[number, j]):
                    if nodes:
                        stretches.append((number, nodes, kind, "bounds"))
                    nodes, kind = [], "bounds"
                    continue
                nodes.append((float(t), self.v[number, j], bool(self.falls[number, j])))
                if (number, j) in jumps:
                    at, left, right = jumps[number, j]
                    signs = self._falls(np.full(2, self.who[number]), np.array([left, right]), np.full(2, at))
                    stretches.append((number, [*nodes, (float(at), left, bool(signs[0]))], kind, "jump"))
                    nodes, kind = [(float(at), right, bool(signs[1]))], "jump"
            if nodes:
                stretches.append((number, nodes, kind, "range"))

        changes = [
            (s, n)
            for s, (_, nodes, _, _) in enumerate(stretches)
            for n in range(len(nodes) - 1)
            if nodes[n][2] != nodes[n + 1][2]
        ]
        zeros = self._zeros([(stretches[s][0], *stretches[s][1][n], *stretches[s][1][n + 1]) for s, n in changes])
        refined = dict(zip(changes, zeros, strict=True))

        result: list[list[_Span]] = [[] for _ in self.who]
        for s, (number, nodes, first, last) in enumerate(stretches):
            begin, kind = nodes[0][0], first
            for n, (t, _, falls) in enumerate(nodes):
                end, end_kind = (t, last) if n == len(nodes) - 1 else refined.get((s, n), (math.nan, ""))
                if not end_kind:
                    continue
                if falls and end > begin:
                    result[number].append((begin, end, kind, end_kind))
                begin, kind = end, end_kind
        return result

    def _jumps(self) -> tuple[IntArray, IntArray, FloatArray, FloatArray, FloatArray]:
        """Jumps between branches: isobar, number of the temperature before, temperature, volumes before and after.

        Suspects are neighbours one of which lies outside of the branch of the other. A jump is where two branches have
        the same Gibbs energy, lower than that of any other.
        """
        v1, v2 = self.v[:, :-1], self.v[:, 1:]
        away = (v2 < self.low[:, :-1]) | (v2 > self.high[:, :-1]) | (v1 < self.low[:, 1:]) | (v1 > self.high[:, 1:])
        k, i = np.nonzero(away)
        left, right, who, p = v1[k, i], v2[k, i], self.who[k], self.p[k]
        first, last = self.t[i], self.t[i + 1]
        t = 0.5 * (first + last)
        good = np.zeros(len(k), bool)
        for _ in range(60):
            if not len(k):
                break
            a = self.surfaces.at(left, t, who, (0, 0), (0, 1), (1, 0), (2, 0), (1, 1))
            b = self.surfaces.at(right, t, who, (0, 0), (0, 1), (1, 0), (2, 0), (1, 1))
            with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
                # volumes follow at constant pressure, where G changes by -S dT
                dt = -((a[0] - b[0]) + p * (left - right)) / (a[1] - b[1])
                dt = np.clip(np.nan_to_num(dt), first - t, last - t)
                steps = [-(d[2] + p + d[4] * dt) / d[3] for d in (a, b)]
                width = 0.25 * np.abs(right - left)
                steps = [np.clip(np.nan_to_num(step), -width, width) for step in steps]
            t, left, right = t + dt, left + steps[0], right + steps[1]
            small = [np.abs(step) <= 1e-10 * v for step, v in zip(steps, (left, right), strict=True)]
            good = (np.abs(dt) <= 1e-10 * t) & small[0] & small[1] & (a[3] > 0.0) & (b[3] > 0.0)
            if good.all():
                break
        good &= np.abs(left - right) > 1e-6 * np.abs(v1[k, i])
        some = np.flatnonzero(good)
        stable, _, _ = self.surfaces.stable(who[some], p[some], t[some])
        one_of_both = np.minimum(np.abs(stable - left[some]), np.abs(stable - right[some])) <= 1e-6 * left[some]
        some = some[one_of_both]
        return k[some], i[some], t[some], left[some], right[some]

    def _zeros(self, brackets: list[tuple[int, float, float, bool, float, float, bool]]) -> list[tuple[float, str]]:
        """Temperatures between two states at which α changes its sign, and how: zero or jump."""
        if not brackets:
            return []
        columns = [np.array(column) for column in zip(*brackets, strict=True)]
        k, t1, v1, falls1, t2, v2, _ = columns
        who, p = self.who[k], self.p[k]

        def follow(t: FloatArray, which: IntArray) -> FloatArray:
            share = (t - t1[which]) / (t2 - t1)[which]
            v = v1[which] + share * (v2 - v1)[which]
            for _ in range(30):
                f1, f2 = self.surfaces.at(v, t, who[which], (1, 0), (2, 0))
                with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
                    step = np.nan_to_num(-(f1 + p[which]) / f2)
                v = v + np.clip(step, -0.02 * v, 0.02 * v)
                if (np.abs(step) <= 1e-12 * v).all():
                    break
            return v

        def mixed(t: FloatArray, which: IntArray) -> tuple[FloatArray, FloatArray]:
            v = follow(t, which)
            f11, f2, f21, f12 = self.surfaces.at(v, t, who[which], (1, 1), (2, 0), (2, 1), (1, 2))
            with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
                return f11, f12 - f21 * f11 / f2

        every = np.arange(len(k))
        t = safe_newton(mixed, t1, t2, ~falls1)
        v = follow(t, every)
        stable, _, _ = self.surfaces.stable(who, p, t)
        (f11,) = self.surfaces.at(v, t, who, (1, 1))
        size = np.abs(self.surfaces.at(v1, t1, who, (1, 1))[0]) + np.abs(self.surfaces.at(v2, t2, who, (1, 1))[0])
        good = (np.abs(stable - v) <= 1e-6 * v) & (np.abs(f11) <= 1e-6 * size)
        kinds = np.where(good, "zero", "jump")

        # what is no smooth zero of one branch (several jumps between two temperatures): bisection on the stable state
        odd = np.flatnonzero(~good)
        low, high, start = t1[odd], t2[odd], falls1[odd]
        ends = [v1[odd], v2[odd]]
        for _ in range(60 if len(odd) else 0):
            middle = 0.5 * (low + high)
            v, _, _ = self.surfaces.stable(who[odd], p[odd], middle)
            same = self._falls(who[odd], v, middle) == start
            low, high = np.where(same, middle, low), np.where(same, high, middle)
            ends = [np.where(same, v, ends[0]), np.where(same, ends[1], v)]
        t[odd] = 0.5 * (low + high)
        kinds[odd] = np.where(np.abs(ends[1] - ends[0]) <= 1e-6 * ends[0], "zero", "jump")
        return [(float(at), str(kind)) for at, kind in zip(t, kinds, strict=True)]
