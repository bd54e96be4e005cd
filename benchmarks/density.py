"""Entropies and dH: time against error, ours and other ways to the same numbers.

    python benchmarks/density.py                     # all parts; writes benchmarks/results/density.json and density.md,
                                                     # and docs/figures/density.png
    python benchmarks/density.py --only sizes curve  # some parts; the others stay as they were
    python benchmarks/density.py --quick             # small sizes, to see that it runs; nothing is written

Rivals run in turn (one after the other, round after round), with equal numbers of threads, and the median counts. What
they need to compile is kept apart. Peak memory, first calls and whole commands are measured in processes of their own.
Data sets are found through the environment variable QUESTS_ZENN_DATA.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import importlib.util
import json
import math
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from run import data_file, print_row
from sets import environments, thermal_crystal

from quests_zenn._core.parallel import Workers, available_cores
from quests_zenn.entropy import (
    DEFAULT_BANDWIDTH,
    approx_delta_entropy,
    delta_entropy,
    entropy,
    estimate_entropy,
    get_all_metrics,
)

HERE = Path(__file__).resolve().parent
H = DEFAULT_BANDWIDTH

#: Distribution and module of each rival that may be missing.
PEERS = {"quests": "quests", "scikit-learn": "sklearn", "pynndescent": "pynndescent", "torch": "torch"}

#: Environments that KernelDensity of scikit-learn is asked about; its time is scaled to all of them.
KDE_ASKED = 1_000

#: A rival whose call takes longer, seconds, is timed once.
SLOW = 5.0

#: Neighbours that searches look for.
NEIGHBOURS = 31

Array = np.ndarray
Rows = list[dict[str, Any]]
#: Takes the environments, does what is not timed (conversions, trees), and returns what is: a call that gives dH.
Rival = Callable[[Array], Callable[[], Array]]

# rivals warn about integer casts, and about logarithms of zero
warnings.filterwarnings("ignore")


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    quick: bool
    large: bool
    repeats: int

    def __call__(self, full: Any, quick: Any) -> Any:
        return quick if self.quick else full


@functools.cache
def here(peer: str) -> bool:
    """Whether a rival is installed; a line if it is not."""
    found = importlib.util.find_spec(PEERS[peer]) is not None
    if not found:
        print(f"{peer} is not installed: it is left out")
    return found


def load(name: str, n: int, dtype: str = "float32", seed: int = 0) -> Array | None:
    """n environments of a set in random order; None, and a line, where its file is not at hand."""
    file = {"crystal": None, "liquid": None, "silicon": "mlearn_Si_train.xyz"}.get(name, f"{name}.xyz")
    path = data_file(file) if file else None
    if file and path is None:
        print(f"{file} is not in QUESTS_ZENN_DATA: the set {name} is left out")
        return None
    x = environments(name, n, path.parent if path else None, dtype, seed)
    return np.ascontiguousarray(x[np.random.default_rng(seed).permutation(len(x))])


# --- rivals -----------------------------------------------------------------------------------------------------------


def ours(**how: Any) -> Rival:
    """The sums of this package."""
    return lambda x: lambda: get_all_metrics(x, **how)[2]


def quests_sums(threads: int, best: bool) -> Rival:
    """The package quests: as users call it, or with BLAS threads set to one and batches of 500."""

    def prepare(x: Array) -> Callable[[], Array]:
        import numba
        from quests.entropy import get_all_metrics as peer
        from threadpoolctl import threadpool_limits

        def call() -> Array:
            numba.set_num_threads(threads)
            with threadpool_limits(1 if best else None):
                return peer(x, h=H, batch_size=500)[2] if best else peer(x, h=H)[2]

        return call

    return prepare


def brute_force(threads: int, sums: Callable[[Array, Array, slice], Array], dtype: type = np.float64) -> Rival:
    """All pairs, 250 rows at a time on a pool of threads; BLAS has one thread."""

    def prepare(x: Array) -> Callable[[], Array]:
        from threadpoolctl import threadpool_limits

        a = ((x - x.mean(axis=0)) / H).astype(dtype)
        half = 0.5 * np.einsum("ij,ij->i", a, a)
        chunks = [slice(first, first + 250) for first in range(0, len(x), 250)]

        def call() -> Array:
            with threadpool_limits(1), ThreadPoolExecutor(threads) as pool:
                return -np.log(
                    np.concatenate(list(pool.map(functools.partial(sums, a, half), chunks))), dtype=np.float64
                )

        return call

    return prepare


def sums_scipy(a: Array, half: Array, rows: slice) -> Array:
    """Kernel sums from the distances of SciPy."""
    from scipy.spatial.distance import cdist

    exponents = cdist(a[rows], a, "sqeuclidean")
    exponents *= -0.5
    return np.exp(exponents, out=exponents).sum(axis=1)


def sums_blas(a: Array, half: Array, rows: slice) -> Array:
    """Kernel sums from |a|^2 + |b|^2 - 2 a.b, the product from BLAS."""
    exponents = a[rows] @ a.T
    exponents -= half
    exponents -= half[rows, None]
    np.minimum(exponents, 0.0, out=exponents)
    return np.exp(exponents, out=exponents).sum(axis=1, dtype=np.float64)


def kernel_density(algorithm: str, rtol: float) -> Rival:
    """KernelDensity of scikit-learn, asked about some environments; one thread."""

    def prepare(x: Array) -> Callable[[], Array]:
        from sklearn.neighbors import KernelDensity

        n, d = x.shape
        tree = KernelDensity(bandwidth=H, algorithm=algorithm, rtol=rtol).fit(x)
        norm = math.log(n) + 0.5 * d * math.log(2.0 * math.pi * H * H)
        return lambda: -(tree.score_samples(x[:KDE_ASKED]) + norm)

    return prepare


def rivals_of(threads: int, rtols: Sequence[float] = (1e-4,)) -> dict[str, Rival]:
    """All ways to dH of every environment within its set; those that cannot use threads only with one."""
    found: dict[str, Rival] = {
        "ours, auto": ours(jobs=threads),
        "ours, float64": ours(jobs=threads, precision="float64"),
        "ours, float32": ours(jobs=threads, precision="float32"),
        "BLAS, float64": brute_force(threads, sums_blas),
        "BLAS, float32": brute_force(threads, sums_blas, np.float32),
        "SciPy cdist": brute_force(threads, sums_scipy),
    }
    if here("quests"):
        found["quests, default"] = quests_sums(threads, best=False)
        found["quests, best"] = quests_sums(threads, best=True)
    if threads == 1 and here("torch"):
        found["ours, torch, float32"] = ours(device="torch")
    if threads == 1 and here("scikit-learn"):
        for rtol in rtols:
            for tree in ("kd_tree", "ball_tree"):
                found[f"KernelDensity, {tree}, rtol {rtol:.0e}"] = kernel_density(tree, rtol)
    return found


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds of wall time of a call, and what it returns."""
    before = time.perf_counter()
    result = call()
    return time.perf_counter() - before, result


