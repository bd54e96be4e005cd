"""Make copper_states.xyz: copper at three volumes and four temperatures, with energies and stresses.

    python make_copper_states.py --overwrite        # about two minutes on one core

ASE's EMT potential, 32 atoms, dynamics at given volume and temperature (Bussi, Donadio and Parrinello, J. Chem. Phys.
126, 014101 (2007)), time step 5 fs; 24 frames of each state, 0.4 ps apart, after 4 ps.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from ase import units
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write
from ase.md.bussi import Bussi
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution, Stationary

#: Å3 per atom, and K.
VOLUMES = (11.3, 11.8, 12.3)
TEMPERATURES = (300, 600, 900, 1200)

#: Frames of each state, steps before the first one and between two.
FRAMES, BEFORE, BETWEEN = 24, 800, 80


def state(volume: float, temperature: float, seed: int) -> list:
    """Frames of one state."""
    atoms = bulk("Cu", a=(4.0 * volume) ** (1.0 / 3.0), cubic=True) * (2, 2, 2)
    atoms.calc = EMT()
    rng = np.random.default_rng(seed)
    MaxwellBoltzmannDistribution(atoms, temperature_K=2.0 * temperature, rng=rng)
    Stationary(atoms)
    dynamics = Bussi(atoms, 5.0 * units.fs, temperature_K=temperature, taut=100.0 * units.fs, rng=rng)
    dynamics.run(BEFORE)
    frames = []
    for _ in range(FRAMES):
        dynamics.run(BETWEEN)
        frame = atoms.copy()
        frame.wrap()
        frame.positions = frame.positions.round(4)
        del frame.arrays["momenta"]
        energy, stress = round(atoms.get_potential_energy(), 6), atoms.get_stress().round(8)
        frame.calc = SinglePointCalculator(frame, energy=energy, stress=stress)
        frame.info = {"temperature": temperature}
        frames.append(frame)
    return frames


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--overwrite", action="store_true", help="replace what exists")
    target = Path(__file__).with_name("copper_states.xyz")
    if target.exists() and not parser.parse_args().overwrite:
        parser.error(f"{target.name}: there already; say --overwrite")
    frames = []
    for i, volume in enumerate(VOLUMES):
        for j, temperature in enumerate(TEMPERATURES):
            frames += state(volume, temperature, seed=100 * i + j)
    unfinished = target.with_suffix(".part")
    write(unfinished, frames, format="extxyz", columns=["symbols", "positions"])
    unfinished.replace(target)


if __name__ == "__main__":
    main()
