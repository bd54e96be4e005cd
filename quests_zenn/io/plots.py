"""Figures. Drawn without pyplot, so that no state of the user's process is touched."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from quests_zenn._core.checks import DataError, MissingExtraError
from quests_zenn.io.outputs import check_output, replacing

FORMATS = (".png", ".pdf", ".svg")


@dataclass(frozen=True)
class Curve:
    """One quantity per frame."""

    label: str
    values: npt.NDArray[np.float64]


def check_plot(path: str | os.PathLike[str], overwrite: bool = False) -> Path:
    """`path`, if a figure can be written there: its format is known, and matplotlib is installed.

    Raises
    ------
    DataError, MissingExtraError
        Otherwise.
    """
    target = check_output(path, overwrite)
    if target.suffix.lower() not in FORMATS:
        raise DataError(f"{target}: a plot is written as {', '.join(FORMATS)}; its name must end in one of them")
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise MissingExtraError("matplotlib", "plot") from None
    return target


def plot_trajectory(
    path: str | os.PathLike[str],
    *,
    x: Curve,
    entropies: Sequence[Curve],
    limit: npt.NDArray[np.float64],
    beside: Curve | None,
    dh: Sequence[Curve],
    boundaries: Sequence[tuple[float, str]] = (),
    title: str = "",
    overwrite: bool = False,
) -> None:
    """Entropy of each frame along a trajectory, and the distribution of dH.

    Parameters
    ----------
    path : str or path
        Ends in .png, .pdf or .svg.
    x : Curve
        Abscissa of the frames: time or index.
    entropies : sequence of Curve
        Entropy of each frame, nats; one curve per bandwidth.
    limit : (F,)
        Largest possible entropy ln n of each frame, drawn as a line.
    beside : Curve or None
        Temperature or energy, drawn on a second axis.
    dh : sequence of Curve
        dH of all environments, nats; one histogram per bandwidth.
    boundaries : sequence of (x, name)
        Where each file after the first begins.

    Raises
    ------
    DataError, MissingExtraError
        See `check_plot`.
    """
    check_plot(path, overwrite)
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10.0, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, width_ratios=[2, 1])
    if beside is not None:
        second = left.twinx()
        second.plot(x.values, beside.values, color="0.72", lw=0.9, zorder=1)
        second.set_ylabel(beside.label, color="0.45")
        second.tick_params(axis="y", colors="0.45")
        left.set_zorder(second.get_zorder() + 1)
        left.patch.set_visible(False)
    n_frames = len(x.values)
    marker, lw = ("o" if n_frames < 60 else None), (1.6 if n_frames < 300 else 0.8)
    for number, curve in enumerate(entropies):
        left.plot(x.values, curve.values, color=f"C{number}", lw=lw, marker=marker, ms=3, label=curve.label)
    left.plot(x.values, limit, color="k", ls="--", lw=1.0, label="ln n, the largest possible")
    for at, name in boundaries:
        left.axvline(at, color="0.6", lw=0.8, ls=":")
        place = {"xycoords": ("data", "axes fraction"), "rotation": 90, "va": "top", "ha": "right"}
        left.annotate(name, (at, 1.0), fontsize=7, **place)
    left.set_xlabel(x.label)
    left.set_ylabel("entropy of the frame, H (nats)")
    left.legend(frameon=False, fontsize=8, loc="best")
    if title:
        left.set_title(title, fontsize=10)
    _histograms(right, dh)
    with replacing(path, overwrite) as temporary:
        try:
            figure.savefig(temporary, dpi=150)
        except OSError:
            raise
        except Exception as error:  # a writer that trips over an earlier failure to write
            raise OSError(f"the figure could not be drawn: {error}") from error


def _histograms(axes: Any, dh: Sequence[Curve]) -> None:
    low = min(float(curve.values.min()) for curve in dh)
    high = max(float(curve.values.max()) for curve in dh)
    pad = max(1e-3, 0.02 * (high - low))
    bins = np.linspace(low - pad, high + pad, 61)
    for number, curve in enumerate(dh):
        axes.hist(
            curve.values, bins=bins, color=f"C{number}", alpha=0.55, label=curve.label,
            weights=np.full(len(curve.values), 1.0 / len(curve.values)),
        )  # fmt: skip
    axes.set_xlabel("dH among all environments (nats)")
    axes.set_ylabel("share of environments")
    axes.set_title("rare environments lie to the right", fontsize=10)
    if len(dh) > 1:
        axes.legend(frameon=False, fontsize=8)