def race(calls: dict[str, Callable[[], Any]], repeats: int) -> tuple[dict[str, float], dict[str, Any]]:
    """Median seconds of interleaved calls, and their results.

    One call of each comes first, and counts only if there are no more.
    """
    first = {name: timed(call) for name, call in calls.items()}
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(repeats):
        for name, call in calls.items():
            if turn == 0 or first[name][0] < SLOW:
                time.sleep(0.05)  # threads of the one before may still be spinning
                seconds[name].append(timed(call)[0])
    medians = {name: statistics.median(s) if s else first[name][0] for name, s in seconds.items()}
    return medians, {name: result for name, (_, result) in first.items()}


def same_sums(x: Array, rivals: dict[str, Rival], repeats: int) -> tuple[Rows, float]:
    """Seconds and errors of all rivals on a set, against SciPy in float64; and that entropy."""
    calls = {name: prepare(x) for name, prepare in rivals.items()}
    seconds, dh = race(calls, repeats)
    exact, n = dh["SciPy cdist"], len(x)
    rows = []
    for name, values in dh.items():
        asked = len(values)
        off = values - exact[:asked]
        errors = {"error_h": abs(float(off.mean())), "error_dh": float(np.abs(off).max())}
        rows.append({"n": n, "method": name, "asked": asked, "seconds": seconds[name] * n / asked, **errors})
    return rows, math.log(n) + float(exact.mean())


# --- processes of their own -------------------------------------------------------------------------------------------


