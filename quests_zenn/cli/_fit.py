"""The course of ``quests-zenn fit``. Imported only when it really runs."""

from __future__ import annotations

import importlib
import importlib.util
import math
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt

from quests_zenn._core.checks import DataError, DataWarning, MissingExtraError
from quests_zenn._core.parallel import resolve_jobs
from quests_zenn._core.progress import progress_bar
from quests_zenn.cli import _options, _tell
from quests_zenn.cli._tell import warn
from quests_zenn.cli.fit import TARGETS
from quests_zenn.io.frames import stem
from quests_zenn.io.outputs import check_output, versions, write_json
from quests_zenn.io.plots import check_plot
from quests_zenn.io.plots_zenn import Line, Residuals, Ruling, plot_fit
from quests_zenn.io.tables import UNITS, Table, check_unit, convert, nearest, read_table, unit_of

FloatArray = npt.NDArray[np.float64]

#: Rows below which there is nothing to fit.
LEAST_ROWS = 8

#: How errors of targets are told: unit and factor.
TOLD = {
    "F": ("meV", 1e3), "U": ("meV", 1e3), "P": ("GPa", 1.0), "S": ("k_B", 1.0 / UNITS["entropy"]["kB"]),
    "mu": ("meV", 1e3), "density": ("", 1.0),
}  # fmt: skip

#: Methods of models that give each target.
METHOD = {
    "F": "free_energy", "U": "internal_energy", "P": "pressure", "S": "entropy", "mu": "chemical_potential",
}  # fmt: skip

#: Mean share from which on the table lists a configuration.
LISTED = 0.005

#: Spreads of fewer members than this are rough.
FEW_MEMBERS = 4

#: Errors of held out rows that are more than this many times the noise are worth a warning.
TOO_FAR = 2.0

#: Energies that may be fixed but for something: the letter by which `relative_to_` calls each.
RELATIVE = {"free_energy": "F", "gibbs": "F", "internal_energy": "U", "entropy": "S"}

#: Isotherms, points of each, and components of mu that a plot shows; points of a map in each direction.
_ISOTHERMS, _POINTS, _COMPONENTS, _MAP = 6, 241, 9, 121

_COMPARE: dict[str, Callable[[FloatArray, float], npt.NDArray[np.bool_]]] = {
    "<": np.less, "<=": np.less_equal, ">": np.greater, ">=": np.greater_equal, "==": np.equal,
    "!=": lambda a, b: np.isfinite(a) & (a != b),
}  # fmt: skip


@dataclass
class Rows:
    """What a fit gets, in Å3, K, eV, GPa.

    Attributes
    ----------
    x : (n,) or (n, q)
    T : (n,)
    targets : dict of (n,) or (n, q)
        NaN where a value is missing.
    errors : dict of float, (n,) or (n, q)
    weights : (n,) or None
    lines : (n,)
        Where each row stands in the file.
    units : dict
        Of each column that has one, as it was read.
    counts : dict
        Rows of the table, and how many were left out, and why.
    """

    x: FloatArray
    T: FloatArray
    targets: dict[str, FloatArray]
    errors: dict[str, Any] = field(default_factory=dict)
    weights: FloatArray | None = None
    lines: npt.NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    units: dict[str, str] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)


