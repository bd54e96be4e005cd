"""The course of ``quests-zenn fit`` with frames. Imported only when it really runs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt

from quests_zenn._core.checks import DataError
from quests_zenn._core.parallel import resolve_jobs
from quests_zenn._core.progress import progress_bar
from quests_zenn.cli import _options, _tell
from quests_zenn.cli._fit import (
    TOLD,
    Rows,
    committee_told,
    import_torch,
    isotherms,
    model_folder,
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
from quests_zenn.io.plots_states import Compared, StatesDrawn, plot_states
from quests_zenn.io.plots_zenn import Line
from quests_zenn.io.tables import UNITS, Table, read_table, write_table
from quests_zenn.states.grouping import ALIKE
from quests_zenn.states.phases import EXPLAINED

FloatArray = npt.NDArray[np.float64]

K_B = UNITS["entropy"]["kB"]

#: Temperatures of a line of coexistence.
LINE = 41

#: So often frames go from one phase to the other before their shares tell anything of p_k.
REPEATED = 4

#: Volumes that differ by more than this factor are worth a warning, as is chi2 from here on.
WIDE, STIFF = 2.0, 3.0

#: States whose residual is so many times the median are worth a warning.
FAR = 15.0

#: At most so many lines of one kind in the table that is printed.
LISTED = 8


class StatesRun:
    """One run, from files of frames to a saved model."""

    def __init__(self, names: tuple[str, ...], options: dict[str, Any]) -> None:
        self.names, self.options = list(names), options
        self.quiet: bool = options["quiet"]
        self.jobs = resolve_jobs(options["jobs"])
        self.times = _tell.Times()
        self.several = options["rows"] == "states"
        self._check_usage()
        require_torch()
        self.folder = model_folder(options["output"], options["overwrite"])
        self._check_outputs()
        self.weights_table = self._weights_table()

    # --- before the work ----------------------------------------------------------------------------------------------

    def _check_usage(self) -> None:
        options = self.options
        if len(set(self.names)) < len(self.names):
            twice = next(name for name in self.names if self.names.count(name) > 1)
            raise click.UsageError(f"{twice} is named twice")
        files = [name for name, _ in options["temperatures"]]
        for name in files:
            if files.count(name) > 1:
                raise click.UsageError(f"--temperature {name} is given twice")
        if options["equal_at"] and options["entropy_target"]:
            raise click.UsageError("--equal-at and --entropy-target both say what S of a phase is; give one of them")
        for option in ("entropy_target", "slope", "environments", "equal_at"):
            if not self.several and options[option]:
                raise click.UsageError(
                    f"--{option.replace('_', '-')} belongs to --rows states: one structure has no entropy, and no phase"
                )
        if options["members"] == 1 and options["propose"] > 1:
            raise click.UsageError("--propose asks where members disagree; give --members 2 or more")
        if not self.several and options["configurations"] not in ("auto", 1):
            raise click.UsageError(
                "--rows structures has one configuration; phases are compared by entropies, which states have"
            )

    def _check_outputs(self) -> None:
        options, overwrite = self.options, self.options["overwrite"]
        outputs = [options[name] for name in ("json_file", "plot_file", "table_file") if options[name] is not None]
        targets = [check_output(path, overwrite).resolve() for path in outputs]
        if len(set(targets)) < len(targets):
            raise DataError("two outputs have the same name")
        own = self.folder.resolve()
        for path, target in zip(outputs, targets, strict=True):
            if target.is_relative_to(own):
                raise DataError(f"{path}: is where the model goes; choose another name")
        table = options["table_file"]
        if table and not table.removesuffix(".gz").endswith(".csv"):
            raise DataError(f"{table}: states are written as a table; its name must end in .csv or .csv.gz")
        from quests_zenn.io.frames import split_index

        for name in [*self.names, options["weights"]]:
            source = Path(split_index(name)[0]).resolve()
            if source in targets or source.is_relative_to(own):
                raise DataError(f"{name}: is an input, and would be replaced by an output")
        if options["plot_file"]:
            check_plot(options["plot_file"], overwrite)

    def _weights_table(self) -> Table | None:
        """The table of weights, if one is named."""
        from quests_zenn.sampling.weights import KINDS

        name = self.options["weights"]
        if name in KINDS:
            return None
        if not os.path.exists(name):
            raise DataError(f"--weights {name}: is none of {', '.join(KINDS)}, and no file")
        table = _listed(name) or read_table(name)
        if "weight" not in table.names:
            raise DataError(f"{name}: has no column weight; its columns are {', '.join(table.names)}")
        bad = np.flatnonzero(~(table.column("weight") > 0.0) | ~np.isfinite(table.column("weight")))
        if len(bad):
            raise DataError(f"{name}, line {table.lines[bad[0]]}: weights must be positive numbers")
        return table

    # --- the work -----------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Read, group, compare, fit, write, tell."""
        from quests_zenn.states import fit_states

        options, times = self.options, self.times
        times.step("reading", self._read)
        times.step("phases", self._phases)
        times.step("entropies", self._entropies)
        self.weights = times.step("weights", self._weights)
        times.step("torch", import_torch)
        with progress_bar("fit", "step", quiet=self.quiet) as advance, quiet_about_ranges():

            def progress(stage: str, done: int) -> None:
                _options.Interrupts.raise_if_pending()
                advance(done)

            self.fit = times.step(
                "fit",
                lambda: fit_states(
                    self.states,
                    self._template(),
                    entropies=self.entropies,
                    weights=self.weights,
                    entropy_as_target=options["entropy_target"],
                    c=options["slope"] if self.entropies is not None else None,
                    reference=options["reference"],
                    equal_at=options["equal_at"],
                    progress=progress,
                ),
            )
        with quiet_about_ranges():
            times.step("analysis", self._analyse)
        _options.Interrupts.raise_if_pending()
        times.step("writing", lambda: self.fit.model.save(self.folder, overwrite=options["overwrite"]))
        if options["table_file"]:
            columns = {name: np.asarray(values) for name, values in self.columns.items()}
            write_table(options["table_file"], columns, options["overwrite"])
        write_document("fit", self.names, options, self._document(), times, self.jobs)
        if options["plot_file"]:
            with quiet_about_ranges():
                self._plot()
        if not self.quiet:
            self._table()
            self._warn()

    def _template(self) -> Any:
        from quests_zenn.zenn import ZENN

        return ZENN(
            1, thermal="classical", hidden=(), n_members=self.options["members"], random_state=self.options["seed"],
            n_jobs=self.options["jobs"], verbose=False,
        )  # fmt: skip

    def _read(self) -> None:
        from quests_zenn.states import group_states, iterate_samples

        options = self.options
        self.samples = []
        with progress_bar("reading", "file", total=len(self.names), quiet=self.quiet) as advance:
            for samples in iterate_samples(
                self.names, dict(options["temperatures"]), energy_key=options["energy_key"],
                stress=options["stress"], type_map=options["type_map"],
            ):  # fmt: skip
                _options.Interrupts.raise_if_pending()
                self.samples.append(samples)
                advance(1)
        self.whole = group_states(self.samples)
        if all(np.isnan(part.potential).all() and np.isnan(part.virial).all() for part in self.samples):
            raise DataError(
                f"{self.samples[0].labels[0]}: has neither energy nor stress, nor has any other frame; --energy-key "
                "names another key of info"
            )
        if options["energy_key"] and all(np.isnan(part.potential).all() for part in self.samples):
            raise DataError(f"{self.samples[0].labels[0]}: has no {options['energy_key']}, nor has any other frame")
        self._check_complete()
        self._tell_copies()

    def _tell_copies(self) -> None:
        """Frames that count twice make errors too small."""
        rows = np.concatenate([np.column_stack([p.volume, p.potential, p.virial]) for p in self.samples])
        rows = np.nan_to_num(rows, nan=1e300)
        extra = len(rows) - len(np.unique(rows, axis=0))
        if extra and not self.quiet:
            warn(
                f"{extra:,} frame{'s have' if extra > 1 else ' has'} the volume, energy and stress of another one to "
                "the last digit; is a file named twice?"
            )

    def _check_complete(self) -> None:
        """Energies, or stresses, of all frames of a file or of none."""
        for part in self.samples:
            for values, what in ((part.potential, "energy"), (part.virial, "stress")):
                missing = np.isnan(values)
                if missing.any() and not missing.all():
                    label = part.labels[int(np.flatnonzero(missing)[0])]
                    raise DataError(f"{label}: has no {what}, which other frames of its file have; leave it out")

    @property
    def _descriptors(self) -> dict[str, Any]:
        return {name: self.options[name] for name in ("k", "cutoff", "species")} | {"jobs": self.options["jobs"]}

    def _phases(self) -> None:
        from quests_zenn.states import find_phases, group_states, phase_shares, single_states

        wanted = self.options["configurations"]
        self.phases, self.shares = None, []
        if wanted != 1 and self.several and len(self.whole) > 1:
            self.phases = find_phases(
                self.samples, self.whole, wanted, **self._descriptors, random_state=self.options["seed"]
            )
            self.shares = phase_shares(self.whole, self.phases, self.samples)
        if not self.several:
            self.states = single_states(self.samples)
        elif self.phases is None or self.phases.n == 1:
            self.states = self.whole
        else:
            self.states = group_states(self.samples, phases=self.phases.labels)
        self.n_phases = 1 + max(state.phase for state in self.states)
        _options.Interrupts.raise_if_pending()

    def _entropies(self) -> None:
        """H of all states, if they are long enough; where they are not, only what does without goes on."""
        from quests_zenn.states import state_entropies

        self.entropies = None
        if not self.several:
            return
        compared = self.n_phases > 1 and self.options["equal_at"] is None
        needed = self.options["entropy_target"] or compared or self.options["slope"] is not None
        try:
            self.entropies = state_entropies(
                self.states, self.options["bandwidth"], n_environments=self.options["environments"],
                **self._descriptors, random_state=self.options["seed"],
            )  # fmt: skip
        except DataError as error:
            if compared:
                raise DataError(
                    f"{self.n_phases} phases were found, which entropies compare, but {error}; --configurations 1 "
                    "makes one of them"
                ) from error
            if needed or self.options["environments"] is not None:
                raise
            if not self.quiet:
                warn(f"no information entropies: {error}")
        _options.Interrupts.raise_if_pending()

    def _weights(self) -> FloatArray:
        from quests_zenn.states import state_scores, state_weights, structure_weights

        options = self.options
        kind, table = options["weights"], self.weights_table
        self.scores = None
        asked = kind in ("density", "novelty") or options["table_file"] or options["json_file"]
        if self.entropies is not None and asked:
            self.scores = state_scores(self.entropies, jobs=options["jobs"])
        if table is not None:
            return self._weights_of(table)
        if kind == "uniform":
            return np.ones(len(self.states))
        if self.entropies is None:
            return structure_weights(self.states, kind, options["bandwidth"], **self._descriptors)
        return state_weights(self.entropies, kind, scores=self.scores)

    def _weights_of(self, table: Table) -> FloatArray:
        """Weights of a table, by volume and temperature where it has them, else in the order of the states."""
        name, weights = self.options["weights"], table.column("weight")
        if not {"volume_A3", "temperature_K"} <= set(table.names):
            if len(table) != len(self.states):
                raise DataError(
                    f"{name}: holds {len(table)} weights for {len(self.states)} {self.options['rows']}; columns "
                    "volume_A3 and temperature_K would say which is whose"
                )
            return weights
        V, T = (np.array([getattr(state, key) for state in self.states]) for key in ("volume", "temperature"))
        kinds = np.array([state.phase for state in self.states])
        phase = table.column("phase") if "phase" in table.names and self.n_phases > 1 else np.zeros(len(table))
        kinds = kinds if phase.any() else np.zeros(len(kinds))
        places = table.column("volume_A3"), table.column("temperature_K")

        def same(rows: Any, states: Any) -> npt.NDArray[np.bool_]:
            near = np.abs(places[0][rows] / V[states] - 1.0) < ALIKE
            near &= np.abs(places[1][rows] / T[states] - 1.0) < ALIKE
            return np.asarray(near & (phase[rows] == kinds[states]))

        every = np.arange(len(V))
        if len(table) == len(V) and same(every, every).all():
            return weights
        found = np.empty(len(V))
        for i in every.tolist():
            mine = np.flatnonzero(same(slice(None), i))
            told = f"V = {V[i]:.5g} Å3, T = {T[i]:.5g} K"
            if not len(mine):
                raise DataError(f"{name}: has no row for {told}")
            if np.ptp(weights[mine]) > 0.0:
                raise DataError(f"{name}: has several weights for {told}, and is not in the order of the rows")
            found[i] = weights[mine[0]]
        return found

    def _analyse(self) -> None:
        """What follows: columns of the table, coexistence, the next states."""
        from quests_zenn.states import coexistence, propose_states

        fit, states = self.fit, self.states
        self.columns = self._columns()
        self.lines: list[dict[str, Any]] = []
        if self.n_phases > 1:
            cold, hot = fit.model.T_range_
            temperatures = np.linspace(cold, hot, LINE)
            for a in range(self.n_phases):
                for b in range(a + 1, self.n_phases):
                    line = coexistence(fit.phase_models[a], fit.phase_models[b], temperatures)
                    known = np.isfinite(line.pressure)
                    at_zero = line.temperature_at(0.0)
                    self.lines.append(
                        {
                            "phases": [a, b], "temperature": line.temperature[known], "pressure": line.pressure[known],
                            "pressure_std": line.pressure_std[known], "volumes": line.volumes[known],
                            "extrapolated": line.extrapolated[known],
                            "share_of_members": line.share_of_members[known],
                            "temperature_at_zero_pressure": at_zero[0], "temperature_at_zero_pressure_std": at_zero[1],
                        }
                    )  # fmt: skip
        for entry in self.shares:
            p, std = fit.model.probabilities(entry["volume"], entry["temperature"], std=True)
            entry["p"], entry["p_std"] = np.ravel(p).tolist(), np.ravel(std).tolist()
            entry["comparable"] = entry["conversions"] >= REPEATED
        self.next: list[dict[str, Any]] = []
        if self.options["propose"] and fit.model.n_members_ > 1 and {"P", "S"} <= fit.model.known_:
            self.next = propose_states(fit, states, self.options["propose"], self.options["seed"])

    def _columns(self) -> dict[str, Any]:
        """A row for each state: what was measured, and what the fit says."""
        states, fit = self.states, self.fit
        V = np.array([state.volume for state in states])
        T = np.array([state.temperature for state in states])
        columns: dict[str, Any] = {"volume_A3": V, "temperature_K": T}
        columns |= {
            "phase": np.array([state.phase for state in states]),
            "frames": np.array([state.n_frames for state in states]),
            "atoms": np.array([state.n_atoms for state in states]),
            "internal_energy_eV": np.array([state.internal_energy for state in states]),
            "internal_energy_error_eV": np.array([state.internal_energy_error for state in states]),
            "pressure_GPa": np.array([state.pressure for state in states]),
            "pressure_error_GPa": np.array([state.pressure_error for state in states]),
            "correlation_frames": np.array([state.correlation_time for state in states]),
        }
        if self.entropies is not None:
            columns |= {"H_nats": self.entropies.H, "H_error_nats": self.entropies.error}
        if self.scores is not None:
            columns |= {"dH_nats": self.scores.density, "dH_of_novel_nats": self.scores.novel}
        columns["weight"] = fit.weights
        of = columns["phase"]
        for name, column, factor in (
            ("free_energy", "fit_free_energy_eV", 1.0), ("internal_energy", "fit_internal_energy_eV", 1.0),
            ("pressure", "fit_pressure_GPa", 1.0), ("entropy", "fit_entropy_kB", 1.0 / K_B),
        ):  # fmt: skip
            values, stds = np.full(len(V), np.nan), np.full(len(V), np.nan)
            for phase, model in enumerate(fit.phase_models):
                mine = of == phase
                try:
                    found, std = getattr(model, name)(V[mine], T[mine], std=True)
                except ValueError:  # what the data do not fix
                    break
                values[mine], stds[mine] = factor * np.asarray(found), factor * np.asarray(std)
            unit = column.rpartition("_")[2]
            columns[column] = values
            columns[f"{column.removesuffix('_' + unit)}_std_{unit}"] = stds
        return columns

    # --- the telling --------------------------------------------------------------------------------------------------

    def _document(self) -> dict[str, Any]:
        options, fit, model = self.options, self.fit, self.fit.model
        link = None
        if fit.link is not None:
            link = {
                name: getattr(fit.link, name) for name in ("c", "c_error", "s0", "rms", "worst", "r2", "s0_of_phases")
            } | {"held": options["slope"] is not None, "target": options["entropy_target"]}  # fmt: skip
        entropies = None
        if self.entropies is not None:
            entropies = {
                "bandwidth": self.entropies.bandwidth, "n_environments": self.entropies.n_environments,
                "k": options["k"], "cutoff": options["cutoff"], "species": options["species"],
                "stride": self.entropies.stride, "n_frames": self.entropies.n_frames,
            }  # fmt: skip
        table = self.columns
        names = list(table)
        rows = [
            dict(zip(names, row, strict=True))
            for row in zip(*(np.asarray(v).tolist() for v in table.values()), strict=True)
        ]
        return {
            "model": str(self.folder), "coordinate": "volume", "n_atoms": 1, "rows": options["rows"],
            "n_configurations": self.n_phases, "n_members": model.n_members_, "n_frames": self.n_frames,
            "states": rows, "phases": self._phases_told(),
            "left_over": None if self.phases is None else self.phases.left_over, "shares": self.shares,
            "entropies": entropies, "link": link,
            "equal_at": options["equal_at"], "reference": {"volume": fit.reference[0], "temperature": fit.reference[1]},
            "relative_to": model.relative_to_, "weights": options["weights"],
            "effective_sample_size": fit.effective_sample_size, "targets": fit.targets,
            "coexistence": self.lines, "next": self.next, "x_range": model.x_range_, "T_range": model.T_range_,
            "units": {
                "volume": "Å3 per atom", "temperature": "K", "energy": "eV per atom", "pressure": "GPa",
                "entropy": "k_B per atom", "H": "nats per atom",
            },
        }  # fmt: skip

    def _phases_told(self) -> list[dict[str, Any]]:
        from quests_zenn.states import phases_told

        if self.phases is None or self.n_phases == 1:
            return []
        return list(phases_told(self.phases, self.states))

    @property
    def n_frames(self) -> int:
        """Frames of all files."""
        return sum(len(part) for part in self.samples)

    def _table(self) -> None:
        fit, states, options = self.fit, self.states, self.options
        model = fit.model
        more = f" and {len(self.names) - 1} more" if len(self.names) > 1 else ""
        atoms = np.concatenate([part.n_atoms for part in self.samples])
        (low, high), (cold, hot) = model.x_range_[0], model.T_range_
        kind = "state" if self.several else "structure"
        rows = [
            ("frames", f"{self.names[0]}{more}: {self.n_frames:,} of {span_told(atoms.min(), atoms.max(), 'g')} atoms"),
            (f"{kind}s", f"{len(states):,}: {span_told(low, high, '.5g')} Å3 per atom, {span_told(cold, hot, 'g')} K"),
        ]
        if self.entropies is not None:
            H, stride = self.entropies.H, self.entropies.stride
            rows.append(
                ("entropies", f"H {H.min():.3f} to {H.max():.3f} nats, of {self.entropies.n_environments:,} "
                              f"environments each, every {span_told(stride.min(), stride.max(), 'g')}. frame, h = "
                              f"{self.entropies.bandwidth:g} 1/Å")
            )  # fmt: skip
        if fit.link is not None:
            link = fit.link
            slope = f"{link.c:g} (held)" if options["slope"] else with_spread(link.c, link.c_error, "").strip()
            target = "; a target of the fit" if options["entropy_target"] else ""
            rows.append(
                ("link", f"S/k_B = {slope} H + 3/2 ln T + s0; R2 {link.r2:.3f}, rms {link.rms:.3f}, worst "
                         f"{link.worst:.3f} k_B per atom{target}")
            )  # fmt: skip
            if options["equal_at"]:
                gap = link.s0_of_phases[1] - link.s0_of_phases[0]
                rows.append(("", f"S of phase 1 is {gap:+.3f} k_B per atom from that of phase 0 and H"))
        elif self.entropies is not None and "S" in model.known_:
            rows.append(("link", "none: H is the same in all states; try another --bandwidth"))
        if options["weights"] != "uniform":
            w = fit.weights
            rows.append(
                ("weights", f"{options['weights']}: {w.min():.3g} to {w.max():.3g}; worth "
                            f"{fit.effective_sample_size:.1f} of {len(states)} {kind}s of equal weight")
            )  # fmt: skip
        rows += [
            ("model", f"{self.n_phases} configuration{'s' * (self.n_phases > 1)}, "
                      f"{committee_told(model.n_members_)}, per atom"),
            ("relative to", str(model.relative_to_)),
        ]  # fmt: skip
        written = [options[name] for name in ("table_file", "json_file", "plot_file") if options[name]]
        rows.append(("written", ", ".join([f"{self.folder}/", *written])))
        seconds = self.times.seconds
        names = {"reading": "reading", "phases": "phases", "entropies": "entropies", "weights": "weights",
                 "torch": "importing torch", "fit": "fit"}  # fmt: skip
        steps = ", ".join(f"{told} {seconds[name]:.2f}" for name, told in names.items() if seconds[name] >= 0.005)
        rows.append(("time", f"{self.times.total():.2f} s ({steps}; {self.jobs} thread{'s' * (self.jobs > 1)})"))
        _tell.rows(rows)
        self._list_targets()
        self._list_phases()
        if self.next:
            click.echo("\nsimulate next, where members disagree most:")
            for entry in self.next:
                beyond = "  (beyond the states)" if entry["extrapolated"] else ""
                of = f", phase {entry['phase']}" if self.n_phases > 1 else ""
                click.echo(
                    f"  V = {entry['volume']:.4g} Å3 per atom, T = {entry['temperature']:.0f} K{of}: P known to "
                    f"{entry['pressure_std']:.2g} GPa{beyond}"
                )

    def _list_targets(self) -> None:
        click.echo(f"\n{'target':<10}{'unit':>6}{'values':>9}{'rms':>12}{'chi2':>8}")
        for name, found in self.fit.targets.items():
            unit, factor = TOLD[name]
            chi2 = f"{'-':>8}" if found["chi2"] is None else f"{found['chi2']:8.3g}"
            click.echo(f"{name:<10}{unit:>6}{found['n']:9,}{factor * found['rms']:12.4g}{chi2}")

    def _list_phases(self) -> None:
        told = self._phases_told()
        if told:
            click.echo(f"\n{'phase':<7}{'states':>8}{'frames':>9}  where: T (K), V (Å3 per atom)")
            for entry in told:
                where = f"{_span(entry['T_range'], 'g')}, {_span(entry['x_range'], '.5g')}"
                click.echo(f"{entry['number']:<7}{entry['n_states']:>8}{entry['n_frames']:>9,}  {where}")
        for line in self.lines:
            a, b = line["phases"]
            T, std = line["temperature_at_zero_pressure"], line["temperature_at_zero_pressure_std"]
            if self.options["equal_at"]:
                P, kelvin = self.options["equal_at"]
                click.echo(f"phases {a} and {b} coexist at {P:g} GPa and {kelvin:g} K (given); --json has the line")
            elif np.isfinite(T):
                click.echo(f"phases {a} and {b} have the same Gibbs energy at 0 GPa and {with_spread(T, std, 'K')}")
            elif len(line["pressure"]):
                P, kelvin = line["pressure"], line["temperature"]
                click.echo(
                    f"phases {a} and {b} have the same Gibbs energy from {P[0]:.2f} GPa at {kelvin[0]:.0f} K to "
                    f"{P[-1]:.2f} GPa at {kelvin[-1]:.0f} K"
                )
            else:
                click.echo(f"phases {a} and {b} have the same Gibbs energy nowhere in the range of the states")
        for entry in self.shares[:LISTED]:
            shares = ", ".join(f"{share:.0%}" for share in entry["share"])
            p = ", ".join(f"{share:.0%}" for share in entry["p"])
            why = "" if entry["comparable"] else f"; not comparable, {entry['conversions']} conversions"
            click.echo(
                f"V = {entry['volume']:.4g}, T = {entry['temperature']:.0f} K: phases in {shares} of the frames, "
                f"p = {p}{why}"
            )
        if len(self.shares) > LISTED:
            click.echo(f"and {len(self.shares) - LISTED} more states with several phases (--json)")

    def _warn(self) -> None:
        """What the fit should not pass over in silence."""
        columns, fit = self.columns, self.fit
        low, high = fit.model.x_range_[0]
        if high > WIDE * low:
            warn(
                f"volumes run from {low:.4g} to {high:.4g} Å3 per atom: surfaces and molecules have none that an "
                "equation of state could use; leave such frames out"
            )
        if self.phases is not None and self.phases.n > 1 and self.phases.left_over[0] <= EXPLAINED:
            warn(
                f"one phase explains the frames (left over {self.phases.left_over[0]:.2f} of their scatter); "
                f"{self.phases.n} were asked for"
            )
        if fit.effective_sample_size < 0.5 * len(self.states):
            warn(
                f"few rows rule: weights are worth {fit.effective_sample_size:.1f} of {len(self.states)} rows of equal "
                "weight; --table tells which"
            )
        for name, found in fit.targets.items():
            if found["chi2"] is not None and found["chi2"] > STIFF:
                warn(
                    f"{name} is further from the fit than its errors tell (chi2 {found['chi2']:.3g}): the form is too "
                    "stiff for them, or a run had not come to rest; errors were widened by what is left"
                )
        # a run may have changed its phase, or not have come to rest
        for own, told in (("internal_energy_eV", "U"), ("pressure_GPa", "P")):
            gap = np.abs(columns[f"fit_{own}"] - columns[own])
            if not np.isfinite(gap).any():
                continue
            unit, factor = TOLD[told]
            far = np.flatnonzero(gap > FAR * np.nanmedian(gap))
            if len(far) and self.fit.targets[told]["chi2"] is not None:
                worst = far[np.argmax(gap[far])]
                V, T = columns["volume_A3"][worst], columns["temperature_K"][worst]
                warn(
                    f"{told} of {len(far)} state{'s' * (len(far) > 1)} is far from the fit, most at V = {V:.4g} Å3, "
                    f"T = {T:.5g} K ({factor * gap[worst]:.3g} {unit}): has the run changed its phase?"
                )

    # --- the plot -----------------------------------------------------------------------------------------------------

    def _plot(self) -> None:
        fit, columns = self.fit, self.columns
        V, T, phase = columns["volume_A3"], columns["temperature_K"], columns["phase"]
        residuals = []
        for name, own in (("U", "internal_energy"), ("P", "pressure")):
            if name in fit.targets:
                (unit, factor), letter = TOLD[name], "eV" if name == "U" else "GPa"
                values, error = columns[f"{own}_{letter}"], columns[f"{own}_error_{letter}"]
                found = columns[f"fit_{own}_{letter}"]
                residuals.append(
                    Compared(f"{name}: fit - states ({unit})", factor * values, factor * error, factor * found)
                )
        link = None
        if fit.link is not None and self.entropies is not None:
            from_H = fit.link.entropy(self.entropies.H, T)
            link = Compared("c H + 3/2 ln T + s0 (k_B per atom)", columns["fit_entropy_kB"], np.zeros(len(V)), from_H)
        panels: dict[str, list[Line]] = {}
        for number, model in enumerate(fit.phase_models):
            mine = phase == number
            rows = Rows(V[mine], T[mine], {"P": columns["pressure_GPa"][mine]} if "P" in fit.targets else {})
            for label, lines in isotherms(model, rows, "volume", "V"):
                if self.n_phases == 1 or label.startswith("P"):
                    panels.setdefault(label, []).extend(lines)
        line = [
            Line(f"phases {a} and {b}", found["temperature"], found["pressure"], found["pressure_std"])
            for found in self.lines
            for a, b in [found["phases"]]
            if len(found["temperature"])
        ]
        plot_states(
            self.options["plot_file"], StatesDrawn(V, T, phase, fit.weights), residuals=residuals, link=link,
            isotherms=list(panels.items()), proposed=[(entry["volume"], entry["temperature"]) for entry in self.next],
            coexistence=line, title=stem(self.names[0]) + (" ..." if len(self.names) > 1 else ""),
            overwrite=self.options["overwrite"],
        )  # fmt: skip


def _listed(name: str) -> Table | None:
    """A file of nothing but numbers, one in each line, as a table of weights."""
    try:
        text = Path(name).read_text(encoding="utf-8")
        numbers = [float(line) for line in text.splitlines() if line.strip()]
    except (OSError, ValueError):
        return None  # a table with a header, then, or nothing that can be read
    lines = np.flatnonzero([bool(line.strip()) for line in text.splitlines()]) + 1
    return Table(Path(name), ("weight",), {"weight": np.array(numbers)}, lines) if numbers else None


def _span(ends: list[float], form: str) -> str:
    return span_told(ends[0], ends[1], form)
