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
        Infinite ones are not drawn.
    largest : float
        dH beyond which the bounds are extrapolations.
    coverages : sequence of MeasuredCoverage
        Drawn in a panel of their own, if there are any.

    Raises
    ------
    DataError, MissingExtraError
        See `quests_zenn.io.plots.check_plot`.
    """
    figure = _figure(path, overwrite, (10.0, 4.2) if coverages else (6.4, 4.2))
    if coverages:
        left, right = figure.subplots(1, 2, width_ratios=[3, 2])
        _coverages(right, coverages)
    else:
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
        if np.isfinite(values).all():
            left.plot(at, np.maximum(values, floor), color=f"C{number}", lw=1.6, label=label)
    if at[-1] > largest:
        left.axvspan(largest, at[-1], color="0.9", zorder=0, label="beyond what calibrated it")
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
    left.legend(frameon=False, fontsize=8, loc="lower right")
    left.set_title(title, fontsize=10)
    _save(figure, path, overwrite)


def _coverages(axes: Any, coverages: Sequence[MeasuredCoverage]) -> None:
    low = min(min(float(one.measured.min()), one.band[0]) for one in coverages)
    bins = np.linspace(low - 0.01, 1.005, 41)
    for number, one in enumerate(coverages):
        color = f"C{number}"
        axes.axvspan(*one.band, color=color, alpha=0.12, lw=0)
        axes.hist(
            one.measured, bins=bins, color=color, alpha=0.6, label=f"{one.label}: mean {one.measured.mean():.1%}",
            weights=np.full(len(one.measured), 1.0 / len(one.measured)),
        )  # fmt: skip
        axes.axvline(one.level, color=color, lw=1.2, ls="--")
    axes.legend(frameon=False, fontsize=8, loc="upper left")
    axes.set_title("dashed: level; shaded: room for 95%", fontsize=10)
    axes.set_xlabel("coverage on held-out structures")
    axes.set_ylabel("share of the splits")
