"""Which frames of acetylacetone are new, and how often known ones are called so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from _uq_potentials import missing
from _uq_rivals import RIVALS, auroc, excess, ours, rival, statistics
from ase import Atoms
from ase.io import read
from density import here, print_row
from run import data_file

from quests_zenn._core.checks import DataError
from quests_zenn.descriptors import Environments, describe
from quests_zenn.entropy import DEFAULT_BANDWIDTH
from quests_zenn.uq import Reference
from quests_zenn.uq.thresholds import find_copies

#: Descriptors that are compared; the first is the default.
SPECIES = ("none", "blocks", "pairs")

#: Bandwidths of the grid, 1/Å.
GRID = (0.0053, 0.0075, 0.0106, DEFAULT_BANDWIDTH, 0.0212, 0.03, 0.0424, 0.06, 0.12)

#: Other numbers of neighbours and cutoffs, Å, than the defaults.
RANGES = ((32, 8.0), (15, 5.0), (8, 3.0))

#: Atoms of acetylacetone: the dihedral angle that the scan turns, the part that turns, and its two oxygen atoms and the
#: hydrogen between them.
DIHEDRAL, TURNED, OXYGENS, BRIDGE = (0, 1, 2, 3), [3, 4, 8, 9, 10], (3, 5), 11

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    quick: bool
    splits: int

    def frames(self, name: str) -> list[Atoms] | None:
        """Frames of a file; None, and a line, where it is not at hand."""
        path = data_file(name)
        if path is None or not path.exists():
            print(f"{name} is not in QUESTS_ZENN_DATA: what needs it is left out")
            return None
        found: list[Atoms] = read(path, ":")
        return found[:: 10 if self.quick and len(found) > 100 else 1]


@dataclass(frozen=True)
class Molecule:
    """The frames of the training file and of the tests."""

    train: list[Atoms]
    tests: dict[str, list[Atoms]]
    angle: np.ndarray  # of the frames of the scan, degrees

    @classmethod
    def load(cls, size: Size) -> Molecule | None:
        """None where the files are not at hand."""
        files = {"train": "train_300K", "300K": "test_300K", "600K": "test_600K", "scan": "test_dihedral"}
        found = {key: size.frames(f"acac_{name}.xyz") for key, name in (files | {"path": "test_H_transfer"}).items()}
        if any(frames is None for frames in found.values()):
            return None
        tests = {key: frames for key, frames in found.items() if key != "train" and frames is not None}
        return cls(found["train"] or [], tests, np.array([atoms.info["dihedral_angle"] for atoms in tests["scan"]]))

    def describe(self, species: str, k: int = 32, cutoff: float = 5.0) -> tuple[Environments, dict[str, Environments]]:
        """Environments of the training file, and of the tests."""
        tests = {key: describe(frames, k, cutoff, species) for key, frames in self.tests.items()}
        return describe(self.train, k, cutoff, species), tests

    def groups(self, of_test: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Scores of the frames that should stand out, by name."""
        scan = of_test["scan"]
        return {
            "600 K": of_test["600K"],
            "above 60°": scan[self.angle > 60],
            "30-60°": scan[(self.angle > 30) & (self.angle < 60)],
            "below 30°": scan[self.angle < 30],
            "H transfer": of_test["path"],
        }


def judge(molecule: Molecule, scores: dict[str, np.ndarray], asked: dict[str, Environments]) -> dict[str, Any]:
    """AUROC of each group of frames against the 300 K test, for each statistic of the scores of atoms."""
    every = {key: statistics(values, asked[key].frame_offsets) for key, values in scores.items()}
    found: dict[str, Any] = {}
    for name in next(iter(every.values())):
        of_test = {key: stats[name] for key, stats in every.items()}
        found[name] = {group: auroc(v, of_test["300K"]) for group, v in molecule.groups(of_test).items()}
    return found


def p_values(reference: Reference, env: Environments, values: np.ndarray) -> np.ndarray:
    """-ln of the rank of each dH among the left-out dH of the reference with the same centre element."""
    found = reference.leave_out()
    numbers, out = reference.numbers[found.rows], np.zeros(len(values))
    for element in np.unique(numbers):
        known, mine = np.sort(found.dh[numbers == element]), env.numbers == element
        out[mine] = -np.log((1 + len(known) - np.searchsorted(known, values[mine])) / (len(known) + 1))
    return out