class FitRun:
    """One run, from the name of a table to a saved model."""

    def __init__(self, name: str, options: dict[str, Any]) -> None:
        self.name, self.options = name, options
        self.quiet: bool = options["quiet"]
        self.jobs = resolve_jobs(options["jobs"])
        self.times = _tell.Times()
        self.targets: dict[str, tuple[str, ...]] = {}
        options["x"] = tuple(name for names in options["x"] for name in names)
        self._check_usage()
        require_torch()
        self.folder = model_folder(options["output"], options["overwrite"])
        self.checkpoint = self.folder.with_name(f".{self.folder.name}.checkpoint")
        self._check_outputs()

    # --- before the work ----------------------------------------------------------------------------------------------

    def _check_usage(self) -> None:
        options = self.options
        volume = options["coordinate"] == "volume"
        for name, columns in options["targets"]:
            if name in self.targets:
                hint = "; columns are separated by commas, mu=mu_0,mu_1" if name == "mu" else ""
                raise click.UsageError(f"--target {name} is given twice{hint}")
            if name != "mu" and len(columns) > 1:
                raise click.UsageError(f"--target {name} takes one column, got {len(columns)}")
            self.targets[name] = columns
        if len(set(options["x"])) < len(options["x"]):
            raise click.UsageError("--x names a column twice")
        if volume and len(options["x"]) > 1:
            raise click.UsageError(f"a volume is one column, got {len(options['x'])}; see --coordinate order")
        if volume and "mu" in self.targets:
            raise click.UsageError("--target mu belongs to --coordinate order; of a volume the slope is the pressure P")
        if not volume and "P" in self.targets:
            raise click.UsageError("--target P belongs to --coordinate volume; of order parameters the slope is mu")
        if "mu" in self.targets and len(self.targets["mu"]) != len(options["x"]):
            raise click.UsageError(
                f"--target mu takes one column for each of --x, got {len(self.targets['mu'])} for {len(options['x'])}"
            )
        seen = set()
        for name, columns in options["errors"]:
            if name not in self.targets:
                raise click.UsageError(f"--error {name} belongs to --target {name}, which is not given")
            if name in seen:
                raise click.UsageError(f"--error {name} is given twice")
            if name == "density":
                raise click.UsageError("--error density: densities are compared as a whole, without errors")
            if len(columns) not in (1, len(self.targets[name])):
                raise click.UsageError(f"--error {name} takes one column or number, or one for each of the target")
            seen.add(name)

    def _check_outputs(self) -> None:
        options, overwrite = self.options, self.options["overwrite"]
        check_output(self.checkpoint, overwrite=True)
        outputs = [options[name] for name in ("json_file", "plot_file") if options[name] is not None]
        targets = [check_output(path, overwrite).resolve() for path in outputs]
        if len(set(targets)) < len(targets):
            raise DataError("two outputs have the same name")
        own = self.folder.resolve()
        for path, target in zip(outputs, targets, strict=True):
            if target.is_relative_to(own) or target == self.checkpoint.resolve():
                raise DataError(f"{path}: is where the model goes; choose another name")
        source = Path(self.name).resolve()
        if source in targets or source.is_relative_to(own):
            raise DataError(f"{self.name}: is an input, and would be replaced by an output")
        if options["plot_file"]:
            check_plot(options["plot_file"], overwrite)

    # --- the data -----------------------------------------------------------------------------------------------------

    def read(self) -> Rows:
        """The table in the units of the package, with all that is wrong with it said."""
        options = self.options
        table = read_table(self.name)
        total = len(table)
        for name in (name for units in self.options["units"] for name in units):
            if not any(_matches(column, name) if "*" in name else column == name for column in table.names):
                raise DataError(f"{self.name}: has no column {name!r}, which --units names{nearest(name, table.names)}")
        table = self._selected(table)
        x = self._coordinates(table)
        temperature = self._converted(table, options["temperature"], "temperature")
        self._present(table, temperature, options["temperature"])
        cold = np.flatnonzero(temperature <= 0.0)
        if len(cold):
            raise DataError(
                f"{self.name}, line {table.lines[cold[0]]}: {options['temperature']} is "
                f"{table.column(options['temperature'])[cold[0]]:g}; temperatures must be positive"
            )
        targets = {name: self._target(table, name) for name in self.targets}
        errors = {name: self._error(table, name, columns, targets[name]) for name, columns in options["errors"]}
        weights = self._weights(table)
        rows = Rows(x, temperature, targets, errors, weights, table.lines, {}, {"table": total, "where": len(table)})
        rows.units = self.units
        rows = self._without_empty(rows)
        rows = self._without_copies(rows)
        self._check_enough(rows)
        return rows

    def _selected(self, table: Table) -> Table:
        keep = np.ones(len(table), bool)
        for condition in self.options["conditions"]:
            keep &= _COMPARE[condition.sign](table.column(condition.column), condition.value)
        if not keep.any():
            told = ", ".join(str(condition) for condition in self.options["conditions"])
            raise DataError(f"{self.name}: no row fulfils --where {told}")
        return table.rows(keep)

    @property
    def units(self) -> dict[str, str]:
        """Units of columns that were looked up so far."""
        if not hasattr(self, "_units"):
            self._units: dict[str, str] = {}
        return self._units

    def _unit(self, table: Table, column: str, kind: str) -> str:
        table.column(column)  # a column that is not there has no unit either
        given = {name: unit for units in self.options["units"] for name, unit in units.items()}
        unit = given.get(column)
        if unit is None:
            unit = next((unit for name, unit in given.items() if "*" in name and _matches(column, name)), None)
        if unit is None:
            unit = unit_of(column)
        if unit is None:
            raise DataError(
                f"{self.name}: the name of column {column!r} ends in no known unit of {kind} "
                f"({', '.join(f'_{name}' for name in UNITS[kind])}); say it with --units {column}="
                f"{next(iter(UNITS[kind]))}"
            )
        try:
            self.units[column] = check_unit(unit, kind)
        except ValueError as error:
            raise DataError(f"{self.name}: column {column!r} cannot be used here: {error}") from None
        return unit

    def _converted(self, table: Table, column: str, kind: str) -> FloatArray:
        return convert(table.column(column), self._unit(table, column, kind), kind)

    def _present(self, table: Table, values: FloatArray, column: str) -> None:
        missing = np.flatnonzero(np.isnan(values))
        if len(missing):
            raise DataError(f"{self.name}, line {table.lines[missing[0]]}: {column} is missing; every row needs it")

    def _coordinates(self, table: Table) -> FloatArray:
        columns: tuple[str, ...] = self.options["x"]
        if self.options["coordinate"] == "volume":
            (column,) = columns
            x = self._converted(table, column, "volume")
            self._present(table, x, column)
            small = np.flatnonzero(x <= 0.0)
            if len(small):
                raise DataError(
                    f"{self.name}, line {table.lines[small[0]]}: {column} is {table.column(column)[small[0]]:g}; "
                    "volumes must be positive"
                )
            return x
        parts = [table.column(column) for column in columns]
        for part, column in zip(parts, columns, strict=True):
            self._present(table, part, column)
        return parts[0] if len(parts) == 1 else np.column_stack(parts)

    def _target(self, table: Table, name: str) -> FloatArray:
        kind, columns = TARGETS[name], self.targets[name]
        if kind is None:
            values = table.column(columns[0])
            negative = np.flatnonzero(values < 0.0)
            if len(negative):
                raise DataError(
                    f"{self.name}, line {table.lines[negative[0]]}: {columns[0]} is {values[negative[0]]:g}; "
                    "densities must not be negative"
                )
            return values
        parts = [self._converted(table, column, kind) for column in columns]
        return parts[0] if len(parts) == 1 else np.column_stack(parts)

    def _error(self, table: Table, name: str, columns: tuple[str, ...], target: FloatArray) -> Any:
        """Standard errors in the unit used inside: one number, or an array like the target."""
        kind = TARGETS[name]
        parts: list[FloatArray] = []
        for number, column in enumerate(columns):
            try:
                value = None if column in table.names else float(column)
            except ValueError:
                value = None
            if value is None:
                part = table.column(column) if kind is None else self._converted(table, column, kind)
            elif not (math.isfinite(value) and value > 0.0):
                raise DataError(f"--error {name}={column}: must be positive and finite")
            else:
                like = self.targets[name][number]
                one = np.full(len(table), value)
                part = one if kind is None else convert(one, self.units[like], kind)
            known = np.isfinite(target if target.ndim == 1 else target[:, number])
            bad = np.flatnonzero(known & ~(part > 0.0))
            if len(bad):
                raise DataError(
                    f"{self.name}, line {table.lines[bad[0]]}: {column} must be a positive error, got {part[bad[0]]:g}"
                )
            parts.append(np.where(known, part, 1.0))  # where there is no target, any will do
        if len(parts) < len(self.targets[name]):
            parts = parts * len(self.targets[name])
        return parts[0] if len(parts) == 1 else np.column_stack(parts)

    def _weights(self, table: Table) -> FloatArray | None:
        column = self.options["weight"]
        if column is None:
            return None
        weights = table.column(column)
        self._present(table, weights, column)
        negative = np.flatnonzero(weights < 0.0)
        if len(negative):
            raise DataError(
                f"{self.name}, line {table.lines[negative[0]]}: {column} is {weights[negative[0]]:g}; weights must not "
                "be negative"
            )
        if not weights.any():
            raise DataError(f"{self.name}: all weights in {column} are zero")
        return weights

    def _without_empty(self, rows: Rows) -> Rows:
        """Without rows that hold no target."""
        known = np.zeros(len(rows.T), bool)
        for name, values in rows.targets.items():
            here = np.isfinite(values)
            if not here.any():
                raise DataError(f"{self.name}: {', '.join(self.targets[name])} holds no number in the rows used")
            known |= here if here.ndim == 1 else here.any(axis=1)
        rows.counts["without_target"] = int((~known).sum())
        return _part(rows, known)

    def _without_copies(self, rows: Rows) -> Rows:
        """Without rows that repeat another one exactly. Others at the same x and T are measurements of their own."""
        parts = [rows.x, rows.T, *rows.targets.values(), *rows.errors.values()]
        if rows.weights is not None:
            parts.append(rows.weights)
        matrix = np.column_stack([np.nan_to_num(part, nan=np.inf) for part in parts])  # equal where both are missing
        _, first = np.unique(matrix, axis=0, return_index=True)
        copies = np.setdiff1d(np.arange(len(matrix)), first)
        rows.counts["copies"] = len(copies)
        if len(copies) and not self.quiet:
            told = (
                "row repeats an earlier one exactly and is"
                if len(copies) == 1
                else "rows repeat earlier ones exactly and are"
            )
            warn(f"{self.name}: {len(copies):,} {told} left out (line {rows.lines[copies[0]]})")
        return _part(rows, np.sort(first))

    def _check_enough(self, rows: Rows) -> None:
        n = len(rows.T)
        rows.counts["used"] = n
        where = " after --where" if self.options["conditions"] else ""
        if n < LEAST_ROWS:
            raise DataError(f"{self.name}: {n} row{'s' * (n != 1)} to fit{where}, at least {LEAST_ROWS} are needed")
        if self.options["coordinate"] == "volume" and len(np.unique(rows.T)) < 2:
            raise DataError(
                f"{self.name}: all rows{where} are at {rows.T[0]:g} K; a free energy as a function of volume and "
                "temperature needs at least two temperatures"
            )
        for number, column in enumerate(self.options["x"]):
            values = rows.x if rows.x.ndim == 1 else rows.x[:, number]
            if values.min() == values.max():
                raise DataError(f"{self.name}: {column} is {values[0]:g} in all rows{where}; it has to vary")

    # --- the work -----------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Read, fit, write, tell."""
        options, times = self.options, self.times
        self.rows = times.step("reading", self.read)
        times.step("torch", import_torch)
        self.model = make_model(options)
        with self._can_go_on():
            times.step("fit", self._fit)
            times.step("writing", lambda: self.model.save(self.folder, overwrite=options["overwrite"]))
        self.checkpoint.unlink(missing_ok=True)
        with quiet_about_ranges():
            times.step("analysis", self._analyse)
        _options.Interrupts.raise_if_pending()
        document = self._document()
        write_document("fit", [self.name], options, document, times, self.jobs)
        if options["plot_file"]:
            with quiet_about_ranges():
                self._plot()
        if not self.quiet:
            self._table()
            self._warn()

    @contextmanager
    def _can_go_on(self) -> Iterator[None]:
        """Say after Ctrl-C whether the same command goes on where it was."""
        try:
            yield
        except BaseException as error:
            interrupted = _options.Interrupts.pending or isinstance(error, KeyboardInterrupt)
            if interrupted and self.checkpoint.exists():
                _options.stop_for_now()
            raise

    def _fit(self) -> None:
        rows = self.rows
        self.continued = self.checkpoint.exists()
        with progress_bar("fit", "step", quiet=self.quiet) as advance:

            def progress(stage: str, done: int) -> None:
                _options.Interrupts.raise_if_pending()
                advance(done)

            self.model.fit(
                rows.x, rows.T, **rows.targets, sample_weight=rows.weights, errors=rows.errors or None,
                progress=progress, checkpoint=self.checkpoint,
            )  # fmt: skip

    # --- after the work -----------------------------------------------------------------------------------------------

    def _analyse(self) -> None:
        """What each configuration does, and the critical point."""
        model, rows = self.model, self.rows
        self.configurations = shares(model.probabilities(rows.x, rows.T), rows)
        self.critical: dict[str, Any] | None = None
        if self.options["coordinate"] == "volume" and "P" in model.known_:
            from quests_zenn.zenn import thermo

            point = thermo.critical_point(model)
            self.critical = None if point is None else point.to_dict()

    def _document(self) -> dict[str, Any]:
        options, model = self.options, self.model
        return {
            "model": str(self.folder), "coordinate": options["coordinate"], "n_atoms": options["n_atoms"],
            "n_configurations": options["configurations"], "n_members": options["members"],
            "columns": {
                "x": list(options["x"]), "T": options["temperature"],
                "targets": {name: list(columns) for name, columns in self.targets.items()},
                "errors": {name: list(columns) for name, columns in options["errors"]}, "weight": options["weight"],
            },
            "column_units": self.rows.units, "where": [str(condition) for condition in options["conditions"]],
            "rows": self.rows.counts, "x_range": model.x_range_, "T_range": model.T_range_,
            "relative_to": model.relative_to_, "targets": self._targets_told(), "configurations": self.configurations,
            "critical_point": self.critical, "continued": self.continued,
            "report": {key: value for key, value in model.report_.items() if key not in ("targets", "configurations")},
            "units": {
                "volume": "Å3", "temperature": "K", "energy": "eV", "pressure": "GPa", "entropy": "eV/K",
            },
        }  # fmt: skip

    def _targets_told(self) -> dict[str, dict[str, Any]]:
        """Numbers, residuals, noise and chi2 of each target, as the model reports them."""
        found: dict[str, dict[str, Any]] = self.model.report_["targets"]
        return found

    def _table(self) -> None:
        options, model, counts = self.options, self.model, self.rows.counts
        left = []
        if counts["where"] < counts["table"]:
            left.append(f"{counts['table'] - counts['where']:,} by --where")
        if counts["without_target"]:
            left.append(f"{counts['without_target']:,} without a target")
        if counts["copies"]:
            left.append(f"{counts['copies']:,} copies")
        told = f"; left out: {', '.join(left)}" if left else ""
        volume = options["coordinate"] == "volume"
        unit = " Å3" if volume else ""
        (x_low, x_high), (t_low, t_high) = np.atleast_2d(model.x_range_)[0], np.asarray(model.T_range_)
        coordinates = f"{options['x'][0]} {x_low:.6g} to {x_high:.6g}{unit}"
        if len(options["x"]) > 1:
            coordinates = f"{len(options['x'])} coordinates"
        temperatures = f"{span_told(t_low, t_high, 'g')} K"
        atoms = f", {_count(options['n_atoms'], 'atom')} per unit" if volume else ""
        _tell.rows(
            [
                ("table", f"{self.name}: {counts['used']:,} of {counts['table']:,} rows used{told}"),
                ("range", f"{coordinates}, {options['temperature']} {temperatures}"),
                ("model", f"{_count(options['configurations'], 'configuration')}, "
                          f"{committee_told(options['members'])}{atoms}"),
                ("relative to", str(model.relative_to_)),
            ]
        )  # fmt: skip
        if volume and "P" in model.known_:
            _tell.rows([("critical", critical_told(self.critical))])
        if self.continued:
            _tell.rows([("fit", "went on from an unfinished one")])
        if model.report_.get("converged") is False:
            steps = model.report_["iterations"]
            _tell.rows([("fit", f"ended by its limit of {steps} steps; fine where rms valid. is near the noise")])
        _tell.rows([("written", f"{self.folder}/")])
        seconds = self.times.seconds
        names = {"reading": "reading", "torch": "importing torch", "fit": "fit", "writing": "writing",
                 "analysis": "analysis"}  # fmt: skip
        steps = ", ".join(f"{told} {seconds[name]:.2f}" for name, told in names.items())
        _tell.rows([("time", f"{self.times.total():.2f} s ({steps}; {_count(self.jobs, 'thread')})")])
        self._list_targets()
        self._list_configurations()

    def _list_targets(self) -> None:
        click.echo(f"\n{'target':<10}{'unit':>6}{'values':>9}{'rms':>12}{'rms valid.':>12}{'noise':>12}{'chi2':>8}")
        for name, found in self._targets_told().items():
            unit, factor = TOLD[name.partition("_")[0]]
            numbers = "".join(_cell(found[key], factor) for key in ("rms", "rms_validation", "noise"))
            chi2 = found.get("chi2")
            told = f"{'-':>8}" if chi2 is None or not math.isfinite(chi2) else f"{chi2:8.3g}"
            click.echo(f"{name:<10}{unit:>6}{found['n']:9,}{numbers}{told}")

    def _warn(self) -> None:
        """One line for all targets whose held out rows are further from the model than their noise explains."""
        far = {
            name: found["rms_validation"] / found["noise"]
            for name, found in self._targets_told().items()
            if found["noise"] and found["rms_validation"] and found["rms_validation"] > TOO_FAR * found["noise"]
        }
        if far:
            told = ", ".join(f"{name} {ratio:.1f} times" for name, ratio in far.items())
            warn(f"rms valid. is well above the noise ({told}): try another --seed or more --members, or more data")

    def _list_configurations(self) -> None:
        listed = [entry for entry in self.configurations if entry["share"] >= LISTED or entry["rules"]]
        unit = "x (Å3)" if self.options["coordinate"] == "volume" else self.options["x"][0]
        click.echo(f"\n{'configuration':<14}{'share':>7}{'rules':>8}  where: T (K), {unit}")
        for entry in listed:
            where = ""
            if entry["rules"]:
                (t_low, t_high), (x_low, x_high) = entry["T_range"], entry["x_range"][0]
                where = f"{span_told(t_low, t_high, 'g')}, {span_told(x_low, x_high, '.5g')}"
            click.echo(f"{entry['number']:<14}{entry['share']:7.1%}{entry['rules']:8.1%}  {where}".rstrip())
        others = len(self.configurations) - len(listed)
        if others:
            click.echo(f"{others} more rule nowhere and have a share below {LISTED:.1%}")

    # --- the plot -----------------------------------------------------------------------------------------------------

    def _plot(self) -> None:
        model, rows, options = self.model, self.rows, self.options
        residuals = []
        coordinates = rows.x.reshape(len(rows.T), -1)
        for name, values in rows.targets.items():
            if name not in METHOD or name not in model.known_:
                continue
            unit, factor = TOLD[name]
            found = np.asarray(getattr(model, METHOD[name])(rows.x, rows.T))
            difference = (factor * (found.reshape(values.shape) - values)).reshape(len(rows.T), -1)
            for number, part in enumerate(difference.T[:_COMPONENTS]):  # those of mu along its own coordinate
                here = np.isfinite(part)
                told = name if difference.shape[1] == 1 else self.targets[name][number]
                along = options["x"][number] if number else ""
                x, T = coordinates[here, number], rows.T[here]
                residuals.append(Residuals(f"{told}: model - data ({unit})", x, T, part[here], along))
        lines: list[tuple[str, list[Line]]] = []
        ruling = None
        if rows.x.ndim == 1:
            lines = isotherms(model, rows, options["coordinate"], options["x"][0])
            grid_x = np.linspace(rows.x.min(), rows.x.max(), _MAP)
            grid_t = np.linspace(rows.T.min(), rows.T.max(), _MAP if np.ptp(rows.T) else 1)
            at_x, at_t = np.meshgrid(grid_x, grid_t)
            p = np.asarray(model.probabilities(at_x.ravel(), at_t.ravel()))
            ruling = Ruling(grid_x, grid_t, p.reshape(len(grid_t), len(grid_x), -1))
        x_label = "volume (Å3)" if options["coordinate"] == "volume" else options["x"][0]
        plot_fit(
            options["plot_file"], x_label=x_label, residuals=residuals, isotherms=lines, ruling=ruling,
            title=stem(self.name), overwrite=options["overwrite"],
        )  # fmt: skip


