"""What all oracles share: what is asked, judged; what is answered; what they are."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from quests_zenn._core.checks import DataError, whole_number
from quests_zenn.sampling._program import RESERVED, Answer, Asked, Programs, digest

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


@dataclass
class Result:
    """What an oracle said; rows in the order of the points that were asked.

    Attributes
    ----------
    x : array, shape (n, q)
        Where mu was found, which may lie beside the point that was asked; NaN where a point failed.
    T : array, shape (n,), K
    mu : array, shape (n, q)
        dg/dx at `x` and `T`, in the unit of the oracle; NaN where a point failed.
    mu_error : array, shape (n, q), or None
        Standard errors of `mu`.
    F : array, shape (n,), or None
        g itself, where it is known; NaN where not.
    message : list of str
        Why a point failed; "" where all is well.
    index : array of int, shape (n,), or None
        Row of the pool that was taken, -1 where none was; None for oracles without a pool.
    snapshots : list of Path or None, or None
        File of frames of each point, in any format that ASE reads, with an index or without (``run.xyz@::10``).

    A message of a point that was answered says what is missing beside the answer, such as its snapshots.
    """

    x: FloatArray
    T: FloatArray
    mu: FloatArray
    mu_error: FloatArray | None
    F: FloatArray | None
    message: list[str]
    index: IntArray | None = None
    snapshots: list[Path | None] | None = None

    @classmethod
    def empty(cls, T: FloatArray, q: int) -> Result:
        """One row for each T, with nothing known yet."""
        n = len(T)
        return cls(np.full((n, q), np.nan), T.copy(), np.full((n, q), np.nan), None, None, [""] * n)

    def __len__(self) -> int:
        return len(self.T)

    @property
    def ok(self) -> npt.NDArray[np.bool_]:
        """Rows that were answered, (n,)."""
        return np.asarray(np.isfinite(np.hstack([self.x, self.mu])).all(axis=1))

    def put(self, row: int, answer: Answer | str) -> None:
        """Fill in one row: an answer, or why there is none."""
        if isinstance(answer, str):
            self.message[row] = answer
            return
        self.x[row], self.mu[row] = answer.x, answer.mu
        if answer.mu_error is not None:
            if self.mu_error is None:
                self.mu_error = np.full(self.mu.shape, np.nan)
            self.mu_error[row] = answer.mu_error
        if answer.F is not None:
            if self.F is None:
                self.F = np.full(len(self), np.nan)
            self.F[row] = answer.F
        if answer.snapshots is not None:
            if self.snapshots is None:
                self.snapshots = [None] * len(self)
            self.snapshots[row] = answer.snapshots
        if answer.note:
            self.message[row] = answer.note


@runtime_checkable
class Oracle(Protocol):
    """What the loop needs of an oracle."""

    @property
    def q(self) -> int:
        """Number of order parameters."""

    @property
    def names(self) -> tuple[str, ...]:
        """Of the order parameters."""

    def evaluate(
        self,
        points: npt.ArrayLike,
        T: npt.ArrayLike,
        *,
        seeds: npt.ArrayLike,
        jobs: int | None = None,
        folder: str | os.PathLike[str] | None = None,
        used: npt.ArrayLike | None = None,
    ) -> Result:
        """mu at each point.

        Parameters
        ----------
        points : array_like, shape (n, q)
        T : array_like, shape (n,) or a number, K
        seeds : array_like of int, shape (n,)
            One for each point, from 0.
        jobs : int or None
            Points at a time; None for all cores. Changes no answer.
        folder : path, optional
            Where answers are kept as they come in: the same call finds them there.
        used : array_like of int, optional
            Rows of a pool that were taken before.
        """

    def candidates(self) -> FloatArray | None:
        """The only points there are, (N, q); None if any point may be asked for."""

    def fingerprint(self) -> str:
        """SHA-256 of what the oracle is: of its data, and of the settings that its answers depend on."""


# what is asked --------------------------------------------------------------------------------------------------------


def check_names(names: Sequence[str] | None, q: int) -> tuple[str, ...]:
    """Names of the order parameters: ``eta_0, eta_1, ...`` by default."""
    if names is None:
        return tuple(f"eta_{i}" for i in range(q))
    found = (names,) if isinstance(names, str) else tuple(names)
    if len(found) != q:
        raise ValueError(f"names must hold {q} name{'s' * (q != 1)}, got {len(found)}")
    for name in found:
        if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z][A-Za-z0-9_.+-]*", name):
            raise ValueError(f"names must be letters, digits and _ . + -, beginning with a letter, got {name!r}")
        if name in RESERVED:
            raise ValueError(f"no order parameter may be called {name!r}: that is the name of something else")
    if len(set(found)) < q:
        raise ValueError(f"names must differ from each other, got {', '.join(found)}")
    return found


def as_matrix(values: npt.ArrayLike, what: str) -> FloatArray:
    """`values` as an array (n, q) of its own; a list of numbers is one column."""
    try:
        array = np.array(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise DataError(f"{what} must be an array of numbers (n, q)") from None
    array = array[:, None] if array.ndim == 1 else array
    if array.ndim != 2 or array.shape[1] == 0:
        raise DataError(f"{what} must have the shape (n, q), got {array.shape}")
    return np.ascontiguousarray(array)


def as_column(values: npt.ArrayLike, n: int, what: str) -> FloatArray:
    """`values` as an array (n,) of its own; one number stands for all."""
    try:
        array = np.array(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise DataError(f"{what} must be a number, or {n} of them") from None
    if array.ndim == 0:
        array = np.full(n, float(array))
    if array.shape != (n,):
        raise DataError(f"{what} must be a number, or {n} of them, got the shape {array.shape}")
    return array


def as_temperatures(T: npt.ArrayLike, n: int) -> FloatArray:
    array = as_column(T, n, "T")
    wrong = np.flatnonzero(~(np.isfinite(array) & (array > 0.0)))
    if len(wrong):
        raise DataError(f"T must be positive and finite, got {array[wrong[0]]!r} for point {wrong[0]}")
    return array


def check_asked(
    points: npt.ArrayLike, T: npt.ArrayLike, seeds: npt.ArrayLike, q: int
) -> tuple[FloatArray, FloatArray, list[int]]:
    """Points (n, q), T (n,) and seeds (n,), judged."""
    x = np.array(points, dtype=np.float64).reshape(0, q) if np.size(points) == 0 else as_matrix(points, "points")
    if x.shape[1] != q:
        raise DataError(f"points must have {q} order parameter{'s' * (q != 1)} each, got {x.shape[1]}")
    wrong = np.flatnonzero(~np.isfinite(x).all(axis=1))
    if len(wrong):
        raise DataError(f"points must be finite, and point {wrong[0]} is not")
    numbers = np.asarray(seeds).ravel().tolist()
    if len(numbers) != len(x) or np.ndim(seeds) != 1:
        raise ValueError(f"seeds must be a list of {len(x)} whole numbers, one for each point")
    return x + 0.0, as_temperatures(T, len(x)), [whole_number(seed, "a seed", 0) for seed in numbers]


def where(row: int, x: FloatArray, T: float, names: Sequence[str]) -> str:
    """How a message names a point."""
    said = ", ".join(f"{name} = {value:.6g}" for name, value in zip(names, x.tolist(), strict=True))
    return f"point {row} ({said}, T = {T:g})"


def fingerprint_of(settings: Mapping[str, Any], *arrays: FloatArray | None) -> str:
    """SHA-256 of settings (in terms of JSON) and arrays."""
    total = hashlib.sha256(digest(settings).encode())
    for array in arrays:
        if array is None:
            total.update(b"none")
        else:
            total.update(repr(array.shape).encode())
            total.update(np.ascontiguousarray(array + 0.0).astype("<f8").tobytes())
    return total.hexdigest()


def shifted(asked: FloatArray, mu_guess: npt.ArrayLike | None, phi: FloatArray) -> FloatArray:
    """Centres of the bias, x + mu / (2 phi): where <eta> = kappa - mu / (2 phi) lands on x."""
    if mu_guess is None:
        return asked
    guess = as_matrix(mu_guess, "mu_guess")
    if guess.shape != asked.shape:
        raise DataError(f"mu_guess must have the shape of points, {asked.shape}, got {guess.shape}")
    return asked + np.where(np.isfinite(guess), guess, 0.0) / (2.0 * phi) + 0.0


# programs ------------------------------------------------------------------------------------------------------------


def run_programs(
    programs: Programs,
    asked: FloatArray,
    temperatures: FloatArray,
    seeds: Sequence[int],
    jobs: int | None,
    folder: str | os.PathLike[str] | None,
    named: FloatArray | None = None,
) -> Result:
    """Answers of programs to judged points; messages name the points `named` (n, q), by default those asked."""
    named = asked if named is None else named
    result = Result.empty(temperatures, asked.shape[1])
    answers = programs.answer(as_asked(asked, temperatures, seeds), jobs, None if folder is None else Path(folder))
    for i, answer in enumerate(answers):
        if isinstance(answer, str):
            answer = f"{where(i, named[i], temperatures[i], programs.names)}: {answer}"
        elif answer.note:
            answer = replace(answer, note=f"{where(i, named[i], temperatures[i], programs.names)}: {answer.note}")
        result.put(i, answer)
    return result


def as_asked(asked: FloatArray, temperatures: FloatArray, seeds: Sequence[int]) -> list[Asked]:
    """Judged points one by one."""
    rows = zip(asked.tolist(), temperatures.tolist(), seeds, strict=True)
    return [Asked(i, tuple(x), T, seed) for i, (x, T, seed) in enumerate(rows)]
