"""Figures about thermodynamic states."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from quests_zenn.io.plots import _save
from quests_zenn.io.plots_zenn import Line, _lines, _panels

FloatArray = npt.NDArray[np.float64]

#: One marker for each phase, in turn.
MARKERS = "os^Dv*"


@dataclass(frozen=True)
class StatesDrawn:
    """States, all arrays (n,).

    Attributes
    ----------
    V, T : Å3 per atom, K
    phase : int
    weight : mean 1
    """

    V: FloatArray
    T: FloatArray
    phase: npt.NDArray[np.int64]
    weight: FloatArray


@dataclass(frozen=True)
class Compared:
    """Two values of each state, the error of the first, and what they are: fit and means, or S and H."""

    label: str
    first: FloatArray
    error: FloatArray
    second: FloatArray


def plot_states(
    path: str | os.PathLike[str],
    states: StatesDrawn,
    *,
    residuals: Sequence[Compared],
    link: Compared | None,
    isotherms: Sequence[tuple[str, Sequence[Line]]],
    proposed: Sequence[tuple[float, float]] = (),
    coexistence: Sequence[Line] = (),
    title: str = "",
    overwrite: bool = False,
) -> None:
    """States and what was fitted to them.

    Parameters
    ----------
    path : str or path
        Ends in .png, .pdf or .svg.
    states : StatesDrawn
    residuals : sequence of Compared
        Fit minus means: `second` - `first` over the volume, with error bars.
    link : Compared or None
        `second`, from H, over `first`, from the fit.
    isotherms : sequence of (label, lines)
        One panel for each.
    proposed : sequence of (V, T)
        States to simulate next.
    coexistence : sequence of Line
        P over T.

    Raises
    ------
    DataError, MissingExtraError
        See `quests_zenn.io.plots.check_plot`.
    """
    n_panels = len(residuals) + (link is not None) + len(isotherms) + 1 + bool(coexistence)
    panels, figure = _panels(path, overwrite, n_panels)
    for found in residuals:
        axes = next(panels)
        _dots(figure, axes, states, states.V, found.second - found.first, found.error)
        axes.axhline(0.0, color="k", lw=0.8)
        axes.set(xlabel="volume (Å3 per atom)", ylabel=found.label)
    if link is not None:
        axes = next(panels)
        _dots(figure, axes, states, link.first, link.second, None)
        ends = [min(link.first.min(), link.second.min()), max(link.first.max(), link.second.max())]
        axes.plot(ends, ends, color="k", lw=0.8)
        axes.set(xlabel="S of the fit (k_B per atom)", ylabel=link.label)
    for label, lines in isotherms:
        _lines(next(panels), lines, "volume (Å3 per atom)", label)
    axes = next(panels)
    for phase in np.unique(states.phase).tolist():
        mine = states.phase == phase
        axes.scatter(
            states.V[mine], states.T[mine], s=30.0 * np.sqrt(states.weight[mine]), marker=MARKERS[phase % len(MARKERS)],
            label=f"phase {phase}" if states.phase.any() else "states", alpha=0.8, lw=0,
        )  # fmt: skip
    if len(proposed):
        V, T = np.array(proposed).T
        axes.scatter(V, T, s=110, marker="*", color="C3", label="simulate next")
    axes.set(xlabel="volume (Å3 per atom)", ylabel="T (K)", title="states; larger: more weight")
    axes.legend(fontsize=7)
    if coexistence:
        _lines(next(panels), coexistence, "T (K)", "P of coexistence (GPa)")
    figure.suptitle(title, fontsize=10)
    _save(figure, path, overwrite)


def _dots(figure: Any, axes: Any, states: StatesDrawn, x: FloatArray, y: FloatArray, error: FloatArray | None) -> None:
    """Dots coloured by temperature, with a marker for each phase, and error bars where there are errors."""
    if error is not None and np.isfinite(error).any():
        axes.errorbar(x, y, yerr=np.nan_to_num(error), fmt="none", ecolor="0.7", elinewidth=1.0, zorder=0)
    drawn = None
    for phase in np.unique(states.phase).tolist():
        mine = states.phase == phase
        drawn = axes.scatter(
            x[mine], y[mine], c=states.T[mine], s=22, cmap="plasma", vmin=states.T.min(), vmax=states.T.max(), lw=0,
            marker=MARKERS[phase % len(MARKERS)],
        )  # fmt: skip
    if drawn is not None and np.ptp(states.T):
        figure.colorbar(drawn, ax=axes, label="T (K)")
