"""The door: a data set, and which of its structures to keep."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from quests_zenn._core.arrays import as_codes, as_matrix
from quests_zenn._core.checks import DataError, finite, one_of, whole_number
from quests_zenn._core.checks import bandwidth as checked_bandwidth
from quests_zenn._core.parallel import Workers, resolve_jobs
from quests_zenn._core.remote import Remote, fingerprint
from quests_zenn._core.rng import as_rng
from quests_zenn.compression._course import Request, Selection, run_one_stage, run_stages
from quests_zenn.compression._coverage import Coverage
from quests_zenn.compression._path import Curve, prefix_metrics, rows_of
from quests_zenn.compression._state import Checkpoint
from quests_zenn.compression.size import Size
from quests_zenn.descriptors import describe
from quests_zenn.entropy import DEFAULT_BANDWIDTH, EntropyEstimate, estimate_entropy, group_metrics
from quests_zenn.entropy._growing import Space
from quests_zenn.entropy.metrics import DEFAULT_EPS
from quests_zenn.io.frames import FrameSource, is_single

Array = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

#: Methods that put structures in an order, so that a smaller subset is the beginning of a larger one.
ORDERED = ("msc", "msc_conditional", "msc_sum", "fps", "mean_fps", "random")

METHODS = (*ORDERED, "k_means", "direct")

_ARRAY_LIKE = (np.ndarray, list, tuple, int, float)

BALANCES = ("equal", "proportional")

#: Environments up to which the diversity of a whole set is exact in a summary.
EXACT_UP_TO = 100_000


class DatasetCompressor:
    """Chooses the structures of a data set that hold most of its information.

    Parameters
    ----------
    frames : ase.Atoms, Frame, tuple, or an iterable of them
        See `get_descriptors`; consumed once. With `descriptor_fn`, an iterable of whatever that takes.
    bandwidth : float
        h, 1/Å.
    descriptor_fn : callable or None
        Gives the environments of one structure, (n, d). By default those of `get_descriptors`.
    k, cutoff, species
        See `get_descriptors`.
    weights : array_like, shape (S,), optional
        How much each structure is wanted: ln(weight) is added to its score.
    costs : array_like, shape (S,), optional
        What each structure costs (atoms, electrons): ln(cost / mean cost) is taken off its score, so that what is
        chosen is worth its cost; a size in ``cost`` is a budget of this.
    jobs : int or None
        Threads; None for all available cores. The selection is the same for any number.

    Attributes
    ----------
    x : numpy.ndarray, shape (M, d)
        Environments, those of one structure together.
    frame_offsets : numpy.ndarray, shape (S + 1,)
        Structure s owns the rows ``frame_offsets[s] : frame_offsets[s + 1]``.

    Raises
    ------
    DataError
        See `get_descriptors`; also if a structure has no environments.
    ValueError
        If an argument is out of range.
    """

    #: How structures that are known already become environments and labels; None where only environments are known.
    _describe: Callable[[Any], tuple[npt.NDArray[np.floating], Indices | None]] | None = None

    def __init__(
        self,
        frames: FrameSource,
        bandwidth: float = DEFAULT_BANDWIDTH,
        descriptor_fn: Callable[[Any], npt.ArrayLike] | None = None,
        *,
        k: int = 32,
        cutoff: float = 5.0,
        species: str = "none",
        weights: npt.ArrayLike | None = None,
        costs: npt.ArrayLike | None = None,
        jobs: int | None = None,
    ) -> None:
        checked_bandwidth(bandwidth)  # before all the work
        if descriptor_fn is not None and not callable(descriptor_fn):
            raise ValueError(f"descriptor_fn must be a function of one structure, got {descriptor_fn!r}")
        if descriptor_fn is None:
            env = describe(frames, k, cutoff, species, jobs=jobs)
            labels, elements = (None, None) if species == "none" else (env.numbers, env.elements)
            self._set(env.x, env.frame_offsets, bandwidth, labels, weights, costs, jobs)

            def describe_more(others: Any) -> tuple[npt.NDArray[np.floating], Indices | None]:
                found = describe(others, k, cutoff, species, elements=elements, jobs=jobs)
                return found.x, found.numbers

        else:
            x, offsets = _described(frames, descriptor_fn)
            self._set(x, offsets, bandwidth, None, weights, costs, jobs)

            def describe_more(others: Any) -> tuple[npt.NDArray[np.floating], Indices | None]:
                return _described([others] if is_single(others) else others, descriptor_fn)[0], None

        self._describe = describe_more

    @classmethod
    def from_environments(
        cls,
        x: npt.ArrayLike,
        frame_offsets: npt.ArrayLike,
        bandwidth: float = DEFAULT_BANDWIDTH,
        *,
        labels: npt.ArrayLike | None = None,
        weights: npt.ArrayLike | None = None,
        costs: npt.ArrayLike | None = None,
        jobs: int | None = None,
    ) -> DatasetCompressor:
        """A data set whose environments are known already.

        Parameters
        ----------
        x : array_like, shape (M, d)
        frame_offsets : array_like, shape (S + 1,)
            Structure s owns the rows ``frame_offsets[s] : frame_offsets[s + 1]``.
        labels : array_like, shape (M,), optional
            Environments with different labels (elements of their centres, say) do not resemble each other.
        bandwidth, weights, costs, jobs
            See `DatasetCompressor`.

        Raises
        ------
        ValueError
            If x is not a finite matrix, or the offsets do not cut it into structures.
        """
        made = cls.__new__(cls)
        made._set(x, frame_offsets, bandwidth, labels, weights, costs, jobs)
        return made

    def _set(
        self,
        x: npt.ArrayLike,
        frame_offsets: npt.ArrayLike,
        h: float,
        labels: npt.ArrayLike | None,
        weights: npt.ArrayLike | None,
        costs: npt.ArrayLike | None,
        jobs: int | None,
    ) -> None:
        self.x = as_matrix(x, "x")
        offsets = np.asarray(frame_offsets)
        if offsets.ndim != 1 or len(offsets) < 2 or offsets.dtype.kind not in "iu":
            raise ValueError("frame_offsets must be whole numbers, one more than there are structures")
        if offsets[0] != 0 or offsets[-1] != len(self.x):
            raise ValueError(f"frame_offsets must go from 0 to the {len(self.x)} rows of x")
        self.frame_offsets = offsets.astype(np.int64)
        self.sizes = np.diff(self.frame_offsets)
        if not (self.sizes > 0).all():
            raise DataError(f"structure {int(np.argmin(self.sizes > 0))} has no environments")
        self.bandwidth = checked_bandwidth(h)
        self.jobs = resolve_jobs(jobs)
        self.labels = as_codes(labels, len(self.x), "labels")
        self._label_names = np.unique(np.asarray(labels)) if labels is not None else np.zeros(1, np.int64)
        self.weights = _positive_numbers(weights, self.n_structures, "weights")
        self.costs = _positive_numbers(costs, self.n_structures, "costs")

    # ---------------------------------------------------------------------- what is known of the set

    @property
    def n_structures(self) -> int:
        """Number of structures S."""
        return len(self.sizes)

    def __len__(self) -> int:
        return self.n_structures

    def __repr__(self) -> str:
        return f"<DatasetCompressor: {self.n_structures} structures, {len(self.x)} environments>"

    @cached_property
    def entropies(self) -> Array:
        """Entropy H_s of each structure taken alone (S,), nats."""
        owner = np.repeat(np.arange(self.n_structures), self.sizes)
        found = group_metrics(self.x, self.bandwidth, owner, labels=self.labels, precision="float64", jobs=self.jobs)
        entropies: Array = np.asarray(found.entropy).reshape(-1)
        return entropies

    @cached_property
    def means(self) -> Array:
        """Mean descriptor of each structure (S, d), 1/Å."""
        totals = np.add.reduceat(self.x, self.frame_offsets[:-1], axis=0, dtype=np.float64)
        means: Array = totals / self.sizes[:, None]
        return means

    @cached_property
    def space(self) -> Space:
        """The environments in the coordinates of the kernels."""
        with Workers(self.jobs) as workers:
            return Space(self.x, self.bandwidth, self.labels, workers, len(self._label_names))

    @cached_property
    def whole(self) -> EntropyEstimate:
        """Entropy and diversity of the whole set, exact up to 100,000 environments."""
        estimator = "exact" if len(self.x) <= EXACT_UP_TO else "auto"
        return estimate_entropy(self.x, self.bandwidth, estimator, labels=self.labels, random_state=0, jobs=self.jobs)

    def subset(self, indices: npt.ArrayLike) -> DatasetCompressor:
        """Some of the structures as a data set of their own, in the order given."""
        chosen = self._indices(indices, "indices")
        rows = rows_of(self.frame_offsets, chosen)
        made = DatasetCompressor.from_environments(
            self.x[rows],
            np.concatenate([[0], np.cumsum(self.sizes[chosen])]),
            self.bandwidth,
            weights=None if self.weights is None else self.weights[chosen],
            costs=None if self.costs is None else self.costs[chosen],
            jobs=self.jobs,
        )
        if self.labels is not None:
            made.labels, made._label_names = self.labels[rows], self._label_names
        if "entropies" in self.__dict__:
            made.entropies = self.entropies[chosen]
        return made

    # ---------------------------------------------------------------------- selection

    def get_indices(self, method: str = "msc", size: Any = 0.1, **options: Any) -> Indices:
        """Indices of the structures chosen, in order of selection: those of `select`, which takes the same."""
        return self.select(method, size, **options).indices

    def select(
        self,
        method: str = "msc",
        size: Any = 0.1,
        *,
        reference: Any = None,
        reference_labels: npt.ArrayLike | None = None,
        keep: npt.ArrayLike | None = None,
        by: npt.ArrayLike | None = None,
        balance: str = "equal",
        random_state: Any = 0,
        eps: float = DEFAULT_EPS,
        chunk: int | None = None,
        checkpoint: str | os.PathLike[str] | None = None,
        keep_checkpoint: bool = False,
        progress: Callable[[int], None] | None = None,
        remote: Remote | None = None,
    ) -> Selection:
        """Choose structures.

        Parameters
        ----------
        method : str
            ``msc``: again and again the structure that maximises ``max_i dH(x_i | chosen) + H_s`` over its environments
            i, beginning with the largest own entropy H_s. ``msc_conditional``: the same, given a reference.
            ``msc_sum``: with the sum of ``max(dH(x_i | chosen), 0)`` in place of the largest.
            ``fps``, ``mean_fps``: the structure farthest from those chosen, by the mean distance between environments,
            or by the distance of mean descriptors. ``k_means``: one structure of each cluster of mean descriptors.
            ``direct``: principal components, BIRCH clusters and stratified picks (Qi et al., npj Comput. Mater. 10,
            2024, 43). ``random``: the control.
        size : int, float, str or Size
            How much to keep. See `Size.parse`. ``overlap`` and ``max_loss`` give the shortest beginning of the order
            that reaches them; these and ``auto`` need a method that has an order.
        reference : array_like (n, d), list of such, frames, or an object with an attribute ``x`` (a `Reference`)
            What is known already, for ``msc_conditional`` (``msc`` with a reference is the same) and ``msc_sum``.
        reference_labels : array_like, shape (n,), optional
            Its labels, where the data set has labels; by default the attribute ``numbers`` of the reference.
        keep : array_like of int, optional
            Structures that are chosen first, whatever their score; they count towards the size.
        by : array_like, shape (S,), optional
            Groups that are balanced: the next structure comes from the group of which least was chosen.
        balance : {"equal", "proportional"}
            Whether groups get the same, or their share of the set.
        random_state : int, numpy.random.Generator or None
            For ``random``, ``k_means`` and ``direct``.
        eps : float
            dH below which an environment is known, nats.
        chunk : int, optional
            Two stages, for sets too large for one: each chunk of so many structures hands on twice its share, and the
            selection is made among these. Not the same selection as in one stage.
        checkpoint : str or path, optional
            A file in which the state is kept every 15 seconds and when the run is interrupted; a run that finds
            it goes on from there. It is removed at the end. With ``random_state=None`` random methods cannot go on.
        keep_checkpoint : bool
            Leave it there at the end, for a caller with more to do who removes it then.
        progress : callable or None
            Called with the number of structures chosen since the last call, those that chunks hand on included; not for
            ``k_means`` and ``direct``.
        remote : Remote or None
            Who chooses from the chunks, each in another process, where `chunk` is given. The choice is the same.

        Returns
        -------
        Selection

        Raises
        ------
        ValueError
            If an argument is out of range, or does not go with the method.
        DataError
            If the checkpoint is of another run, or pinned structures alone exceed the size.
        """
        one_of(method, "method", METHODS)
        size = Size.parse(size)
        if method not in ORDERED and size.kind in ("auto", "overlap", "max_loss"):
            raise ValueError(f"{method} has no order, which a size given by {size.kind} needs; choose a number")
        if method not in ORDERED and self.weights is not None:
            raise ValueError(f"{method} knows no weights; leave them out, or choose another method")
        known = None
        if reference is not None:
            if not method.startswith("msc"):
                raise ValueError(f"{method} knows no reference; msc_conditional does")
            known = self._reference(reference, reference_labels)
        elif method == "msc_conditional":
            raise ValueError("msc_conditional needs a reference")
        pinned = np.empty(0, np.int64) if keep is None else self._indices(keep, "keep")
        if by is not None and np.shape(by) != (self.n_structures,):
            raise ValueError(f"by must have shape ({self.n_structures},), one per structure, got {np.shape(by)}")
        groups, targets = as_codes(by, self.n_structures, "by"), None
        one_of(balance, "balance", BALANCES)
        amounts = self._amounts(size)
        if groups is not None:
            # clusters are so many, whatever they hold
            shares: Array = np.bincount(groups, amounts if method in ORDERED else None).astype(np.float64)
            targets = shares if balance == "proportional" else np.ones(len(shares))
        limit = math.inf
        if size.kind in ("structures", "environments", "cost"):
            with np.errstate(over="ignore"):
                total = float(amounts.sum())
            limit = size.of(total)
            if not math.isfinite(total):
                raise ValueError("costs are so large that their sum overflows; use a larger unit")
            if amounts[pinned].sum() > limit * (1.0 + 1e-9):
                raise DataError(
                    f"the {len(pinned)} structures to be kept count {amounts[pinned].sum():g} {size.kind} and the size "
                    f"is {limit:g}; ask for more, or keep fewer"
                )
        seed = int(as_rng(random_state).integers(2**63))
        request = Request(method, size, limit, amounts, known, pinned, groups, targets, seed, finite(eps, "eps"))
        if chunk is not None and size.kind in ("auto", "overlap", "max_loss"):
            raise ValueError(f"a size given by {size.kind} cannot be found in two stages; choose a number")
        in_stages = chunk is not None and whole_number(chunk, "chunk", 2) < self.n_structures
        saved = Checkpoint(checkpoint, "" if checkpoint is None else self._fingerprint(request, chunk))
        if in_stages:
            assert chunk is not None
            found = run_stages(self, request, int(chunk), saved, progress, remote)
        else:
            found = run_one_stage(self, request, saved, progress)
        if not keep_checkpoint:
            saved.discard()
        return found

    def _amounts(self, size: Size) -> Array:
        """What each structure counts as in units of the size."""
        if size.kind == "environments":
            return self.sizes.astype(np.float64)
        if size.kind == "cost":
            if self.costs is None:
                raise ValueError("a size in cost needs costs, one per structure")
            return self.costs
        return np.ones(self.n_structures)

    def _indices(self, indices: npt.ArrayLike, name: str) -> Indices:
        """Structures, each at most once."""
        array = np.asarray(indices)
        if array.ndim != 1 or (array.dtype.kind not in "iu" and len(array)):
            raise ValueError(f"{name} must be a list of whole numbers, the indices of structures")
        found = array.astype(np.int64)
        wrong = found[(found < 0) | (found >= self.n_structures)]
        if len(wrong):
            raise ValueError(f"{name} names structure {wrong[0]}, but there are {self.n_structures}, counted from 0")
        if len(np.unique(found)) < len(found):
            raise ValueError(f"{name} names a structure twice")
        return found

    def _reference(self, reference: Any, labels: npt.ArrayLike | None) -> tuple[npt.NDArray[np.floating], Indices]:
        """Environments that are known already, and codes of their labels; labels that the set lacks are left out."""
        if hasattr(reference, "x") and not hasattr(reference, "positions"):
            labels = getattr(reference, "numbers", None) if labels is None else labels
            reference = reference.x
        elif self._describe is not None and _holds_frames(reference):
            reference, numbers = self._describe(reference)
            labels = numbers if labels is None else labels
        elif isinstance(reference, list | tuple) and len(reference) and np.ndim(reference[0]) == 2:
            parts = [as_matrix(part, f"part {number} of the reference") for number, part in enumerate(reference)]
            if len({part.shape[1] for part in parts}) > 1:
                raise ValueError("all parts of the reference must have the same number of components per environment")
            reference = np.concatenate(parts)
        x = as_matrix(reference, "the reference")
        if x.shape[1] != self.x.shape[1]:
            raise ValueError(
                f"the reference has {x.shape[1]} components per environment and the data set {self.x.shape[1]}; "
                "both need the same descriptor"
            )
        if self.labels is None:
            return x, np.zeros(len(x), np.int64)
        if labels is None:
            raise ValueError("the data set has labels, so the reference needs reference_labels")
        array = np.asarray(labels)
        if array.shape != (len(x),):
            raise ValueError(f"reference_labels must have shape ({len(x)},), one per environment, got {array.shape}")
        place = np.minimum(np.searchsorted(self._label_names, array), len(self._label_names) - 1)
        shared = self._label_names[place] == array
        return x[shared], place[shared]

    def _fingerprint(self, request: Request, chunk: int | None) -> str:
        """What makes a run the same as another."""
        return fingerprint(
            self.x, self.frame_offsets, self.bandwidth, self.labels, self.weights, self.costs, chunk, request.method,
            request.size, *(request.known or ()), request.pinned, request.groups, request.targets, request.eps,
            request.seed if request.method in ("random", "k_means", "direct") else None,
        )  # fmt: skip

    # ---------------------------------------------------------------------- what a selection holds

    def get_summary(
        self,
        indices: npt.ArrayLike | None = None,
        *,
        reference: Any = None,
        reference_labels: npt.ArrayLike | None = None,
        eps: float = DEFAULT_EPS,
    ) -> dict[str, Any]:
        """What a subset holds of the data set.

        Parameters
        ----------
        indices : array_like of int, optional
            Structures; None for all.
        reference, reference_labels
            What is known besides, for the overlap. See `select`.
        eps : float
            dH below which an environment is known, nats.

        Returns
        -------
        dict
            ``entropy`` H and ``diversity`` D of the subset, nats; ``overlap``, the share of all environments that it
            (and the reference) knows; ``loss``, nats, D of the whole set less that of the subset, and ``loss_error``,
            its standard error, 0.0 unless the set has more than 100,000 environments; ``original_size``,
            ``compressed_size``, structures; ``original_envs``, ``compressed_envs``. Of no structures H is NaN and D
            -inf.

        Raises
        ------
        ValueError
            If an index is out of range.
        """
        chosen = np.arange(self.n_structures) if indices is None else self._indices(indices, "indices")
        if len(chosen):
            curve = self.get_curve(
                chosen, [len(chosen)], reference=reference, reference_labels=reference_labels, eps=eps
            )
            entropy, diversity, overlap = (float(held[0]) for held in (curve.entropy, curve.diversity, curve.overlap))
        else:
            entropy, diversity = math.nan, -math.inf
            known = None if reference is None else self._reference(reference, reference_labels)
            with Workers(self.jobs) as workers:
                overlap = float(self._overlaps(chosen, np.zeros(1, np.int64), known, eps, workers)[0])
        return {
            "entropy": entropy,
            "diversity": diversity,
            "overlap": overlap,
            "loss": float(self.whole.diversity) - diversity,
            "loss_error": float(self.whole.diversity_error),
            "original_size": self.n_structures,
            "compressed_size": len(chosen),
            "original_envs": len(self.x),
            "compressed_envs": int(self.sizes[chosen].sum()),
        }

    def get_curve(
        self,
        indices: npt.ArrayLike,
        sizes: npt.ArrayLike | None = None,
        *,
        reference: Any = None,
        reference_labels: npt.ArrayLike | None = None,
        eps: float = DEFAULT_EPS,
        progress: Callable[[int], None] | None = None,
    ) -> Curve:
        """What the beginnings of a selection hold.

        Parameters
        ----------
        indices : array_like of int
            Structures in the order of selection.
        sizes : array_like of int, optional
            Structures of each beginning, increasing; by default about twenty from 1 to all.
        reference, reference_labels, eps
            See `get_summary`.
        progress : callable or None
            Called with the number of pairs done since the last call.

        Returns
        -------
        Curve

        Raises
        ------
        ValueError
            If an index or a size is out of range.
        """
        chosen = self._indices(indices, "indices")
        n = len(chosen)
        if n == 0:
            raise ValueError("indices must name at least one structure")
        if sizes is None:
            steps = np.concatenate([np.geomspace(1, n, 10), np.linspace(1, n, 12)])
            ends = np.unique(np.rint(steps).astype(np.int64))
        else:
            asked = np.asarray(sizes)
            if len(asked) and asked.dtype.kind not in "iu":
                raise ValueError("sizes must be whole numbers of structures")
            ends = np.unique(asked).astype(np.int64)
            if len(ends) == 0 or ends[0] < 1 or ends[-1] > n:
                raise ValueError(f"sizes must lie between 1 and the {n} structures of the selection")
        known = None if reference is None else self._reference(reference, reference_labels)
        rows = rows_of(self.frame_offsets, chosen[: ends[-1]])
        n_environments = np.cumsum(self.sizes[chosen])[ends - 1]
        labels = None if self.labels is None else self.labels[rows]
        with Workers(self.jobs) as workers:
            entropy, diversity = prefix_metrics(self.x[rows], labels, self.bandwidth, n_environments, workers, progress)
            overlap = self._overlaps(chosen[: ends[-1]], ends, known, eps, workers)
        return Curve(ends, n_environments, entropy, diversity, overlap)

    def _overlaps(
        self,
        chosen: Indices,
        ends: Indices,
        known: tuple[npt.NDArray[np.floating], Indices] | None,
        eps: float,
        workers: Workers,
    ) -> Array:
        """Share of all environments that a reference and the first `ends` structures know (n,)."""
        coverage = Coverage(self.x, self.labels, self.bandwidth, finite(eps, "eps"), known)
        columns = rows_of(self.frame_offsets, chosen)
        counts = np.concatenate([[0], np.cumsum(self.sizes[chosen])])[ends]
        first = coverage.first(np.arange(len(self.x)), columns, counts, workers)
        shares: Array = np.cumsum(np.bincount(first, minlength=len(ends) + 1))[:-1] / len(self.x)
        return shares


def _holds_frames(reference: Any) -> bool:
    """Whether these are structures, not environments."""
    if is_single(reference):
        return True
    return isinstance(reference, list | tuple) and len(reference) > 0 and not isinstance(reference[0], _ARRAY_LIKE)


def _described(frames: Any, descriptor_fn: Callable[[Any], npt.ArrayLike]) -> tuple[npt.NDArray[np.floating], Indices]:
    return _joined([_matrix_of(descriptor_fn(frame), index) for index, frame in enumerate(frames)])


def _matrix_of(x: npt.ArrayLike, index: int) -> npt.NDArray[np.floating]:
    try:
        return as_matrix(x, "what descriptor_fn gives")
    except ValueError as error:
        raise DataError(f"structure {index}: {error}") from None


def _joined(parts: list[npt.NDArray[np.floating]]) -> tuple[npt.NDArray[np.floating], Indices]:
    """Environments of all structures, and where each begins."""
    if not parts:
        raise DataError("no frames were given")
    widths = [part.shape[1] for part in parts]
    if len(set(widths)) > 1:
        odd = next(index for index, width in enumerate(widths) if width != widths[0])
        raise DataError(
            f"structure {odd} has {widths[odd]} components per environment and structure 0 has {widths[0]}; "
            "descriptor_fn must always give the same"
        )
    return np.concatenate(parts), np.concatenate([[0], np.cumsum([len(part) for part in parts])])


def _positive_numbers(values: npt.ArrayLike | None, n: int, name: str) -> Array | None:
    """One positive, finite number per structure."""
    if values is None:
        return None
    array = np.asarray(values)
    if array.shape != (n,) or array.dtype.kind not in "fiu":
        raise ValueError(f"{name} must be {n} numbers, one per structure, got shape {array.shape}")
    wrong = np.flatnonzero(~(np.isfinite(array) & (array > 0)))
    if len(wrong):
        raise ValueError(f"{name} must be positive and finite, but that of structure {wrong[0]} is {array[wrong[0]]}")
    return array.astype(np.float64)
