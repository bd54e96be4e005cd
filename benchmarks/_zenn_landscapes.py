"""Landscapes whose free energy is known, learned from densities at some temperatures and asked at others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from _zenn_fe3pt import Row, Size, Store, rms, rounded
from numpy.polynomial import polynomial

from quests_zenn.zenn import DNN, ZENN

Array = np.ndarray

#: k_B: energies and temperatures are in reduced units.
BOLTZMANN = 1.0

#: Points of the grid of training, and of the one that is asked about.
TRAINED, ASKED = 81, 961

#: Errors of F and its derivatives count where F lies less than so many k_B T above its lowest value: elsewhere the
#: density, exp(-10) of its largest value or less, says nothing.
DEPTH = 10.0

#: Temperatures at which wells are counted to find where their number changes.
SCANNED = 201


@dataclass(frozen=True)
class Landscape:
    """A free energy that is a polynomial in x at each T.

    coefficients: of T, ascending. domain: of x. trained, between, beyond: temperatures. wells: how many there are below
    and above the temperature of the bifurcation, and that temperature (None if the wells stay).
    """

    name: str
    formula: str
    coefficients: Callable[[float], Sequence[float]]
    domain: tuple[float, float]
    trained: tuple[float, ...]
    between: tuple[float, ...]
    beyond: tuple[float, ...]
    wells: tuple[int, int, float] | None

    def __call__(self, x: Array, T: Array, order: int = 0) -> Array:
        """F, or a derivative in x, at points (n,)."""
        result = np.empty(len(x))
        for t in np.unique(T):
            here = t == T
            result[here] = polynomial.polyval(x[here], polynomial.polyder(self.coefficients(float(t)), order))
        return result

    def grid(self, temperatures: Sequence[float], n: int) -> tuple[Array, Array]:
        """Points (n times temperatures,) of x and T, one temperature after the other."""
        x = np.linspace(*self.domain, n)
        return np.tile(x, len(temperatures)), np.repeat(np.asarray(temperatures, np.float64), n)


def triple(T: float) -> list[float]:
    """a x^6 - b x^4 + c x^2 with a = 0.01 T, b = 0.24 T, c = 0.06 T (24/5.5 (T - 0.5) + 12)."""
    return [0.0, 0.0, 0.06 * T * (24.0 / 5.5 * (T - 0.5) + 12.0), 0.0, -0.24 * T, 0.0, 0.01 * T]


LANDSCAPES = (
    Landscape(
        "double well",
        "3 (x² - 1)² + x/2 at all T",
        lambda T: [3.0, 0.5, -6.0, 0.0, 3.0],
        (-2.0, 2.0),
        (0.5, 1.0, 2.0, 3.0, 4.0, 6.0),
        (0.75, 1.5, 2.5, 5.0),
        (0.35, 8.0),
        None,
    ),
    Landscape(
        "triple well",
        "a x⁶ - b x⁴ + c x², as in the issue",
        triple,
        (-6.0, 6.0),
        (0.5, 1.0, 2.0, 3.0, 4.0, 6.0),
        (0.75, 1.5, 2.5, 3.5, 5.0),
        (0.35, 7.0, 8.0),
        # where b^2 = 3 a c the outer wells vanish
        (3, 1, 0.5 + 5.5 * 20.0 / 24.0),
    ),
    Landscape(
        "bifurcation",
        "T (x² + T - 2)²/4",
        lambda T: [0.0, 0.0, 0.5 * T * (T - 2.0), 0.0, 0.25 * T],
        (-2.5, 2.5),
        (0.5, 1.0, 1.5, 2.5, 3.0, 3.5),
        (0.75, 1.25, 1.75, 2.0, 2.25, 2.75),
        (0.25, 4.0),
        (2, 1, 2.0),
    ),
)


def parameters_of(width: int) -> int:
    """Parameters of one network of x and T with two hidden layers."""
    return width * width + 5 * width + 1


#: Configurations and widths of theirs, each a network for the energy, one for the entropy, and a constant.
FEW, MANY = (4, 8), (12, 4)


def models() -> dict[str, Callable[..., Any]]:
    """Ours with few and many configurations, with and without the bound of entropy, and one network of their size."""

    def ours(k: int, width: int, **more: Any) -> Callable[..., Any]:
        return lambda **how: ZENN(k, coordinate="order", boltzmann=BOLTZMANN, hidden=(width, width), **more, **how)

    most = max(k * (2 * parameters_of(width) + 1) for k, width in (FEW, MANY))
    wide = next(width for width in range(2, 1000) if parameters_of(width) >= most)
    return {
        "ZENN, K = 4": ours(*FEW),
        "DNN": lambda **how: DNN(coordinate="order", boltzmann=BOLTZMANN, hidden=(wide, wide), **how),
        "ZENN, K = 4, γ = 5": ours(*FEW, gamma=5.0),
        "ZENN, K = 12": ours(*MANY),
    }


#: Models with one seed.
ONE_SEED = ("ZENN, K = 4, γ = 5", "ZENN, K = 12")


def part_landscapes(size: Size, store: Store) -> None:
    """All landscapes and models."""
    store.content["landscapes"] = {
        one.name: {"formula": one.formula, "trained": one.trained, "between": one.between, "beyond": one.beyond}
        for one in LANDSCAPES
    }
    for one in LANDSCAPES:
        x, T = one.grid(one.trained, 41 if size.quick else TRAINED)
        density = np.exp(-(one(x, T)) / (BOLTZMANN * T))
        for model, make in models().items():
            for seed in range(1 if model in ONE_SEED else min(2, size.few)):
                how = {"random_state": seed, **size.budget}
                if size.quick:
                    how["adam_steps"] = 60
                store(
                    lambda make=make, how=how, one=one, x=x, T=T, density=density: judge(
                        make(**how).fit(x, T, density=density), one, how["random_state"] == 0
                    ),
                    landscape=one.name,
                    model=model,
                    seed=seed,
                )
    store.write()


def judge(model: Any, one: Landscape, first: bool) -> Row:
    """All figures of a model on a landscape."""
    report = model.report_
    row: Row = {
        "n_parameters": report["n_parameters"],
        "fit_seconds": report["seconds"],
        "iterations": report["iterations"],
        "converged": report["converged"],
    }
    for part in ("trained", "between", "beyond"):
        temperatures = getattr(one, part)
        each = [at_temperature(model, one, t) for t in temperatures]
        row[part] = {
            "js": [e["js"] for e in each],
            **{f"d{n}": rms(np.array([e[f"d{n}"] for e in each])) for n in range(4)},
            "everywhere": rms(np.array([e["everywhere"] for e in each])),
            **{
                f"{what}_{kind}": share_or_rms([e[f"{what}_{kind}"] for e in each], kind)
                for what in ("wells", "spinodal")
                for kind in ("right", "off")
            },
        }
    if one.wells is not None:
        row |= bifurcation(model, one)
    if first:
        row["shown"] = curves(model, one)
    return row


def share_or_rms(values: list[Any], kind: str) -> float | None:
    """Share of temperatures with as many as there are; or root mean square distance where that is so."""
    if kind == "right":
        return float(np.mean(values))
    known = np.concatenate([v for v in values if v is not None] or [np.empty(0)])
    return rms(known) if len(known) else None


def at_temperature(model: Any, one: Landscape, t: float) -> Row:
    """Divergence (nats), error of F (k_B T) without its mean difference, and of derivatives relative to their size."""
    x, T = one.grid([t], ASKED)
    kt = BOLTZMANN * t
    found = model.derivatives(x, T, [(n, 0) for n in range(4)])
    truth = [one(x, T, n) for n in range(4)]
    inside = truth[0] - truth[0].min() < DEPTH * kt
    p, q = (np.exp(-(f - f.min()) / kt) for f in (truth[0], found[0, 0]))
    p, q = p / p.sum(), q / q.sum()
    middle = 0.5 * (p + q)
    js = 0.5 * sum(float((part * np.log(np.maximum(part, 1e-300) / middle)).sum()) for part in (p, q))
    gap = (found[0, 0] - truth[0]) / kt
    row: Row = {"js": max(js, 0.0), "d0": rms(gap[inside] - gap[inside].mean()), "everywhere": rms(gap - gap.mean())}
    for n in range(1, 4):
        row[f"d{n}"] = rms((found[n, 0] - truth[n])[inside]) / rms(truth[n][inside])
    for what, order in (("wells", 1), ("spinodal", 2)):
        mine, true = (crossings(x, f, inside, order == 1) for f in (found[order, 0], truth[order]))
        row[f"{what}_right"] = len(mine) == len(true)
        row[f"{what}_off"] = mine - true if len(mine) == len(true) else None
    return row


def crossings(x: Array, f: Array, inside: Array, rising: bool) -> Array:
    """Where f changes its sign between neighbours on the grid that count; only from below where it must rise."""
    change = (f[:-1] < 0.0) & (f[1:] >= 0.0) if rising else (f[:-1] < 0.0) != (f[1:] < 0.0)
    i = np.flatnonzero(change & inside[:-1] & inside[1:])
    return x[i] - f[i] * (x[i + 1] - x[i]) / (f[i + 1] - f[i])


def bifurcation(model: Any, one: Landscape) -> Row:
    """The temperature at which the number of wells changes: the one that leaves the fewest temperatures with a number
    that is not the true one; None where more than a tenth are left."""
    assert one.wells is not None
    below, above, true = one.wells
    t = np.linspace(one.trained[0], one.trained[-1], SCANNED)
    x, T = one.grid(t.tolist(), 241)
    free = one(x, T)
    slopes = model.derivatives(x, T, [(1, 0)], members=True)[1, 0]
    found = []
    for slope in [slopes.mean(0), *slopes]:
        count = np.array(
            [
                len(crossings(x[s], slope[s], free[s] - free[s].min() < DEPTH * t[i], True))
                for i, s in ((i, slice(i * 241, (i + 1) * 241)) for i in range(len(t)))
            ]
        )
        wrong = [int((count[:i] != below).sum() + (count[i:] != above).sum()) for i in range(len(t) + 1)]
        best = int(np.argmin(wrong))
        clear = wrong[best] <= 0.1 * len(t) and 0 < best < len(t)
        found.append(0.5 * (t[best - 1] + t[best]) if clear else np.nan)
    members = np.array(found[1:])
    known = members[~np.isnan(members)]
    return {
        "bifurcation": None if np.isnan(found[0]) else float(found[0]),
        "bifurcation_std": float(known.std(ddof=1)) if len(known) > 1 else None,
        "bifurcation_true": true,
    }


def curves(model: Any, one: Landscape) -> Row:
    """F and density at all temperatures asked about, for the figure."""
    x = np.linspace(*one.domain, 161)
    found = []
    for t in (*one.between, *one.beyond):
        f = model.derivatives(x, np.full(len(x), t), [(0, 0)], members=True)[0, 0] / (BOLTZMANN * t)
        truth = one(x, np.full(len(x), t)) / (BOLTZMANN * t)
        low = truth - truth.min() < DEPTH
        f = f - (f[:, low] - truth[low]).mean(1, keepdims=True) - truth.min()
        found.append(
            {
                "T": t,
                "f": rounded(f.mean(0)),
                "std": rounded(f.std(0, ddof=1) if len(f) > 1 else np.zeros(len(x))),
                "truth": rounded(truth - truth.min()),
            }
        )
    return {"x": rounded(x, 6), "curves": found}