def quests_scores(molecule: Molecule) -> dict[str, np.ndarray]:
    """dH of the package quests with its defaults: k = 32, cutoff 5 Å, h = 0.015 1/Å."""
    from quests.descriptor import get_descriptors
    from quests.entropy import delta_entropy

    x = get_descriptors(molecule.train, k=32, cutoff=5.0)
    return {
        key: np.asarray(delta_entropy(get_descriptors(frames, k=32, cutoff=5.0), x, h=DEFAULT_BANDWIDTH))
        for key, frames in molecule.tests.items()
    }


def part_frames(size: Size) -> dict[str, Any] | None:
    """Every method, each with what it needs chosen from the training file."""
    molecule = Molecule.load(size)
    if molecule is None:
        return None
    rows: Rows = []
    more: dict[str, Any] = {}
    for species in SPECIES:
        env, asked = molecule.describe(species)
        reference = ours(env)
        dh = {key: reference.score(one) for key, one in asked.items()}
        every = {"dH": dh, "dH, -ln p of each element": {k: p_values(reference, asked[k], dh[k]) for k in dh}}
        every["dH less that of neighbours"] = {k: excess(reference, env, asked[k], dh[k]) for k in dh}
        if species == "none":
            more = distributions(reference, dh, asked)
            if here("quests"):
                every = {"`quests`, defaults": quests_scores(molecule)} | every
        for name in RIVALS:
            other = rival(name, env)
            every[name] = {key: other(one) for key, one in asked.items()}
        for method, scores in every.items():
            row = {"method": method, "species": species, "auroc": judge(molecule, scores, asked)}
            rows.append(row | ({"bandwidth": reference.bandwidth} if method.startswith("dH") else {}))
            print_row({"method": method, "species": species, **row["auroc"]["mean"]})
    return {"rows": rows, "angle": molecule.angle.tolist(), **more}


def distributions(
    reference: Reference, dh: dict[str, np.ndarray], asked: dict[str, Environments], draws: int = 500
) -> dict[str, Any]:
    """Mean dH of every frame, and by how much the AUROC of 600 K varies between draws of the frames."""
    means = {key: statistics(values, asked[key].frame_offsets)["mean"] for key, values in dh.items()}
    rng = np.random.default_rng(0)
    hot, cold = means["600K"], means["300K"]
    drawn = [auroc(rng.choice(hot, len(hot)), rng.choice(cold, len(cold))) for _ in range(draws)]
    kept = reference.leave_out()
    means["left out"] = np.bincount(kept.frames, kept.dh) / np.bincount(kept.frames)
    shown = {key: values.round(3).tolist() for key, values in means.items()}
    return {"shown": shown, "standard_error": float(np.std(drawn))}


def part_grid(size: Size) -> dict[str, Any] | None:
    """Every bandwidth, and other descriptors with the bandwidth of the rule."""
    molecule = Molecule.load(size)
    if molecule is None:
        return None
    rows: Rows = []

    def add(env: Environments, asked: dict[str, Environments], h: float | None) -> None:
        reference = ours(env, h)
        scores = {key: reference.score(one) for key, one in asked.items()}
        row = {"species": env.species, "k": env.k, "cutoff": env.cutoff, "bandwidth": reference.bandwidth}
        rows.append(row | {"rule": h is None, "auroc": judge(molecule, scores, asked)})
        print_row(row | rows[-1]["auroc"]["mean"])

    for species in SPECIES:
        described = molecule.describe(species)
        for h in (None, *GRID):
            add(*described, h)
        for k, cutoff in RANGES:
            add(*molecule.describe(species, k, cutoff), None)
    return {"rows": rows}


def turn(atoms: Atoms, angle: float) -> Atoms:
    """The frame with its dihedral angle set to that many degrees, to the side on which it is."""
    turned = atoms.copy()
    side = -1.0 if atoms.get_dihedral(*DIHEDRAL) > 180.0 else 1.0
    turned.set_dihedral(*DIHEDRAL, side * angle, indices=TURNED)
    return turned


