#!/usr/bin/env python
"""Make ``copper_melting.xyz``: copper heated through its melting point.

A periodic crystal of 256 copper atoms, described by ASE's effective medium
theory (EMT) potential, is heated at zero pressure by Langevin dynamics, from
600 K to 2000 K within 154 ps. Free of defects, it superheats and melts within
a few picoseconds near 1650 K.

Every frame of the extended XYZ file holds species and positions (angstrom),
the periodic cell (angstrom), and in its comment line

``energy``
    potential energy of the frame, in eV;
``temperature``
    instantaneous kinetic temperature, in K;
``target_temperature``
    temperature of the thermostat, in K;
``time_ps``
    time since the start of the ramp, in ps.

Run ``python make_copper_melting.py --help`` for the options. It takes about
ten minutes on one core. The same seed gives the same file on the same machine with
the same versions of ASE and NumPy.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from ase import Atoms, units
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.md.langevin import Langevin

# The crystal: fcc cubic cells along each axis, and a lattice constant (in
# angstrom) close to that of EMT copper at the initial temperature.
CELLS = 4
LATTICE_CONSTANT = 3.62

# The ramp: temperatures (in K) of the first and the last frame.
FRAMES = 160
FIRST_TEMPERATURE = 600.0
LAST_TEMPERATURE = 2000.0

# The dynamics, in blocks of steps at constant volume: times in fs, the
# compressibility (in 1/GPa) a round number of the order of that of copper.
TIMESTEP = 8.0
STEPS_PER_BLOCK = 20
EQUILIBRATION_BLOCKS = 30
BLOCKS_PER_FRAME = 6
THERMOSTAT_TIME = 100.0
BAROSTAT_TIME = 500.0
COMPRESSIBILITY = 0.01


def relax_volume(atoms: Atoms) -> None:
    """Scale cell and positions a little towards zero pressure.

    This is the weak coupling of Berendsen, once per block of steps.

    Parameters
    ----------
    atoms : Atoms
        Crystal or liquid with momenta and a calculator; it is changed.
    """
    stress = atoms.get_stress(voigt=False, include_ideal_gas=True)
    pressure = -np.trace(stress) / 3.0 / units.GPa
    coupling = STEPS_PER_BLOCK * TIMESTEP / BAROSTAT_TIME
    expansion = 1.0 + coupling * COMPRESSIBILITY * pressure
    atoms.set_cell(atoms.cell * expansion ** (1.0 / 3.0), scale_atoms=True)


def simulate(seed: int) -> Iterator[Atoms]:
    """Heat a copper crystal through melting.

    Parameters
    ----------
    seed : int
        Seed of the random forces of the thermostat.

    Yields
    ------
    Atoms
        The frames in order of time. It is the same object each time,
        which the simulation goes on to change.
    """
    atoms = bulk("Cu", "fcc", a=LATTICE_CONSTANT, cubic=True).repeat(CELLS)
    atoms.calc = EMT()
    # The thermostat also sets the atoms in motion: they start at rest.
    atoms.set_momenta(np.zeros((len(atoms), 3)))
    dynamics = Langevin(
        atoms,
        TIMESTEP * units.fs,
        temperature_K=FIRST_TEMPERATURE,
        friction=1.0 / (THERMOSTAT_TIME * units.fs),
        fixcm=False,
        rng=np.random.default_rng(seed),
    )

    def advance(blocks: int) -> None:
        for _ in range(blocks):
            relax_volume(atoms)
            dynamics.run(STEPS_PER_BLOCK)

    advance(EQUILIBRATION_BLOCKS)
    blocks_done = 0
    for target in np.linspace(FIRST_TEMPERATURE, LAST_TEMPERATURE, FRAMES).tolist():
        dynamics.set_temperature(temperature_K=target)
        advance(BLOCKS_PER_FRAME)
        blocks_done += BLOCKS_PER_FRAME
        atoms.info["energy"] = atoms.get_potential_energy()
        atoms.info["temperature"] = atoms.get_temperature()
        atoms.info["target_temperature"] = target
        atoms.info["time_ps"] = blocks_done * STEPS_PER_BLOCK * TIMESTEP / 1000.0
        yield atoms


def format_frame(atoms: Atoms) -> str:
    """Format a frame as extended XYZ, with few enough digits to stay small.

    Parameters
    ----------
    atoms : Atoms
        Frame with the four quantities of the comment line in ``atoms.info``.
        Positions are written wrapped into the cell.

    Returns
    -------
    str
        The text of the frame, ending in a newline.
    """
    lattice = " ".join(f"{value:.6f}" for value in atoms.cell.array.ravel())
    info = atoms.info
    comment = (
        f'Lattice="{lattice}" Properties=species:S:1:pos:R:3 pbc="T T T"'
        f" energy={info['energy']:.5f}"
        f" temperature={info['temperature']:.2f}"
        f" target_temperature={info['target_temperature']:.2f}"
        f" time_ps={info['time_ps']:.3f}"
    )
    lines = [str(len(atoms)), comment]
    positions = atoms.get_positions(wrap=True)
    for symbol, (x, y, z) in zip(atoms.symbols, positions, strict=True):
        lines.append(f"{symbol} {x:.5f} {y:.5f} {z:.5f}")
    return "\n".join(lines) + "\n"


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line.

    Parameters
    ----------
    arguments : list of str, optional
        The arguments; those of the process if not given.

    Returns
    -------
    argparse.Namespace
        The options ``output``, ``overwrite`` and ``seed``.
    """
    parser = argparse.ArgumentParser(
        description="Simulate copper heated through its melting point.",
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path(__file__).resolve().with_name("copper_melting.xyz"),
        help="the file to write (default: %(default)s)",
    )
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="replace the file if it exists",
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        help="seed of the random numbers (default: %(default)s)",
    )
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Run the simulation and write its frames.

    Parameters
    ----------
    arguments : list of str, optional
        The command line; that of the process if not given.

    Returns
    -------
    int
        The exit status: 0, or 1 if the output exists already.
    """
    options = parse_arguments(arguments)
    output: Path = options.output
    if output.exists() and not options.overwrite:
        print(
            f"{output} exists already; give --overwrite to replace it.",
            file=sys.stderr,
        )
        return 1

    # The frames go to a temporary name first, so that an interrupted run
    # leaves no incomplete file under the final one.
    temporary = output.with_name(f".{output.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8", newline="\n") as file:
            for number, atoms in enumerate(simulate(options.seed), start=1):
                file.write(format_frame(atoms))
                if number % 10 == 0 or number == FRAMES:
                    print(
                        f"frame {number:3d} of {FRAMES}:"
                        f" {atoms.info['time_ps']:6.2f} ps,"
                        f" {atoms.info['temperature']:7.1f} K,"
                        f" {atoms.info['energy']:9.3f} eV",
                        flush=True,
                    )
        temporary.replace(output)
    finally:
        temporary.unlink(missing_ok=True)
    print(f"wrote {output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
