"""Figures about free energies."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from quests_zenn.io.plots import _figure, _save

FloatArray = npt.NDArray[np.float64]


def _nothing() -> FloatArray:
    return np.empty(0)


@dataclass(frozen=True)
class Residuals:
    """Model minus data at (x, T), each (n,); `x_label` where x is not what the other panels show."""

    label: str
    x: FloatArray
    T: FloatArray
    values: FloatArray
    x_label: str = ""


@dataclass(frozen=True)
class Line:
    """A line with a band of one standard deviation, and the data that belong to it."""

    label: str
    x: FloatArray
    mean: FloatArray
    std: FloatArray
    data_x: FloatArray = field(default_factory=_nothing)
    data_y: FloatArray = field(default_factory=_nothing)


@dataclass(frozen=True)
class Ruling:
    """p_k on a grid: x (m,), T (n,), probabilities (n, m, K); a single temperature is shown as lines."""

    x: FloatArray
    T: FloatArray
    probabilities: FloatArray


@dataclass(frozen=True)
class Transitions:
    """Lines in the plane of pressure and temperature. T (n,) in K; all else (n,) in GPa, NaN where there is none.

    `critical` is temperature, its standard deviation, pressure, its standard deviation; None where there is none. A
    committee of one has no deviations: None.
    """

    T: FloatArray
    spinodal_low: FloatArray
    spinodal_low_std: FloatArray
    spinodal_high: FloatArray
    spinodal_high_std: FloatArray
    binodal: FloatArray
    binodal_std: FloatArray
    critical: tuple[float, float | None, float, float | None] | None = None


def plot_fit(
    path: str | os.PathLike[str],
    *,
    x_label: str,
    residuals: Sequence[Residuals],
    isotherms: Sequence[tuple[str, Sequence[Line]]] = (),
    ruling: Ruling | None = None,
    title: str = "",
    overwrite: bool = False,
) -> None:
    """What a free energy fits: residuals, isotherms with data and band, and which configuration rules where.

    Parameters
    ----------
    path : str or path
        Ends in .png, .pdf or .svg.
    x_label : str
        Name and unit of the (first) coordinate.
    residuals : sequence of Residuals
        One for each target.
    isotherms : sequence of (label, lines)
        One panel for each.
    ruling : Ruling or None

    Raises
    ------
    DataError, MissingExtraError
        See `quests_zenn.io.plots.check_plot`.
    """
    n_panels = len(residuals) + len(isotherms) + (ruling is not None)
    panels, figure = _panels(path, overwrite, n_panels)
    for found in residuals:
        axes = next(panels)
        several = len(np.unique(found.T)) > 1
        colours = {"c": found.T, "cmap": "plasma"} if several else {"color": "C0"}
        dots = axes.scatter(found.x, found.values, s=7, lw=0, rasterized=True, **colours)
        if several:
            figure.colorbar(dots, ax=axes, label="T (K)")
        axes.axhline(0.0, color="k", lw=0.8)
        axes.set_xlabel(found.x_label or x_label)
        axes.set_ylabel(found.label)
    for label, lines in isotherms:
        _lines(next(panels), lines, x_label, label)
    if ruling is not None:
        (_map if len(ruling.T) > 1 else _profiles)(next(panels), ruling, x_label)
    figure.suptitle(title, fontsize=10)
    _save(figure, path, overwrite)


def plot_thermo(
    path: str | os.PathLike[str],
    *,
    transitions: Transitions,
    isobars: Sequence[tuple[str, Sequence[Line]]],
    isotherms: Sequence[Line],
    T_range: tuple[float, float],
    x_range: tuple[float, float],
    title: str = "",
    overwrite: bool = False,
) -> None:
    """Phase diagram, isobars and isotherms of a free energy over volume and temperature.

    Parameters
    ----------
    path : str or path
        Ends in .png, .pdf or .svg.
    transitions : Transitions
    isobars : sequence of (label, lines)
        Quantities along temperature; one panel for each, one line for each pressure.
    isotherms : sequence of Line
        Pressure (GPa) along volume (Å3).
    T_range, x_range : (low, high)
        Range of the fit, K and Å3: outside, panels are grey.

    Raises
    ------
    DataError, MissingExtraError
        See `quests_zenn.io.plots.check_plot`.
    """
    panels, figure = _panels(path, overwrite, 2 + len(isobars))
    _phases(next(panels), transitions, T_range)
    for label, lines in isobars:
        axes = next(panels)
        _lines(axes, lines, "T (K)", label)
        if label.startswith("thermal"):
            axes.axhline(0.0, color="k", lw=0.8)
        _grey_outside(axes, *T_range)
    axes = next(panels)
    _lines(axes, isotherms, "volume (Å3)", "P (GPa)")
    _grey_outside(axes, *x_range)
    figure.suptitle(title, fontsize=10)
    _save(figure, path, overwrite)


def _panels(path: str | os.PathLike[str], overwrite: bool, n: int) -> tuple[Any, Any]:
    """A figure of n panels, at most three in a row, all rows filled, and an iterator over the panels."""
    n_rows = -(-n // 3)
    columns = -(-n // n_rows)
    in_row = [n // n_rows + (row < n % n_rows) for row in range(n_rows)]
    figure = _figure(path, overwrite, (4.7 * columns, 3.7 * n_rows))
    grid = figure.add_gridspec(n_rows, math.lcm(*in_row))  # rows of fewer panels have wider ones
    panels = []
    for row, count in enumerate(in_row):
        width = math.lcm(*in_row) // count
        panels += [figure.add_subplot(grid[row, i * width : (i + 1) * width]) for i in range(count)]
    return iter(panels), figure


def _lines(axes: Any, lines: Sequence[Line], x_label: str, y_label: str) -> None:
    import matplotlib

    colours = matplotlib.colormaps["viridis"](np.linspace(0.0, 0.88, max(1, len(lines))))
    for line, colour in zip(lines, colours, strict=True):
        known = np.isfinite(line.mean)
        marker = "o" if known.sum() == 1 else None
        axes.plot(line.x, line.mean, color=colour, lw=1.4, marker=marker, ms=3, label=line.label)
        std = np.where(np.isfinite(line.std), line.std, 0.0)
        axes.fill_between(line.x, line.mean - std, line.mean + std, color=colour, alpha=0.25, lw=0)
        axes.plot(line.data_x, line.data_y, ".", color=colour, ms=3, alpha=0.7)
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    if 0 < len(lines) <= 12:
        axes.legend(frameon=False, fontsize=7)


def _grey_outside(axes: Any, low: float, high: float) -> None:
    """Grey where a panel shows more than the range of the fit."""
    left, right = axes.get_xlim()
    for start, end in ((left, low), (high, right)):
        if start < end:
            axes.axvspan(start, end, color="0.9", zorder=-1, lw=0)
    axes.set_xlim(left, right)


def _profiles(axes: Any, ruling: Ruling, x_label: str) -> None:
    """p_k along x, where there is one temperature only; those that are never seen are left out."""
    p = ruling.probabilities[0]
    for k in np.argsort(-p.mean(axis=0), kind="stable")[:12]:
        if p[:, k].max() > 0.01:
            axes.plot(ruling.x, p[:, k], lw=1.4, label=f"configuration {k}")
    axes.set_ylim(-0.03, 1.03)
    axes.set_xlabel(x_label)
    axes.set_ylabel(f"p at {ruling.T[0]:g} K")
    axes.legend(frameon=False, fontsize=7)


def _map(axes: Any, ruling: Ruling, x_label: str) -> None:
    """The colour of the configuration that is the likeliest, paler where others share."""
    import matplotlib
    from matplotlib.patches import Patch

    p = ruling.probabilities
    ruler, most = p.argmax(axis=2), p.max(axis=2)
    rulers = np.unique(ruler)
    # those that rule most come first, in the colours that differ most
    rulers = rulers[np.argsort([-(ruler == k).sum() for k in rulers], kind="stable")]
    table = matplotlib.colormaps["tab20"](range(20))[:, :3]
    order = [*range(0, 20, 2), *range(1, 20, 2)]
    image = np.ones((*ruler.shape, 3))
    least = 1.0 / p.shape[2]
    strength = np.ones_like(most) if p.shape[2] == 1 else np.clip((most - least) / (1.0 - least), 0.0, 1.0)
    handles = []
    for number, k in enumerate(rulers):
        colour = table[order[number % 20]]
        here = ruler == k
        weight = (0.2 + 0.8 * strength[here])[:, None]
        image[here] = weight * colour + (1.0 - weight)
        if number < 12:
            handles.append(Patch(color=tuple(colour.tolist()), label=f"{k}: {here.mean():.0%}"))
    extent = (ruling.x[0], ruling.x[-1], ruling.T[0], ruling.T[-1])
    axes.imshow(image, origin="lower", aspect="auto", extent=extent, interpolation="nearest")
    axes.set_xlabel(x_label)
    axes.set_ylabel("T (K)")
    axes.set_title("configuration with the largest p (pale: others share)", fontsize=9)
    axes.legend(
        handles=handles, title="configuration:\nshare of the map", fontsize=7, title_fontsize=7, loc="upper right",
        framealpha=0.85,
    )  # fmt: skip


def _phases(axes: Any, found: Transitions, T_range: tuple[float, float]) -> None:
    """Pressure and temperature: between the spinodal lines two phases may both last."""
    shown = [
        ("spinodal", "C0", found.spinodal_low, found.spinodal_low_std),
        (None, "C0", found.spinodal_high, found.spinodal_high_std),
        ("binodal", "C1", found.binodal, found.binodal_std),
    ]
    for label, colour, pressure, std in shown:
        T, pressure, std = _up_to(found, pressure, std)
        if not np.isfinite(pressure).any():
            continue
        width = np.where(np.isfinite(std), std, 0.0)
        axes.plot(T, pressure, color=colour, lw=1.4, marker="o" if np.isfinite(pressure).sum() == 1 else None, ms=3,
                  label=label)  # fmt: skip
        axes.fill_between(T, pressure - width, pressure + width, color=colour, alpha=0.25, lw=0)
    if found.critical is not None:
        at, at_std, height, height_std = found.critical
        errors = {"xerr": _error(at_std), "yerr": _error(height_std)}
        axes.errorbar(at, height, **errors, fmt="o", color="C3", ms=5, capsize=3, label="critical point")
    lines = [values for _, _, values, _ in shown]
    if found.critical is None and not any(np.isfinite(values).any() for values in lines):
        axes.text(0.5, 0.5, "no instability", transform=axes.transAxes, ha="center", color="0.4")
        axes.set_xlim(*(T_range if T_range[0] < T_range[1] else (T_range[0] - 1.0, T_range[0] + 1.0)))
    else:
        axes.legend(frameon=False, fontsize=8)
    axes.set_xlabel("T (K)")
    axes.set_ylabel("P (GPa)")
    _grey_outside(axes, *T_range)


def _up_to(found: Transitions, pressure: FloatArray, std: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """A line that ends within one step of temperature below the critical point goes on to it."""
    if found.critical is None:
        return found.T, pressure, std
    at, _, height, height_std = found.critical
    i = int(np.searchsorted(found.T, at))
    known = np.isfinite(pressure)
    if i == 0 or at in found.T or not known[i - 1] or known[i:].any():
        return found.T, pressure, std
    return (
        np.insert(found.T, i, at),
        np.insert(pressure, i, height),
        np.insert(std, i, np.nan if height_std is None else height_std),
    )


def _error(std: float | None) -> float | None:
    return std if std is not None and np.isfinite(std) and std > 0.0 else None
