"""The loop: propose, evaluate, train, measure. Its state is on disk after every step, and it goes on from there.

A run is a folder. ``run.json`` says what it is a run of, and each round has a folder of its own::

    rounds/0003/points.csv     what was asked, and which criterion proposed it
    rounds/0003/answers/       answers of an oracle that keeps them, point by point
    rounds/0003/results.csv    what was found
    rounds/0003/environments/  of the frames of each point that came with some
    rounds/0003/scores.csv     dH of all points so far that have frames, and what they weigh
    rounds/0003/model/         the committee trained on all rounds so far
    rounds/0003/metrics.json   errors, budgets; the round has ended when this is there

Every file is written whole or not at all, and every round follows from the seed, the settings and the files of the
rounds before it: a run that was killed ends as one that was not.
"""

from __future__ import annotations

import csv
import hashlib
import inspect
import io as text_io
import json
import math
import os
import shutil
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt

from quests_zenn._core.checks import DataError, DataWarning, finite, positive, whole_number
from quests_zenn._core.locks import try_to_lock
from quests_zenn._core.parallel import resolve_jobs
from quests_zenn.io.outputs import plain, replacing, write_json
from quests_zenn.sampling._context import Trained
from quests_zenn.sampling._program import ANSWER
from quests_zenn.sampling.criteria import Budget, Context, check_criteria, propose, spread_of
from quests_zenn.sampling.domain import Polytope
from quests_zenn.sampling.oracles import Oracle, Result
from quests_zenn.sampling.snapshots import Snapshots, load_environments, save_environments
from quests_zenn.sampling.weights import effective_sample_size
from quests_zenn.zenn._rows import LEAST_ROWS

FloatArray = npt.NDArray[np.float64]

#: What a random number is for; the second word of its seed, after that of the run.
_CANDIDATES, _PROPOSALS, _POINTS, _MODEL, _SEARCH = range(5)

#: Data have grown by this factor since the last fit from random starts: it is time for another.
GROWN = 2.0

#: A pool with more temperatures than this has measured ones, not those that were set.
MOST_TEMPERATURES = 32

#: Columns of scores.csv.
_SCORES = ("density", "mean", "max", "novel")

#: Told what goes on: a stage and how much of it.
Progress = Callable[[str, int], None]


@dataclass
class Row:
    """What is known of all points asked so far; one entry for each."""

    x: FloatArray
    T: FloatArray
    mu: FloatArray
    mu_error: FloatArray
    F: FloatArray
    asked: FloatArray
    error: FloatArray
    round: npt.NDArray[np.int64]
    index: npt.NDArray[np.int64]
    criterion: list[str]
    message: list[str]

    @classmethod
    def none(cls, q: int) -> Row:
        """No points yet."""
        empty, none = np.empty((0, q)), np.empty(0)
        return cls(
            empty, none, empty, empty, none, empty, none, np.empty(0, np.int64), np.empty(0, np.int64), [], []
        )  # fmt: skip

    def __len__(self) -> int:
        return len(self.T)

    @property
    def good(self) -> npt.NDArray[np.bool_]:
        """Points of which something is known."""
        known = np.isfinite(self.mu).any(axis=1) | np.isfinite(self.F)
        return np.isfinite(self.x).all(axis=1) & known

    def and_(self, other: Row) -> Row:
        """These and those."""
        arrays = {
            name: np.concatenate([getattr(self, name), getattr(other, name)])
            for name in ("x", "T", "mu", "mu_error", "F", "asked", "error", "round", "index")
        }
        return Row(**arrays, criterion=self.criterion + other.criterion, message=self.message + other.message)


@dataclass(frozen=True)
class Stop:
    """When enough is known.

    Attributes
    ----------
    total : int
        Most points that are asked, failed ones included.
    tolerance : float or None
        The run ends when the median error of predictions at new points, in units of the spread of mu, was below this
        for `patience` rounds; None for never.
    patience : int
    """

    total: int
    tolerance: float | None = None
    patience: int = 2

    def __post_init__(self) -> None:
        whole_number(self.total, "total", 1)
        whole_number(self.patience, "patience", 1)
        if self.tolerance is not None:
            positive(self.tolerance, "tolerance")

    def reached(self, rounds: Sequence[Mapping[str, Any]], asked: int) -> str | None:
        """Why no more points are bought; None if they are."""
        if asked >= self.total:
            return f"the budget of {self.total} points is spent"
        if self.tolerance is not None and len(rounds) > self.patience:
            last = [entry["new"]["median"] for entry in rounds[-self.patience :]]
            if all(value is not None and value < self.tolerance for value in last):
                return f"predictions at new points were within {self.tolerance:g} for {self.patience} rounds"
        return None


