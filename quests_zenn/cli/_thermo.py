"""The course of ``quests-zenn thermo``. Imported only when it really runs."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt

from quests_zenn._core.checks import DataError
from quests_zenn._core.progress import progress_bar
from quests_zenn.cli import _options, _tell
from quests_zenn.cli._fit import (
    committee_told,
    critical_told,
    import_torch,
    offsets,
    quiet_about_ranges,
    require_torch,
    span_told,
    with_spread,
    write_document,
)
from quests_zenn.cli._tell import warn
from quests_zenn.io.frames import stem
from quests_zenn.io.outputs import check_output
from quests_zenn.io.plots import check_plot
from quests_zenn.io.plots_zenn import Line, Transitions, plot_thermo
from quests_zenn.io.tables import UNITS, write_table

FloatArray = npt.NDArray[np.float64]

#: About this many temperatures are the default.
TEMPERATURES = 60

#: Quantities of an isobar: their name in `thermo.Equilibrium`, and their column with its unit.
COLUMNS = {
    "volume": "volume_A3", "gibbs": "gibbs_eV", "free_energy": "free_energy_eV",
    "internal_energy": "internal_energy_eV", "entropy": "entropy_eV_K", "heat_capacity": "heat_capacity_eV_K",
    "heat_capacity_p": "heat_capacity_p_eV_K", "bulk_modulus": "bulk_modulus_GPa",
    "thermal_expansion": "thermal_expansion_1_K",
}  # fmt: skip

#: Lines of isobars and isotherms that a plot shows; points of an isotherm.
_ISOBARS, _ISOTHERMS, _POINTS = 10, 8, 241

#: What a range of negative expansion says of its ends, where they are no zeros.
_ENDS = {"jump": " (jump)", "bounds": " (end of volumes)"}

_BOLTZMANN = UNITS["entropy"]["kB"]


class ThermoRun:
    """One run, from a saved model to tables and figures."""

    def __init__(self, name: str, options: dict[str, Any]) -> None:
        self.name, self.options = name, options
        self.quiet: bool = options["quiet"]
        # whoever asks for states alone gets no isobars
        others = ("pressure", "temperature", "output", "plot_file")
        self.whole: bool = not options["states"] or any(options[name] is not None for name in others)
        self.times = _tell.Times()
        require_torch()
        self._check_outputs()

    def _check_outputs(self) -> None:
        options, overwrite = self.options, self.options["overwrite"]
        outputs = [options[name] for name in ("output", "json_file", "plot_file") if options[name] is not None]
        targets = [check_output(path, overwrite).resolve() for path in outputs]
        if len(set(targets)) < len(targets):
            raise DataError("two outputs have the same name")
        own = Path(self.name).resolve()
        for path, target in zip(outputs, targets, strict=True):
            if target.parent == own:
                raise DataError(f"{path}: lies in the folder of the model, which holds the model alone")
        output = options["output"]
        if output and not output.removesuffix(".gz").endswith(".csv"):
            raise DataError(f"{output}: isobars are written as a table; its name must end in .csv or .csv.gz")
        if options["plot_file"]:
            check_plot(options["plot_file"], overwrite)

    # --- the work -----------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Load, follow, write, tell."""
        options, times = self.options, self.times
        times.step("torch", import_torch)
        self.model = times.step("loading", lambda: load_model(self.name))
        if self.model.coordinate != "volume":
            raise DataError(
                f"{self.name}: is a free energy over order parameters; pressures and isobars need one over volume"
            )
        if "P" not in self.model.known_:
            raise DataError(
                f"{self.name}: the data of this model do not fix pressures ({self.model.relative_to_}); fit F, P or "
                "densities too"
            )
        (low, high), (t_low, t_high) = np.atleast_2d(self.model.x_range_)[0], self.model.T_range_
        self.x_range, self.T_range = (float(low), float(high)), (float(t_low), float(t_high))
        self.pressures = np.array(options["pressure"] or (0.0,))
        self.temperatures = np.array(options["temperature"] or default_temperatures(*self.T_range))
        self.relative_to = offsets(str(self.model.relative_to_))
        steps = [("states", self._states)]
        if self.whole:
            steps += [
                ("isobars", self._isobars), ("expansion", self._expansion), ("transitions", self._spinodal),
                ("transitions", self._binodal), ("transitions", self._critical),
            ]  # fmt: skip
        with quiet_about_ranges(), progress_bar("thermo", "step", total=len(steps), quiet=self.quiet) as advance:
            for name, work in steps:
                times.step(name, work)
                _options.Interrupts.raise_if_pending()
                advance(1)
        if options["output"]:
            times.step("writing", lambda: write_table(options["output"], self._columns(), options["overwrite"]))
        write_document("thermo", [self.name], options, self._document(), times, 1)
        if options["plot_file"]:
            with quiet_about_ranges():
                self._plot()
        if not self.quiet:
            self._table()
            self._warn()

    def _states(self) -> None:
        """F, U, P and S of the states asked for; None where the model does not know one."""
        self.states: list[dict[str, Any]] = []
        model = self.model
        for volume, temperature in self.options["states"]:
            at = np.array([volume]), np.array([temperature])
            found: dict[str, Any] = {"volume": volume, "temperature": temperature}
            for name in ("free_energy", "internal_energy", "pressure", "entropy"):
                try:
                    value, std = getattr(model, name)(*at, std=True)
                except ValueError:  # what the data do not fix
                    found[name] = found[f"{name}_std"] = None
                    continue
                # entropies of states are what people compare with others': in k_B per atom
                unit = 1.0 / (_BOLTZMANN * model.n_atoms) if name == "entropy" else 1.0
                found[name], found[f"{name}_std"] = unit * float(np.ravel(value)[0]), unit * float(np.ravel(std)[0])
            found["relative_to"] = {
                name: told for name, told in self.relative_to.items() if found.get(name) is not None
            }
            found["extrapolated"] = bool(np.ravel(model.extrapolates(*at))[0])
            self.states.append(found)

    def _isobars(self) -> None:
        from quests_zenn.zenn import thermo

        self.found = thermo.equilibrium(self.model, self.pressures[:, None], self.temperatures[None, :])

    def _expansion(self) -> None:
        from quests_zenn.zenn import thermo

        # only what is asked for is searched; a single temperature is no range
        searched = (self.temperatures[0], self.temperatures[-1]) if len(self.temperatures) > 1 else None
        self.negative = thermo.negative_expansion(self.model, self.pressures, searched).ranges

    def _spinodal(self) -> None:
        from quests_zenn.zenn import thermo

        self.spinodal = thermo.spinodal(self.model, self.temperatures)

    def _binodal(self) -> None:
        from quests_zenn.zenn import thermo

        self.binodal = thermo.binodal(self.model, self.temperatures)

    def _critical(self) -> None:
        from quests_zenn.zenn import thermo

        point = thermo.critical_point(self.model)
        self.critical = None if point is None else point.to_dict()

    # --- the telling --------------------------------------------------------------------------------------------------

    def _shape(self, values: Any) -> npt.NDArray[Any]:
        return np.broadcast_to(np.asarray(values), (len(self.pressures), len(self.temperatures)))

    def _columns(self) -> dict[str, npt.NDArray[Any]]:
        """The isobars, one row for each pressure and temperature."""
        found = self.found
        columns: dict[str, npt.NDArray[Any]] = {
            "pressure_GPa": np.repeat(self.pressures, len(self.temperatures)),
            "temperature_K": np.tile(self.temperatures, len(self.pressures)),
        }
        for name, column in COLUMNS.items():
            unit = column.removeprefix(name)
            columns[column] = self._shape(getattr(found, name)).ravel()
            columns[f"{name}_std{unit}"] = self._shape(getattr(found, f"{name}_std")).ravel()
        columns["extrapolated"] = self._shape(found.extrapolated).astype(bool).ravel()
        return columns

    def _document(self) -> dict[str, Any]:
        model = self.model
        return {
            "model": {
                "n_atoms": model.n_atoms, "n_members": model.n_members_, "x_range": model.x_range_,
                "T_range": model.T_range_, "relative_to": model.relative_to_,
            },
            **(self._whole_document() if self.whole else {}), "states": self.states,
            "extrapolated": bool(self._n_extrapolated()[0]),
            "units": {
                "volume": "Å3", "temperature": "K", "energy": "eV", "pressure": "GPa", "entropy": "eV/K",
                "heat_capacity": "eV/K", "bulk_modulus": "GPa", "thermal_expansion": "1/K",
                "entropy_of_states": "k_B per atom",
            },
        }  # fmt: skip

    def _whole_document(self) -> dict[str, Any]:
        """Isobars and transitions."""
        found = self.found
        isobars = []
        for number, pressure in enumerate(self.pressures.tolist()):
            entry: dict[str, Any] = {"pressure": pressure}
            for name in COLUMNS:
                entry[name] = self._shape(getattr(found, name))[number]
                entry[f"{name}_std"] = self._shape(getattr(found, f"{name}_std"))[number]
            entry["relative_to"] = self.relative_to
            entry["extrapolated"] = self._shape(found.extrapolated).astype(bool)[number]
            entry["negative_expansion"] = self.negative_ranges(number)
            isobars.append(entry)
        return {
            "temperatures": self.temperatures, "pressures": self.pressures, "isobars": isobars,
            "spinodal": self.spinodal.to_dict(), "binodal": self.binodal.to_dict(), "critical_point": self.critical,
        }  # fmt: skip

    def negative_ranges(self, number: int) -> list[dict[str, Any]]:
        """Temperature ranges in which the isobar of this number contracts on heating."""
        return [found.to_dict() for found in self.negative[number]]

    @property
    def range_told(self) -> str:
        """Volumes and temperatures of the fit."""
        (low, high), (t_low, t_high) = self.x_range, self.T_range
        return f"{low:.6g} to {high:.6g} Å3, {t_low:g} to {t_high:g} K"

    def _n_extrapolated(self) -> tuple[int, int]:
        """States outside the range of the fit, and all states that were found."""
        if not self.whole:
            return sum(state["extrapolated"] for state in self.states), len(self.states)
        found = np.isfinite(self._shape(self.found.volume))
        beyond = self._shape(self.found.extrapolated).astype(bool)
        n = int((beyond & found).sum()) + sum(state["extrapolated"] for state in self.states)
        return n, int(found.sum()) + len(self.states)

    def _table(self) -> None:
        model = self.model
        rows = [
            ("model", f"{self.name}: {model.n_atoms:g} atom{'s' * (model.n_atoms != 1)} per unit, "
                      f"{committee_told(model.n_members_)}"),
            ("range", self.range_told),
            ("relative to", str(model.relative_to_)),
        ]  # fmt: skip
        if self.whole:
            rows.append(("critical", critical_told(self.critical)))
        written = [self.options[name] for name in ("output", "json_file", "plot_file") if self.options[name]]
        if written:
            rows.append(("written", ", ".join(written)))
        seconds = self.times.seconds
        names = {"torch": "importing torch", "loading": "loading", "isobars": "isobars", "expansion": "expansion",
                 "transitions": "transitions"}  # fmt: skip
        steps = ", ".join(f"{told} {seconds[name]:.2f}" for name, told in names.items() if name in seconds)
        rows.append(("time", f"{self.times.total():.2f} s ({steps})"))
        _tell.rows(rows)
        if self.states:
            self._list_states()
        if self.whole:
            self._list_isobars()

    def _list_states(self) -> None:
        for state in self.states:
            beyond = "  (extrapolated)" if state["extrapolated"] else ""
            click.echo(f"\nV = {state['volume']:g} Å3, T = {state['temperature']:g} K{beyond}")
            for letter, name, unit in (
                ("F", "free_energy", "eV"),
                ("U", "internal_energy", "eV"),
                ("P", "pressure", "GPa"),
                ("S", "entropy", "k_B per atom"),
            ):
                if state[name] is None:
                    told = "not fixed by the data of the fit"
                else:
                    told = with_spread(state[name], state[f"{name}_std"], unit)
                    if name in state["relative_to"]:
                        told = f"{told}  ({state['relative_to'][name]})"
                click.echo(f"  {letter}  {told}")

    def _list_isobars(self) -> None:
        """Each isobar at its lowest and highest temperature that has a stable state."""
        click.echo(f"\n{'P (GPa)':>8}{'T (K)':>16}{'V (Å3)':>22}{'B (GPa)':>16}  negative thermal expansion")
        for number, pressure in enumerate(self.pressures):
            volume = self._shape(self.found.volume)[number]
            modulus = self._shape(self.found.bulk_modulus)[number]
            known = np.flatnonzero(np.isfinite(volume))
            if not len(known):
                click.echo(f"{pressure:8g}  no stable state in the range of the fit")
                continue
            a, b = known[0], known[-1]
            spans = "; ".join(_range_told(entry) for entry in self.negative_ranges(number)) or "none"
            click.echo(
                f"{pressure:8g}{span_told(self.temperatures[a], self.temperatures[b], 'g'):>16}"
                f"{span_told(volume[a], volume[b], '.3f'):>22}{span_told(modulus[a], modulus[b], '.1f'):>16}  {spans}"
            )

    def _warn(self) -> None:
        n, total = self._n_extrapolated()
        if n:
            warn(f"{n:,} of {total:,} states lie outside the range of the fit ({self.range_told}) and are extrapolated")

    # --- the plot -----------------------------------------------------------------------------------------------------

    def _plot(self) -> None:
        found, T = self.found, self.temperatures
        critical = None
        if self.critical is not None:
            point = self.critical
            critical = point["temperature"], point["temperature_std"], point["pressure"], point["pressure_std"]
        transitions = Transitions(
            T, np.asarray(self.spinodal.pressure_low), np.asarray(self.spinodal.pressure_low_std),
            np.asarray(self.spinodal.pressure_high), np.asarray(self.spinodal.pressure_high_std),
            np.asarray(self.binodal.pressure), np.asarray(self.binodal.pressure_std), critical,
        )  # fmt: skip
        chosen = _spread(len(self.pressures), _ISOBARS)
        panels = []
        for name, label, factor in (
            ("volume", "volume (Å3)", 1.0),
            ("thermal_expansion", "thermal expansion (1e-6/K)", 1e6),
            ("bulk_modulus", "bulk modulus (GPa)", 1.0),
            ("heat_capacity_p", "heat capacity C_P (k_B per atom)", 1.0 / (_BOLTZMANN * self.model.n_atoms)),
        ):
            values, std = self._shape(getattr(found, name)), self._shape(getattr(found, f"{name}_std"))
            lines = [Line(f"{self.pressures[i]:g} GPa", T, factor * values[i], factor * std[i]) for i in chosen]
            panels.append((label, lines))
        low, high = self.x_range
        grid = np.linspace(low, high, _POINTS)
        isotherms = []
        for i in _spread(len(T), _ISOTHERMS):
            mean, std = self.model.pressure(grid, np.full(_POINTS, T[i]), std=True)
            isotherms.append(Line(f"{T[i]:g} K", grid, np.ravel(mean), np.ravel(std)))
        plot_thermo(
            self.options["plot_file"], transitions=transitions, isobars=panels, isotherms=isotherms,
            T_range=self.T_range, x_range=self.x_range, title=stem(self.name), overwrite=self.options["overwrite"],
        )  # fmt: skip


