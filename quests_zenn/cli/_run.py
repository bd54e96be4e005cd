"""The course of one ``quests-entropy`` run. Imported only when the command really runs."""

from __future__ import annotations

import math
from pathlib import PurePath
from typing import Any

import click
import numpy as np

from quests_zenn._core.checks import DataError
from quests_zenn._core.parallel import Workers
from quests_zenn._core.progress import progress_bar
from quests_zenn._core.rows import piece_rows
from quests_zenn.cli import _options, _tell
from quests_zenn.cli._backend import Backend, kept
from quests_zenn.cli._source import SCORED, Source, check_outputs
from quests_zenn.cli._tell import warn
from quests_zenn.entropy import (
    EntropyEstimate,
    GroupMatrix,
    GroupMetrics,
    approx_delta_entropy,
    autocorrelation_time,
    block_error,
    estimate_entropy,
    get_all_metrics,
    group_matrix,
    group_metrics,
    is_exact,
    time_blocks,
)
from quests_zenn.entropy._levels import reference_sizes
from quests_zenn.entropy.approximate import DEFAULT_REFERENCES
from quests_zenn.entropy.blocks import ASKED
from quests_zenn.io.frames import stem
from quests_zenn.io.plots import Curve, plot_trajectory

SCOPE_RUN = "all environments of the run"
SCOPE_FRAME = "the frame"
SCOPE_GROUP = "row: environments of this group; column: given all environments of that group"


