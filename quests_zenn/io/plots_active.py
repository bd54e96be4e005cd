"""Figures about active learning."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

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
    title: str = "",
    overwrite: bool = False,
) -> None:
    """Errors over points, points of each criterion by round, and slices of the free energy.

    Parameters
    ----------
    path : path
    courses : list of Course
    shares : mapping of list of int
        Points of each criterion in each of `rounds`.
    rounds : list of int
    slices : list of Slice
    title : str
    overwrite : bool

    Raises
    ------
    DataError
        See `quests_zenn.io.outputs.check_output`.
    MissingExtraError
        Without matplotlib.
    """
    columns = 2 + len(slices)
    per_row = min(columns, 3)
    rows = -(-columns // per_row)
    figure = _figure(path, overwrite, (4.4 * per_row, 3.6 * rows))
    axes = [figure.add_subplot(rows, per_row, i + 1) for i in range(columns)]
    for i, course in enumerate(courses):
        color = f"C{i}"
        axes[0].plot(course.points, course.median, "o-", color=color, ms=3, label=f"{course.label}, median")
        axes[0].plot(course.points, course.tail, "--", color=color, label="95 %")
    axes[0].set_yscale("log")
    # names in figures are text, not formulas: powers of ten would show as they are written
    axes[0].yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes[0].yaxis.set_minor_formatter(lambda value, _: "")
    axes[0].set_xlabel("points asked")
    axes[0].set_ylabel("error of µ / its spread")
    if courses:
        axes[0].legend(frameon=False, fontsize=8)
    bottom = np.zeros(len(rounds))
    for i, (name, counts) in enumerate(shares.items()):
        values = np.asarray(counts, dtype=np.float64)
        axes[1].bar(rounds, values, bottom=bottom, label=name, color=f"C{i % 10}", hatch="//" if i >= 10 else None)
        bottom += values
    axes[1].set_xlabel("round")
    axes[1].set_ylabel("points")
    axes[1].legend(frameon=False, fontsize=6, ncols=2)
    for axis, part in zip(axes[2:], slices, strict=True):
        filled = axis.contourf(part.x, part.y, part.energy, levels=24, cmap="viridis")
        figure.colorbar(filled, ax=axis, label="g less a plane, meV", shrink=0.9)
        if part.unstable.any() and not part.unstable.all():
            axis.contourf(
                part.x, part.y, part.unstable.astype(np.float64), levels=[0.5, 1.5], colors="none", hatches=["////"]
            )
        axis.plot(*part.points.T, ".", color="white", ms=3)
        axis.plot(*part.wells.T, "*", color="red", ms=9)
        axis.set_xlabel(part.axes[0])
        axis.set_ylabel(part.axes[1])
        axis.set_title(part.label, fontsize=8)
    if title:
        figure.suptitle(title)
    _save(figure, path, overwrite)
