"""The course of ``quests-zenn active``. Imported only when it really runs."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import click
import numpy as np

from quests_zenn._core.checks import DataError, MissingExtraError
from quests_zenn._core.progress import progress_bar
from quests_zenn.cli import _options, _tell
from quests_zenn.cli._fit import require_torch
from quests_zenn.io.outputs import check_output, versions, write_json
from quests_zenn.io.plots import check_plot
from quests_zenn.io.plots_active import Course, Slice, plot_course
from quests_zenn.sampling.config import from_config
from quests_zenn.sampling.loop import ActiveLearning, errors_over_points
from quests_zenn.sampling.report import energy_slice, shares

#: Planes that a figure shows.
SLICES = ((0, 1), (0, 2), (1, 2))


class ActiveRun:
    """One run, from a configuration to a report."""

    def __init__(self, config: str, options: dict[str, Any]) -> None:
        self.options = options
        self.quiet: bool = options["quiet"]
        require_torch()
        for name, check in (("json_file", check_output), ("plot_file", check_plot)):
            if options[name]:
                check(options[name], options["overwrite"])
        self.learning = from_config(config, options["output"], options["jobs"])
        self.config = config

    def run(self) -> None:
        """Go on, and tell."""
        learning = self.learning
        if self.options["report"]:
            learning.restore()
        else:
            learning.after_round = self._after
            try:
                with progress_bar("learning", "rounds", quiet=self.quiet) as advance:
                    self._advance = advance
                    learning.run()
            except KeyboardInterrupt:
                _options.stop_for_now()
        if not learning.rounds_:
            raise DataError(f"{learning.path}: holds no finished round yet")
        self._told()
        if self.options["json_file"]:
            write_json(self.options["json_file"], self._document(), self.options["overwrite"])
        if self.options["plot_file"]:
            draw(learning, self.options["plot_file"], self.options["overwrite"])

    def _after(self, learning: ActiveLearning, number: int, new: bool) -> None:
        self._advance(1)
        if not new:
            return
        for i, message in enumerate(learning.rows_.message):
            if message and learning.rows_.round[i] == number and not self.quiet:
                _tell.warn(f"round {number}: point {i} of all: {message}")
        if importlib.util.find_spec("matplotlib") is not None and learning.path is not None:
            draw(learning, learning.path / "rounds" / f"{number:04d}" / "figure.png", True)

    def _told(self) -> None:
        if self.quiet:
            return
        learning = self.learning
        last = learning.rounds_[-1]
        judged = "test" if "test" in last else "new"
        header = f"{'round':>5}{'points':>8}{'failed':>8}{'median':>10}{'95 %':>10}  criteria"
        what = {"test": "held out points", "new": "new points, before they were learned"}[judged]
        click.echo(f"errors of mu at {what}, in units of its spread")
        click.echo(header)
        for entry in learning.rounds_:
            errors = entry[judged]
            cells = "".join(
                f"{'-' if errors[key] is None else format(errors[key], '.4f'):>10}" for key in ("median", "p95")
            )
            asked = ", ".join(f"{name} {found['points']}" for name, found in entry["by_criterion"].items())
            click.echo(f"{entry['round']:5d}{entry['n_points']:8d}{entry['n_failed']:8d}{cells}  {asked}")
        if "scores" in last:
            found = last["scores"]
            largest = "none" if found["max_dh"] is None else f"{found['max_dh']:.4g} nats"
            click.echo(
                f"scores: {found['n_scored']} points with snapshots, largest dH {largest}; weights {found['weights']}, "
                f"effective sample size {found['effective_sample_size']:.1f} of {last['n_known']}"
            )
        if learning.stopped_:
            click.echo(f"ended: {learning.stopped_}")
        click.echo(f"kept in {learning.path}")

    def _document(self) -> dict[str, Any]:
        learning = self.learning
        return {
            "command": "active",
            "config": self.config,
            "folder": learning.path,
            "parameters": learning.about(),
            "rounds": learning.rounds_,
            "stopped": learning.stopped_ or None,
            "n_points": len(learning.rows_),
            "n_known": int(learning.rows_.good.sum()),
            "versions": versions(),
        }


def draw(learning: ActiveLearning, path: str | Path, overwrite: bool) -> None:
    """The course of a run, and slices of its free energy."""
    if importlib.util.find_spec("matplotlib") is None:
        raise MissingExtraError("matplotlib", "plot")
    parts = [("test", "held out"), ("new", "new, before training")]
    courses = []
    for part, label in parts:
        found = errors_over_points(learning.rounds_, part)
        if found["points"]:
            courses.append(Course(label, found["points"], found["median"], found["p95"]))
    q = learning.domain.dim
    names = learning.names
    slices: list[Slice] = []
    known = learning.rows_.x[learning.rows_.good]
    temperature = learning.rounds_[-1]["temperature"]
    for axes in SLICES:
        if max(axes) >= q or learning.model_ is None:
            continue
        found_slice = energy_slice(learning.model_, learning.domain, axes, temperature, known)
        slices.append(
            Slice(
                f"{temperature:g} K, {names[axes[0]]} and {names[axes[1]]}",
                (names[axes[0]], names[axes[1]]),
                found_slice.x,
                found_slice.y,
                1e3 * np.ma.masked_invalid(found_slice.energy),
                found_slice.unstable,
                found_slice.points,
                found_slice.wells,
            )
        )
    plot_course(
        path,
        courses=courses,
        shares=shares(learning.rounds_),
        rounds=[entry["round"] for entry in learning.rounds_],
        slices=slices,
        overwrite=overwrite,
    )
