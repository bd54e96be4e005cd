#!/usr/bin/env python
"""From a table of free energies to thermal expansion and a critical point.

    python scripts/fit_free_energy.py examples/two_solids.csv --atoms 4

A complete example to copy and change. The table has the columns volume_A3, T_K and free_energy_eV. It writes the model
(a folder) and a figure; what exists is left alone unless --overwrite is given.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from quests_zenn.zenn import ZENN, thermo


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("table", help="a csv file with the columns volume_A3, T_K, free_energy_eV")
    parser.add_argument("--atoms", type=int, default=1, help="atoms that the volumes and energies refer to")
    parser.add_argument("--configurations", type=int, default=12)
    parser.add_argument("--members", type=int, default=5, help="of the committee, whose spread gives the errors")
    parser.add_argument("--pressures", type=float, nargs="+", default=[0.0, 2.0, 4.0], help="GPa")
    parser.add_argument("--output", default="free_energy", help="the folder of the model; the figure ends in .png")
    parser.add_argument("--overwrite", action="store_true", help="replace what exists")
    options = parser.parse_args()
    picture = Path(f"{options.output}.png")
    there = [str(path) for path in (Path(options.output), picture) if path.exists()]
    if there and not options.overwrite:
        parser.error(f"{', '.join(there)}: there already; move it away, or say --overwrite")

    table = np.genfromtxt(options.table, delimiter=",", names=True)
    V, T, F = table["volume_A3"], table["T_K"], table["free_energy_eV"]
    model = ZENN(options.configurations, n_atoms=options.atoms, n_members=options.members, random_state=0)
    model.fit(V, T, F=F)
    model.save(options.output, overwrite=options.overwrite)
    told = model.report_["targets"]["F"]
    print(f"{told['n']} free energies: rms {1e3 * told['rms']:.2f} meV, noise found {1e3 * told['noise']:.2f} meV")

    # what follows from it: isobars, where they shrink on heating, and where the jump of the volume ends
    temperatures = np.linspace(*model.T_range_, 91)
    isobars = thermo.equilibrium(model, np.array(options.pressures)[:, None], temperatures)
    for pressure, ranges in zip(
        options.pressures, thermo.negative_expansion(model, options.pressures).ranges, strict=True
    ):
        spans = [f"{r.low:.0f} to {r.high:.0f} K" for r in ranges]
        print(f"{pressure:g} GPa: shrinks on heating {', '.join(spans) or 'nowhere'}")
    point = thermo.critical_point(model)
    if point is None:
        print("no critical point")
    else:
        print(
            f"critical point at {point.temperature:.0f} ± {point.temperature_std:.0f} K, "
            f"{point.pressure:.2f} ± {point.pressure_std:.2f} GPa"
        )

    figure, (left, right) = plt.subplots(1, 2, figsize=(9.0, 4.0), layout="constrained")
    for pressure, v, std in zip(options.pressures, isobars.volume, isobars.volume_std, strict=True):
        left.plot(temperatures, v, label=f"{pressure:g} GPa")
        left.fill_between(temperatures, v - std, v + std, alpha=0.3)
    left.set(xlabel="T (K)", ylabel="volume (Å3)")
    left.legend(frameon=False)
    volumes = np.linspace(*model.x_range_[0], 201)
    for temperature in temperatures[:46:15]:
        p, std = model.pressure(volumes, temperature, std=True)
        right.plot(volumes, p, label=f"{temperature:.0f} K")
        right.fill_between(volumes, p - std, p + std, alpha=0.3)
    right.set(xlabel="volume (Å3)", ylabel="P (GPa)")
    right.legend(frameon=False)
    figure.savefig(picture, dpi=150)


if __name__ == "__main__":
    main()