def child(**task: Any) -> Any:
    """What `CHILDREN[task["do"]]` returns, in a fresh process."""
    command = [sys.executable, str(Path(__file__).resolve()), "--child", json.dumps(task)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{task} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def peak_mb() -> float:
    """Peak memory of this process, MiB: since it was reset, where it can be."""
    status = Path("/proc/self/status")
    for line in status.read_text().splitlines() if status.exists() else []:
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def child_memory(path: str, method: str, threads: int) -> dict[str, float]:
    """First call on a few environments (imports, compilers, caches), and memory on top of the data on all."""
    x = np.load(path)
    prepare = rivals_of(threads)[method]
    first, _ = timed(lambda: prepare(x[:300])())
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    before = peak_mb()
    prepare(x)()
    return {"first_s": first, "extra_mb": peak_mb() - before}


def memory_of(x: Array, methods: Sequence[str], threads: int) -> dict[str, Any]:
    """`child_memory` of each method on a set."""
    with tempfile.TemporaryDirectory() as scratch:
        np.save(path := Path(scratch, "x.npy"), x)
        return {name: child(do="memory", path=str(path), method=name, threads=threads) for name in methods}


def delta_methods() -> dict[str, Callable[[Array, Array], Array]]:
    """Ways to dH of y against a reference x."""

    def knn(n: int) -> Callable[[Array, Array], Array]:
        return lambda y, x: approx_delta_entropy(y, x, estimator="knn", n_neighbors=n, random_state=0).values

    def peer(y: Array, x: Array) -> Array:
        from quests.entropy import approx_delta_entropy as approximate

        return approximate(y, x, h=H)

    found = {
        "ours, knn, n = 3": knn(3),
        "ours, knn, n = 32": knn(32),
        "ours, sampled": lambda y, x: approx_delta_entropy(y, x, estimator="sampled", random_state=0).values,
        "ours, exact": delta_entropy,
    }
    if here("quests") and here("pynndescent"):
        found["quests, n = 3"] = peer
    return found


def child_delta(x: str, y: str, out: str, method: str, repeats: int) -> dict[str, float]:
    """First call in a fresh process, and warm ones; the values go to a file."""
    call = functools.partial(delta_methods()[method], np.load(y), np.load(x))
    first, values = timed(call)
    np.save(out, np.asarray(values, np.float64))
    return {"first_s": first, "seconds": statistics.median(timed(call)[0] for _ in range(repeats))}


def child_search(path: str, sizes: list[int], exact_up_to: int, repeats: int) -> Rows:
    """Exact search and PyNNDescent on parts of a set, all neighbours of all environments."""
    from pynndescent import NNDescent

    from quests_zenn.entropy._neighbours import nearest

    x = np.load(path)

    def descent(n: int) -> tuple[Array, Array]:
        index = NNDescent(x[:n], n_neighbors=NEIGHBOURS + 1, random_state=0, n_jobs=available_cores())
        return index.neighbor_graph

    rows = []
    with Workers(None) as workers:

        def exact(n: int, asked: int) -> Array:
            same = asked == n
            more = NEIGHBOURS + (not same)
            return nearest(x[:asked], x[:n], more, same=same, precision="float32", workers=workers)[1][:, -1]

        compile_exact = timed(lambda: exact(5000, 5000))[0] - timed(lambda: exact(5000, 5000))[0]
        compile_descent = timed(lambda: descent(5000))[0] - timed(lambda: descent(5000))[0]
        for n in sizes:
            calls: dict[str, Callable[[], Any]] = {"descent": functools.partial(descent, n)}
            if n <= exact_up_to:
                calls["exact"] = functools.partial(exact, n, n)
            seconds, found = race(calls, repeats if n <= 30_000 else 0)
            true = exact(n, 500)  # these rows find themselves too
            distances = np.sort(found["descent"][1][:500])
            row = {
                "n": n,
                "exact_s": seconds.get("exact"),
                "descent_s": seconds["descent"],
                "compile_exact_s": max(0.0, compile_exact),
                "compile_descent_s": max(0.0, compile_descent),
                "recall": float(np.mean(distances <= true[:, None] * (1.0 + 1e-5))),
            }
            if row["exact_s"] is None and rows:  # blocks pass over more as sets grow: an upper bound
                row["exact_s"] = rows[-1]["exact_s"] * (n / rows[-1]["n"]) ** 2
                row["extrapolated"] = True
            rows.append(row)
    return rows


CHILDREN: dict[str, Callable[..., Any]] = {"memory": child_memory, "delta": child_delta, "search": child_search}


# --- parts ------------------------------------------------------------------------------------------------------------


def gemm_rate(dtype: type, d: int) -> float:
    """Pairs per second of a product of matrices of width d alone, on one thread; the best of several tries."""
    from threadpoolctl import threadpool_limits

    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(500, d)).astype(dtype), rng.normal(size=(10_000, d)).astype(dtype)
    out = np.empty((len(a), len(b)), dtype)
    with threadpool_limits(1):
        return len(a) * len(b) / min(timed(lambda: np.matmul(a, b.T, out=out))[0] for _ in range(20))


def part_exact(size: Size) -> dict[str, Any]:
    """All pairs: seconds, memory and errors of every rival."""
    n = size(10_000, 1_000)
    rows: Rows = []
    gemm = {name: gemm_rate(getattr(np, name), 63) for name in ("float64", "float32")}
    for name in ("mlearn_Si_train", "acac_test_600K", "crystal", "liquid"):
        x = load(name, n, "float64")
        if x is None:
            continue
        x = x[:n].copy() if size.quick else x
        of_first = not rows or rows[0]["set"] == name
        for threads in sorted({1, min(2, available_cores())}):
            rivals = rivals_of(threads)
            costs = memory_of(x, list(rivals), threads) if of_first and threads <= size(2, 1) else {}
            for row in same_sums(x, rivals, size(size.repeats, 1))[0]:
                row = {"set": name, "threads": threads, **row, **costs.get(row["method"], {})}
                if row["method"].startswith("ours, float") and threads == 1:
                    # each pair is computed once: N^2 / 2 of them in the time of a product of matrices alone
                    row["share_of_gemm"] = len(x) ** 2 / 2 / gemm[row["method"].split()[1]] / row["seconds"]
                rows.append(row)
                print_row(row)
    return {"rows": rows, "gemm": gemm}


