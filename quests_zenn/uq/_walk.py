"""One Monte Carlo walk of a structure towards a target dH."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from quests_zenn._core.parallel import Workers
from quests_zenn.descriptors import Environments, describe
from quests_zenn.uq._guards import Box, Distances, find_close

if TYPE_CHECKING:
    from quests_zenn.uq.reference import Reference

Array = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

#: Kinds of moves.
DISPLACE, SWAP, VOLUME, SHEAR = range(4)

#: Decimals (Å) of the positions visited: those of extended XYZ, so that a file holds what was judged.
DECIMALS = 8

#: Points of the statistic along a walk that are kept.
TRACE_POINTS = 200

#: A step size is adapted within these factors of the one asked for. Long steps reach the same dH with fewer moves, at
#: the price of more energy (silicon: twice as much at ten times the step), so that they may not grow far.
SHORTEST, LONGEST = 0.1, 3.0


@dataclass(frozen=True)
class Start:
    """A structure to start from.

    Attributes
    ----------
    positions : (n, 3), Å; cell : (3, 3), Å; pbc : (3,) bool; numbers : (n,)
    movable : (m,)
        Atoms that may move.
    asked : (a,)
        Atoms whose dH counts.
    label : str
    """

    positions: Array
    cell: Array
    pbc: npt.NDArray[np.bool_]
    numbers: Indices
    movable: Indices
    asked: Indices
    label: str

    def __len__(self) -> int:
        return len(self.numbers)


@dataclass(frozen=True)
class Rules:
    """What a walk seeks, how it moves, and what it must not do. See `quests_zenn.uq.generate`."""

    target: float
    width: float
    statistic: str
    quantile: float
    temperature: float
    steps: int | None
    linger: int
    burn_in: int | None
    step_size: float
    atoms_per_move: int
    acceptance: float
    swaps: float
    volume_moves: float
    shear_moves: float
    strain: float
    distances: Distances
    volume: tuple[float, float] | None
    ceiling: float
    apart: float

    def of(self, dh: Array) -> float:
        """The statistic of the dH asked about, nats."""
        if self.statistic == "mean":
            return float(dh.mean())
        if self.statistic == "max":
            return float(dh.max())
        place = max(0, math.ceil(self.quantile * len(dh) - 1e-9) - 1)
        return float(np.partition(dh, place)[place])

    def energy(self, value: float) -> float:
        """What the walk makes small: squared distance from the target in widths."""
        return ((value - self.target) / self.width) ** 2

    def near(self, value: float) -> bool:
        """Whether a value of the statistic is as close to the target as asked."""
        return abs(value - self.target) <= self.width

    def steps_for(self, start: Start) -> int:
        """Most moves of a walk: by default ten for each atom that may move, and at least 200."""
        if self.steps is not None:
            return self.steps
        return max(200, -(-10 * len(start.movable) // min(self.atoms_per_move, len(start.movable))))


@dataclass(frozen=True)
class Walk:
    """Where a walk ended, and how it went.

    Attributes
    ----------
    generation, number : int
        Counted from 1 and from 0.
    positions : (n, 3), Å; cell : (3, 3), Å
        The last state whose statistic was near the target; if there is none, the nearest.
    value : float
        Its statistic, nats, given what was known when the walk began.
    moves : int
    acceptance : float
        Share of moves accepted.
    step_size, strain : float
        As adapted; Å, and 1.
    arrived : int
        Number of moves after which the statistic was first near the target; -1 if it never was.
    trace : (p, 2)
        Numbers of moves done, and the statistic then.
    """

    generation: int
    number: int
    positions: Array
    cell: Array
    value: float
    moves: int
    acceptance: float
    step_size: float
    strain: float
    arrived: int
    trace: Array

    def entry(self) -> dict[str, Any]:
        """In terms of JSON."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def from_entry(cls, entry: dict[str, Any]) -> Walk:
        """From what `entry` gave."""
        arrays = {name: np.array(entry[name], np.float64) for name in ("positions", "cell", "trace")}
        return cls(**{**entry, **arrays})