def load_model(name: str) -> Any:
    """A model that `fit` wrote.

    Raises
    ------
    DataError
        If there is none.
    """
    folder = Path(name)
    if not folder.exists():
        raise DataError(f"{name}: no such folder; quests-zenn fit writes one")
    if not folder.is_dir():
        raise DataError(f"{name}: is a file; a model is a folder that quests-zenn fit wrote")
    from quests_zenn.zenn.model import FreeEnergyModel

    return FreeEnergyModel.load(folder)


def default_temperatures(low: float, high: float) -> tuple[float, ...]:
    """Both ends, and about `TEMPERATURES` round numbers between them, in K."""
    raw = (high - low) / (TEMPERATURES - 1)
    if raw <= 0.0:
        return (low,)
    power = 10.0 ** math.floor(math.log10(raw))
    step = min((factor * power for factor in (1.0, 2.0, 5.0, 10.0)), key=lambda s: abs(math.log(s / raw)))
    first, last = math.floor(low / step) + 1, math.ceil(high / step) - 1
    between = [float(f"{number * step:.12g}") for number in range(first, last + 1)]
    return tuple(sorted({low, high, *(value for value in between if low < value < high)}))


def _spread(n: int, most: int) -> list[int]:
    """At most so many of n numbers, evenly spread, with both ends."""
    return np.unique(np.linspace(0, n - 1, min(n, most)).round().astype(int)).tolist()  # type: ignore[no-any-return]


def _range_told(entry: dict[str, Any]) -> str:
    """A range of negative expansion; > and < where it goes on beyond the temperatures asked for."""
    ends = []
    for end, sign, unit in (("low", "<", ""), ("high", ">", " K")):
        kind = entry[f"{end}_kind"]
        told = with_spread(entry[end], entry[f"{end}_std"], "", 4).strip()
        ends.append(f"{sign if kind == 'range' else ''}{told}{unit}{_ENDS.get(kind, '')}")
    return " to ".join(ends)
