"""Figures about active learning."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from quests_zenn.io.plots import _figure, _save

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Slice:
    """A free energy on a grid in a plane of the domain.

    `energy` (m, n) is NaN outside of the domain and has the plane of least slope taken off; `unstable` (m, n) says
    where the smallest eigenvalue of its Hessian is negative; `points` (k, 2) and `wells` (w, 2) lie near the plane.
    """

    label: str
    axes: tuple[str, str]
    x: FloatArray
    y: FloatArray
    energy: FloatArray
    unstable: npt.NDArray[np.bool_]
    points: FloatArray
    wells: FloatArray


@dataclass(frozen=True)
class Line:
    """A free energy of one order parameter, meV less a line, and its slope mu, eV.

    `x`, `energy`, `mu` and `unstable`, where g is not convex, are (m,); `points` and the potentials `measured` there
    are (k,), and `wells` (w,).
    """

    label: str
    axis: str
    x: FloatArray
    energy: FloatArray
    mu: FloatArray
    unstable: npt.NDArray[np.bool_]
    points: FloatArray
    measured: FloatArray
    wells: FloatArray


@dataclass(frozen=True)
class Course:
    """Errors after each round: points asked, median, and the 95th percentile."""

    label: str
    points: Sequence[float]
    median: Sequence[float]
    tail: Sequence[float]


def plot_course(
    path: str | os.PathLike[str],
    *,
    courses: Sequence[Course],
    shares: Mapping[str, Sequence[int]],
    rounds: Sequence[int],
    slices: Sequence[Slice] = (),
    line: Line | None = None,
    title: str = "",
    overwrite: bool = False,
) -> None:
    """Errors over points, points of each criterion by round, and the free energy: slices, or in one dimension all.

    Parameters
    ----------
    path : path
    courses : list of Course
    shares : mapping of list of int
        Points of each criterion in each of `rounds`.
    rounds : list of int
    slices : list of Slice
    line : Line, optional
    title : str
    overwrite : bool

    Raises
    ------
    DataError
        See `quests_zenn.io.outputs.check_output`.
    MissingExtraError
        Without matplotlib.
    """
    count = 2 + len(slices) + (0 if line is None else 2)
    per_row = 2 if count == 4 else min(count, 3)
    rows = -(-count // per_row)
    # legends lie below the panels, in rows of their own: beside a panel they would take its width
    legends = [0.2 + 0.17 * max(-(-len(shares) // 2), len(courses), 1), *[0.25 if line else 0.05] * (rows - 1)]
    heights = [height for legend in legends for height in (2.8, legend)]
    figure = _figure(path, overwrite, (4.6 * per_row, sum(heights) + 0.8 * rows + (0.3 if slices else 0.0)))
    grid = figure.add_gridspec(2 * rows, per_row, height_ratios=heights)
    places = [(2 * (i // per_row), i % per_row) for i in range(count)]
    axes = [figure.add_subplot(grid[row, column]) for row, column in places]
    below = [figure.add_subplot(grid[row + 1, column]) for row, column in places]
    for axis in below:
        axis.axis("off")
    _errors(axes[0], courses)
    _bought(axes[1], shares, rounds)
    if line is not None:
        _energy_of(axes[2], line)
        _potential_of(axes[3], line)
    for axis, part in zip(axes[count - len(slices) :], slices, strict=True):
        _slice(figure, axis, part)
    for axis, space, columns in zip(axes, below, (2, 2, 3, 3), strict=False):
        _legend(axis, space, columns)
    if slices:
        _legend_of_slices(figure)
    if title:
        figure.suptitle(title)
    _save(figure, path, overwrite)


def _whole(axis: Any) -> None:
    """Ticks at whole numbers only."""
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(nbins=6, integer=True, min_n_ticks=1))


def _legend(axis: Any, space: Any, columns: int) -> None:
    """A legend that covers nothing, in a space below."""
    handles, labels = axis.get_legend_handles_labels()
    if handles:
        legend = space.legend(
            handles, labels, frameon=False, fontsize=8, ncols=columns, loc="upper center", borderaxespad=0.0
        )
        legend.set_in_layout(False)


def _errors(axis: Any, courses: Sequence[Course]) -> None:
    from matplotlib.ticker import LogLocator, NullLocator

    axis.set_xlabel("points asked")
    axis.set_ylabel("error of µ / its spread")
    values = np.array([value for course in courses for value in (*course.median, *course.tail)], dtype=np.float64)
    values = values[np.isfinite(values) & (values > 0.0)]
    if not len(values):
        axis.set_xticks([])
        axis.set_yticks([])
        axis.text(0.5, 0.5, "no errors yet", transform=axis.transAxes, ha="center", va="center", color="0.4")
        return
    for i, course in enumerate(courses):
        color = f"C{i}"
        axis.plot(course.points, course.median, "o-", color=color, ms=4, label=f"{course.label}, median")
        axis.plot(course.points, course.tail, "s--", color=color, ms=4, mfc="white", label=f"{course.label}, 95 %")
    axis.set_yscale("log")
    low, high = values.min() / 1.6, values.max() * 1.6
    axis.set_ylim(low, high)
    # marks enough for numbers to show in a narrow range as well
    decades = np.log10(high / low)
    marks = (1.0,) if decades > 3.0 else (1.0, 2.0, 5.0) if decades > 1.0 else (1.0, 1.5, 2.0, 3.0, 5.0, 7.0)
    axis.yaxis.set_major_locator(LogLocator(subs=marks, numticks=20))
    axis.yaxis.set_minor_locator(NullLocator())
    # names in figures are text, not formulas: powers of ten would show as they are written
    axis.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    _whole(axis.xaxis)


def _bought(axis: Any, shares: Mapping[str, Sequence[int]], rounds: Sequence[int]) -> None:
    bottom = np.zeros(len(rounds))
    for i, (name, counts) in enumerate(shares.items()):
        values = np.asarray(counts, dtype=np.float64)
        axis.bar(rounds, values, bottom=bottom, label=name, color=f"C{i % 10}", hatch="//" if i >= 10 else None)
        bottom += values
    axis.set_xlabel("round")
    axis.set_ylabel("points")
    if len(rounds):
        axis.set_ylim(0.0, 1.05 * max(float(bottom.max()), 1.0))
        axis.set_xlim(min(rounds) - 0.6, max(rounds) + 0.6)
    _whole(axis.xaxis)
    _whole(axis.yaxis)


def _shaded(axis: Any, line: Line) -> None:
    """The region where g is not convex."""
    axis.fill_between(
        line.x, 0.0, 1.0, where=line.unstable, transform=axis.get_xaxis_transform(), color="0.88", lw=0.0, zorder=0,
        label="unstable" if line.unstable.any() else None,
    )  # fmt: skip
    axis.set_xlabel(line.axis)
    axis.set_xlim(line.x[0], line.x[-1])
    axis.set_title(line.label, fontsize=9)


def _energy_of(axis: Any, line: Line) -> None:
    _shaded(axis, line)
    axis.plot(line.x, line.energy, color="C0", label="g", zorder=2)
    if len(line.wells):
        height = np.interp(line.wells, line.x, line.energy)
        axis.plot(line.wells, height, "*", color="red", ms=10, label="well", zorder=3, clip_on=False)
    axis.set_ylabel("g less a line, meV")


def _potential_of(axis: Any, line: Line) -> None:
    _shaded(axis, line)
    axis.plot(line.x, line.mu, color="C0", label="µ = dg/dx", zorder=2)
    if len(line.points):
        axis.plot(line.points, line.measured, "o", color="k", mfc="none", ms=4, label="measured", zorder=3)
    axis.set_ylabel("µ, eV")


def _slice(figure: Any, axis: Any, part: Slice) -> None:
    from matplotlib.ticker import MaxNLocator

    filled = axis.contourf(part.x, part.y, part.energy, levels=24, cmap="viridis")
    bar = figure.colorbar(filled, ax=axis, label="g less a plane, meV", shrink=0.9)
    if part.unstable.any():
        axis.contourf(
            part.x, part.y, part.unstable.astype(np.float64), levels=[0.5, 1.5], colors="none", hatches=["////"]
        )
    axis.plot(*part.points.T, "o", color="white", mec="0.3", mew=0.5, ms=3.5)
    if len(part.wells):  # marks that are not clipped need a place, or the layout takes them to lie in a corner
        axis.plot(*part.wells.T, "*", color="red", mec="white", mew=0.5, ms=10, clip_on=False)
    axis.set_xlabel(part.axes[0])
    axis.set_ylabel(part.axes[1])
    axis.set_title(part.label, fontsize=9)
    for ruler in (axis.xaxis, axis.yaxis):
        ruler.set_major_locator(MaxNLocator(nbins=4))
    bar.ax.yaxis.set_major_locator(MaxNLocator(nbins=4))


def _legend_of_slices(figure: Any) -> None:
    """What the marks in slices are, once for all of them."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    marks = [
        Line2D([], [], ls="", marker="*", color="red", ms=9, label="well"),
        Patch(facecolor="none", edgecolor="k", lw=0.3, hatch="////", label="unstable: g is not convex"),
        Line2D([], [], ls="", marker="o", color="white", mec="0.3", mew=0.5, ms=4, label="known point near the plane"),
    ]
    figure.legend(handles=marks, loc="outside lower center", ncols=3, frameon=False, fontsize=8)
