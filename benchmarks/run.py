"""Our speed against the package ``quests``, in one process, interleaved; compile time is kept apart.

    make bench                                 # everything; writes benchmarks/results/peer.json and table.md
    python benchmarks/run.py --quick           # small sizes, to see that it runs

Every figure is the median of interleaved runs (ours, peer, ours, peer, ...) at equal numbers of threads. The peer is
shown twice where that matters: as its users run it, and at its best (BLAS threads set to one, batches of 500).
Peak memory and whole commands are measured in processes of their own.
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
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from quests_zenn._core.parallel import available_cores

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"

# the peer's own kernels warn about integer casts
warnings.filterwarnings("ignore")


def interleaved(contenders: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Median seconds of each contender; one untimed call of each comes first (it compiles)."""
    for run in contenders.values():
        run()
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(repeats):
        for name, run in contenders.items():
            time.sleep(0.05)  # threads of the one before may still be spinning
            before = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - before)
    return {name: statistics.median(values) for name, values in seconds.items()}


def thermal_copper(cells: int, seed: int = 0) -> Any:
    """fcc copper with thermal disorder, 4 cells^3 atoms."""
    from ase.build import bulk

    atoms = bulk("Cu", cubic=True) * (cells, cells, cells)
    atoms.rattle(0.1, seed=seed)
    return atoms


def data_file(name: str) -> Path | None:
    """A file of the shared data sets, or None where they are not at hand."""
    folder = os.environ.get("QUESTS_ZENN_DATA")
    path = Path(folder, name) if folder else None
    return path if path is not None and path.exists() else None


class Peer:
    """The package ``quests`` with its threads set."""

    def __init__(self, threads: int) -> None:
        import numba
        from threadpoolctl import threadpool_limits

        numba.set_num_threads(threads)
        self._limits = threadpool_limits

    def descriptors(self, frames: Sequence[Any]) -> np.ndarray:
        from quests.descriptor import get_descriptors

        return get_descriptors(list(frames))

    def entropy(self, x: np.ndarray, best: bool) -> float:
        from quests.entropy import entropy

        with self._limits(1 if best else None):
            return float(entropy(x, h=0.015, batch_size=500) if best else entropy(x, h=0.015))

    def delta_entropy(self, y: np.ndarray, x: np.ndarray) -> np.ndarray:
        from quests.entropy import delta_entropy

        with self._limits(1):
            return delta_entropy(y, x, h=0.015, batch_size=500)


def bench_descriptors(threads: Sequence[int], repeats: int, quick: bool) -> list[dict[str, Any]]:
    """Microseconds of wall time per environment, neighbour search included."""
    from ase.io import read

    from quests_zenn.descriptors import get_descriptors

    cases: dict[str, list[Any]] = {
        f"one copper crystal, {4 * cells**3:,} atoms": [thermal_copper(cells)]
        for cells in ([8] if quick else [8, 12, 20])
    }
    for name, title in (("acac_train_300K.xyz", "molecules of 15 atoms"), ("mlearn_Si_train.xyz", "silicon, 64 atoms")):
        if (path := data_file(name)) is not None:
            frames = read(path, index=":50" if quick else ":")
            cases[f"{len(frames)} frames: {title}"] = frames
    rows = []
    for title, frames in cases.items():
        n = sum(map(len, frames))
        for jobs in threads:
            peer = Peer(jobs)
            seconds = interleaved(
                {
                    "float32": lambda frames=frames, jobs=jobs: get_descriptors(frames, dtype="float32", jobs=jobs),
                    "float64": lambda frames=frames, jobs=jobs: get_descriptors(frames, jobs=jobs),
                    "quests": lambda frames=frames, peer=peer: peer.descriptors(frames),
                },
                repeats,
            )
            rows.append(
                {
                    "case": title,
                    "environments": n,
                    "threads": jobs,
                    **{f"us_{name}": 1e6 * value / n for name, value in seconds.items()},
                    **{f"ratio_{name}": seconds["quests"] / seconds[name] for name in ("float32", "float64")},
                }
            )
            print_row(rows[-1])
    return rows