def isotherms(model: Any, rows: Rows, coordinate: str, name: str) -> list[tuple[str, list[Line]]]:
    """F and its slope along some isotherms, with the data that lie on them; `name` is that of the coordinate."""
    grid = np.linspace(rows.x.min(), rows.x.max(), _POINTS)
    present = np.unique(rows.T)
    chosen = present[np.unique(np.linspace(0, len(present) - 1, _ISOTHERMS).round().astype(int))]
    # where temperatures are scattered, those nearby count
    near = 0.0 if len(present) <= len(rows.T) // 4 else 0.02 * float(np.ptp(present))
    slope = "P" if coordinate == "volume" else "mu"
    panels = []
    for symbol, label in (("F", "F (eV)"), (slope, "P (GPa)" if slope == "P" else "mu (eV)")):
        if symbol not in model.known_:
            continue
        floating = symbol == "F" and "free_energy" in offsets(str(model.relative_to_))
        lines = []
        for temperature in chosen:
            if floating:
                mean, std = _without_offset(model, grid, float(temperature))
            else:
                mean, std = getattr(model, METHOD[symbol])(grid, np.full(len(grid), temperature), std=True)
            data_x = data_y = np.empty(0)
            if symbol in rows.targets:
                here = (np.abs(rows.T - temperature) <= near) & np.isfinite(rows.targets[symbol])
                data_x, data_y = rows.x[here], rows.targets[symbol][here]
                if near and len(data_x):  # moved along T by the model, so that what is left is the residual
                    ask = getattr(model, METHOD[symbol])
                    moved = ask(data_x, np.full(len(data_x), temperature)) - ask(data_x, rows.T[here])
                    data_y = data_y + np.ravel(moved)
            mean, std = np.ravel(mean), np.ravel(std)
            lines.append(Line(f"{temperature:g} K", grid, mean, std, data_x, data_y))
        panels.append((f"F minus its mean over {name} (eV)" if floating else label, lines))
    return panels


