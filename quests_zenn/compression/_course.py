"""One selection, from the first structure to the last: what limits it, what it looks at on the way, why it ends."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from scipy.special import logsumexp

from quests_zenn._core.parallel import Workers
from quests_zenn._core.remote import LazyTasks, Remote, Task
from quests_zenn.compression._clusters import direct, k_means
from quests_zenn.compression._coverage import Coverage
from quests_zenn.compression._greedy import Greedy, Scorer
from quests_zenn.compression._path import find_on_path, rows_of
from quests_zenn.compression._scorers import Chance, DistanceOfMeans, MeanDistance, Novelty, TotalNovelty
from quests_zenn.compression._state import Checkpoint, State
from quests_zenn.compression.size import Size

if TYPE_CHECKING:
    from quests_zenn.compression.compressor import DatasetCompressor

Array = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]
Progress = Callable[[int], None]

#: Structures that are chosen between two looks at what they cover: at least so many, or until there are so many times
#: as many.
_LOOK_AFTER, _LOOK_GROWTH = 16, 1.4

#: For budgets that are sums of fractions.
_TRIFLE = 1e-9

#: Loss of diversity, nats, that rounding may make.
_ROUNDING = 1e-6

#: How many times its share of the selection each chunk of two stages hands on.
OVERSAMPLING = 2.0

ALL = "all structures are chosen"
ENOUGH = "the size is reached"
FULL = "the budget is used up: no other structure fits"


@dataclass(frozen=True)
class Selection:
    """Structures that were chosen.

    Attributes
    ----------
    indices : numpy.ndarray, shape (n,)
        In the order of selection; structures that were pinned come first.
    scores : numpy.ndarray, shape (n,)
        What each was worth when it was chosen, without weights and costs. ``msc``: max dH + H_s, nats, infinite where
        nothing like it was known. ``fps``, ``mean_fps``: its distance, 1/Å, NaN for the first. NaN for pinned
        structures, and where a method has no scores.
    method : str
    size : Size
    stop : str
        Why it ended.
    n_kept : int
        Structures that were pinned.
    overlap : float or None
        Share of all environments that the selection (with the reference, where there is one) knows; None unless the
        size asked for it.
    n_candidates : int or None
        Structures that entered the second stage; None where there was one stage only.
    """

    indices: Indices
    scores: Array
    method: str
    size: Size
    stop: str
    n_kept: int = 0
    overlap: float | None = None
    n_candidates: int | None = None

    def __len__(self) -> int:
        return len(self.indices)


@dataclass(frozen=True)
class Request:
    """What is asked of a data set.

    Attributes
    ----------
    method : str
    size : Size
    limit : float
        Most that the amounts of all chosen structures may add up to.
    amounts : (S,)
        What each structure counts as in units of the size.
    known : tuple of arrays, or None
        Environments of a reference, and their labels.
    pinned : (n,)
        Structures that are chosen first.
    groups : (S,) or None
        Whole numbers from 0.
    targets : (groups,) or None
        How much each group is to get, relative to the others.
    seed : int
    eps : float
        dH below which an environment is known, nats.
    """

    method: str
    size: Size
    limit: float
    amounts: Array
    known: tuple[npt.NDArray[np.floating], Indices] | None
    pinned: Indices
    groups: Indices | None
    targets: Array | None
    seed: int
    eps: float

    def of(self, members: Indices, limit: float, pinned: Indices, seed: int) -> Request:
        """The same of some of the structures."""
        groups = None if self.groups is None else self.groups[members]
        return replace(self, limit=limit, amounts=self.amounts[members], pinned=pinned, groups=groups, seed=seed)

    def cut(self, chosen: Indices, scores: Array, n: int, stop: str, overlap: float | None = None) -> Selection:
        """The first n structures of an order."""
        n = max(n, len(self.pinned))
        return Selection(chosen[:n], scores[:n], self.method, self.size, stop, len(self.pinned), overlap)


class Course:
    """A selection with a method that has an order."""

    def __init__(self, data: DatasetCompressor, request: Request, workers: Workers) -> None:
        self.data, self.request, self.workers = data, request, workers
        bonus = np.zeros(data.n_structures)
        if data.weights is not None:
            bonus += np.log(data.weights)
        if data.costs is not None and request.method != "random":
            log_costs = np.log(data.costs)
            bonus -= log_costs - (logsumexp(log_costs) - math.log(len(log_costs)))
        entropies = np.zeros(data.n_structures) if request.method == "random" else data.entropies
        self._own = entropies if request.method.startswith("msc") else np.zeros(data.n_structures)
        self._scale = 1.0
        self.scorer: Scorer
        if request.method == "random":
            self.scorer = Chance(data.n_structures, np.random.default_rng(request.seed))
        elif request.method == "mean_fps":
            self.scorer = DistanceOfMeans(data.means)
        elif request.method == "fps":
            self.scorer = MeanDistance(data.space, data.frame_offsets, data.means, workers)
            self._scale = data.space.scale
        else:
            kind = TotalNovelty if request.method == "msc_sum" else Novelty
            self.scorer = kind(data.space, data.frame_offsets, workers)
            if request.known is not None:
                self.scorer.know(*request.known)
        self.greedy = Greedy(
            self.scorer,
            self._own + bonus,
            entropies + bonus,
            request.groups,
            request.targets,
            request.amounts,
        )

    # ---------------------------------------------------------------------- state

    def state(self) -> State:
        """What `resume` needs."""
        greedy = self.greedy
        kept = {f"scorer_{name}": values for name, values in self.scorer.state().items()}
        # a run may be broken off between the two lists
        chosen = np.array(greedy.chosen[: len(greedy.scores)], np.int64)
        return {"chosen": chosen, "scores": np.array(greedy.scores), **kept}

    def resume(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        """Go on from there."""
        if "chosen" not in state:
            return
        for structure, score in zip(state["chosen"].tolist(), state["scores"].tolist(), strict=True):
            self.greedy.choose(structure, score)
        name = "scorer_"
        self.scorer.restore({key.removeprefix(name): state[key] for key in state if key.startswith(name)})

    # ---------------------------------------------------------------------- course

    def run(self, keep: Callable[[], None], progress: Progress | None) -> Selection:
        """From here to the end. `keep` is called after each structure."""
        self._keep, self._progress = keep, progress or (lambda n: None)
        request, greedy = self.request, self.greedy
        for structure in request.pinned[len(greedy.chosen) :].tolist():
            greedy.choose(structure, math.nan)
        kind = request.size.kind
        if kind == "overlap":
            return self._until_covered()
        stop = self._extend(self.data.n_structures)
        chosen, scores = np.array(greedy.chosen, np.int64), np.array(greedy.scores)
        if kind not in ("auto", "max_loss"):
            return request.cut(chosen, scores, len(chosen), stop)
        return self._cut_by_density(chosen, scores)

    def _extend(self, number: int) -> str:
        """Choose until there are so many structures, or the limit is reached; returns why it ended."""
        request, greedy = self.request, self.greedy
        amounts = request.amounts
        spent = float(amounts[greedy.chosen].sum())
        each_counts_one = not math.isfinite(request.limit) or request.size.kind == "structures"
        while len(greedy.chosen) < number:
            left = request.limit - spent
            if each_counts_one:
                if left < 1.0:
                    return ENOUGH
                best = greedy.best()
            else:
                fits = amounts <= left + _TRIFLE * request.limit
                best = greedy.best(fits) if fits.any() else -1
            if best < 0:
                break
            value = float(self.scorer.values[best])
            if request.method.startswith("msc"):
                score = value + float(self._own[best])
            elif request.method == "random" or value == math.inf:
                score = math.nan
            else:
                score = math.exp(value) / self._scale
            greedy.choose(best, score)
            spent += float(amounts[best])
            self._progress(1)
            self._keep()
        if not greedy.remaining.any():
            return ALL
        if len(greedy.chosen) >= number or request.limit - spent <= _TRIFLE * request.limit:
            return ENOUGH
        return FULL

    def _until_covered(self) -> Selection:
        """The shortest beginning of the order that covers a share of all environments."""
        data, request, greedy = self.data, self.request, self.greedy
        coverage = Coverage(data.x, data.labels, data.bandwidth, request.eps, request.known)
        total = len(data.x)
        wanted = max(1, math.ceil(request.size.value * total - _TRIFLE * total))
        least = len(request.pinned)
        unknown, before = np.arange(total), least
        while True:
            reached = len(greedy.chosen)
            columns = rows_of(data.frame_offsets, np.array(greedy.chosen, np.int64))
            ends = np.concatenate([[0], np.cumsum(data.sizes[greedy.chosen])]).astype(np.int64)
            # by the structures chosen so far, none of which knew these rows when they were fewer
            known = coverage.knows(unknown, columns, self.workers)
            missing = wanted - (total - len(unknown))
            if np.count_nonzero(known) >= missing or reached == data.n_structures:
                break
            unknown, before = unknown[~known], reached
            self._extend(max(reached + _LOOK_AFTER, int(_LOOK_GROWTH * reached)))
        n, covered = reached, total - len(unknown) + int(np.count_nonzero(known))
        if reached > before:
            steps = np.arange(before + 1, reached + 1)
            first = coverage.first(unknown[known], columns, ends[steps], self.workers)
            sums = np.cumsum(np.bincount(first, minlength=len(steps)))[: len(steps)]
            enough = int(np.argmax(sums >= missing)) if sums[-1] >= missing else len(steps) - 1
            n, covered = int(steps[enough]), total - len(unknown) + int(sums[enough])
        chosen, scores = np.array(greedy.chosen, np.int64), np.array(greedy.scores)
        told = f"{covered / total:.4%} of the environments are covered"
        if n == least:
            nothing = np.empty(0, np.int64)
            alone: int = 0
            if request.known is not None:
                alone = int(np.count_nonzero(coverage.knows(np.arange(total), nothing, self.workers)))
            if alone >= wanted:
                told = f"the reference covers that already: {told}"
            else:
                told += " by the structures that are kept" + (" and the reference" if alone else " alone")
        return request.cut(chosen, scores, n, told, float(covered / total))

    def _cut_by_density(self, chosen: Indices, scores: Array) -> Selection:
        """The beginning of the order with the largest H D, or the shortest that loses no more D than allowed."""
        data, request = self.data, self.request
        rows = rows_of(data.frame_offsets, chosen)
        ends = np.cumsum(data.sizes[chosen])
        least = max(len(request.pinned), 1) - 1
        whole: list[float] = []

        def wanted(entropy: Array, diversity: Array) -> tuple[int, int, int]:
            last = len(entropy) - 1
            if request.size.kind == "auto":
                product = entropy * diversity
                # a set taken twice holds no more than once: rounding must not choose the larger one
                found = int(np.argmax(product >= product.max() - _ROUNDING * (1.0 + entropy + diversity)))
                return found, max(found - 1, 0), min(found + 1, last)
            whole.append(float(diversity[-1]))
            small_enough = whole[0] - diversity <= request.size.value + _ROUNDING
            # the last prefix is, as was seen on a coarser grid: it may only fail to be so by rounding
            found = int(np.argmax(small_enough)) if small_enough.any() else last
            return found, max(found - 1, 0), found

        labels = None if data.labels is None else data.labels[rows]
        found = find_on_path(data.x[rows], labels, data.bandwidth, ends[least:], wanted, self.workers)
        lost = f"at most {request.size.value:g} nats of D are lost"
        what = "the largest H D" if request.size.kind == "auto" else lost
        return request.cut(chosen, scores, least + found + 1, what)


def run_course(
    data: DatasetCompressor,
    request: Request,
    saved: Checkpoint,
    progress: Progress | None,
    beside: State | None = None,
) -> Selection:
    """A selection with a method that has an order; its state is kept, together with what stands beside it."""
    ready = False
    try:
        # no thread may still be at work on the sums that are kept
        with Workers(data.jobs) as workers:
            course = Course(data, request, workers)
            course.resume(saved.state)
            ready = True
            return course.run(lambda: saved.save(lambda: course.state() | (beside or {})), progress)
    except BaseException:
        if ready:
            saved.save(lambda: course.state() | (beside or {}), now=True)
        raise


def run_clusters(data: DatasetCompressor, request: Request) -> Selection:
    """One structure from each cluster, as many clusters as the size allows."""
    points = data.means / data.bandwidth
    pinned, amounts, limit = request.pinned, request.amounts, request.limit
    candidates = np.setdiff1d(np.arange(data.n_structures), pinned)
    codes = np.zeros(data.n_structures, np.int64) if request.groups is None else request.groups
    pick = {"k_means": k_means, "direct": direct}[request.method]

    def of_number(n: int) -> Indices:
        """n of the candidates, from each group what it is due."""
        found = [pinned]
        for group, quota in enumerate(quotas(n, codes, request.targets, pinned)):
            members = candidates[codes[candidates] == group]
            if quota:
                found.append(members[pick(points[members], quota, np.random.default_rng([request.seed, group]))])
        return np.concatenate(found).astype(np.int64)

    least, most = 0, len(candidates)
    if request.size.kind == "structures":
        least = most = min(most, int(limit) - len(pinned))
    while least < most:  # amounts grow with the number, or nearly so
        middle = (least + most + 1) // 2
        if amounts[of_number(middle)].sum() <= limit * (1.0 + _TRIFLE):
            least = middle
        else:
            most = middle - 1
    chosen = of_number(least)
    if len(chosen) == data.n_structures:
        stop = ALL
    elif request.size.kind == "structures" or amounts[chosen].sum() >= limit * (1.0 - _TRIFLE):
        stop = ENOUGH
    else:
        stop = "one cluster more would exceed the size"
    return request.cut(chosen, np.full(len(chosen), np.nan), len(chosen), stop)


def quotas(n: int, codes: Indices, targets: Array | None, pinned: Indices) -> list[int]:
    """How many of n further structures each group gives, so that all get what they are due as far as they last."""
    if targets is None:
        return [n]
    sizes = np.bincount(codes, minlength=len(targets))  # some may be empty, in a part of the set
    given = np.bincount(codes[pinned], minlength=len(sizes))
    start = given.copy()
    for _ in range(n):
        share = np.where(given < sizes, given / targets, np.inf)
        given[int(np.argmin(share))] += 1
    return (given - start).tolist()  # type: ignore[no-any-return]


def run_stages(
    data: DatasetCompressor,
    request: Request,
    chunk: int,
    saved: Checkpoint,
    progress: Progress | None,
    remote: Remote | None = None,
) -> Selection:
    """Two stages: each chunk hands on what it finds best, and the selection is made among these."""
    share = OVERSAMPLING * request.limit / float(request.amounts.sum())
    n_chunks = -(-data.n_structures // chunk)
    seeds = np.random.default_rng(request.seed).integers(2**63, size=n_chunks + 1).tolist()
    handed_on: Indices = saved.state.get("handed_on", np.empty(0, np.int64))
    done = int(saved.state.get("done", np.array(0)))
    none = np.empty(0, np.int64)

    def beside() -> State:
        return {"handed_on": handed_on, "done": np.array(done)}

    def asked_of(number: int) -> tuple[Indices, Request]:
        members = np.arange(number * chunk, min((number + 1) * chunk, data.n_structures))
        budget = share * float(request.amounts[members].sum())
        limit = math.ceil(budget - _TRIFLE) if request.size.kind == "structures" else budget
        least = float(request.amounts[members].min())
        return members, request.of(members, max(limit, least), none, seeds[number])

    def found_in_chunks() -> Iterator[Indices]:
        """What each chunk hands on, of those that are left."""
        if remote is None:
            for number in range(done, n_chunks):
                members, asked = asked_of(number)
                yield members[first_stage(data.subset(members), asked, progress)]
            return

        def make(number: int) -> Task:
            members, asked = asked_of(first + number)
            return Task((), (data.subset(members), asked))

        first = done
        tasks = LazyTasks(n_chunks - first, make)
        for number, indices in enumerate(remote.map(first_stage_elsewhere, [], tasks)):
            if progress is not None:
                progress(len(indices))
            yield (first + number) * chunk + indices

    try:
        for found in found_in_chunks():
            handed_on = np.concatenate([handed_on, found])
            done += 1
            saved.save(beside)
    except BaseException:
        saved.save(beside, now=True)
        raise
    union = np.union1d(handed_on, request.pinned).astype(np.int64)
    asked = request.of(union, request.limit, np.searchsorted(union, request.pinned), seeds[-1])
    selection = run_one_stage(data.subset(union), asked, saved, progress, beside())
    return replace(selection, indices=union[selection.indices], n_candidates=len(union))


def first_stage(data: DatasetCompressor, request: Request, progress: Progress | None = None) -> Indices:
    """What a chunk hands on."""
    return run_one_stage(data, request, Checkpoint(None, ""), progress).indices


def first_stage_elsewhere(data: DatasetCompressor, request: Request) -> Indices:
    """The same in another process, on one thread."""
    data.jobs = 1
    return first_stage(data, request)


def run_one_stage(
    data: DatasetCompressor,
    request: Request,
    saved: Checkpoint,
    progress: Progress | None,
    beside: State | None = None,
) -> Selection:
    """A selection with any method."""
    if request.method in ("k_means", "direct"):
        return run_clusters(data, request)
    return run_course(data, request, saved, progress, beside)
