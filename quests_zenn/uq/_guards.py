"""What generated structures must not do: bring atoms too close to each other, or leave a range of volumes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations_with_replacement
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from quests_zenn._core.checks import DataError, positive
from quests_zenn._core.jit import strict_kernel

if TYPE_CHECKING:
    from quests_zenn.uq.reference import Reference

Array = npt.NDArray[np.float64]

#: Smallest distance that the guard allows where nothing else is said.
DEFAULT_MIN_DISTANCE = "reference:0.9"

#: What ``NAME:FACTOR`` can be a factor of.
_SCALES = ("reference", "covalent")

#: Starting frames may be this much below the guard (Å): what files lose in digits.
ROUNDING = 1e-6


@strict_kernel
def find_close(positions, moved, codes, limits2, lattice, inverse, periodic, reach, found):  # type: ignore[no-untyped-def]
    """Whether an atom of `moved` is closer to any atom, or to an image, than the pair's limit.

    Parameters
    ----------
    positions : (n, 3); moved : (m,)
    codes : (n,); limits2 : (c, c)
        Kind of each atom, and the squared limit for each pair of kinds.
    lattice, inverse : (3, 3); periodic : (3,) bool
    reach : (3,)
        Lattice vectors to each side that a pair within its limit can be apart once it is wrapped.
    found : (3,)
        Filled where the answer is yes: the two atoms and their distance.
    """
    f = np.empty(3)
    for i in moved:
        for j in range(len(positions)):
            limit2 = limits2[codes[i], codes[j]]
            for a in range(3):
                f[a] = 0.0
                for c in range(3):
                    f[a] += (positions[j, c] - positions[i, c]) * inverse[c, a]
                if periodic[a]:
                    f[a] -= np.rint(f[a])
            for s0 in range(-reach[0], reach[0] + 1):
                for s1 in range(-reach[1], reach[1] + 1):
                    for s2 in range(-reach[2], reach[2] + 1):
                        if i == j and s0 == 0 and s1 == 0 and s2 == 0:
                            continue
                        d2 = 0.0
                        for c in range(3):
                            d = (f[0] + s0) * lattice[0, c] + (f[1] + s1) * lattice[1, c] + (f[2] + s2) * lattice[2, c]
                            d2 += d * d
                        if d2 < limit2:
                            found[0], found[1], found[2] = i, j, math.sqrt(d2)
                            return True
    return False


@dataclass(frozen=True)
class Box:
    """A cell as `find_close` needs it.

    Attributes
    ----------
    cell, lattice, inverse : (3, 3)
        As given; with unit vectors where it is not periodic; and the inverse of the latter.
    periodic : (3,) bool
    reach : (3,)
        See `find_close`.
    """

    cell: Array
    lattice: Array
    inverse: Array
    periodic: npt.NDArray[np.bool_]
    reach: npt.NDArray[np.int64]

    @classmethod
    def of(cls, cell: npt.ArrayLike, pbc: npt.ArrayLike, farthest: float, label: str) -> Box:
        """The box of a frame, for limits of at most `farthest` Å.

        Raises
        ------
        DataError
            If the cell has no volume along its periodic axes.
        """
        from ase.geometry import complete_cell

        given, periodic = np.array(cell, np.float64), np.array(pbc, bool)
        lattice = np.array(complete_cell(np.where(periodic[:, None], given, 0.0)), np.float64)
        volume = float(np.linalg.det(lattice)) if np.isfinite(lattice).all() else 0.0
        if not math.isfinite(volume) or abs(volume) < 1e-6:
            raise DataError(f"{label}: its cell has no volume along the periodic axes")
        inverse = np.asarray(np.linalg.inv(lattice), np.float64)
        # a wrapped pair, n lattice vectors apart, lies at least (|n| - 1/2) plane distances apart
        reach = np.ceil(farthest * np.linalg.norm(inverse, axis=0) + 0.5).astype(np.int64) - 1
        return cls(given, lattice, inverse, periodic, np.where(periodic, reach, 0))


@dataclass(frozen=True)
class Distances:
    """Smallest distances allowed.

    Attributes
    ----------
    limits : dict
        Å for each pair of atomic numbers, the smaller one first.
    told : str
        What was asked for.
    """

    limits: dict[tuple[int, int], float]
    told: str

    @property
    def farthest(self) -> float:
        """The largest of the limits, Å."""
        return max(self.limits.values())

    def table(self, numbers: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], Array]:
        """Kind of each atom, and the squared limit for each pair of kinds, Å2."""
        present, codes = np.unique(numbers, return_inverse=True)
        limits = [[self.limits[min(a, b), max(a, b)] for b in present.tolist()] for a in present.tolist()]
        return codes.astype(np.int64), np.array(limits) ** 2

    def check(self, positions: Array, numbers: npt.NDArray[np.int64], box: Box, label: str) -> None:
        """Refuse a frame in which atoms are too close.

        Raises
        ------
        DataError
            Naming two of them.
        """
        codes, limits2 = self.table(numbers)
        lower = np.maximum(np.sqrt(limits2) - ROUNDING, 0.0) ** 2
        found = np.zeros(3)
        everything = np.arange(len(positions))
        if find_close(positions, everything, codes, lower, box.lattice, box.inverse, box.periodic, box.reach, found):
            i, j = int(found[0]), int(found[1])
            pair = "-".join(_symbols((int(numbers[i]), int(numbers[j]))))
            limit = math.sqrt(limits2[codes[i], codes[j]])
            raise DataError(
                f"{label}: atoms {i} and {j} ({pair}) are {found[2]:.3f} Å apart, closer than the guard of {limit:.3f} "
                f"Å ({self.told}) allows; lower the guard, or start from another frame"
            )

    def __str__(self) -> str:
        return ", ".join(f"{'-'.join(_symbols(pair))} {limit:.3f} Å" for pair, limit in sorted(self.limits.items()))


def _symbols(numbers: tuple[int, ...]) -> list[str]:
    from ase.data import chemical_symbols

    return [chemical_symbols[z] for z in numbers]


def parse_min_distance(spec: Any) -> tuple[str, float] | dict[tuple[str, str], float]:
    """What a smallest distance is a factor of (``"Å"``, ``"reference"`` or ``"covalent"``) and the factor, or pairs.

    Raises
    ------
    ValueError
        If it is none of the forms that `distances` takes.
    """
    if isinstance(spec, str) and "=" in spec:
        return _parse_pairs(spec)
    if isinstance(spec, Mapping):
        return dict(spec)
    name, colon, factor = spec.partition(":") if isinstance(spec, str) else ("", "", "")
    if colon and name in _SCALES:
        return name, positive(factor, f"the factor of min_distance {name}:FACTOR")
    try:
        return "Å", positive(spec, "min_distance")
    except ValueError:
        raise ValueError(
            f"min_distance is a positive number in Å, {' or '.join(f'{scale}:FACTOR' for scale in _SCALES)}, or A-B=Å "
            f"for pairs of elements, got {spec!r}"
        ) from None


def distances(
    spec: float | str | Mapping[tuple[str, str], float], reference: Reference, numbers: npt.NDArray[np.int64]
) -> Distances:
    """Smallest distances for all pairs of the elements `numbers`.

    Parameters
    ----------
    spec : float, str or mapping
        Å for all pairs; ``reference:0.9`` or ``covalent:0.7``; Å for some pairs of elements (``Cu-O=1.7,O-O=2.1`` as
        text), with `DEFAULT_MIN_DISTANCE` for the others.

    Raises
    ------
    ValueError
        If it is none of these, or names an element that is not there.
    DataError
        If it refers to distances that the reference does not hold.
    """
    present = np.unique(numbers).tolist()
    pairs = list(combinations_with_replacement(present, 2))
    parsed = parse_min_distance(spec)
    if isinstance(parsed, dict):
        given = _given_pairs(parsed, present)
        if len(given) == len(pairs):
            return Distances(given, "as given")
        others = distances(DEFAULT_MIN_DISTANCE, reference, numbers).limits
        return Distances(others | given, f"as given, or {DEFAULT_MIN_DISTANCE}")
    name, scale = parsed
    if name == "Å":
        return Distances(dict.fromkeys(pairs, scale), "as given")
    if name == "covalent":
        from ase.data import covalent_radii

        return Distances({(a, b): scale * float(covalent_radii[a] + covalent_radii[b]) for a, b in pairs}, str(spec))
    nearest = {z: nearest_distance(reference.x[reference.numbers == z], reference.cutoff) for z in present}
    alone = [z for z in present if not math.isfinite(nearest[z])]
    if alone:
        raise DataError(
            f"no {_symbols((alone[0],))[0]} of the reference has a neighbour, so that it tells no smallest distance; "
            "give min_distance in Å"
        )
    # a pair of the reference is no closer than the closest neighbour of either element
    return Distances({(a, b): scale * max(nearest[a], nearest[b]) for a, b in pairs}, str(spec))


def _parse_pairs(text: str) -> dict[tuple[str, str], float]:
    found: dict[tuple[str, str], float] = {}
    for part in text.split(","):
        names, _, limit = part.partition("=")
        words = [word.strip() for word in names.split("-")]
        if len(words) != 2 or not all(words):
            raise ValueError(f"min_distance for pairs reads A-B=Å, as in Cu-Cu=2.1,Cu-O=1.7, got {part!r}")
        found[words[0], words[1]] = positive(limit, f"min_distance of {words[0]}-{words[1]}")
    return found


def _given_pairs(spec: Mapping[tuple[str, str], float], present: list[int]) -> dict[tuple[int, int], float]:
    from ase.data import atomic_numbers

    found: dict[tuple[int, int], float] = {}
    for (first, second), limit in spec.items():
        for symbol in (first, second):
            if atomic_numbers.get(symbol) not in present:
                raise ValueError(f"min_distance names {symbol}, which is in none of the starting frames")
        a, b = sorted((atomic_numbers[first], atomic_numbers[second]))
        found[a, b] = positive(limit, f"min_distance of {first}-{second}")
    if not found:
        raise ValueError("min_distance names no pair of elements")
    return found


def nearest_distance(x: npt.NDArray[np.floating], cutoff: float) -> float:
    """Smallest distance (Å) between the centres of environments and their neighbours; inf where there are none.

    The first component of an environment is w(r)/r of its nearest neighbour, which falls with r.
    """
    from scipy.optimize import brentq

    largest = float(x[:, 0].max()) if len(x) else 0.0
    if largest <= 0.0:
        return math.inf

    def excess(r: float) -> float:
        return (1.0 - (r / cutoff) ** 2) ** 2 / r - largest

    return float(brentq(excess, min(0.5 / largest, 0.1 * cutoff), cutoff, xtol=1e-12))


def volume_range(spec: Any) -> tuple[float, float]:
    """Limits of the volume per atom, Å3, from two numbers or from ``LOW:HIGH``.

    Raises
    ------
    ValueError
        If it is neither, or the first is not below the second.
    """
    parts = spec.split(":") if isinstance(spec, str) else list(spec) if np.iterable(spec) else []
    if len(parts) != 2:
        raise ValueError(f"volume takes a lower and an upper limit in Å3 per atom, as in 10:14, got {spec!r}")
    low, high = positive(parts[0], "the lower limit of volume"), positive(parts[1], "the upper limit of volume")
    if not low < high:
        raise ValueError(f"the lower limit of volume must be below the upper one, got {low:g} and {high:g}")
    return low, high