def _without_offset(model: Any, grid: FloatArray, temperature: float) -> tuple[FloatArray, FloatArray]:
    """F along an isotherm minus its mean, where only differences along x are known; each member has its own."""
    F = model.derivatives(grid, np.full(len(grid), temperature), [(0, 0)], members=True)[0, 0]
    F = F - F.mean(axis=1, keepdims=True)
    return F.mean(axis=0), F.std(axis=0, ddof=1) if len(F) > 1 else np.full(len(grid), np.nan)


# --- what the two commands share --------------------------------------------------------------------------------------


def require_torch() -> None:
    """Raise MissingExtraError where torch or safetensors is not installed; neither is imported."""
    for package in ("torch", "safetensors"):
        if importlib.util.find_spec(package) is None:
            raise MissingExtraError(package, "zenn")


def import_torch() -> None:
    """Import torch and what else takes seconds, so that its time has a name of its own."""
    if importlib.util.find_spec("torch") is not None:
        importlib.import_module("torch")
    importlib.import_module("quests_zenn.zenn.model")


def committee_told(members: int) -> str:
    """How many members, and what that means for bands."""
    hint = " (no bands)" if members == 1 else " (bands of so few are rough)" if members < FEW_MEMBERS else ""
    return f"committee of {members}{hint}"


