"""Figures about errors and their bounds."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from quests_zenn.io.plots import _figure, _save

#: Points up to which all are drawn; of more, an even part.
MOST_POINTS = 20_000


@dataclass(frozen=True)
class MeasuredCoverage:
    """Coverage of one level over random splits."""

    label: str
    measured: npt.NDArray[np.float64]
    level: float
    band: tuple[float, float]


def plot_calibration(
    path: str | os.PathLike[str],
    *,
    dh: npt.NDArray[np.float64],
    errors: npt.NDArray[np.float64],
    at: npt.NDArray[np.float64],
    bounds: Sequence[tuple[str, npt.NDArray[np.float64]]],
    largest: float,
    coverages: Sequence[MeasuredCoverage] = (),
    x_label: str,
    y_label: str,
    title: str = "",
    overwrite: bool = False,
) -> None:
    """Errors against dH below their bounds, and how coverage is distributed over random splits.

    Parameters
    ----------
    path : str or path
        Ends in .png, .pdf or .svg.
    dh, errors : (n,)
        nats; magnitudes. Points whose dH is infinite are left out; errors next to zero lie on the lower
        edge. At least one dH is finite.
    at : (m,)
        dH at which the bounds are given, ascending.
    bounds : sequence of (label, values (m,))
        Drawn where they are finite.
    largest : float
        dH beyond which there is no bound.
    coverages : sequence of MeasuredCoverage
        Each is drawn in a panel of its own, one below the other.

    Raises
    ------
    DataError, MissingExtraError
        See `quests_zenn.io.plots.check_plot`.
    """
    if coverages:
        figure = _figure(path, overwrite, (10.0, max(4.2, 1.4 * len(coverages))))
        grid = figure.add_gridspec(len(coverages), 2, width_ratios=[3, 2])
        left = figure.add_subplot(grid[:, 0])
        _coverages(figure, grid, coverages)
    else:
        figure = _figure(path, overwrite, (6.4, 4.2))
        left = figure.subplots()
    known = np.flatnonzero(np.isfinite(dh))
    known = known[:: max(1, -(-len(known) // MOST_POINTS))]
    positive = errors[errors > 0.0]
    # errors of atoms that symmetry holds in place are rounding, and would fill most of a logarithmic axis
    floor = max(1e-3 * float(np.median(positive)), 0.5 * float(positive.min())) if len(positive) else 1e-6
    size = 3.0 if len(known) > 3000 else 8.0
    shown = np.maximum(errors[known], floor)
    left.scatter(dh[known], shown, s=size, color="0.6", lw=0, alpha=0.6, rasterized=True, label="errors")
    for number, (label, values) in enumerate(bounds):
        finite = np.isfinite(values)
        if finite.any():
            drawn = np.where(finite, np.maximum(values, floor), np.nan)
            left.plot(at, drawn, color=f"C{number}", lw=1.6, label=label)
    if at[-1] > largest:
        # hatched, and with an edge: seen as a patch in the legend as well
        left.axvspan(
            max(largest, at[0]), at[-1], facecolor="0.93", edgecolor="0.7", hatch="///", lw=0.6, zorder=0,
            label="no bound: beyond all that calibrated it",
        )  # fmt: skip
    if shown.max() > 10.0 * shown.min():
        left.set_yscale("log")
        left.set_ylim(bottom=0.8 * floor)
        left.yaxis.set_major_formatter("{x:g}")
        left.yaxis.set_minor_formatter("")
    if dh[known].max() > 100.0:  # far environments grow with the square of their distance
        left.set_xscale("symlog", linthresh=10.0)
        left.xaxis.set_major_formatter("{x:g}")
    left.set_xlabel(x_label)
    left.set_ylabel(y_label)
    left.legend(framealpha=0.9, edgecolor="none", fontsize=8, loc="lower right", markerscale=2.0)
    left.set_title(title, fontsize=10)
    _save(figure, path, overwrite)


def _coverages(figure: Any, grid: Any, coverages: Sequence[MeasuredCoverage]) -> None:
    """A histogram for each level: side by side in one panel they would hide each other."""
    low = min(min(float(one.measured.min()), one.band[0]) for one in coverages)
    bins = np.linspace(low - 0.01, 1.005, 41)
    first = axes = None
    for number, one in enumerate(coverages):
        axes = figure.add_subplot(grid[number, 1], sharex=first)
        first = axes if first is None else first
        axes.axvspan(
            *one.band, facecolor="0.9", edgecolor="0.6", lw=0.6, zorder=0, label="where 95% of the splits should lie"
        )
        axes.hist(
            one.measured, bins=bins, color=f"C{number}", alpha=0.8,
            weights=np.full(len(one.measured), 1.0 / len(one.measured)),
        )  # fmt: skip
        axes.axvline(one.level, color="k", lw=1.2, ls="--", label="level")
        axes.set_title(f"{one.label}: mean coverage {one.measured.mean():.1%}", fontsize=9, loc="left")
        axes.set_ylabel("share of splits")
        axes.tick_params(labelbottom=one is coverages[-1])
    if first is not None and axes is not None:
        handles, labels = first.get_legend_handles_labels()
        figure.legend(handles, labels, frameon=False, fontsize=8, loc="outside upper right", ncols=2)
        axes.set_xlabel("coverage on held-out structures")


def plot_bounds(
    path: str | os.PathLike[str],
    frames: npt.NDArray[np.int64],
    bounds: Sequence[tuple[str, npt.NDArray[np.float64]]],
    beyond: npt.NDArray[np.float64],
    *,
    y_label: str,
    of: str = "atoms",
    title: str = "",
    overwrite: bool = False,
) -> None:
    """Bounds along the frames, and how much of each frame has none.

    Parameters
    ----------
    path : str or path
        Ends in .png, .pdf or .svg.
    frames : (n,)
        Their numbers.
    bounds : sequence of (label, values (n,))
        Where one is infinite the line is broken.
    beyond : (n,)
        Share of each frame that lies beyond all that calibrated the bound; drawn below, if there is any.
    of : str
        Of what: atoms, or whole frames.

    Raises
    ------
    DataError, MissingExtraError
        See `quests_zenn.io.plots.check_plot`.
    """
    figure = _figure(path, overwrite, (6.4, 4.2))
    if beyond.any():
        top, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
        lower.bar(frames, beyond, width=1.0, color="0.5", lw=0)
        lower.set_ylim(0.0, 1.0)
        lower.set_ylabel("share")
        lower.set_title(f"{of} without a bound: beyond all that calibrated it", fontsize=9, loc="left")
    else:
        top = lower = figure.subplots()
    # between two gaps there is no line, but a point
    marker, size = ("o", 3.0) if len(frames) < 60 else (".", 2.0)
    for number, (label, values) in enumerate(bounds):
        shown = np.where(np.isfinite(values), values, np.nan)
        top.plot(frames, shown, color=f"C{number}", lw=1.3, marker=marker, ms=size, label=label)
    if not any(np.isfinite(values).any() for _, values in bounds):
        top.text(0.5, 0.5, "no frame has a finite bound", ha="center", va="center", transform=top.transAxes)
        top.set_yticks([])
    else:
        top.margins(y=0.2)
        top.set_ylim(bottom=0.0)
    top.set_ylabel(y_label)
    top.legend(framealpha=0.9, edgecolor="none", fontsize=8)
    top.set_title(title, fontsize=10)
    lower.set_xlabel("frame")
    _save(figure, path, overwrite)