@dataclass
class ActiveLearning:
    """Learn a free energy from chemical potentials that cost something: buy the points that teach most.

    Parameters
    ----------
    domain : Polytope
        Where points may lie.
    oracle : Oracle
        Who answers them: see `quests_zenn.sampling.oracles`.
    model : FreeEnergyModel, optional
        Cloned, never fitted itself; by default ``IDNN()``.
    criteria : mapping of float, optional
        Shares of the criteria in the budget of a round, by name; by default `DEFAULT_CRITERIA`.
    stop : Stop or int
        When to end; a number is a budget of points.
    initial, per_round : int
        Points of the first round, which fill the domain, and of each one after it.
    temperature : float or sequence of float, optional, K
        Several take turns, and points of one are not compared with those of another. By default those of a pool, else
        300 K. Of a pool, rows at this temperature are candidates.
    n_candidates : int
        Points of the domain among which criteria choose.
    min_distance : float
        Least distance of new points from known ones and from each other, in units of `scale`.
    scale : array of shape (q,), optional
        Lengths that distances are measured in; by default the extent of the domain along each axis.
    dynamic : bool
        Whether budgets follow the errors that the points of each criterion revealed.
    novelty : bool
        Whether proposals pass the novelty filter.
    conserved : sequence of int
        Components, such as the composition, whose chemical potential is set from outside: in a well it may have any
        value.
    recency : float
        What a point counts less with each round that has passed since: 1 for nothing.
    scores : Snapshots, optional
        Points are scored by the frames that they come with: novelty and weights of rows from dH.
    tolerance, surplus, plane, slices
        See `Context`: below which eigenvalue g is not convex, how many proposals criteria make, chemical potentials
        of the surroundings, axes of slices.
    tune_at : sequence of int
        Rounds in which the form of the model is searched for: see `quests_zenn.sampling.tuning.search`. It holds until
        the next search.
    tune_trials : int
    tune_space : mapping of sequences, optional
        Settings of the model and their choices.
    test : (x, T, mu), optional
        Points that are never trained on, by which every round is judged.
    folder : path, optional
        Where the state is kept; without one, nothing is, and nothing can be resumed.
    random_state : int
        The same seed and settings give the same run.
    n_jobs : int or None
        Threads, and programs at a time; None for all cores. Results do not depend on it.
    progress : callable, optional
        Told the stage, and how much of it was done.
    after_round : callable, optional
        Called with the run, the number of each round as it ends, and whether it ended now rather than in a run before.

    Attributes
    ----------
    rows_ : Row
        All points so far.
    model_ : FreeEnergyModel
        The committee of the last round.
    rounds_ : list of dict
        Metrics of each round.
    stopped_ : str
        Why the run ended.

    Raises
    ------
    DataError
        If the domain, the oracle and the folder do not fit together.
    ValueError
        If a setting makes no sense.
    """

    domain: Polytope
    oracle: Oracle
    model: Any = None
    criteria: Mapping[str, float] | None = None
    stop: Stop | int = 300
    initial: int = 40
    per_round: int = 20
    temperature: float | Sequence[float] | None = None
    n_candidates: int = 20_000
    min_distance: float = 1e-3
    scale: npt.ArrayLike | None = None
    dynamic: bool = True
    novelty: bool = True
    conserved: Sequence[int] = ()
    recency: float = 1.0
    scores: Snapshots | None = None
    tolerance: float = 0.0
    surplus: float = 4.0
    plane: npt.ArrayLike | None = None
    slices: Sequence[tuple[int, int]] | None = None
    tune_at: Sequence[int] = ()
    tune_trials: int = 12
    tune_space: Mapping[str, Sequence[Any]] | None = None
    test: tuple[Any, Any, Any] | None = None
    folder: str | os.PathLike[str] | None = None
    random_state: int = 0
    n_jobs: int | None = None
    progress: Progress | None = None
    after_round: Callable[[ActiveLearning, int, bool], None] | None = None
    seconds: dict[str, float] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        whole_number(self.initial, "initial", 1)
        whole_number(self.per_round, "per_round", 1)
        whole_number(self.n_candidates, "n_candidates", 1)
        whole_number(self.tune_trials, "tune_trials", 1)
        self.tune_at = tuple(whole_number(number, "a round of tune_at", 0) for number in self.tune_at)
        whole_number(self.random_state, "random_state", 0)
        resolve_jobs(self.n_jobs)
        if not 0.0 < finite(self.recency, "recency") <= 1.0:
            raise ValueError(f"recency must lie in (0, 1], got {self.recency!r}")
        if finite(self.min_distance, "min_distance") < 0.0:
            raise ValueError(f"min_distance must not be negative, got {self.min_distance!r}")
        if isinstance(self.stop, int):
            self.stop = Stop(self.stop)
        self.temperatures = self._checked_temperatures()
        q = self.domain.dim
        if self.oracle.q != q:
            raise DataError(f"the domain has {q} order parameters and the oracle answers {self.oracle.q}")
        given, self.criteria = self.criteria, check_criteria(self.criteria)
        self.names = tuple(self.domain.names or self.oracle.names)
        bounds = np.asarray(self.domain.bounds)
        length = bounds[:, 1] - bounds[:, 0] if self.scale is None else np.asarray(self.scale, dtype=np.float64)
        if length.shape != (q,) or not (np.isfinite(length).all() and (length > 0.0).all()):
            raise ValueError(f"scale must be {q} positive numbers, got {self.scale!r}")
        self.lengths = length
        if self.plane is not None:
            self.plane = np.asarray(self.plane, dtype=np.float64).reshape(-1)
        self._context_of(np.empty((0, q)), T=self.temperatures[0])  # judges what is only handed on
        if self.scores is not None and not isinstance(self.scores, Snapshots):
            raise ValueError(f"scores must be Snapshots(...), got {self.scores!r}")
        if self.scores is not None and self.scores.novelty:
            if not any(getattr(self.oracle, "snapshots", None) or ()):
                raise ValueError(
                    "novelty in dH needs a pool whose rows have snapshots, so that candidates can be compared before "
                    "they are bought: PoolOracle(..., snapshots=[...])"
                )
            if not self.novelty:
                raise ValueError("novelty in dH needs the novelty filter: leave novelty=True")
        if self.model is None:
            from quests_zenn.zenn import IDNN

            self.model = IDNN(verbose=False)
        if getattr(self.model, "coordinate", "order") != "order":
            raise ValueError("the model must be one of order parameters: coordinate='order'")
        if getattr(self.model, "n_members", 2) < 2 and self.criteria.get("committee"):
            if given is None:  # those by default that a single model can serve
                self.criteria = {name: share for name, share in self.criteria.items() if name != "committee"}
            else:
                raise ValueError("the criterion 'committee' needs a model of two members or more (n_members)")
        check = getattr(self.model, "_check_settings", None)
        if check is not None:
            check()  # before anything is bought
        if self.test is not None:
            self.test = self._checked_test(self.test)
        self.path = None if self.folder is None else Path(self.folder)
        self.rows_ = Row.none(q)
        self.rounds_: list[dict[str, Any]] = []
        self.model_: Any = None
        self.stopped_ = ""
        self._cold = 0
        #: Whether nothing may be made: what is missing is an error.
        self._reading = False
        self._found: dict[str, Any] = {}
        self._environments: list[FloatArray | tuple[Path, int] | None] = []

    def _checked_temperatures(self) -> tuple[float, ...]:
        at = getattr(self.oracle, "candidate_temperatures", None)
        there = None if at is None else np.unique(at())
        given = self.temperature
        if given is None:
            if there is not None and len(there) > MOST_TEMPERATURES:
                raise DataError(
                    f"the pool has {len(there)} temperatures; a pool needs those that were set, not those that were "
                    "measured"
                )
            given = 300.0 if there is None else there.tolist()
        try:
            temperatures = np.atleast_1d(np.asarray(given, dtype=np.float64))
        except (TypeError, ValueError):
            raise ValueError(f"temperature must be a number or a list of numbers, got {given!r}") from None
        if temperatures.ndim != 1 or not len(temperatures):
            raise ValueError("temperature must be a number or a list of numbers")
        found = tuple(positive(float(t), "temperature") for t in temperatures)
        for t in found:
            if there is not None and not _same_temperature(there, t).any():
                known = ", ".join(f"{value:g}" for value in there[:8]) + (", ..." if len(there) > 8 else "")
                raise DataError(f"the pool has no rows at {t:g} K; it has rows at {known} K")
        return found

    def _checked_test(self, test: tuple[Any, Any, Any]) -> tuple[FloatArray, FloatArray, FloatArray]:
        q = self.domain.dim
        x, mu = (np.asarray(part, dtype=np.float64).reshape(-1, q) for part in (test[0], test[2]))
        T = np.broadcast_to(np.asarray(test[1], dtype=np.float64), (len(x),)).copy()
        if len(x) != len(mu) or not len(x) or not all(np.isfinite(part).all() for part in (x, T, mu)):
            raise DataError(f"test must hold x (n, {q}), T and mu (n, {q}) of at least one point, all finite")
        return x, T, mu

    # the run ----------------------------------------------------------------------------------------------------------

    def run(self) -> ActiveLearning:
        """Go on until the stopping rule is met.

        Returns
        -------
        ActiveLearning
            Itself.

        Raises
        ------
        DataError
            If the folder is of another run, or is in use; or if no point of a first round could be answered.
        """
        assert isinstance(self.stop, Stop)
        with self._opened():
            number = 0
            while True:
                reason = self.stop.reached(self.rounds_, len(self.rows_)) if number else None
                if reason is None and number and not self._left():
                    reason = "the oracle has no points left"
                if reason is not None:
                    self.stopped_ = reason
                    return self
                if not self._round(number):
                    if not number:
                        where = "there is none" if self.oracle.candidates() is None else "no row of the pool lies in it"
                        raise DataError(f"no point of the domain can be asked: {where}")
                    self.stopped_ = f"no new point is at least {self.min_distance:g} from all known ones"
                    return self
                number += 1

    def restore(self) -> ActiveLearning:
        """What is on disk of this run, without buying or training anything.

        Raises
        ------
        DataError
            If there is no folder, or it is of another run.
        """
        if self.path is None or not (self.path / "run.json").exists():
            raise DataError(f"{self.path or 'without a folder'}: holds no run")
        with self._opened(shared=True):
            self._reading = True
            try:
                while (self._folder(len(self.rounds_)) / "metrics.json").exists():
                    self._round(len(self.rounds_))
            finally:
                self._reading = False
        return self

    def _left(self) -> bool:
        return any(self._free(temperature) for temperature in self.temperatures)

    def _free(self, temperature: float) -> bool:
        """Whether there is a point to ask at this temperature."""
        rows = self._candidates(temperature)
        return rows is None or bool(rows[1].any())

    def _candidates(self, temperature: float) -> tuple[FloatArray, npt.NDArray[np.bool_]] | None:
        """All rows of a pool (N, q), and which are free at this temperature; None where any point may be asked."""
        only = self.oracle.candidates()
        if only is None:
            return None
        free = np.ones(len(only), bool)
        if self.rows_.index.max(initial=-1) >= len(only):
            raise DataError(f"{self.path}: its results name row {self.rows_.index.max()} of a pool of {len(only)}")
        free[self.rows_.index[self.rows_.index >= 0]] = False
        at = getattr(self.oracle, "candidate_temperatures", None)
        if at is not None:
            free &= _same_temperature(at(), temperature)
        return np.asarray(only), free

    def _temperature(self, number: int) -> float:
        """That of a round: the next in turn at which there is a point to ask."""
        turn = number % len(self.temperatures)
        in_turn = self.temperatures[turn:] + self.temperatures[:turn]
        if len(in_turn) == 1:
            return in_turn[0]
        return next((t for t in in_turn if self._free(t)), in_turn[0])

    def _round(self, number: int) -> bool:
        """One round, or what is left of it; False if there is no point to ask."""
        began = time.monotonic()
        new = self.path is None or not (self._folder(number) / "metrics.json").exists()
        temperature = self._temperature(number)
        points, names, budget = self._proposed(number, temperature)
        self._took("propose", began)
        if not len(points):
            return False
        rows = self._evaluated(number, temperature, points, names)
        rows = replace(rows, error=self._predicted(rows))
        self.rows_ = self.rows_.and_(rows)
        if not self.rows_.good.any():
            reasons = sorted({m for m in rows.message if m})
            raise DataError(f"round {number}: none of {len(rows)} points was answered; the first reason: {reasons[0]}")
        began = time.monotonic()
        self._weight, scored = self._weighed(number)
        self._took("score", began)
        began = time.monotonic()
        model = self._trained(number, self._weight)
        self._took("train", began)
        self.rounds_.append(self._measured(number, temperature, rows, model, budget, scored))
        self.model_ = model
        if self.after_round is not None:
            self.after_round(self, number, new)
        return True

    def _took(self, stage: str, began: float) -> None:
        self.seconds[stage] = self.seconds.get(stage, 0.0) + time.monotonic() - began

    def _tell(self, stage: str, amount: int = 1) -> None:
        if self.progress is not None:
            self.progress(stage, amount)

    def _rng(self, number: int, purpose: int) -> np.random.Generator:
        return np.random.default_rng([self.random_state, number, purpose])

    # propose ----------------------------------------------------------------------------------------------------------

    def _proposed(self, number: int, temperature: float) -> tuple[FloatArray, list[str], dict[str, Any]]:
        assert isinstance(self.stop, Stop)
        stored = self._stored(number, "points.csv")
        count = self.initial if number == 0 else self.per_round
        count = max(0, min(count, self.stop.total - len(self.rows_)))  # a total that was lowered since
        budgets, state = self._budgets(number, count)
        if stored is not None:
            points = self._columns(number, "points.csv", stored, [f"x_{name}" for name in self.names])
            return points, [row["criterion"] for row in stored], state
        context = self._context(number, temperature)
        points, names = propose(context, budgets, filtered=self.novelty and self.model_ is not None)
        if not len(points):
            return points, names, state
        self._write_csv(
            number,
            "points.csv",
            ["id", "criterion", *(f"x_{name}" for name in self.names)],
            ([i, name, *map(repr, point.tolist())] for i, (name, point) in enumerate(zip(names, points, strict=True))),
        )
        self._tell("propose", len(points))
        return points, names, state

    def _budgets(self, number: int, count: int) -> tuple[dict[str, int], dict[str, Any]]:
        """Points for each criterion; the first round fills space."""
        assert self.criteria is not None
        if self.model_ is None:
            return {"space-filling": count}, {"space-filling": count}
        # with a floor of 1 nothing is learned, but fractions of points are carried over
        budget = Budget(dict(self.criteria), **({} if self.dynamic else {"floor": 1.0}))
        for entry in self.rounds_[1:]:
            budget.learn(entry["by_criterion"])
        shares = budget.split(count)
        return shares, dict(shares)

    def _context(self, number: int, temperature: float) -> Context:
        rows, only = self.rows_, self._candidates(temperature)
        novelty = None
        if only is None:
            rng = self._rng(number, _CANDIDATES)
            candidates = self.domain.sample(self.n_candidates, method="hit-and-run", rng=rng)
        else:
            candidates = only[0][only[1]]
            novelty = self._novelty_of(np.flatnonzero(only[1]))
        # a point that is known at one temperature may be asked at another
        here = _same_temperature(rows.T, temperature)
        good = rows.good & here
        last = rows.round[here].max(initial=-1)
        error = np.where(rows.round == last, rows.error, np.nan)
        return self._context_of(
            candidates,
            only_candidates=only is not None,
            T=temperature,
            known_x=rows.x[good],
            known_mu=rows.mu[good],
            known_error=error[good],
            model=self.model_,
            rng=self._rng(number, _PROPOSALS),
            rounds=number,
            environment_novelty=novelty,
            trained=None if self.model_ is None else self._behind(),
        )

    def _behind(self) -> Trained:
        """All rows that the model was trained on."""
        rows, good = self.rows_, self.rows_.good
        error = _usual_where_unknown(rows.mu_error[good])
        if error is None:
            error = np.full((int(good.sum()), self.domain.dim), np.nan)
        weight = self._weight[good]
        return Trained(rows.x[good], rows.T[good], rows.mu[good], error, weight / weight.mean())

    def _context_of(self, candidates: FloatArray, **more: Any) -> Context:
        return Context(
            domain=self.domain,
            candidates=candidates,
            scale=self.lengths,
            min_distance=self.min_distance,
            conserved=self.conserved,
            tolerance=self.tolerance,
            surplus=self.surplus,
            plane=self.plane,
            slices=self.slices,
            **more,
        )

    def _novelty_of(self, free: npt.NDArray[np.intp]) -> Callable[[npt.NDArray[np.intp]], FloatArray] | None:
        """How novel the frames of candidates are, which are the rows `free` of a pool."""
        if self.scores is None or not self.scores.novelty:
            return None
        files: Sequence[Path | None] = self.oracle.snapshots  # type: ignore[attr-defined]
        # what is known at any temperature: environments are environments
        known = [part for part in self._loaded() if part is not None]
        return self.scores.novelty_against(lambda row: files[free[row]], known, self.n_jobs)

    # evaluate ---------------------------------------------------------------------------------------------------------

    def _evaluated(self, number: int, temperature: float, points: FloatArray, names: list[str]) -> Row:
        stored = self._stored(number, "results.csv")
        n, q = points.shape
        potentials = [f"mu_{name}" for name in self.names]
        columns = [
            *(f"x_{name}" for name in self.names),
            *potentials,
            *(f"mu_error_{name}" for name in self.names),
            "F",
        ]
        extra = [] if self.scores is None else ["environments"]
        if stored is None:
            seeds = self._rng(number, _POINTS).integers(0, 2**31 - 1, n)
            began = time.monotonic()
            taken = self.rows_.index[self.rows_.index >= 0]
            more: dict[str, Any] = {}
            if self.model_ is not None and "mu_guess" in inspect.signature(self.oracle.evaluate).parameters:
                more["mu_guess"] = self._guessed(points, temperature)
            with ExitStack() as stack:
                folder = None if self.path is None else self._folder(number) / "answers"
                if folder is None and self.scores is not None:  # frames must outlive the call
                    folder = Path(stack.enter_context(TemporaryDirectory(ignore_cleanup_errors=True)))
                result = self.oracle.evaluate(
                    points,
                    np.full(n, temperature),
                    seeds=seeds,
                    jobs=self.n_jobs,
                    folder=folder,
                    used=taken,
                    **more,
                )
                self._took("evaluate", began)
                values, index, messages = _table_of(result, n, q)
                if not len(self.rows_) and not _answered(values, q).any():
                    # nothing is kept, so that the same command asks again
                    reason = next((" ".join(message.split()) for message in messages if message), "no reason was given")
                    raise DataError(
                        f"round {number}: none of {n} points was answered; the first reason: {reason}; mend it, and "
                        "the same command asks again"
                    )
                kept = self._described(number, result, messages)
            self._write_csv(
                number,
                "results.csv",
                ["id", "T", *columns, "index", *extra, "message"],
                (
                    [
                        i,
                        repr(temperature),
                        *map(repr, values[i].tolist()),
                        int(index[i]),
                        *([_count(kept[i])] if extra else []),
                        " ".join(messages[i].split()),
                    ]
                    for i in range(n)
                ),
            )
            self._tell("evaluate", n)
        else:
            if len(stored) != n:
                raise DataError(f"{self._folder(number) / 'results.csv'}: has {len(stored)} rows for {n} points")
            values = self._columns(number, "results.csv", stored, columns)
            index = self._counts(number, "results.csv", stored, "index", -1)
            messages = [row["message"] for row in stored]
            counts = [0] * n
            if self.scores is not None:
                counts = self._counts(number, "results.csv", stored, "environments", 0).tolist()
            kept = [(self._shelf(number, i), count) if count else None for i, count in enumerate(counts)]
        self._environments += kept
        return Row(
            x=values[:, :q],
            T=np.full(n, temperature),
            mu=values[:, q : 2 * q],
            mu_error=values[:, 2 * q : 3 * q],
            F=values[:, -1],
            asked=points,
            error=np.full(n, np.nan),
            round=np.full(n, number),
            index=index,
            criterion=list(names),
            message=[" ".join(message.split()) for message in messages],
        )

    def _guessed(self, points: FloatArray, temperature: float) -> FloatArray:
        """mu (n, q) as the model expects it, no farther from what was measured than that is wide: far from all data a
        guess may be absurd, and a bias that follows it only finds itself."""
        guess = _mu(self.model_, points, np.full(len(points), temperature))
        for i, column in enumerate(self.rows_.mu[self.rows_.good].T):
            told = column[np.isfinite(column)]
            if not len(told):
                guess[:, i] = np.nan  # no guess
                continue
            low, high = told.min(), told.max()
            guess[:, i] = np.clip(guess[:, i], low - (high - low), high + (high - low))
        return guess

    # scores of snapshots ----------------------------------------------------------------------------------------------

    def _shelf(self, number: int, point: int) -> Path:
        """Where the environments of a point are kept."""
        return self._folder(number) / "environments" / f"{point:04d}.npy"

    def _described(self, number: int, result: Result, messages: list[str]) -> list[Any]:
        """Environments of the frames that points came with, made once; a file that cannot be read is told."""
        kept: list[Any] = [None] * len(messages)
        named = getattr(result, "snapshots", None)  # an oracle of somebody else may not know of them
        if self.scores is None or named is None:
            return kept
        answered: npt.NDArray[np.bool_] = np.asarray(np.isfinite(np.hstack([result.x, result.mu])).all(axis=1))
        for i, file in enumerate(named):
            if file is None or not answered[i]:
                continue
            try:
                found = self.scores.environments(file, self.n_jobs)
            except DataError as error:  # mu counts without it
                told = f"point {i}: no scores: {error}"
                messages[i] = f"{messages[i]}; {told}" if messages[i] else told
                continue
            if self.path is None:
                kept[i] = found
            else:
                save_environments(self._shelf(number, i), found)
                kept[i] = (self._shelf(number, i), len(found))
        return kept

    def _loaded(self) -> list[FloatArray | None]:
        """Environments of all points so far."""
        found = [load_environments(*part) if isinstance(part, tuple) else part for part in self._environments]
        widths = {part.shape[1] for part in found if part is not None}
        if len(widths) > 1:
            raise DataError(
                f"{self.path}: environments of its rounds have {' and '.join(map(str, sorted(widths)))} columns; a "
                "file there is not as it was written"
            )
        return found

    def _weighed(self, number: int) -> tuple[FloatArray, dict[str, Any] | None]:
        """Weights of all points so far (n,) from scores and age, and what is told of the scores."""
        weight = self.recency ** (number - self.rows_.round).astype(np.float64)
        if self.scores is None:
            return weight, None
        n = len(self.rows_)
        stored = self._stored(number, "scores.csv")
        values = np.full((n, len(_SCORES) + 1), np.nan)
        values[:, -1] = 1.0
        if stored is not None:
            if len(stored) != n:
                raise DataError(f"{self._folder(number) / 'scores.csv'}: has {len(stored)} rows for {n} points")
            values = self._columns(number, "scores.csv", stored, [*_SCORES, "weight"])
            if not (np.isfinite(values[:, -1]) & (values[:, -1] > 0.0) & (values[:, -1] < 1e9)).all():
                raise self._damaged(number, "scores.csv", "weights must be positive numbers")
        else:
            scores = self.scores.scores(self._loaded(), self.n_jobs)
            if scores is not None:
                rows = scores.names.astype(np.int64)
                values[rows, :-1] = np.column_stack([getattr(scores, name) for name in _SCORES])
                values[:, -1] = self.scores.row_weights(scores, n)
            elif not any(part is not None for part in self._environments):
                warnings.warn(
                    f"round {number}: no point came with snapshots that can be read, so that there are no scores",
                    DataWarning,
                    stacklevel=2,
                )
            self._write_csv(
                number,
                "scores.csv",
                ["id", "round", "environments", *_SCORES, "weight"],
                (
                    [i, int(self.rows_.round[i]), _count(self._environments[i]), *map(repr, values[i].tolist())]
                    for i in range(n)
                ),
            )
        weight = weight * values[:, -1]
        good = self.rows_.good
        known = ~np.isnan(values[:, 0])
        mean, most = (values[known, _SCORES.index(name)] for name in ("mean", "max"))
        told = np.isfinite(mean)
        return weight, {
            "weights": self.scores.weights,
            "n_scored": int(known.sum()),
            # dH is infinite where elements are in no other point
            "n_infinite": int((~told).sum()),
            "mean_dh": float(mean[told].mean()) if told.any() else None,
            "max_dh": float(most[told].max()) if told.any() else None,
            "effective_sample_size": effective_sample_size(weight[good]) if good.any() else 0.0,
        }

    def _spread(self) -> FloatArray:
        """How far each component of mu spreads over all that is known."""
        mu = self.rows_.mu[self.rows_.good]
        return np.array([spread_of(column) or 1.0 for column in mu.T])

    def _predicted(self, rows: Row) -> FloatArray:
        """Error of the model before it has seen these points: root mean square over components, in units of spread."""
        good = rows.good
        found = np.full(len(rows), np.nan)
        if self.model_ is None or not good.any():
            return found
        gap = (_mu(self.model_, rows.x[good], rows.T[good]) - rows.mu[good]) / self._spread()
        with np.errstate(invalid="ignore"):
            found[good] = np.sqrt(np.nanmean(np.square(gap), axis=1)) if len(gap) else np.nan
        return found

    # train ------------------------------------------------------------------------------------------------------------

    def _trained(self, number: int, weight: FloatArray) -> Any:
        from sklearn.base import clone

        rows = self.rows_
        good = rows.good
        count = int(good.sum())
        if count < LEAST_ROWS:
            return None  # more points first
        searched = number in self.tune_at
        if searched:
            self._found = self._searched(number)
        cold = self.model_ is None or searched or count >= GROWN * self._cold
        if cold:
            self._cold = count
        folder = None if self.path is None else self._folder(number) / "model"
        if self._reading and not (folder is not None and folder.is_dir()):
            raise self._damaged(number, "model", "it is missing")
        if folder is not None and folder.is_dir():
            return type(self.model).load(folder)
        model: Any = clone(self.model).set_params(**self._found) if cold else self.model_
        seed = int(self._rng(number, _MODEL).integers(0, 2**31 - 1))
        model.set_params(random_state=seed, n_jobs=self.n_jobs, verbose=False)
        model.set_params(warm_start=not cold)
        targets: dict[str, FloatArray] = {}
        mu = np.where(np.isinf(rows.mu_error[good]), np.nan, rows.mu[good])  # tells nothing
        if np.isfinite(mu).any():
            targets["mu"] = mu
        if np.isfinite(rows.F[good]).any():
            targets["F"] = rows.F[good]
        errors: dict[str, FloatArray] = {}
        known = _usual_where_unknown(rows.mu_error[good])
        if known is not None:
            errors["mu"] = known
        weight = weight[good]
        model.fit(
            rows.x[good],
            rows.T[good],
            **targets,
            errors=errors or None,
            sample_weight=weight / weight.mean(),
            progress=None if self.progress is None else self.progress,
        )
        if folder is not None:
            model.save(folder)
            # what goes on is what a resumed run would read
            model = type(self.model).load(folder)
        return model

    def _searched(self, number: int) -> dict[str, Any]:
        """The form of the model that predicts best, from disk if it was found before."""
        from quests_zenn.sampling.tuning import search

        path = None if self.path is None else self._folder(number) / "settings.json"
        if path is not None and path.exists():
            try:
                stored = json.loads(path.read_text(encoding="utf-8"))
                return {name: tuple(value) if isinstance(value, list) else value for name, value in stored.items()}
            except (ValueError, AttributeError) as error:
                raise DataError(f"{path}: is damaged ({error})") from error
        good = self.rows_.good
        found = search(
            self.model,
            self.rows_.x[good],
            self.rows_.T[good],
            self.rows_.mu[good],
            trials=self.tune_trials,
            space=self.tune_space,
            random_state=int(self._rng(number, _SEARCH).integers(0, 2**31 - 1)),
            n_jobs=self.n_jobs,
        )
        if path is not None:
            write_json(path, found, overwrite=True)
        return found

    # measure ----------------------------------------------------------------------------------------------------------

    def _measured(
        self,
        number: int,
        temperature: float,
        rows: Row,
        model: Any,
        budget: dict[str, Any],
        scored: dict[str, Any] | None,
    ) -> dict[str, Any]:
        path = None if self.path is None else self._folder(number) / "metrics.json"
        if path is not None and path.exists():
            return _read_metrics(path, number)
        good = self.rows_.good
        by: dict[str, dict[str, Any]] = {}
        for name in dict.fromkeys(rows.criterion):
            mine = np.array([name == other for other in rows.criterion])
            errors = rows.error[mine & np.isfinite(rows.error)]
            by[name] = {"points": int(mine.sum()), "error": float(errors.mean()) if len(errors) else None}
        entry: dict[str, Any] = {
            "round": number,
            "temperature": temperature,
            "n_points": len(self.rows_),
            "n_known": int(good.sum()),
            "n_failed": int((~rows.good).sum()),
            "budget": budget,
            "by_criterion": by,
            "new": _summary(rows.error),
            "train": None
            if model is None
            else self._judged(model, self.rows_.x[good], self.rows_.T[good], self.rows_.mu[good]),
            "spread": self._spread().tolist(),
        }
        if self.test is not None and model is not None:
            entry["test"] = self._judged(model, *self.test)
        if scored is not None:
            entry["scores"] = scored
        if path is not None:
            write_json(path, entry, overwrite=True)
        found: dict[str, Any] = json.loads(json.dumps(plain(entry)))
        return found

    def _judged(self, model: Any, x: FloatArray, T: FloatArray, mu: FloatArray) -> dict[str, Any]:
        """Errors of mu: each component in eV, all of them together in units of their spread."""
        gap = _mu(model, x, T) - mu
        with np.errstate(invalid="ignore"):
            each = np.sqrt(np.nanmean(np.square(gap / self._spread()), axis=1))
            rms = np.sqrt(np.nanmean(np.square(gap), axis=0))
        return {**_summary(each), "rms": rms.tolist()}

    # files ------------------------------------------------------------------------------------------------------------

    def _folder(self, number: int) -> Path:
        assert self.path is not None
        return self.path / "rounds" / f"{number:04d}"

    def _stored(self, number: int, name: str) -> list[dict[str, str]] | None:
        """Rows of a file of an earlier run of this, or None."""
        if self.path is None:
            return None
        path = self._folder(number) / name
        if not path.exists():
            if self._reading:
                raise self._damaged(number, name, "it is missing")
            return None
        try:
            with open(path, encoding="utf-8", newline="") as stream:
                rows = list(csv.DictReader(stream))
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise DataError(f"{path}: cannot be read ({error})") from error
        if any(None in row or None in row.values() for row in rows):
            raise self._damaged(number, name, "rows are not as long as the header")
        return rows

    def _damaged(self, number: int, name: str, why: str) -> DataError:
        return DataError(
            f"{self._folder(number) / name}: is damaged ({why}); put back the file as it was, or begin a new run in "
            "another folder"
        )

    def _columns(self, number: int, name: str, rows: list[dict[str, str]], columns: Sequence[str]) -> FloatArray:
        """Columns of a stored file, (n, columns)."""
        try:
            found = [[float(row[column]) for column in columns] for row in rows]
        except KeyError as error:
            raise self._damaged(number, name, f"it has no column {error}") from None
        except ValueError as error:
            raise self._damaged(number, name, str(error)) from None
        return np.array(found, dtype=np.float64).reshape(len(rows), len(columns))

    def _counts(
        self, number: int, name: str, rows: list[dict[str, str]], column: str, least: int
    ) -> npt.NDArray[np.int64]:
        """A column of whole numbers, (n,)."""
        values = self._columns(number, name, rows, [column])[:, 0]
        if not ((values == np.round(values)) & (values >= least) & (values < 2**53)).all():
            raise self._damaged(number, name, f"{column} must hold whole numbers from {least}")
        return values.astype(np.int64)

    def _write_csv(self, number: int, name: str, header: list[str], rows: Iterator[list[Any]]) -> None:
        if self.path is None:
            return
        folder = self._folder(number)
        folder.mkdir(parents=True, exist_ok=True)
        stream = text_io.StringIO()
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
        with replacing(folder / name, overwrite=True) as temporary:
            temporary.write_text(stream.getvalue(), encoding="utf-8")

    def about(self) -> dict[str, Any]:
        """What this is a run of: two runs with the same of it are the same run, however long each goes on."""
        planes = np.ascontiguousarray(np.concatenate([self.domain.A, self.domain.b[:, None]], axis=1))
        model = {
            key: value
            for key, value in self.model.get_params().items()
            if key not in ("n_jobs", "verbose", "random_state", "warm_start")
        }
        test = None
        if self.test is not None:
            test = hashlib.sha256(b"".join(np.ascontiguousarray(part).tobytes() for part in self.test)).hexdigest()
        # what is as it was before these settings came is not named: runs of then go on
        later: dict[str, Any] = {}
        if self.scores is not None:
            later["scores"] = self.scores.about()
        if self.tolerance:
            later["tolerance"] = self.tolerance
        if self.surplus != 4.0:
            later["surplus"] = self.surplus
        if self.plane is not None:
            later["plane"] = np.asarray(self.plane).tolist()
        if self.slices is not None:
            later["slices"] = [list(pair) for pair in self.slices]
        return {
            "domain": hashlib.sha256(planes.tobytes()).hexdigest(),
            "names": list(self.names),
            "oracle": self.oracle.fingerprint(),
            "model": {"kind": type(self.model).__name__, **{key: _named(value) for key, value in model.items()}},
            "criteria": dict(self.criteria or {}),
            "initial": self.initial,
            "per_round": self.per_round,
            "temperature": list(self.temperatures),
            "n_candidates": self.n_candidates,
            "min_distance": self.min_distance,
            "scale": self.lengths.tolist(),
            "dynamic": self.dynamic,
            "novelty": self.novelty,
            "conserved": list(self.conserved),
            "recency": self.recency,
            "tune_at": list(self.tune_at),
            "tune_trials": self.tune_trials,
            "tune_space": repr(self.tune_space),
            "test": test,
            "random_state": self.random_state,
            **later,
        }

    @contextmanager
    def _opened(self, shared: bool = False) -> Iterator[None]:
        """The folder is made, or is found to be of this run; nobody else may work in it meanwhile."""
        self.rows_, self.rounds_, self.model_, self._cold = Row.none(self.domain.dim), [], None, 0
        self._found, self._environments = {}, []
        if self.path is None:
            yield
            return
        about = json.loads(json.dumps(plain(self.about())))
        document = self.path / "run.json"
        try:
            if self.path.exists() and not self.path.is_dir():
                raise DataError(f"{self.path}: exists and is no folder; a run is a folder")
            if document.exists():
                if self._has_answers():
                    self._same(document, about)
            elif self.path.is_dir() and any(not entry.name.startswith(".") for entry in self.path.iterdir()):
                raise DataError(f"{self.path}: holds other things than a run; choose a new folder")
            if shared:
                yield
                return
            self.path.mkdir(parents=True, exist_ok=True)
            with _locked(self.path):
                self._begun(document, about)
                yield
        except OSError as error:
            raise DataError(f"{self.path}: cannot be used as a folder of a run ({error.strerror or error})") from error

    def _begun(self, document: Path, about: dict[str, Any]) -> None:
        """Write down what this is a run of. As long as nothing was answered that may change, and points with it."""
        if not document.exists() or (not self._has_answers() and _read_settings(document) != about):
            shutil.rmtree(self._folder(0), ignore_errors=True)
            write_json(document, about, overwrite=True)

    def _has_answers(self) -> bool:
        """Whether anything was answered so far."""
        first = self._folder(0)
        return (first / "results.csv").exists() or any(first.glob(f"answers/*/{ANSWER}"))

    def _same(self, document: Path, about: dict[str, Any]) -> None:
        before = _read_settings(document)
        other = [key for key in {**about, **before} if about.get(key) != before.get(key)]
        if other:
            raise DataError(
                f"{self.path}: is a run with another {' and '.join(sorted(other))}; a run goes on with the settings "
                "that it began with: choose a new folder, or the old settings"
            )


