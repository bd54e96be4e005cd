"""A set of environments that others are judged by: made once, saved, loaded, extended, asked."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from quests_zenn._core import checks
from quests_zenn._core.arrays import as_codes, as_matrix
from quests_zenn._core.checks import DataError, DataWarning, finite, one_of, positive, whole_number
from quests_zenn._core.parallel import Workers, use_workers
from quests_zenn.descriptors import DEFAULT_CUTOFF, DEFAULT_K, Environments, describe, element_symbols
from quests_zenn.descriptors._layout import block_names, columns_of, relayout
from quests_zenn.descriptors.environments import SPECIES
from quests_zenn.entropy import DEFAULT_BANDWIDTH
from quests_zenn.io.arrays import MappedFile, read_arrays, write_arrays
from quests_zenn.io.frames import FrameSource
from quests_zenn.io.outputs import versions
from quests_zenn.uq._frames import FrameStream
from quests_zenn.uq._shards import Shard

if TYPE_CHECKING:
    from quests_zenn.uq.thresholds import LeftOut

#: What a threshold may be compared with.
STATISTICS = ("atom", "mean", "max")

#: dH from which on an atom counts as novel, nats.
DEFAULT_THRESHOLD = 1e-5

FORMAT = "quests_zenn reference"
FORMAT_VERSION = 1

_PARAMETERS = ("k", "cutoff", "species", "bandwidth", "same_centre")


@dataclass(frozen=True)
class FrameScores:
    """dH of every atom, and what it comes to in each frame.

    Attributes
    ----------
    dh : numpy.ndarray, shape (N,), nats
        Frames concatenated; inf for elements that the reference never saw.
    frame_offsets : numpy.ndarray, shape (F + 1,)
        Atoms of frame f are ``frame_offsets[f]`` to ``frame_offsets[f + 1]``.
    mean, max : numpy.ndarray, shape (F,), nats
        Mean and largest dH of each frame.
    novel_share : numpy.ndarray, shape (F,)
        Share of the atoms with ``dH >= threshold``.
    threshold : float
        nats
    """

    dh: npt.NDArray[np.float64]
    frame_offsets: npt.NDArray[np.int64]
    mean: npt.NDArray[np.float64]
    max: npt.NDArray[np.float64]
    novel_share: npt.NDArray[np.float64]
    threshold: float

    def __len__(self) -> int:
        return len(self.mean)


class Reference:
    """What a data set knows: its environments, and how they were made. Make one with `fit` or `load`.

    Attributes
    ----------
    k, cutoff, species : int, float, str
        Of the descriptor; Å.
    bandwidth : float
        1/Å.
    same_centre : bool
        Whether only environments with the same centre element resemble each other (where species is not ``none``).
    elements : tuple of str
        Elements of the reference, alphabetical.
    numbers : numpy.ndarray, shape (N,)
        Atomic number of the centre of each environment.
    frame_offsets : numpy.ndarray, shape (F + 1,)
        Environments of frame f are ``frame_offsets[f]`` to ``frame_offsets[f + 1]``.
    groups : numpy.ndarray, shape (F,)
        Whole numbers: frames of one group are left out together where a threshold is found.
    sources : list of dict
        Where the frames came from: ``name``, ``n_frames``, ``n_environments`` each, in order.
    """

    def __init__(
        self,
        environments: Environments,
        bandwidth: float,
        groups: npt.NDArray[np.int64],
        sources: Sequence[dict[str, Any]],
        same_centre: bool = True,
    ) -> None:
        self.k, self.cutoff, self.species = environments.k, environments.cutoff, environments.species
        self.elements = environments.elements
        self.bandwidth = checks.bandwidth(bandwidth)
        self.same_centre = same_centre
        self.numbers = environments.numbers
        self._known = np.unique(environments.numbers)
        self.frame_offsets = environments.frame_offsets
        self.groups = groups
        self.sources = list(sources)
        self._parts: list[npt.NDArray[np.floating]] = [environments.x]
        self._shards: dict[int, Shard] | None = None
        self._thresholds: dict[tuple[float, str], float] = {}
        self._left_out: LeftOut | None = None
        self._file: MappedFile | None = None

    # --- making one -----------------------------------------------------------------------------------------------

    @classmethod
    def fit(
        cls,
        frames: FrameSource,
        bandwidth: float = DEFAULT_BANDWIDTH,
        k: int = DEFAULT_K,
        cutoff: float = DEFAULT_CUTOFF,
        species: str = "none",
        *,
        groups: npt.ArrayLike | None = None,
        same_centre: bool = True,
        elements: Sequence[str] | None = None,
        type_map: dict[int, int] | None = None,
        jobs: int | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> Reference:
        """The environments of frames, as a reference.

        Parameters
        ----------
        frames : structures, or names of files
            ``ase.Atoms``, `Frame`, tuples, or an iterable of them; or a file name, or several, each with an ASE index
            or without (``train.xyz@::10``).
        bandwidth : float
            1/Å.
        k, cutoff, species, elements
            See `quests_zenn.descriptors.get_descriptors`.
        groups : array_like, shape (F,), optional
            One label per frame: frames of one group know each other for reasons that new frames do not share (one
            trajectory, one kind of deformation). By default each frame is a group of its own.
        same_centre : bool
            With species ``blocks`` or ``pairs``, whether environments of different centre elements do not resemble
            each other (K = 0).
        type_map : dict, optional
            Elements of the atom types of files.
        jobs : int or None
            Threads; None for all available cores.
        progress : callable or None
            Called with the number of atoms done since the last call.

        Returns
        -------
        Reference

        Raises
        ------
        DataError, ValueError
            See `get_descriptors`; if there is not one group per frame.
        """
        stream = FrameStream(frames, type_map)
        env = describe(stream, k, cutoff, species, elements=elements, jobs=jobs, progress=progress)
        return cls.from_environments(env, bandwidth, groups, stream.sources, same_centre)

    @classmethod
    def from_environments(
        cls,
        environments: Environments,
        bandwidth: float = DEFAULT_BANDWIDTH,
        groups: npt.ArrayLike | None = None,
        sources: Sequence[dict[str, Any]] | None = None,
        same_centre: bool = True,
    ) -> Reference:
        """A reference from environments that are there already. See `fit`."""
        n_frames = len(environments.frame_offsets) - 1
        codes = np.arange(n_frames) if groups is None else as_codes(groups, n_frames, "groups")
        assert codes is not None
        if sources is None:
            sources = [{"name": "memory", "n_frames": n_frames, "n_environments": len(environments)}]
        return cls(environments, bandwidth, codes, sources, same_centre)

    def copy(self) -> Reference:
        """Another reference with the same environments, to be extended on its own. Arrays are shared."""
        other = object.__new__(Reference)
        other.__dict__.update(self.__dict__)
        other.sources, other._parts = list(self.sources), list(self._parts)
        other._thresholds = dict(self._thresholds)
        other._shards = None if self._shards is None else {code: shard.copy() for code, shard in self._shards.items()}
        return other

    def extend(
        self,
        frames: FrameSource | Environments,
        *,
        only_new: bool = False,
        threshold: float = DEFAULT_THRESHOLD,
        groups: npt.ArrayLike | None = None,
        type_map: dict[int, int] | None = None,
        jobs: int | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> int:
        """Add the environments of more frames.

        Parameters
        ----------
        frames : structures, names of files, or Environments
            See `fit`.
        only_new : bool
            Add only environments whose dH given all that is there, what was just added included, reaches `threshold`;
            frame by frame, all of one frame judged together. Frames that bring nothing are left out.
        threshold : float
            nats
        groups : array_like, shape (F,), optional
            One label per frame of `frames`; they are new groups, whatever the names of the old ones.
        type_map, jobs, progress
            See `fit`.

        Returns
        -------
        int
            Number of environments added. Thresholds are found anew when they are next asked for.

        Raises
        ------
        DataError, ValueError
            See `fit`; then nothing is added.
        """
        threshold = finite(threshold, "threshold")
        if isinstance(frames, Environments):
            self.require(k=frames.k, cutoff=frames.cutoff, species=frames.species, who="the environments have")
            env = frames
            sources: list[dict[str, Any]] = [
                {"name": "memory", "n_frames": len(env.frame_offsets) - 1, "n_environments": len(env)}
            ]
        else:
            stream = FrameStream(frames, type_map)
            env = describe(stream, self.k, self.cutoff, self.species, jobs=jobs, progress=progress)
            sources = stream.sources
        n_frames = len(env.frame_offsets) - 1
        codes = np.arange(n_frames) if groups is None else as_codes(groups, n_frames, "groups")
        assert codes is not None
        x = self._in_common_layout(env)
        lengths = np.diff(env.frame_offsets)
        keep = np.ones(len(env), bool)
        if only_new:
            grown = self.copy()
            for f, (first, last) in enumerate(zip(env.frame_offsets[:-1], env.frame_offsets[1:], strict=True)):
                rows = slice(int(first), int(last))
                keep[rows] = grown._novel(x[rows], env.numbers[rows], None, threshold, jobs, tell=False)
                new = np.flatnonzero(keep[rows]) + first
                grown._append(x[new], env.numbers[new], np.array([len(new)]), codes[f : f + 1], [])
            lengths = np.add.reduceat(keep.astype(np.int64), env.frame_offsets[:-1])
        kept = lengths > 0
        if only_new:
            owner = np.repeat(np.arange(len(sources)), [source["n_frames"] for source in sources])
            for s, source in enumerate(sources):
                source["n_frames"] = int(np.count_nonzero(kept & (owner == s)))
                source["n_environments"] = int(lengths[owner == s].sum())
                source["only_new"] = threshold
        if keep.any():
            self._append(x[keep], env.numbers[keep], lengths[kept], codes[kept] + self.groups.max() + 1, sources)
        return int(np.count_nonzero(keep))

    def _in_common_layout(self, env: Environments) -> npt.NDArray[np.floating]:
        """The rows of `env` in the layout of this reference, which is widened for new elements."""
        strangers = set(env.elements) - set(self.elements)
        both = tuple(sorted({*self.elements, *env.elements}))
        if strangers:
            if self.species != "none":
                self._parts = [relayout(part, self.elements, both, self.species, self.k) for part in self._parts]
                self._shards = None
            self.elements = both
        return relayout(env.x, env.elements, both, self.species, self.k)

    def _append(
        self,
        x: npt.NDArray[np.floating],
        numbers: npt.NDArray[np.int64],
        lengths: npt.NDArray[np.int64],
        groups: npt.NDArray[np.int64],
        sources: Sequence[dict[str, Any]],
    ) -> None:
        if len(x) == 0:
            return
        self._parts = [*self._parts, x]
        self.numbers = np.concatenate([self.numbers, numbers])
        self._known = np.union1d(self._known, numbers)
        self.frame_offsets = np.concatenate([self.frame_offsets, self.frame_offsets[-1] + np.cumsum(lengths)])
        self.groups = np.unique(np.concatenate([self.groups, groups]), return_inverse=True)[1].astype(np.int64)
        self.sources = [*self.sources, *sources]
        self._thresholds, self._left_out = {}, None
        if self._shards is not None:
            for code, rows in _members(self._codes(numbers)).items():
                if code in self._shards:
                    self._shards[code].append(x[rows])
                else:
                    self._shards[code] = Shard(x[rows], self.bandwidth)

    # --- asking it ------------------------------------------------------------------------------------------------

    @property
    def x(self) -> npt.NDArray[np.floating]:
        """Environments (N, d), 1/Å."""
        if self._file is not None:
            self._file.check()
        if len(self._parts) > 1:
            self._parts = [np.concatenate(self._parts)]
        return self._parts[0]

    def __len__(self) -> int:
        """Number of environments."""
        return len(self.numbers)

    @property
    def n_frames(self) -> int:
        """Number of frames."""
        return len(self.frame_offsets) - 1

    @property
    def in_part(self) -> npt.NDArray[np.bool_]:
        """For each frame (F,), whether only those of its environments were added that were new (see `extend`)."""
        told = np.repeat(
            np.array(["only_new" in source for source in self.sources], bool),
            [source["n_frames"] for source in self.sources],
        )
        flags = np.zeros(self.n_frames, bool)
        flags[: len(told)] = told[: self.n_frames]
        return flags

    @property
    def tells_centres(self) -> bool:
        """Whether environments of different centre elements do not resemble each other."""
        return self.species != "none" and self.same_centre

    @property
    def parameters(self) -> dict[str, Any]:
        """k, cutoff, species, bandwidth and same_centre."""
        return {name: getattr(self, name) for name in _PARAMETERS}

    def __repr__(self) -> str:
        told = ", ".join(f"{name}={value!r}" for name, value in self.parameters.items())
        return f"<Reference of {len(self)} environments of {' '.join(self.elements)} in {self.n_frames} frames, {told}>"

    def describe(self, frames: FrameSource, *, jobs: int | None = None) -> Environments:
        """Environments of frames, made as those of the reference; `score` and `is_novel` take them, too."""
        return describe(frames, self.k, self.cutoff, self.species, jobs=jobs)

    def score(
        self,
        frames: FrameSource | Environments,
        *,
        jobs: int | None = None,
        workers: Workers | None = None,
        tell: bool = True,
    ) -> npt.NDArray[np.float64]:
        """dH = -ln sum_j K(y, x_j) of every atom y given the reference, in float64; frames are concatenated.

        Parameters
        ----------
        frames : structures, or Environments
            One structure, or an iterable of them.
        jobs : int or None
            Threads; None for all available cores.
        workers : Workers or None
            Threads to use instead of new ones.
        tell : bool
            Warn where there are elements that the reference never saw.

        Returns
        -------
        numpy.ndarray, shape (N,), nats
            Finite at any distance; inf for elements that the reference never saw, with a warning.

        Raises
        ------
        DataError
            See `get_descriptors`; for environments made with another k, cutoff or species.
        """
        env = self._environments(frames, jobs)
        x, extra = self._rows(env)
        with use_workers(workers, jobs) as pool:
            out = np.full(len(x), np.inf)
            for code, rows in _members(self._codes(env.numbers)).items():
                shard = self._all_shards().get(code)
                if shard is not None:
                    out[rows] = 0.0 - shard.log_sums(x[rows], pool)
        if extra is not None:
            out += extra
        return self._with_strangers(out, env.numbers, np.inf, tell)

    def score_frames(
        self, frames: FrameSource | Environments, threshold: float | str = DEFAULT_THRESHOLD, *, jobs: int | None = None
    ) -> FrameScores:
        """`score`, and mean, largest dH and novel share of each frame.

        `threshold` is a number, nats, or ``"auto"`` for that of `threshold`.
        """
        limit = self.as_threshold(threshold, jobs=jobs)
        env = self._environments(frames, jobs)
        dh = self.score(env, jobs=jobs)
        starts, sizes = env.frame_offsets[:-1], np.diff(env.frame_offsets)
        return FrameScores(
            dh,
            env.frame_offsets,
            np.add.reduceat(dh, starts) / sizes,
            np.maximum.reduceat(dh, starts),
            np.add.reduceat((dh >= limit).astype(np.float64), starts) / sizes,
            limit,
        )

    def is_novel(
        self,
        frames: FrameSource | Environments,
        threshold: float | str = DEFAULT_THRESHOLD,
        *,
        jobs: int | None = None,
        workers: Workers | None = None,
        tell: bool = True,
    ) -> npt.NDArray[np.bool_]:
        """Whether ``dH >= threshold`` for every atom; frames are concatenated.

        The answers are those of `score`, but seldom need the whole sum: atoms that the reference knows are told by
        their neighbours, and for others a bound of the rest is enough.

        Parameters
        ----------
        frames : structures, or Environments
            One structure, or an iterable of them.
        threshold : float or "auto"
            nats; ``"auto"`` for that of `threshold`.
        jobs, workers, tell
            See `score`.

        Returns
        -------
        numpy.ndarray of bool, shape (N,)
            True for elements that the reference never saw.

        Raises
        ------
        DataError, ValueError
            See `score`.
        """
        limit = self.as_threshold(threshold, jobs=jobs)
        env = self._environments(frames, jobs)
        x, extra = self._rows(env)
        return self._novel(x, env.numbers, extra, limit, jobs, workers, tell)

    def _novel(
        self,
        x: npt.NDArray[np.floating],
        numbers: npt.NDArray[np.int64],
        extra: npt.NDArray[np.float64] | None,
        threshold: float,
        jobs: int | None,
        workers: Workers | None = None,
        tell: bool = True,
    ) -> npt.NDArray[np.bool_]:
        out = np.ones(len(x), bool)
        # dH of a row is its dH in the columns of the reference plus `extra`, so its own threshold is lower by that
        limits = np.full(len(x), threshold) if extra is None else threshold - extra
        with use_workers(workers, jobs) as pool:
            for code, rows in _members(self._codes(numbers)).items():
                shard = self._all_shards().get(code)
                if shard is not None:
                    out[rows] = shard.is_novel(x[rows], limits[rows], pool)
        return self._with_strangers(out, numbers, True, tell)

    def as_threshold(self, threshold: float | str, *, jobs: int | None = None) -> float:
        """A threshold in nats from a number or ``"auto"``.

        Raises
        ------
        ValueError
            If it is neither.
        """
        if isinstance(threshold, str):
            if threshold != "auto":
                raise ValueError(f'threshold must be a number or "auto", got {threshold!r}')
            return self.threshold(jobs=jobs)
        return finite(threshold, "threshold")

    def threshold(self, false_alarm: float = 0.01, *, of: str = "atom", jobs: int | None = None) -> float:
        """dH from which on something is novel, such that a stated share of what belongs to the reference is called so.

        See `quests_zenn.uq.thresholds.auto_threshold`. It is found once, and again after `extend`.
        """
        from quests_zenn.uq.thresholds import auto_threshold

        key = (false_alarm, of)
        if key not in self._thresholds:
            self._thresholds[key] = auto_threshold(self, false_alarm, of=of, jobs=jobs)
        return self._thresholds[key]

    def leave_out(self, *, jobs: int | None = None) -> LeftOut:
        """dH of the environments of the reference given all other groups. Found once, and again after `extend`.

        See `quests_zenn.uq.thresholds.leave_out`.
        """
        from quests_zenn.uq.thresholds import leave_out

        if self._left_out is None:
            self._left_out = leave_out(self, jobs=jobs)
        return self._left_out

    def _environments(self, frames: FrameSource | Environments, jobs: int | None) -> Environments:
        if not isinstance(frames, Environments):
            return self.describe(frames, jobs=jobs)
        self.require(k=frames.k, cutoff=frames.cutoff, species=frames.species, who="the environments have")
        return frames

    def _rows(self, env: Environments) -> tuple[npt.NDArray[np.floating], npt.NDArray[np.float64] | None]:
        """Rows in the layout of the reference, and what blocks of other elements add to each dH.

        In those blocks all rows of the reference are zero, so that they are equally far from all of them.
        """
        if self.species == "none" or env.elements == self.elements:
            return env.x, None
        both = tuple(sorted({*self.elements, *env.elements}))
        x = relayout(env.x, env.elements, both, self.species, self.k)
        if both == self.elements:
            return x, None
        own = columns_of(self.elements, both, self.species, self.k)
        others = np.ones(x.shape[1], bool)
        others[own] = False
        apart = np.einsum("ij,ij->i", x[:, others], x[:, others], dtype=np.float64)
        return np.ascontiguousarray(x[:, own]), apart / (2.0 * self.bandwidth**2)

    def _with_strangers(
        self, values: npt.NDArray[Any], numbers: npt.NDArray[np.int64], value: Any, tell: bool = True
    ) -> Any:
        """`values` with atoms of elements that the reference never saw set to `value`, and said so."""
        present = np.unique(numbers)
        strangers = present[~np.isin(present, self._known)]
        if len(strangers):
            values[np.isin(numbers, strangers)] = value
            if tell:
                names = " ".join(element_symbols(strangers))
                warnings.warn(f"the reference never saw {names}: dH = inf for these atoms", DataWarning, stacklevel=3)
        return values

    def _codes(self, numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Which environments resemble each other at all: those of one code."""
        return numbers if self.tells_centres else np.zeros(len(numbers), np.int64)

    def _all_shards(self) -> dict[int, Shard]:
        if self._file is not None:
            self._file.check()
        if self._shards is None:
            members = _members(self._codes(self.numbers))
            x = self.x
            self._shards = {
                code: Shard(x if len(rows) == len(x) else x[rows], self.bandwidth) for code, rows in members.items()
            }
        return self._shards

    # --- keeping it -----------------------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str], overwrite: bool = False) -> None:
        """Write the reference to a file, whole or not at all. An uncompressed zip archive of .npy and JSON; no pickle.

        Raises
        ------
        DataError
            If the file exists and `overwrite` is False, or it cannot be written.
        """
        meta = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            **self.parameters,
            "elements": list(self.elements),
            "n_environments": len(self),
            "n_frames": self.n_frames,
            "sources": self.sources,
            "thresholds": [
                {"false_alarm": rate, "of": of, "threshold": value} for (rate, of), value in self._thresholds.items()
            ],
            "versions": versions(),
            "units": {"x": "1/Å", "bandwidth": "1/Å", "cutoff": "Å", "threshold": "nats"},
        }
        arrays = {
            "x": self.x,
            "numbers": self.numbers,
            "frame_offsets": self.frame_offsets,
            "groups": self.groups,
        }
        write_arrays(path, meta, arrays, overwrite)

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, check: bool = True, **expected: Any) -> Reference:
        """A reference that `save` has written; its environments are mapped, not read.

        Parameters
        ----------
        path : file name
        check : bool
            Read the file once and compare it with its checksums.
        **expected
            Any of `k`, `cutoff`, `species`, `bandwidth`, `same_centre`, `elements` that it must have.

        Raises
        ------
        DataError
            If it is missing, truncated, damaged, no reference, of a newer format, or was made with other parameters
            than expected.
        """
        file = MappedFile(path)
        meta, arrays = read_arrays(path, check=check)
        name = os.fspath(path)
        if meta.get("format") != FORMAT:
            raise DataError(f"{name}: is no reference; quests-zenn reference makes one")
        version = meta.get("format_version")
        if isinstance(version, bool) or not isinstance(version, int) or not 1 <= version <= FORMAT_VERSION:
            raise DataError(
                f"{name}: was written in format {version}, newer than this version of quests_zenn reads "
                f"({FORMAT_VERSION}); update quests_zenn, or make the reference again"
            )
        try:
            reference = cls._from_file(meta, arrays)
            if check:
                as_matrix(reference.x, "x")
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise DataError(f"{name}: its parts do not fit together ({error}); make it again") from error
        reference._file = file
        reference.require(**expected, of=name)
        return reference

    @classmethod
    def _from_file(cls, meta: dict[str, Any], arrays: dict[str, npt.NDArray[Any]]) -> Reference:
        x, numbers = arrays["x"], np.array(arrays["numbers"])  # copies of all but x: they are small
        offsets, groups = np.array(arrays["frame_offsets"]), np.array(arrays["groups"])
        n = len(x)
        fits = (
            x.ndim == 2
            and x.dtype in (np.float64, np.float32)
            and all(array.dtype == np.int64 and array.ndim == 1 for array in (numbers, offsets, groups))
            and len(numbers) == n > 0
            and len(offsets) == len(groups) + 1
            and offsets[0] == 0
            and offsets[-1] == n
            and bool((np.diff(offsets) > 0).all())
            and set(element_symbols(numbers)) <= set(meta["elements"])
        )
        k, cutoff = whole_number(meta["k"], "k", 2), positive(meta["cutoff"], "cutoff")
        elements, species = tuple(meta["elements"]), one_of(meta["species"], "species", SPECIES)
        if not fits or x.shape[1] != len(block_names(elements, species)) * (2 * k - 1):
            raise ValueError("shapes or types of its arrays are wrong")
        sources = [_judged_source(source) for source in meta["sources"]]
        if sum(source["n_frames"] for source in sources) != len(groups) or not isinstance(meta["versions"], dict):
            raise ValueError("its sources hold another number of frames")
        groups = np.unique(groups, return_inverse=True)[1].astype(np.int64)
        nothing = np.zeros(0, bool)
        env = Environments(x, offsets, numbers, k, cutoff, species, elements, nothing, nothing)
        reference = cls(env, meta["bandwidth"], groups, sources, bool(meta["same_centre"]))
        reference._thresholds = {
            (finite(item["false_alarm"], "false_alarm"), one_of(item["of"], "of", STATISTICS)): finite(
                item["threshold"], "threshold"
            )
            for item in meta["thresholds"]
        }
        return reference

    def require(self, *, of: str = "the reference", who: str = "what is asked for is", **expected: Any) -> None:
        """Refuse parameters that differ from those of this reference; None is no demand.

        `of` and `who` name the reference and those that differ, for the message.

        Raises
        ------
        DataError
            Naming the first that differs.
        """
        for name, value in expected.items():
            if value is None:
                continue
            own = getattr(self, name)
            if name == "elements":
                value = tuple(sorted(value))
            if value != own:
                raise DataError(f"{of}: {name} is {own}, and {who} {value}; make one of them again, so that they agree")


def _judged_source(source: Any) -> dict[str, Any]:
    """What a file says of a source, if it is what `save` writes."""
    if not (isinstance(source, dict) and isinstance(source["name"], str) and isinstance(source.get("index", ":"), str)):
        raise ValueError("a source has no name")
    for name in ("n_frames", "n_environments"):
        whole_number(source[name], name, 0)
    if "only_new" in source:
        finite(source["only_new"], "only_new")
    return source


def _members(codes: npt.NDArray[np.int64]) -> dict[int, npt.NDArray[np.int64]]:
    """Rows of each code."""
    if len(codes) and (codes[0] == codes).all():
        return {int(codes[0]): np.arange(len(codes))}
    return {int(code): np.flatnonzero(codes == code) for code in np.unique(codes)}
