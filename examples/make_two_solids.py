#!/usr/bin/env python
"""Make ``two_solids.csv``: free energies of a made-up crystal that can be one of two solids.

The unit is a cell of 4 atoms. The first solid is the lower one in energy, and the larger one. The second is 70 meV
higher and 3 % smaller, and there are 40 ways to be it (think of spins that may point in many ways). So the second wins
when it is hot, and the crystal shrinks on its way there: smoothly at low pressure, with a jump at high pressure. Each
solid is

    F_k(V, T) = E_k(V) + vibrations(theta_k(V), T) - k_B T ln g_k

with E_k of Birch and Murnaghan and vibrations of 3 N oscillators of one frequency (Einstein), and they mix as

    F = -k_B T ln sum_k exp(-F_k / k_B T).

Columns of the table, per cell, with random errors of the stated sizes:

``volume_A3``, ``T_K``
    the state, without errors;
``free_energy_eV``
    F, 0.5 meV;
``energy_eV``
    U = F - T dF/dT, 0.5 meV;
``pressure_GPa``
    -dF/dV, 0.05 GPa; known in every second row only.

``python make_two_solids.py --output table.csv`` writes it within a second; the same seed gives the same file.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

BOLTZMANN = 8.617333262145179e-5  # eV/K
GPA = 160.2176634  # GPa per eV/Å3
N_ATOMS = 4

# the two solids: energy (eV), volume (Å3), bulk modulus (GPa), its slope, Einstein temperature (K), Grueneisen
# parameter, and in how many ways a cell can be it
SOLIDS = (
    (0.000, 48.0, 150.0, 4.5, 260.0, 1.9, 1),
    (0.070, 46.5, 160.0, 4.8, 260.0, 2.1, 40),
)

VOLUMES = np.linspace(44.0, 51.0, 22)
TEMPERATURES = np.linspace(50.0, 500.0, 16)


def solid(volume: Array, temperature: Array, parameters: tuple[float, ...]) -> tuple[Array, Array, Array]:
    """Free energy (eV), energy (eV) and slope dF/dV (eV/Å3) of one solid."""
    lowest, at, modulus, slope, theta, grueneisen, ways = parameters
    strain = (at / volume) ** (2.0 / 3.0) - 1.0
    energy = lowest + 9.0 / 16.0 * at * modulus / GPA * ((slope - 4.0) * strain**3 + 2.0 * strain**2)
    by_strain = 9.0 / 16.0 * at * modulus / GPA * (3.0 * (slope - 4.0) * strain**2 + 4.0 * strain)
    tension = by_strain * (-2.0 / 3.0) * (strain + 1.0) / volume
    theta_here = theta * (volume / at) ** -grueneisen
    ratio = theta_here / temperature
    heat = 3 * N_ATOMS * BOLTZMANN
    vibrations = heat * (theta_here / 2.0 + temperature * np.log(-np.expm1(-ratio)))
    inner = heat * theta_here * (0.5 + 1.0 / np.expm1(ratio))
    free = energy + vibrations - BOLTZMANN * temperature * np.log(ways)
    return free, energy + inner, tension - grueneisen * inner / volume


def mixture(volume: Array, temperature: Array) -> tuple[Array, Array, Array]:
    """Free energy (eV), energy (eV) and pressure (GPa) of the crystal."""
    free, energy, slope = (
        np.array(part) for part in zip(*(solid(volume, temperature, s) for s in SOLIDS), strict=True)
    )
    exponents = -free / (BOLTZMANN * temperature)
    top = exponents.max(axis=0)
    shares = np.exp(exponents - top)
    total = -BOLTZMANN * temperature * (top + np.log(shares.sum(axis=0)))
    shares /= shares.sum(axis=0)
    return total, (shares * energy).sum(axis=0), -GPA * (shares * slope).sum(axis=0)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", default=str(Path(__file__).with_name("two_solids.csv")), help="the table")
    parser.add_argument("--overwrite", action="store_true", help="replace a file that exists")
    parser.add_argument("--seed", type=int, default=1, help="of the random errors")
    options = parser.parse_args()
    output = Path(options.output)
    if output.exists() and not options.overwrite:
        parser.error(f"{output}: exists already; choose another name or say --overwrite")
    rng = np.random.default_rng(options.seed)
    T, V = (grid.ravel() for grid in np.meshgrid(TEMPERATURES, VOLUMES, indexing="ij"))
    F, U, P = mixture(V, T)
    F = F + 0.5e-3 * rng.normal(size=len(F))
    U = U + 0.5e-3 * rng.normal(size=len(U))
    P = P + 0.05 * rng.normal(size=len(P))
    lines = ["volume_A3,T_K,free_energy_eV,energy_eV,pressure_GPa"]
    for row, (v, t, f, u, p) in enumerate(zip(V, T, F, U, P, strict=True)):
        lines.append(f"{v:.4f},{t:.0f},{f:.5f},{u:.5f},{'' if row % 2 else f'{p:.3f}'}")
    output.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"wrote {output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
