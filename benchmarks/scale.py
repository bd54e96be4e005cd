"""Past memory and past one process: ten million environments, scaling of threads and processes, and what a run costs.

    python benchmarks/scale.py                        # all parts; writes benchmarks/results/scale.json, scale.md and
                                                      # docs/figures/scale.png. Takes an hour, and 8 GB of disk
    python benchmarks/scale.py --part dask threads    # some parts; the others stay as they were
    python benchmarks/scale.py --quick                # small sizes, to see that it runs; nothing is written

Frames are generated: half of them copper crystals with thermal displacements, half liquid-like (random positions pushed
apart to 2.1 Å). Rivals run in turn, and the median counts; compile time is kept apart. Commands run in processes of
their own, whose peak memory the system tells.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from run import interleaved, print_row

from quests_zenn._core.jit import strict_kernel
from quests_zenn._core.parallel import Workers, available_cores
from quests_zenn.descriptors import describe, environments
from quests_zenn.entropy import _squares, estimate_entropy, get_all_metrics
from quests_zenn.entropy._packing import block_count
from quests_zenn.entropy._plan import count_runs
from quests_zenn.io.frames import Frame

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
FIGURE = HERE.parent / "docs" / "figures" / "scale.png"

#: Bandwidth of all sums, 1/Å: the thermal copper of these frames is resolved, and not every environment stands alone.
H = 0.03

#: Atoms of a frame.
ATOMS = 4_000

#: Environments of the sums that threads and processes share; the largest takes ten minutes.
DASK_SIZES = (50_000, 100_000, 200_000)

PARTS = ("pipeline", "threads", "dask", "serial", "exponents", "reading")


# --- frames -----------------------------------------------------------------------------------------------------------


def liquid_like(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions and box length: random points of the density of liquid copper, pushed apart to 2.1 Å."""
    from scipy.spatial import cKDTree

    rng = np.random.default_rng(seed)
    length = (ATOMS * 12.9) ** (1.0 / 3.0)
    positions = rng.random((ATOMS, 3)) * length
    for _ in range(300):
        pairs = cKDTree(positions % length, boxsize=length).query_pairs(2.1, output_type="ndarray")
        if len(pairs) == 0:
            break
        apart = positions[pairs[:, 0]] - positions[pairs[:, 1]]
        apart -= length * np.rint(apart / length)
        distance = np.linalg.norm(apart, axis=1)[:, None]
        push = 0.55 * (2.15 - distance) * apart / np.maximum(distance, 1e-3)
        np.add.at(positions, pairs[:, 0], 0.5 * push)
        np.add.at(positions, pairs[:, 1], -0.5 * push)
    return positions % length, np.full(3, length)


