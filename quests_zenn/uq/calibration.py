"""From dH to a bound of the error: split-conformal prediction, with whole groups of frames on one side or the other."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from quests_zenn._core.checks import DataError, one_of, whole_number
from quests_zenn._core.rng import as_rng
from quests_zenn.io.outputs import versions, write_json
from quests_zenn.uq._conformal import (
    FloatArray,
    IntArray,
    Mask,
    Rows,
    as_levels,
    as_scores,
    as_share,
    coverage_band,
    equal_shares,
    expected_coverage,
    fit_width,
    group_quantile,
    mean_over_groups,
    n_train_groups,
    numbers,
    weighted_quantile,
)

if TYPE_CHECKING:
    from quests_zenn.descriptors import Environments
    from quests_zenn.uq.reference import Reference

FORMAT = "quests_zenn error bound"
FORMAT_VERSION = 1

#: What a level refers to.
COVERAGES = ("atom", "frame")

#: What the errors are, and in which unit.
UNITS = {"force": "eV/Å", "energy": "eV/atom"}

#: What a dH is that of: an atom; or a frame, whose atoms have this mean or largest dH. The first is the default.
STATISTICS = {"force": ("atom",), "energy": ("mean", "max")}

#: Share of the groups from which the width as a function of dH is learnt; the others calibrate it.
TRAIN_SHARE = 0.25

#: Share of the groups that are held out where coverage is measured.
TEST_SHARE = 0.25

#: By which a factor grows, so that dividing by a width and multiplying by it again never excludes what it came from.
_ULPS = 1.0 + 4.0 * np.finfo(np.float64).eps

_REFERENCE = ("k", "cutoff", "species", "bandwidth", "same_centre", "elements", "n_environments", "n_frames")


def _rows(
    dh: npt.ArrayLike,
    errors: npt.ArrayLike,
    groups: npt.ArrayLike,
    frames: npt.ArrayLike | None,
    coverage: str,
    quantity: str,
) -> tuple[Rows, str]:
    """Sorted rows, and what a level refers to: for energies each row is a frame."""
    one_of(coverage, "coverage", COVERAGES)
    if one_of(quantity, "quantity", tuple(UNITS)) == "energy":
        return Rows.of(dh, errors, groups, np.arange(len(as_scores(dh)))), "frame"
    return Rows.of(dh, errors, groups, frames), coverage


# --- what it gives ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Coverage:
    """How a bound did on structures that had no part in it. Each group counts 1, whatever its size.

    Attributes
    ----------
    level : float
    coverage : str
        What the level refers to: ``atom`` or ``frame``.
    atom : float
        Share of atoms whose error is within its bound.
    frame : float
        Share of frames in which all atoms are.
    mean_width, median_width : float, eV/Å or eV/atom
        Of the finite bounds; inf if there is none.
    constant_width : float
        The bound that is the same for all dH, from the same calibration groups.
    infinite : float
        Share of atoms whose bound is infinite.
    extrapolated : float
        Share of atoms whose dH lies beyond all that calibrated the bound.
    n_groups, n_frames, n_rows : int
        Number of test groups, their frames, and their atoms.
    band : (float, float)
        Where coverage measured on so many groups lies in 95 % of cases. See `coverage_band`.
    """

    level: float
    coverage: str
    atom: float
    frame: float
    mean_width: float
    median_width: float
    constant_width: float
    infinite: float
    extrapolated: float
    n_groups: int
    n_frames: int
    n_rows: int
    band: tuple[float, float]

    @property
    def measured(self) -> float:
        """The coverage that the level refers to."""
        return self.atom if self.coverage == "atom" else self.frame

    @property
    def inside(self) -> bool:
        """Whether it lies in the band."""
        return self.band[0] - 1e-12 <= self.measured <= self.band[1] + 1e-12


@dataclass(frozen=True, eq=False)
class ErrorBound:
    """An upper bound of the error as a function of dH: ``b(dH) = q sigma(dH)``. Make one with `fit` or `load`.

    sigma rises with dH and is learnt from some groups of frames. q is the conformal quantile of ``|error| / sigma(dH)``
    over other groups. For structures drawn as those groups were, at least the share `level` of the errors is within the
    bound; see *Theory: Calibration*.

    Attributes
    ----------
    levels : tuple of float
        In ascending order.
    coverage : {"atom", "frame"}
        ``atom``: the level is the probability for a random atom of a new structure. ``frame``: for all atoms of a new
        frame at once.
    quantity : {"force", "energy"}
        ``force``: errors of atoms, eV/Å; ``energy``: of frames, eV/atom, against one dH for each frame.
    statistic : {"atom", "mean", "max"}
        What the dH are: ``atom`` for forces; for energies the mean or largest dH of each frame.
    nodes, widths : numpy.ndarray, shape (n,), nats; eV/Å or eV/atom
        sigma, linear between the nodes and constant beyond them.
    factors : tuple of float
        q of each level; inf where there were too few groups.
    constants : tuple of float
        For each level the bound that is the same for all dH.
    n_train, n_calibration : int
        Number of groups for sigma, and for q.
    largest_dh : float, nats
        Largest finite dH among all of these. Beyond it there is no bound.
    reference : dict or None
        What the dH refer to; see `require`.
    """

    levels: tuple[float, ...]
    coverage: str
    quantity: str
    statistic: str
    nodes: FloatArray
    widths: FloatArray
    factors: tuple[float, ...]
    constants: tuple[float, ...]
    n_train: int
    n_calibration: int
    largest_dh: float
    reference: dict[str, Any] | None = None

    # --- making one

    @classmethod
    def fit(
        cls,
        dh: npt.ArrayLike,
        errors: npt.ArrayLike,
        groups: npt.ArrayLike,
        *,
        frames: npt.ArrayLike | None = None,
        level: float | Sequence[float] = 0.9,
        coverage: str = "atom",
        quantity: str = "force",
        statistic: str | None = None,
        train_share: float = TRAIN_SHARE,
        reference: Reference | None = None,
        rng: np.random.Generator | int | None = 0,
    ) -> ErrorBound:
        """A bound from structures whose errors are known.

        Parameters
        ----------
        dh : array_like, shape (n,), nats
            dH of each atom given a reference that holds none of these structures; for energies, one of each frame. inf
            is allowed; the bound there is infinite.
        errors : array_like, shape (n,), eV/Å or eV/atom
            Magnitudes; signs are dropped.
        groups : array_like, shape (n,)
            A label for each atom: the structure that it belongs to. Structures that are no independent draws (symmetry
            copies, frames of one short run) share a label.
        frames : array_like, shape (n,), optional
            Frame of each atom, where a group has several. By default a group is one frame.
        level : float or sequence of float
            Between 0 and 1.
        coverage : {"atom", "frame"}
            What the level refers to; for energies always ``frame``.
        quantity : {"force", "energy"}
            What the errors are. For energies each row is a frame of its own, and `frames` has no say.
        statistic : {"atom", "mean", "max"}, optional
            What the dH are; kept with the bound. By default ``atom`` for forces and ``mean`` for energies.
        train_share : float
            Share of the groups from which sigma is learnt; fewer where too few would be left for the level.
        reference : Reference, optional
            What the dH refer to. It is kept with the bound, which then refuses others.
        rng : Generator, int or None
            Draws the groups for sigma.

        Raises
        ------
        ValueError
            If shapes do not fit, numbers are not finite, or an argument is out of range.
        DataError
            If there are fewer than two groups.
        """
        levels = as_levels(level)
        rows, coverage = _rows(dh, errors, groups, frames, coverage, quantity)
        statistic = one_of(statistic or STATISTICS[quantity][0], "statistic", STATISTICS[quantity])
        share = as_share(train_share, "train_share")
        if rows.n_groups < 2:
            raise DataError(
                "a bound needs at least two groups of frames (one for its width, one to calibrate it), and there is one"
            )
        order = as_rng(rng).permutation(rows.n_groups)
        n_train = n_train_groups(rows.n_groups, share, levels)
        return cls._from_groups(
            rows, order[:n_train], order[n_train:], levels, coverage, quantity, statistic, _fingerprint(reference)
        )

    @classmethod
    def _from_groups(
        cls,
        rows: Rows,
        train: IntArray,
        calibration: IntArray,
        levels: tuple[float, ...],
        coverage: str,
        quantity: str = "force",
        statistic: str = "atom",
        reference: dict[str, Any] | None = None,
    ) -> ErrorBound:
        role = np.zeros(rows.n_groups, np.int8)
        role[train], role[calibration] = 1, 2
        learn = role[rows.group] == 1
        nodes, widths = fit_width(rows.dh[learn], rows.errors[learn], equal_shares(rows.group[learn]))
        chosen = role[rows.item_groups(coverage)] == 2
        members = rows.item_groups(coverage)[chosen]
        # an infinite dH has an infinite bound, which holds whatever the error
        known = np.isfinite(rows.dh)
        scaled = np.where(known, rows.errors / np.interp(rows.dh, nodes, widths), 0.0)
        scores = rows.items(coverage, scaled)[chosen]
        plain = rows.items(coverage, np.where(known, rows.errors, 0.0))[chosen]
        seen = rows.dh[known & (role[rows.group] > 0)]
        return cls(
            levels,
            coverage,
            quantity,
            statistic,
            nodes,
            widths,
            tuple(value * _ULPS for value in group_quantile(scores, members, levels)),
            group_quantile(plain, members, levels),
            len(train),
            len(calibration),
            float(seen.max()) if len(seen) else -math.inf,
            reference,
        )

    # --- asking it

    @property
    def unit(self) -> str:
        """Unit of errors and bounds."""
        return UNITS[self.quantity]

    def sigma(self, dh: npt.ArrayLike) -> FloatArray:
        """The width sigma(dH) (n,), in the unit of the errors; inf where dH is."""
        scores = as_scores(np.atleast_1d(dh))
        return np.where(np.isfinite(scores), np.interp(scores, self.nodes, self.widths), math.inf)

    def bound(self, dh: npt.ArrayLike, level: float | None = None, *, extrapolate: bool = False) -> FloatArray:
        """Upper bound of the magnitude of the error for each dH.

        Parameters
        ----------
        dh : array_like, shape (n,), nats
            Given the reference that the bound was made with.
        level : float, optional
            One of `levels`; the lowest by default.
        extrapolate : bool
            Whether the bound beyond `largest_dh` stays what it was there, which no error backs, instead of being inf.

        Returns
        -------
        numpy.ndarray, shape (n,), eV/Å or eV/atom
            inf beyond `largest_dh` (see `extrapolated`), and everywhere where there were too few groups for the level.
            inf where dH is, whatever `extrapolate` says.

        Raises
        ------
        ValueError
            If the bound has no such level, or dH is NaN.
        """
        factor = self.factors[self._index(level)]
        scores = as_scores(np.atleast_1d(dh))
        # beyond any distance there is no bound, even where all errors seen were zero
        known = np.isfinite(scores) if extrapolate else ~self.extrapolated(scores)
        return np.where(known, np.interp(scores, self.nodes, self.widths) * factor, math.inf)

    def extrapolated(self, dh: npt.ArrayLike) -> Mask:
        """Whether each dH (n,) lies beyond all that calibrated the bound, so that no error is known there."""
        return as_scores(np.atleast_1d(dh)) > self.largest_dh

    def evaluate(
        self,
        dh: npt.ArrayLike,
        errors: npt.ArrayLike,
        groups: npt.ArrayLike,
        *,
        frames: npt.ArrayLike | None = None,
        level: float | None = None,
    ) -> Coverage:
        """Coverage and width on structures with known errors that had no part in the bound. Arguments as in `fit`.

        Beyond `largest_dh` the bound is taken for what it was there (``extrapolate=True``): one that is infinite covers
        all, and would hide that it fails.
        """
        rows, _ = _rows(dh, errors, groups, frames, self.coverage, self.quantity)
        return self._evaluate(rows, np.ones(rows.n_groups, bool), self._index(level))

    def _evaluate(self, rows: Rows, test: Mask, index: int) -> Coverage:
        chosen, frames = test[rows.group], test[rows.frame_group]
        dh, group = rows.dh[chosen], rows.group[chosen]
        bound = self.bound(dh, self.levels[index], extrapolate=True)
        covered = np.ones(len(rows.dh), bool)
        covered[chosen] = rows.errors[chosen] <= bound
        whole = np.logical_and.reduceat(covered, rows.starts)[frames]
        finite = np.isfinite(bound)
        weights = equal_shares(group)
        mean = median = math.inf
        if finite.any():
            mean = float(np.average(bound[finite], weights=weights[finite]))
            median = weighted_quantile(bound[finite], weights[finite], 0.5)
        return Coverage(
            level=self.levels[index],
            coverage=self.coverage,
            atom=mean_over_groups(covered[chosen], group),
            frame=mean_over_groups(whole, rows.frame_group[frames]),
            mean_width=mean,
            median_width=median,
            constant_width=self.constants[index],
            infinite=mean_over_groups(~finite, group),
            extrapolated=mean_over_groups(self.extrapolated(dh), group),
            n_groups=int(np.count_nonzero(test)),
            n_frames=len(whole),
            n_rows=len(dh),
            band=coverage_band(self.levels[index], self.n_calibration, int(np.count_nonzero(test))),
        )

    def _index(self, level: float | None) -> int:
        if level is None:
            return 0
        near = [i for i, own in enumerate(self.levels) if math.isclose(own, float(level), abs_tol=1e-12)]
        if not near:
            told = ", ".join(f"{own:g}" for own in self.levels)
            raise ValueError(f"this bound has the level {told}, and none of {level!r}; fit it with that level")
        return near[0]

    def require(self, reference: Reference, of: str = "the bound") -> None:
        """Refuse a reference that is not the one whose dH calibrated the bound. The order of its frames is free.

        Raises
        ------
        DataError
            Naming the first thing that differs; also if the bound does not say what it belongs to.
        """
        if self.reference is None:
            raise DataError(f"{of}: does not say which reference it belongs to; fit it with reference=...")
        other = _fingerprint(reference)
        assert other is not None
        for name in _REFERENCE:
            own, its = self.reference[name], other[name]
            if own != its:
                told = [" ".join(value) if isinstance(value, list) else value for value in (own, its)]
                raise DataError(
                    f"{of}: was calibrated with another reference ({name} {told[0]}, and this one has {told[1]}); "
                    "use that one, or calibrate again"
                )
        if not np.allclose(self.reference["moments"], other["moments"], rtol=_SAME_MOMENTS, atol=0.0):
            raise DataError(
                f"{of}: was calibrated with another reference, of the same size but with other environments; "
                "use that one, or calibrate again"
            )

    def __repr__(self) -> str:
        told = ", ".join(f"{level:g}" for level in self.levels)
        return (
            f"<ErrorBound of {self.quantity} errors at level {told} per {self.coverage}, from {self.n_train} + "
            f"{self.n_calibration} groups>"
        )

    # --- keeping it

    def document(self) -> dict[str, Any]:
        """All that the bound is, in terms of JSON but for infinities."""
        return {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "quantity": self.quantity,
            "unit": self.unit,
            "statistic": self.statistic,
            "coverage": self.coverage,
            "levels": list(self.levels),
            "factors": list(self.factors),
            "constants": list(self.constants),
            "nodes": self.nodes,
            "widths": self.widths,
            "n_train": self.n_train,
            "n_calibration": self.n_calibration,
            "largest_dh": self.largest_dh,
            "reference": self.reference,
        }

    def save(
        self, path: str | os.PathLike[str], overwrite: bool = False, notes: Mapping[str, Any] | None = None
    ) -> None:
        """Write the bound as JSON, whole or not at all. `notes` are kept in the file and not read again.

        Raises
        ------
        DataError
            See `quests_zenn.io.outputs.check_output`.
        """
        write_json(path, self.document() | {"notes": dict(notes or {}), "versions": versions()}, overwrite)

    @classmethod
    def load(cls, path: str | os.PathLike[str], reference: Reference | None = None) -> ErrorBound:
        """A bound that `save` has written.

        Parameters
        ----------
        path : file name
        reference : Reference, optional
            The one that it must belong to; see `require`.

        Raises
        ------
        DataError
            If it is missing, damaged, no bound, of a newer format, or belongs to another reference.
        """
        name = os.fspath(path)
        found = _read_json(Path(path))
        if found.get("format") != FORMAT:
            raise DataError(f"{name}: is no error bound; quests-zenn calibrate makes one")
        version = found.get("format_version")
        if isinstance(version, bool) or not isinstance(version, int) or not 1 <= version <= FORMAT_VERSION:
            raise DataError(
                f"{name}: was written in format {version}, newer than this version of quests_zenn reads "
                f"({FORMAT_VERSION}); update quests_zenn, or calibrate again"
            )
        try:
            bound = cls._from_document(found)
            if reference is not None:
                bound.require(reference, name)
        except DataError:
            raise
        except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
            raise DataError(f"{name}: its parts do not fit together ({error}); calibrate again") from error
        return bound

    @classmethod
    def _from_document(cls, found: dict[str, Any]) -> ErrorBound:
        def infinite_if_null(name: str) -> tuple[float, ...]:
            return tuple(numbers([math.inf if value is None else value for value in found[name]], name).tolist())

        levels = as_levels(found["levels"])
        nodes, widths = numbers(found["nodes"], "nodes"), numbers(found["widths"], "widths")
        factors, constants = infinite_if_null("factors"), infinite_if_null("constants")
        largest = -math.inf if found["largest_dh"] is None else float(found["largest_dh"])
        one_of(found["coverage"], "coverage", COVERAGES)
        one_of(found["statistic"], "statistic", STATISTICS[one_of(found["quantity"], "quantity", tuple(UNITS))])
        fits = (
            list(levels) == found["levels"]
            and nodes.ndim == 1
            and nodes.shape == widths.shape
            and len(nodes) > 0
            and bool(np.isfinite(nodes).all() and np.isfinite(widths).all())
            and bool((np.diff(nodes) > 0.0).all() and (np.diff(widths) >= 0.0).all() and (widths > 0.0).all())
            and len(factors) == len(constants) == len(levels)
            and all(value >= 0.0 for value in (*factors, *constants))
            and list(factors) == sorted(factors)
            and not math.isnan(largest)
            and largest < math.inf
        )
        if not fits:
            raise ValueError("numbers are missing, or not in the order that they must have")
        reference = found["reference"]
        if reference is not None:
            absent = [name for name in (*_REFERENCE, "moments") if name not in reference]
            if absent:
                raise ValueError(f"its reference has no {absent[0]}")
            reference = reference | {"moments": [float(value) for value in reference["moments"]]}
            if len(reference["moments"]) != len(_POWERS):
                raise ValueError("its reference has another number of moments")
        return cls(
            levels,
            found["coverage"],
            found["quantity"],
            found["statistic"],
            nodes,
            widths,
            factors,
            constants,
            whole_number(found["n_train"], "n_train", 1),
            whole_number(found["n_calibration"], "n_calibration", 1),
            largest,
            reference,
        )


def _read_json(path: Path) -> dict[str, Any]:
    if os.path.exists(path) and not os.path.isfile(path):
        raise DataError(f"{path}: is a folder, a pipe or a device, not a file")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError, ValueError, RecursionError) as error:
        what = " ".join(str(error).split())
        raise DataError(
            f"{path}: cannot be read ({what[:120]}); is it truncated, damaged, or something else?"
        ) from None
    if not isinstance(found, dict):
        raise DataError(f"{path}: is no error bound; quests-zenn calibrate makes one")
    return found


#: Moments of all components of the environments that tell references apart: the same for any order of frames, and but
#: for rounding on any machine.
_POWERS = (1, 2, 3, 4)

#: Relative difference of equal moments: positions are rounded where frames are written to files.
_SAME_MOMENTS = 1e-8


def _fingerprint(reference: Reference | None) -> dict[str, Any] | None:
    """What dH given a reference depends on, in short."""
    if reference is None:
        return None
    sums = np.zeros(len(_POWERS))
    step = 10_000
    for first in range(0, len(reference), step):
        part = np.asarray(reference.x[first : first + step], dtype=np.float64)
        power = np.ones_like(part)
        for i in range(len(_POWERS)):
            power *= part
            sums[i] += power.sum()
    return {
        **reference.parameters,
        "elements": list(reference.elements),
        "n_environments": len(reference),
        "n_frames": reference.n_frames,
        "moments": (sums / reference.x.size).tolist(),
    }


def frames_inside(reference: Reference, environments: Environments, tolerance: float = 1e-5) -> Mask:
    """Whether each frame (F,) has all its environments in the reference, within `tolerance` (1/Å): it was made from it.

    So have copies by symmetry of such frames.
    """
    x, its = environments.x, reference.x
    offsets = environments.frame_offsets
    if x.shape[1] != its.shape[1] or (environments.elements != reference.elements and reference.species != "none"):
        return np.zeros(len(offsets) - 1, bool)
    # in a few directions what is near stays near, and what is not is hardly ever near by chance
    few = np.linalg.qr(np.random.default_rng(0).normal(size=(x.shape[1], min(6, x.shape[1]))))[0]
    there = np.isfinite(cKDTree(its @ few).query(x @ few, distance_upper_bound=tolerance)[0])
    inside: Mask = np.logical_and.reduceat(there, offsets[:-1])
    return inside


# --- does it hold? ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class SplitCheck:
    """Coverage and width over random splits of the groups, for one level.

    Attributes
    ----------
    level : float
    coverage : str
        What the level refers to: ``atom`` or ``frame``.
    measured : numpy.ndarray, shape (S,)
        Coverage on the held-out groups of each split.
    atom, frame : float
        Mean over the splits of both kinds of coverage, whichever the level refers to.
    expected : (float, float)
        Between what the mean coverage must lie, where no two scores are equal. The ends agree with one score for each
        group (see `expected_coverage`); with several they are `level` and 2 / (n + 1) above it.
    band : (float, float)
        Where a single split lies in at least 95 % of cases. See `coverage_band`.
    inside : float
        Share of the splits that do.
    mean_width, median_width, constant_width : float, eV/Å or eV/atom
        Means over the splits; the last one is that of the bound that is the same for all dH. inf where one is.
    infinite, extrapolated : float
        Share of held-out atoms whose bound is infinite, and of those beyond all dH that calibrated it.
    edges : numpy.ndarray, shape (5,), nats
        Quartiles of dH (of atoms, or of the largest of each frame).
    by_dh, by_dh_constant : numpy.ndarray, shape (4,)
        Coverage between these edges, and that of the constant bound; NaN where none was held out.
    n_train, n_calibration, n_test : int
        Groups of each split.
    """

    level: float
    coverage: str
    measured: FloatArray
    atom: float
    frame: float
    expected: tuple[float, float]
    band: tuple[float, float]
    inside: float
    mean_width: float
    median_width: float
    constant_width: float
    infinite: float
    extrapolated: float
    edges: FloatArray
    by_dh: FloatArray
    by_dh_constant: FloatArray
    n_train: int
    n_calibration: int
    n_test: int

    @property
    def mean(self) -> float:
        """Mean coverage over the splits."""
        return float(self.measured.mean())


def _expected(level: float, n_groups: int, single: bool) -> tuple[float, float]:
    exact = expected_coverage(level, n_groups)
    return (exact, exact) if single or exact == 1.0 else (level, min(1.0, level + 2.0 / (n_groups + 1)))


def check_coverage(
    dh: npt.ArrayLike,
    errors: npt.ArrayLike,
    groups: npt.ArrayLike,
    *,
    frames: npt.ArrayLike | None = None,
    level: float | Sequence[float] = 0.9,
    coverage: str = "atom",
    quantity: str = "force",
    splits: int = 200,
    test_share: float = TEST_SHARE,
    train_share: float = TRAIN_SHARE,
    rng: np.random.Generator | int | None = 0,
    progress: Callable[[int], None] | None = None,
) -> list[SplitCheck]:
    """Coverage and width on held-out groups, over many random splits into groups for sigma, calibration, and test.

    Parameters
    ----------
    dh, errors, groups, frames, level, coverage, quantity, train_share
        See `ErrorBound.fit`; `train_share` is of the groups that are not held out.
    splits : int
        Number of random splits.
    test_share : float
        Share of the groups that are held out.
    rng : Generator, int or None
        Draws the splits.
    progress : callable or None
        Called with 1 after each split.

    Returns
    -------
    list of SplitCheck
        One for each level, in ascending order.

    Raises
    ------
    ValueError
        See `ErrorBound.fit`.
    DataError
        If there are fewer than three groups.
    """
    levels = as_levels(level)
    rows, coverage = _rows(dh, errors, groups, frames, coverage, quantity)
    splits = whole_number(splits, "splits", 1)
    held_out, share = as_share(test_share, "test_share"), as_share(train_share, "train_share")
    n = rows.n_groups
    if n < 3:
        raise DataError(
            "measuring coverage needs at least three groups of frames (for the width, to calibrate it, to test it), "
            f"and there {'is one' if n == 1 else 'are two'}"
        )
    generator = as_rng(rng)
    n_test = min(n - 2, max(1, round(held_out * n)))
    n_train = n_train_groups(n - n_test, share, levels)
    item_dh = rows.items(coverage, rows.dh)
    finite = item_dh[np.isfinite(item_dh)]
    quartiles = (0.0, 0.25, 0.5, 0.75, 1.0)
    edges = np.quantile(finite, quartiles, method="lower") if len(finite) else np.full(5, math.inf)
    place = np.searchsorted(edges[1:-1], item_dh, side="right")
    members = rows.item_groups(coverage)
    found: list[list[Coverage]] = [[] for _ in levels]
    hits = np.zeros((len(levels), 2, 4))
    asked = np.zeros(4)
    for _ in range(splits):
        order = generator.permutation(n)
        kept = order[n_test:]
        bound = ErrorBound._from_groups(rows, kept[:n_train], kept[n_train:], levels, coverage)
        test = np.zeros(n, bool)
        test[order[:n_test]] = True
        chosen = test[members]
        where, weights = place[chosen], equal_shares(members[chosen])
        asked += np.bincount(where, weights, 4)
        for i in range(len(levels)):
            found[i].append(bound._evaluate(rows, test, i))
            own = bound.bound(rows.dh, levels[i], extrapolate=True)
            for j, limits in enumerate((own, np.full(len(rows.dh), bound.constants[i]))):
                excess = np.where(np.isfinite(rows.dh), rows.errors - limits, 0.0)
                within = rows.items(coverage, excess)[chosen] <= 0.0
                hits[i, j] += np.bincount(where, weights * within, 4)
        if progress is not None:
            progress(1)
    with np.errstate(invalid="ignore"):
        by_dh = hits / asked
    n_calibration = n - n_test - n_train
    checks = []
    for i, one in enumerate(levels):
        every = found[i]
        checks.append(
            SplitCheck(
                level=one,
                coverage=coverage,
                measured=np.array([result.measured for result in every]),
                atom=float(np.mean([result.atom for result in every])),
                frame=float(np.mean([result.frame for result in every])),
                expected=_expected(one, n_calibration, len(members) == n),
                band=every[0].band,
                inside=float(np.mean([result.inside for result in every])),
                mean_width=float(np.mean([result.mean_width for result in every])),
                median_width=float(np.mean([result.median_width for result in every])),
                constant_width=float(np.mean([result.constant_width for result in every])),
                infinite=float(np.mean([result.infinite for result in every])),
                extrapolated=float(np.mean([result.extrapolated for result in every])),
                edges=edges,
                by_dh=by_dh[i, 0],
                by_dh_constant=by_dh[i, 1],
                n_train=n_train,
                n_calibration=n_calibration,
                n_test=n_test,
            )
        )
    return checks