def model_folder(path: str, overwrite: bool) -> Path:
    """`path`, if a model may be written there."""
    from quests_zenn.zenn._files import check_folder

    target = check_folder(path, overwrite)
    if target.name in ("", ".."):
        raise DataError(f"{target}: is no name for a folder of its own")
    return target


def make_model(options: dict[str, Any]) -> Any:
    """An empty model, as the options ask for it."""
    from quests_zenn.zenn import ZENN

    return ZENN(
        options["configurations"], coordinate=options["coordinate"], n_atoms=options["n_atoms"],
        n_members=options["members"], random_state=options["seed"], n_jobs=options["jobs"], verbose=False,
    )  # fmt: skip


@contextmanager
def quiet_about_ranges() -> Iterator[None]:
    """The commands say once, themselves, what lies outside the range of a fit."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)
        yield


def write_document(
    command: str, inputs: list[str], options: dict[str, Any], found: dict[str, Any], times: _tell.Times, jobs: int
) -> None:
    """The JSON document of a command about free energies, if it was asked for."""
    if not options["json_file"]:
        return
    times.total()
    installed = versions()
    for name in ("torch", "safetensors", "scipy"):
        try:
            installed[name] = version(name)
        except PackageNotFoundError:
            installed[name] = "unknown"
    document = {"command": command, "inputs": inputs, **found}
    document |= {
        "precision": "float64", "n_workers": jobs, "seed": options.get("seed"), "timings": times.seconds,
        "versions": installed,
    }  # fmt: skip
    write_json(options["json_file"], document, options["overwrite"])


def shares(probabilities: npt.ArrayLike, rows: Rows) -> list[dict[str, Any]]:
    """For each configuration its mean p_k over the rows, and the share and range of the rows where it is the largest.

    Sorted by the mean, largest first.
    """
    p = np.asarray(probabilities, np.float64)
    x = rows.x.reshape(len(rows.T), -1)
    ruler = p.argmax(axis=1)
    found = []
    for number in range(p.shape[1]):
        here = ruler == number
        found.append(
            {
                "number": number, "share": float(p[:, number].mean()), "rules": float(here.mean()),
                "T_range": [float(rows.T[here].min()), float(rows.T[here].max())] if here.any() else None,
                "x_range": [[float(c[here].min()), float(c[here].max())] for c in x.T] if here.any() else None,
            }
        )  # fmt: skip
    return sorted(found, key=lambda entry: -entry["share"])


def offsets(relative_to: str) -> dict[str, str]:
    """Energies and entropies that the data fix only up to something, and what that is, as `relative_to_` has it."""
    found: dict[str, str] = {}
    for letters, told in re.findall(r"\b([FUS](?: and [FUS])*) (up to [^,;:]+)", relative_to):
        for letter in letters.split(" and "):
            found |= {name: told.strip() for name, its in RELATIVE.items() if its == letter}
    return found


def critical_told(found: dict[str, Any] | None) -> str:
    """A critical point in one line."""
    if found is None:
        return "none in the range of the fit"
    parts = [
        with_spread(found[name], found[f"{name}_std"], unit)
        for name, unit in (("temperature", "K"), ("volume", "Å3"), ("pressure", "GPa"))
    ]
    beyond = "; extrapolated" if found["extrapolated"] else ""
    return f"{', '.join(parts)} (in {found['share_of_members']:.0%} of the committee{beyond})"


def with_spread(value: float, std: float | None, unit: str, digits_alone: int = 6) -> str:
    """``162.3 ± 1.4 K``: as many digits as the error allows; so many digits without an error where there is none."""
    if std is None or not math.isfinite(std) or std <= 0.0:
        return f"{value:.{digits_alone}g} {unit}"
    digits = min(12, max(0, 1 - math.floor(math.log10(std))))
    return f"{round(value, digits) + 0.0:.{digits}f} ± {std:.{digits}f} {unit}"


def _part(rows: Rows, which: npt.NDArray[Any]) -> Rows:
    return Rows(
        rows.x[which], rows.T[which], {name: values[which] for name, values in rows.targets.items()},
        {name: values[which] for name, values in rows.errors.items()},
        None if rows.weights is None else rows.weights[which], rows.lines[which], rows.units, rows.counts,
    )  # fmt: skip


def _matches(name: str, pattern: str) -> bool:
    from fnmatch import fnmatchcase

    return fnmatchcase(name, pattern.replace("[", "[[]").replace("?", "[?]"))


def span_told(a: float, b: float, form: str) -> str:
    """``a to b``, or one number where both look the same."""
    first, last = format(float(a), form), format(float(b), form)
    return first if first == last else f"{first} to {last}"


def _cell(value: Any, factor: float) -> str:
    if value is None or not math.isfinite(float(value)):
        return f"{'-':>12}"
    return f"{factor * float(value):12.4g}"


def _count(n: int, what: str) -> str:
    return f"{n:,} {what}" + ("" if n == 1 else "s")
