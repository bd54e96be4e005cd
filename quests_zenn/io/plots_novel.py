"""Figures about what is novel, and about what stands out."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from quests_zenn.io.plots import _figure, _save

#: Groups of points that are told apart by colour.
MOST_COLOURS = 10

#: dH from which on an axis is logarithmic, nats.
_LINEAR_UP_TO = 10.0


def plot_flagged(
    path: str | os.PathLike[str],
    *,
    frames: npt.NDArray[np.int64],
    largest: npt.NDArray[np.float64],
    share: npt.NDArray[np.float64],
    kept: npt.NDArray[np.bool_],
    judged: npt.NDArray[np.int64],
    judged_share: npt.NDArray[np.float64],
    threshold: float,
    scaled: bool = False,
    title: str = "",
    overwrite: bool = False,
) -> None:
    """Largest dH of the flagged frames, and novel share of all, along a trajectory.

    Parameters
    ----------
    path : str or path
        Ends in .png, .pdf or .svg.
    frames, largest, share, kept : (F,)
        Number of each flagged frame, its largest dH (nats) and novel share, and whether it was written.
    judged, judged_share : (J,)
        Number and novel share of every frame that was judged.
    threshold : float
        nats
    scaled : bool
        Whether dH is scaled.

    Raises
    ------
    DataError, MissingExtraError
        See `quests_zenn.io.plots.check_plot`.
    """
    figure = _figure(path, overwrite, (8.0, 5.0))
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 2])
    finite = np.isfinite(largest)
    top = float(largest[finite].max(initial=threshold))
    shown = np.where(finite, largest, 1.5 * top if top > 0.0 else top + 1.0)  # infinite ones on top
    others = ~np.isin(judged, frames)
    below.plot(judged[others], 100.0 * judged_share[others], ".", ms=4, color="0.6", label="not flagged", clip_on=False)
    for own, style, label in (
        (~kept, {"ms": 4, "mfc": "none", "color": "C0"}, "flagged, like one written"),
        (kept, {"ms": 5, "color": "C1"}, "flagged and written"),
    ):
        if own.any():
            above.plot(frames[own], shown[own], "o", label=label, **style)
            below.plot(frames[own], 100.0 * share[own], "o", clip_on=False, **style)
    above.axhline(threshold, color="k", ls="--", lw=1.0, label="threshold")
    if not finite.all():
        above.plot(
            frames[~finite], shown[~finite], "^", ms=9, mfc="none", color="C3", label="infinite: unknown element"
        )
    _scale(above, np.append(shown, threshold))
    above.set_ylabel(f"largest {'scaled ' if scaled else ''}dH of the frame (nats)")
    if not len(frames):
        above.text(0.5, 0.4, "no frame is flagged", transform=above.transAxes, ha="center", color="0.4")
    above.legend(framealpha=0.85, edgecolor="none", fontsize=8)
    above.set_title(title, fontsize=10)
    below.set_ylabel("novel atoms (%)")
    below.set_ylim(0.0, max(1.0, 105.0 * float(np.append(judged_share, share).max(initial=0.0))))
    if others.any():
        below.legend(framealpha=0.85, edgecolor="none", fontsize=8)
    below.set_xlabel("frame")
    last = int(judged.max(initial=0))
    below.set_xlim(-0.02 * last - 0.5, 1.02 * last + 0.5)
    _save(figure, path, overwrite)


def _scale(axes: Any, values: npt.NDArray[np.float64]) -> None:
    """A logarithmic axis where values range far, with a linear part if some are not above 0."""
    from matplotlib.ticker import LogLocator, NullFormatter

    low, high = float(values.min()), float(values.max())
    if high <= 10.0 * _LINEAR_UP_TO:
        axes.margins(y=0.08)
        return
    if low > 0.0:
        axes.set_yscale("log")
        axes.set_ylim(low / 1.25, high * 1.25)
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.yaxis.set_minor_formatter(NullFormatter())
    else:
        axes.set_yscale("symlog", linthresh=_LINEAR_UP_TO, linscale=0.5)
        axes.set_ylim(low - 1.0, high * 1.25)
        steps = [s * 10.0**e for e in range(1, 1 + math.ceil(math.log10(high))) for s in (1.0, 2.0, 5.0)]
        axes.set_yticks([0.0, *(step for step in steps if step <= high * 1.25)])
    axes.yaxis.set_major_formatter("{x:g}")


def plot_ranking(
    path: str | os.PathLike[str],
    *,
    dh: npt.NDArray[np.float64],
    classes: npt.NDArray[np.int64],
    names: Sequence[str],
    what: str,
    marks: Sequence[tuple[int, float, str]] = (),
    title: str = "",
    overwrite: bool = False,
) -> None:
    """dH in descending order, on a logarithmic axis of ranks: of all together, and of each class.

    Parameters
    ----------
    path : str or path
        Ends in .png, .pdf or .svg.
    dh : (n,)
        nats, finite.
    classes : (n,)
        Class of each, an index into `names`.
    what : str
        What the classes are, for the legend.
    marks : sequence of (rank, dH, text)
        Points to be named, highest first; ranks count from 1. Those that would lie over another name have none.

    Raises
    ------
    DataError, MissingExtraError
        See `quests_zenn.io.plots.check_plot`.
    """
    figure = _figure(path, overwrite, (10.0, 4.6))
    left, right = figure.subplots(1, 2, sharey=True)
    order = np.argsort(-dh, kind="stable")
    rank = np.arange(1, len(dh) + 1)
    values, of = dh[order], classes[order]
    # the classes that stand highest, by the best rank of each, get colours of their own
    present, first = np.unique(of, return_index=True)
    coloured = present[np.argsort(first, kind="stable")][:MOST_COLOURS].tolist()
    colours = np.full(len(dh), "0.75", dtype=object)
    for number, c in enumerate(coloured):
        colours[of == c] = f"C{number}"
    left.scatter(rank, values, s=9, c=colours.tolist(), lw=0)
    for number, c in enumerate(coloured):
        own = values[of == c]
        marker = "o" if len(own) < 60 else None
        label = f"{names[c]} ({len(own):,})"
        right.plot(np.arange(1, len(own) + 1), own, color=f"C{number}", lw=1.4, marker=marker, ms=3, label=label)
    if len(present) > len(coloured):
        own = values[~np.isin(of, coloured)]
        label = f"{len(present) - len(coloured)} others ({len(own):,})"
        right.plot(np.arange(1, len(own) + 1), own, color="0.75", lw=1.4, label=label)
    last = np.inf
    for at, value, text in marks:
        if last - value > 0.045 * (values[0] - values[-1]):
            left.annotate(text, (at, value), xytext=(5, 4), textcoords="offset points", fontsize=7, color="0.25")
            last = value
    if values[0] > 10.0 * _LINEAR_UP_TO:
        left.set_yscale("symlog", linthresh=_LINEAR_UP_TO)
        left.yaxis.set_major_formatter("{x:g}")
    for axes, title_ in ((left, title), (right, f"each {what} by itself")):
        axes.axhline(0.0, color="k", ls="--", lw=0.8)
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter("")
        axes.set_xlabel("rank")
        axes.set_title(title_, fontsize=10)
    left.set_ylabel("dH given all other groups (nats)")
    right.legend(frameon=False, fontsize=8, title=what, title_fontsize=8)
    _save(figure, path, overwrite)
