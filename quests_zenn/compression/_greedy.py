"""The one loop of all ordered selections: again and again the candidate of the highest score, evaluated lazily.

A scorer knows upper bounds of what its candidates are worth, since what is chosen makes others worth less, never more.
Only candidates whose bound reaches the best score that is certain are brought up to date, the most promising first; the
winner is the one that a full evaluation of all candidates would find.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

from quests_zenn._core.jit import strict_kernel

Array = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

#: Scores that differ by less, nats, are equal: rounding must not choose between copies.
TIE = 1e-9

#: Candidates that are brought up to date together: at first so many, then four times as many each time.
_AT_ONCE = 8


class Scorer(Protocol):
    """What a structure is worth given those that were chosen.

    Attributes
    ----------
    values : (S,)
        Upper bounds of the worth of each structure, without what it is worth by itself. Infinite: like nothing chosen.
    """

    values: Array

    def add(self, structure: int) -> None:
        """A structure was chosen. Values may now be too high, never too low."""

    def exact(self) -> npt.NDArray[np.bool_]:
        """Whose values are exact (S,)."""

    def refresh(self, structures: Indices, floors: Array) -> None:
        """Lower values of some structures to what they are, or to bounds below their floors."""

    def state(self) -> dict[str, npt.NDArray[np.generic]]:
        """What `restore` needs to go on after the same structures were added."""

    def restore(self, state: dict[str, npt.NDArray[np.generic]]) -> None:
        """Take up a state."""


@strict_kernel
def survey(values, own, first, allowed, exact, tie, stale):  # type: ignore[no-untyped-def]
    """Winner so far (-1: none), the score that others must reach, and the number of bounds that do, put into `stale`.

    Infinite values count more than finite ones, and among each other by `first`.
    """
    unlike, best, best_first = False, -np.inf, -np.inf
    for s in range(len(values)):
        if allowed[s] and exact[s]:
            if values[s] == np.inf:
                unlike = True
                best_first = max(best_first, first[s])
            else:
                best = max(best, values[s] + own[s])
    winner, count = -1, 0
    for s in range(len(values)):
        if not allowed[s]:
            continue
        if values[s] == np.inf:
            reaches = not unlike or first[s] >= best_first - tie
        else:
            reaches = not unlike and values[s] + own[s] >= best - tie
        if not reaches:
            continue
        if not exact[s]:
            stale[count] = s
            count += 1
        elif winner < 0:
            winner = s
    return winner, np.inf if unlike else best - tie, count


class Greedy:
    """Candidates in the order in which they are chosen.

    Parameters
    ----------
    scorer : Scorer
    own : (S,)
        What each candidate is worth by itself, added to its value.
    first : (S,)
        What ranks candidates that are like nothing chosen.
    groups : (S,) or None
        Whole numbers from 0; the next candidate comes from the group of which least was chosen.
    targets : (groups,) or None
        How much each group is to get relative to the others.
    amounts : (S,)
        What choosing a candidate counts as in its group.
    """

    def __init__(
        self, scorer: Scorer, own: Array, first: Array, groups: Indices | None, targets: Array | None, amounts: Array
    ) -> None:
        self.scorer, self.own, self.first = scorer, own, first
        self.remaining = np.ones(len(own), bool)
        self.chosen: list[int] = []
        self.scores: list[float] = []
        # without groups, all are in one
        self._groups = np.zeros(len(own), np.int64) if groups is None else groups
        self._targets = np.ones(1) if targets is None else targets
        self._given, self._amounts = np.zeros(len(self._targets)), amounts
        self._stale = np.empty(len(own), np.int64)

    def choose(self, structure: int, score: float) -> None:
        """Count a structure as chosen."""
        self.remaining[structure] = False
        self.chosen.append(structure)
        self.scores.append(score)
        self.scorer.add(structure)
        self._given[self._groups[structure]] += self._amounts[structure]

    def best(self, fits: npt.NDArray[np.bool_] | None = None) -> int:
        """The next candidate, among those that fit; -1 where there is none."""
        allowed = self.remaining if fits is None else self.remaining & fits
        left = np.bincount(self._groups[allowed], minlength=len(self._targets)) > 0
        if not left.any():
            return -1
        share = np.where(left, self._given / self._targets, np.inf)
        allowed = allowed & (self._groups == int(np.argmin(share)))
        at_once = _AT_ONCE
        while True:
            values = self.scorer.values
            winner, reach, count = survey(values, self.own, self.first, allowed, self.scorer.exact(), TIE, self._stale)
            if count == 0:
                return int(winner)
            stale = self._stale[:count].copy()
            keys = values[stale] + self.own[stale]
            never = keys == np.inf
            if never.any():
                stale, floor = stale[never], np.inf
            elif count > at_once:
                order = np.argpartition(-keys, at_once)
                floor = max(reach, float(keys[order[at_once]]))
                stale = np.sort(stale[order[:at_once]])
            else:
                floor = reach
            # a trifle lower, so that rounding leaves nobody out, of huge scores either
            floors = floor - self.own[stale] - TIE
            floors -= 4.0 * np.spacing(np.abs(np.clip(floors, -1e300, 1e300)))
            if reach == -np.inf and at_once > _AT_ONCE:
                # all fall below their floors: one that is certain, the most promising, shows how far the others matter
                floors[np.argmax(values[stale] + self.own[stale])] = -np.inf
            before = values[stale].copy()
            self.scorer.refresh(stale, floors)
            if np.array_equal(before, self.scorer.values[stale]) and not self.scorer.exact()[stale].any():
                raise ValueError("scores are so large that their differences are lost; choose a larger bandwidth")
            at_once *= 4