def bench_entropy(threads: Sequence[int], repeats: int, quick: bool) -> list[dict[str, Any]]:
    """Billions of pairs per second: N^2 over wall time for entropies, n N for dH of one set against another."""
    from quests_zenn.descriptors import get_descriptors
    from quests_zenn.entropy import delta_entropy, entropy

    x = get_descriptors(thermal_copper(20))
    x = x[np.random.default_rng(0).permutation(len(x))]
    rows = []
    for n in [2000] if quick else [2000, 4000, 8000, 16000, 32000]:
        part = np.ascontiguousarray(x[:n])
        for jobs in threads:
            peer = Peer(jobs)
            contenders: dict[str, Callable[[], Any]] = {
                "default": lambda part=part, jobs=jobs: entropy(part, jobs=jobs),
                "float32": lambda part=part, jobs=jobs: entropy(part, precision="float32", jobs=jobs),
                "quests_best": lambda part=part, peer=peer: peer.entropy(part, best=True),
            }
            if n <= 16000:
                contenders["quests_default"] = lambda part=part, peer=peer: peer.entropy(part, best=False)
            seconds = interleaved(contenders, repeats if n < 32000 else min(repeats, 3))
            rows.append(row_of_pairs("entropy", n, n, jobs, seconds))
            print_row(rows[-1])
    n = 1000 if quick else 16000
    y, reference = np.ascontiguousarray(x[:n]), np.ascontiguousarray(x[n : 2 * n])
    for jobs in threads:
        peer = Peer(jobs)
        seconds = interleaved(
            {
                "default": lambda jobs=jobs: delta_entropy(y, reference, jobs=jobs),
                "float32": lambda jobs=jobs: delta_entropy(y, reference, precision="float32", jobs=jobs),
                "quests_best": lambda peer=peer: peer.delta_entropy(y, reference),
            },
            repeats,
        )
        rows.append(row_of_pairs("dH", len(y), len(reference), jobs, seconds))
        print_row(rows[-1])
    return rows


def row_of_pairs(task: str, n: int, m: int, jobs: int, seconds: dict[str, float]) -> dict[str, Any]:
    """One row of the table of kernel sums."""
    return {
        "task": task,
        "environments": n,
        "reference": m,
        "threads": jobs,
        **{f"gpairs_{name}": n * m / value / 1e9 for name, value in seconds.items()},
        **{f"ratio_{name}": seconds["quests_best"] / seconds[name] for name in ("default", "float32")},
    }


MILLION = """
import json, resource, sys, time
import numpy as np
from ase.build import bulk
from quests_zenn.descriptors import get_descriptors
cells, dtype, jobs = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
get_descriptors(bulk("Cu", cubic=True), dtype=dtype)
atoms = bulk("Cu", cubic=True) * (cells, cells, cells)
atoms.rattle(0.1, seed=0)
frame = (atoms.positions, atoms.cell.array, atoms.pbc, atoms.numbers)
before_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
before = time.perf_counter()
x = get_descriptors(frame, dtype=dtype, jobs=jobs)
seconds = time.perf_counter() - before
peak_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps({"atoms": len(atoms), "seconds": seconds,
    "peak_mb": peak_kb / 1024, "peak_before_mb": before_kb / 1024,
    "data_mb": (x.nbytes + atoms.positions.nbytes + atoms.numbers.nbytes) / 2**20}))
"""


def bench_million(threads: Sequence[int], quick: bool) -> list[dict[str, Any]]:
    """Descriptors of a million atoms in one frame: wall time and peak memory of the process."""
    rows = []
    for dtype in ("float32", "float64"):
        for jobs in threads:
            command = [sys.executable, "-c", MILLION, "20" if quick else "63", dtype, str(jobs)]
            row = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            rows.append({"dtype": dtype, "threads": jobs, **row})
            print_row(rows[-1])
    return rows


def bench_commands(repeats: int) -> list[dict[str, Any]]:
    """Whole commands, from the shell, with warm caches: wall time and peak memory."""
    path = data_file("mlearn_Si_train.xyz")
    if path is None:
        print("QUESTS_ZENN_DATA is not set: the commands are not compared")
        return []
    folder = Path(sys.executable).parent
    commands = {
        "quests-entropy": [str(folder / "quests-entropy"), str(path)],
        "quests entropy": [str(folder / "quests"), "entropy", str(path)],
    }
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    peak: dict[str, float] = dict.fromkeys(commands, 0.0)
    with tempfile.TemporaryDirectory() as scratch:
        for repeat in range(repeats + 1):
            for name, command in commands.items():
                before = time.perf_counter()
                with open(Path(scratch, "out"), "w") as out:
                    process = subprocess.Popen(command, stdout=out, stderr=out)
                    _, status, usage = os.wait4(process.pid, 0)
                if status != 0:
                    raise RuntimeError(f"{' '.join(command)} failed:\n{Path(scratch, 'out').read_text()}")
                if repeat > 0:
                    seconds[name].append(time.perf_counter() - before)
                peak[name] = max(peak[name], usage.ru_maxrss / 1024)
    rows = [
        {"command": f"{name} mlearn_Si_train.xyz", "seconds": statistics.median(seconds[name]), "peak_mb": peak[name]}
        for name in commands
    ]
    for row in rows:
        print_row(row)
    return rows


