"""The program behind `IcetOracle`: ``python -P _icet_run.py SETTINGS POINTS RESULTS``.

It imports nothing of this package, so that each of the many runs begins at once.
"""

from __future__ import annotations

import csv
import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

FORMAT = "quests_zenn cluster expansion"


def structure_from_plain(document: Mapping[str, Any]) -> Any:
    """An ``ase.Atoms`` from what `_icet.structure_to_plain` makes of it."""
    from ase import Atoms

    return Atoms(
        document["symbols"], positions=document["positions"], cell=document["cell"], pbc=document["pbc"]
    )  # fmt: skip


def expansion_from_plain(document: Mapping[str, Any]) -> Any:
    """A cluster expansion from what `_icet.expansion_to_plain` makes of it.

    Raises
    ------
    ValueError
        If the document is not one of a cluster expansion.
    """
    from icet import ClusterExpansion, ClusterSpace

    try:
        if document["format"] != FORMAT:
            raise KeyError("format")
        space = ClusterSpace(
            structure_from_plain(document["structure"]),
            cutoffs=document["cutoffs"],
            chemical_symbols=document["chemical_symbols"],
            symprec=document["symprec"],
            position_tolerance=document["position_tolerance"],
        )
        for kind, value in document["history"]:
            if kind == "prune":
                space.prune_orbit_list(value)
            else:
                merged = {int(key): items for key, items in value.items()}
                space.merge_orbits(merged, ignore_permutations=True)
        return ClusterExpansion(space, document["parameters"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"this is no cluster expansion as it is written here ({error})") from None


def blocking_error(series: FloatArray) -> FloatArray:
    """Standard error of the mean of a correlated series (n, q): the largest over blocks of 1, 2, 4, ... entries.

    After Flyvbjerg and Petersen, J. Chem. Phys. 91 (1989) 461; blocks grow as long as there are at least 16.
    """
    largest = np.zeros(series.shape[1])
    blocks = series
    while len(blocks) >= 2:
        largest = np.maximum(largest, blocks.std(axis=0, ddof=1) / math.sqrt(len(blocks)))
        if len(blocks) < 32:
            break
        half = len(blocks) // 2
        blocks = 0.5 * (blocks[: 2 * half : 2] + blocks[1 : 2 * half : 2])
    return largest


def simulate(
    settings: Mapping[str, Any], told: Sequence[float], T: float, seed: int
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """One run of mchammer.

    Parameters
    ----------
    settings : mapping
        Of `IcetOracle`.
    told : sequence of float, length q
        Centres of the bias, or mu of the semi-grand ensemble.
    T : float, K
    seed : int

    Returns
    -------
    c, mu, mu_error : arrays (q,)
    """
    from mchammer.calculators import ClusterExpansionCalculator
    from mchammer.ensembles import SemiGrandCanonicalEnsemble, VCSGCEnsemble

    structure = structure_from_plain(settings["structure"])
    calculator = ClusterExpansionCalculator(structure, expansion_from_plain(settings["expansion"]))
    species, sites = settings["species"], settings["sites"]
    common = {
        "structure": structure,
        "calculator": calculator,
        "temperature": T,
        "boltzmann_constant": settings["boltzmann"],
        "random_seed": seed,
        "ensemble_data_write_interval": sites,
        "trajectory_write_interval": np.inf,
    }
    phi = settings["phi"]
    if settings["ensemble"] == "variance-constrained":
        # E = k_B T kappa N (c + phi / 2)^2 in their terms, N phi (c - kappa)^2 in ours
        phis = {symbol: -2.0 * centre for symbol, centre in zip(species, told, strict=True)}
        kappa = phi / (settings["boltzmann"] * T)
        ensemble = VCSGCEnsemble(phis=phis, kappa=kappa, **common)
    else:
        potentials = dict(zip(species, told, strict=True)) | {settings["other"]: 0.0}
        ensemble = SemiGrandCanonicalEnsemble(chemical_potentials=potentials, **common)
    ensemble.run(sites * settings["sweeps"])
    data = ensemble.data_container
    first = int(settings["equilibration"] * settings["sweeps"])
    counts = np.column_stack([np.asarray(data.get(f"{symbol}_count"), dtype=np.float64) for symbol in species])
    c = counts[first:] / sites
    mean, error = c.mean(axis=0), blocking_error(c)
    if settings["ensemble"] == "variance-constrained":
        return mean, -2.0 * phi * (mean - np.asarray(told)), 2.0 * phi * error
    # mu is exact here and <c> is not: an error of <c> is one of mu at <c>, by dmu/dc = k_B T / (N var c)
    width = np.maximum(c.var(axis=0), 1e-300) * sites
    slope = settings["boltzmann"] * T / width
    return mean, np.asarray(told), np.where(error > 0.0, slope * error, 0.0)


def main(arguments: Sequence[str]) -> None:
    """Read settings and points, simulate, write answers."""
    settings = json.loads(Path(arguments[0]).read_text(encoding="utf-8"))
    species = settings["species"]
    q = range(len(species))
    with open(arguments[1], newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    lines = [["id", *(f"{kind}_{i}" for kind in ("x", "mu", "mu_error") for i in q)]]
    for row in rows:
        told = [float(row[f"c_{symbol}"]) for symbol in species]
        found = simulate(settings, told, float(row["T"]), int(row["seed"]))
        lines.append([row["id"], *(repr(value) for part in found for value in part.tolist())])
    Path(arguments[2]).write_text("".join(",".join(line) + "\n" for line in lines), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