def dihedral(atoms: Atoms) -> float:
    """Of a frame, between 0 and 180 degrees."""
    angle = float(atoms.get_dihedral(*DIHEDRAL))
    return min(angle, 360.0 - angle)


def part_scan(size: Size) -> dict[str, Any] | None:
    """Along the dihedral angle and the path of the proton; what the training file holds of both."""
    from scipy.spatial.distance import pdist

    molecule = Molecule.load(size)
    if molecule is None:
        return None
    env, asked = molecule.describe("none")
    reference = ours(env)
    every = {key: statistics(reference.score(one), one.frame_offsets) for key, one in asked.items()}
    inside = np.array([pdist(atoms.positions) for atoms in molecule.train])
    low, high = inside.min(axis=0), inside.max(axis=0)

    def outside(frames: Sequence[Atoms]) -> np.ndarray:
        apart = np.array([pdist(atoms.positions) for atoms in frames])
        return ((apart < low) | (apart > high)).sum(axis=1)

    def shift(atoms: Atoms) -> float:
        return float(atoms.get_distance(OXYGENS[0], BRIDGE) - atoms.get_distance(OXYGENS[1], BRIDGE))

    scan, path = molecule.tests["scan"], molecule.tests["path"]
    n_out, usual = outside(scan), outside(molecule.tests["300K"])
    lowest = min(atoms.get_potential_energy() for atoms in scan)
    rows = [
        {
            "angle": float(angle),
            "energy": atoms.get_potential_energy() - lowest,
            "outside": int(n),
            "mean": float(every["scan"]["mean"][i]),
            "max": float(every["scan"]["max"][i]),
            "above": float(np.mean(every["300K"]["mean"] < every["scan"]["mean"][i])),
        }
        for i, (angle, atoms, n) in enumerate(zip(molecule.angle, scan, n_out, strict=True))
    ]
    # frames at 300 K, as they are but for this angle; those whose proton is on the oxygen that stays
    base = [atoms for atoms in molecule.tests["300K"] if shift(atoms) > 0.0]
    turned = []
    for angle in range(0, 95, 5):
        stats = statistics(
            reference.score([turn(atoms, angle) for atoms in base]), np.arange(len(base) + 1) * len(base[0])
        )
        turned.append(
            {"angle": angle, "n": len(base)}
            | {name: auroc(stats[name], every["300K"][name]) for name in ("mean", "quarter", "max")}
        )
        print_row(turned[-1])
    angles, shifts = np.array([dihedral(atoms) for atoms in molecule.train]), [shift(atoms) for atoms in molecule.train]
    energies = np.array([atoms.get_potential_energy() for atoms in molecule.train]) - lowest
    scan_mean = every["scan"]["mean"]
    middle, small = (molecule.angle > 30) & (molecule.angle < 60), molecule.angle < 30
    return {
        "bandwidth": reference.bandwidth,
        "rows": rows,
        "turned": turned,
        "training_angle": np.quantile(angles, (0.5, 0.95, 1.0)).tolist(),
        "training_energy": np.quantile(energies, (0.0, 0.5, 1.0)).tolist(),
        "usual_outside": [float(usual.mean()), float((usual > 0).mean())],
        "within_scan": auroc(scan_mean[middle], scan_mean[small]),
        "usual": {name: np.quantile(every["300K"][name], (0.05, 0.5, 0.95)).tolist() for name in ("mean", "max")},
        "path": [
            {"shift": shift(atoms), "mean": float(every["path"]["mean"][i]), "max": float(every["path"]["max"][i])}
            for i, atoms in enumerate(path)
        ],
        "training_near": int(np.sum(np.abs(shifts) < 0.1)),
        "oxygens": [
            [float(f([a.get_distance(*OXYGENS) for a in frames])) for f in (min, max)]
            for frames in (path, molecule.train)
        ],
    }


