"""A free energy known by thought alone, in place of a fitted one: a polynomial in volume and temperature."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from quests_zenn import DataError

GPA = 160.2176634

#: F = A (T - TC) w^2 + B w^4 - (P0 + S0 T) w - D T^2 / 2 with w = V - V0, in eV, Å3, K.
V0, TC, A, B, P0, S0, D = 150.0, 160.0, 1e-5, 1e-4, 0.04, 2e-6, 2e-5

#: What the members add to TC.
SHIFTS = (-2.0, 0.0, 2.0)

#: Of the instability: F_VV = F_VVV = 0 at w = 0 and T = TC.
CRITICAL_PRESSURE = (P0 + S0 * TC) * GPA


def falling(power: int, order: int) -> int:
    return math.prod(range(power - order + 1, power + 1)) if order <= power else 0


def derivative(x: Any, T: Any, order: tuple[int, int], shift: float = 0.0) -> Any:
    """d^(i+j) F / dV^i dT^j."""
    i, j = order
    w = x - V0
    terms = [(A, 2, 1), (-A * (TC + shift), 2, 0), (B, 4, 0), (-P0, 1, 0), (-S0, 1, 1), (-D / 2, 0, 2)]
    total = np.zeros(np.broadcast(x, T).shape)
    for factor, p, q in terms:
        if i <= p and j <= q:
            total = total + factor * falling(p, i) * falling(q, j) * w ** (p - i) * T ** (q - j)
    return total


class StandIn:
    """The methods of a model that commands use; `fit` looks at nothing."""

    fitted: ClassVar[list[dict[str, Any]]] = []
    known: ClassVar[set[str]] = {"F", "S", "U", "P", "C_V", "B", "mu"}

    def __init__(self, **options: Any) -> None:
        self.options = options
        self.coordinate, self.n_atoms = options.get("coordinate", "volume"), options.get("n_atoms", 12)
        self.n_members_, self.known_, self.coordinate_name_ = len(SHIFTS), self.known, "volume"
        self.relative_to_ = "F of the table"
        self.x_range_, self.T_range_ = np.array([[144.0, 156.0]]), np.array([5.0, 400.0])
        self.report_: dict[str, Any] = {}

    # --- as a function ------------------------------------------------------------------------------------------------

    def derivatives(self, x: Any, T: Any, orders: Any, members: bool = False) -> dict[tuple[int, int], Any]:
        x, T = np.asarray(x, np.float64), np.asarray(T, np.float64)
        if members:
            return {order: np.array([derivative(x, T, order, shift) for shift in SHIFTS]) for order in orders}
        return {order: derivative(x, T, order) for order in orders}

    def _told(self, function: Any, std: bool) -> Any:
        values = np.array([function(lambda i, j, s=shift: self._at(i, j, s)) for shift in SHIFTS])
        spread = values.std(axis=0, ddof=1) if len(SHIFTS) > 1 else np.full(values.shape[1:], np.nan)
        return (values.mean(axis=0), spread) if std else values.mean(axis=0)

    def _at(self, i: int, j: int, shift: float) -> Any:
        return derivative(*self.point, (i, j), shift)

    def _quantity(self, x: Any, T: Any, std: bool, function: Any) -> Any:
        self.point = np.broadcast_arrays(np.asarray(x, np.float64), np.asarray(T, np.float64))
        return self._told(function, std)

    def free_energy(self, x: Any, T: Any, std: bool = False) -> Any:
        if self.coordinate == "order":
            values = np.zeros(len(np.atleast_1d(T)))
            return (values, values) if std else values
        return self._quantity(x, T, std, lambda d: d(0, 0))

    def pressure(self, x: Any, T: Any, std: bool = False) -> Any:
        return self._quantity(x, T, std, lambda d: -GPA * d(1, 0))

    def entropy(self, x: Any, T: Any, std: bool = False) -> Any:
        if "S" not in self.known_:
            raise ValueError("entropies are not fixed by densities alone")
        return self._quantity(x, T, std, lambda d: -d(0, 1))

    def internal_energy(self, x: Any, T: Any, std: bool = False) -> Any:
        if "U" not in self.known_:
            raise ValueError("energies are not fixed by densities alone")
        return self._quantity(x, T, std, lambda d: d(0, 0) - self.point[1] * d(0, 1))

    def chemical_potential(self, x: Any, T: Any, std: bool = False) -> Any:
        values = np.zeros_like(np.asarray(x, np.float64))
        return (values, values) if std else values

    def probabilities(self, x: Any, T: Any) -> Any:
        """Configuration 1 rules below V0, 0 above, 2 nowhere."""
        first = np.asarray(x, np.float64).reshape(len(np.atleast_1d(T)), -1)[:, 0]
        low = 0.9 / (1.0 + np.exp(first - V0))
        return np.column_stack([0.9 - low, low, np.full(len(low), 0.1)]) / 1.0

    def extrapolates(self, x: Any, T: Any) -> Any:
        x, T = np.broadcast_arrays(np.asarray(x, np.float64), np.asarray(T, np.float64))
        (low, high), (cold, hot) = self.x_range_[0], self.T_range_
        return ~((low <= x) & (x <= high) & (cold <= T) & (hot >= T))

    # --- as a model ---------------------------------------------------------------------------------------------------

    def fit(self, x: Any, T: Any, *, progress: Any, checkpoint: Any, **rest: Any) -> StandIn:
        self.fitted.append({"x": x, "T": T, "checkpoint": checkpoint, "options": self.options, **rest})
        progress("adam", 1)
        checkpoint.write_text("half of it")
        progress("fit", 1)
        self.x_range_ = np.array([[c.min(), c.max()] for c in np.asarray(x).reshape(len(x), -1).T])
        self.T_range_ = np.array([T.min(), T.max()])
        names = [name for name in ("F", "U", "P", "S", "mu", "density") if rest.get(name) is not None]
        self.report_ = report(names, len(T))
        return self

    def save(self, path: Any, overwrite: bool = False) -> None:
        path = Path(path)
        if path.exists() and not overwrite:
            raise DataError(f"{path}: exists")
        path.mkdir(exist_ok=True)
        (path / "model.safetensors").write_bytes(b"numbers")
        (path / "model.json").write_text(json.dumps({"n_atoms": self.n_atoms}), encoding="utf-8")


def report(names: list[str], n: int) -> dict[str, Any]:
    """What a model tells of its fit."""
    told = {"n": n, "rms": 0.0005, "chi2": 1.25, "rms_validation": 0.00045, "noise": 0.00025}
    targets = {name: dict(told) for name in names}
    return {"targets": targets, "seconds": 0.5, "iterations": 40, "converged": True, "configurations": [{"share": 1.0}]}