def _read_settings(document: Path) -> dict[str, Any]:
    """What a run says that it is a run of."""
    try:
        found = json.loads(document.read_text(encoding="utf-8"))
    except (ValueError, UnicodeDecodeError) as error:
        raise DataError(f"{document}: is damaged ({error})") from error
    if not isinstance(found, dict):
        raise DataError(f"{document}: is damaged: it holds no table of settings")
    return found


def _read_metrics(path: Path, number: int) -> dict[str, Any]:
    """What was told of a round that has ended."""
    try:
        entry = json.loads(path.read_text(encoding="utf-8"))
        by = {str(name): (int(found["points"]), found["error"]) for name, found in entry["by_criterion"].items()}
        numbers = [float(entry[name]) for name in ("temperature", "n_points", "n_known", "n_failed")]
        errors = [part[key] for part in (entry["new"], entry.get("test", entry["new"])) for key in ("median", "p95")]
        scored = entry.get("scores", {"n_scored": 0, "weights": "", "effective_sample_size": 0.0})
        float(scored["effective_sample_size"]), int(scored["n_scored"]), scored["weights"]
        sound = entry["round"] == number and all(
            value is None or math.isfinite(float(value)) for value in [*numbers, *errors, *(e for _, e in by.values())]
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError):
        sound = False
    if not sound:
        raise DataError(f"{path}: is damaged; delete it, and the same command makes it again from the rest")
    found_entry: dict[str, Any] = entry
    return found_entry


