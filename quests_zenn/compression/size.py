"""How much to keep, as people say it."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from quests_zenn._core.checks import one_of, positive

KINDS = ("structures", "environments", "cost", "auto", "overlap", "max_loss")

_UNITS = {"": "structures", "env": "environments", "cost": "cost"}
_TEXT = re.compile(r"([0-9.eE+-]+)\s*(env|cost|)")

_FORMS = "a share (0.1), a number of structures (100), of environments (5000env), a budget (3e5cost), or auto"


@dataclass(frozen=True)
class Size:
    """How much of a data set to keep.

    Parameters
    ----------
    kind : {"structures", "environments", "cost", "auto", "overlap", "max_loss"}
        What is counted; or that the subset of largest H D is wanted, the shortest that covers a share of all
        environments, or the shortest that loses no more than so many nats of diversity.
    value : float
        How much of it; of no meaning for ``auto``.
    share : bool
        Whether the value is a share of what there is; only of structures, environments and cost.

    Raises
    ------
    ValueError
        If the kind is not known, or the value is out of range.
    """

    kind: str
    value: float = math.nan
    share: bool = False

    def __post_init__(self) -> None:
        one_of(self.kind, "kind", KINDS)
        if self.kind == "auto":
            return
        if isinstance(self.value, bool | np.bool_):
            raise ValueError(f"a size in {self.kind} must be a number, got {self.value}")
        if self.kind == "max_loss" and self.value == 0:
            object.__setattr__(self, "value", 0.0)
        else:
            object.__setattr__(self, "value", positive(self.value, f"a size in {self.kind}"))
        if (self.share or self.kind == "overlap") and self.value > 1.0:
            what = "overlap" if self.kind == "overlap" else "share"
            raise ValueError(f"the {what} must be at most 1, got {self.value:g}")
        if self.kind in ("structures", "environments") and not self.share and self.value != int(self.value):
            raise ValueError(f"the number of {self.kind} must be whole, got {self.value:g}")
        if self.share and self.kind not in _UNITS.values():
            raise ValueError(f"a size in {self.kind} is no share")

    @classmethod
    def parse(cls, size: Any) -> Size:
        """A size from a number or a text.

        Parameters
        ----------
        size : int, float, str or Size
            An int counts structures, a float up to 1 is a share of them. Texts: ``0.1`` and ``1.0`` are shares, ``100``
            and ``1`` count structures, ``5000env`` counts environments and ``0.1env`` is a share of them, ``3e5cost``
            is a budget and ``0.1cost`` a share of what all would cost, ``auto`` is the subset of largest H D.

        Raises
        ------
        ValueError
            If it is none of these.
        """
        if isinstance(size, Size):
            return size
        if isinstance(size, bool | np.bool_):
            raise ValueError(f"the size must be {_FORMS}; got {size!r}")
        if isinstance(size, int | np.integer):
            return cls("structures", int(size))
        if isinstance(size, float | np.floating):
            if not 0.0 < size <= 1.0:
                raise ValueError(f"as a share of all structures, the size must lie in (0, 1], got {size:g}")
            return cls("structures", float(size), share=True)
        text = str(size).strip()
        if text == "auto":
            return cls("auto")
        found = _TEXT.fullmatch(text)
        try:
            if found is None:
                raise ValueError
            value = float(found[1])
        except ValueError:
            raise ValueError(f"the size must be {_FORMS}; got {text!r}") from None
        kind = _UNITS[found[2]]
        share = 0.0 < value <= 1.0 and not found[1].isdigit()
        if not share and kind != "cost" and math.isfinite(value) and value != int(value):
            raise ValueError(f"a share must lie in (0, 1] and a number be whole, got {text!r}")
        return cls(kind, value, share)

    def __str__(self) -> str:
        if self.kind == "auto":
            return "auto"
        number = repr(self.value) if self.share or self.value != int(self.value) else f"{self.value:.0f}"
        unit = {"environments": "env", "cost": "cost", "overlap": " overlap", "max_loss": " nats of loss"}
        return number + unit.get(self.kind, "")

    def of(self, total: float) -> float:
        """The value in units of what is counted, where there is `total` of it; structures are rounded up."""
        if not self.share:
            return self.value
        if self.kind == "structures":
            return float(max(1, math.ceil(self.value * total - 1e-9)))  # 0.1 of 30 is 3, whatever rounding says
        return float(self.value * total)
