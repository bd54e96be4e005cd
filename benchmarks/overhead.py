"""What a monitor costs a simulation: its share of the wall time, in ASE and in LAMMPS.

    python benchmarks/overhead.py            # writes benchmarks/results/overhead.json and overhead.md
    python benchmarks/overhead.py --quick    # small sizes, to see that it runs; nothing is written

Copper with 1,000 atoms: EMT in ASE, EAM in LAMMPS (one process, one thread). References are frames of the same copper
at 300 K, made here. Runs with and without a monitor take turns, from the same start; every figure is a median. Two
shares are told: what the monitor itself measures (time in looks by wall time, the first look apart), and the difference
of the wall times, which has the noise of both. What a reference prepares once is prepared beforehand.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.md.langevin import Langevin
from run import RESULTS, machine, print_row

from quests_zenn._core.checks import MissingExtraError
from quests_zenn._core.parallel import available_cores
from quests_zenn.uq import DEFAULT_THRESHOLD, LammpsMonitor, Monitor, Reference, import_lammps, potential_file

#: By the automatic threshold, 1 % of known atoms are novel; frames with 5 % are flagged.
HOW: dict[str, Any] = {"false_alarm": 0.01, "of": "atom", "min_share": 0.05}
THRESHOLDS: tuple[float | str, ...] = (DEFAULT_THRESHOLD, "auto")
KNOWN, HOT = 300.0, 3000.0

Rows = list[dict[str, Any]]


# --- simulations ------------------------------------------------------------------------------------------------------


class Ase:
    """EMT copper with a Langevin thermostat: c x c x 2c cubic cells."""

    name = "ASE, EMT"

    def __init__(self, cells: int, warm_up: int) -> None:
        crystal = bulk("Cu", cubic=True).repeat((cells, cells, 2 * cells))
        self.starts = {}
        for temperature in (KNOWN, HOT):
            dyn = self.dynamics(crystal, temperature, 0)
            dyn.run(warm_up)
            self.starts[temperature] = dyn.atoms.copy()
        self.n = len(crystal)

    @staticmethod
    def dynamics(atoms: Atoms, temperature: float, seed: int) -> Langevin:
        atoms = atoms.copy()
        atoms.calc = EMT()
        how = {"friction": 0.02 / units.fs, "fixcm": False, "rng": np.random.default_rng(seed)}
        return Langevin(atoms, 5.0 * units.fs, temperature_K=temperature, **how)

    def frames(self, count: int, interval: int) -> list[Atoms]:
        """Frames for a reference."""
        dyn, kept = self.dynamics(self.starts[KNOWN], KNOWN, 1), []
        dyn.attach(lambda: kept.append(dyn.atoms.copy()), interval=interval)
        dyn.run(interval * (count - 1))
        return kept

    def run(
        self, temperature: float, steps: int, every: int, reference: Reference | None, **options: Any
    ) -> tuple[float, Monitor | None]:
        """Seconds of wall time, and the monitor."""
        dyn = self.dynamics(self.starts[temperature], temperature, 2)
        dyn.atoms.get_forces()  # what EMT prepares
        monitor = None
        if reference is not None:
            monitor = Monitor(reference, dyn, **HOW, **options)
            dyn.attach(monitor, interval=every)
        before = time.perf_counter()
        dyn.run(steps)
        return time.perf_counter() - before, monitor


class Lammps:
    """EAM copper with a Nosé-Hoover thermostat: c x c x 2c cubic cells."""

    name = "LAMMPS, EAM"

    def __init__(self, cells: int, warm_up: int) -> None:
        self.lammps, self.cells, self.warm_up = import_lammps(), cells, warm_up
        self.n = 8 * cells**3

    def open(self, temperature: float, seed: int) -> Any:
        """A simulation that has run for some steps."""
        lmp = self.lammps.lammps(cmdargs=["-log", "none", "-screen", "none", "-nocite"])
        c = self.cells
        lmp.commands_string(
            f"units metal\nlattice fcc 3.615\nregion box block 0 {c} 0 {c} 0 {2 * c}\ncreate_box 1 box\n"
            f"create_atoms 1 box\nmass 1 63.546\npair_style eam\npair_coeff * * {potential_file('Cu_u3.eam')}\n"
            f"velocity all create {2 * temperature} {seed}\ntimestep 0.002\nthermo 100\n"
            f"fix move all nvt temp {temperature} {temperature} 0.1\nrun {2 * self.warm_up}"
        )
        return lmp

    def frames(self, count: int, interval: int, seed: int = 1, heated: bool = False) -> list[Atoms]:
        """Frames for a reference, or frames that leave it."""
        lmp = self.open(KNOWN, seed)
        if heated:
            lmp.command(f"fix move all nvt temp {KNOWN} 1500 0.1")
        kept: list[Atoms] = []
        anything = Reference.fit([bulk("Cu").repeat(2)])
        options: dict[str, Any] = {"threshold": -1e9, "max_frames": 0, "every": interval}
        with LammpsMonitor(anything, lmp, type_map={1: "Cu"}, action=lambda a, _: kept.append(a), **options):
            lmp.command(f"run {interval * count}")
        lmp.close()
        return kept[:count]

    def run(
        self, temperature: float, steps: int, every: int, reference: Reference | None, **options: Any
    ) -> tuple[float, Monitor | None]:
        """Seconds of wall time, and the monitor."""
        lmp, monitor = self.open(temperature, 2), None
        if reference is not None:
            monitor = LammpsMonitor(reference, lmp, type_map={1: "Cu"}, every=every, **HOW, **options)
        before = time.perf_counter()
        lmp.command(f"run {steps}")
        seconds = time.perf_counter() - before
        lmp.close()
        return seconds, monitor


# --- figures ----------------------------------------------------------------------------------------------------------


def known_runs(engine: Ase | Lammps, references: list[Reference], every: int, steps: int, repeats: int) -> Rows:
    """Runs at the temperature of the reference, with and without a monitor, in turn."""
    kinds = [(reference, threshold) for reference in references for threshold in THRESHOLDS]
    walls: dict[int, list[float]] = {n: [] for n in range(len(kinds) + 1)}
    monitors: dict[int, list[Monitor]] = {n: [] for n in range(len(kinds))}
    for _ in range(repeats):
        for n, (reference, threshold) in enumerate([*kinds, (None, 0.0)]):
            seconds, monitor = engine.run(KNOWN, steps, every, reference, threshold=threshold)
            walls[n].append(seconds)
            if monitor is not None:
                monitors[n].append(monitor)
    without = statistics.median(walls[len(kinds)])
    rows = []
    for n, (reference, threshold) in enumerate(kinds):
        looks = [monitor.history[1:] for monitor in monitors[n]]
        rows.append(
            {
                "engine": engine.name,
                "atoms": engine.n,
                "reference": len(reference),
                "every": every,
                "threshold": monitors[n][0].threshold,
                "auto": threshold == "auto",
                "step_ms": 1e3 * without / steps,
                "look_ms": 1e3 * statistics.median(seconds_per_look(monitor) for monitor in monitors[n]),
                "share": statistics.median(monitor.overhead for monitor in monitors[n]),
                "difference": 1.0 - without / statistics.median(walls[n]),
                "novel": float(np.mean([look["n_novel"].mean() / engine.n for look in looks])),
                "flagged": float(np.mean([look["flagged"].mean() for look in looks])),
            }
        )
        print_row(rows[-1])
    return rows


def seconds_per_look(monitor: Monitor) -> float:
    """Of all looks but the first, which prepares the reference."""
    return (monitor.seconds - monitor._first) / (monitor.n_calls - 1)


def hot_runs(engine: Ase | Lammps, references: list[Reference], every: int, looks: int, repeats: int) -> Rows:
    """A liquid that the reference does not know: looks, and looks that keep their frame."""
    rows = []
    for reference in references:
        row: dict[str, Any] = {"engine": engine.name, "atoms": engine.n, "reference": len(reference)}
        ways: dict[str, dict[str, Any]] = {"look_ms": {"max_frames": 0}, "kept_ms": {"min_new": 0.0}}
        for name, options in ways.items():
            found = []
            for _ in range(repeats):
                monitor = engine.run(HOT, every * looks, every, reference, threshold="auto", **options)[1]
                assert monitor is not None
                found.append(monitor)
            row[name] = 1e3 * statistics.median(seconds_per_look(monitor) for monitor in found)
        row["novel"] = float(found[-1].history["n_novel"].mean() / engine.n)
        row["kept"] = found[-1].n_collected / found[-1].n_calls
        rows.append(row)
        print_row(row)
    return rows


def thinned(engine: Lammps, frames: list[Atoms], interval: int) -> Rows:
    """What is lost, and what is won, if the reference has every second, fourth, ... of its frames."""
    known = engine.frames(30, interval, seed=5)
    heated = engine.frames(40, interval, seed=6, heated=True)
    rows = []
    for step in (step for step in (1, 2, 4, 10, 25, 50) if len(frames) >= 2 * step):
        reference = Reference.fit(frames[::step], bandwidth=0.015)
        monitor = Monitor(reference, threshold="auto", max_frames=0, **HOW)
        for atoms in [*known, *heated]:
            monitor.look(atoms)
        shares = monitor.history["n_novel"] / engine.n
        rows.append(
            {
                "reference": len(reference),
                "threshold": monitor.threshold,
                "look_ms": 1e3 * seconds_per_look(monitor),
                "known": float(shares[: len(known)].mean()),
                "heated": shares[len(known) :][9::10].tolist(),
            }
        )
        print_row(rows[-1])
    return rows


def mechanisms(engine: Lammps, every: int, steps: int, repeats: int) -> Rows:
    """Ways to stop at every so many steps of LAMMPS, without doing anything there."""

    def callback(copying: bool) -> Callable[[Any], None]:
        def attach(lmp: Any) -> None:
            def call(caller: Any, step: int, n: int, tag: np.ndarray, x: np.ndarray, f: np.ndarray) -> None:
                if copying:
                    order = np.argsort(tag)
                    _ = x[order], lmp.extract_box(), lmp.numpy.extract_atom("type")[:n][order]

            lmp.command(f"fix look all external pf/callback {every} {every * 10**8}")
            lmp.set_fix_external_callback("look", call)

        return attach

    def pieces(how: str) -> Callable[[Any], None]:
        def run(lmp: Any) -> None:
            lmp.command(f"run {every} post no")
            for _ in range(steps // every - 1):
                lmp.command(f"run {every} {how}")

        return run

    def whole(lmp: Any) -> None:
        lmp.command(f"run {steps}")

    ways: dict[str, tuple[Callable[[Any], None] | None, Callable[[Any], None]]] = {
        "nothing: one run": (None, whole),
        "fix external, a call that returns at once": (callback(False), whole),
        "fix external, positions and box taken (used here)": (callback(True), whole),
        f"pieces of {every} steps, `pre no post no`": (None, pieces("pre no post no")),
        f"pieces of {every} steps": (None, pieces("post no")),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(repeats + 1):
        for name, (prepare, run) in ways.items():
            lmp = engine.open(KNOWN, 3)
            if prepare is not None:
                prepare(lmp)
            before = time.perf_counter()
            run(lmp)
            if turn > 0:
                seconds[name].append(time.perf_counter() - before)
            lmp.close()
    plain = statistics.median(seconds["nothing: one run"])
    rows = [
        {"way": name, "step_ms": 1e3 * statistics.median(s) / steps, "more": statistics.median(s) / plain - 1.0}
        for name, s in seconds.items()
    ]
    for row in rows:
        print_row(row)
    return rows


def measure(quick: bool, repeats: int) -> dict[str, Any]:
    """All figures."""
    cells, warm_up, interval = (2, 40, 5) if quick else (5, 400, 20)
    counts = (2, 4) if quick else (20, 100)
    engines: list[Ase | Lammps] = [Ase(cells, warm_up)]
    try:
        engines.append(Lammps(cells, warm_up))
    except MissingExtraError as error:
        print(f"LAMMPS is left out: {error}")
    known: Rows = []
    hot: Rows = []
    ways: Rows = []
    thin: Rows = []
    for engine in engines:
        frames = engine.frames(max(counts), interval)
        references = [Reference.fit(frames[:: max(counts) // count], bandwidth=0.015) for count in counts]
        for reference in references:
            reference.threshold(HOW["false_alarm"])
            reference.is_novel(frames[0])
            reference.score(frames[0])
        lammps = isinstance(engine, Lammps)
        looks = 4 if quick else 40 if lammps else 20
        for every in (10, 100) if lammps else (10,):
            known += known_runs(engine, references, every, looks * every, repeats)
        hot += hot_runs(engine, references, 10, 4 if quick else 20, max(1, repeats // 2))
        if isinstance(engine, Lammps):
            thin = thinned(engine, frames, interval)
            ways = mechanisms(engine, 10, 50 if quick else 5000, repeats)
    parts = {"known": known, "hot": hot, "thinned": thin, "mechanisms": ways}
    return {"cores": available_cores(), **parts, "machine": machine()}


# --- tables -----------------------------------------------------------------------------------------------------------


def markdown(results: dict[str, Any]) -> str:
    """The results as Markdown."""
    where = results["machine"]
    lines = [
        f"Measured on {where['cores']} cores ({where['processor']}, {'with' if where['avx512'] else 'without'} "
        f"AVX-512), {where['date']}. References: frames of the same copper at 300 K, h = 0.015 1/Å.",
        "",
        "**At the temperature of the reference.** Share: time in looks by wall time; difference: wall time with the "
        "monitor against without.",
        "",
        "| engine | atoms | reference | threshold, nats | look every | one step, ms | one look, ms | share | "
        "difference | novel atoms | flagged frames |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row['engine']} | {row['atoms']:,} | {row['reference']:,} | "
        f"{row['threshold']:.3g}{' (auto)' if row['auto'] else ''} | {row['every']} steps | {row['step_ms']:.2f} | "
        f"{row['look_ms']:.1f} | {row['share']:.1%} | {row['difference']:.1%} | {row['novel']:.1%} | "
        f"{row['flagged']:.1%} |"
        for row in results["known"]
    ]
    lines += [
        "",
        "**In a liquid that the reference does not know.** One look, and one look that keeps its frame (dH of all "
        "atoms, and what was collected is searched and extended).",
        "",
        "| engine | atoms | reference | novel atoms | one look, ms | with all frames kept, ms | frames kept |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row['engine']} | {row['atoms']:,} | {row['reference']:,} | {row['novel']:.1%} | {row['look_ms']:.1f} | "
        f"{row['kept_ms']:.1f} | {row['kept']:.0%} |"
        for row in results["hot"]
    ]
    if results["thinned"]:
        lines += [
            "",
            "**A reference with fewer frames** (LAMMPS, threshold auto, 1 % of known atoms): share of novel atoms in "
            "frames of another run at the temperature of the reference, and of one that is heated from 300 to 1500 K.",
            "",
            "| reference | threshold, nats | one look, ms | known | heated, a quarter | half | three quarters | all |",
            "|---|---|---|---|---|---|---|---|",
        ]
        lines += [
            f"| {row['reference']:,} | {row['threshold']:.2f} | {row['look_ms']:.1f} | {row['known']:.1%} | "
            f"{' | '.join(f'{share:.1%}' for share in row['heated'])} |"
            for row in results["thinned"]
        ]
    if results["mechanisms"]:
        lines += [
            "",
            "**Ways into LAMMPS**, every 10 steps, with nothing done there:",
            "",
            "| way | one step, ms | more than without |",
            "|---|---|---|",
        ]
        lines += [f"| {row['way']} | {row['step_ms']:.3f} | {row['more']:+.1%} |" for row in results["mechanisms"]]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--quick", action="store_true", help="small sizes; nothing is written, unless --output is given"
    )
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--output", type=Path, help="folder for the results, in place of benchmarks/results")
    options = parser.parse_args()
    results = measure(options.quick, 1 if options.quick else options.repeats)
    text = markdown(results)
    print(text)
    if options.quick and options.output is None:
        return
    folder = options.output or RESULTS
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "overhead.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    (folder / "overhead.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