def _answered(values: FloatArray, q: int) -> npt.NDArray[np.bool_]:
    """Rows (n,) of x, mu, errors and F that tell something."""
    known = np.isfinite(values[:, q : 2 * q]).any(axis=1) | np.isfinite(values[:, -1])
    return np.asarray(np.isfinite(values[:, :q]).all(axis=1) & known)


def _same_temperature(T: FloatArray, temperature: float) -> npt.NDArray[np.bool_]:
    """Which of T (n,) are this one, but for how it was written."""
    return np.asarray(np.abs(T - temperature) <= 1e-6 * temperature)


def _count(kept: Any) -> int:
    """Environments of a point, in memory or on disk."""
    return 0 if kept is None else int(kept[1]) if isinstance(kept, tuple) else len(kept)


def _named(value: Any) -> str:
    """A setting of the model; a file by what is in it, wherever it lies."""
    if isinstance(value, os.PathLike):
        try:
            return f"file {hashlib.sha256(Path(value).read_bytes()).hexdigest()}"
        except OSError:
            return repr(value)
    return repr(value)


def _usual_where_unknown(error: FloatArray) -> FloatArray | None:
    """Errors (n, q), each component with the median of what is known of it where none, or zero, was told. None if
    nothing is known of a component: its noise is learned."""
    told = np.where(np.isfinite(error) & (error > 0.0), error, np.nan)
    if np.isnan(told).all(axis=0).any():
        return None
    return np.where(np.isnan(told), np.nanmedian(told, axis=0), told)


