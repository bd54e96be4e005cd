"""The course of ``quests-zenn calibrate``. Imported only when it really runs."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import click
import numpy as np
import numpy.typing as npt

from quests_zenn._core.checks import DataError
from quests_zenn._core.progress import progress_bar
from quests_zenn.cli import _options, _tell
from quests_zenn.cli._known import Known, open_known, was_given
from quests_zenn.cli._source import SCORED, Source, check_outputs, needs_frames
from quests_zenn.cli._tell import warn
from quests_zenn.descriptors import element_symbols
from quests_zenn.io import plots_uq
from quests_zenn.io.frames import read_atoms, stem
from quests_zenn.io.outputs import write_scored
from quests_zenn.uq import Reference
from quests_zenn.uq._conformal import fewest_groups
from quests_zenn.uq.calibration import UNITS, Coverage, ErrorBound, SplitCheck, check_coverage, frames_inside
from quests_zenn.uq.thresholds import find_copies, merge_copies

LEVELS = (0.9, 0.95)

#: Options that say how a bound is made, and mean nothing where one is loaded.
_OF_MAKING = ("coverage", "frame_dh", "splits", "test_share", "train_share", "seed")

#: Mean error of energies, in units of their spread, from which on it looks like another zero.
_SHIFTED = 5.0

_MEANING = {
    "atom": "a random atom of a new structure (large and small ones count alike)",
    "frame": "all atoms of a new frame at once",
    "energy": "the energy of a new frame",
}

FloatArray = npt.NDArray[np.float64]


class Labelled(Source):
    """Frames with what is true and what was predicted.

    Attributes
    ----------
    errors : list of numpy.ndarray
        Of each frame: magnitudes of the errors of its atoms, eV/Å; or the error of its energy, eV/atom, with its sign.
    """

    def __init__(self, files: tuple[str, ...], options: dict[str, Any]) -> None:
        # a missing key is judged here, with both of its kinds
        super().__init__(files, options | {"energy_key": None}, volumes=False)
        self.errors: list[FloatArray] = []
        self.pair: tuple[str, str] | None = None
        self.quantity = ""
        for quantity, default, true, predicted in (
            ("force", "forces", "forces_key", "predicted_key"),
            ("energy", "energy", "energy_key", "predicted_energy_key"),
        ):
            if options[predicted] is not None:
                self.pair, self.quantity = (options[true] or default, options[predicted]), quantity
        if self.pair is not None and self.stores:
            needs_frames(next(iter(self.stores)), "a comparison of what is true and what was predicted")

    def _note(self, label: str, atoms: Any) -> None:
        super()._note(label, atoms)
        if self.pair is None:
            return
        if self.quantity == "force":
            true, predicted = (_forces(atoms, key, label) for key in self.pair)
            self.errors.append(np.linalg.norm(predicted - true, axis=1))
        else:
            true_energy, predicted_energy = (_energy(atoms, key, label) for key in self.pair)
            self.errors.append(np.array([(predicted_energy - true_energy) / len(atoms)]))


def _results(atoms: Any) -> dict[str, Any]:
    return dict(getattr(atoms.calc, "results", {}))


def _forces(atoms: Any, key: str, label: str) -> FloatArray:
    """An array of the frame with a vector for each atom; ASE moves ``forces`` to a calculator."""
    results = _results(atoms)
    found = atoms.arrays.get(key, results.get(key))
    if found is None:
        there = {name for name, values in (results | atoms.arrays).items() if np.shape(values) == (len(atoms), 3)}
        known = ", ".join(sorted(there - {"positions"})) or "none"
        raise DataError(f"{label}: no forces under the key {key!r} (its arrays of vectors: {known})")
    array = np.asarray(found)
    if array.dtype.kind not in "fiu" or array.shape != (len(atoms), 3):
        raise DataError(f"{label}: {key!r} holds no forces: three numbers per atom are needed, got {array.shape}")
    bad = ~np.isfinite(array).all(axis=1)
    if bad.any():
        raise DataError(f"{label}, atom {int(np.flatnonzero(bad)[0])}: {key!r} is not finite")
    return array.astype(np.float64)


def _energy(atoms: Any, key: str, label: str) -> float:
    results = _results(atoms)
    found = atoms.info.get(key, results.get(key))
    if found is None:
        there = sorted({str(name) for name, value in (results | atoms.info).items() if _is_number(value)})
        raise DataError(f"{label}: no energy under the key {key!r} (its numbers: {', '.join(there) or 'none'})")
    if not _is_number(found) or not math.isfinite(float(found)):
        raise DataError(f"{label}: {key!r} holds no energy, but {found!r}")
    return float(found)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.number) and not isinstance(value, bool)


# ---------------------------------------------------------------------- the run


def calibrate(files: tuple[str, ...], options: dict[str, Any]) -> None:
    """Fit a bound and tell whether it holds; or load one and use it."""
    options = options | {"precision": "float64"}
    loaded = options["load"] is not None
    if loaded:
        for name in _OF_MAKING:
            if was_given(name):
                raise click.UsageError(f"--{name.replace('_', '-')} has no effect on a bound that is loaded")
    elif options["predicted_energy_key"] and was_given("coverage") and options["coverage"] == "atom":
        raise click.UsageError("energies are of whole frames: --coverage atom is for forces")
    elif options["predicted_energy_key"] is None and was_given("frame_dh"):
        raise click.UsageError("--frame-dh goes with --predicted-energy-key")
    inputs = (*files, *options["reference"], *([options["load"]] if loaded else []))
    check_outputs(inputs, options)
    _check_ending(options, SCORED if loaded else (".json",))
    times = _tell.Times()
    # errors are those of FILE: the reference needs no energies
    known = open_known(options["reference"], options | {"energy_key": None}, times=times)
    # a bound of another reference is refused before the work
    bound = ErrorBound.load(options["load"], known.reference) if loaded else None
    source = _describe(files, options, known.reference, times)
    if bound is not None and source.pair is not None and source.quantity != bound.quantity:
        asked = "forces" if source.quantity == "force" else "energies"
        raise DataError(f"{options['load']}: is a bound of {bound.quantity} errors, and the keys given are of {asked}")
    run = _Run(source, known, options, times)
    if bound is None:
        run.fit()
    else:
        run.apply(bound)


def _check_ending(options: dict[str, Any], endings: tuple[str, ...]) -> None:
    output = options["output"]
    if output and not output.removesuffix(".gz" if endings == SCORED else "").endswith(endings):
        what = "frames with their bounds are" if endings == SCORED else "a bound is"
        raise DataError(f"{output}: {what} written as {' or '.join(endings)}; its name must end so")


def _describe(files: tuple[str, ...], options: dict[str, Any], reference: Reference, times: _tell.Times) -> Labelled:
    own = {"k": reference.k, "cutoff": reference.cutoff, "species": reference.species, "elements": None}
    own["agreed_with"] = "the reference"
    # what is written as JSON is no frame
    scored = options["output"] if options["load"] is not None else None
    source = Labelled(files, options | own | {"bandwidths": (), "output": scored})
    source.warm_up()
    source.describe()
    for name, seconds in source.seconds.items():
        times.seconds[name] = times.seconds.get(name, 0.0) + seconds
    _options.Interrupts.raise_if_pending()
    return source


class _Run:
    """What both ways of the command share: dH and errors of what is asked about."""

    def __init__(self, source: Labelled, known: Known, options: dict[str, Any], times: _tell.Times) -> None:
        self.source, self.known, self.options, self.times = source, known, options, times
        self.remarks: list[str] = []
        self.dh = times.step("sums", self._score)
        _options.Interrupts.raise_if_pending()
        self.frames = source.owner
        self.groups = self._groups()

    def _score(self) -> FloatArray:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)
            dh = self.known.reference.score(self.source.environments, jobs=self.source.jobs)
        self.remarks += [str(item.message) for item in caught]
        return dh if self.source.chosen is None else dh[self.source.chosen]

    def _groups(self) -> npt.NDArray[np.int64]:
        """Group of each atom asked about."""
        if self.source.by is not None:
            return self.source.groups()[0]
        env = self.source.environments
        every = np.arange(len(self.source.lengths))
        return merge_copies(every, find_copies(env.x, env.numbers, env.frame_offsets))[self.frames]

    def of_frames(self, statistic: str) -> FloatArray:
        """Mean or largest dH of each frame that has atoms asked about."""
        starts = np.flatnonzero(np.diff(self.frames, prepend=-1))
        if statistic == "max":
            return np.maximum.reduceat(self.dh, starts)
        return np.add.reduceat(self.dh, starts) / np.diff(np.append(starts, len(self.dh)))

    def labelled(self, statistic: str) -> dict[str, Any]:
        """dH, errors, groups and frames of atoms; or of whole frames."""
        source = self.source
        if source.quantity == "energy":
            frames, first = np.unique(self.frames, return_index=True)
            errors = np.concatenate(source.errors)[frames]
            return {
                "dh": self.of_frames(statistic), "errors": errors, "groups": self.groups[first], "frames": frames,
            }  # fmt: skip
        errors = np.concatenate(source.errors)
        if source.chosen is not None:
            errors = errors[source.chosen]
        return {"dh": self.dh, "errors": errors, "groups": self.groups, "frames": self.frames}

    # --- a bound is made

    def fit(self) -> None:
        """Split, measure, fit, write."""
        options, source = self.options, self.source
        energy = source.quantity == "energy"
        data = self.labelled(options["frame_dh"])
        how: dict[str, Any] = {
            "level": options["levels"] or LEVELS,
            "coverage": "frame" if energy else options["coverage"],
            "quantity": source.quantity,
            "train_share": options["train_share"],
            "rng": options["seed"],
        }
        n_groups = len(np.unique(data["groups"]))
        if n_groups < 2:
            raise DataError(
                f"{', '.join(source.files)}: all frames belong to one group, and a bound needs at least two (one for "
                "its width, one to calibrate it); more frames, or another --by"
            )
        statistic = options["frame_dh"] if energy else "atom"
        bound = ErrorBound.fit(**data, **how, statistic=statistic, reference=self.known.reference)
        checks = self._check(data, how) if n_groups > 2 else []
        if options["output"]:
            notes = {
                "inputs": list(source.files), "references": list(self.known.names), "keys": list(source.pair or ()),
                "by": source.by, "seed": options["seed"], "n_groups": n_groups,
            }  # fmt: skip
            self.times.step("writing", lambda: bound.save(options["output"], options["overwrite"], notes))
        if options["plot_file"]:
            self._plot_errors(bound, bound.levels, data, checks)
        document = {
            "quantity": bound.quantity, "unit": bound.unit, "statistic": bound.statistic, "coverage": bound.coverage,
            "coverage_meaning": self._meaning(bound), "keys": list(source.pair or ()), "by": source.by,
            "n_groups": n_groups, "mean_error": np.abs(data["errors"]).mean(), "splits": options["splits"],
            "results": [_told(check) for check in checks], "bound": bound.document(),
        }  # fmt: skip
        rows = [
            *self._rows_of_errors(data["errors"]),
            ("coverage", f"of {self._meaning(bound)}"),
            ("groups", self._told_groups(n_groups, data, checks)),
        ]
        if not self._finish(document, rows):
            return
        if checks:
            _print_checks(checks, bound)
        _print_bound(bound, data["dh"])
        self._warn_of_groups(bound, n_groups)
        self._warn_of_data(data)
        if checks and checks[-1].extrapolated > 0.01:
            warn(
                f"{checks[-1].extrapolated:.1%} of what was held out lies beyond the largest dH of its calibration, "
                "where a bound is not backed by data"
            )
        self._warn()

    def _check(self, data: dict[str, Any], how: dict[str, Any]) -> list[SplitCheck]:
        options = self.options
        with progress_bar("random splits", "split", total=options["splits"], quiet=self.source.quiet) as advance:

            def step(done: int) -> None:
                _options.Interrupts.raise_if_pending()
                advance(done)

            return self.times.step(  # type: ignore[no-any-return]
                "splits",
                lambda: check_coverage(
                    **data, **how, splits=options["splits"], test_share=options["test_share"], progress=step
                ),
            )

    def _told_groups(self, n: int, data: dict[str, Any], checks: list[SplitCheck]) -> str:
        frames = len(np.unique(data["frames"]))
        told = f"{n} of {frames} frames"
        if self.source.by is None:
            told += " (copies by symmetry merged)" if n < frames else ""
        else:
            told += f" (by {self.source.by})"
        if checks:
            one = checks[0]
            told += (
                f"; {self.options['splits']} splits: {one.n_train} for the width, {one.n_calibration} to calibrate, "
            )
            told += f"{one.n_test} held out"
        return told

    def _warn_of_groups(self, bound: ErrorBound, n_groups: int) -> None:
        for level, factor in zip(bound.levels, bound.factors, strict=True):
            least = fewest_groups(level)
            if math.isinf(factor):
                warn(
                    f"level {level:g} takes at least {least} groups to calibrate and one for the width, and there are "
                    f"{n_groups}: the bound is infinite; more structures, or a lower --level"
                )
        if n_groups < 3:
            warn("with two groups none can be held out: the coverage was not measured")

    def _warn_of_errors(self, errors: FloatArray) -> None:
        if not errors.any():
            true, predicted = self.source.pair or ("", "")
            warn(f"all errors are zero: do {true} and {predicted} hold the same numbers?")

    def _warn_of_data(self, data: dict[str, Any]) -> None:
        self._warn_of_errors(data["errors"])
        if self.source.quantity == "energy" and len(data["errors"]) > 2:
            mean, spread = data["errors"].mean(), data["errors"].std()
            if abs(mean) > _SHIFTED * spread:
                warn(
                    f"predicted energies are off by {mean:.4g} eV/atom on average and scatter by {spread:.2g} only: do "
                    "both count from the same zero?"
                )
        inside = np.count_nonzero(frames_inside(self.known.reference, self.source.environments))
        if inside:
            warn(
                f"{inside} of {len(self.source.lengths)} frames are in the reference already, or are copies of such "
                "frames: if the potential has learnt them, neither errors nor dH speak for new ones; leave them out"
            )

    # --- a bound is used

    def apply(self, bound: ErrorBound) -> None:
        """Bounds of frames; with known errors, also whether they hold."""
        options, source = self.options, self.source
        levels = [bound.levels[bound._index(level)] for level in options["levels"]] or list(bound.levels)
        levels = sorted(set(levels))
        whole = bound.quantity == "energy"
        dh = self.of_frames(bound.statistic) if whole else self.dh
        frames = np.unique(self.frames) if whole else self.frames
        bounds = [bound.bound(dh, level) for level in levels]
        beyond, unknown = bound.extrapolated(dh), np.isinf(dh)
        found: list[Coverage] = []
        data: dict[str, Any] = {}
        if source.pair is not None:
            data = self.labelled(bound.statistic)
            found = [bound.evaluate(**data, level=level) for level in levels]
        if options["output"]:
            self.times.step("writing", lambda: self._write(bound, levels, bounds, frames, beyond))
        if options["plot_file"]:
            if data:
                self._plot_errors(bound, levels, data)
            else:
                self._plot_bounds(bound, levels, bounds, frames, beyond)
        shares = (0.5, 0.95, 1.0)
        document = {
            "quantity": bound.quantity, "unit": bound.unit, "statistic": bound.statistic, "coverage": bound.coverage,
            "coverage_meaning": self._meaning(bound), "keys": list(source.pair or ()), "by": source.by,
            "load": options["load"], "largest_dh": bound.largest_dh, "extrapolated": beyond.mean(),
            "infinite_dh": unknown.mean(), "infinite": np.isinf(bounds[0]).mean(),
            "levels": [
                {
                    "level": level, "mean": values[np.isfinite(values)].mean() if np.isfinite(values).any() else None,
                    "quantiles": {str(s): q for s, q in zip(shares, _quantiles(values, shares), strict=True)},
                }
                for level, values in zip(levels, bounds, strict=True)
            ],
            "results": [_told_once(result) for result in found],
        }  # fmt: skip
        made = f"{bound.n_train} groups for the width, {bound.n_calibration} to calibrate"
        rows = [
            ("bound", f"{options['load']}: of {bound.quantity} errors, from {made}"),
            ("coverage", f"of {self._meaning(bound)}"),
            *(self._rows_of_errors(data["errors"]) if data else []),
            ("extrapolated", f"{beyond.mean():.2%} (dH above {bound.largest_dh:.4g} nats: the bound is inf)"),
        ]
        if not self._finish(document, rows):
            return
        click.echo(f"\n{'level':>6}{'half below':>14}{'95% below':>13}{'largest':>11}   ({bound.unit})")
        for level, values in zip(levels, bounds, strict=True):
            half, most, top = _quantiles(values, shares)
            click.echo(f"{_percent(level):>6}{half:14.4g}{most:13.4g}{top:11.4g}")
        if found:
            click.echo(f"\n{'level':>6}{'covered':>10}{'95% of such samples':>22}{'mean width':>13}{'constant':>11}")
            for result in found:
                band = f"{result.band[0]:.1%} to {result.band[1]:.1%}"
                click.echo(
                    f"{_percent(result.level):>6}{result.measured:10.1%}{band:>22}{result.mean_width:13.4g}"
                    f"{result.constant_width:11.4g}"
                )
        self._warn_of_use(bound, levels, dh)
        if data:
            self._warn_of_errors(data["errors"])
            self._warn_of_coverage(found)
        self._warn()

    def _warn_of_use(self, bound: ErrorBound, levels: list[float], dh: FloatArray) -> None:
        """Why bounds are infinite, where they are."""
        what = "frames" if bound.quantity == "energy" else "atoms"
        unknown = np.isinf(dh)
        far = np.count_nonzero(bound.extrapolated(dh) & ~unknown)
        if far:
            warn(
                f"{far} of {len(dh)} {what} lie beyond the largest dH that calibrated the bound: no error is known "
                "there, and their bound is infinite"
            )
        if unknown.any():
            known = self.known.reference.elements
            new = [name for name in element_symbols(self.source.environments.numbers) if name not in known]
            why = f"the reference never saw {', '.join(new)}" if new else "their dH is"
            warn(f"{np.count_nonzero(unknown)} of {len(dh)} {what} have an infinite bound: {why}")
            self.remarks = [remark for remark in self.remarks if "never saw" not in remark]  # said just now
        for level in levels:
            if math.isinf(bound.factors[bound.levels.index(level)]):
                name = self.options["load"]
                warn(
                    f"level {level:g} takes at least {fewest_groups(level)} groups to calibrate, and {name} was made "
                    f"with {bound.n_calibration}: it is infinite; calibrate again with more structures"
                )

    def _warn_of_coverage(self, found: list[Coverage]) -> None:
        """Coverage of a loaded bound that chance does not explain."""
        odd = [result for result in found if not result.inside]
        for size, why, results in (
            (
                "less",
                "the bound does not hold for these structures, which are not drawn as those that calibrated it",
                [result for result in odd if result.measured < result.band[0]],
            ),
            (
                "more",
                "these structures err less than those that calibrated the bound, which is too wide for them",
                [result for result in odd if result.measured > result.band[1]],
            ),
        ):
            told = ", ".join(
                f"{one.measured:.1%} at level {one.level:g} ({one.band[0]:.1%} to {one.band[1]:.1%} expected)"
                for one in results
            )
            if results:
                warn(f"{size} is covered than chance explains, {told}: {why}")

    def _write(
        self, bound: ErrorBound, levels: list[float], bounds: list[FloatArray], frames: npt.NDArray[Any],
        beyond: npt.NDArray[np.bool_],
    ) -> None:  # fmt: skip
        source, options = self.source, self.options
        names = [f"{bound.quantity}_bound_{100 * level:g}" for level in levels]
        whole = bound.quantity == "energy"
        per_atom = [] if whole else [source.of_all_atoms(values) for values in bounds]
        outside = np.bincount(frames, beyond, len(source.lengths)).astype(int)
        flags = beyond
        if source.chosen is not None and not whole:
            flags = np.zeros(sum(source.lengths), bool)
            flags[source.chosen] = beyond
        place = {int(frame): row for row, frame in enumerate(frames)} if whole else {}

        def labelled() -> Iterator[tuple[str, Any]]:
            first = 0
            atoms_of = (item for spec in source.files for item in read_atoms(spec, options["type_map"]))
            for number, (label, atoms) in enumerate(atoms_of):
                last = first + len(atoms)
                # what an earlier run may have left
                for name in (*names, "extrapolated", "n_extrapolated"):
                    (atoms.info if whole else atoms.arrays).pop(name, None)
                if whole and number in place:
                    row = place[number]
                    atoms.info |= {name: float(bounds[i][row]) for i, name in enumerate(names)}
                    atoms.info["extrapolated"] = bool(beyond[row])
                elif not whole and last <= len(flags):
                    atoms.arrays |= {name: per_atom[i][first:last] for i, name in enumerate(names)}
                    atoms.arrays["extrapolated"] = flags[first:last]
                    atoms.info["n_extrapolated"] = int(outside[number])
                first = last
                yield label, atoms

        notes = {"dH_scope": self.known.scope, "dH_bandwidth": self.known.reference.bandwidth}
        notes |= {f"dH_{name}": getattr(self.known.reference, name) for name in ("k", "cutoff", "species")}
        notes |= {"bound_coverage": bound.coverage, "bound_beyond": "extrapolated: no error is known, the bound is inf"}
        if math.isfinite(bound.largest_dh):
            notes["bound_largest_dH"] = bound.largest_dh
        write_scored(
            options["output"], labelled(), source.of_all_atoms(self.dh), options["overwrite"], notes=notes
        )  # fmt: skip

    def _plot_bounds(
        self, bound: ErrorBound, levels: list[float], bounds: list[FloatArray], frames: npt.NDArray[Any],
        beyond: npt.NDArray[np.bool_],
    ) -> None:  # fmt: skip
        """Bounds along the frames: of forces the largest of each, where all its atoms have one."""
        starts = np.flatnonzero(np.diff(frames, prepend=-1))
        largest = [np.maximum.reduceat(values, starts) for values in bounds]
        what = "largest bound of a frame" if bound.quantity == "force" else "bound of the energy error"
        plots_uq.plot_bounds(
            self.options["plot_file"], frames[starts],
            list(zip(map(_percent, levels), largest, strict=True)),
            np.add.reduceat(beyond.astype(float), starts) / np.diff(np.append(starts, len(beyond))),
            y_label=f"{what} ({bound.unit})", of="atoms" if bound.quantity == "force" else "frames",
            title=self._title(), overwrite=self.options["overwrite"],
        )  # fmt: skip

    # --- what both do

    def _plot_errors(
        self, bound: ErrorBound, levels: Sequence[float], data: dict[str, Any], checks: Sequence[SplitCheck] = ()
    ) -> None:
        """Errors against dH, below the bounds."""
        finite = data["dh"][np.isfinite(data["dh"])]
        if len(finite) == 0:
            raise DataError(f"{', '.join(self.source.files)}: dH is infinite everywhere: no plot")
        low, high = finite.min(), finite.max()
        corners = np.append(bound.nodes, bound.largest_dh)
        at = np.union1d(np.linspace(low, high, 500), corners[(corners > low) & (corners < high)])
        of = "" if bound.quantity == "force" else f"{bound.statistic} of the frame, "
        plots_uq.plot_calibration(
            self.options["plot_file"], dh=data["dh"], errors=np.abs(data["errors"]), at=at,
            bounds=[(f"bound, {_percent(one)} per {bound.coverage}", bound.bound(at, one)) for one in levels],
            largest=bound.largest_dh,
            coverages=[
                plots_uq.MeasuredCoverage(_percent(check.level), check.measured, check.level, check.band)
                for check in checks
            ],
            x_label=f"dH given the reference, {of}nats", y_label=f"{bound.quantity} error ({bound.unit})",
            title=self._title(), overwrite=self.options["overwrite"],
        )  # fmt: skip

    def _title(self) -> str:
        return f"{', '.join(map(stem, self.source.files[:3]))} given {', '.join(map(stem, self.known.names[:3]))}"

    def _meaning(self, bound: ErrorBound) -> str:
        return _MEANING["energy" if bound.quantity == "energy" else bound.coverage]

    def _rows_of_errors(self, errors: FloatArray) -> list[tuple[str, str]]:
        true, predicted = self.source.pair or ("", "")
        size = np.abs(errors)
        unit = UNITS[self.source.quantity]
        return [("errors", f"{predicted} against {true}: mean {size.mean():.4g}, largest {size.max():.4g} {unit}")]

    def _finish(self, document: dict[str, Any], rows: list[tuple[str, str]]) -> bool:
        _options.Interrupts.raise_if_pending()
        source, known = self.source, self.known
        found = document | source.parameters() | known.parameters() | {"scope": {"dH": known.scope}}
        _tell.write_document("calibrate", source.files, self.options, found, self.times, source.jobs)
        if source.quiet:
            return False
        own = [row for row in source.rows() if row[0] != "descriptor"]
        _tell.rows([*own, *known.rows(), *rows, self.times.row(source.jobs)])
        return True

    def _warn(self) -> None:
        for remark in self.remarks:
            warn(remark)
        self.source.warn()
        self.known.warn()


def _quantiles(values: FloatArray, shares: tuple[float, ...]) -> FloatArray:
    # interpolation would fail between infinities
    found: FloatArray = np.quantile(values, shares, method="lower")
    return found


def _percent(share: float) -> str:
    return f"{100.0 * share:g}%"


def _told(check: SplitCheck) -> dict[str, Any]:
    """Splits at one level, for the document."""
    names = [name for name in SplitCheck.__dataclass_fields__ if name not in ("edges", "by_dh", "by_dh_constant")]
    return {name: getattr(check, name) for name in names} | {
        "mean": check.mean,
        "by_dh": {"edges": check.edges, "coverage": check.by_dh, "constant": check.by_dh_constant},
    }


def _told_once(result: Coverage) -> dict[str, Any]:
    """Coverage of a loaded bound, for the document."""
    found = {name: getattr(result, name) for name in Coverage.__dataclass_fields__}
    return found | {"measured": result.measured, "inside": result.inside}


def _print_checks(checks: list[SplitCheck], bound: ErrorBound) -> None:
    click.echo(
        f"\n{'level':>6}{'measured':>10}{'expected':>17}{'95% of splits in':>19}{'inside':>8}{'mean width':>12}"
        f"{'median':>10}{'constant':>10}   ({bound.unit})"
    )
    for check in checks:
        band = f"{check.band[0]:.1%} to {check.band[1]:.1%}"
        low, high = check.expected
        expected = f"{low:.1%}" if low == high else f"{low:.1%} to {high:.1%}"
        click.echo(
            f"{_percent(check.level):>6}{check.mean:10.1%}{expected:>17}{band:>19}{check.inside:8.1%}"
            f"{check.mean_width:12.4g}{check.median_width:10.4g}{check.constant_width:10.4g}"
        )
    whose = "largest dH of the frame" if bound.coverage == "frame" and bound.quantity == "force" else "dH"
    edges = checks[0].edges
    click.echo(f"\ncoverage by {whose}, in quarters (and that of a bound that is the same for all dH)")
    heads = [f"{low:.3g} to {high:.3g}" for low, high in itertools.pairwise(edges)]
    width = max(18, *(len(head) + 3 for head in heads))
    click.echo(f"{'level':>6}" + "".join(f"{head:>{width}}" for head in heads))
    for check in checks:
        parts = [f"{own:.1%} ({same:.1%})" for own, same in zip(check.by_dh, check.by_dh_constant, strict=True)]
        click.echo(f"{_percent(check.level):>6}" + "".join(f"{part:>{width}}" for part in parts))


def _print_bound(bound: ErrorBound, dh: FloatArray) -> None:
    finite = dh[np.isfinite(dh)]
    if len(finite) == 0:
        return
    shares = (0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
    at = np.unique(_quantiles(finite, shares))
    click.echo(f"\nthe bound from all groups ({bound.unit}), at dH =")
    lines = [("level", at), *((_percent(level), bound.bound(at, level)) for level in bound.levels)]
    cells = [(name, [f"{value:.4g}" for value in values]) for name, values in lines]
    width = max(10, *(len(cell) + 2 for _, line in cells for cell in line))  # -2.247e-09 has ten
    for name, line in cells:
        click.echo(f"{name:>6}" + "".join(f"{cell:>{width}}" for cell in line))
