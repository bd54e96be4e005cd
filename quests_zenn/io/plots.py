"""Figures. Drawn without pyplot, so that no state of the user's process is touched."""

from __future__ import annotations

import os
import warnings
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
    figure = _figure(path, overwrite, (10.0, 4.2))
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
    curves = left.get_legend_handles_labels()
    figure.legend(*curves, frameon=False, fontsize=8, loc="outside lower left", ncols=4)  # below: it covers no curve
    if title:
        left.set_title(title, fontsize=10)
    _histograms(right, dh)
    _save(figure, path, overwrite)


def _figure(path: str | os.PathLike[str], overwrite: bool, size: tuple[float, float]) -> Any:
    """An empty figure, once it is clear that it can be written."""
    check_plot(path, overwrite)
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _save(figure: Any, path: str | os.PathLike[str], overwrite: bool) -> None:
    """Write the figure. Names of files and groups are text, not formulas, and may hold letters that no font has."""
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        text.set_parse_math(False)
        if len(text.get_text()) > 80:
            text.set_text(text.get_text()[:77] + "...")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        _write(figure, path, overwrite)


def _write(figure: Any, path: str | os.PathLike[str], overwrite: bool) -> None:
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


def plot_scores(
    path: str | os.PathLike[str],
    *,
    x: Curve,
    mean: npt.NDArray[np.float64],
    largest: npt.NDArray[np.float64],
    values: npt.NDArray[np.float64],
    eps: float,
    title: str = "",
    overwrite: bool = False,
) -> None:
    """dH given a reference: mean and largest of each frame, and the distribution over all environments.

    Raises
    ------
    DataError, MissingExtraError
        See `check_plot`.
    """
    figure = _figure(path, overwrite, (10.0, 4.2))
    left, right = figure.subplots(1, 2, width_ratios=[2, 1])
    marker = "o" if len(x.values) < 60 else None
    left.plot(x.values, largest, color="C1", lw=1.0, marker=marker, ms=3, label="largest of the frame")
    left.plot(x.values, mean, color="C0", lw=1.4, marker=marker, ms=3, label="mean of the frame")
    left.axhline(eps, color="k", ls="--", lw=1.0, label="novel from here on")
    if largest.max() > 100.0:  # far environments grow with the square of their distance
        left.set_yscale("symlog", linthresh=10.0)
        left.yaxis.set_major_formatter("{x:g}")
    left.set_xlabel(x.label)
    left.set_ylabel("dH given the reference (nats)")
    left.legend(frameon=False, fontsize=8)
    left.set_title(title, fontsize=10)
    low, high = np.quantile(values, [0.0, 0.995])
    bins = np.linspace(low - 1e-3, high + 1e-3, 61)
    right.hist(np.minimum(values, high), bins=bins, weights=np.full(len(values), 1.0 / len(values)), alpha=0.7)
    right.axvline(eps, color="k", ls="--", lw=1.0)
    right.set_xlabel("dH given the reference (nats)")
    right.set_ylabel("share of environments")
    _save(figure, path, overwrite)


def plot_lines(
    path: str | os.PathLike[str],
    lines: Sequence[tuple[str, npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any] | None]],
    *,
    x_label: str,
    y_label: str,
    log_x: bool = False,
    title: str = "",
    overwrite: bool = False,
) -> None:
    """Lines (label, x, y, half-width of a band or None) in one panel.

    Raises
    ------
    DataError, MissingExtraError
        See `check_plot`.
    """
    figure = _figure(path, overwrite, (6.4, 4.2))
    axes = figure.subplots()
    for number, (label, x, y, band) in enumerate(lines):
        marker = "o" if len(x) < 60 else None
        axes.plot(x, y, color=f"C{number}", lw=1.3, marker=marker, ms=3, label=label)
        if band is not None:
            axes.fill_between(x, y - band, y + band, color=f"C{number}", alpha=0.25, lw=0)
    if log_x:
        axes.set_xscale("log")
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.legend(frameon=False, fontsize=8)
    axes.set_title(title, fontsize=10)
    _save(figure, path, overwrite)


def plot_matrices(
    path: str | os.PathLike[str],
    *,
    names: Sequence[str],
    matrices: Sequence[tuple[str, npt.NDArray[np.float64]]],
    overwrite: bool = False,
) -> None:
    """Square matrices side by side, their numbers written into them where there is room.

    Raises
    ------
    DataError, MissingExtraError
        See `check_plot`.
    """
    side = min(12.0, max(3.6, 0.6 * len(names) + 1.6))
    figure = _figure(path, overwrite, (1.25 * side * len(matrices), side))
    step = -(-len(names) // 40)  # more names than that cannot be read
    places = np.arange(0, len(names), step)
    for axes, (title, values) in zip(np.atleast_1d(figure.subplots(1, len(matrices))), matrices, strict=True):
        shown = np.where(np.isfinite(values), values, np.nan)
        share = title == "overlap"
        most = 1.0 if share else max(1.0, float(np.nanmax(np.abs(shown)))) if np.isfinite(shown).any() else 1.0
        # dH turns from known to new at 0
        most = most if share else min(most, 20.0)
        image = axes.imshow(shown, cmap="viridis" if share else "coolwarm", vmin=0.0 if share else -most, vmax=most)
        figure.colorbar(image, ax=axes, shrink=0.8)
        axes.set_xticks(places, names[::step], rotation=45, ha="right", fontsize=8)
        axes.set_yticks(places, names[::step], fontsize=8)
        axes.set_title(title + ": row, given the column", fontsize=10)
        if len(names) <= 12:
            for (row, column), value in np.ndenumerate(values):
                dark = value < 0.5 if share else abs(value) > 0.7 * most
                text = f"{value:.1%}" if share else f"{value:.1f}"
                axes.text(column, row, text, ha="center", va="center", fontsize=7, color="w" if dark else "k")
    _save(figure, path, overwrite)


def plot_bandwidths(
    path: str | os.PathLike[str],
    bandwidths: npt.NDArray[np.float64],
    score: npt.NDArray[np.float64],
    entropies: npt.NDArray[np.float64],
    *,
    best: float,
    rule: float | None,
    limit: float,
    title: str = "",
    overwrite: bool = False,
) -> None:
    """Leave-out likelihood and entropy against the bandwidth.

    Raises
    ------
    DataError, MissingExtraError
        See `check_plot`.
    """
    figure = _figure(path, overwrite, (10.0, 4.2))
    left, right = figure.subplots(1, 2)
    left.plot(bandwidths, score, color="C0", marker="o", ms=3)
    low = np.sort(score)[-max(4, len(score) // 2)]
    left.set_ylim(low - 0.1 * (score.max() - low), score.max() + 0.15 * (score.max() - low) + 1e-9)
    left.set_ylabel("leave-out log likelihood (nats)")
    right.plot(bandwidths, entropies, color="C0", marker="o", ms=3, label="H")
    right.axhline(limit, color="k", ls="--", lw=1.0, label="ln N, the largest possible")
    right.set_ylabel("entropy H (nats)")
    for axes in (left, right):
        axes.axvline(best, color="C1", lw=1.2, label=f"best: {best:.3g}")
        if rule is not None:
            axes.axvline(rule, color="C2", lw=1.2, ls=":", label=f"volume rule: {rule:.3g}")
        axes.set_xscale("log")
        axes.set_xlabel("bandwidth h (1/Å)")
        axes.legend(frameon=False, fontsize=8)
    figure.suptitle(title, fontsize=10)
    _save(figure, path, overwrite)
