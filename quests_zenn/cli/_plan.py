"""What a run will cost: a look at its input, a small part of its work measured, and the rest by the cost model.

Imported only when a command really predicts.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import click
import numpy as np

from quests_zenn._core.checks import DataError
from quests_zenn._core.rows import piece_rows
from quests_zenn.cli import _tell
from quests_zenn.cli._source import Source, check_outputs
from quests_zenn.cli._tell import warn
from quests_zenn.descriptors import describe
from quests_zenn.distributed import costs
from quests_zenn.distributed.costs import Limits, Machine, Plan, Work
from quests_zenn.entropy import delta_entropy, get_all_metrics, is_exact
from quests_zenn.entropy._levels import FIRST_PILOT, GROWTH, OVERHEAD, PILOT, Z95, allocate, reference_sizes
from quests_zenn.entropy._packing import block_count
from quests_zenn.entropy._plan import count_runs
from quests_zenn.entropy._squares import LEAST_PAIRS_ELSEWHERE
from quests_zenn.io.frames import Frame, split_index
from quests_zenn.io.outputs import versions, write_json

#: Environments of stores that are looked at.
SAMPLE = 8_192

#: Environments whose pairs are measured: for small sets, and for others, of which single precision is enough.
FEW, MANY = 4_096, 16_384

#: A pair that counts for both takes so much longer than one that counts for one: `estimate_entropy` assumes the same.
TWO_EXPONENTIALS = 1.2

#: Environments that are described for it, at least.
DESCRIBED = 4_096

#: Bytes of one atom in a text file of frames, about: where only some frames are read.
TEXT_BYTES = 80

#: Edge of the cell (Å) and width of the displacements (Å) of the copper that is measured where there are no files.
CUBE, DISPLACED, CELLS = 3.61, 0.15, 10


@dataclass(frozen=True)
class Seen:
    """What the input is like.

    Attributes
    ----------
    x : (m, d)
        Some of its environments.
    n_frames : int
    n_read, n : int
        Environments in all, and those that are asked about.
    kind : str
        Format of the files, as in `costs.Machine.reading`.
    input_bytes : float
        Of the files.
    reading : float
        Seconds for each of these bytes.
    describing : float
        Seconds of one thread for each environment; 0 for those of a store.
    told : str
        What was measured, in words.
    """

    x: np.ndarray
    n_frames: int
    n_read: int
    n: int
    kind: str
    input_bytes: float
    reading: float
    describing: float
    told: str

    def of_size(self, n: int) -> Seen:
        """The same kind of input with another number of environments."""
        grown = n / self.n
        return replace(self, n_read=round(self.n_read * grown), n=n, input_bytes=self.input_bytes * grown)


def look(source: Source, whole: bool = True) -> Seen:
    """Count the atoms of the files and describe some; without `whole`, only look at the first ones.

    Raises
    ------
    DataError
        If there are both frames and stores.
    """
    if source.stores:
        if len(source.stores) < len(source.files):
            raise DataError(
                f"{source.files[0]}: frames and stores together cannot be predicted; write all to one store first"
            )
        return _look_at_stores(source)
    if not source.files:
        return _described(source, [_made_up()], 0.0, "a made-up crystal of copper", "xyz", 0.0)
    # frames from all over the files, every second of which goes when there are too many
    kept: list[Frame] = []
    step, n, ended = 1, 0, True
    for number, frame in enumerate(source.stream()):
        if number % step == 0:
            kept.append(frame)
            n += len(frame)
        if not whole and n >= DESCRIBED:
            ended = False
            break
        if n > 2 * DESCRIBED and len(kept) > 1:
            kept, step = kept[::2], 2 * step
            n = sum(map(len, kept))
    seconds = source.seconds["reading"]
    size = float(sum(os.path.getsize(split_index(spec)[0]) for spec in source.files))
    if not ended:
        size = float(TEXT_BYTES * sum(source.lengths))
    if "auto" in source.requested:
        source.require_volumes()
    return _described(source, kept, seconds / size, ", ".join(source.files), _format(source.files[0]), size)


def _described(
    source: Source, frames: Sequence[Frame], reading: float, name: str, kind: str, size: float
) -> Seen:  # fmt: skip
    options = source.options

    def work() -> Any:
        return describe(
            frames, options["k"], options["cutoff"], options["species"], source.dtype, jobs=source.jobs
        )  # fmt: skip

    env = work()
    seconds = _shortest(work)
    lengths = source.lengths or [len(env)]
    n = sum(lengths)
    asked = n if source.select is None else sum(map(len, source.selection))
    if asked == 0:
        raise DataError(f"the selection {source.select!r} names no atom in any frame")
    told = f"measured here on {len(env):,} environments of {name}"
    return Seen(
        env.x, len(lengths), n, asked, kind, size, reading, seconds * source.jobs / len(env), told
    )  # fmt: skip


def _look_at_stores(source: Source) -> Seen:
    """A few stretches of each store, from all over it."""
    parts, seconds, read, n = [], 0.0, 0, 0
    for spec, store in source.stores.items():
        source.note_store(spec)
        n += len(store)
        stretch = min(len(store), SAMPLE // 8 // len(source.stores) + 1)
        for first in np.unique(np.linspace(0, len(store) - stretch, 8).astype(int)).tolist():
            parts.append(store.read(first, first + stretch))
        rows = min(len(store), store.chunk_rows)
        before = time.perf_counter()
        read += store.read(0, rows).nbytes
        seconds += time.perf_counter() - before
    if len({part.shape[1] for part in parts}) > 1:
        raise DataError("stores of other elements have other columns; write all frames to one store first")
    asked = sum(source.lengths) if source.select is None else sum(map(len, source.selection))
    if asked == 0:
        raise DataError(f"the selection {source.select!r} names no atom in any frame")
    x = np.concatenate(parts)
    told = f"measured here on {len(x):,} environments of {', '.join(source.files)}"
    return Seen(x, len(source.lengths), n, asked, "store", 0.0, seconds / read, 0.0, told)


def _format(spec: str) -> str:
    name = split_index(spec)[0]
    if name.endswith((".xyz", ".extxyz")):
        return "xyz"
    return "lammpstrj" if name.endswith((".lammpstrj", ".dump")) else "other"


def _made_up() -> Frame:
    """A thermal crystal of copper."""
    rng = np.random.default_rng(0)
    basis = np.array([[0.0, 0.0, 0.0], [0.5, 0.5, 0.0], [0.5, 0.0, 0.5], [0.0, 0.5, 0.5]])
    cells = np.stack(np.meshgrid(*[np.arange(CELLS)] * 3, indexing="ij"), axis=-1).reshape(-1, 1, 3)
    positions = CUBE * (cells + basis).reshape(-1, 3)
    positions += rng.normal(scale=DISPLACED, size=positions.shape)
    return Frame(positions, CUBE * CELLS * np.eye(3), np.ones(3, bool), np.full(len(positions), 29))


def _shortest(work: Callable[[], Any], times: int = 3) -> float:
    """Seconds of the fastest of a few runs: what others do at the same time is no part of the work."""
    found = []
    for _ in range(times):
        before = time.perf_counter()
        work()
        found.append(time.perf_counter() - before)
    return min(found)


def measure(seen: Seen, options: dict[str, Any], bandwidths: Sequence[float], jobs: int, machine: Machine) -> Machine:
    """The machine with the rates that can be measured here in a second or two."""
    rows = FEW if seen.n <= FEW else MANY
    part = np.resize(seen.x, (rows, seen.x.shape[1]))
    pair = _shortest(
        lambda: get_all_metrics(part, np.array(bandwidths), precision=options["precision"], jobs=jobs), 2
    )  # fmt: skip
    pair *= 2.0 * jobs / rows**2
    rates: dict[str, Any] = {"pair": pair, "cross": pair / TWO_EXPONENTIALS}
    if seen.describing:
        rates["describing"] = seen.describing
    if seen.reading:
        rates["reading"] = {seen.kind: seen.reading}
    return machine.measured(seen.told, **rates)


# --- how much there is to do ------------------------------------------------------------------------------------------


def spreads(x: np.ndarray, h: float, n: int) -> tuple[np.ndarray, float]:
    """Variances of ln p on each level of samples of n environments like x, and the mean of ln p.

    What two samples of references differ by comes from chance alone, and shrinks with their size.
    """
    sizes = reference_sizes(n)
    order = np.random.default_rng(0).permutation(len(x))
    m = max(1, len(x) // 2)
    y, references = x[order[m:][:1_000]], x[order[:m]]
    if len(y) < 2:
        return np.ones(len(sizes)), 1.0

    def log_p(size: int) -> np.ndarray:
        sums = np.exp(-np.asarray(delta_entropy(y, references[:size], h)))
        return np.asarray(np.log1p((n - 1) / size * sums))

    few = max(1, min(sizes[0], m // 8))
    finest = log_p(m)
    first_step = float(np.var(finest - log_p(few))) * few / sizes[0]
    variances = [float(np.var(finest)), *(first_step / GROWTH**level for level in range(len(sizes) - 1))]
    return np.array(variances), float(finest.mean())


def levels_of(
    n: int, tolerance: float, variances: np.ndarray, mean: float
) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """References of each level, the environments that are asked, and in how many turns: as `estimate_entropy` does."""
    sizes = reference_sizes(n)
    target = 0.98 * tolerance / Z95
    costs_ = [m + less + OVERHEAD for m, less in zip(sizes, [0, *sizes[:-1]], strict=True)]
    pilots = [min(n, PILOT if level else max(PILOT, min(n // 4, FIRST_PILOT))) for level in range(len(sizes))]
    wanted = allocate(variances, [float(cost) for cost in costs_], target**2, n).tolist()
    asked = [max(pilot, number) for pilot, number in zip(pilots, wanted, strict=True)]
    asked[0] = min(n, max(asked[0], math.ceil(3.0 / Z95 * max(1.0, mean) / (0.15 * target))))
    turns = [1 if number <= pilot else 2 for number, pilot in zip(asked, pilots, strict=True)]
    return tuple(sizes), tuple(asked), tuple(turns)


def runs_of(n: int) -> int:
    """Runs of a set of n environments; see `quests_zenn.entropy._plan.run_edges`."""
    return count_runs(n, block_count(n))


def work_of(
    seen: Seen, options: dict[str, Any], bandwidths: Sequence[float], store: bool = False, exact: bool | None = None
) -> Work:  # fmt: skip
    """Counts of the work. `exact` forces exact sums, or samples; None leaves it to the options."""
    n, width = seen.n, seen.x.shape[1]
    estimator = options["estimator"]
    work = Work(
        n, width, seen.x.itemsize, 8 if options["precision"] == "float64" else 4, len(bandwidths), seen.n_read,
        seen.input_bytes, seen.kind, store or seen.kind == "store", runs_of(n), piece=piece_rows(width),
        elsewhere=0.5 * n * n >= LEAST_PAIRS_ELSEWHERE,
    )  # fmt: skip
    if exact is None:
        exact = is_exact(estimator, n)
    if exact:
        return work
    found = [levels_of(n, options["tolerance"], *spreads(seen.x, h, n)) for h in bandwidths]
    sampled = replace(
        work, references=found[0][0], asked=tuple(np.max([asked for _, asked, _ in found], axis=0).tolist()),
        turns=tuple(np.max([turns for *_, turns in found], axis=0).tolist()),
    )  # fmt: skip
    # as estimate_entropy decides: with the cost of packing
    cost = sampled.pairs + OVERHEAD * sum(sampled.asked)
    return work if estimator == "auto" and cost > 0.6 * float(n) ** 2 else sampled


# --- quests-zenn plan -------------------------------------------------------------------------------------------------


class PlanRun:
    """Options, what was found, and how it is told."""

    def __init__(self, files: tuple[str, ...], options: dict[str, Any]) -> None:
        check_outputs(files, options)
        self.files, self.options = files, options
        self.source = Source(files, options)

    def compute(self) -> None:
        """Look, measure, predict."""
        source, options = self.source, self.options
        source.warm_up()
        number = options["environments"]
        self.seen = look(source, whole=number is None)
        if "auto" in source.requested and not self.files:
            raise DataError("--bandwidth auto needs frames, whose volume it is taken from; give a number")
        self.bandwidths, _ = source.bandwidths()
        self.machine = measure(self.seen, source.options, self.bandwidths, source.jobs, Machine())
        if number is not None:
            self.seen = self.seen.of_size(number)
        self.work = work_of(self.seen, source.options, self.bandwidths, options["store"])
        team = options["threads_per_worker"], source.jobs, options["memory"]
        self.plan: Plan = costs.predict(self.machine, self.work, options["workers"], *team)
        self.alone: Plan = costs.predict(self.machine, self.work, 0, *team)
        self.limits: Limits = costs.limits(self.machine, self.work, *team)
        self.rests_on = costs.rests_on(self.machine, options["workers"])

    def report(self) -> None:
        """The document, then the tables."""
        options = self.options
        if options["json_file"]:
            write_json(options["json_file"], self.document(), options["overwrite"])
        if options["quiet"]:
            return
        seen, work, plan = self.seen, self.work, self.plan
        told = "" if options["environments"] else f" in {seen.n_frames:,} {'frame' if seen.n_frames == 1 else 'frames'}"
        each, own = (f"{m} {'thread' if m == 1 else 'threads'}" for m in (plan.threads, plan.client_threads))
        rows = [
            ("environments", f"{work.n:,}{told}, of {work.width} numbers"),
            ("sums", self.sums()),
            (
                "workers",
                f"{plan.workers:,} of {each}; the command itself has {own}",
            ),
        ]
        _tell.rows(rows)
        click.echo(f"\n{'stage':22}{'time':>9}{'a worker':>11}{'the command':>13}{'disk':>9}{'moved':>9}")
        for stage in plan.stages:
            disk = stage.bytes_read + stage.bytes_written
            _line(stage.name, stage.seconds, stage.worker_memory, stage.client_memory, disk, stage.bytes_moved)
        disk = sum(stage.bytes_read + stage.bytes_written for stage in plan.stages)
        _line("in all", plan.seconds, plan.worker_memory, plan.client_memory, disk, plan.bytes_moved)
        click.echo("")
        _tell.rows(
            [
                ("alone", f"{_tell.duration(self.alone.seconds)}, without workers"),
                ("scaling", self.scaling()),
                *(("rests on" if number == 0 else "", line) for number, line in enumerate(self.rests_on)),
            ]
        )
        self.warn()

    def sums(self) -> str:
        """How they are done, and how many pairs that takes."""
        work = self.work
        if work.exact:
            return f"exact: {work.pairs:.2g} pairs"
        asked = " + ".join(f"{a:,} x {m:,}" for a, m in zip(work.asked, work.references, strict=True))
        return f"sampled: about {asked} references, {work.pairs:.2g} pairs"

    def scaling(self) -> str:
        """Where more workers stop to help, in one line."""
        found, plan = self.limits, self.plan
        if not any(stage.tasks for stage in plan.stages):
            return "nothing of this is worth sending to workers: one process does it all"
        best = f"best are {found.best:,} workers ({_tell.duration(found.seconds)})"
        if found.best == 1:
            best = f"best is 1 worker ({_tell.duration(found.seconds)})"
        if found.dominated_from is None:
            return f"workers share more than half of the time up to {costs.MOST_WORKERS:,}; {best}"
        where = "always" if found.dominated_from == 1 else f"from {found.dominated_from:,} workers on"
        line = f"{where}, half of the time or more is not shared, most by {found.dominated_by}"
        if found.communication_from is not None and found.communication_from > found.dominated_from:
            line += f" (from {found.communication_from:,} on, by communication)"
        return f"{line}; {best}"

    def warn(self) -> None:
        """What does not fit."""
        memory = self.options["memory"]
        for stage in self.plan.stages if memory else ():
            if stage.worker_memory > memory:
                need = _tell.size(stage.worker_memory)
                warn(f"{stage.name}: a worker needs {need}, more than --memory {_tell.size(memory)}")

    def document(self) -> dict[str, Any]:
        """All of it."""
        options, seen = self.options, self.seen
        names = ("k", "cutoff", "species", "estimator", "tolerance")
        return {
            "command": "quests-zenn plan",
            "inputs": list(self.files),
            "n_environments": self.work.n,
            "n_frames": None if options["environments"] else seen.n_frames,
            "bandwidths": list(self.bandwidths),
            **{name: self.source.options[name] for name in names},
            "precision": options["precision"],
            "memory": options["memory"],
            "work": {**asdict(self.work), "pairs": self.work.pairs},
            "machine": asdict(self.machine),
            "plan": self.plan.document(),
            "without_workers": self.alone.document(),
            "limits": asdict(self.limits),
            "rests_on": self.rests_on,
            "units": {"time": "s", "memory": "bytes"},
            "versions": versions(),
        }


def _line(name: str, seconds: float, worker: float, client: float, disk: float, moved: float) -> None:
    told = [_tell.size(amount) if amount else "-" for amount in (worker, client, disk, moved)]
    click.echo(f"{name:22}{_tell.duration(seconds):>9}{told[0]:>11}{told[1]:>13}{told[2]:>9}{told[3]:>9}")


# --- --dry-run of quests-entropy --------------------------------------------------------------------------------------


def forecast(source: Source, options: dict[str, Any], more: Callable[[int, bool], float]) -> str:
    """One line: time and memory of a run by this process alone.

    `more` gives further pairs for a number of environments, and whether all pairs are summed.
    """
    seen = look(source)
    bandwidths, _ = source.bandwidths()
    machine = measure(seen, source.options, bandwidths, source.jobs, Machine())
    work = work_of(seen, source.options, bandwidths, exact=True if options.get("by") else None)
    work = replace(work, more_pairs=more(work.n, work.exact))
    plan = costs.predict(machine, work, 0, client_threads=source.jobs)
    return (
        f"{seen.n_frames} frames, {seen.n_read} environments: about {_tell.duration(plan.seconds)} on {source.jobs} "
        f"threads, {_tell.size(plan.client_memory)} of memory"
    )
