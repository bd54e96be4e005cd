"""The course of ``quests-zenn active``. Imported only when it really runs."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt

from quests_zenn._core.checks import DataError, MissingExtraError
from quests_zenn._core.progress import progress_bar
from quests_zenn.cli import _options, _tell
from quests_zenn.cli._fit import require_torch
from quests_zenn.io.outputs import check_output, versions, write_json
from quests_zenn.io.plots import check_plot
from quests_zenn.io.plots_active import Course, Line, Slice, plot_course
from quests_zenn.sampling.config import from_config
from quests_zenn.sampling.loop import ActiveLearning, Stop, errors_over_points
from quests_zenn.sampling.report import asked_before, energy_line, energy_slice, shares

#: In the folder of a run, the files that its commands wrote elsewhere.
OUTPUTS = "outputs.json"

#: Planes that a figure shows.
SLICES = ((0, 1), (0, 2), (1, 2))

#: Most order parameters whose fixed values a title says.
NAMED = 3


class Outputs:
    """Files that commands of one run wrote, by content, in ``outputs.json`` of its folder.

    A file that is still as a command left it may be replaced by the next one; any other only where that was asked for.

    Parameters
    ----------
    folder : Path or None
        That of the run.
    overwrite : bool
        Whether any file may be replaced.
    """

    def __init__(self, folder: Path | None, overwrite: bool) -> None:
        self.folder, self.overwrite = folder, overwrite

    def _known(self) -> dict[str, str]:
        """SHA-256 of each file, by its name relative to the folder, so that both may be moved together."""
        if self.folder is None:
            return {}
        try:
            found = json.loads((self.folder / OUTPUTS).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}  # nothing is known of any file, which is the safe side
        return found if isinstance(found, dict) else {}

    def _name(self, path: str) -> str:
        assert self.folder is not None
        file, folder = os.path.realpath(path), os.path.realpath(self.folder)
        try:
            return Path(os.path.relpath(file, folder)).as_posix()
        except ValueError:  # on another drive
            return file

    def may_replace(self, path: str) -> bool:
        """Whether a file may be replaced that is there."""
        known = None if self.overwrite or self.folder is None else self._known().get(self._name(path))
        return self.overwrite or (known is not None and known == _digest(path))

    def keep(self, path: str) -> None:
        """A file was written."""
        if self.folder is None:
            return
        try:
            write_json(self.folder / OUTPUTS, {**self._known(), self._name(path): _digest(path)}, overwrite=True)
        except DataError as error:  # a run of somebody else, say
            _tell.warn(f"the next command will not replace {path} unasked: {error}")


def _digest(path: str) -> str | None:
    """SHA-256 of a file, None if it cannot be read."""
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except OSError:
        return None


class ActiveRun:
    """One run, from a configuration to a report."""

    def __init__(self, config: str, options: dict[str, Any]) -> None:
        self.options = options
        self.quiet: bool = options["quiet"]
        require_torch()
        self.learning = from_config(config, options["output"], options["jobs"])
        self.config = config
        self.outputs = Outputs(self.learning.path, options["overwrite"])
        for name, check in (("json_file", check_output), ("plot_file", check_plot)):
            if options[name]:
                check(options[name], self.outputs.may_replace(options[name]))

    def run(self) -> None:
        """Go on, and tell."""
        learning = self.learning
        assert isinstance(learning.stop, Stop)
        total, before = learning.stop.total, asked_before(learning.path)
        lowered = total < before
        if lowered:  # all that there is counts, and nothing is added to it
            learning.stop = replace(learning.stop, total=before)
        if self.options["report"]:
            learning.restore()
            learning.stopped_ = learning.stop.reached(learning.rounds_, len(learning.rows_)) or ""
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
        if lowered:
            learning.stopped_ = f"{before} points were asked before, more than the total of {total}; no more are bought"
        self._told()
        if path := self.options["json_file"]:
            write_json(path, self._document(), self.outputs.may_replace(path))
            self.outputs.keep(path)
        if path := self.options["plot_file"]:
            draw(learning, path, self.outputs.may_replace(path))
            self.outputs.keep(path)

    def _after(self, learning: ActiveLearning, number: int, new: bool) -> None:
        self._advance(1)
        picture = None if learning.path is None else learning.path / "rounds" / f"{number:04d}" / "figure.png"
        if importlib.util.find_spec("matplotlib") is None:
            picture = None
        # a run that was killed between a round and its figure
        late = picture is not None and not picture.exists()
        if not (new or late):
            return
        for i, message in enumerate(learning.rows_.message):
            if message and learning.rows_.round[i] == number and not self.quiet:
                _tell.warn(f"round {number}: point {i} of all: {message}")
        if picture is not None:
            draw(learning, picture, True)

    def _told(self) -> None:
        if self.quiet:
            return
        learning = self.learning
        last = learning.rounds_[-1]
        judged = "test" if "test" in last else "new"
        header = f"{'round':>5}{'points':>8}{'failed':>8}{'median':>10}{'95 %':>10}  criteria"
        what = {"test": "held out points", "new": "new points, before they were learned"}[judged]
        click.echo(f"errors of mu at {what}, in units of the spread of mu measured so far")
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
    good = learning.rows_.good
    known = learning.rows_.x[good]
    temperature = learning.rounds_[-1]["temperature"]
    line = None
    if q == 1 and learning.model_ is not None:
        found_line = energy_line(learning.model_, learning.domain, temperature)
        here = good & np.isclose(learning.rows_.T, temperature, rtol=1e-6, atol=0.0)
        line = Line(
            f"{temperature:g} K",
            names[0],
            found_line.x,
            1e3 * found_line.energy,
            found_line.mu,
            found_line.unstable,
            learning.rows_.x[here, 0],
            learning.rows_.mu[here, 0],
            found_line.wells,
        )
    for axes in SLICES:
        if max(axes) >= q or learning.model_ is None:
            continue
        found_slice = energy_slice(learning.model_, learning.domain, axes, temperature, known)
        slices.append(
            Slice(
                f"{temperature:g} K{_fixed(names, found_slice.at, axes)}",
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
        line=line,
        overwrite=overwrite,
    )


def _fixed(names: Sequence[str], at: npt.NDArray[np.float64], axes: tuple[int, int]) -> str:
    """Where a plane lies in the other order parameters, in few words."""
    others = [i for i in range(len(names)) if i not in axes]
    told = [i for i in others if len(others) <= NAMED or abs(at[i]) > 1e-9]
    parts = [f"{names[i]} = {at[i] + 0.0:.3g}" for i in told[:NAMED]]
    if len(told) > NAMED:
        parts.append("... (the centre)")
    elif len(told) < len(others):
        parts.append("others 0" if told else "all others 0")
    return "".join(f", {part}" for part in parts)
