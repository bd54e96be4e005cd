"""A figure of walks towards a target dH."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from quests_zenn.io.plots import _figure, _save

if TYPE_CHECKING:
    from quests_zenn.uq.generate import GeneratedFrame

#: Walks beyond this number are drawn with thin lines.
MANY = 20


def plot_walks(
    path: str | os.PathLike[str],
    frames: Sequence[GeneratedFrame],
    *,
    target: float,
    width: float,
    statistic: str,
    guard: float,
    title: str = "",
    overwrite: bool = False,
) -> None:
    """The statistic along each walk; dH of the frames; and their smallest distances.

    Parameters
    ----------
    path : str or path
        Ends in .png, .pdf or .svg.
    frames : sequence of GeneratedFrame
        All walks, in order; those that were kept have filled symbols.
    target, width : float
        nats
    statistic : str
        What is compared with the target.
    guard : float
        Smallest distance that is allowed for any pair, Å.

    Raises
    ------
    DataError, MissingExtraError
        See `quests_zenn.io.plots.check_plot`.
    """
    figure = _figure(path, overwrite, (12.0, 4.0))
    walks, scores, distances = figure.subplots(1, 3, width_ratios=[1.4, 1.0, 1.0])
    generations = np.array([frame.generation for frame in frames])
    last = int(generations.max())
    from matplotlib import colormaps

    colours = [colormaps["viridis"](0.85 * (g - 1) / max(1, last - 1)) for g in range(1, last + 1)]
    lw = 1.2 if len(frames) <= MANY else 0.6
    walks.axhspan(target - width, target + width, color="0.88", lw=0, label="target")
    for frame in frames:
        colour = colours[frame.generation - 1]
        walks.plot(frame.trace[:, 0], frame.trace[:, 1], color=colour, lw=lw)
        walks.plot(*frame.trace[-1], color=colour, marker="o", ms=4, mfc=colour if frame.kept else "w")
    for g in sorted({1, (1 + last) // 2, last}):
        walks.plot([], [], color=colours[g - 1], label=f"generation {g}")
    walks.set_xlabel("moves")
    walks.set_ylabel(f"{statistic} (nats)")
    walks.legend(frameon=False, fontsize=8)
    place = np.arange(len(frames))
    scores.axhspan(target - width, target + width, color="0.88", lw=0)
    scores.plot(place, [frame.max for frame in frames], "C1^", ms=4, label="largest")
    scores.plot(place, [frame.mean for frame in frames], "C0o", ms=4, label="mean")
    scores.set_ylabel("dH given all that was kept before (nats)")
    scores.legend(frameon=False, fontsize=8)
    for g in range(1, last + 1):
        members = np.flatnonzero(generations == g)
        those = [frames[n] for n in members.tolist()]
        closest = np.array([frame.min_distance for frame in those])
        kept = np.array([frame.kept for frame in those])
        distances.plot(members[kept], closest[kept], "o", ms=4, color=colours[g - 1])
        distances.plot(members[~kept], closest[~kept], "o", ms=4, color=colours[g - 1], mfc="w")
    distances.axhline(guard, color="k", ls="--", lw=1.0, label="guard")
    distances.set_ylabel("smallest distance (Å)")
    distances.legend(frameon=False, fontsize=8)
    for axes in (scores, distances):
        axes.set_xlabel("walk (open: not kept)" if any(not frame.kept for frame in frames) else "walk")
        axes.xaxis.get_major_locator().set_params(integer=True)
    figure.suptitle(title, fontsize=10)
    _save(figure, path, overwrite)