def frames_of(n: int, seed: int = 0) -> Iterator[Frame]:
    """Frames of `ATOMS` atoms, n atoms in all: crystals at 100 to 1,200 K by their displacements, and liquid-like."""
    from ase.build import bulk

    rng = np.random.default_rng(seed)
    crystal = bulk("Cu", a=3.65, cubic=True) * (10, 10, 10)
    liquids = [liquid_like(number) for number in range(8)]
    number_of_frames = max(2, n // ATOMS)
    numbers = np.full(ATOMS, 29)
    for number in range(number_of_frames):
        if number % 2:
            base, lengths = liquids[number // 2 % len(liquids)]
            spread = 0.15
        else:
            base, lengths = crystal.positions, crystal.cell.lengths()
            spread = 0.04 + 0.12 * number / number_of_frames
        positions = base + rng.normal(0.0, spread, base.shape)
        yield Frame(positions, np.diag(lengths), np.ones(3, bool), numbers, f"frame {number}")


def write_dump(path: Path, n: int) -> None:
    """The same as a dump of LAMMPS."""
    with open(path, "w") as stream:
        for number, frame in enumerate(frames_of(n)):
            stream.write(f"ITEM: TIMESTEP\n{number}\nITEM: NUMBER OF ATOMS\n{ATOMS}\nITEM: BOX BOUNDS pp pp pp\n")
            stream.writelines(f"0 {length:.8f}\n" for length in np.diag(frame.cell))
            stream.write("ITEM: ATOMS id type x y z\n")
            columns = np.column_stack([np.arange(1, ATOMS + 1), np.ones(ATOMS), frame.positions])
            np.savetxt(stream, columns, fmt="%d %d %.5f %.5f %.5f")


def write_xyz(path: Path, n: int) -> None:
    """The same as extended XYZ."""
    with open(path, "w") as stream:
        for frame in frames_of(n):
            lattice = " ".join(f"{value:.8f}" for value in frame.cell.ravel())
            stream.write(f'{ATOMS}\nLattice="{lattice}" Properties=species:S:1:pos:R:3 pbc="T T T"\n')
            np.savetxt(stream, frame.positions, fmt="Cu %.8f %.8f %.8f")


def environments_of(n: int, jobs: int | None = None) -> np.ndarray:
    """Their environments, float32."""
    return describe(frames_of(n), dtype="float32", jobs=jobs).x


# --- parts ------------------------------------------------------------------------------------------------------------


def part_reading(quick: bool) -> list[dict[str, Any]]:
    """Atoms read in a second, by one thread."""
    from ase.io import iread

    from quests_zenn.io.frames import read_frames

    n = 40_000 if quick else 400_000
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        for name, write in (("extended XYZ", write_xyz), ("LAMMPS dump", write_dump)):
            path = Path(scratch, "t.xyz" if write is write_xyz else "t.lammpstrj")
            write(path, n)
            readers: dict[str, Callable[[], Any]] = {
                "ours": lambda path=path: sum(len(frame) for frame in read_frames(path)),
                "ase": lambda path=path: sum(len(atoms) for atoms in iread(path)),
            }
            try:
                from chemfiles import Trajectory

                def chemfiles(path: Path = path) -> int:
                    with Trajectory(str(path)) as trajectory:
                        return sum(len(trajectory.read().positions) for _ in range(trajectory.nsteps))

                readers["chemfiles"] = chemfiles
            except ImportError:
                pass
            seconds = interleaved(readers, 1 if quick else 5)
            size = path.stat().st_size
            rows.append({"format": name, "atoms": n, "bytes": size, **{f"s_{k}": v for k, v in seconds.items()}})
            print_row(rows[-1])
    return rows


@strict_kernel
def arithmetic(n: int) -> float:
    """Eight chains of products and sums that never leave the registers: what the cores can do at best."""
    a, b, c, d, e, f, g, h = 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0
    for _ in range(n):
        a, b, c, d = a * 0.999 + 1e-3, b * 0.999 + 1e-3, c * 0.999 + 1e-3, d * 0.999 + 1e-3
        e, f, g, h = e * 0.999 + 1e-3, f * 0.999 + 1e-3, g * 0.999 + 1e-3, h * 0.999 + 1e-3
    return a + b + c + d + e + f + g + h


def part_threads(quick: bool) -> list[dict[str, Any]]:
    """One thread and two."""
    n = 40_000 if quick else 400_000
    repeats = 1 if quick else 7
    frames = list(frames_of(n))
    rows = []
    for dtype in ("float32", "float64"):
        seconds = interleaved(
            {str(jobs): lambda jobs=jobs, dtype=dtype: describe(frames, dtype=dtype, jobs=jobs) for jobs in (1, 2)},
            repeats,
        )
        rows.append({"task": f"descriptors, {dtype}", "n": n, "s_1": seconds["1"], "s_2": seconds["2"]})
        print_row(rows[-1])
    x = describe(frames, dtype="float32").x
    for m in [10_000] if quick else [50_000]:
        part = np.ascontiguousarray(x[:: len(x) // m][:m])
        for precision in ("float32",):
            seconds = interleaved(
                {
                    str(jobs): lambda part=part, jobs=jobs, precision=precision: get_all_metrics(
                        part, H, precision=precision, jobs=jobs
                    )
                    for jobs in (1, 2)
                },
                min(repeats, 5),
            )
            rows.append({"task": f"exact sums, {precision}", "n": m, "s_1": seconds["1"], "s_2": seconds["2"]})
            print_row(rows[-1])
    loops = 100_000 if quick else 4_000_000
    with Workers(1) as one, Workers(2) as two:
        seconds = interleaved(
            {
                name: lambda workers=workers: workers.run(lambda _: arithmetic(loops), range(100))
                for name, workers in (("1", one), ("2", two))
            },
            repeats,
        )
    rows.append({"task": "the machine: arithmetic in registers", "n": 100, "s_1": seconds["1"], "s_2": seconds["2"]})
    print_row(rows[-1])
    return rows


class Clock(Workers):
    """Threads that note how long they are busy, and how long all of them wait for one."""

    inside = busy = 0.0

    def run(self, work: Any, tasks: Any, done: Any = None) -> None:
        """Lists of one task count as time outside: nobody works beside it."""
        spent: list[float] = []

        def timed(task: Any) -> None:
            before = time.perf_counter()
            work(task)
            spent.append(time.perf_counter() - before)

        before = time.perf_counter()
        super().run(timed, tasks, done)
        if len(tasks) > 1:
            Clock.inside += time.perf_counter() - before
            Clock.busy += sum(spent)


def part_serial(quick: bool) -> list[dict[str, Any]]:
    """Time outside parallel regions, as a share of all work, measured in a run on two threads."""
    rows = []
    n = 40_000 if quick else 1_000_000

    def clocked(task: str, n: int, work: Callable[[], Any]) -> None:
        Clock.inside = Clock.busy = 0.0
        before = time.perf_counter()
        work()
        seconds = time.perf_counter() - before
        outside = seconds - Clock.inside
        share = outside / (outside + Clock.busy)
        rows.append({"task": task, "n": n, "seconds": seconds, "outside": outside, "busy": Clock.busy, "share": share})
        print_row(rows[-1])

    frames = list(frames_of(n))
    described, environments.Workers = environments.Workers, Clock  # type: ignore[misc]
    try:
        for dtype in ("float32", "float64"):
            describe(frames[:2], dtype=dtype, jobs=2)
            clocked(f"descriptors, {dtype}", n, lambda dtype=dtype: describe(frames, dtype=dtype, jobs=2))
    finally:
        environments.Workers = described  # type: ignore[misc]
    x = describe(frames, dtype="float32").x
    whole, taken, counted = _squares.plan_squares, 2 if quick else 3, list[int]()

    def some_rounds(packed: Any) -> Any:
        """The first rounds of the plan, which are alike: all of them take hours at a million environments."""
        rounds = list(whole(packed))
        counted.append(len(rounds))
        return rounds[:taken]

    with Clock(2) as workers:
        get_all_metrics(x[:5000], H, precision="float32", workers=workers)
        Clock.inside = Clock.busy = 0.0
        _squares.plan_squares = some_rounds
        sweep, clock = _squares.run_tiles, {"inside": 0.0, "busy": 0.0}

        def timed_sweep(*args: Any, **kwargs: Any) -> None:
            before = Clock.inside, Clock.busy
            sweep(*args, **kwargs)
            clock["inside"] += Clock.inside - before[0]
            clock["busy"] += Clock.busy - before[1]

        _squares.run_tiles = timed_sweep
        try:
            before = time.perf_counter()
            get_all_metrics(x, H, precision="float32", workers=workers)
            seconds = time.perf_counter() - before
        finally:
            _squares.plan_squares, _squares.run_tiles = whole, sweep
    n_rounds = counted[-1]
    # the first round holds the runs with themselves, half as many pairs as the others
    factor = (n_rounds - 0.5) / (taken - 0.5)
    outside = seconds - Clock.inside
    busy = Clock.busy + (factor - 1.0) * clock["busy"]
    rows.append(
        {
            "task": f"exact sums, float32 ({taken} of {n_rounds} rounds, scaled)",
            "n": n,
            "seconds": seconds + (factor - 1.0) * clock["inside"],
            "outside": outside,
            "busy": busy,
            "share": outside / (outside + busy),
        }
    )
    print_row(rows[-1])
    return rows


def part_dask(quick: bool) -> list[dict[str, Any]]:
    """Threads against processes of one thread, one and two of each, exact sums; and that the bits are the same."""
    from quests_zenn.distributed import local_cluster

    rows = []
    x = environments_of(20_000 if quick else max(DASK_SIZES))
    with (
        local_cluster(1) as one,
        local_cluster(2) as two,
        Workers(1) as thread,
        Workers(2) as threads,
        Workers(1, remote=one) as process,
        Workers(1, remote=two) as processes,
    ):
        contenders = {"threads_1": thread, "dask_1": process, "threads_2": threads, "dask_2": processes}
        for m in [20_000] if quick else DASK_SIZES:
            part = np.ascontiguousarray(x[:: len(x) // m][:m])
            found: dict[str, np.ndarray] = {}

            def run(name: str, part: np.ndarray = part, found: Any = found) -> None:
                found[name] = get_all_metrics(part, H, precision="float32", workers=contenders[name])[2]

            calls = {name: lambda name=name: run(name) for name in contenders}
            seconds = interleaved(calls, 1 if quick else (5 if m < 100_000 else 3))
            same = all(np.array_equal(found["threads_2"], dh) for dh in found.values())
            rows.append({"n": m, **{f"s_{name}": value for name, value in seconds.items()}, "same_bits": same})
            print_row(rows[-1])
    return rows


def part_exponents(quick: bool) -> list[dict[str, Any]]:
    """Seconds against the number of environments, two threads."""
    rows = []

    def add(task: str, n: int, work: Callable[[], Any], repeats: int) -> None:
        seconds = []
        for _ in range(repeats):
            before = time.perf_counter()
            work()
            seconds.append(time.perf_counter() - before)
        rows.append({"task": task, "n": n, "seconds": statistics.median(seconds)})
        print_row(rows[-1])

    largest = 40_000 if quick else 800_000
    frames = list(frames_of(largest))
    get_all_metrics(describe(frames[:2], dtype="float32").x, H, precision="float32")  # compiles
    for n in [20_000, 40_000] if quick else [100_000, 200_000, 400_000, 800_000]:
        some = frames[:: len(frames) // (n // ATOMS)]
        add("descriptors", n, lambda some=some: describe(some, dtype="float32"), 3)
    x = describe(frames, dtype="float32").x
    del frames
    rng = np.random.default_rng(0)
    x = x[rng.permutation(len(x))]
    for n in [5_000, 10_000] if quick else [12_500, 25_000, 50_000, 100_000]:
        add("exact sums", n, lambda n=n: get_all_metrics(x[:n], H, precision="float32"), 3)
    for n in [20_000, 40_000] if quick else [100_000, 200_000, 400_000, 800_000]:
        add("estimates", n, lambda n=n: estimate_entropy(x[:n], H, "sampled", random_state=1), 3)
    return rows


def part_pipeline(quick: bool) -> dict[str, Any]:
    """Ten million environments from a file of frames to an entropy, in commands of their own."""
    n = 40_000 if quick else 10_000_000
    folder = Path(sys.executable).parent
    found: dict[str, Any] = {"n": n, "stages": []}
    with tempfile.TemporaryDirectory() as scratch:
        dump, store, told = Path(scratch, "huge.lammpstrj"), Path(scratch, "store.zarr"), Path(scratch, "told.json")
        before = time.perf_counter()
        write_dump(dump, n)
        found["input_bytes"] = dump.stat().st_size
        print(f"made {dump.name} in {time.perf_counter() - before:.0f} s", flush=True)
        commands = {
            "descriptors": [
                str(folder / "quests-zenn"), "descriptors", str(dump), "-o", str(store), "--type-map", "1=Cu",
                "--precision", "float32", "--memory", "1.5GB",
            ],
            "entropy": [
                str(folder / "quests-entropy"), str(store), "--bandwidth", str(H), "--estimator", "sampled",
                "--tolerance", "0.01", "--json", str(told),
            ],
        }  # fmt: skip
        for name, command in commands.items():
            before = time.perf_counter()
            with open(Path(scratch, "out"), "w") as out:
                process = subprocess.Popen(command, stdout=out, stderr=out)
                _, status, usage = os.wait4(process.pid, 0)
            seconds = time.perf_counter() - before
            said = Path(scratch, "out").read_text()
            if status != 0:
                raise RuntimeError(f"{' '.join(command)} failed:\n{said}")
            stages = next(line for line in said.splitlines() if line.startswith("time"))
            row = {
                "command": name, "seconds": seconds, "peak_mb": usage.ru_maxrss / 1024, "said": stages.split("(")[1],
                "cpu_seconds": usage.ru_utime + usage.ru_stime,
            }  # fmt: skip
            found["stages"].append(row)
            print(said, flush=True)
            print_row(row)
        document = json.loads(told.read_text())
        for key in ("entropy", "standard_error", "max_entropy", "diversity", "levels", "n_environments"):
            found[key] = document[key]
        found["store_bytes"] = sum(path.stat().st_size for path in store.rglob("*") if path.is_file())
    return found


# --- the telling ------------------------------------------------------------------------------------------------------


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    model = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), model)
    return {
        "processor": model,
        "cores": available_cores(),
        "versions": {name: version(name) for name in ("quests_zenn", "numpy", "numba", "dask", "zarr")},
        "date": time.strftime("%Y-%m-%d"),
    }


def with_units(seconds: float) -> str:
    """``12 s``, ``3.4 min``, ``2.1 h``, ``5.0 d``."""
    for unit, size in (("d", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.2g} s"


def fitted(rows: list[dict[str, Any]], sizes: list[int]) -> Any:
    """A machine whose rate of pairs is fitted to the exact sums of some sizes, on threads and on processes."""
    from quests_zenn.distributed import costs

    runs = []
    for row in rows:
        if row["n"] not in sizes:
            continue
        for name in ("threads_1", "threads_2", "dask_1", "dask_2"):
            if f"s_{name}" not in row:
                continue
            kind, count = name.split("_")
            work = work_of(row["n"])
            plan = costs.predict(costs.Machine(), work, int(count) if kind == "dask" else 0, 1, int(count))
            runs.append(
                {
                    "stage": costs.SUMS,
                    "seconds": row[f"s_{name}"],
                    "pairs": work.pairs,
                    "workers": int(count) if kind == "dask" else 0,
                    "threads": 1 if kind == "dask" else int(count),
                    "tasks": sum(stage.tasks for stage in plan.stages if stage.name == costs.SUMS),
                }
            )
    # what processes cost beyond that is within the noise of these runs: those rates stay as they are by default
    return costs.Machine().measured(f"fitted to {len(runs)} runs", pair=costs.fit(runs).pair)


def work_of(n: int) -> Any:
    """Exact sums of n environments, in single precision."""
    from quests_zenn.distributed import costs

    runs = count_runs(n, block_count(n))
    return costs.Work(n, 63, 4, 4, kind="store", store=False, runs=runs)


def markdown(results: dict[str, Any]) -> str:
    """The results as Markdown."""
    from quests_zenn.distributed import costs

    where = results["machine"]
    lines = [
        f"Measured on {where['cores']} cores ({where['processor']}), {where['date']}, Dask {where['versions']['dask']},"
        f" Zarr {where['versions']['zarr']}; medians of interleaved runs, compile time apart; h = {H}.",
    ]
    if "pipeline" in results:
        found = results["pipeline"]
        total = sum(row["seconds"] for row in found["stages"])
        lines += [
            "",
            f"**{found['n']:,} environments end to end**: a dump of {found['input_bytes'] / 1e6:.0f} MB to a store of "
            f"{found['store_bytes'] / 1e9:.2f} GB to H = {found['entropy']:.4f} ± {found['standard_error']:.4f} nats "
            f"(ln N = {found['max_entropy']:.4f}), {total / 60:.1f} min in all:",
            "",
            "| command | seconds | peak memory | stages |",
            "|---|---|---|---|",
        ]
        for row in found["stages"]:
            said = row["said"].strip().removesuffix(")")
            lines.append(f"| `{row['command']}` | {row['seconds']:.0f} | {row['peak_mb']:.0f} MiB | {said} |")
    if "dask" in results:
        lines += [
            "",
            "**Processes against threads**: exact sums, single precision, seconds. Share: speed of two processes of "
            "one thread, as a share of that of two threads.",
            "",
            "| N | 1 thread | 2 threads | 1 process | 2 processes | share | same bits |",
            "|---|---|---|---|---|---|---|",
        ]
        for row in results["dask"]:
            cells = [
                f"{row[f's_{name}']:.2f}" if f"s_{name}" in row else "not run"
                for name in ("threads_1", "threads_2", "dask_1", "dask_2")
            ]
            lines.append(
                f"| {row['n']:,} | {' | '.join(cells)} | {row['s_threads_2'] / row['s_dask_2']:.0%} | "
                f"{'yes' if row['same_bits'] else 'NO'} |"
            )
    if "threads" in results:
        lines += [
            "",
            "**One thread and two**, seconds:",
            "",
            "| task | N | 1 thread | 2 threads | faster by |",
            "|---|---|---|---|---|",
        ]
        for row in results["threads"]:
            lines.append(
                f"| {row['task']} | {row['n']:,} | {row['s_1']:.2f} | {row['s_2']:.2f} | "
                f"{row['s_1'] / row['s_2']:.2f} |"
            )
    if "serial" in results:
        lines += [
            "",
            "**Outside parallel regions**, measured in runs on two threads. Share: of all work; what 64 cores would "
            "keep follows from it alone.",
            "",
            "| task | N | seconds | outside | share | 64 cores keep |",
            "|---|---|---|---|---|---|",
        ]
        for row in results["serial"]:
            kept = 1.0 / (1.0 + 63.0 * row["share"])
            lines.append(
                f"| {row['task']} | {row['n']:,} | {row['seconds']:.1f} | {row['outside']:.3f} | {row['share']:.2%} | "
                f"{kept:.0%} |"
            )
    if "exponents" in results:
        lines += [
            "",
            "**How cost grows**: seconds = c N^a, two threads.",
            "",
            "| task | N | seconds | a |",
            "|---|---|---|---|",
        ]
        for task in dict.fromkeys(row["task"] for row in results["exponents"]):
            rows = [row for row in results["exponents"] if row["task"] == task]
            slope, error = costs.fit_exponent([row["n"] for row in rows], [row["seconds"] for row in rows])
            sizes = " to ".join(f"{rows[i]['n']:,}" for i in (0, -1))
            seconds = ", ".join(f"{row['seconds']:.3g}" for row in rows)
            lines.append(f"| {task} | {sizes} | {seconds} | {slope:.2f} ± {error:.2f} |")
    if "reading" in results:
        lines += [
            "",
            "**Reading**, thousands of atoms in a second, one thread:",
            "",
            "| format | ours | ASE | chemfiles |",
            "|---|---|---|---|",
        ]
        for row in results["reading"]:
            rates = [
                f"{row['atoms'] / row[f's_{name}'] / 1e3:.0f}" if f"s_{name}" in row else "not installed"
                for name in ("ours", "ase", "chemfiles")
            ]
            lines.append(f"| {row['format']} | {' | '.join(rates)} |")
    if "dask" in results:
        lines += ["", *forecast(results["dask"])]
    return "\n".join(lines) + "\n"


def forecast(rows: list[dict[str, Any]]) -> list[str]:
    """Predicted against measured, for sizes that the fit has not seen; and what nobody has run."""
    from quests_zenn.distributed import costs

    sizes = [row["n"] for row in rows]
    machine_, last = fitted(rows, sizes[:-1] or sizes), rows[-1]
    lines = [
        f"**The cost model**, fitted to the sums of up to {(sizes[:-1] or sizes)[-1]:,} environments above, against "
        f"the largest, N = {last['n']:,}, which it has not seen:",
        "",
        "| | measured | predicted |",
        "|---|---|---|",
    ]
    for name in ("threads_1", "threads_2", "dask_1", "dask_2"):
        if f"s_{name}" not in last:
            continue
        kind, count = name.split("_")
        plan = costs.predict(machine_, work_of(last["n"]), int(count) if kind == "dask" else 0, 1, int(count))
        what = "process" if kind == "dask" else "thread"
        told = f"{count} {what}{'es' if count == '2' and kind == 'dask' else 's' if count == '2' else ''}"
        lines.append(f"| {told} | {last[f's_{name}']:.2f} s | {plan.seconds:.2f} s |")
    machine_ = fitted(rows, sizes)
    lines += [
        "",
        "**Forecast** of exact sums, from all of these sizes. Nobody has run more than two processes, and what they "
        f"cost beside the sums was within the noise: {1e3 * machine_.task:g} ms for each bundle of tasks, "
        f"{1e9 * machine_.collecting:g} ns for each byte that the client collects, {1e9 * machine_.network:g} ns "
        f"for each byte between processes and {1e3 * machine_.worker:g} ms for each worker are assumptions.",
        "",
        "| N | 1 core | 64 cores | 1,000 cores | efficiency at 1,000 | communication dominates from |",
        "|---|---|---|---|---|---|",
    ]
    for exponent in range(5, 10):
        n = 10**exponent
        alone = costs.predict(machine_, work_of(n), 0).seconds
        few, many = (costs.predict(machine_, work_of(n), workers).seconds for workers in (64, 1000))
        dominates = costs.limits(machine_, work_of(n)).communication_from
        told = "more than a million" if dominates is None else f"{dominates:,} cores"
        lines.append(
            f"| 10^{exponent} | {with_units(alone)} | {with_units(few)} | {with_units(many)} | "
            f"{alone / many / 1000:.0%} | {told} |"
        )
    return lines


def draw(results: dict[str, Any]) -> None:
    """Cost against size, and time against cores."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from quests_zenn.distributed import costs

    figure, (left, right) = plt.subplots(1, 2, figsize=(9.0, 3.6), layout="constrained")
    for task in dict.fromkeys(row["task"] for row in results["exponents"]):
        rows = [row for row in results["exponents"] if row["task"] == task]
        left.loglog([row["n"] for row in rows], [row["seconds"] for row in rows], "o-", label=task)
    left.set(xlabel="environments N", ylabel="seconds, two threads")
    left.xaxis.set_minor_formatter("")  # they would cover each other
    left.legend(frameon=False)
    machine_ = fitted(results["dask"], [row["n"] for row in results["dask"]])
    cores = np.unique(np.geomspace(1, 4096, 40).astype(int))
    for exponent in (6, 7, 8, 9):
        seconds = [costs.predict(machine_, work_of(10**exponent), int(count)).seconds for count in cores]
        right.loglog(cores, seconds, label=f"N = $10^{exponent}$")
    right.set(xlabel="processes", ylabel="seconds, exact sums, forecast")
    right.legend(frameon=False)
    FIGURE.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(FIGURE, dpi=150)
    plt.close(figure)


def main() -> None:
    """Run the parts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--quick", action="store_true", help="small sizes; nothing is written")
    arguments = parser.parse_args()
    store = RESULTS / "scale.json"
    results: dict[str, Any] = {}
    if store.exists() and not arguments.quick:
        results = json.loads(store.read_text(encoding="utf-8"))
    for part in arguments.part:
        print(f"--- {part}", flush=True)
        results[part] = globals()[f"part_{part}"](arguments.quick)
        results["machine"] = machine()
        if not arguments.quick:
            RESULTS.mkdir(exist_ok=True)
            store.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    text = markdown(results)
    print(text)
    if not arguments.quick:
        (RESULTS / "scale.md").write_text(text, encoding="utf-8")
        if {"exponents", "dask"} <= results.keys():
            draw(results)


if __name__ == "__main__":
    main()