def part_neighbours(size: Size) -> dict[str, Any]:
    """dH from few neighbours, here and there; and exact search against PyNNDescent."""
    delta, search = [], []
    n, asked = size((100_000, 10_000), (5_000, 500))
    sizes = size([10_000, 30_000, 100_000, 300_000, 1_000_000], [2_000, 5_000])
    for name in size(("crystal", "silicon", "liquid"), ("silicon",)):
        most = min(sizes[-1], {"crystal": 300_000, "silicon": 1_000_000, "liquid": 100_000}[name])
        pool = load(name, max(n + asked, most))
        if pool is None:
            continue
        with tempfile.TemporaryDirectory() as scratch:
            x, y, out, part = (str(Path(scratch, f"{file}.npy")) for file in ("x", "y", "out", "part"))
            np.save(x, pool[asked : asked + n].astype(np.float64))
            np.save(y, pool[:asked].astype(np.float64))
            np.save(part, pool[:most])
            exact = delta_entropy(np.load(y), np.load(x), precision="float64")
            tenths = np.array_split(np.argsort(exact), 10)
            for method in delta_methods():
                cost = child(do="delta", x=x, y=y, out=out, method=method, repeats=size(size.repeats, 1))
                off = np.load(out) - exact
                fine = np.isfinite(off)
                errors = {
                    "rms": rms(off[fine]),
                    "q95": float(np.quantile(np.abs(off[fine]), 0.95)),
                    "max": float(np.abs(off[fine]).max()),
                    "dense": rms(off[tenths[0]]),
                    "sparse": rms(off[tenths[-1]][fine[tenths[-1]]]),
                    "infinite": int((~fine).sum()),
                }
                delta.append({"set": name, "n": n, "asked": asked, "method": method, **cost, **errors})
                print_row(delta[-1])
            if here("pynndescent"):
                these = [s for s in sizes if s <= most]
                for row in child(
                    do="search", path=part, sizes=these, exact_up_to=300_000, repeats=size(size.repeats, 1)
                ):
                    search.append({"set": name, **row})
                    print_row(search[-1])
    return {"delta": delta, "search": search}


def part_sizes(size: Size) -> dict[str, Any]:
    """Estimates as sets grow."""
    sizes = size([10_000, 30_000, 100_000, 300_000, 1_000_000], [2_000, 5_000, 10_000])
    rows = []
    for name in ("crystal", "silicon", "liquid"):
        pool = load(name, sizes[-1])
        if pool is None:
            continue
        warm_up(pool)
        exact_up_to = 100_000 if name == "liquid" else 300_000
        rows += [size_row(name, pool[:n], n <= exact_up_to, size.repeats) for n in sizes]
    if size.large:
        rows.append(size_row("crystal", environments("crystal", 10_000_000, None), False, 1, all_dh=False))
    return {"rows": rows, "growth": growth(rows, size(100_000, 0))}


def warm_up(x: Array) -> None:
    """Have compiled what estimates need."""
    estimate_entropy(x[:10_000], estimator="sampled", random_state=0)
    approx_delta_entropy(x[:2_000], estimator="sampled", random_state=0)
    entropy(x[:5_000])


def size_row(name: str, x: Array, exact: bool, repeats: int, all_dh: bool = True) -> dict[str, Any]:
    """One set: time, samples and error of H; of all dH; and the exact sums where they are wanted."""
    runs = [timed(lambda seed=seed: estimate_entropy(x, estimator="sampled", random_state=seed)) for seed in range(3)]
    found = runs[0][1]
    row: dict[str, Any] = {
        "set": name,
        "n": len(x),
        "seconds": statistics.median(s for s, _ in runs[:repeats]),
        "value": found.value,
        "standard_error": found.standard_error,
        "environments": found.environments,
        "references": found.references,
        "pairs": pairs_of(found),
    }
    if exact:
        row["exact_s"], row["exact"] = timed(lambda: entropy(x))
        row["error_rms"] = rms([run.value - row["exact"] for _, run in runs])
    if all_dh:
        row["dh_s"], dh = timed(lambda: approx_delta_entropy(x, random_state=0))
        row |= {"dh_estimator": dh.estimator, "dh_rms": dh.rms_error, "dh_references": dh.references}
    print_row(row)
    return row


def pairs_of(found: Any) -> int:
    """Pairs that an estimate computed: on each level but the first, the smaller sample is asked as well."""
    both = zip(found.environments, found.references, [0, *found.references[:-1]], strict=True)
    return sum(asked * (here + before) for asked, here, before in both)