class Stopped(Exception):
    """A walk was asked to stop."""


@dataclass(frozen=True)
class _State:
    positions: Array
    cell: Array
    box: Box
    env: Environments
    dh: Array
    value: float
    energy: float


class Walker:
    """Walks from one start, with one stream of random numbers.

    Parameters
    ----------
    start : Start
    reference : Reference
        What is known. It must have scored once, so that nothing of it is made while walkers share it.
    rules : Rules
    seed : numpy.random.SeedSequence
    """

    def __init__(self, start: Start, reference: Reference, rules: Rules, seed: np.random.SeedSequence) -> None:
        self.start, self.reference, self.rules = start, reference, rules
        self.rng = np.random.default_rng(seed)
        self.codes, self.limits2 = rules.distances.table(start.numbers)
        self.step, self.strain = rules.step_size, rules.strain
        self.n_adapted = {DISPLACE: 0, VOLUME: 0}
        self._found = np.zeros(3)

    def walk(
        self,
        generation: int,
        number: int,
        workers: Workers,
        *,
        progress: Callable[[int], None] | None = None,
        stopped: Callable[[], bool] = lambda: False,
    ) -> Walk:
        """All moves of a walk.

        Raises
        ------
        Stopped
            As soon as `stopped` says so.
        """
        rules = self.rules
        most = rules.steps_for(self.start)
        burn_in = most // 2 if rules.burn_in is None else rules.burn_in
        self.workers = workers
        state = kept = self._first()
        arrived = 0 if rules.near(state.value) else -1
        done = accepted = 0
        values = [state.value]
        while done < most and (arrived < 0 or done < arrived + rules.linger):
            new, kind = self._move(state)
            done += 1
            if new is not None:
                state = new
                accepted += 1
                if rules.near(state.value):  # of the states near the target the last
                    arrived = done if arrived < 0 else arrived
                    kept = state
                elif arrived < 0 and state.energy < kept.energy:  # else the nearest
                    kept = state
            if done <= burn_in:
                self._adapt(kind, new is not None)
            values.append(state.value)
            if stopped():
                raise Stopped
            if progress is not None:
                progress(1)
        points = np.unique(np.linspace(0, done, TRACE_POINTS + 1).round().astype(np.int64))
        trace = np.column_stack([points, np.array(values)[points]])
        if progress is not None:
            progress(most - done)  # it need not go on
        return Walk(
            generation, number, kept.positions, kept.cell, kept.value, done, accepted / max(1, done), self.step,
            self.strain, arrived, trace,
        )  # fmt: skip

    def _first(self) -> _State:
        start = self.start
        box = Box.of(start.cell, start.pbc, self.rules.distances.farthest, start.label)
        env = self._describe(start.positions, start.cell)
        dh = self.reference.score(env, workers=self.workers)
        value = self.rules.of(dh[start.asked])
        return _State(start.positions, start.cell, box, env, dh, value, self.rules.energy(value))

    def _describe(self, positions: Array, cell: Array) -> Environments:
        known, start = self.reference, self.start
        frame = (positions, cell, start.pbc, start.numbers)
        return describe(frame, known.k, known.cutoff, known.species, elements=known.elements, jobs=self.workers.jobs)

    def _move(self, old: _State) -> tuple[_State | None, int]:
        """The state after one more move, or None where the move is refused; and the kind of move."""
        kind = self._kind()
        positions, box, moved = self._propose(kind, old)
        # drawn whether it is needed or not: streams do not depend on what guards say
        heat = -self.rules.temperature * math.log1p(-self.rng.random())
        if kind == VOLUME and not self._volume_allowed(box):
            return None, kind
        if find_close(
            positions, moved, self.codes, self.limits2, box.lattice, box.inverse, box.periodic, box.reach, self._found
        ):
            return None, kind
        env = self._describe(positions, box.cell)
        dh = self._score(env, old)
        value = self.rules.of(dh[self.start.asked])
        energy = self.rules.energy(value)
        top = max(self.rules.ceiling, float(old.dh.max()))  # what was above it already may not rise
        if not energy <= old.energy + heat or dh.max() > top:
            return None, kind
        return _State(positions, box.cell, box, env, dh, value, energy), kind

    def _score(self, env: Environments, old: _State) -> Array:
        """dH of all atoms: only environments that changed are summed again."""
        rows = np.flatnonzero((env.x != old.env.x).any(axis=1))
        dh = old.dh.copy()
        if len(rows):
            changed = replace(
                env, x=env.x[rows], numbers=env.numbers[rows], tied=env.tied[rows], incomplete=env.incomplete[rows],
                frame_offsets=np.array([0, len(rows)]),
            )  # fmt: skip
            dh[rows] = self.reference.score(changed, workers=self.workers)
        return dh

    def _kind(self) -> int:
        rules, chance = self.rules, self.rng.random()
        for kind, share in ((SWAP, rules.swaps), (VOLUME, rules.volume_moves), (SHEAR, rules.shear_moves)):
            if chance < share:
                return kind
            chance -= share
        return DISPLACE

    def _propose(self, kind: int, old: _State) -> tuple[Array, Box, Indices]:
        """New positions and box, and the atoms whose distances change. What is there already is not touched."""
        rng, movable = self.rng, self.start.movable
        if kind in (VOLUME, SHEAR):
            strain = np.eye(3) * math.exp(self.strain * rng.normal() / 3.0) if kind == VOLUME else self._shear()
            cell = old.cell @ strain
            box = Box.of(cell, self.start.pbc, self.rules.distances.farthest, self.start.label)
            return np.round(old.positions @ strain, DECIMALS), box, np.arange(len(old.positions))
        positions = old.positions.copy()
        if kind == SWAP:
            i = int(rng.choice(movable))
            j = int(rng.choice(movable[self.codes[movable] != self.codes[i]]))
            moved = np.array([i, j])
            positions[moved] = old.positions[moved[::-1]]
        else:
            number = min(self.rules.atoms_per_move, len(movable))
            moved = rng.choice(movable, number, replace=False)
            steps = self.step * rng.normal(size=(number, 3))
            positions[moved] = np.round(positions[moved] + steps, DECIMALS)
        return positions, old.box, moved

    def _shear(self) -> Array:
        """A symmetric change of shape that keeps the volume: the exponential of a matrix without trace."""
        random = self.rng.normal(size=(3, 3))
        symmetric = 0.5 * (random + random.T)
        values, vectors = np.linalg.eigh(symmetric - np.eye(3) * np.trace(symmetric) / 3.0)
        return np.array((vectors * np.exp(self.strain * values)) @ vectors.T)

    def _volume_allowed(self, box: Box) -> bool:
        if self.rules.volume is None:
            return True
        low, high = self.rules.volume
        return low <= abs(float(np.linalg.det(box.cell))) / len(self.start) <= high

    def _adapt(self, kind: int, accepted: bool) -> None:
        """Longer steps where more moves are accepted than wanted, shorter ones where fewer are.

        The changes fade with the number of moves (Robbins and Monro, Ann. Math. Stat. 22 (1951) 400).
        """
        if kind == SWAP:
            return
        kind = VOLUME if kind == SHEAR else kind
        gain = 0.5 / (1.0 + self.n_adapted[kind] / 20.0) ** 0.6
        self.n_adapted[kind] += 1
        factor = math.exp(gain * (accepted - self.rules.acceptance))
        if kind == DISPLACE:
            self.step = _clipped(self.step * factor, self.rules.step_size)
        else:
            self.strain = _clipped(self.strain * factor, self.rules.strain)


def _clipped(value: float, around: float) -> float:
    return min(max(value, SHORTEST * around), LONGEST * around)
