"""From what a user gives to rows that a model is fitted on: units, missing values, weights, and what they fix."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from quests_zenn._core.checks import DataError
from quests_zenn.zenn._parts import GPA
from quests_zenn.zenn._problem import Rows

FloatArray = npt.NDArray[np.float64]

#: Fewer rows than this fix nothing.
LEAST_ROWS = 4

SYMBOLS = ("F", "U", "P", "S", "mu", "density")


#: Numbers beyond these are mistakes of units, and their squares would leave the range of numbers.
LARGEST, COLDEST, HOTTEST = 1e12, 1e-6, 1e12


def as_numbers(values: Any, what: str, more: str = "") -> FloatArray:
    """Real numbers as a float array; what a mask hides is NaN.

    Raises
    ------
    DataError
        If they are no numbers.
    """
    try:
        if isinstance(values, np.ma.MaskedArray):
            values = np.ma.filled(values.astype(np.float64), np.nan)
        array = np.asarray(values)
        if array.dtype.kind not in "fiubO":
            raise TypeError
        return np.array(array, dtype=np.float64)
    except (TypeError, ValueError):
        raise DataError(f"{what} must be numbers{more}") from None


def as_points(x: npt.ArrayLike) -> FloatArray:
    """(n, q) floats.

    Raises
    ------
    DataError
        If they are not, or not finite.
    """
    points = as_numbers(x, "x", ", of shape (n,) or (n, q)")
    if points.ndim == 0:
        points = points[None]
    if points.ndim == 1:
        points = points[:, None]
    if points.ndim != 2 or 0 in points.shape:
        raise DataError(f"x must be of shape (n,) or (n, q), got {np.shape(x)}")
    bad = np.flatnonzero(~np.isfinite(points).all(1))
    if len(bad):
        raise DataError(f"x of row {bad[0]} is not finite; leave such rows out")
    return points


def as_temperatures(T: npt.ArrayLike, count: int) -> FloatArray:
    """(n,) positive temperatures.

    Raises
    ------
    DataError
        If they are not.
    """
    values = as_numbers(T, "T", ", of shape (n,)")
    if values.ndim == 0:
        values = np.full(count, float(values))
    if values.shape != (count,):
        raise DataError(f"T must hold one temperature for each of the {count} rows of x, got shape {values.shape}")
    bad = np.flatnonzero(~(np.isfinite(values) & (values > 0.0)))
    if len(bad):
        raise DataError(f"T of row {bad[0]} is {values[bad[0]]}: temperatures must be positive and finite")
    bad = np.flatnonzero((values < COLDEST) | (values > HOTTEST))
    if len(bad):
        raise DataError(
            f"T of row {bad[0]} is {values[bad[0]]:g}: temperatures must lie between {COLDEST:g} and {HOTTEST:g}"
        )
    return values


def make_rows(
    x: npt.ArrayLike,
    T: npt.ArrayLike,
    given: Mapping[str, Any],
    weight: npt.ArrayLike | None,
    errors: Mapping[str, Any] | None,
    coordinate: str,
) -> Rows:
    """Rows with at least one target, in the units of the fit.

    Raises
    ------
    DataError
        If something is missing, has another shape, or makes no sense.
    """
    points = as_points(x)
    count, q = points.shape
    temperatures = as_temperatures(T, count)
    far = np.flatnonzero((np.abs(points) > LARGEST).any(1))
    if len(far):
        raise DataError(f"x of row {far[0]} is beyond {LARGEST:g}; choose a unit in which it is not")
    if coordinate == "volume":
        if q != 1:
            raise DataError(f"x has {q} columns, but a volume is one; say coordinate='order' for other coordinates")
        bad = np.flatnonzero(points[:, 0] <= 0.0)
        if len(bad):
            raise DataError(
                f"x of row {bad[0]} is {points[bad[0], 0]}, which is no volume; others need coordinate='order'"
            )
    targets: dict[str, FloatArray] = {}
    for symbol in SYMBOLS:
        values = given.get(symbol)
        if values is not None:
            targets.update(_targets(symbol, values, count, q, coordinate))
    targets = {kind: values for kind, values in targets.items() if not np.isnan(values).all()}
    if not targets:
        raise DataError(
            "no target was given: one or more of F, U, P, S, mu, density are needed, with a number in some row"
        )
    deviations = _errors({} if errors is None else errors, targets, count, q)
    weights = _weights(weight, count)
    used = np.zeros(count, dtype=bool)
    for values in targets.values():
        used |= ~np.isnan(values)
    used &= weights > 0.0
    if used.sum() < LEAST_ROWS:
        raise DataError(f"{int(used.sum())} rows have a target and a weight; a model needs at least {LEAST_ROWS}")
    order = np.flatnonzero(used)
    cell = None
    if "density" in targets:
        order = order[np.argsort(temperatures[order], kind="stable")]
    targets = {kind: values for kind, values in targets.items() if not np.isnan(values[order]).all()}
    rows = Rows(
        np.ascontiguousarray(points[order]),
        temperatures[order].copy(),
        {kind: values[order].copy() for kind, values in targets.items()},
        {kind: values[order].copy() for kind, values in deviations.items() if kind in targets},
        weights[order] / weights[order].mean(),
    )
    if "density" in targets:
        cell = _normalised(rows)
        rows.cell = cell
    return rows


def _targets(symbol: str, values: Any, count: int, q: int, coordinate: str) -> dict[str, FloatArray]:
    array = as_numbers(values, symbol, ", NaN where there is none")
    if symbol == "mu":
        array = array[:, None] if array.ndim == 1 else array
        if array.shape != (count, q):
            raise DataError(f"mu must be of shape ({count}, {q}) as x is, got {np.shape(values)}")
    elif array.shape != (count,):
        raise DataError(
            f"{symbol} must hold one number for each of the {count} rows of x, got shape {np.shape(values)}"
        )
    bad = np.argwhere(np.isinf(array))
    if len(bad):
        raise DataError(f"{symbol} of row {bad[0][0]} is infinite; write NaN where there is no value")
    far = np.argwhere(np.abs(array) > LARGEST)
    if len(far) and symbol != "density":
        raise DataError(
            f"{symbol} of row {far[0][0]} is {array[tuple(far[0])]:g}: beyond {LARGEST:g} it can be no {symbol}"
        )
    if symbol == "mu":
        return {f"mu_{i}": array[:, i] for i in range(q)}
    if symbol == "P":
        if coordinate != "volume":
            raise DataError("P needs x to be a volume; give mu, the derivative of F in x, for other coordinates")
        array = array / GPA
    if symbol == "density" and (array[~np.isnan(array)] < 0.0).any():
        raise DataError(f"density of row {int(np.flatnonzero(array < 0.0)[0])} is negative")
    return {symbol: array}


def _errors(given: Mapping[str, Any], targets: dict[str, FloatArray], count: int, q: int) -> dict[str, FloatArray]:
    if not isinstance(given, Mapping):
        raise ValueError(f"errors must be a mapping such as {{'P': 0.01}}, got {given!r}")
    made: dict[str, FloatArray] = {}
    for symbol, values in given.items():
        kinds = [kind for kind in targets if kind == symbol or (symbol == "mu" and kind.startswith("mu_"))]
        if not kinds:
            raise DataError(f"errors of {symbol} were given, but {symbol} itself was not")
        array = as_numbers(values, f"errors of {symbol}")
        if symbol == "mu" and array.shape in ((count, q), (q,)):
            columns = [np.broadcast_to(array[..., int(kind[3:])], (count,)) for kind in kinds]
        elif array.shape in ((), (count,)):
            columns = [np.broadcast_to(array, (count,))] * len(kinds)
        else:
            raise DataError(
                f"errors of {symbol} must be one number, or one for each of the {count} rows, got {array.shape}"
            )
        for kind, column in zip(kinds, columns, strict=True):
            if kind == "density":
                raise DataError("errors of densities are not used; leave them out")
            known = ~np.isnan(targets[kind])
            bad = np.flatnonzero(known & ~(np.isfinite(column) & (column > 0.0)))
            if len(bad):
                raise DataError(f"the error of {symbol} in row {bad[0]} is {column[bad[0]]}: errors must be positive")
            made[kind] = np.array(column / (GPA if kind == "P" else 1.0))
    return made


def _weights(weight: npt.ArrayLike | None, count: int) -> FloatArray:
    if weight is None:
        return np.ones(count)
    weights = as_numbers(weight, "sample_weight")
    if weights.shape != (count,):
        raise DataError(
            f"sample_weight must hold one number for each of the {count} rows of x, got shape {weights.shape}"
        )
    bad = np.flatnonzero(~(np.isfinite(weights) & (weights >= 0.0)))
    if len(bad):
        raise DataError(f"sample_weight of row {bad[0]} is {weights[bad[0]]}: weights must be finite and not negative")
    if not weights.any():
        raise DataError("all weights are zero")
    return weights / weights.max()


def _normalised(rows: Rows) -> FloatArray:
    """Densities become probabilities of the rows of one T; the share of x that each row stands for is returned."""
    density, cell = rows.targets["density"], np.ones(len(rows))
    if np.isnan(density).any():
        raise DataError("a density must be known in all rows, or at least in all that have a target")
    for temperature in np.unique(rows.T):
        here = np.flatnonzero(temperature == rows.T)
        if len(here) < 3:
            raise DataError(f"the density at T = {temperature:g} has {len(here)} rows; a distribution needs at least 3")
        if rows.x.shape[1] == 1:
            values = rows.x[here, 0]
            order = np.argsort(values)
            if (np.diff(values[order]) == 0.0).any():
                raise DataError(f"the density at T = {temperature:g} holds one x twice")
            width = np.empty(len(here))
            width[order] = np.gradient(values[order])
            cell[here] = width
        density[here] /= max(float(density[here].max()), 1e-300)
        total = float((density[here] * cell[here]).sum())
        if total <= 0.0:
            raise DataError(f"the density at T = {temperature:g} is zero everywhere")
        density[here] *= cell[here] / total
        cell[here] /= cell[here].sum()
    return cell


def what_is_known(kinds: list[str]) -> frozenset[str]:
    """Observables that targets fix: of F, S, U, C_V, P, B, mu.

    F fixes all. U or S, with what fixes the slope in x, do so up to constants. P, mu and densities alone say nothing of
    how F changes with T.
    """
    have = {kind.split("_")[0] for kind in kinds}
    slopes = {"P", "B", "mu"}
    in_x = bool(have & {"F", "P", "mu", "density"}) or {"U", "S"} <= have
    in_T = bool(have & {"F", "U", "S"})
    if in_x and in_T:
        return frozenset({"F", "S", "U", "C_V"} | slopes)
    if in_x:
        return frozenset({"F"} | slopes)
    return frozenset({"C_V"} | (have & {"U", "S"}))


def relative_to(kinds: list[str]) -> str:
    """What F and S are relative to, in words."""
    have = {kind.split("_")[0] for kind in kinds}
    if "F" in have:
        return "F as given; S, U and C_V follow from it"
    if {"U", "S"} <= have:
        return "U and S as given"
    if not have & {"U", "S"}:
        return "F up to a function of T: differences in x at one temperature"
    if not have & {"P", "mu", "density"}:
        return "U as given" if "U" in have else "S as given"
    if "U" in have:
        return "U as given; S up to a constant s0, F up to -s0 T"
    return "S as given; U and F up to a constant"