def growth(rows: Rows, least: int) -> Rows:
    """Exponents a of N^a fitted to what grows, from `least` environments on."""
    out = []
    for name in dict.fromkeys(row["set"] for row in rows):
        fitted: dict[str, Any] = {"set": name}
        for key in ("seconds", "pairs", "dh_s", "exact_s"):
            some = [(row["n"], row[key]) for row in rows if row["set"] == name and row["n"] >= least and key in row]
            if len(some) > 1:
                fitted[key] = float(np.polyfit(*np.log(np.array(some).T), 1)[0])
        out.append(fitted)
    return out


def part_million(size: Size) -> dict[str, Any]:
    """The exact entropy of the largest sets of `sizes`, once."""
    rows = []
    for name in ("crystal", "silicon"):
        x = load(name, size(1_000_000, 10_000))
        if x is not None:
            seconds, value = timed(lambda x=x: entropy(x))
            rows.append({"set": name, "n": len(x), "exact_s": seconds, "exact": value})
            print_row(rows[-1])
    return {"rows": rows}


def part_coverage(size: Size) -> dict[str, Any]:
    """How often the 95 % interval of an estimate holds the exact entropy, over many seeds."""
    rows = []
    seeds, n, many = size(200, 8), size(10_000, 2_000), size(300_000, 20_000)
    cases = [
        (name, n, tolerance) for name in ("mlearn_Si_train", "acac_test_600K", "crystal") for tolerance in (0.01, 0.03)
    ]
    for name, n, tolerance in [*cases, ("silicon", many, 0.01)]:
        x = load(name, n)
        if x is None:
            continue
        exact = entropy(x)
        found = [
            estimate_entropy(x, estimator="sampled", tolerance=tolerance, random_state=seed)
            for seed in range(seeds if n < many else size(60, 4))
        ]
        errors = np.array([each.standard_error for each in found])
        z = np.array([each.value - exact for each in found])[errors > 0.0] / errors[errors > 0.0]
        rows.append(
            {
                "set": name,
                "n": len(x),
                "tolerance": tolerance,
                "seeds": len(found),
                "covered": float(np.mean([low <= exact <= high for low, high in (each.interval for each in found)])),
                "z_mean": float(z.mean()),
                "z_sd": float(z.std(ddof=1)),
                "standard_error": float(errors.mean()),
                "base_share": max(each.references[0] for each in found) / len(x),
                "pairs_share": float(np.mean([pairs_of(each) for each in found])) / len(x) ** 2,
            }
        )
        print_row(rows[-1])
    return {"rows": rows}


def part_command(size: Size) -> dict[str, Any]:
    """`quests-entropy FILE` on a million atoms, from the shell."""
    from ase.io import write

    command = str(Path(sys.executable).parent / "quests-entropy")
    variants: dict[str, list[str]] = {"quests-entropy FILE": []}
    if size.large or size.quick:
        more = ["--estimator", "exact", "--precision", "float32"]
        variants[" ".join(["quests-entropy FILE", *more])] = more
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch, "crystal.xyz")
        atoms = thermal_crystal(size(1_000_188, 4_000))
        write(path, atoms)
        for name, options in variants.items():
            runs = []
            for _ in range(1 if options else size(size.repeats, 1)):
                before = time.perf_counter()
                with open(Path(scratch, "out"), "w") as out:
                    process = subprocess.Popen([command, str(path), *options], stdout=out, stderr=out)
                    _, status, usage = os.wait4(process.pid, 0)
                runs.append((time.perf_counter() - before, usage.ru_maxrss / 1024))
            if status != 0:
                print(f"{name} failed, and is left out: {Path(scratch, 'out').read_text().splitlines()[-1:]}")
                continue
            row = {"command": name, "atoms": len(atoms), "seconds": statistics.median(s for s, _ in runs)}
            rows.append({**row, "peak_mb": max(peak for _, peak in runs)})
            print_row(rows[-1])
    return {"rows": rows}


def part_curve(size: Size) -> dict[str, Any]:
    """Error of H against time, for the figure."""
    n, cores = size(30_000, 3_000), available_cores()
    rows = []
    for name in ("silicon", "crystal", "liquid"):
        x = load(name, n, "float64")
        if x is None:
            continue
        rivals = {**rivals_of(1, (1e-4, 1e-2)), **rivals_of(cores)}
        for skipped in ("ours, auto", "quests, default"):
            rivals.pop(skipped, None)
        found, exact = same_sums(x, rivals, 1)
        for tolerance in (0.1, 0.03, 0.01, 0.003, 0.001):
            for estimator in ("sampled", "knn") if tolerance == 0.01 else ("sampled",):
                ways = {"estimator": estimator, "tolerance": tolerance, "precision": "auto"}
                runs = [
                    timed(lambda x=x, seed=seed, ways=ways: estimate_entropy(x, random_state=seed, **ways))
                    for seed in range(size(5, 2))
                ]
                found.append(
                    {
                        "n": n,
                        "method": f"ours, {estimator}",
                        "tolerance": tolerance,
                        "seconds": statistics.median(s for s, _ in runs),
                        "error_h": statistics.median(run.standard_error for _, run in runs),
                        "actual_rms": rms([run.value - exact for _, run in runs]),
                    }
                )
        if "quests, n = 3" in (methods := delta_methods()):
            approximate = functools.partial(methods["quests, n = 3"], x, x)
            seconds, dh = race({"quests": approximate}, 1)
            error = abs(math.log(n) + float(dh["quests"].mean()) - exact)
            found.append({"n": n, "method": "quests, n = 3", "seconds": seconds["quests"], "error_h": error})
        for row in found:
            rows.append({"set": name, "threads": cores, **row})
            print_row(rows[-1])
    return {"rows": rows}


