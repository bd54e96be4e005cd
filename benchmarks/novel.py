"""How long it takes to say which atoms of a frame a reference does not know.

    python benchmarks/novel.py            # writes benchmarks/results/novel.json and novel.md
    python benchmarks/novel.py --quick    # small references, to see that it runs

Frames of 1,000 atoms, another one at every call, some of each kind in turn, warm; descriptors included. Beside it the
full sum, ours and that of the package ``quests``, for the same frame. Figures are medians.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Iterator
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.build import bulk
from run import RESULTS, Peer, machine
from sets import liquid_like, rattled

from quests_zenn._core.parallel import Workers, available_cores
from quests_zenn.entropy._decide import OPEN
from quests_zenn.uq import Reference

THRESHOLD = 1e-5

#: Turns that each kind of frames has.
TURNS = 5


def crystal(displacement: float, seed: int) -> Iterator[Atoms]:
    """Frames of 1,000 atoms of copper, displaced by a Gaussian (Å per axis)."""
    rng = np.random.default_rng(seed)
    while True:
        atoms = bulk("Cu", cubic=True).repeat((5, 5, 10))
        atoms.positions += rng.normal(scale=displacement, size=atoms.positions.shape)
        yield atoms


def liquid(seed: int) -> Iterator[Atoms]:
    """Frames of 1,000 atoms of copper at random, none close to another."""
    while True:
        yield liquid_like(1000, seed=seed)
        seed += 1


def merged(frames: Iterator[Atoms]) -> Iterator[Atoms]:
    """Frames of at least 1,000 atoms: structures put side by side, far from each other."""
    while True:
        atoms, count = [], 0
        while count < 1000:
            atoms.append(next(frames))
            count += len(atoms[-1])
        yield atoms


def cases(data: Path | None, thousands: int) -> dict[str, tuple[list[Any], dict[str, Iterator[Any]]]]:
    """For each reference of so many thousand environments, its frames and those that are asked about."""
    half = max(1, thousands // 2)
    copper = {
        "thermal, 0.10 Å": crystal(0.1, 1),
        "thermal, 0.12 Å": crystal(0.12, 2),
        "thermal, 0.15 Å": crystal(0.15, 3),
        "thermal, 0.20 Å": crystal(0.2, 4),
        "liquid-like": liquid(10_000),
    }
    found: dict[str, tuple[list[Any], dict[str, Iterator[Any]]]] = {
        "thermal crystal": (list(islice(crystal(0.1, 0), thousands)), copper),
        "thermal crystal and liquid": (
            [*islice(crystal(0.1, 0), half), *islice(liquid(0), half)],
            {
                **{name: crystal(float(name[9:13]), 5 + i) for i, name in enumerate(list(copper)[:4])},
                "liquid-like": liquid(20_000),
            },
        ),
    }  # fmt: skip
    if data is not None:
        path = data / "mlearn_Si_train.xyz"
        frames = rattled(path, 1000 * thousands)
        asked = {
            f"the same, {displacement:.2f} Å": merged(cycle(list(rattled(path, 26_000, displacement, seed=9))))
            for displacement in (0.05, 0.1, 0.2)
        }
        found["rattled silicon"] = (list(frames), asked)
    return found


def open_share(reference: Reference, env: Any, workers: Workers) -> float:
    """Share of the atoms for which a full sum must say."""
    decider = reference._all_shards()[0]._decider
    assert decider is not None
    return float(np.mean(decider.decide(env.x, np.full(len(env), -THRESHOLD), workers) == OPEN))


def time_frames(
    reference: Reference, streams: dict[str, Iterator[Any]], repeats: int, jobs: int
) -> list[dict[str, Any]]:
    """Medians over frames that differ from call to call, the kinds in turn: some frames of each, as in a simulation."""
    from threadpoolctl import threadpool_limits

    seconds: dict[str, dict[str, list[float]]] = {}
    shares: dict[str, list[tuple[float, float]]] = {}
    with Workers(jobs) as workers, threadpool_limits(1):
        for turn, (name, stream) in ((t, item) for t in range(TURNS + 1) for item in streams.items()):
            kept = seconds.setdefault(name, {"descriptors": [], "decisions": [], "total": []})
            for _ in range(max(1, repeats // TURNS)):
                frame = next(stream)
                before = time.perf_counter()
                env = reference.describe(frame, jobs=jobs)
                described = time.perf_counter()
                novel = reference.is_novel(env, THRESHOLD, workers=workers)
                done = time.perf_counter()
                if turn == 0:
                    continue  # packs, and loads what is compiled
                kept["descriptors"].append((described - before) / len(env) * 1e3)
                kept["decisions"].append((done - described) / len(env) * 1e3)
                kept["total"].append((done - before) / len(env) * 1e3)
                shares.setdefault(name, []).append((float(novel.mean()), open_share(reference, env, workers)))
    return [
        {
            "frames": name,
            "novel": statistics.mean(share for share, _ in shares[name]),
            "open": statistics.mean(share for _, share in shares[name]),
            **{f"{step}_ms": 1e3 * statistics.median(values) for step, values in kept.items()},
        }
        for name, kept in seconds.items()
    ]  # fmt: skip


def time_sums(reference: Reference, streams: dict[str, Iterator[Any]], repeats: int, jobs: int) -> dict[str, float]:
    """Median milliseconds for the full dH of 1,000 atoms: ours, and that of the peer at its best."""
    peer = Peer(jobs)
    x = np.array(reference.x)
    kept: dict[str, list[float]] = {"score_ms": [], "quests_ms": []}
    stream = next(iter(streams.values()))
    for repeat in range(repeats + 1):
        env = reference.describe(next(stream), jobs=jobs)
        for name, run in (
            ("score_ms", lambda env=env: reference.score(env, jobs=jobs)),
            ("quests_ms", lambda env=env: peer.delta_entropy(env.x, x)),
        ):
            time.sleep(0.05)
            before = time.perf_counter()
            run()
            if repeat:
                kept[name].append(1e6 * (time.perf_counter() - before) / len(env))
    return {name: statistics.median(values) for name, values in kept.items()}


def table(results: list[dict[str, Any]]) -> str:
    """The results in Markdown."""
    heads = (
        "environments",
        "novel atoms",
        "open",
        "descriptors, ms",
        "decisions, ms",
        "total, ms",
        "full sum, ms",
        "`quests`, ms",
    )
    lines = [f"| reference | frames | {' | '.join(heads)} |", "| --- | --- |" + " ---: |" * len(heads)]
    for case in results:
        for row in case["rows"]:
            steps = " | ".join(f"{row[name]:.1f}" for name in ("descriptors_ms", "decisions_ms", "total_ms"))
            shares = f"{row['novel']:.1%} | {row['open']:.1%}"
            lines.append(
                f"| {case['reference']} | {row['frames']} | {case['n']:,} | {shares} | {steps} | "
                f"{case['score_ms']:.0f} | {case['quests_ms']:.0f} |"
            )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small references")
    parser.add_argument("--repeats", type=int, default=25, help="frames of each kind")
    parser.add_argument("--jobs", type=int, default=available_cores())
    parser.add_argument("--output", type=Path, default=RESULTS / "novel.json")
    arguments = parser.parse_args()
    folder = os.environ.get("QUESTS_ZENN_DATA")
    data = Path(folder) if folder else None
    results = []
    for thousands in (2,) if arguments.quick else (10, 100, 1000):
        for name, (frames, streams) in cases(data, thousands).items():
            if thousands == 1000 and name != "thermal crystal":
                continue
            reference = Reference.fit(frames, jobs=arguments.jobs)
            rows = time_frames(reference, streams, arguments.repeats, arguments.jobs)
            sums = time_sums(reference, streams, max(1, arguments.repeats // 8), arguments.jobs)
            results.append({"reference": name, "n": len(reference), "rows": rows, **sums})
            print(table(results[-1:]), flush=True)
    document = {"threshold": THRESHOLD, "jobs": arguments.jobs, "results": results, "machine": machine()}
    arguments.output.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    arguments.output.with_suffix(".md").write_text(table(results), encoding="utf-8")


if __name__ == "__main__":
    main()
