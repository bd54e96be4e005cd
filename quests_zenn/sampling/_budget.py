"""How many points each criterion may buy: more for those whose points taught more."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from quests_zenn._core.checks import DataError, finite, positive, whole_number

FORMAT = 1


class Budget:
    """Budgets of criteria, which follow what their points brought.

    The worth of a criterion is the mean error of its points, predicted against measured before the model was trained on
    them, over the mean error of all points. A point that was predicted well taught nothing. Older rounds count less,
    and `prior` points of worth 1 are added to each criterion, so that few points decide little.

    Parameters
    ----------
    weights : mapping of str to float
        Share of each criterion as long as nothing is known, on any scale. Those of weight zero are left out.
    floor : float
        Fraction of its first share that each criterion keeps, however little its points bring, from 0 to 1. With 1
        budgets never change.
    discount : float
        What a round counts relative to the one after it, from 0 to 1.
    prior : float
        Points of worth 1 that each criterion is thought to have bought before.

    Raises
    ------
    ValueError
        If a number makes no sense, or no weight is positive.

    Notes
    -----
    Fractions of points are carried over: a criterion whose share is a third of a point buys one in every third round.
    """

    def __init__(
        self, weights: Mapping[str, float], *, floor: float = 0.25, discount: float = 0.7, prior: float = 10.0
    ) -> None:
        given = {str(name): finite(value, f"the weight of {name}") for name, value in weights.items()}
        for name, value in given.items():
            if value < 0.0:
                raise ValueError(f"the weight of {name} must not be negative, got {value!r}")
        whole = sum(given.values())
        if not (whole > 0.0 and math.isfinite(whole)):
            raise ValueError("budgets need one criterion or more of positive weight")
        # in the order of names: what a run does must not hang on the order of a table
        self.weights = {name: given[name] / whole for name in sorted(given) if given[name] > 0.0}
        self.floor = _fraction(floor, "floor")
        self.discount = _fraction(discount, "discount")
        self.prior = positive(prior, "prior")
        self.rounds = 0
        self._points = dict.fromkeys(self.weights, 0.0)
        self._errors = dict.fromkeys(self.weights, 0.0)
        self._owed = dict.fromkeys(self.weights, 0.0)

    @property
    def active(self) -> list[str]:
        """Names of the criteria that have a share, sorted."""
        return list(self.weights)

    def worth(self) -> dict[str, float]:
        """Error of the points of each criterion before training on them, over that of all points; 1 where unknown."""
        points, errors = sum(self._points.values()), sum(self._errors.values())
        if not (points > 0.0 and errors > 0.0):
            return dict.fromkeys(self.weights, 1.0)
        mean = errors / points
        return {
            name: (self._errors[name] / mean + self.prior) / (self._points[name] + self.prior) for name in self.weights
        }

    def shares(self) -> dict[str, float]:
        """Share of each criterion in the next round; they sum to 1."""
        worth = self.worth()
        pull = {name: weight * worth[name] for name, weight in self.weights.items()}
        whole = sum(pull.values())
        return {
            name: self.floor * weight + (1.0 - self.floor) * pull[name] / whole for name, weight in self.weights.items()
        }

    def split(self, n: int) -> dict[str, int]:
        """Points that each criterion may buy in the next round.

        Parameters
        ----------
        n : int
            Points to buy in all.

        Returns
        -------
        dict of whole numbers by criterion that sum to `n`. Asking changes nothing; see `learn`.

        Raises
        ------
        ValueError
            If `n` is no whole number from 0.
        """
        whole_number(n, "n", 0)
        left = {name: n * share + self._owed[name] for name, share in self.shares().items()}
        given = dict.fromkeys(self.weights, 0)
        for _ in range(n):
            # the first name wins a tie, and rounding must not break one
            most = max(left.values())
            name = next(name for name, value in left.items() if value >= most - 1e-9)
            given[name] += 1
            left[name] -= 1.0
        return given

    def learn(self, found: Mapping[str, Mapping[str, Any]]) -> None:
        """Take note of what the points of a round brought.

        Parameters
        ----------
        found : mapping
            For each criterion ``{"points": n, "error": e}``: how many points it bought, and the mean of
            ``|predicted - measured mu|`` at them before training on them; None or NaN where no error is known. Criteria
            that have no share are passed over.

        Raises
        ------
        DataError
            If a number is missing or makes no sense.
        """
        read: dict[str, tuple[int, float | None]] = {}
        for name, entry in found.items():
            try:
                points = whole_number(entry["points"], "points", 0)
                error = None if entry["error"] is None else float(entry["error"])
            except (KeyError, TypeError, ValueError) as problem:
                raise DataError(f"what criterion {name!r} brought is no pair of points and error: {problem}") from None
            if error is not None and (error < 0.0 or math.isinf(error)):
                raise DataError(f"the error of criterion {name!r} must be a number from 0, got {error!r}")
            read[name] = points, None if error is None or math.isnan(error) else error
        # what was asked of each criterion; where it had no point to offer, nothing is owed to it
        n = sum(points for points, _ in read.values())
        given, shares = self.split(n), self.shares()
        for name in self.weights:
            self._owed[name] += n * shares[name] - given[name]
            points, error = read.get(name, (0, None))
            self._points[name] *= self.discount
            self._errors[name] *= self.discount
            if error is not None:
                self._points[name] += points
                self._errors[name] += points * error
        self.rounds += 1

    def state(self) -> dict[str, Any]:
        """All that this budget is, as plain numbers fit for JSON."""
        return {
            "format": FORMAT,
            "weights": dict(self.weights),
            "floor": self.floor,
            "discount": self.discount,
            "prior": self.prior,
            "rounds": self.rounds,
            "points": dict(self._points),
            "errors": dict(self._errors),
            "owed": dict(self._owed),
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Budget:
        """The budget that `state` describes.

        Raises
        ------
        DataError
            If it describes none.
        """
        try:
            if state["format"] != FORMAT:
                raise ValueError(f"its format is {state['format']!r}, and {FORMAT} is known")
            budget = cls(state["weights"], floor=state["floor"], discount=state["discount"], prior=state["prior"])
            # weights were shares already: dividing again would change their last digit, and a resumed run with it
            budget.weights = {name: float(state["weights"][name]) for name in budget.weights}
            budget.rounds = whole_number(state["rounds"], "rounds", 0)
            for kept, name in ((budget._points, "points"), (budget._errors, "errors"), (budget._owed, "owed")):
                kept.update({key: finite(state[name][key], name) for key in budget.weights})
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DataError(f"this is not the state of a budget: {error}") from None
        return budget


def _fraction(value: float, name: str) -> float:
    number = finite(value, name)
    if not 0.0 <= number <= 1.0:
        raise ValueError(f"{name} must lie between 0 and 1, got {value!r}")
    return number
