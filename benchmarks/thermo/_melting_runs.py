"""Dynamics of copper that melts and freezes: run by LAMMPS from Python, kept under build/thermo, not run twice.

A file holds the frames of one run, and everything that was asked of it as a text; its name ends with a checksum of that
text, so that other settings are another file.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from quests_zenn.uq.lammps import import_lammps, potential_file

FloatArray = npt.NDArray[np.float64]

POTENTIAL = "Cu_mishin1.eam.alloy"

#: eV/Å3 is so many bar, the unit of LAMMPS; a GPa is 10,000 of them.
BAR_PER_GPA = 1e4

#: Lattice constant from which runs begin, Å; the barostat finds the right one.
LATTICE = 3.65


@dataclass(frozen=True)
class Frames:
    """Frames of a run, and scalars that were taken more often.

    Attributes
    ----------
    positions : array (F, N, 3), Å
    lengths : array (F, 3), Å
        Edges of the cell.
    time : array (F,), ps
    target : array (F,), K
        Temperature of the thermostat; that of the atoms where there is none.
    scalars : dict of arrays
        ``time`` (ps), ``temperature`` (K), ``energy`` (potential, eV per atom), ``volume`` (Å3 per atom), ``pressure``
        (GPa).
    asked : dict
        What was asked for.
    """

    positions: npt.NDArray[np.float32]
    lengths: FloatArray
    time: FloatArray
    target: FloatArray
    scalars: dict[str, FloatArray]
    asked: dict[str, Any]

    def __len__(self) -> int:
        return len(self.time)

    def tuples(self, chosen: Any = slice(None)) -> list[tuple[Any, ...]]:
        """Frames as `quests_zenn.descriptors.describe` takes them."""
        n = self.positions.shape[1]
        numbers, periodic = np.full(n, 29), (True, True, True)
        return [
            (self.positions[i].astype(float), np.diag(self.lengths[i]), periodic, numbers)
            for i in np.arange(len(self))[chosen]
        ]

    def near(self, key: str) -> FloatArray:
        """A scalar at the frames: mean over what was taken since the frame before."""
        found, last = np.empty(len(self)), -np.inf
        for i, t in enumerate(self.time):
            mask = (self.scalars["time"] > last + 1e-9) & (self.scalars["time"] <= t + 1e-9)
            found[i], last = self.scalars[key][mask].mean(), t
        return found


@dataclass(frozen=True)
class Ramp:
    """Heating of a crystal or cooling of a liquid, at constant pressure 0, until some time after it has changed."""

    cells: int
    begin: float
    end: float
    rate: float
    every: float
    seed: int = 1
    after: float = 21.0
    step: float = 0.003
    kind: str = "ramp"


@dataclass(frozen=True)
class TwoPhase:
    """Crystal and liquid in one cell, constant pressure (GPa) and enthalpy."""

    cells: tuple[int, int, int]
    pressure: float
    guess: float
    length: float
    every: float
    seed: int = 1
    step: float = 0.002
    kind: str = "two_phase"


@dataclass(frozen=True)
class Hold:
    """Undercooled liquid or superheated crystal at one temperature, until it has changed or time is up."""

    cells: int
    phase: str
    temperature: float
    length: float
    every: float
    seed: int = 1
    after: float = 9.0
    step: float = 0.003
    kind: str = "hold"


def trajectory(run: Ramp | TwoPhase | Hold, cache: Path, stored_only: bool = False) -> Frames | None:
    """The frames of a run: those that are kept, or, unless `stored_only`, new ones."""
    asked = asdict(run) | {"potential": POTENTIAL}
    text = json.dumps(asked, sort_keys=True)
    path = cache / f"melting_{run.kind}_{hashlib.sha256(text.encode()).hexdigest()[:12]}.npz"
    if path.exists():
        with np.load(path) as kept:
            assert str(kept["asked"]) == text
            scalars = {key[2:]: kept[key] for key in kept.files if key.startswith("s_")}
            return Frames(*(kept[key] for key in ("positions", "lengths", "time", "target")), scalars, json.loads(text))
    if stored_only:
        return None
    began = time.perf_counter()
    found = {"ramp": _ramp, "two_phase": _two_phase, "hold": _hold}[run.kind](run)
    cache.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    with temporary.open("wb") as stream:
        np.savez(stream, asked=np.array(text), **found)
    os.replace(temporary, path)
    print(f"{path.name}: {text} in {time.perf_counter() - began:.0f} s", flush=True)
    return trajectory(run, cache)


class _Engine:
    """LAMMPS with a box of copper, and what was seen of it."""

    def __init__(self, cells: tuple[int, int, int], temperature: float, seed: int, step: float) -> None:
        self.step = step
        self.lmp = import_lammps().lammps(cmdargs=["-log", "none", "-screen", "none", "-suffix", "opt"])
        nx, ny, nz = cells
        self.do(
            f"""units metal
            lattice fcc {LATTICE}
            region box block 0 {nx} 0 {ny} 0 {nz}
            create_box 1 box
            create_atoms 1 box
            pair_style eam/alloy
            pair_coeff * * {potential_file(POTENTIAL)} Cu
            neigh_modify every 5 delay 0 check yes
            velocity all create {2 * temperature} {1000 + seed} mom yes rot no dist gaussian
            timestep {step}
            thermo_style custom step temp pe vol press
            thermo 1000000"""
        )
        self.n = self.lmp.get_natoms()
        self.frames: list[tuple[Any, ...]] = []
        self.rows: list[tuple[float, ...]] = []

    def do(self, text: str) -> None:
        self.lmp.commands_string("\n".join(line.strip() for line in text.splitlines()))

    def run(self, length: float, extra: str = "") -> None:
        """Run so many ps, without looking."""
        self.do(f"run {round(length / self.step)} {extra}")

    def watch(self, length: float, every: float, look: float = 0.3, target: Any = None, stop: Any = None) -> None:
        """Run so many ps: scalars each `look`, frames each `every` ps; `stop` may end it."""
        self.do("reset_timestep 0")
        total, chunk, gap = (round(part / self.step) for part in (length, look, every))
        for done in range(chunk, total + 1, chunk):
            self.do(f"run {chunk} start 0 stop {total}")
            t = done * self.step
            value = [self.lmp.get_thermo(key) for key in ("temp", "pe", "vol", "press")]
            self.rows.append((t, value[0], value[1] / self.n, value[2] / self.n, value[3] / BAR_PER_GPA))
            if done % gap == 0:
                low, high = (np.array(part) for part in self.lmp.extract_box()[:2])
                x = np.array(self.lmp.gather_atoms("x", 1, 3)).reshape(-1, 3) - low
                temperature = value[0] if target is None else target(t)
                self.frames.append((x % (high - low), high - low, t, temperature))
                if stop is not None and stop():
                    break

    def energies(self) -> FloatArray:
        return np.array([row[2] for row in self.rows])

    def close(self) -> dict[str, Any]:
        self.lmp.close()
        positions, lengths, times, target = zip(*self.frames, strict=True)
        columns = np.array(self.rows).T
        names = ("time", "temperature", "energy", "volume", "pressure")
        return {
            "positions": np.array(positions, np.float32),
            "lengths": np.array(lengths),
            "time": np.array(times),
            "target": np.array(target),
        } | {f"s_{name}": column for name, column in zip(names, columns, strict=True)}


def _melt(engine: _Engine, temperature: float, seed: int) -> None:
    """Make a liquid of a crystal, and bring it to a temperature."""
    hot = 2600.0
    engine.do(f"velocity all create {2 * hot} {2000 + seed} mom yes rot no dist gaussian")
    engine.do(f"fix npt all npt temp {hot} {hot} 0.1 iso 0 0 1.0")
    engine.run(8.0)
    engine.do(f"unfix npt\nfix npt all npt temp {hot} {temperature} 0.1 iso 0 0 1.0")
    engine.run(6.0)
    engine.do(f"unfix npt\nfix npt all npt temp {temperature} {temperature} 0.1 iso 0 0 1.0")
    engine.run(4.0)
    engine.do("unfix npt")


def _settle(engine: _Engine, temperature: float) -> None:
    """Bring a crystal to a temperature."""
    engine.do(f"fix npt all npt temp {temperature} {temperature} 0.1 iso 0 0 1.0")
    engine.run(6.0)
    engine.do("unfix npt")


def _ramp(run: Ramp) -> dict[str, Any]:
    engine = _Engine((run.cells,) * 3, run.begin, run.seed, run.step)
    if run.end < run.begin:
        _melt(engine, run.begin, run.seed)
    else:
        _settle(engine, run.begin)
    slope = float(np.sign(run.end - run.begin)) * run.rate
    engine.do(f"fix npt all npt temp {run.begin} {run.end} 0.1 iso 0 0 1.0")
    changed: list[float] = []

    def stop() -> bool:
        energy = engine.energies()
        # within 30 ps; without a transition it is 0.01 eV per atom
        if len(energy) > 107 and abs(energy[-7:].mean() - energy[-107:-100].mean()) > 0.05:
            changed.append(engine.rows[-1][0])
        return bool(changed) and engine.rows[-1][0] > changed[0] + run.after

    length = abs(run.end - run.begin) / run.rate
    engine.watch(length, run.every, target=lambda t: run.begin + slope * t, stop=stop)
    return engine.close()


def _two_phase(run: TwoPhase) -> dict[str, Any]:
    """The upper half is melted under a hot thermostat, the lower kept by a cool one; then both are left alone."""
    engine = _Engine(run.cells, run.guess, run.seed, run.step)
    p = run.pressure * BAR_PER_GPA
    engine.do(f"fix npt all npt temp {run.guess} {run.guess} 0.1 aniso {p} {p} 1.0 couple xy")
    engine.run(6.0)
    engine.do(
        f"""unfix npt
        variable high equal bound(all,zmin)+0.5*lz
        region high block INF INF INF INF $(v_high) INF units box
        group hot region high
        group cold subtract all hot
        fix box all nph z {p} {p} 1.0
        fix hot hot langevin {1.9 * run.guess} {1.9 * run.guess} 0.05 {3000 + run.seed}
        fix cold cold langevin {run.guess} {run.guess} 0.05 {4000 + run.seed}"""
    )
    engine.run(6.0)
    engine.do(f"fix hot hot langevin {run.guess} {run.guess} 0.1 {5000 + run.seed}")
    engine.run(4.0)
    engine.do(
        f"""unfix hot
        unfix cold
        unfix box
        velocity all zero linear
        fix box all nph aniso {p} {p} 2.0 couple xy"""
    )
    engine.watch(run.length, run.every, look=0.2)
    return engine.close()


def _hold(run: Hold) -> dict[str, Any]:
    engine = _Engine((run.cells,) * 3, run.temperature, run.seed, run.step)
    liquid = run.phase == "liquid"
    if liquid:
        _melt(engine, run.temperature, run.seed)
    else:
        _settle(engine, run.temperature)
    engine.do(f"fix npt all npt temp {run.temperature} {run.temperature} 0.1 iso 0 0 1.0")
    changed: list[float] = []

    def stop() -> bool:
        energy = engine.energies()
        if len(energy) < 50:
            return False
        shift = (energy[-10:].mean() - energy[10:30].mean()) * (-1.0 if liquid else 1.0)
        if shift > 0.04:
            changed.append(engine.rows[-1][0])
        return bool(changed) and engine.rows[-1][0] > changed[0] + run.after

    engine.watch(run.length, run.every, stop=stop)
    return engine.close()
