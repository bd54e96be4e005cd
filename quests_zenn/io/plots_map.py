"""Figures of maps of environments."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from quests_zenn.io.plots import _figure, _save

#: Groups of points that a figure tells apart by colour.
MOST_COLOURS = 10


def plot_map(
    path: str | os.PathLike[str],
    *,
    coordinates: npt.NDArray[np.float64],
    labels: Sequence[str],
    dh: npt.NDArray[np.float64],
    colour_range: tuple[float, float],
    colour_label: str = "dH (nats)",
    classes: npt.NDArray[np.int64] | None = None,
    names: Sequence[str] = (),
    what: str = "",
    title: str = "",
    overwrite: bool = False,
) -> None:
    """A map of environments, coloured by dH; beside it the same, coloured by class.

    Parameters
    ----------
    path : str or path
        Ends in .png, .pdf or .svg.
    coordinates : (n, 2 or more)
        The first two are drawn.
    labels : two names of axes
    dh : (n,)
        nats; infinite ones are drawn as triangles.
    colour_range : (float, float)
        dH at both ends of the scale.
    classes : (n,) or None
        Class of each, an index into `names`.
    what : str
        What the classes are, for the legend.

    Raises
    ------
    DataError, MissingExtraError
        See `quests_zenn.io.plots.check_plot`.
    """
    beside = classes is not None
    figure = _figure(path, overwrite, (11.0, 4.8) if beside else (6.4, 4.8))
    panels = np.atleast_1d(figure.subplots(1, 2 if beside else 1, sharex=True, sharey=True))
    x, y = coordinates[:, 0], coordinates[:, 1]
    style = {"s": float(np.clip(6e4 / len(x), 4.0, 30.0)), "lw": 0, "rasterized": len(x) > 2000}
    finite = np.isfinite(dh)
    order = np.flatnonzero(finite)[np.argsort(dh[finite], kind="stable")]  # rare ones on top
    left = panels[0]
    low, high = colour_range
    image = left.scatter(x[order], y[order], c=dh[order], vmin=low, vmax=high, cmap="viridis", **style)
    below, above = (bool((dh[finite] < low).any()), bool((dh[finite] > high).any()))
    extend = {(True, True): "both", (True, False): "min", (False, True): "max"}.get((below, above), "neither")
    figure.colorbar(image, ax=left, label=colour_label, extend=extend)
    if not finite.all():
        left.scatter(x[~finite], y[~finite], marker="^", s=24, c="C3", lw=0, label="infinite: unknown element")
        left.legend(frameon=False, fontsize=8)
    left.set_title(title, fontsize=10)
    if classes is not None:
        right = panels[1]
        present, counts = np.unique(classes, return_counts=True)
        coloured = present[np.argsort(-counts, kind="stable")][:MOST_COLOURS].tolist()
        groups = [(names[c], f"C{number}", classes == c) for number, c in enumerate(coloured)]
        if len(present) > len(coloured):
            groups.insert(0, (f"{len(present) - len(coloured)} others", "0.75", ~np.isin(classes, coloured)))
        for label, colour, own in groups:
            right.scatter(x[own], y[own], color=colour, label=f"{label} ({own.sum():,})", **style)
        legend = right.legend(
            frameon=False, fontsize=8, title=what, title_fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5)
        )
        for handle in legend.legend_handles:
            handle.set_sizes([24.0])
        right.set_title(f"coloured by {what}", fontsize=10)
    for axes in panels:
        axes.set_xlabel(labels[0])
    left.set_ylabel(labels[1])
    _save(figure, path, overwrite)
