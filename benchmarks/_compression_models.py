"""What subsets are worth: potentials that are fitted on them, and their errors on structures that they never saw."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from _uq_frames import Size as Frames
from _uq_potentials import CUTOFFS, Bispectrum, Design, designs, missing
from ase import Atoms
from density import print_row
from scipy.linalg import LinAlgError, cho_factor, cho_solve

from quests_zenn.compression import DatasetCompressor
from quests_zenn.descriptors import Environments, describe
from quests_zenn.uq.thresholds import find_copies

Array = np.ndarray
Rows = list[dict[str, Any]]
#: A subset: how it is chosen, the share of the atoms, the seed.
Key = tuple[str, float, int]

SETS = ("Si", "Mo", "Ta", "acac")
MODELS = ("small", "large")

#: Shares of the atoms.
SHARES = (0.05, 0.1, 0.25, 0.5)

#: Methods by name, and whether they depend on a seed.
METHODS = {
    "msc": False,
    "msc per atom": False,
    "msc by kind": False,
    "msc_sum": False,
    "msc_sum by kind": False,
    "fps": False,
    "mean_fps": False,
    "k_means": True,
    "direct": False,
    "random": True,
}

#: Methods that others are compared with.
BASES = ("msc", "msc_sum")

ALL = ("all", 1.0, 0)
SEEDS = 5

#: Weight of an energy per atom (1/eV) beside force components (Å/eV), for the lowest; of one that lies e above, it is
#: 1 / (1 + e / FAR) as large: extreme volumes must not decide about all else.
ENERGY_WEIGHT, FAR = 100.0, 1.0

#: Penalties that are tried, for columns of unit variance, times the number of rows.
PENALTIES = 10.0 ** np.arange(-10.0, -1.0)

#: Parts of the inner cross-validation, and of that of sets without a test file.
FOLDS = 5

#: Random sets of test structures and seeds, drawn with replacement, from which errors of errors are found.
DRAWS = 1000

#: Test structures that errors are computed for at once.
AT_ONCE = 50

ACAC = ("C", "H", "O")


def models_of(name: str) -> dict[str, Bispectrum]:
    """A potential with few coefficients, and one with many."""
    if name == "acac":
        small = Bispectrum(ACAC, 3.5, 8, weights=(1.0, 0.5, 0.8), repulsion=False)
        # a density of neighbours for each element, in place of their weighted sum
        return {
            "small": small,
            "large": replace(small, twojmax=4, keywords="chem 3 0 1 2 wselfallflag 1", weights=(1.0, 1.0, 1.0)),
        }
    small = Bispectrum((name,), CUTOFFS[name], 8)
    return {"small": small, "large": replace(small, twojmax=6, keywords="quadraticflag 1")}


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    quick: bool
    large: bool = False
    repeats: int = 3
    jobs: int | None = None

    def __call__(self, full: Any, quick: Any) -> Any:
        return quick if self.quick else full

    def frames(self, name: str) -> list[Atoms] | None:
        """Frames of a file, in quick runs every tenth; None, and a line, where it is not at hand."""
        return Frames(self.quick, 0).frames(name)


# --- sets -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Labelled:
    """Structures; what may be chosen and what is asked, one pair or one for each fold; and which make up each test."""

    name: str
    frames: list[Atoms]
    kinds: Array
    env: Environments
    first: Array  # the first structure that each is a copy of
    splits: list[tuple[Array, Array]]
    tests: dict[str, Array]

    @classmethod
    def load(cls, size: Size, name: str) -> Labelled | None:
        """None where a file is not at hand."""
        files = {"Ta": ["Ta_fitsnap"], "acac": ["acac_train_300K", "acac_test_300K", "acac_test_600K"]}
        parts = [
            size.frames(f"{file}.xyz") for file in files.get(name, [f"mlearn_{name}_train", f"mlearn_{name}_test"])
        ]
        if any(part is None for part in parts):
            return None
        frames = [atoms for part in parts for atoms in part or []]
        owner = np.repeat(np.arange(len(parts)), [len(part or []) for part in parts])
        env = describe(frames)
        first = find_copies(env.x, env.numbers, env.frame_offsets)
        kinds = np.array([str(atoms.info["config_type"]) for atoms in frames])
        tests: dict[str, Array]
        if name == "Ta":
            fold = stratified(kinds, first)
            splits = [(np.flatnonzero(fold != k), np.flatnonzero(fold == k)) for k in range(FOLDS)]
            tests = {f"within {FAR:g} eV": heights_of(frames) < FAR, "all": np.ones(len(fold), bool)}
            return cls(name, frames, kinds, env, first, splits, tests)
        known = owner == 0
        asked = ~known & (first >= known.sum())  # those that copy what may be chosen are no test
        tests = {"test file": asked}
        if name == "acac":
            tests = {"300 K": asked & (owner == 1), "600 K": asked & (owner == 2)}
        return cls(name, frames, kinds, env, first, [(np.flatnonzero(known), np.flatnonzero(asked))], tests)

    def compressor(self, known: Array, size: Size, per_atom: bool = False) -> DatasetCompressor:
        """Of the structures that may be chosen."""
        offsets = self.env.frame_offsets
        sizes = np.diff(offsets)[known]
        x = np.concatenate([self.env.x[offsets[s] : offsets[s + 1]] for s in known])
        costs = sizes.astype(float) if per_atom else None
        return DatasetCompressor.from_environments(x, np.append(0, np.cumsum(sizes)), costs=costs, jobs=size.jobs)


def heights_of(frames: Sequence[Atoms]) -> Array:
    """Energies per atom above the lowest, eV."""
    energies = np.array([atoms.get_potential_energy() / len(atoms) for atoms in frames])
    return energies - energies.min()


def stratified(kinds: Array, first: Array) -> Array:
    """A fold for each structure: every kind is in all folds, copies share one."""
    rng, fold = np.random.default_rng(0), np.full(len(kinds), -1)
    for kind in dict.fromkeys(kinds):
        own = rng.permutation([s for s in np.flatnonzero(kinds == kind) if first[s] == s])
        fold[own] = (np.arange(len(own)) + rng.integers(FOLDS)) % FOLDS
    return fold[first]


# --- subsets ----------------------------------------------------------------------------------------------------------


def prefix(order: Array, sizes: Array, atoms: float) -> Array:
    """As many of the first structures as come closest to so many atoms, one at least."""
    return order[: 1 + int(np.argmin(np.abs(np.cumsum(sizes[order]) - atoms)))]


def matched(choose: Callable[[int], Array], sizes: Array, atoms: float) -> Array:
    """The choice that comes closest to so many atoms, of some numbers of structures."""
    tried: dict[int, Array] = {}
    n = max(1, round(atoms / sizes.mean()))
    while n not in tried and len(tried) < 4:
        tried[n] = choose(n)
        n = int(np.clip(round(n * atoms / sizes[tried[n]].sum()), 1, len(sizes)))
    return min(tried.values(), key=lambda picked: abs(sizes[picked].sum() - atoms))


def subsets(labelled: Labelled, known: Array, size: Size) -> tuple[DatasetCompressor, dict[Key, Array]]:
    """Subsets of what is known by every method, as places in `known`."""
    compressor, per_atom = (labelled.compressor(known, size, own) for own in (False, True))
    sizes = np.diff(compressor.frame_offsets)
    kinds, shares = labelled.kinds[known], size(SHARES, SHARES[2:])
    found: dict[Key, Array] = {ALL: np.arange(len(sizes))}
    for name, seeded in METHODS.items():
        for seed in range(size(SEEDS, 2) if seeded else 1):
            if name in ("k_means", "direct"):
                for share in shares:
                    found[name, share, seed] = matched(
                        lambda n, name=name, seed=seed: compressor.get_indices(name, n, random_state=seed),
                        sizes,
                        share * sizes.sum(),
                    )
                continue
            chooser = per_atom if name == "msc per atom" else compressor
            by = kinds if name.endswith("by kind") else None
            order = chooser.get_indices(name.split()[0], 1.0, by=by, random_state=seed)
            for share in shares:
                found[name, share, seed] = prefix(order, sizes, share * sizes.sum())
    return compressor, found


# --- potentials -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Table:
    """Rows of some structures, ready to be summed: energies and forces of structure s, weighted."""

    rows: Array  # (R, C + 1): bispectrum, target
    constant: Array  # (R,): the weight where a row is an energy, else 0
    starts: Array  # (S + 1,)
    mean: Array  # (C + 1,): what was taken off those of energies, for the sake of digits

    @classmethod
    def of(cls, found: Sequence[Design], heights: Array) -> Table:
        heads = np.array([np.append(one.energy_row[1:], one.energy) for one in found])
        mean = heads.mean(axis=0)
        weights = ENERGY_WEIGHT / (1.0 + heights / FAR)
        heads = weights[:, None] * (heads - mean)
        sizes = np.array([1 + len(one.forces) for one in found])
        starts = np.append(0, np.cumsum(sizes))
        rows, constant = np.empty((starts[-1], heads.shape[1])), np.zeros(starts[-1])
        constant[starts[:-1]] = weights
        for one, head, start in zip(found, heads, starts, strict=False):
            rows[start] = head
            rows[start + 1 : start + 1 + len(one.forces), :-1] = one.force_rows[:, 1:]
            rows[start + 1 : start + 1 + len(one.forces), -1] = one.forces
        return cls(rows, constant, starts, mean)

    def moments(self, structures: Array) -> Array:
        """Sums of products of columns (constant, bispectrum, target) over some structures, (C + 2, C + 2)."""
        at = np.concatenate([np.arange(self.starts[s], self.starts[s + 1]) for s in structures])
        x, one = self.rows[at], self.constant[at]
        found = np.empty((x.shape[1] + 1,) * 2)
        found[1:, 1:] = x.T @ x
        found[0, 1:] = found[1:, 0] = one @ x
        found[0, 0] = one @ one
        return found

    def count(self, structures: Array) -> int:
        """Rows of some structures."""
        return int(np.diff(self.starts)[structures].sum())


def ridge(sums: Array, n_rows: int, penalties: Iterable[float]) -> list[Array]:
    """Coefficients (constant, C) for each penalty, from sums of products; the constant is not penalised."""
    head, rest = sums[0, 0], sums[1:, 1:] - np.outer(sums[0, 1:], sums[0, 1:]) / sums[0, 0]
    gram, right = rest[:-1, :-1] / n_rows, rest[:-1, -1] / n_rows
    scale = np.sqrt(np.maximum(np.diag(gram), 0.0))
    scale[scale <= 1e-6 * np.sqrt(np.diag(sums)[1:-1] / n_rows)] = np.inf  # columns that do not vary, but for rounding
    gram, right = gram / np.outer(scale, scale), right / scale
    found = []
    for penalty in penalties:
        try:
            inner = cho_solve(cho_factor(gram + penalty * np.eye(len(gram))), right) / scale
        except LinAlgError:  # so small a penalty is lost in rounding, which makes eigenvalues of 0 negative
            values, vectors = np.linalg.eigh(gram)
            inner = vectors @ (vectors.T @ right / (np.maximum(values, 0.0) + penalty)) / scale
        found.append(np.append((sums[0, -1] - sums[0, 1:-1] @ inner) / head, inner))
    return found


def fit(table: Table, structures: Array, groups: Array, seed: int = 0) -> tuple[Array, float]:
    """Coefficients of a potential fitted on some structures, and its penalty, from a cross-validation among them.

    Structures of one group stay together. A single group cannot be validated: the middle penalty serves.
    """
    names, group = np.unique(groups[structures], return_inverse=True)
    n_folds = min(FOLDS, len(names))
    fold = (np.random.default_rng(seed).permutation(len(names)) % n_folds)[group]
    parts = [table.moments(structures[fold == k]) for k in range(n_folds)]
    total, n_rows = np.sum(parts, axis=0), table.count(structures)
    penalty = float(PENALTIES[len(PENALTIES) // 2])
    if n_folds > 1:
        errors = np.zeros(len(PENALTIES))
        for k, part in enumerate(parts):
            left = n_rows - table.count(structures[fold == k])
            full = np.array([np.append(c, -1.0) for c in ridge(total - part, left, PENALTIES)])
            errors += np.einsum("pi,ij,pj->p", full, part, full, optimize=True)
        penalty = float(PENALTIES[int(np.argmin(errors))])
    found = ridge(total, n_rows, [penalty])[0]
    found[0] += table.mean[-1] - table.mean[:-1] @ found[1:]
    return found, penalty


@dataclass(frozen=True)
class Errors:
    """Of potentials (P) on structures (T): NaN where a structure was not asked."""

    energy: Array  # (T, P) squares, (eV/atom)^2
    squares: Array  # (T, P) sums over components of forces, (eV/Å)^2
    sizes: Array  # (T, P) of their magnitudes
    components: Array  # (T,)

    @classmethod
    def empty(cls, n: int, n_potentials: int) -> Errors:
        """Nothing was asked yet."""
        return cls(*(np.full((n, n_potentials), np.nan) for _ in range(3)), np.zeros(n))

    def ask(self, asked: Array, found: Sequence[Design], coefficients: Array) -> None:
        """Ask potentials, coefficients (P, C + 1), about some of the structures."""
        for begin in range(0, len(asked), AT_ONCE):
            which = asked[begin : begin + AT_ONCE]
            several = [found[s] for s in which]
            sizes = np.array([len(one.forces) for one in several])
            rows = np.concatenate([one.force_rows for one in several])
            off = np.concatenate([one.forces for one in several])[:, None] - rows @ coefficients.T
            starts = np.append(0, np.cumsum(sizes))[:-1]
            self.squares[which] = np.add.reduceat(off**2, starts)
            self.sizes[which] = np.add.reduceat(np.abs(off), starts)
            self.components[which] = sizes
            energies = np.array([one.energy_row for one in several]) @ coefficients.T
            self.energy[which] = (np.array([one.energy for one in several])[:, None] - energies) ** 2

    def of(self, test: Array) -> dict[str, Array]:
        """Errors of each potential (P,) over some of the structures."""
        n = self.components[test].sum()
        return {
            "force": np.sqrt(self.squares[test].sum(axis=0) / n),
            "force_mae": self.sizes[test].sum(axis=0) / n,
            "energy": 1e3 * np.sqrt(self.energy[test].mean(axis=0)),
        }

    def drawn(self, test: Array, rng: np.random.Generator) -> dict[str, Array]:
        """Errors (DRAWS, P) over structures drawn with replacement."""
        n = int(test.sum())
        weights = rng.multinomial(n, np.full(n, 1.0 / n), size=DRAWS).astype(float)
        count = weights @ self.components[test]
        return {
            "force": np.sqrt(weights @ self.squares[test] / count[:, None]),
            "energy": 1e3 * np.sqrt(weights @ self.energy[test] / n),
        }


def outcome(labelled: Labelled, how: Bispectrum, chosen: Sequence[dict[Key, Array]]) -> tuple[Errors, float, int]:
    """Errors of potentials fitted on subsets (of each fold), the penalty of that on all, and how many coefficients."""
    found, heights = designs(labelled.frames, how), heights_of(labelled.frames)
    errors = Errors.empty(len(found), len(chosen[0]))
    penalty = 0.0
    for (known, asked), picked in zip(labelled.splits, chosen, strict=True):
        table = Table.of([found[s] for s in known], heights[known])
        fitted = {key: fit(table, structures, labelled.first[known]) for key, structures in picked.items()}
        penalty = fitted[ALL][1]
        errors.ask(asked, found, np.array([coefficients for coefficients, _ in fitted.values()]))
    return errors, penalty, len(found[0].energy_row)


# --- figures ----------------------------------------------------------------------------------------------------------


def average(found: Iterable[dict[str, float]]) -> dict[str, float]:
    """Means of figures."""
    rows = list(found)
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}


def contents_of(compressor: DatasetCompressor, picked: Array) -> dict[str, float]:
    """What a subset holds."""
    found = compressor.get_summary(picked)
    return {
        "structures": len(picked),
        "atoms": found["compressed_envs"] / found["original_envs"],
        **{name: found[name] for name in ("entropy", "diversity", "overlap")},
    }


def cases(keys: Iterable[Key]) -> dict[tuple[str, float], list[int]]:
    """Places of the seeds of each method and size."""
    found: dict[tuple[str, float], list[int]] = {}
    for place, (method, share, _) in enumerate(keys):
        found.setdefault((method, share), []).append(place)
    return found


@dataclass(frozen=True)
class Ratio:
    """Logarithm of an error relative to that with all structures, mean over seeds: as found, and over random tests."""

    value: float
    drawn: Array


def ratios(errors: Errors, test: Array, keys: Sequence[Key], seed: int) -> dict[tuple[str, float], dict[str, Ratio]]:
    """Of every method and size."""
    rng = np.random.default_rng(seed)
    value = {name: np.log(values) for name, values in errors.of(test).items()}
    drawn = {name: np.log(values) for name, values in errors.drawn(test, rng).items()}
    places = cases(keys)
    (full,) = places[ALL[:2]]
    found: dict[tuple[str, float], dict[str, Ratio]] = {}
    for case, own in places.items():
        seeds = rng.integers(len(own), size=(DRAWS, len(own)))
        found[case] = {
            name: Ratio(
                float(value[name][own].mean() - value[name][full]),
                np.take_along_axis(drawn[name][:, own], seeds, axis=1).mean(axis=1) - drawn[name][:, full],
            )
            for name in drawn
        }
    return found


def error_rows(
    errors: Errors, test: Array, keys: Sequence[Key], found: dict[tuple[str, float], dict[str, Ratio]]
) -> Rows:
    """Errors of every method and size, mean and standard deviation over seeds, and relative to those with all."""
    value = errors.of(test)
    rows = []
    for (method, share), own in cases(keys).items():
        row: dict[str, Any] = {"method": method, "share": share, "seeds": len(own)}
        for name, values in value.items():
            row[name] = float(values[own].mean())
            row[f"{name}_sd"] = float(values[own].std(ddof=1)) if len(own) > 1 else 0.0
            row[f"{name}_ratio"] = row[name] / float(values[keys.index(ALL)])
        for name, ratio in found[method, share].items():
            row[f"{name}_ratio_error"] = float(ratio.drawn.std())
        rows.append(row)
    return rows


def part_models(size: Size) -> dict[str, Any] | None:
    """Subsets of four sets by every method, what they hold, and what potentials make of them."""
    if missing("lammps"):
        return None
    contents: Rows = []
    errors: Rows = []
    whole: Rows = []
    kinds: Rows = []
    judged: dict[tuple[str, str, str], dict[tuple[str, float], dict[str, Ratio]]] = {}
    for name in SETS:
        labelled = Labelled.load(size, name)
        if labelled is None:
            continue
        chosen, kept = [], {}
        for known, _ in labelled.splits:
            compressor, found = subsets(labelled, known, size)
            chosen.append(found)
            for key, picked in found.items():
                kept.setdefault(key[:2], []).append(contents_of(compressor, picked))
        contents += [
            {"set": name, "method": method, "share": share, **average(rows)} for (method, share), rows in kept.items()
        ]
        keys = list(chosen[0])
        for model, how in models_of(name).items():
            result, penalty, width = outcome(labelled, how, chosen)
            for test, mask in labelled.tests.items():
                about = {"set": name, "test": test, "model": model}
                judged[name, test, model] = ratios(result, mask, keys, seed=len(judged))
                rows = error_rows(result, mask, keys, judged[name, test, model])
                errors += [about | row for row in rows]
                whole.append(about | rows[0] | whole_of(labelled, mask, width, penalty))
                print_row({key: value for key, value in whole[-1].items() if not key.endswith(("ratio", "_error"))})
            kinds += [{"set": name, "model": model, **row} for row in kind_rows(labelled, result, keys)]
    return {"contents": contents, "errors": errors, "whole": whole, "kinds": kinds, "summary": summary(judged)}


def whole_of(labelled: Labelled, test: Array, coefficients: int, penalty: float) -> dict[str, Any]:
    """What was fitted on all structures, and on what it is judged."""
    forces = np.concatenate([labelled.frames[s].get_forces().ravel() for s in np.flatnonzero(test)])
    return {
        "known": len(labelled.splits[0][0]),
        "asked": int(test.sum()),
        "coefficients": coefficients,
        "penalty": penalty,
        "spread": float(np.sqrt(np.mean(forces**2))),
    }


def kind_rows(labelled: Labelled, errors: Errors, keys: Sequence[Key], share: float = 0.25) -> Rows:
    """Errors for each kind of structure at one size."""
    kinds = labelled.kinds
    asked = np.any(list(labelled.tests.values()), axis=0)
    rows = []
    for kind in dict.fromkeys(kinds):
        test = asked & (kinds == kind)
        if not test.any():
            continue
        value, places = errors.of(test), cases(keys)
        for quantity in ("force", "energy"):
            row: dict[str, Any] = {"kind": kind, "structures": int(test.sum()), "quantity": quantity}
            for method in ("all", *METHODS):
                own = places[method, 1.0 if method == "all" else share]
                row[method] = float(value[quantity][own].mean())
            rows.append(row)
    return rows


def summary(judged: dict[tuple[str, str, str], dict[tuple[str, float], dict[str, Ratio]]]) -> Rows:
    """Errors relative to those with all, as geometric means over sets and seeds, and logarithms of others over `BASES`.

    The two tests of a molecule count half each; structures far above the lowest energy are left out.
    """
    rows: Rows = []
    for model in MODELS:
        tests = {(name, test): found for (name, test, m), found in judged.items() if m == model and test != "all"}
        names = [name for name, _ in tests]
        if not tests:
            continue
        weights = {key: 1.0 / names.count(key[0]) / len(set(names)) for key in tests}
        for method in METHODS:
            for share in (s for s in SHARES if ("msc", s) in tests[next(iter(tests))]):
                row: dict[str, Any] = {"model": model, "method": method, "share": share, "sets": len(set(names))}
                for name in ("force", "energy"):
                    mine = {key: found[method, share][name] for key, found in tests.items()}
                    row[name] = float(np.exp(sum(weights[key] * mine[key].value for key in tests)))
                    for base in BASES:
                        ours = {key: found[base, share][name] for key, found in tests.items()}
                        behind = sum(weights[key] * (mine[key].value - ours[key].value) for key in tests)
                        drawn = np.sum([weights[key] * (mine[key].drawn - ours[key].drawn) for key in tests], axis=0)
                        row[f"{name}_behind_{base}"] = [float(behind), float(drawn.std())]
                rows.append(row)
    return rows
