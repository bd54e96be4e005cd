#!/usr/bin/env python
"""Molecular dynamics with ASE that keeps what its training set does not know.

    python scripts/filter_md_ase.py --output new.xyz

A complete example to copy and change: copper at 300 K stands for the training set, and a run heated to 1000 K for the
simulation. Frames with atoms that the training set does not know are written to the output as they come. Start it again
with --resume if it was killed: no frame is stored twice.
"""

from __future__ import annotations

import argparse

import numpy as np
from ase import Atoms, units
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.md.langevin import Langevin

from quests_zenn.uq import Monitor, Reference


def dynamics(atoms: Atoms, temperature: float, seed: int) -> Langevin:
    """The simulation: put your potential and your thermostat here."""
    atoms.calc = EMT()
    rng = np.random.default_rng(seed)
    return Langevin(
        atoms, 5.0 * units.fs, temperature_K=temperature, friction=0.002 / units.fs, fixcm=False, rng=rng
    )  # fmt: skip


def training_set(cells: int, steps: int) -> list[Atoms]:
    """What the potential was trained on: read your own, ``ase.io.read("train.xyz", ":")``."""
    dyn = dynamics(bulk("Cu", cubic=True) * (cells, cells, cells), 300.0, seed=1)
    dyn.run(200)  # until it is in equilibrium
    frames: list[Atoms] = []
    dyn.attach(lambda: frames.append(dyn.atoms.copy()), interval=10)
    dyn.run(steps)
    return frames


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", default="new.xyz", help="extended XYZ file for frames that are new")
    parser.add_argument("--resume", action="store_true", help="go on with this file")
    parser.add_argument("--cells", type=int, default=3, help="cubic cells along each axis")
    parser.add_argument("--training-steps", type=int, default=2000)
    parser.add_argument("--steps", type=int, default=500)
    options = parser.parse_args()

    # groups: frames that follow each other know each other, and are left out together where the threshold is found
    frames = training_set(options.cells, options.training_steps)
    reference = Reference.fit(frames, bandwidth=0.03, groups=np.arange(len(frames)) // 10)
    print(reference)

    # hot: at first the run looks like the training set, then it does not
    dyn = dynamics(frames[-1].copy(), 1000.0, seed=2)
    monitor = Monitor(
        reference,
        dyn,
        threshold="auto",
        of="atom",
        false_alarm=0.1,  # of atoms like those of the training set, one in ten is novel; ten groups can tell that
        min_share=0.3,  # so three in ten in one frame are no accident
        action="record",  # or "stop", or a function of (atoms, report)
        path=options.output,
        resume=options.resume,
        max_frames=50,
    )
    dyn.attach(monitor, interval=10)
    dyn.run(options.steps)

    first = monitor.history["step"][monitor.history["flagged"]]
    print(f"threshold {monitor.threshold:.3f} nats, first flagged at step {first[0] if len(first) else 'none'}")
    print(f"{monitor.n_flagged} of {monitor.n_calls} frames flagged, {monitor.n_collected} kept in {options.output}")
    print(f"looking took {100 * monitor.overhead:.1f} % of the time")
    # next: compute energies and forces of the frames that were kept, add them to the training set, train again


if __name__ == "__main__":
    main()
