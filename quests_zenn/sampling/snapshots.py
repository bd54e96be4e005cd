"""Frames of measured points: where they lie, their environments, and what these say of the points."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from quests_zenn._core import checks
from quests_zenn._core.checks import DataError, one_of, positive, whole_number
from quests_zenn.descriptors import describe
from quests_zenn.descriptors.environments import DEFAULT_CUTOFF, DEFAULT_K, SPECIES
from quests_zenn.entropy import DEFAULT_BANDWIDTH
from quests_zenn.io.frames import read_frames, split_index
from quests_zenn.io.outputs import write_matrix
from quests_zenn.io.tables import Table
from quests_zenn.sampling.weights import (
    DEFAULT_CLIP,
    KINDS,
    GroupScores,
    capped,
    check_clip,
    group_scores,
    novelty_of,
    row_weights,
)

FloatArray = npt.NDArray[np.float64]

#: The column of a table that names files of frames.
COLUMN = "snapshots"


@dataclass(frozen=True)
class Snapshots:
    """How points are scored by the frames that were measured there.

    After each round, dH of the environments of every point given those of all others is computed; mean and largest
    value of each point are kept with the round. Points without frames have no scores, and the weight 1.

    Parameters
    ----------
    k, cutoff, species
        Of the descriptor, Å: see `quests_zenn.descriptors.get_descriptors`.
    bandwidth : float, 1/Å
    weights : {"uniform", "density", "novelty"}
        What a point counts in the fit: see `row_weights`. With ``uniform`` scores are told and change nothing.
    novelty : bool
        Whether the novelty filter measures in the space of environments: how novel the frames of a candidate are given
        those of all measured points takes the place of its distance in order parameters. Needs a `PoolOracle` with
        snapshots. The minimum distance stays one of order parameters.
    clip : (float, float)
        Smallest and largest weight.
    elements : sequence of str, optional
        Elements that may occur: needed for species ``blocks`` and ``pairs``, where they fix the columns.

    Raises
    ------
    ValueError
        If a setting makes no sense.
    """

    k: int = DEFAULT_K
    cutoff: float = DEFAULT_CUTOFF
    bandwidth: float = DEFAULT_BANDWIDTH
    species: str = "none"
    weights: str = "uniform"
    novelty: bool = False
    clip: tuple[float, float] = DEFAULT_CLIP
    elements: Sequence[str] | None = None

    def __post_init__(self) -> None:
        whole_number(self.k, "k", 2)
        positive(self.cutoff, "cutoff")
        checks.bandwidth(self.bandwidth)
        one_of(self.species, "species", SPECIES)
        one_of(self.weights, "weights", KINDS)
        object.__setattr__(self, "clip", check_clip(self.clip))
        if self.elements is not None:
            from ase.data import atomic_numbers

            names = (self.elements,) if isinstance(self.elements, str) else tuple(self.elements)
            if not names:
                raise ValueError("elements must name one element or more, or be left out")
            for name in names:
                if not isinstance(name, str) or name not in atomic_numbers:
                    raise ValueError(f"elements must be chemical symbols, got {name!r}")
            object.__setattr__(self, "elements", tuple(sorted(set(names))))
        elif self.species != "none":
            raise ValueError(
                f"species {self.species!r} needs elements: all that may occur, since all points need the same columns"
            )

    def about(self) -> dict[str, Any]:
        """All settings, in terms of JSON."""
        return asdict(self)

    def environments(self, file: str | os.PathLike[str], jobs: int | None = None) -> FloatArray:
        """Environments of all atoms of all frames of a file.

        Parameters
        ----------
        file : path
            In any format that ASE reads, with an index or without: ``run.xyz@::10``.
        jobs : int or None
            Threads.

        Returns
        -------
        (N, d + 1) float64
            The descriptor, 1/Å, and in the last column the atomic number of the centre.

        Raises
        ------
        DataError
            If the file cannot be read or described.
        """
        found = describe(
            read_frames(os.fspath(file)), self.k, self.cutoff, self.species, elements=self.elements, jobs=jobs
        )
        return np.column_stack([found.x, found.numbers.astype(np.float64)])

    def _labels(self, environments: FloatArray) -> npt.NDArray[np.int64] | None:
        """Elements of the centres, where they matter."""
        return None if self.species == "none" else environments[:, -1].astype(np.int64)

    def scores(self, environments: Sequence[FloatArray | None], jobs: int | None = None) -> GroupScores | None:
        """Scores of points from their environments; `names` are the numbers of the points that have any.

        None if fewer than two points have environments.
        """
        there = [i for i, part in enumerate(environments) if part is not None]
        if len(there) < 2:
            return None
        parts = [part for part in environments if part is not None]
        together = np.concatenate(parts)
        owner = np.repeat(there, [len(part) for part in parts])
        return group_scores(together[:, :-1], owner, self.bandwidth, labels=self._labels(together), jobs=jobs)

    def novelty_against(
        self, file: Callable[[int], Any], known: Sequence[FloatArray], jobs: int | None = None
    ) -> Callable[[npt.NDArray[np.intp]], FloatArray]:
        """How novel rows of a pool are given `known` environments; each row is read when it is first asked for.

        Parameters
        ----------
        file : callable
            File of frames of a row, or None.

        Returns
        -------
        callable
            Of numbers of rows (m,); NaN for rows without frames that can be read, inf for elements never seen.
        """
        together = np.concatenate(list(known)) if len(known) else np.empty((0, 0))
        found: dict[int, float] = {}

        def one(row: int) -> float:
            path = file(row)
            if path is None or not len(together):
                return np.nan
            try:
                asked = self.environments(path, jobs)
            except DataError:  # told when the row is bought
                return np.nan
            return novelty_of(
                asked[:, :-1], together[:, :-1], self.bandwidth,
                y_labels=self._labels(asked), x_labels=self._labels(together), jobs=jobs,
            )  # fmt: skip

        def novelty(rows: npt.NDArray[np.intp]) -> FloatArray:
            for row in rows.tolist():
                if row not in found:
                    found[row] = one(row)
            return np.array([found[row] for row in rows.tolist()], dtype=np.float64)

        return novelty

    def row_weights(self, scores: GroupScores | None, n: int) -> FloatArray:
        """Weights of `n` points (n,): of mean 1 over those with scores, and 1 for the others."""
        weights = np.ones(n)
        if scores is not None:
            chosen = scores.novel if self.weights == "novelty" else scores.density
            weights[scores.names.astype(np.int64)] = row_weights(capped(chosen), self.weights, self.clip)
        return weights


# environments on disk -------------------------------------------------------------------------------------------------


def save_environments(path: Path, environments: FloatArray) -> None:
    """Keep environments as .npy: all of them or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_matrix(path, {"x": environments}, overwrite=True)