class EntropyRun:
    """Options, what was found, and how it is told."""

    def __init__(self, files: tuple[str, ...], options: dict[str, Any]) -> None:
        check_outputs(files, options, output=SCORED)
        self.files, self.options = files, options
        self.backend = Backend(options)
        self.source = Source(files, options)
        self.times = _tell.Times()
        self.times.seconds = self.source.seconds  # one list of steps
        self.block_errors: np.ndarray | None = None
        self.frame_series: np.ndarray | None = None
        self.frames: GroupMetrics | None = None
        self.groups: list[GroupMatrix] = []
        self.group_names: list[str] = []

    # ------------------------------------------------------------------ the work

    def warm_up(self) -> None:
        """Load the compiled kernels."""
        self.source.warm_up()

    def run(self) -> None:
        """Compute and report; what is kept of the work is needed until then."""
        with kept(self.source.quiet) as keeper:
            self.warm_up()
            with self.backend.workers(self.times, keeper) as workers:
                self.compute(workers)
            self.report()

    def compute(self, workers: Workers) -> None:
        """Read, describe, sum."""
        if self.options["memory"] is not None:
            self.taken = _tell.resident()
            self.source.watch = self.check_memory
        rows = self.source.open_rows() if self.streams() else None
        if rows is None:
            self.source.describe(workers.remote)
        else:
            loaded = is_exact(self.options["estimator"], len(rows))  # a part of the store may be small
            if self.options["memory"] is not None:
                self.check_memory(*rows.shape, rows.dtype.itemsize, loaded=loaded)
            if loaded:
                self.source.x = rows.read(0, len(rows))
        self.bandwidths, self.sources = self.source.bandwidths()
        self.times.step("sums", lambda: self.sum(workers))

    def streams(self) -> bool:
        """Whether a store need not be read as a whole: samples are enough, and nothing is asked of parts."""
        options = self.options
        whole = ("by", "per_frame", "plot_file", "output", "blocks")
        n = sum(len(store) for store in self.source.stores.values())
        return (
            options["estimator"] != "knn" and not is_exact(options["estimator"], n) and not any(map(options.get, whole))
        )

    def check_memory(self, n: int, width: int, itemsize: int, loaded: bool = True) -> None:
        """Refuse what does not fit into --memory.

        Raises
        ------
        DataError
            If n environments do not.
        """
        options, limit = self.options, self.backend.memory
        assert limit is not None
        h = len(self.source.requested)
        if loaded:
            exact = is_exact(options["estimator"], n) or bool(options["by"])
            packed = 4 if options["precision"] == "float32" else 8
            row = width * (itemsize + (packed if exact else 0)) + 8 * (3 * h + 6)
            needs = self.taken + n * row
        else:  # a random order for each level and one more, what is known of atoms; pieces, the largest sample
            levels = len(reference_sizes(n))
            sample = reference_sizes(n)[-2] if levels > 1 else 0
            pieces = 5 * min(n, piece_rows(width)) * width * itemsize + 3 * sample * width * itemsize
            needs = self.taken + n * (4 * (levels + 1) + 14) + pieces
        if needs > limit:
            told = f"{n:,} environments{' and more' if loaded and not self.source.stores else ''}"
            advice = "a machine with more of it, or fewer frames (@::10), will do"
            if loaded and not self.source.stores:
                advice = "quests-zenn descriptors -o NAME.zarr writes a store, of which samples take less"
            elif loaded:
                advice = "--estimator sampled, and nothing asked of parts, takes less"
            raise DataError(
                f"{', '.join(self.files)}: {told} need about {_tell.size(needs)}, more than --memory "
                f"{_tell.size(options['memory'])}{self.backend.share}; {advice}"
            )

    def sum(self, workers: Workers) -> None:
        source, options = self.source, self.options
        x, centres, precision = source.x, source.centres, options["precision"]
        rng = np.random.default_rng(options["seed"])
        estimator = options["estimator"]
        # parts of a set are compared by all pairs, which tell the whole as well
        exact = is_exact(estimator, len(x)) or (estimator == "auto" and bool(options["by"]))
        wants_dh = bool(options["output"] or options["plot_file"])
        self.dh_error: np.ndarray | None = None
        pairs = len(x) * (len(x) + 1) // 2
        with progress_bar("kernel sums", "pair", total=pairs if exact else None, quiet=source.quiet) as advance:
            common: dict[str, Any] = {"precision": precision, "workers": workers}
            if exact:
                value, diversity, self.dh = get_all_metrics(
                    x, self.bandwidths, labels=centres, progress=advance, **common
                )
                zero = np.zeros(len(self.bandwidths))
                tolerance = options["tolerance"]
                self.found = EntropyEstimate(value, zero, diversity, zero, "exact", len(x), tolerance)
            else:
                self.found = estimate_entropy(
                    x, self.bandwidths, estimator, options["tolerance"], labels=centres, random_state=rng,
                    progress=advance, **common,
                )  # fmt: skip
                if wants_dh:
                    estimates = [
                        approx_delta_entropy(
                            x, None, h, estimator=estimator, y_labels=centres, random_state=rng, progress=advance,
                            **common,
                        )
                        for h in self.bandwidths
                    ]  # fmt: skip
                    self.dh = np.array([e.values for e in estimates])
                    self.dh_error = np.array([e.standard_error for e in estimates])
            if options["per_frame"] or options["plot_file"]:
                self.frame_numbers, owner = np.unique(source.owner, return_inverse=True)
                self.frames = self.each_frame(owner, rng, common)
            if options["by"]:
                codes, self.group_names = source.groups()
                self.groups = [
                    group_matrix(x, h, groups=codes, labels=centres, progress=advance, **common)
                    for h in self.bandwidths
                ]
            if options["blocks"]:
                self.block_errors = self.jackknife(rng, common, advance)
                if exact or wants_dh:
                    counts = np.bincount(source.owner)
                    self.frame_series = np.bincount(source.owner, self.dh[0])[counts > 0] / counts[counts > 0]

    def each_frame(self, owner: np.ndarray, rng: np.random.Generator, common: dict[str, Any]) -> GroupMetrics:
        """Each frame alone: exactly, or with the estimator where frames are too large for that."""
        source, options = self.source, self.options
        sizes = np.bincount(owner)
        if is_exact(options["estimator"], int(sizes.max())):
            return group_metrics(source.x, self.bandwidths, owner, labels=source.centres, **common)
        found = []
        for frame in range(len(sizes)):
            rows = np.flatnonzero(owner == frame)
            kinds = None if source.centres is None else source.centres[rows]
            found.append(
                estimate_entropy(
                    source.x[rows], self.bandwidths, options["estimator"], options["tolerance"], labels=kinds,
                    random_state=rng, **common,
                )
            )  # fmt: skip
        values = np.array([estimate.value for estimate in found]).T
        return GroupMetrics(
            values, np.array([estimate.diversity for estimate in found]).T, values - np.log(sizes), sizes
        )

    def jackknife(self, rng: np.random.Generator, common: dict[str, Any], advance: Any) -> np.ndarray:
        """Error of H from leaving out one block of frames at a time."""
        source = self.source
        present, frames = np.unique(source.owner, return_inverse=True)  # a selection may leave some out
        n_frames = len(present)
        if n_frames < self.options["blocks"]:
            raise DataError(
                f"{', '.join(self.files)}: {n_frames} frames cannot be cut into {self.options['blocks']} blocks; "
                "give fewer --blocks"
            )
        blocks = time_blocks(n_frames, self.options["blocks"])[frames]
        error = block_error(
            source.x,
            self.bandwidths,
            blocks=blocks,
            labels=source.centres,
            random_state=rng,
            progress=advance,
            **common,
        )
        return np.asarray(error.standard_error)

    def predict(self) -> None:
        """Time and memory of the run, from counting its atoms and measuring a small part of the work."""
        from quests_zenn.cli._plan import forecast

        self.warm_up()
        click.echo(forecast(self.source, self.options, self._more_pairs))

    def _more_pairs(self, asked: int, exact: bool) -> float:
        """Work beside the sums of the whole, as pairs of a symmetric sum that takes as long."""
        options, every = self.options, 0.5 * asked * asked
        pairs = 0.0
        if options["estimator"] == "knn":
            pairs += 1.5 * every
        if options["by"]:
            pairs += 1.2 * every
        if options["blocks"]:
            pairs += 1.2 * every if asked <= ASKED else ASKED * asked
        if not exact and (options["output"] or options["plot_file"]):
            pairs += 2.0 * asked * DEFAULT_REFERENCES
        return pairs

    # ------------------------------------------------------------------ the telling

    @property
    def n(self) -> int:
        return len(self.source.x)

    def report(self) -> None:
        """Files first, then the table: a result that cannot be written is no result."""
        _options.Interrupts.raise_if_pending()
        options = self.options
        if options["output"]:
            errors = None if self.dh_error is None else self.dh_error[0]
            self.times.step(
                "writing", lambda: self.source.write_scored(self.dh[0], errors, self.bandwidths[0], SCOPE_RUN)
            )
        if options["plot_file"]:
            self.plot()
        scope = {"dH": SCOPE_RUN, "mean_dh": SCOPE_RUN, "frames.mean_dh": SCOPE_FRAME}
        if options["by"]:
            scope["groups.mean_dh"] = SCOPE_GROUP
        results = [self.result(b) for b in range(len(self.bandwidths))]
        found = results[0] if len(results) == 1 else {"results": results}
        asked = {"by": options["by"], "blocks": options["blocks"]}
        found = found | self.source.parameters() | asked | {"scope": scope}
        _tell.write_document("quests-entropy", self.files, options, found, self.times, self.backend.n_workers)
        if not options["quiet"]:
            self.print_table()
            self.print_warnings()

    def result(self, b: int) -> dict[str, Any]:
        """Everything that depends on the bandwidth."""
        value = float(self.found.value[b])
        found: dict[str, Any] = {
            "bandwidth": self.bandwidths[b],
            "bandwidth_source": self.sources[b],
            "entropy": value,
            "diversity": self.found.diversity[b],
            "max_entropy": math.log(self.n),
            "redundancy": math.log(self.n) - value,
            "mean_dh": value - math.log(self.n),
            "estimator": self.found.estimator,
            "standard_error": self.found.standard_error[b],
            "diversity_error": self.found.diversity_error[b],
            "block_error": None if self.block_errors is None else self.block_errors[b],
        }
        if self.found.estimator != "exact":
            found["tolerance"] = self.found.tolerance
            found["levels"] = {"environments": self.found.environments, "references": self.found.references}
        if self.options["per_frame"] and self.frames is not None:
            found["frames"] = [
                {
                    "index": int(number),
                    "label": self.source.labels[number],
                    "entropy": self.frames.entropy[b, i],
                    "mean_dh": self.frames.mean_dh[b, i],
                    "n_environments": int(self.frames.sizes[i]),
                    **self.source.properties[number],
                }
                for i, number in enumerate(self.frame_numbers)
            ]
        if self.groups:
            found["groups"] = group_document(self.groups[b], self.group_names)
        return found

    def print_table(self) -> None:
        limit, found = math.log(self.n), self.found
        rows = self.source.rows()
        if len(self.bandwidths) == 1:
            value = float(found.value[0])
            error = float(found.standard_error[0])
            rows += [
                ("bandwidth", f"{self.bandwidths[0]:.5g} 1/Å ({self.sources[0]})"),
                ("entropy H", _tell.with_error(value, error)),
                ("ln N", f"{limit:.4f} nats, the largest possible H"),
                ("redundancy", f"{limit - value:.4f} nats"),
                ("diversity D", _tell.with_error(float(found.diversity[0]), float(found.diversity_error[0]))),
            ]
            if self.block_errors is not None:
                rows.append(("block error", f"{self.block_errors[0]:.4f} nats, from {self.options['blocks']} blocks"))
        else:
            rows.append(("ln N", f"{limit:.4f} nats, the largest possible H"))
        if found.estimator != "exact":
            asked = " + ".join(
                f"{m:,} environments x {r:,}" for m, r in zip(found.environments, found.references, strict=True)
            )
            rows.append(("estimator", f"{found.estimator} ({asked} references; ± is one standard error)"))
        rows.append(self.times.row(self.backend.told))
        _tell.rows(rows)
        if len(self.bandwidths) > 1:
            errors = found.estimator != "exact"
            blocks = self.block_errors
            click.echo(
                f"\n{'h (1/Å)':>10}{'H':>10}" + (f"{'± H':>10}" if errors else "") + f"{'redundancy':>12}{'D':>10}"
                + ("" if blocks is None else f"{'block err.':>12}") + "  source"
            )  # fmt: skip
            for b, h in enumerate(self.bandwidths):
                value = found.value[b]
                click.echo(
                    f"{h:10.5g}{value:10.4f}" + (f"{found.standard_error[b]:10.4f}" if errors else "")
                    + f"{limit - value:12.4f}{found.diversity[b]:10.4f}"
                    + ("" if blocks is None else f"{blocks[b]:12.4f}") + f"  {self.sources[b]}"
                )  # fmt: skip
        if self.options["per_frame"]:
            self.print_frames()
        for group in self.groups:
            print_groups(group, self.options["by"], self.group_names)

    def print_frames(self) -> None:
        assert self.frames is not None
        extra = [name for name in ("time", "temperature", "energy") if any(name in p for p in self.source.properties)]
        units = {"time": "time (ps)", "temperature": "T (K)", "energy": "E (eV)"}
        for b, h in enumerate(self.bandwidths):
            click.echo(f"\nframes at h = {h:.5g} 1/Å (dH within the frame)")
            click.echo(
                f"{'frame':>8}{'envs':>9}{'H':>10}{'ln n':>10}{'mean dH':>10}"
                + "".join(f"{units[name]:>14}" for name in extra)
                + ("  file" if len(self.files) > 1 else "")
            )
            for i, number in enumerate(self.frame_numbers):
                cells = [self.source.properties[number].get(name) for name in extra]
                click.echo(
                    f"{number:8d}{self.frames.sizes[i]:9d}{self.frames.entropy[b, i]:10.4f}"
                    f"{math.log(self.frames.sizes[i]):10.4f}{self.frames.mean_dh[b, i]:10.4f}"
                    + "".join(f"{'-':>14}" if cell is None else f"{cell:14.4f}" for cell in cells)
                    + (f"  {stem(self.source.labels[number].rpartition(', frame ')[0])}" if len(self.files) > 1 else "")
                )

    def print_warnings(self) -> None:
        self.source.warn()
        if self.options["blocks"] and self.frame_series is not None:
            warn_of_blocks("", autocorrelation_time(self.frame_series), len(self.frame_series), self.options["blocks"])
        if self.frames is not None:
            limits = np.log(self.frames.sizes)
            for h, values in zip(self.bandwidths, self.frames.entropy, strict=True):
                saturated = int(np.count_nonzero(limits - values < 0.01 * limits))
                if saturated:
                    warn(
                        f"H of the frame is within 1% of ln n in {saturated} of {len(values)} frames at h = {h:.5g}: "
                        f"it cannot tell them apart; a wider --bandwidth (try {2 * h:.3g}) can"
                    )
            if self.frames.sizes.min() != self.frames.sizes.max():
                warn("frames differ in their number of atoms, and H grows with it: compare frames of one size only")
        limit = math.log(self.n)
        for h, value in zip(self.bandwidths, self.found.value, strict=True):
            if self.n < 2:
                warn("one environment has no entropy: H = 0 = ln 1")
            elif limit - value < 0.01 * limit:
                warn(
                    f"H is within 1% of ln N at h = {h:.5g}: no two environments resemble each other; "
                    f"more frames, or a wider --bandwidth (try {2 * h:.3g}), tell more"
                )
            elif value < 0.01 * limit:
                warn(
                    f"H is close to 0 at h = {h:.5g}: all environments look the same; "
                    f"unless they are equal, a narrower --bandwidth (try {h / 2:.3g}) tells more"
                )

    def plot(self) -> None:
        assert self.frames is not None
        properties = [self.source.properties[number] for number in self.frame_numbers]
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
        names = [self.source.labels[number].rpartition(", frame ")[0] for number in self.frame_numbers]
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