def print_row(row: dict[str, Any]) -> None:
    """One line on the terminal."""
    print(
        "  ".join(f"{key} {value:.4g}" if isinstance(value, float) else f"{value}" for key, value in row.items()),
        flush=True,
    )


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    from importlib.metadata import version

    model, wide = platform.processor() or platform.machine(), False
    if Path("/proc/cpuinfo").exists():
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                model = value.strip()
            wide |= key.strip() == "flags" and "avx512f" in value
    return {
        "processor": model,
        "cores": available_cores(),
        "avx512": wide,
        "versions": {name: version(name) for name in ("quests_zenn", "quests", "numba", "numpy")},
        "date": time.strftime("%Y-%m-%d"),
    }


def table(results: dict[str, Any]) -> str:
    """The results as Markdown."""
    where = results["machine"]
    lines = [
        f"Measured on {where['cores']} cores ({where['processor']}, "
        f"{'with' if where['avx512'] else 'without'} AVX-512), {where['date']}, against `quests` "
        f"{where['versions']['quests']}; medians of interleaved runs, compile time apart.",
        "",
        "**Descriptors**, neighbour search included, microseconds of wall time per environment:",
        "",
        "| frames | threads | ours, float32 | ours, float64 | `quests` | faster by (float32, float64) |",
        "|---|---|---|---|---|---|",
    ]
    for row in results["descriptors"]:
        lines.append(
            f"| {row['case']} | {row['threads']} | {row['us_float32']:.2f} | {row['us_float64']:.2f} "
            f"| {row['us_quests']:.1f} | {row['ratio_float32']:.1f}, {row['ratio_float64']:.1f} |"
        )
    lines += [
        "",
        "**Kernel sums**, exact, d = 63, billions of pairs per second (`quests` at its best: BLAS threads set to one, "
        "batches of 500; by default: batches of 20,000):",
        "",
        "| task | N | threads | ours, default | ours, float32 | `quests` at its best | `quests` by default "
        "| faster than its best by (default, float32) |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in results["sums"]:
        default = f"{row['gpairs_quests_default']:.3f}" if "gpairs_quests_default" in row else "not run"
        lines.append(
            f"| {row['task']} | {row['environments']:,} | {row['threads']} | {row['gpairs_default']:.2f} | "
            f"{row['gpairs_float32']:.2f} | {row['gpairs_quests_best']:.3f} | {default} | "
            f"{row['ratio_default']:.1f}, {row['ratio_float32']:.1f} |"
        )
    lines += [
        "",
        "**A million atoms** in one frame, descriptors only:",
        "",
        "| arithmetic | threads | seconds | peak memory of the process | before the call | input + output |",
        "|---|---|---|---|---|---|",
    ]
    for row in results["million"]:
        lines.append(
            f"| {row['dtype']} | {row['threads']} | {row['seconds']:.2f} | {row['peak_mb']:.0f} MiB "
            f"| {row['peak_before_mb']:.0f} MiB "
            f"| {row['data_mb']:.0f} MiB |"
        )
    if results["commands"]:
        lines += [
            "",
            "**Whole commands**, warm caches:",
            "",
            "| command | seconds | peak memory |",
            "|---|---|---|",
        ]
        lines += [
            f"| `{row['command']}` | {row['seconds']:.2f} | {row['peak_mb']:.0f} MiB |" for row in results["commands"]
        ]
    return "\n".join(lines) + "\n"


def update_readme(text: str) -> None:
    """Put the table between the markers in the README."""
    readme = HERE.parent / "README.md"
    content = readme.read_text(encoding="utf-8")
    start, end = "<!-- benchmarks: start -->\n", "<!-- benchmarks: end -->"
    head, tail = content.split(start)[0], content.split(end)[1]
    readme.write_text(f"{head}{start}{text}{end}{tail}", encoding="utf-8")


def main() -> None:
    """Run all benchmarks and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small sizes; nothing is written")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--only", choices=["commands", "million", "descriptors", "sums"], help="one part; the others stay as they were"
    )
    options = parser.parse_args()
    threads = [1, 2] if available_cores() > 1 else [1]
    repeats = 1 if options.quick else options.repeats
    # processes of their own first: a child's peak memory starts at that of this process when it was made
    parts: dict[str, Callable[[], Any]] = {
        "commands": lambda: bench_commands(repeats),
        "million": lambda: bench_million(threads, options.quick),
        "descriptors": lambda: bench_descriptors(threads, repeats, options.quick),
        "sums": lambda: bench_entropy(threads, repeats, options.quick),
    }
    results: dict[str, Any] = {}
    if options.only:
        results = json.loads((RESULTS / "peer.json").read_text(encoding="utf-8"))
    results["machine"] = machine()
    for name, measure in parts.items():
        if options.only in (None, name):
            results[name] = measure()
    if options.quick:
        print(table(results))
        return
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "peer.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    text = table(results)
    (RESULTS / "table.md").write_text(text, encoding="utf-8")
    update_readme(text)


if __name__ == "__main__":
    main()