def rms(values: Iterable[float]) -> float:
    """Root of the mean square."""
    return float(np.sqrt(np.mean(np.square(np.asarray(values)))))


PARTS: dict[str, Callable[[Size], dict[str, Any]]] = {
    "command": part_command,  # a child's peak memory starts at that of this process: small ones first
    "exact": part_exact,
    "neighbours": part_neighbours,
    "sizes": part_sizes,
    "million": part_million,
    "coverage": part_coverage,
    "curve": part_curve,
}


# --- tables -----------------------------------------------------------------------------------------------------------


def table(title: str, rows: Rows, columns: dict[str, Callable[[dict[str, Any]], str]]) -> list[str]:
    """A title and a Markdown table; columns that a row does not have stay empty."""

    def cell(show: Callable[[dict[str, Any]], str], row: dict[str, Any]) -> str:
        try:
            return show(row)
        except (KeyError, TypeError):  # not measured
            return ""

    lines = ["", title, "", f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    return [*lines, *(f"| {' | '.join(cell(show, row) for show in columns.values())} |" for row in rows)]


def show(key: str, form: str = "") -> Callable[[dict[str, Any]], str]:
    """A column that shows one figure."""
    return lambda row: format(row[key], form)


SET = {"set": show("set"), "N": show("n", ",")}


def markdown(results: dict[str, Any]) -> str:
    """The results as Markdown."""
    lines = [
        "# Entropies and dH: time against error",
        "",
        f"d = 63, h = {H} 1/Å, wall time in seconds, errors in nats.",
    ]
    writers = {
        "exact": write_exact,
        "neighbours": write_neighbours,
        "sizes": write_sizes,
        "coverage": write_coverage,
        "command": write_command,
        "curve": write_curve,
    }
    for name, write in writers.items():
        if name in results:
            where = results[name]["machine"]
            lines += ["", f"## {write.__doc__}".rstrip("."), ""]
            lines.append(
                f"Measured on {where['cores']} cores ({where['processor']}, "
                f"{'with' if where['avx512'] else 'without'} AVX-512), {where['date']}."
            )
            lines += write(results)
    return "\n".join(lines) + "\n"


def write_exact(results: dict[str, Any]) -> list[str]:
    """All pairs."""
    part = results["exact"]
    return table(
        "Errors are those against SciPy's distances in float64 (which has none, therefore). First call: 300 "
        "environments in a fresh process, caches on disk warm; extra memory: peak beyond the data; both of the first "
        f"set only. KernelDensity was asked about {KDE_ASKED:,} environments, and its time scaled to all; its tree was "
        "built beforehand. Share: time of a product of matrices alone for N²/2 pairs "
        f"({part['gemm']['float64'] / 1e9:.2f} billion pairs per second in float64, "
        f"{part['gemm']['float32'] / 1e9:.2f} in float32, one thread) by our time.",
        part["rows"],
        {
            **SET,
            "threads": show("threads"),
            "method": show("method"),
            "seconds": show("seconds", ".3g"),
            "error of H": show("error_h", ".1e"),
            "largest error of dH": show("error_dh", ".1e"),
            "first call": show("first_s", ".1f"),
            "extra memory, MiB": show("extra_mb", ".0f"),
            "share": show("share_of_gemm", ".2f"),
        },
    )


def write_neighbours(results: dict[str, Any]) -> list[str]:
    """Few neighbours, and how they are found."""
    part = results["neighbours"]
    return [
        *table(
            "dH of environments against a reference. First call: in a fresh process. Errors are differences from the "
            "exact dH: root mean square, 95 % quantile, largest; root mean square in the densest and sparsest tenth. "
            "PyNNDescent builds its graph in each call.",
            part["delta"],
            {
                **SET,
                "asked": show("asked", ","),
                "method": show("method"),
                "first call": show("first_s", ".1f"),
                "warm": show("seconds", ".3g"),
                "rms": show("rms", ".2g"),
                "95 %": show("q95", ".2g"),
                "max": show("max", ".2g"),
                "densest": show("dense", ".2g"),
                "sparsest": show("sparse", ".2g"),
                "infinite": show("infinite"),
            },
        ),
        *table(
            f"All {NEIGHBOURS} nearest neighbours of all environments. Compiling: what the first search of a process "
            "takes on top. Times with ~ are extrapolated from the size before, as N².",
            part["search"],
            {
                **SET,
                "exact": lambda row: ("~" if row.get("extrapolated") else "") + f"{row['exact_s']:.3g}",
                "PyNNDescent": show("descent_s", ".3g"),
                "its recall": show("recall", ".4f"),
                "compiling, exact": show("compile_exact_s", ".1f"),
                "compiling, PyNNDescent": show("compile_descent_s", ".1f"),
                "exact is faster by, compiling included": lambda row: (
                    f"{(row['descent_s'] + row['compile_descent_s']) / (row['exact_s'] + row['compile_exact_s']):.2g}"
                ),
            },
        ),
    ]


def write_sizes(results: dict[str, Any]) -> list[str]:
    """Estimates as sets grow."""
    part = results["sizes"]
    exact = {(row["set"], row["n"]): row for row in results.get("million", {}).get("rows", [])}
    rows = []
    for row in part["rows"]:
        known = exact.get((row["set"], row["n"]))
        if known is not None and "exact" not in row:  # the first of the seeds, then
            error = abs(row["value"] - known["exact"])
            row = {**row, "exact": known["exact"], "exact_s": known["exact_s"], "error_rms": error}
        rows.append(row)

    def levels(key: str) -> Callable[[dict[str, Any]], str]:
        return lambda row: " + ".join(f"{m:,}" for m in row[key])

    return [
        *table(
            "H at a tolerance of 0.01 nats (95 %), after the descriptors. Environments and references of each level. "
            "Actual error: root mean square over three seeds (one, for a million).",
            rows,
            {
                **SET,
                "seconds": show("seconds", ".3g"),
                "H": show("value", ".4f"),
                "standard error": show("standard_error", ".4f"),
                "actual error": show("error_rms", ".4f"),
                "environments": levels("environments"),
                "references": levels("references"),
                "exact, seconds": show("exact_s", ".3g"),
            },
        ),
        *table(
            "dH of all environments within their set, with defaults.",
            part["rows"],
            {
                **SET,
                "estimator": show("dh_estimator"),
                "seconds": show("dh_s", ".3g"),
                "rms error": show("dh_rms", ".2g"),
                "references visited": show("dh_references", ","),
            },
        ),
        *table(
            "Growth: exponents a of N^a, fitted from 100,000 environments on.",
            part["growth"],
            {
                "set": show("set"),
                "seconds of H": show("seconds", ".2f"),
                "pairs of H": show("pairs", ".2f"),
                "seconds of all dH": show("dh_s", ".2f"),
                "exact": show("exact_s", ".2f"),
            },
        ),
    ]


def write_coverage(results: dict[str, Any]) -> list[str]:
    """Do the intervals hold."""
    return table(
        "Estimates with different seeds: the share of 95 % intervals that hold the exact H; mean and standard "
        "deviation of the error in standard errors (0 and 1 if all is well). Base sample: references of the first "
        "level by N. Pairs: those computed by N².",
        results["coverage"]["rows"],
        {
            **SET,
            "tolerance": show("tolerance"),
            "seeds": show("seeds"),
            "held": lambda row: f"{100 * row['covered']:.1f} %",
            "mean z": show("z_mean", "+.2f"),
            "sd of z": show("z_sd", ".2f"),
            "standard error": show("standard_error", ".4f"),
            "base sample": show("base_share", ".4f"),
            "pairs": show("pairs_share", ".4f"),
        },
    )


def write_command(results: dict[str, Any]) -> list[str]:
    """From the shell."""
    return table(
        "Whole commands on a thermal crystal in one extended XYZ file, reading and descriptors included.",
        results["command"]["rows"],
        {
            "command": lambda row: f"`{row['command']}`",
            "atoms": show("atoms", ","),
            "seconds": show("seconds", ".1f"),
            "peak memory, MiB": show("peak_mb", ".0f"),
        },
    )


def write_curve(results: dict[str, Any]) -> list[str]:
    """Error against time."""
    return table(
        "The points of the figure. Errors of estimates are their standard errors, and the actual ones (root mean "
        "square over seeds) stand beside. KernelDensity: see above. `quests, n = 3`: H from its approximate dH, warm.",
        results["curve"]["rows"],
        {
            **SET,
            "method": show("method"),
            "tolerance": show("tolerance"),
            "seconds": show("seconds", ".3g"),
            "error of H": show("error_h", ".1e"),
            "actual": show("actual_rms", ".1e"),
        },
    )


# --- figure -----------------------------------------------------------------------------------------------------------

#: Marker and colour of each method in the figure, and its name there.
STYLES = {
    "ours, sampled": ("o", "#0b5fa5", "ours, sampled (tolerance 0.1 to 0.001)"),
    "ours, knn": ("D", "#0b5fa5", "ours, knn (tolerance 0.01)"),
    "ours, float32": ("s", "#0b5fa5", "ours, exact, float32"),
    "ours, float64": ("*", "#0b5fa5", "ours, exact, float64"),
    "ours, torch, float32": ("P", "#56a3d9", "ours, torch on CPU, float32 (1 thread)"),
    "BLAS, float32": ("s", "#8a8a8a", "BLAS by hand, float32"),
    "BLAS, float64": ("*", "#8a8a8a", "BLAS by hand, float64"),
    "quests, best": ("*", "#d1495b", "quests, at its best"),
    "quests, n = 3": ("v", "#d1495b", "quests, 3 neighbours"),
    "KernelDensity, kd_tree, rtol 1e-04": ("<", "#e08e1b", "scikit-learn, k-d tree, rtol 1e-4 (1 thread)"),
    "KernelDensity, kd_tree, rtol 1e-02": ("<", "none", "scikit-learn, k-d tree, rtol 1e-2 (1 thread)"),
    "KernelDensity, ball_tree, rtol 1e-04": (">", "#e08e1b", "scikit-learn, ball tree, rtol 1e-4 (1 thread)"),
    "KernelDensity, ball_tree, rtol 1e-02": (">", "none", "scikit-learn, ball tree, rtol 1e-2 (1 thread)"),
}


def figure(rows: Rows, path: Path) -> None:
    """Error of H against time, one panel for each set."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    titles = {"silicon": "rattled silicon", "crystal": "thermal crystal", "liquid": "liquid-like"}
    names = list(dict.fromkeys(row["set"] for row in rows))
    figure, axes = plt.subplots(1, len(names), figsize=(3.7 * len(names), 5.2), sharex=True, sharey=True, squeeze=False)
    handles: dict[str, Any] = {}
    for axis, name in zip(axes[0], names, strict=True):
        mine = [row for row in rows if row["set"] == name]
        for method, (marker, colour, label) in STYLES.items():
            points = [row for row in mine if row["method"] == method]
            if not points:
                continue
            (handles[label],) = axis.plot(
                [row["seconds"] for row in points],
                [max(row["error_h"] or row.get("actual_rms", 0.0), 1e-16) for row in points],
                linestyle="-" if len(points) > 1 else "none",
                marker=marker,
                markersize=9 if marker == "*" else 6,
                color="#0b5fa5" if method.startswith("ours") else "#e08e1b",
                markerfacecolor=colour,
                markeredgecolor="#e08e1b" if colour == "none" else colour,
                linewidth=1.2,
            )
        axis.set(xscale="log", yscale="log", xlabel="wall time / s")
        axis.set_title(f"{titles[name]}, N = {mine[0]['n']:,}", fontsize=10)
        axis.grid(True, which="major", linewidth=0.4, alpha=0.5)
    axes[0, 0].set_ylabel("error of H / nats")
    rows_of_legend = math.ceil(len(handles) / 3)
    figure.legend(handles.values(), handles, loc="lower center", ncol=3, fontsize=8, frameon=False)
    figure.tight_layout(rect=(0.0, 0.01 + 0.037 * rows_of_legend, 1.0, 1.0))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    plt.close(figure)
    print(f"wrote {path}")


# --- all of it --------------------------------------------------------------------------------------------------------


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    model, wide = platform.processor() or platform.machine(), False
    if Path("/proc/cpuinfo").exists():
        text = Path("/proc/cpuinfo").read_text()
        wide = "avx512f" in text
        model = next((line.split(":")[1].strip() for line in text.splitlines() if line.startswith("model name")), model)
    versions = {name: version(name) for name in ("quests_zenn", "numba", "numpy", "scipy", *filter(here, PEERS))}
    date = time.strftime("%Y-%m-%d")
    return {"processor": model, "cores": available_cores(), "avx512": wide, "versions": versions, "date": date}


def main() -> None:
    """Run the parts that are wanted and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--quick", action="store_true", help="small sizes; nothing is written, unless --output is given"
    )
    parser.add_argument("--large", action="store_true", help="also ten million environments, and an exact million")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--output", type=Path, help="folder for all results, in place of benchmarks/ and docs/")
    parser.add_argument("--child", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(CHILDREN[options.child.pop("do")](**options.child)))
        return
    folder, picture = HERE / "results", HERE.parent / "docs" / "figures"
    with tempfile.TemporaryDirectory() as scratch:
        if options.output or options.quick:
            folder = picture = options.output or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        store = folder / "density.json"
        results = json.loads(store.read_text(encoding="utf-8")) if store.exists() else {}
        for name in (name for name in PARTS if name in options.only):
            print(f"--- {name}", flush=True)
            seconds, part = timed(lambda name=name: PARTS[name](Size(options.quick, options.large, options.repeats)))
            results[name] = {"machine": machine(), **part}
            store.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
            print(f"--- {name}: {seconds:.0f} s", flush=True)
        text = markdown(results)
        (folder / "density.md").write_text(text, encoding="utf-8")
        if results.get("curve", {}).get("rows"):
            figure(results["curve"]["rows"], picture / "density.png")
        if options.quick:
            print(text)


if __name__ == "__main__":
    main()