def warn_of_blocks(prefix: str, time: float, n_frames: int, blocks: int) -> None:
    """Say where an error from blocks of frames cannot be trusted."""
    length = n_frames / blocks
    if length < 2.0 * time:
        warn(
            f"{prefix}a block is {length:.0f} frames, not much longer than the autocorrelation time of {time:.1f}: the "
            "error is too small; a longer run or fewer --blocks tell it better"
        )
    elif n_frames < 50.0 * time:
        warn(
            f"{prefix}{n_frames} frames are only {n_frames / time:.0f} autocorrelation times: that time is a guess, "
            "too short if the run drifts, and the error may be too small"
        )


#: Groups up to which the tables between them are printed.
MOST_COLUMNS = 20


def group_document(found: GroupMatrix, names: list[str]) -> dict[str, Any]:
    """The parts of a set, for the JSON document."""
    return {
        "names": names,
        "sizes": found.sizes,
        "entropy": found.entropy,
        "diversity": found.diversity,
        "mean_dh": found.mean_dh,
        "overlap": found.overlap,
    }


def short_names(by: str, names: list[str]) -> list[str]:
    """Names for tables and figures: files without their folders, where that tells them apart."""
    if by == "frame":
        return [f"frame {name}" for name in names]
    if by != "file":
        return names
    short = [PurePath(name).name for name in names]
    return short if len(set(short)) == len(names) else names


def print_groups(found: GroupMatrix, by: str, names: list[str]) -> None:
    """A table of the parts of a set, and dH between them."""
    names = short_names(by, names)
    width = max(10, max(map(len, names)) + 2)
    click.echo(f"\neach {by} alone, at h = {found.h:.5g} 1/Å")
    click.echo(f"{by:<{width}}{'envs':>9}{'H':>10}{'ln n':>10}{'D':>10}")
    for name, n, h, d in zip(names, found.sizes, found.entropy, found.diversity, strict=True):
        click.echo(f"{name:<{width}}{n:9d}{h:10.4f}{math.log(n):10.4f}{d:10.4f}")
    if len(names) > MOST_COLUMNS:
        click.echo(f"\n(dH between {len(names)} groups: see --json, or --plot of quests-zenn overlap)")
    elif len(names) > 1:
        click.echo(f"\nmean dH of the environments of the row, given the {by} of the column (nats)")
        _tell.matrix(names, found.mean_dh, ".2f")
