"""Figures about smaller data sets."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from quests_zenn.io.plots import _figure, _save

Columns = Mapping[str, npt.NDArray[Any]]

#: Points on the axis at which random selections are compared.
_POINTS = 200


def plot_compression(
    path: str | os.PathLike[str],
    *,
    curve: Columns,
    method: str,
    random: Sequence[Columns],
    entropy: float,
    diversity: float,
    by_structures: bool,
    title: str = "",
    overwrite: bool = False,
) -> None:
    """Entropy, diversity and overlap of the beginnings of a selection, beside those of random ones.

    Parameters
    ----------
    path : str or path
        Ends in .png, .pdf or .svg.
    curve : mapping
        ``sizes``, ``n_environments``, ``entropy`` and ``diversity`` (nats), ``overlap``, each (n,); a single point
        where a method has no order.
    method : str
        What was chosen by, for the legend.
    random : sequence of mappings
        The same of random selections: their mean is drawn, and the range from the lowest to the highest.
    entropy, diversity : float
        H and D of the whole set, nats.
    by_structures : bool
        Whether the axis counts structures, not environments. Where structures differ in size, a number of them is no
        fair measure of what is kept.

    Raises
    ------
    DataError, MissingExtraError
        See `quests_zenn.io.plots.check_plot`.
    """
    figure = _figure(path, overwrite, (12.0, 4.4))
    count = "sizes" if by_structures else "n_environments"
    x = np.asarray(curve[count], np.float64)
    panels = (
        ("entropy", "entropy H (nats)", entropy, 1.0),
        ("diversity", "diversity D (nats)", diversity, 1.0),
        ("overlap", "environments covered (%)", 1.0, 100.0),
    )
    for axes, (name, label, whole, unit) in zip(figure.subplots(1, 3), panels, strict=True):
        y = unit * np.asarray(curve[name], np.float64)
        if random:
            starts, ends = zip(*((c[count][0], c[count][-1]) for c in random), strict=True)
            grid = np.linspace(float(max(starts)), float(min(ends)), _POINTS)
            others = unit * np.array([np.interp(grid, c[count], c[name]) for c in random])
            axes.fill_between(grid, others.min(axis=0), others.max(axis=0), color="0.6", alpha=0.35, lw=0)
            told = f"random, mean and range of {len(random)}" if len(random) > 1 else "random"
            axes.plot(grid, others.mean(axis=0), color="0.4", lw=1.3, label=told)
        if len(x) > 1:
            axes.plot(x, y, color="C0", lw=1.6, marker="o" if len(x) < 40 else None, ms=3, label=method)
        told = "chosen" if len(x) > 1 else f"chosen by {method}"
        axes.plot(x[-1], y[-1], "o", ms=8, mfc="none", color="C1", mew=1.6, label=told, clip_on=False)
        axes.axhline(unit * whole, color="k", ls="--", lw=1.0, label="whole set")
        axes.set_xlabel("structures" if by_structures else "environments")
        axes.set_ylabel(label)
        axes.set_xlim(left=0.0)
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.locator_params(axis="x", nbins=6)
    axes.set_ylim(0.0, 104.0)
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, frameon=False, fontsize=9, loc="outside lower center", ncols=len(labels))
    figure.suptitle(title, fontsize=10)
    _save(figure, path, overwrite)
