"""What a run has found, ready for tables and figures."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from quests_zenn._core.checks import DataError
from quests_zenn.sampling.domain import Polytope

FloatArray = npt.NDArray[np.float64]

#: Points along a domain of one dimension.
LINE = 401

#: Points along each side of a slice.
RESOLUTION = 81

#: A known point is shown in a slice if it lies nearer than this share of the extent of the domain.
NEAR = 0.1


@dataclass(frozen=True)
class EnergySlice:
    """A free energy in a plane of the domain.

    Attributes
    ----------
    axes : (int, int)
    x, y : (m,)
    energy : (m, m), eV
        Row by row along y; the plane of least squares is taken off; NaN outside of the domain.
    unstable : (m, m) of bool
        Where the smallest eigenvalue of the Hessian in all order parameters is negative.
    points : (k, 2)
        Known points nearby.
    wells : (w, 2)
        Local minima of `energy` on the grid where the Hessian is positive.
    at : (q,)
        The point that the plane goes through.
    """

    axes: tuple[int, int]
    x: FloatArray
    y: FloatArray
    energy: FloatArray
    unstable: npt.NDArray[np.bool_]
    points: FloatArray
    wells: FloatArray
    at: FloatArray


@dataclass(frozen=True)
class EnergyLine:
    """A free energy of one order parameter.

    Attributes
    ----------
    x : (m,)
    energy : (m,), eV
        The line of least squares is taken off.
    mu : (m,), eV
        dg/dx, with its slope.
    unstable : (m,) of bool
        Where the second derivative is negative.
    wells : (w,)
        Local minima of `energy` where the second derivative is positive.
    """

    x: FloatArray
    energy: FloatArray
    mu: FloatArray
    unstable: npt.NDArray[np.bool_]
    wells: FloatArray


def shares(rounds: Sequence[Mapping[str, Any]]) -> dict[str, list[int]]:
    """Points of each criterion, one number for each round."""
    names = dict.fromkeys(name for entry in rounds for name in entry["by_criterion"])
    return {name: [entry["by_criterion"].get(name, {"points": 0})["points"] for entry in rounds] for name in names}


def asked_before(folder: Path | None) -> int:
    """Points of all rounds of a folder that have ended, failed ones included.

    Raises
    ------
    DataError
        If what a round says of itself is damaged.
    """
    count, number = 0, 0
    while folder is not None and os.path.exists(path := folder / "rounds" / f"{number:04d}" / "metrics.json"):
        try:
            count = int(json.loads(path.read_text(encoding="utf-8"))["n_points"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path}: is damaged ({error})") from error
        number += 1
    return count


def energy_line(model: Any, domain: Polytope, temperature: float, resolution: int = LINE) -> EnergyLine:
    """The free energy over a domain of one dimension.

    Parameters
    ----------
    model : FreeEnergyModel
    domain : Polytope
        Of one dimension.
    temperature : float, K
    resolution : int

    Returns
    -------
    EnergyLine

    Raises
    ------
    ValueError
        If the domain has more dimensions.
    """
    if domain.dim != 1:
        raise ValueError(f"a line needs a domain of one dimension, got one of {domain.dim}")
    low, high = np.asarray(domain.bounds, dtype=np.float64)[0]
    x = np.linspace(low, high, resolution)
    found = model.derivatives(x, np.full(len(x), temperature), [(0, 0), (1, 0), (2, 0)])
    free, mu, curvature = (np.asarray(found[order], dtype=np.float64) for order in ((0, 0), (1, 0), (2, 0)))
    design = np.column_stack([np.ones(len(x)), x])
    energy = free - design @ np.linalg.lstsq(design, free, rcond=None)[0]
    unstable = curvature < 0.0
    wells = _minima(x, np.zeros(1), energy[None], unstable[None])[:, 0]
    return EnergyLine(x, energy, mu, unstable, wells)


def energy_slice(
    model: Any,
    domain: Polytope,
    axes: tuple[int, int],
    temperature: float,
    known: FloatArray | None = None,
    at: FloatArray | None = None,
    resolution: int = RESOLUTION,
) -> EnergySlice:
    """The free energy in the plane of two order parameters through a point.

    Parameters
    ----------
    model : FreeEnergyModel
    domain : Polytope
        Of two dimensions and more.
    axes : (int, int)
    temperature : float, K
    known : array of shape (n, q), optional
    at : array of shape (q,), optional
        By default the centre of the domain.
    resolution : int

    Returns
    -------
    EnergySlice
    """
    plane = domain.slice(axes, at=at)
    low, high = np.asarray(plane.bounds).T
    x, y = (np.linspace(low[i], high[i], resolution) for i in range(2))
    flat = np.stack([part.ravel() for part in np.meshgrid(x, y)], axis=1)
    inside = plane.contains(flat)
    points = plane.embed(flat[inside])
    q = domain.dim
    zero = (0,) * (q + 1)
    orders = {(i, j): tuple(int(i == m) + int(j == m) for m in range(q + 1)) for i in range(q) for j in range(i, q)}
    found = model.derivatives(points, np.full(len(points), temperature), [zero, *orders.values()])
    hessian = np.empty((len(points), q, q))
    for (i, j), order in orders.items():
        hessian[:, i, j] = hessian[:, j, i] = found[order]
    stable = np.linalg.eigvalsh(hessian)[:, 0] > 0.0
    design = np.column_stack([np.ones(len(points)), flat[inside]])
    free = np.asarray(found[zero], dtype=np.float64)
    free = free - design @ np.linalg.lstsq(design, free, rcond=None)[0]
    energy = np.full(len(flat), np.nan)
    energy[inside] = free
    bad = np.zeros(len(flat), bool)
    bad[inside] = ~stable
    grid, unstable = energy.reshape(resolution, resolution), bad.reshape(resolution, resolution)
    near = np.empty((0, 2))
    middle = np.asarray(domain.centre if at is None else at, dtype=np.float64)
    if known is not None and len(known):
        others = [i for i in range(q) if i not in axes]
        extent = np.diff(np.asarray(domain.bounds), axis=1)[:, 0]
        gap = np.abs(known - middle) / extent
        near = known[(gap[:, others] < NEAR).all(axis=1)][:, list(axes)]
    return EnergySlice(axes, x, y, grid, unstable, near, _minima(x, y, grid, unstable), middle)


def _minima(x: FloatArray, y: FloatArray, energy: FloatArray, unstable: npt.NDArray[np.bool_]) -> FloatArray:
    """Points of a grid below all eight neighbours that lie in the domain."""
    padded = np.pad(np.where(np.isnan(energy), np.inf, energy), 1, constant_values=np.inf)
    n, m = energy.shape
    lowest = np.full(energy.shape, np.inf)
    for i in range(3):
        for j in range(3):
            if (i, j) != (1, 1):
                lowest = np.minimum(lowest, padded[i : i + n, j : j + m])
    rows, columns = np.nonzero((np.nan_to_num(energy, nan=np.inf) < lowest) & ~unstable & ~np.isnan(energy))
    return np.stack([x[columns], y[rows]], axis=1)
