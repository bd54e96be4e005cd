"""The course of one ``quests-entropy`` run. Imported only when the command really runs."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import click
import numpy as np

from quests_zenn._core.checks import DataError
from quests_zenn._core.parallel import Workers, resolve_jobs
from quests_zenn._core.progress import note_if_slow, progress_bar
from quests_zenn.cli import _options
from quests_zenn.descriptors import Environments, describe, element_symbols, volume_per_atom
from quests_zenn.entropy import DEFAULT_BANDWIDTH, GroupMetrics, get_all_metrics, get_bandwidth, group_metrics
from quests_zenn.io.frames import Frame, holds_bare_types, read_atoms, read_frames, selected_atoms, split_index, stem
from quests_zenn.io.outputs import check_output, make_writable, versions, write_json, write_scored
from quests_zenn.io.plots import Curve, check_plot, plot_trajectory

SCOPE_RUN = "all environments of the run"
SCOPE_FRAME = "the frame"

#: Share of environments with fewer than k neighbours from which on the user is told.
MANY_INCOMPLETE = 0.1


@dataclass
class EntropyRun:
    """Options, what was found, and how it is told."""

    files: tuple[str, ...]
    options: dict[str, Any]
    jobs: int
    requested: list[float | str]
    # filled while frames stream through
    lengths: list[int] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    properties: list[dict[str, float]] = field(default_factory=list)
    selection: list[np.ndarray] = field(default_factory=list)
    volumes: list[float] = field(default_factory=list)
    without_volume: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    started: float = field(default_factory=time.perf_counter)

    # results
    environments: Environments | None = None
    chosen: np.ndarray | None = None
    bandwidths: list[float] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)
    entropy: np.ndarray = field(default_factory=lambda: np.zeros(0))
    diversity: np.ndarray = field(default_factory=lambda: np.zeros(0))
    dh: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)))
    frames: GroupMetrics | None = None
    frame_numbers: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))

    @classmethod
    def prepare(cls, files: tuple[str, ...], **options: Any) -> EntropyRun:
        """Judge the options before any work is done."""
        overwrite = options["overwrite"]
        outputs = [options[name] for name in ("output", "json_file", "plot_file") if options[name] is not None]
        targets = [check_output(path, overwrite).resolve() for path in outputs]
        if len(set(targets)) < len(targets):
            raise DataError("two outputs have the same name")
        for spec in files:
            if Path(split_index(spec)[0]).resolve() in targets:
                raise DataError(f"{split_index(spec)[0]}: is an input, and would be replaced by an output")
        if options["output"] and not options["output"].removesuffix(".gz").endswith((".xyz", ".extxyz")):
            raise DataError(
                f"{options['output']}: scored frames are extended XYZ; its name must end in .xyz or .xyz.gz"
            )
        if options["plot_file"]:
            check_plot(options["plot_file"], overwrite)
        requested = [value for group in options["bandwidths"] for value in group]
        requested = list(dict.fromkeys(requested)) or [DEFAULT_BANDWIDTH]
        return cls(files, options, resolve_jobs(options["jobs"]), requested)

    # ------------------------------------------------------------------ the work

    def stream(self) -> Iterator[Frame]:
        """Frames from the files; what later steps need of each is noted down in passing."""

        def note(label: str, atoms: Any) -> None:
            if self.options["output"]:
                make_writable(atoms, label)  # now, not after all the work
            if self.options["select"] is not None:
                self.selection.append(selected_atoms(atoms, self.options["select"], label))

        source = read_frames(
            self.files, type_map=self.options["type_map"], energy_key=self.options["energy_key"], on_atoms=note
        )
        self.seconds["reading"] = 0.0
        while True:
            _options.Interrupts.raise_if_pending()
            before = time.perf_counter()
            frame = next(source, None)
            self.seconds["reading"] += time.perf_counter() - before
            if frame is None:
                return
            self.lengths.append(len(frame))
            self.labels.append(frame.label)
            self.properties.append(dict(frame.properties))
            if "auto" in self.requested:
                try:
                    self.volumes.append(volume_per_atom(frame))
                except DataError as error:
                    self.without_volume.append(str(error))
            yield frame

    def describe(self, frames: Iterator[Frame]) -> Environments:
        with progress_bar("descriptors", "env", quiet=self.options["quiet"]) as advance:
            return describe(
                frames,
                self.options["k"],
                self.options["cutoff"],
                self.options["species"],
                self.options["precision"],
                jobs=self.jobs,
                progress=advance,
            )

    def compute(self) -> None:
        """Read, describe, sum."""
        self.warm_up()
        before = time.perf_counter()
        env = self.environments = self.describe(self.stream())
        self.seconds["descriptors"] = time.perf_counter() - before - self.seconds["reading"]
        self.choose_bandwidths()

        before = time.perf_counter()
        x, numbers = env.x, env.numbers
        owner = np.repeat(np.arange(len(self.lengths)), self.lengths)
        if self.options["select"] is not None:
            starts = env.frame_offsets[:-1]
            self.chosen = np.concatenate([rows + start for rows, start in zip(self.selection, starts, strict=True)])
            if len(self.chosen) == 0:
                raise DataError(f"the selection {self.options['select']!r} names no atom in any frame")
            x, numbers, owner = x[self.chosen], numbers[self.chosen], owner[self.chosen]
        centres = None if env.species == "none" else numbers
        precision = self.options["precision"]
        with Workers(self.jobs) as workers:
            pairs = len(x) * (len(x) + 1) // 2
            with progress_bar("kernel sums", "pair", total=pairs, quiet=self.options["quiet"]) as advance:
                self.entropy, self.diversity, self.dh = get_all_metrics(
                    x, self.bandwidths, labels=centres, precision=precision, workers=workers, progress=advance
                )
            if self.options["per_frame"] or self.options["plot_file"]:
                self.frame_numbers, groups = np.unique(owner, return_inverse=True)
                self.frames = group_metrics(
                    x, self.bandwidths, groups, labels=centres, precision=precision, workers=workers
                )
        self.seconds["sums"] = time.perf_counter() - before

    def warm_up(self) -> None:
        """Load the compiled kernels; on the first run on a machine they are compiled, which takes a while."""
        with note_if_slow("compiling kernels (first run on this machine only) ...", 2.0, self.options["quiet"]):
            _options.Interrupts.raise_if_pending()
            tiny = (np.array([[0.0, 0.0, 0.0], [0.0, 0.0, 2.0]]), None, False, np.array([1, 1]))
            x = describe([tiny], dtype=self.options["precision"], jobs=1).x
            get_all_metrics(x, precision=self.options["precision"], jobs=1)
        _options.Interrupts.raise_if_pending()
        self.seconds["loading"] = time.perf_counter() - self.started

    def require_volumes(self) -> None:
        """Refuse the volume rule where some frames have no volume per atom."""
        if self.without_volume:
            raise DataError(
                f"{self.without_volume[0]}; so it is in {len(self.without_volume)} of {len(self.lengths)} frames, and "
                "--bandwidth auto needs all: leave them out, or give a number"
            )

    def choose_bandwidths(self) -> None:
        self.require_volumes()
        for value in self.requested:
            if value == "auto":
                volume = float(np.average(self.volumes, weights=self.lengths))
                self.bandwidths.append(get_bandwidth(volume))
                self.sources.append(f"auto: volume rule at {volume:.3f} Å3 per atom")
            else:
                self.bandwidths.append(float(value))
                self.sources.append("given" if self.options["bandwidths"] else "default")

    def predict(self) -> None:
        """Time and memory of the run, from counting its atoms and measuring a small part of the work."""
        self.warm_up()
        stream = self.stream()
        first = list(islice(stream, 1))
        while sum(map(len, first)) < 4096 and (frame := next(stream, None)) is not None:
            first.append(frame)
        before = time.perf_counter()
        sample = describe(
            first, self.options["k"], self.options["cutoff"], self.options["species"], self.options["precision"],
            jobs=self.jobs,
        )  # fmt: skip
        per_environment = (time.perf_counter() - before) / len(sample)
        for _ in stream:
            pass
        self.require_volumes()
        part = np.resize(sample.x[:4096], (4096, sample.x.shape[1]))
        before = time.perf_counter()
        get_all_metrics(part, np.ones(len(self.requested)), precision=self.options["precision"], jobs=self.jobs)
        per_pair = (time.perf_counter() - before) / len(part) ** 2
        n = sum(self.lengths)
        asked = n if self.options["select"] is None else sum(map(len, self.selection))
        seconds = self.seconds["reading"] + per_environment * n + per_pair * asked * asked
        matrix = n * sample.x.shape[1] * sample.x.itemsize
        sums = n * 8 * (3 * len(self.requested) + 6)
        click.echo(
            f"{len(self.lengths)} frames, {n} environments: about {_duration(seconds)} on {self.jobs} threads, "
            f"{_size(2 * matrix + sums + 250_000_000)} of memory"
        )

    # ------------------------------------------------------------------ the telling

    @property
    def n(self) -> int:
        return self.dh.shape[1]

    def report(self) -> None:
        """Files first, then the table: a result that cannot be written is no result."""
        _options.Interrupts.raise_if_pending()
        options = self.options
        if options["output"]:
            before = time.perf_counter()
            atoms = (item for spec in self.files for item in read_atoms(spec, options["type_map"]))
            notes = {
                "dH_scope": SCOPE_RUN,
                "dH_bandwidth": self.bandwidths[0],
                **{f"dH_{name}": options[name] for name in ("k", "cutoff", "species")},
            }
            write_scored(options["output"], atoms, self.scores(), options["overwrite"], notes=notes)
            self.seconds["writing"] = time.perf_counter() - before
        if options["plot_file"]:
            self.plot()
        self.seconds["total"] = time.perf_counter() - self.started
        if options["json_file"]:
            write_json(options["json_file"], self.document(), options["overwrite"])
        if not options["quiet"]:
            self.print_table()
            self.print_warnings()

    def scores(self) -> np.ndarray:
        """dH of every atom of the input for the first bandwidth; NaN for atoms that were not asked about."""
        if self.chosen is None:
            return self.dh[0]
        scores = np.full(sum(self.lengths), np.nan)
        scores[self.chosen] = self.dh[0]
        return scores

    def flagged(self) -> tuple[int, int]:
        """Environments asked about that have fewer than k neighbours, and that have a tie at place k."""
        env = self.environments
        assert env is not None
        asked = slice(None) if self.chosen is None else self.chosen
        return int(np.count_nonzero(env.incomplete[asked])), int(np.count_nonzero(env.tied[asked]))

    def result(self, b: int) -> dict[str, Any]:
        """Everything that depends on the bandwidth."""
        found: dict[str, Any] = {
            "bandwidth": self.bandwidths[b],
            "bandwidth_source": self.sources[b],
            "entropy": self.entropy[b],
            "diversity": self.diversity[b],
            "max_entropy": math.log(self.n),
            "redundancy": math.log(self.n) - self.entropy[b],
            "mean_dh": float(self.dh[b].mean()),
            "estimator": "exact",
            "standard_error": 0.0,
            "block_error": None,
        }
        if self.options["per_frame"] and self.frames is not None:
            found["frames"] = [
                {
                    "index": int(number),
                    "label": self.labels[number],
                    "entropy": self.frames.entropy[b, i],
                    "mean_dh": self.frames.mean_dh[b, i],
                    "n_environments": int(self.frames.sizes[i]),
                    **self.properties[number],
                }
                for i, number in enumerate(self.frame_numbers)
            ]
        return found

    def document(self) -> dict[str, Any]:
        """The JSON document."""
        env = self.environments
        assert env is not None
        incomplete, tied = self.flagged()
        results = [self.result(b) for b in range(len(self.bandwidths))]
        document: dict[str, Any] = {"command": "quests-entropy", "inputs": list(self.files)}
        document |= results[0] if len(results) == 1 else {"results": results}
        document |= {
            "n_environments": self.n,
            "n_frames": len(self.lengths),
            "elements": element_symbols(env.numbers),
            "k": env.k,
            "cutoff": env.cutoff,
            "species": env.species,
            "select": self.options["select"],
            "scope": {"dH": SCOPE_RUN, "mean_dh": SCOPE_RUN, "frames.mean_dh": SCOPE_FRAME},
            "n_tied": tied,
            "n_incomplete": incomplete,
            "precision": self.options["precision"],
            "backend": "threads",
            "n_workers": self.jobs,
            "seed": self.options["seed"],
            "units": {"entropy": "nats", "dH": "nats", "bandwidth": "1/Å", "cutoff": "Å"},
            "timings": self.seconds,
            "versions": versions(),
        }
        return document

    def print_table(self) -> None:
        env = self.environments
        assert env is not None
        n_files = f" in {len(self.files)} files" if len(self.files) > 1 else ""
        rows = [
            ("frames", f"{len(self.lengths):,}{n_files}"),
            ("environments", f"{self.n:,}" + (f" ({self.options['select']})" if self.options["select"] else "")),
            ("elements", " ".join(element_symbols(env.numbers))),
            ("descriptor", f"k = {env.k}, cutoff {env.cutoff:g} Å, species {env.species}"),
        ]
        limit = math.log(self.n)
        if len(self.bandwidths) == 1:
            rows += [
                ("bandwidth", f"{self.bandwidths[0]:.5g} 1/Å ({self.sources[0]})"),
                ("entropy H", f"{self.entropy[0]:.4f} nats"),
                ("ln N", f"{limit:.4f} nats, the largest possible H"),
                ("redundancy", f"{limit - self.entropy[0]:.4f} nats"),
                ("diversity D", f"{self.diversity[0]:.4f} nats"),
            ]
        else:
            rows.append(("ln N", f"{limit:.4f} nats, the largest possible H"))
        steps = ", ".join(
            f"{name} {self.seconds[name]:.2f}"
            for name in ("loading", "reading", "descriptors", "sums", "writing")
            if name in self.seconds
        )
        rows.append(("time", f"{self.seconds['total']:.2f} s ({steps}; {self.jobs} threads)"))
        for name, text in rows:
            click.echo(f"{name:14}{text}")
        if len(self.bandwidths) > 1:
            click.echo(f"\n{'h (1/Å)':>10}{'H':>10}{'redundancy':>12}{'D':>10}  source")
            for h, value, d, source in zip(self.bandwidths, self.entropy, self.diversity, self.sources, strict=True):
                click.echo(f"{h:10.5g}{value:10.4f}{limit - value:12.4f}{d:10.4f}  {source}")
        if self.options["per_frame"]:
            self.print_frames()

    def print_frames(self) -> None:
        assert self.frames is not None
        extra = [name for name in ("time", "temperature", "energy") if any(name in p for p in self.properties)]
        units = {"time": "time (ps)", "temperature": "T (K)", "energy": "E (eV)"}
        for b, h in enumerate(self.bandwidths):
            click.echo(f"\nframes at h = {h:.5g} 1/Å (dH within the frame)")
            click.echo(
                f"{'frame':>8}{'envs':>9}{'H':>10}{'ln n':>10}{'mean dH':>10}"
                + "".join(f"{units[name]:>14}" for name in extra)
                + ("  file" if len(self.files) > 1 else "")
            )
            for i, number in enumerate(self.frame_numbers):
                cells = [self.properties[number].get(name) for name in extra]
                click.echo(
                    f"{number:8d}{self.frames.sizes[i]:9d}{self.frames.entropy[b, i]:10.4f}"
                    f"{math.log(self.frames.sizes[i]):10.4f}{self.frames.mean_dh[b, i]:10.4f}"
                    + "".join(f"{'-':>14}" if cell is None else f"{cell:14.4f}" for cell in cells)
                    + (f"  {stem(self.labels[number].rpartition(', frame ')[0])}" if len(self.files) > 1 else "")
                )

    def print_warnings(self) -> None:
        env = self.environments
        assert env is not None
        incomplete, tied = self.flagged()
        if incomplete > MANY_INCOMPLETE * self.n:
            _warn(
                f"{incomplete / self.n:.0%} of the atoms asked about have fewer than k = {env.k} neighbours within "
                f"{env.cutoff:g} Å (missing places count as zero); a larger --cutoff or a smaller --k resolves more"
            )
        if tied:
            _warn(
                f"{tied} of {self.n} environments have equal distances across place k = {env.k} "
                "(perfect crystals): their X2 depends on the orientation of the cell"
            )
        elements = element_symbols(env.numbers)
        looks_like_types = elements == element_symbols(np.arange(1, len(elements) + 1))
        if looks_like_types and not self.options["type_map"] and any(map(holds_bare_types, self.files)):
            _warn(f"atom types were read as elements ({' '.join(elements)}); --type-map 1=Cu,... names the real ones")
        if "auto" in self.requested and max(self.volumes) > 1.1 * min(self.volumes):
            _warn(
                f"volumes per atom range from {min(self.volumes):.1f} to {max(self.volumes):.1f} Å3; "
                "--bandwidth auto took their mean"
            )
        if self.frames is not None:
            limits = np.log(self.frames.sizes)
            for h, values in zip(self.bandwidths, self.frames.entropy, strict=True):
                saturated = int(np.count_nonzero(limits - values < 0.01 * limits))
                if saturated:
                    _warn(
                        f"H of the frame is within 1% of ln n in {saturated} of {len(values)} frames at h = {h:.5g}: "
                        f"it cannot tell them apart; a wider --bandwidth (try {2 * h:.3g}) can"
                    )
            if self.frames.sizes.min() != self.frames.sizes.max():
                _warn("frames differ in their number of atoms, and H grows with it: compare frames of one size only")
        limit = math.log(self.n)
        for h, value in zip(self.bandwidths, self.entropy, strict=True):
            if self.n < 2:
                _warn("one environment has no entropy: H = 0 = ln 1")
            elif limit - value < 0.01 * limit:
                _warn(
                    f"H is within 1% of ln N at h = {h:.5g}: no two environments resemble each other; "
                    f"more frames, or a wider --bandwidth (try {2 * h:.3g}), tell more"
                )
            elif value < 0.01 * limit:
                _warn(
                    f"H is close to 0 at h = {h:.5g}: all environments look the same; "
                    f"unless they are equal, a narrower --bandwidth (try {h / 2:.3g}) tells more"
                )

    def plot(self) -> None:
        assert self.frames is not None
        properties = [self.properties[number] for number in self.frame_numbers]
        x = Curve("frame", np.arange(len(properties), dtype=float))
        times = np.array([p.get("time", np.nan) for p in properties])
        if len(times) > 1 and (np.diff(times) > 0).all():
            x = Curve("time (ps)", times)
        candidates = [
            Curve(label, np.array([p.get(name, np.nan) for p in properties]))
            for name, label in (("temperature", "temperature (K)"), ("energy", "energy (eV)"))
        ]
        # the first that every frame carries, else the one that most do
        beside: Curve | None = max(candidates, key=lambda curve: np.count_nonzero(np.isfinite(curve.values)))
        if beside is not None and not np.isfinite(beside.values).any():
            beside = None
        names = [self.labels[number].rpartition(", frame ")[0] for number in self.frame_numbers]
        boundaries = [(float(x.values[i]), stem(names[i])) for i in range(1, len(names)) if names[i] != names[i - 1]]
        plot_trajectory(
            self.options["plot_file"],
            x=x,
            entropies=[
                Curve(f"H, h = {h:.4g} 1/Å", values)
                for h, values in zip(self.bandwidths, self.frames.entropy, strict=True)
            ],
            limit=np.log(self.frames.sizes),
            beside=beside,
            dh=[Curve(f"h = {h:.4g} 1/Å", values) for h, values in zip(self.bandwidths, self.dh, strict=True)],
            boundaries=boundaries,
            title=", ".join(stem(spec) for spec in self.files[:3]) + (" ..." if len(self.files) > 3 else ""),
            overwrite=self.options["overwrite"],
        )


def _warn(message: str) -> None:
    click.echo(f"warning: {message}", err=True)


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.2g} s" if seconds < 9.5 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _size(size: float) -> str:
    return f"{size / 1e6:.0f} MB" if size < 1e9 else f"{size / 1e9:.1f} GB"
