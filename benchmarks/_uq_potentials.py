"""Potentials whose errors are known: a linear SNAP that is fitted here, and CHGNet as its package brings it."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from ase import Atoms
from ase.calculators.lammps import Prism
from ase.data import atomic_numbers

from quests_zenn.uq.lammps import import_lammps

#: Of the bispectrum: cutoff of each element, Å (that of Ta from Thompson et al., J. Comput. Phys. 285, 2015, 316), and
#: the largest 2j: 30 components.
CUTOFFS = {"Ta": 4.67637, "Mo": 4.6, "Si": 4.9}
TWOJMAX, RFAC0 = 6, 0.99363

#: Weight of an energy per atom (1/eV) beside force components (Å/eV).
ENERGY_WEIGHT = 30.0

#: Derivatives of structures whose atoms cannot move for symmetry are below this, rounded positions included; those of
#: others are above 10.
STILL = 0.1

#: Penalties that are tried, for columns of unit variance.
PENALTIES = 10.0 ** np.arange(-8.0, 1.0)


def missing(module: str) -> bool:
    """Whether a module is not installed; a line if so."""
    found = importlib.util.find_spec(module) is not None
    if not found:
        print(f"{module} is not installed: what needs it is left out")
    return not found


@dataclass(frozen=True)
class Bispectrum:
    """What `compute snap` of LAMMPS is told."""

    elements: tuple[str, ...]
    cutoff: float  # Å, between atoms of any elements
    twojmax: int = TWOJMAX
    keywords: str = ""
    weights: tuple[float, ...] = (1.0,)  # of neighbours, for each element
    repulsion: bool = True  # whether that of nuclei (ZBL) is a part of the potential

    @classmethod
    def of(cls, symbol: str) -> Bispectrum:
        """Linear SNAP of an element."""
        return cls((symbol,), CUTOFFS[symbol])

    def commands(self) -> list[str]:
        """For LAMMPS, once there are atoms."""
        zero, overlay = f"zero {2.0 * self.cutoff}", [f"pair_style zero {2.0 * self.cutoff}", "pair_coeff * *"]
        if self.repulsion:
            kinds = list(enumerate((atomic_numbers[symbol] for symbol in self.elements), start=1))
            overlay = [f"pair_style hybrid/overlay {zero} zbl 3.5 4.0", "pair_coeff * * zero"]
            overlay += [f"pair_coeff {i} {j} zbl {a} {b}" for i, a in kinds for j, b in kinds if i <= j]
        told = " ".join(["0.5"] * len(self.elements) + [str(weight) for weight in self.weights])
        return [
            "mass * 1.0",
            *overlay,
            f"compute b all snap {self.cutoff} {RFAC0} {self.twojmax} {told} rmin0 0.0 {self.keywords}",
            "thermo_style custom step pe c_b[1][1]",
            "run 0",
        ]


@dataclass(frozen=True)
class Design:
    """Energy per atom and forces of a structure, and what they are in a potential for each coefficient set to one.

    The repulsion of nuclei (ZBL), where there is one, is taken off the targets.
    """

    energy: float
    energy_row: np.ndarray  # (C + 1,): 1 and the mean bispectrum
    forces: np.ndarray  # (3 N,)
    force_rows: np.ndarray  # (3 N, C + 1)

    @property
    def moves(self) -> bool:
        """Whether symmetry allows forces at all; errors of those that it forbids tell nothing."""
        return bool(np.abs(self.force_rows).max() > STILL)


def designs(frames: Sequence[Atoms], how: Bispectrum | None = None) -> list[Design]:
    """`Design` of structures, from `compute snap` of LAMMPS: without `how`, of one element, linear.

    Structures that are not periodic need boxes wide enough.
    """
    how = how or Bispectrum.of(frames[0].get_chemical_symbols()[0])
    engine = import_lammps().lammps(cmdargs=["-log", "none", "-screen", "none"])
    found = []
    for atoms in frames:
        n, prism = len(atoms), Prism(atoms.cell.array, atoms.pbc)
        xx, yy, zz, xy, xz, yz = prism.get_lammps_prism()
        engine.command("clear")
        engine.commands_list(
            [
                "units metal",
                "atom_modify map array sort 0 0.0",
                "boundary p p p",
                "box tilt large",
                f"region all prism 0 {xx:.12f} 0 {yy:.12f} 0 {zz:.12f} {xy:.12f} {xz:.12f} {yz:.12f} units box",
                f"create_box {len(how.elements)} all",
            ]
        )
        positions = prism.vector_to_lammps(atoms.positions, wrap=True)
        kinds = [how.elements.index(symbol) + 1 for symbol in atoms.get_chemical_symbols()]
        engine.create_atoms(n, list(range(1, n + 1)), kinds, positions.ravel().tolist())
        if engine.get_natoms() != n:
            raise RuntimeError(f"LAMMPS lost atoms of {atoms}")
        engine.commands_list(how.commands())
        matrix = np.array(engine.numpy.extract_compute("b", 0, 2))  # rows: energy, 3 N forces, 6 stresses; last: ZBL
        rotate = prism.vector_to_ase(np.eye(3))
        vectors = np.einsum("nxc,xy->nyc", matrix[1 : 1 + 3 * n].reshape(n, 3, -1), rotate).reshape(3 * n, -1)
        found.append(
            Design(
                (atoms.get_potential_energy() - matrix[0, -1]) / n,
                np.append(1.0, matrix[0, :-1] / n),
                atoms.get_forces().ravel() - vectors[:, -1],
                np.hstack([np.zeros((3 * n, 1)), vectors[:, :-1]]),
            )
        )
    engine.close()
    return found


@dataclass(frozen=True)
class LinearPotential:
    """Coefficients, and forces of what they were fitted on or not."""

    coefficients: np.ndarray
    penalty: float

    def force_errors(self, found: Sequence[Design]) -> np.ndarray:
        """Magnitude of the error of the force on each atom, eV/Å; structures are concatenated."""
        off = [design.forces - design.force_rows @ self.coefficients for design in found]
        return np.linalg.norm(np.concatenate(off).reshape(-1, 3), axis=1)

    def force_sizes(self, found: Sequence[Design]) -> np.ndarray:
        """Magnitude of the forces that the potential gives, without those of bare nuclei."""
        made = [design.force_rows @ self.coefficients for design in found]
        return np.linalg.norm(np.concatenate(made).reshape(-1, 3), axis=1)


def fit(found: Sequence[Design], groups: np.ndarray, penalty: float | None = None) -> LinearPotential:
    """Ridge regression on energies and forces; its penalty from a cross-validation that leaves groups of frames out."""
    from sklearn.linear_model import Ridge
    from sklearn.metrics import mean_squared_error
    from sklearn.model_selection import GroupKFold

    rows = [np.vstack([ENERGY_WEIGHT * one.energy_row, one.force_rows]) for one in found]
    targets = [np.append(ENERGY_WEIGHT * one.energy, one.forces) for one in found]
    owner = np.repeat(np.arange(len(found)), [len(target) for target in targets])
    x, y = np.concatenate(rows), np.concatenate(targets)
    scale = np.sqrt(np.mean(x**2, axis=0))

    def solve(keep: np.ndarray, strength: float) -> np.ndarray:
        model = Ridge(alpha=strength * keep.sum(), fit_intercept=False, solver="cholesky")
        return model.fit(x[keep] / scale, y[keep]).coef_ / scale

    if penalty is None:
        folds = list(GroupKFold(min(5, len(np.unique(groups)))).split(owner, groups=groups[owner]))
        errors = []
        for strength in PENALTIES:
            left = [(test, x[test] @ solve(np.isin(np.arange(len(y)), train), strength)) for train, test in folds]
            errors.append(np.mean([mean_squared_error(y[test], made) for test, made in left]))
        penalty = float(PENALTIES[int(np.argmin(errors))])
    return LinearPotential(solve(np.ones(len(y), bool), penalty), penalty)


def random_share(n: int, share: float, seed: int = 0) -> np.ndarray:
    """A random share of n structures."""
    return np.random.default_rng(seed).permutation(n) < share * n


def chgnet_errors(frames: Sequence[Atoms]) -> tuple[np.ndarray, np.ndarray]:
    """Of the force of CHGNet on each atom: magnitude of its error, and its own, eV/Å; structures are concatenated."""
    import torch
    from chgnet.model.dynamics import CHGNetCalculator

    torch.set_num_threads(1)
    calculator = CHGNetCalculator(use_device="cpu")
    true, made = [], []
    for atoms in frames:
        asked = atoms.copy()
        asked.calc = calculator
        true.append(atoms.get_forces())
        made.append(asked.get_forces())
    forces = np.concatenate(made)
    return np.linalg.norm(forces - np.concatenate(true), axis=1), np.linalg.norm(forces, axis=1)