def load_environments(path: Path, n: int) -> FloatArray:
    """Environments that were kept, `n` rows.

    Raises
    ------
    DataError
        If they are not there, or damaged.
    """
    try:
        # mapped first: a header that claims more than there is must not take memory
        found = np.array(np.load(path, mmap_mode="r", allow_pickle=False))
    except FileNotFoundError:
        raise DataError(f"{path}: is missing; a run needs the environments of all points that it has scored") from None
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path}: is damaged ({error})") from None
    if not isinstance(found, np.ndarray) or found.dtype != np.float64 or found.ndim != 2 or len(found) != n:
        raise DataError(f"{path}: is damaged: it does not hold {n} environments")
    if not np.isfinite(found).all():
        raise DataError(f"{path}: is damaged: it holds numbers that are not finite")
    return found


# files of frames ------------------------------------------------------------------------------------------------------


def file_inside(folder: Path, name: str) -> Path | str:
    """A file of frames that a program left in its folder; or why it cannot be used.

    The name is relative to the folder, and may carry an ASE index. What lies outside, through ``..`` or a link, is
    nobody's answer.
    """
    try:
        path, _, index = (name, "", "") if "@" not in name or (folder / name).exists() else name.rpartition("@")
        real = (folder / path).resolve()
        if not real.is_relative_to(folder.resolve()):
            return f"snapshots name {_short(name)}, which lies outside of the folder of the point"
        if not real.is_file():
            return f"snapshots name {_short(name)}, which is no file in the folder of the point"
        if not os.access(real, os.R_OK):
            return f"snapshots name {_short(name)}, which may not be read"
    except (OSError, ValueError, RuntimeError) as error:  # null characters, loops of links
        return f"snapshots name {_short(name)}, which cannot be used ({error})"
    return Path(f"{real}@{index}") if index else real


def check_files(files: Sequence[Any], n: int) -> list[Path | None]:
    """Files of frames of `n` rows, judged; None and "" for none.

    Raises
    ------
    DataError
        If there are not `n`, or one of them is no file.
    """
    if isinstance(files, str | os.PathLike) or len(files) != n:
        told = "one name" if isinstance(files, str | os.PathLike) else len(files)
        raise DataError(f"snapshots must be a list of {n} files, one for each row (or None), got {told}")
    found: list[Path | None] = []
    for row, file in enumerate(files):
        path, wrong = judged(file)
        if wrong:
            raise DataError(f"row {row}: {wrong}")
        found.append(path)
    return found


def judged(file: Any) -> tuple[Path | None, str]:
    """A file of frames, None for None and ""; and what is wrong with it."""
    if file is None or (isinstance(file, str) and not file.strip()):
        return None, ""
    if not isinstance(file, str | os.PathLike):
        return None, f"snapshots must be the name of a file, got {file!r}"
    if not _is_file(file):
        return None, f"snapshots name {_short(os.fspath(file))}, which is no file"
    return Path(file), ""


def _is_file(spec: str | os.PathLike[str]) -> bool:
    try:
        return os.path.isfile(split_index(spec)[0])
    except ValueError:
        return False


def _short(name: str) -> str:
    text = repr(name)
    return text if len(text) <= 80 else f"{text[:77]}..."


def files_of(table: Table, column: str) -> list[str | None]:
    """Names of files in a column of a table; relative ones are relative to the folder of the table.

    Raises
    ------
    DataError
        If there is no such column, or a file is not there.
    """
    names: list[str | None] = []
    for line, name in zip(table.lines.tolist(), table.words(column), strict=True):
        path = str(table.path.parent / name) if name else None
        if path is not None and not _is_file(path):
            raise DataError(f"{table.path}, line {line}: {column} names {_short(name)}, which is no file")
        names.append(path)
    return names
