"""What structures made by `quests_zenn.uq.generate` cost in energy, for a potential that can be asked: EMT copper.

    python benchmarks/generated.py      # prints the table of docs/howto/generate.md

Energies per atom above that of the starting frame: means of 8 walks from four frames of the example, one generation.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from ase import Atoms
from ase.calculators.emt import EMT
from ase.io import read

from quests_zenn.uq import Reference, generate

EXAMPLE = Path(__file__).resolve().parent.parent / "examples" / "copper_melting.xyz"
TARGETS = (2.0, 5.0, 10.0, 20.0, 40.0)
STATISTICS = ("max", "quantile", "mean")


def energy(atoms: Atoms) -> float:
    """eV per atom."""
    atoms = atoms.copy()
    atoms.calc = EMT()
    return float(atoms.get_potential_energy()) / len(atoms)


def main() -> None:
    """Print one row for each target."""
    frames = read(EXAMPLE, ":100:10")
    reference, starts = Reference.fit(frames), frames[1:9:2]
    before = [energy(atoms) for atoms in starts]
    print("| target (nats) | " + " | ".join(STATISTICS) + " |\n| ---: |" + " ---: |" * len(STATISTICS))
    for target in TARGETS:
        cells = []
        for statistic in STATISTICS:
            options = {"statistic": statistic, "width": min(2.0, target / 5.0), "keep_all": True}
            found = generate(starts, reference, target, 8, rng=0, **options)
            costs = [energy(frame.atoms) - before[i % 4] for i, frame in enumerate(found)]
            missed = sum(frame.outcome == "missed" for frame in found)
            note = f" ({missed} of 8 missed)" if missed else ""
            cells.append(f"{np.mean(costs):.2f} ± {np.std(costs) / np.sqrt(8):.2f} eV{note}")
        print(f"| {target:g} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
