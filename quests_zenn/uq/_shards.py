"""Environments that can resemble each other: a packed set, and a few rows that came later."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from quests_zenn._core.parallel import Workers
from quests_zenn.entropy._decide import Decider
from quests_zenn.entropy._engine import PackedReference, log_sums_against

FloatArray = npt.NDArray[np.floating]

#: Rows that came later, as a share of the packed ones, from which on all are packed again.
REPACK = 0.1


class Shard:
    """Rows (n, d) at one bandwidth; whatever is packed is packed when it is first needed."""

    def __init__(self, x: FloatArray, h: float) -> None:
        self.x, self.h = x, h
        self.later: list[FloatArray] = []
        self._packed: dict[str, PackedReference] = {}
        self._decider: Decider | None = None

    def copy(self) -> Shard:
        """A shard that grows on its own; what is packed is shared."""
        other = object.__new__(Shard)
        other.__dict__.update(self.__dict__)
        other.later, other._packed = list(self.later), dict(self._packed)
        return other

    def append(self, x: FloatArray) -> None:
        """Add rows."""
        self.later.append(x)
        if sum(map(len, self.later)) > max(1000.0, REPACK * len(self.x)):
            self.x, self.later = np.concatenate([self.x, *self.later]), []
            self._packed, self._decider = {}, None

    def log_sums(self, y: FloatArray, workers: Workers) -> npt.NDArray[np.float64]:
        """ln p of every row of y (n,), in float64."""
        return np.logaddexp(self._pack("float64", workers).log_sums(y, workers)[0], self._log_sums_later(y, workers))

    def _pack(self, precision: str, workers: Workers) -> PackedReference:
        if precision not in self._packed:
            h = np.array([self.h])
            self._packed[precision] = PackedReference.pack(self.x, h, None, precision, workers, 0)
        return self._packed[precision]

    def _log_sums_later(self, y: FloatArray, workers: Workers) -> npt.NDArray[np.float64]:
        if not self.later:
            return np.full(len(y), -math.inf)
        if len(self.later) > 1:
            self.later = [np.concatenate(self.later)]
        return log_sums_against(y, self.later[0], np.array([self.h]), workers=workers)[0]

    def is_novel(self, y: FloatArray, thresholds: npt.NDArray[np.float64], workers: Workers) -> npt.NDArray[np.bool_]:
        """Whether -ln p of every row of y reaches its threshold."""
        if self._decider is None:
            self._decider = Decider(self.x, self.h, workers)
        log_limits = 0.0 - thresholds
        if self.later:  # what these rows add need not be found among the others
            added = self._log_sums_later(y, workers)
            with np.errstate(divide="ignore", invalid="ignore"):
                rest = log_limits + np.log1p(-np.exp(np.minimum(added - log_limits, 0.0)))
            log_limits = np.where(added > log_limits, -np.inf, rest)
        return ~self._decider.exceeds(y, log_limits, workers, self._pack)