def part_limit(size: Size) -> dict[str, Any] | None:
    """What 300 K and 600 K can be told apart by at best: DFT energies, and a classifier that is shown both."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    molecule = Molecule.load(size)
    if molecule is None:
        return None
    of_test = {key: np.array([a.get_potential_energy() for a in frames]) for key, frames in molecule.tests.items()}
    energies = {group: auroc(v, of_test["300K"]) for group, v in molecule.groups(of_test).items()}
    env, asked = molecule.describe("none")
    reference = ours(env)
    per_atom = [reference.score(asked[key]).reshape(-1, len(molecule.train[0])) for key in ("300K", "600K")]
    hot = np.repeat([0, 1], [len(part) for part in per_atom])
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1))
    told = cross_val_predict(model, np.concatenate(per_atom), hot, cv=10, method="decision_function")
    return {"dft": energies, "supervised": auroc(told[hot == 1], told[hot == 0])}


def part_hamiltonian(size: Size) -> dict[str, Any] | None:
    """The energy that made the frames: no classifier of 300 K and 600 K can do better (Neyman and Pearson)."""
    molecule = Molecule.load(size)
    if molecule is None or missing("tblite"):
        return None
    from ase.units import Bohr, Hartree, kB
    from tblite.interface import Calculator

    def energy(atoms: Atoms) -> float:
        calculator = Calculator("GFN2-xTB", atoms.numbers, atoms.positions / Bohr)
        calculator.set("verbosity", 0)
        return float(calculator.singlepoint().get("energy")) * Hartree

    of_test = {key: np.array([energy(atoms) for atoms in frames]) for key, frames in molecule.tests.items()}
    lowest = of_test["scan"].min()
    modes = 3 * len(molecule.train[0]) - 6
    return {
        "auroc": {group: auroc(v, of_test["300K"]) for group, v in molecule.groups(of_test).items()},
        "energy": {key: float(of_test[key].mean() - lowest) for key in ("300K", "600K")},
        "harmonic": {f"{t}K": 0.5 * modes * kB * t for t in (300, 600)},
    }


def part_alarms(size: Size) -> dict[str, Any] | None:
    """False alarms at thresholds that the training file gives."""
    files = {"acac": ("acac_train_300K", "acac_test_300K")}
    files |= {f"mlearn {el}": (f"mlearn_{el}_train", f"mlearn_{el}_test") for el in ("Si", "Mo", "Ge")}
    more = {"600 K": "acac_test_600K", "scan": "acac_test_dihedral"}
    rows: Rows = []
    for name, (train, test) in files.items():
        frames, asked = size.frames(f"{train}.xyz"), size.frames(f"{test}.xyz")
        if frames is None or asked is None:
            continue
        reference = ours(describe(frames))
        new = [atoms for atoms, copy in zip(asked, copied(frames, asked), strict=True) if not copy]
        tests = {"test": new}
        if name == "acac":
            tests |= {key: size.frames(f"{file}.xyz") or [] for key, file in more.items()}
            angle = np.array([atoms.info["dihedral_angle"] for atoms in tests["scan"]])
            scan = tests.pop("scan")
            for key, chosen in (("above 60°", angle > 60), ("30-60°", (angle > 30) & (angle < 60))):
                tests[key] = [atoms for atoms, wanted in zip(scan, chosen, strict=True) if wanted]
        found = {}
        for key, structures in tests.items():
            env = reference.describe(structures)
            values = reference.score(env)
            found[key] = statistics(values, env.frame_offsets) | {"atom": values}
        for rate in (0.01, 0.05):
            for of in ("atom", "mean", "max"):
                try:
                    limit = reference.threshold(rate, of=of)
                except DataError as error:  # too few frames for that rate
                    print(f"{name}: {error}")
                    continue
                shares = {key: float(np.mean(stats[of] >= limit)) for key, stats in found.items()}
                rows.append(
                    {
                        "set": name,
                        "bandwidth": reference.bandwidth,
                        "of": of,
                        "rate": rate,
                        "threshold": limit,
                        "n": len(found["test"][of]),
                        "copies": len(asked) - len(new),
                        "shares": shares,
                    }
                )
                print_row(rows[-1])
    return {"rows": rows} if rows else None


def copied(frames: Sequence[Atoms], asked: Sequence[Atoms]) -> np.ndarray:
    """Which of the structures asked about copy one of the others."""
    both = describe([*frames, *asked])
    first = find_copies(both.x, both.numbers, both.frame_offsets)[len(frames) :]
    return first < len(frames)
