"""What a run costs on one machine and on many: time, memory and bytes of each stage, from rates and counts.

Rates are those of a `Machine`, counts those of some `Work`. With N environments of width d (b bytes each number), H
bandwidths, W workers of T threads, and C threads of the process that has the command (the client), `predict` takes

- *reading*: bytes of the files x rate of their format, by one thread of the client; larger files that can be cut
  (extended XYZ, LAMMPS dumps) are read by workers, ranges of some 65,000 atoms each.
- *descriptors*: N x seconds per environment / C, or by the workers that have read them; then bundles and bytes of rows
  are collected, as below.
- *writing*: N d b x seconds per byte of a store, if one is written.
- *preparing*: N (1 + log2 of the blocks, at most 1,024) x seconds of packing / C. The client packs.
- *sums*, exact: N^2 / 2 pairs. R runs of the set (about 16,384 rows each, more in very large sets) make R (R + 1) / 2
  squares, the tasks. Tasks are whole: some workers wait for others in the last turn, of which there are tasks / (W T),
  rounded up. Each worker fetches the share 1 - (1 - 2 / R)^s of the packed set for its s squares, over the network;
  the client sends each run once.
- *sums*, sampled: on each level, some environments are asked by the references of this level and of the one before.
  Sets of more than one piece are summed piece by piece: pieces are the tasks. Each time that a level asks, it reads and
  packs its references; workers read from the store, if there is one, and else the client sends the pieces.
  Smaller ones stay with the client.
- *collecting*: bundles of tasks x seconds for each, plus bytes of results x seconds per byte, plus W x seconds for each
  worker. A square returns 2 H numbers for each row of a run, a piece H numbers for each environment asked.

Stages follow each other, so their times add up; where computing hides sending, the truth is shorter, by a factor of two
at most. All rates are seconds, of one thread, so that `fit` is a linear problem with coefficients that are not
negative. Imports no Dask: a plan needs none.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from quests_zenn._core.checks import one_of, positive, whole_number
from quests_zenn.distributed.backend import BUNDLE, MOST_BYTES, MOST_TASKS
from quests_zenn.distributed.worker import KEPT, SHARE

#: Bytes that a process takes before it has any data: interpreter, kernels, compiler.
PROCESS_BYTES = 250_000_000

#: Blocks of a packed set, and rows of one, about.
MOST_BLOCKS, ROWS_OF_BLOCK = 1_024, 1_024

#: Workers up to which `limits` looks.
MOST_WORKERS = 1_000_000

#: Share of the time by which the best number of workers may miss the shortest.
NEARLY = 0.05

#: Formats that workers read by themselves, and atoms of a range of them.
CUT, RANGE = ("xyz", "lammpstrj"), 65_536

#: Stages of a plan, in their order.
READING, DESCRIPTORS, WRITING = "reading", "descriptors", "writing"
PREPARING, SUMS, COLLECTING = "preparing", "sums", "collecting"
STAGES = (READING, DESCRIPTORS, WRITING, PREPARING, SUMS, COLLECTING)

DEFAULT_READING = {"xyz": 3.0e-8, "lammpstrj": 2.0e-8, "other": 5.0e-8, "store": 1.0e-9}


@dataclass(frozen=True)
class Machine:
    """Rates of one thread, seconds.

    Attributes
    ----------
    reading : mapping
        For each byte of a file, by its format; ``store`` for environments in a store, ``other`` for what is not named.
    describing : float
        For each environment.
    writing : float
        For each byte of a store.
    packing : float
        For each environment, and each time that a set is halved on the way to its blocks.
    pair : float
        For each pair of environments of which both get their part, as in exact sums of a set.
    cross : float
        For each pair of which one does, as in samples.
    task : float
        Of the client and the scheduler, for each bundle of tasks.
    collecting : float
        Of the client, for each byte of results.
    network : float
        For each byte between two processes.
    worker : float
        For each worker, once.
    disk : float
        For each byte that all workers together read from one file system: however many they are, it is no faster.
    most_workers : int
        Of the runs that `task`, `collecting`, `network` and `worker` were measured on; 0 if there were none.
    basis : mapping
        What rates rest on, in words; those that are missing here are defaults.
    """

    reading: Mapping[str, float] = field(default_factory=lambda: dict(DEFAULT_READING))
    describing: float = 2.0e-6
    writing: float = 5.0e-9
    packing: float = 1.0e-7
    pair: float = 2.0e-9
    cross: float = 2.0e-9
    task: float = 5.0e-3
    collecting: float = 3.0e-9
    network: float = 1.0e-9
    worker: float = 0.01
    disk: float = 5.0e-10
    most_workers: int = 0
    basis: Mapping[str, str] = field(default_factory=dict)

    def measured(self, basis: str, **rates: Any) -> Machine:
        """The same machine with some rates that were measured, and what they rest on.

        Raises
        ------
        ValueError
            If a rate is unknown, or not positive and finite.
        """
        given: dict[str, Any] = {}
        for name, value in rates.items():
            one_of(name, "a rate", RATES)
            if name == "reading":
                given[name] = {**self.reading, **{kind: positive(rate, "reading") for kind, rate in value.items()}}
            else:
                given[name] = positive(value, name)
        return replace(self, **given, basis={**self.basis, **dict.fromkeys(rates, basis)})

    def reading_of(self, kind: str) -> float:
        """Seconds for each byte of a format."""
        return self.reading.get(kind, self.reading.get("other", DEFAULT_READING["other"]))


#: Names of rates.
RATES = (
    "reading", "describing", "writing", "packing", "pair", "cross", "task", "collecting", "network", "worker", "disk",
)  # fmt: skip

#: Rates that are about other processes.
ELSEWHERE = ("task", "collecting", "network", "worker", "disk")


@dataclass(frozen=True)
class Work:
    """What is to be done, in numbers.

    Attributes
    ----------
    n : int
        Environments that are summed.
    width : int
        Numbers of one environment.
    itemsize : int
        Bytes of a number of an environment.
    packed_itemsize : int
        The same in sums.
    n_bandwidths : int
    described : int or None
        Environments that are computed first, if more than `n`; 0 for those of a store.
    input_bytes : float
        Of the files of frames.
    kind : str
        Their format; ``store`` for environments.
    store : bool
        Whether environments lie in a store while they are summed, one that is written first where frames are given.
    runs : int
        Parts of the set that meet in squares, for exact sums.
    references, asked, turns : tuple of int
        For samples: references of each level, environments that they are asked for, in how many turns.
    piece : int
        Rows of a piece of a sample.
    elsewhere : bool
        Whether exact sums are worth sending to workers.
    more_pairs : float
        Further pairs, both ways, that the client sums itself.
    """

    n: int
    width: int
    itemsize: int = 8
    packed_itemsize: int = 8
    n_bandwidths: int = 1
    described: int | None = None
    input_bytes: float = 0.0
    kind: str = "xyz"
    store: bool = False
    runs: int = 1
    references: tuple[int, ...] = ()
    asked: tuple[int, ...] = ()
    turns: tuple[int, ...] = ()
    piece: int = 262_144
    elsewhere: bool = True
    more_pairs: float = 0.0

    def __post_init__(self) -> None:
        whole_number(self.n, "n", 1)
        whole_number(self.width, "width", 1)
        whole_number(self.runs, "runs", 1)
        whole_number(self.piece, "piece", 1)
        if not len(self.references) == len(self.asked) == len(self.turns):
            raise ValueError("references, asked and turns need one number for each level")

    @property
    def exact(self) -> bool:
        """Whether all pairs are summed."""
        return not self.references

    @property
    def in_store(self) -> bool:
        """Whether environments are never in memory as a whole."""
        return self.store and not self.exact

    @property
    def new(self) -> int:
        """Environments that are computed from frames."""
        if self.kind == "store":
            return 0
        return self.n if self.described is None else self.described

    @property
    def matrix_bytes(self) -> float:
        """Of all environments."""
        return float(max(self.n, self.new)) * self.width * self.itemsize

    @property
    def packed_bytes(self) -> float:
        """Of those that are summed, packed."""
        return float(self.n) * (self.width + 3) * self.packed_itemsize

    @property
    def pairs(self) -> float:
        """Pairs of the sums: each once if exact, else environments asked times references."""
        if self.exact:
            return 0.5 * float(self.n) * float(self.n)
        return float(sum(a * (m + less) for a, m, less in self.levels()))

    def levels(self) -> list[tuple[int, int, int]]:
        """Environments asked on each level, its references, and those of the level before."""
        return list(zip(self.asked, self.references, (0, *self.references[:-1]), strict=True))


@dataclass(frozen=True)
class Stage:
    """A part of a plan.

    Attributes
    ----------
    name : str
    seconds : float
    parallel : float
        Those of them that W workers share evenly, and that would be half as many for twice the workers.
    communication : float
        Those of them that are spent on sending and receiving.
    tasks : int
        Sent to workers.
    bytes_read, bytes_written, bytes_moved : float
        From and to disks; between processes.
    worker_memory, client_memory : float
        The most that one of the workers, and the client, takes; bytes.
    """

    name: str
    seconds: float
    parallel: float = 0.0
    communication: float = 0.0
    tasks: int = 0
    bytes_read: float = 0.0
    bytes_written: float = 0.0
    bytes_moved: float = 0.0
    worker_memory: float = 0.0
    client_memory: float = PROCESS_BYTES


@dataclass(frozen=True)
class Plan:
    """What `predict` says.

    Attributes
    ----------
    stages : tuple of Stage
    workers : int
        0 where all is done by one process.
    threads, client_threads : int
        Of each worker; of the client.
    """

    stages: tuple[Stage, ...]
    workers: int
    threads: int
    client_threads: int

    @property
    def seconds(self) -> float:
        """Of all stages."""
        return sum(stage.seconds for stage in self.stages)

    @property
    def parallel(self) -> float:
        """Seconds that workers share evenly."""
        return sum(stage.parallel for stage in self.stages)

    @property
    def communication(self) -> float:
        """Seconds spent on sending and receiving."""
        return sum(stage.communication for stage in self.stages)

    @property
    def serial(self) -> float:
        """Seconds that more workers do not make fewer."""
        return self.seconds - self.parallel - self.communication

    @property
    def worker_memory(self) -> float:
        """The most that one worker takes, bytes."""
        return max(stage.worker_memory for stage in self.stages)

    @property
    def client_memory(self) -> float:
        """The most that the client takes, bytes."""
        return max(stage.client_memory for stage in self.stages)

    @property
    def bytes_moved(self) -> float:
        """Between processes."""
        return sum(stage.bytes_moved for stage in self.stages)

    def document(self) -> dict[str, Any]:
        """All of it, for JSON."""
        names = (
            "seconds", "parallel", "communication", "serial", "bytes_moved", "worker_memory", "client_memory",
            "workers", "threads", "client_threads",
        )  # fmt: skip
        return {"stages": [asdict(stage) for stage in self.stages], **{name: getattr(self, name) for name in names}}


def predict(
    machine: Machine, work: Work, workers: int, threads: int = 1, client_threads: int = 1, memory: float | None = None
) -> Plan:
    """Time, memory and bytes of each stage.

    Parameters
    ----------
    machine : Machine
    work : Work
    workers : int
        Processes that do the sums; 0 if the client does them itself.
    threads, client_threads : int
        Of each worker; of the client.
    memory : float or None
        Bytes that each worker has: a part of it keeps pieces of a store.

    Raises
    ------
    ValueError
        If a number is not a whole number of at least 1, or of at least 0 for `workers`.
    """
    workers = whole_number(workers, "workers", 0)
    threads = whole_number(threads, "threads", 1)
    client_threads = whole_number(client_threads, "client_threads", 1)
    at_once = workers * threads
    held = PROCESS_BYTES + _held(work)
    stages = []
    if work.kind != "store":
        stages += _described(machine, work, at_once, workers, client_threads)
        if work.store:
            stages.append(Stage(WRITING, work.matrix_bytes * machine.writing, bytes_written=work.matrix_bytes))
    if work.store and work.exact:  # exact sums take the whole set into memory
        read_bytes = float(work.n) * work.width * work.itemsize
        loaded = Stage(READING, read_bytes * machine.reading_of("store"), bytes_read=read_bytes, client_memory=held)
        stages.append(loaded if work.kind == "store" else replace(loaded, name=f"{READING} the store"))
    stages += _exact(machine, work, at_once, workers, client_threads, held) if work.exact else _sampled(
        machine, work, at_once, workers, client_threads, held, memory
    )  # fmt: skip
    return Plan(tuple(stages), workers, threads, client_threads)


def _described(machine: Machine, work: Work, at_once: int, workers: int, client_threads: int) -> list[Stage]:
    """Reading and describing, by workers where they can cut the files."""
    read, described = work.input_bytes * machine.reading_of(work.kind), work.new * machine.describing
    whole = PROCESS_BYTES + (0.0 if work.store else work.matrix_bytes)
    if not at_once or work.kind not in CUT or work.new <= RANGE:
        return [
            Stage(READING, read, bytes_read=work.input_bytes),
            Stage(DESCRIPTORS, described / client_threads, client_memory=whole),
        ]
    tasks = max(1, -(-work.new // RANGE))
    reading, evenly = _turns(read, tasks, at_once)
    describing, even = _turns(described, tasks, at_once)
    bundles = n_bundles(tasks, read + described, work.matrix_bytes, at_once)
    returning = bundles * machine.task + work.matrix_bytes * machine.collecting
    of_one = PROCESS_BYTES + 2.0 * RANGE * work.width * work.itemsize
    return [
        Stage(READING, reading, evenly, tasks=tasks, bytes_read=work.input_bytes, worker_memory=of_one),
        Stage(
            DESCRIPTORS, describing + returning, even, returning, tasks, bytes_moved=work.matrix_bytes,
            worker_memory=of_one, client_memory=whole,
        ),
    ]  # fmt: skip


def _held(work: Work) -> float:
    """Bytes that the client holds while it sums."""
    if work.in_store:  # for each environment: its frame, element and flags, a random order for each level and one more
        return float(work.n) * (12 + (4 if work.n < 2**31 else 8) * (len(work.references) + 1))
    return work.matrix_bytes + 8.0 * work.n * (3 * work.n_bandwidths + 6)


def halvings(n: int) -> float:
    """Environments of a set times the times that it is halved on the way to its blocks, packing counted as one."""
    return n * (1.0 + math.log2(min(MOST_BLOCKS, max(1.0, n / ROWS_OF_BLOCK))))


def _exact(
    machine: Machine, work: Work, at_once: int, workers: int, client_threads: int, held: float
) -> list[Stage]:  # fmt: skip
    """Packing, squares, and what comes back."""
    held += work.packed_bytes
    more = work.more_pairs * machine.pair / client_threads
    preparing = Stage(PREPARING, machine.packing * halvings(work.n) / client_threads, client_memory=held)
    busy = work.pairs * machine.pair
    if not at_once or not work.elsewhere:
        alone = Stage(SUMS, busy / client_threads + more, client_memory=held, worker_memory=_idle(workers))
        return [preparing, alone]
    squares = work.runs * (work.runs + 1) // 2
    share = 1.0 - (1.0 - min(1.0, 2.0 / work.runs)) ** (squares / workers)
    moved = work.packed_bytes * (1.0 + workers * share)
    # the client sends each run once; then workers get it from each other, all of them at a time
    sending = machine.network * work.packed_bytes * (1.0 + share)
    computing, even = _turns(busy, squares, at_once)
    returned = 16.0 * work.n_bandwidths * float(work.n) * work.runs
    sums = Stage(
        SUMS, computing + sending + more, even, sending, squares, bytes_moved=moved, client_memory=held,
        worker_memory=PROCESS_BYTES + share * work.packed_bytes,
    )  # fmt: skip
    return [preparing, sums, _collecting(machine, squares, busy, returned, workers, at_once, held)]


def _sampled(
    machine: Machine, work: Work, at_once: int, workers: int, client_threads: int, held: float, memory: float | None
) -> list[Stage]:  # fmt: skip
    """Levels: those of more than a piece elsewhere, the others here."""
    packing = here = computing = even = sending = read = moved = returned = busy = 0.0
    tasks = 0
    most_asked, largest = max(work.asked), 0
    row_bytes = float(work.width) * work.itemsize
    n_bytes = work.n * row_bytes
    # each sample that is not the whole set is taken from all rows, one pass for each
    taken = n_bytes * (len(work.references) - 1) if work.in_store else 0.0
    for (asked, *sizes), turns in zip(work.levels(), work.turns, strict=True):
        if work.in_store:
            taken += n_bytes * turns  # the environments that are asked lie anywhere
        for size in filter(None, sizes):
            pieces = -(-size // work.piece)
            seconds = machine.cross * float(asked) * size
            if pieces == 1 or not at_once:
                here += seconds
                packing += size * machine.packing * (turns if pieces > 1 else 1)
                if pieces > 1 and work.in_store and size == work.n:
                    read += turns * n_bytes
                continue
            largest = max(largest, size)
            seconds += turns * size * machine.packing
            from_store = work.in_store and size == work.n
            passed = turns * size * row_bytes
            if from_store:
                read += passed
                seconds += passed * machine.reading_of("store")
            else:  # samples are in memory, and sent
                sending += machine.network * passed
                moved += passed
            queries = 8.0 * work.width * asked
            moved += queries * workers
            sending += machine.network * queries * math.ceil(math.log2(workers + 1))
            took, evenly = _turns(seconds, turns * pieces, at_once, largest_turn=pieces)
            if from_store:
                took = max(took, passed * machine.disk)
            computing, even, busy = computing + took, even + evenly, busy + seconds
            tasks += turns * pieces
            returned += 8.0 * work.n_bandwidths * asked * pieces
    if not at_once:
        taken, read = taken + read, 0.0
    more = work.more_pairs * machine.pair / client_threads
    preparing = Stage(
        PREPARING, packing + taken * machine.reading_of("store"), bytes_read=taken, client_memory=held,
    )  # fmt: skip
    piece_bytes = work.piece * (row_bytes + (work.width + 3) * work.packed_itemsize)
    in_memory = row_bytes * sum(work.references[:-1]) + piece_bytes + 8.0 * most_asked * (work.width + 4)
    held += in_memory + (0.0 if work.in_store else work.packed_bytes * (work.n <= work.piece))
    worker_memory = _idle(workers)
    if tasks:
        kept = min(SHARE * memory if memory else KEPT, largest * row_bytes)
        worker_memory += kept + piece_bytes * max(1, at_once // max(1, workers)) + 8.0 * most_asked * work.width
    sums = Stage(
        SUMS, here / client_threads + computing + sending + more, even, sending, tasks, bytes_read=read,
        bytes_moved=moved, client_memory=held, worker_memory=worker_memory,
    )  # fmt: skip
    if not tasks:
        return [preparing, sums]
    return [preparing, sums, _collecting(machine, tasks, busy, returned, workers, at_once, held)]


def _idle(workers: int) -> float:
    return float(PROCESS_BYTES) if workers else 0.0


def _turns(busy: float, tasks: int, at_once: int, largest_turn: int | None = None) -> tuple[float, float]:
    """Seconds that equal tasks take where so many run at a time, and those of them that are shared evenly.

    `largest_turn` tasks are there at a time, if not all of them.
    """
    there = tasks if largest_turn is None else largest_turn
    rounds = tasks / there * math.ceil(there / at_once)
    even = busy / at_once
    return max(even, busy / tasks * rounds), even


def n_bundles(tasks: int, busy: float, returned: float, at_once: int) -> float:
    """Bundles in which the backend sends tasks that take `busy` seconds and return so many bytes in all."""
    size = min(
        BUNDLE / max(busy / tasks, 1e-9), MOST_BYTES / max(1.0, returned / tasks), MOST_TASKS,
        math.ceil(tasks / (2 * at_once)),
    )  # fmt: skip
    return tasks / max(1.0, math.floor(size))


def _collecting(
    machine: Machine, tasks: int, busy: float, returned: float, workers: int, at_once: int, held: float
) -> Stage:  # fmt: skip
    bundles = n_bundles(tasks, busy, returned, at_once)
    seconds = bundles * machine.task + returned * machine.collecting + workers * machine.worker
    return Stage(COLLECTING, seconds, communication=seconds, bytes_moved=returned, client_memory=held)


# --- where it ends ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Limits:
    """Where more workers stop to help.

    Attributes
    ----------
    dominated_from : int or None
        Workers from which what they do not share takes half of the time or more; None if there is no such number.
    dominated_by : str
        The stage that takes most of it there; for sums, "sending data" or "waiting for the last tasks".
    communication_from : int or None
        The same for communication alone.
    best : int
        The fewest workers that come within 5 % of the shortest time.
    seconds : float
        With these.
    """

    dominated_from: int | None
    dominated_by: str
    communication_from: int | None
    best: int
    seconds: float


def limits(
    machine: Machine, work: Work, threads: int = 1, client_threads: int = 1, memory: float | None = None
) -> Limits:  # fmt: skip
    """Where communication or serial work takes half of the time, and the best number of workers."""

    def plan(workers: int) -> Plan:
        return predict(machine, work, workers, threads, client_threads, memory)

    grid = np.unique(np.rint(np.geomspace(1, MOST_WORKERS, 241)).astype(int)).tolist()
    plans = [plan(workers) for workers in grid]

    def first(share: Any) -> int | None:
        """The fewest workers from which on, to the end, at least half of the time goes to `share`."""
        over = [share(p) >= 0.5 * p.seconds for p in plans]
        if not over[-1]:
            return None
        place = len(over) - over[::-1].index(False) if False in over else 0
        low, high = (0 if place == 0 else grid[place - 1]), grid[place]
        while high - low > 1:
            middle = (low + high) // 2
            p = plan(middle)
            low, high = (low, middle) if share(p) >= 0.5 * p.seconds else (middle, high)
        return int(high)

    shortest = min(p.seconds for p in plans)
    best = next(p for p in plans if p.seconds <= (1.0 + NEARLY) * shortest)
    dominated = first(lambda p: p.seconds - p.parallel)
    communication = first(lambda p: p.communication)
    cause = "" if dominated is None else _largest(plan(dominated))
    return Limits(dominated, cause, communication, best.workers, best.seconds)


def _largest(plan: Plan) -> str:
    """What takes most of the time that workers do not share."""
    parts: dict[str, float] = {}
    for stage in plan.stages:
        if stage.name != SUMS:
            parts[stage.name] = stage.seconds - stage.parallel
        elif stage.tasks:
            parts["sending data"] = stage.communication
            parts["waiting for the last tasks"] = stage.seconds - stage.parallel - stage.communication
        else:
            parts["sums that one process does"] = stage.seconds
    return max(parts, key=lambda name: parts[name])


# --- rates from runs --------------------------------------------------------------------------------------------------


def fit(runs: Iterable[Mapping[str, Any]], start: Machine | None = None) -> Machine:
    """Rates from runs that were measured, each coefficient at least 0, by least squares of relative errors.

    Parameters
    ----------
    runs : iterable of mappings
        ``stage`` (of `STAGES`, or ``cross`` for samples), ``seconds``, and what the stage counts: ``n``, ``pairs``,
        ``bytes``, ``tasks`` (bundles), ``moved`` (bytes between processes, as one process sees them), ``format``.
        ``workers`` (0 for one process alone) and ``threads`` (of each, 1 if it is missing) shared the work.
    start : Machine or None
        Has the rates of which the runs say nothing; None for defaults.

    Raises
    ------
    ValueError
        If a run has an unknown stage, no time, or nothing to count.
    """
    start = Machine() if start is None else start
    rows = list(runs)
    equations = [_terms(run) for run in rows]
    names = sorted({name for terms in equations for name in terms})
    if not names:
        raise ValueError("there are no runs to fit")
    from scipy.optimize import nnls

    seconds = np.array([positive(run.get("seconds"), "the seconds of a run") for run in rows])
    matrix = np.array([[terms.get(name, 0.0) for name in names] for terms in equations]) / seconds[:, None]
    scale = np.linalg.norm(matrix, axis=0)
    found, _ = nnls(matrix / scale, np.ones(len(rows)))
    rates = dict(zip(names, (found / scale).tolist(), strict=True))
    most = max(int(run.get("workers", 0)) for run in rows)
    told = f"fitted to {len(rows)} measured runs"
    told += f" with up to {most} workers" if most else " of one process"
    reading = {name.partition(":")[2]: rates.pop(name) for name in names if name.startswith("reading:")}
    given: dict[str, Any] = dict(rates)
    if reading:
        given["reading"] = {**start.reading, **reading}
    basis = {**start.basis, **dict.fromkeys(given, told)}
    return replace(start, **given, basis=basis, most_workers=max(most, start.most_workers))


def _terms(run: Mapping[str, Any]) -> dict[str, float]:
    """What is multiplied by each rate to give the seconds of a run."""
    stage = run.get("stage")
    one_of(stage, "the stage of a run", (*STAGES, "cross"))
    workers, threads = int(run.get("workers", 0)), int(run.get("threads", 1))
    shared = max(1, workers) * threads

    def count(name: str, needed: bool = False) -> float:
        value = float(run.get(name, 0.0))
        if needed and not value > 0.0:
            raise ValueError(f"a run of the stage {stage!r} needs {name!r}, a number above 0")
        return value

    terms: dict[str, float] = {}
    if stage == READING:
        terms[f"reading:{run.get('format', 'other')}"] = count("bytes", True)
    elif stage == DESCRIPTORS:
        terms["describing"] = count("n", True) / shared
    elif stage == WRITING:
        terms["writing"] = count("bytes", True)
    elif stage == PREPARING:
        terms["packing"] = halvings(int(count("n", True)))
    else:
        if stage in (SUMS, "cross"):
            terms["pair" if stage == SUMS else "cross"] = count("pairs", True) / shared
        if workers:
            terms |= {"task": count("tasks"), "collecting": count("bytes"), "network": count("moved")}
            terms["worker"] = float(workers)
    return {name: value for name, value in terms.items() if value > 0.0}


def fit_exponent(n: npt.ArrayLike, seconds: npt.ArrayLike) -> tuple[float, float]:
    """The exponent a of ``seconds = c n^a``, and its standard error, from a line through the logarithms.

    Parameters
    ----------
    n, seconds : array_like, shape (m,)
        Sizes and times; at least two different sizes.

    Returns
    -------
    exponent, standard_error : float
        The error is NaN for two points, which any line meets.

    Raises
    ------
    ValueError
        If they are not positive, or too few.
    """
    sizes, times = np.asarray(n, dtype=float), np.asarray(seconds, dtype=float)
    if sizes.ndim != 1 or sizes.shape != times.shape:
        raise ValueError(f"n and seconds need one number for each run, got shapes {sizes.shape} and {times.shape}")
    if not (np.isfinite(sizes) & np.isfinite(times) & (sizes > 0) & (times > 0)).all():
        raise ValueError("n and seconds must be positive and finite")
    if len(np.unique(sizes)) < 2:
        raise ValueError("an exponent needs runs of at least two sizes")
    x, y = np.log(sizes), np.log(times)
    x = x - x.mean()
    spread = float(x @ x)
    slope = float(x @ y) / spread
    rest = y - y.mean() - slope * x
    left = len(x) - 2
    return slope, math.sqrt(float(rest @ rest) / left / spread) if left else math.nan


def rests_on(machine: Machine, workers: int, rates: Sequence[str] = RATES) -> list[str]:
    """What a prediction rests on, a sentence for each kind of basis; and what nobody has measured."""
    told: dict[str, list[str]] = {}
    for name in rates:
        if not workers and name in ELSEWHERE:
            continue
        told.setdefault(machine.basis.get(name, "typical of a desktop computer, not measured here"), []).append(name)
    lines = [f"{', '.join(names)}: {basis}" for basis, names in told.items()]
    if workers and not machine.most_workers:
        lines.append("nobody has measured what other processes cost: their part is a forecast")
    elif workers > machine.most_workers:
        most = machine.most_workers
        lines.append(f"costs of other processes were measured with at most {most}; {workers:,} is a forecast")
    return lines