def _mu(model: Any, x: FloatArray, T: FloatArray) -> FloatArray:
    """Mean of the committee, (n, q); beyond what was trained on too, since that is what is asked."""
    q = x.shape[1]
    orders = [tuple(int(i == j) for j in range(q + 1)) for i in range(q)]
    found = model.derivatives(x[:, 0] if q == 1 else x, T, orders)
    return np.stack([np.asarray(found[order], dtype=np.float64) for order in orders], axis=1)


def _summary(errors: FloatArray) -> dict[str, float | None]:
    known = errors[np.isfinite(errors)]
    if not len(known):
        return {"median": None, "p95": None, "mean": None}
    median, tail = np.quantile(known, [0.5, 0.95])
    return {"median": float(median), "p95": float(tail), "mean": float(known.mean())}


def _table_of(result: Result, n: int, q: int) -> tuple[FloatArray, npt.NDArray[np.int64], list[str]]:
    """What an oracle said, as numbers: x, mu, errors, F; NaN where it said nothing."""
    nothing = np.full((n, q), np.nan)
    error = nothing if result.mu_error is None else np.asarray(result.mu_error, dtype=np.float64)
    energy = np.full(n, np.nan) if result.F is None else np.asarray(result.F, dtype=np.float64)
    x, mu = np.asarray(result.x, dtype=np.float64), np.asarray(result.mu, dtype=np.float64)
    for name, part, shape in (("x", x, (n, q)), ("mu", mu, (n, q)), ("mu_error", error, (n, q)), ("F", energy, (n,))):
        if part.shape != shape:
            raise DataError(f"the oracle answered {name} of shape {part.shape}, expected {shape}")
    index = getattr(result, "index", None)
    where = np.full(n, -1, np.int64) if index is None else np.asarray(index, dtype=np.int64)
    values = np.concatenate([x, mu, error, energy[:, None]], axis=1)
    return np.where(np.isfinite(values), values, np.nan), where, list(result.message)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One process at a time; the lock goes with the process."""
    with open(folder / ".lock", "a", encoding="utf-8") as stream:
        if not try_to_lock(stream.fileno()):
            raise DataError(f"{folder}: another process works on this run")
        yield


def errors_over_points(rounds: Sequence[Mapping[str, Any]], part: str = "test") -> dict[str, list[float]]:
    """Points known and errors after each round.

    Parameters
    ----------
    rounds : list of dict
        ``ActiveLearning.rounds_``.
    part : {"test", "train", "new"}

    Returns
    -------
    dict
        ``points``, ``median``, ``p95``, each as long as the rounds that have them.
    """
    have = [entry for entry in rounds if entry.get(part) and entry[part]["median"] is not None]
    return {
        "points": [entry["n_points"] for entry in have],
        "median": [entry[part]["median"] for entry in have],
        "p95": [entry[part]["p95"] if entry[part]["p95"] is not None else math.nan for entry in have],
    }
