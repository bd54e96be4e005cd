"""Slow twin of the mixture of configurations: one point at a time, in plain Python, from the textbooks.

Nothing here imports the package that it judges. A configuration is a dictionary of physical values.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

from scipy.integrate import quad

#: k_B, eV/K, exact in the SI.
KB = 1.380649e-23 / 1.602176634e-19


def birch_murnaghan(volume: float, energy: float, v0: float, b0: float, slope: float) -> float:
    """Third order: E0 + 9 V0 B0 / 16 ((u - 1)^3 B' + (u - 1)^2 (6 - 4 u)), u = (V0 / V)^(2/3)."""
    u = (v0 / volume) ** (2.0 / 3.0)
    return energy + 9.0 * v0 * b0 / 16.0 * ((u - 1.0) ** 3 * slope + (u - 1.0) ** 2 * (6.0 - 4.0 * u))


def vinet(volume: float, energy: float, v0: float, b0: float, slope: float) -> float:
    """E0 + 2 B0 V0 / (B' - 1)^2 (2 - (5 + 3 B' (l - 1) - 3 l) exp(-3/2 (B' - 1) (l - 1))), l = (V / V0)^(1/3)."""
    l = (volume / v0) ** (1.0 / 3.0)
    decay = math.exp(-1.5 * (slope - 1.0) * (l - 1.0))
    return energy + 2.0 * b0 * v0 / (slope - 1.0) ** 2 * (2.0 - (5.0 + 3.0 * slope * (l - 1.0) - 3.0 * l) * decay)


def debye_integral(y: float) -> float:
    """D3(y) = 3 / y^3 integral_0^y t^3 / (exp(t) - 1) dt."""

    def bose(t: float) -> float:
        return t**3 / math.expm1(t) if t > 0.0 else 0.0

    edges = [0.0, *(t for t in (2.0, 5.0, 10.0, 20.0, 40.0) if t < y), min(y, 700.0)]
    pieces = [quad(bose, a, b, epsabs=0.0, epsrel=1e-13)[0] for a, b in itertools.pairwise(edges) if b > a]
    return 3.0 / y**3 * math.fsum(pieces)


def debye_free(y: float) -> float:
    """F / (N k T)."""
    return 9.0 / 8.0 * y + 3.0 * math.log(-math.expm1(-y)) - debye_integral(y)


def debye_entropy(y: float) -> float:
    """S / (N k)."""
    return 4.0 * debye_integral(y) - 3.0 * math.log(-math.expm1(-y))


def einstein_free(y: float) -> float:
    """F / (N k T) of three oscillators: zero point and partition sum."""
    return 3.0 * (y / 2.0 + math.log(-math.expm1(-y)))


def einstein_entropy(y: float) -> float:
    """S / (N k)."""
    n = 1.0 / math.expm1(y) if y < 700.0 else 0.0
    return 3.0 * (y * n - math.log(-math.expm1(-y)))


def layer(values: Sequence[float], weights: Any, biases: Any) -> list[float]:
    """weights (in, out), biases (out)."""
    return [
        float(biases[o]) + sum(values[i] * float(weights[i][o]) for i in range(len(values))) for o in range(len(biases))
    ]


def network(values: Sequence[float], p: dict[str, Any], group: int, depth: int, names: str = "") -> float:
    """Tanh layers, then one number."""
    h = list(values)
    for n in range(depth):
        h = [math.tanh(v) for v in layer(h, p[f"{names}weights_{n}"][group], p[f"{names}biases_{n}"][group])]
    return layer(h, p[f"{names}weights_out"][group], p[f"{names}biases_out"][group])[0]


def softplus(v: float) -> float:
    """ln(1 + exp(v))."""
    return max(v, 0.0) + math.log1p(math.exp(-abs(v)))


def convex_network(x: Sequence[float], heat: float | None, p: dict[str, Any], k: int, depth: int) -> float:
    """Input-convex in x, with everything affine in x allowed to depend on T (Amos, Xu and Kolter 2017)."""
    seen = None
    if heat is not None:
        seen = [math.tanh(v) for v in layer([heat], p["gate_weights"][k], p["gate_biases"][k])]
    h: list[float] | None = None
    for n in range(depth + 1):
        tag = "out" if n == depth else str(n)
        total = layer(x, p[f"convex_x_{tag}"][k], p[f"convex_biases_{tag}"][k])
        width = len(total)
        if seen is not None:
            plain, mixed = p[f"convex_T_{tag}"][k], p[f"convex_xT_{tag}"][k]
            for o in range(width):
                total[o] += sum(s * float(plain[i][o]) for i, s in enumerate(seen))
                for c, xc in enumerate(x):
                    total[o] += xc * sum(s * float(mixed[i][c * width + o]) for i, s in enumerate(seen))
        if h is not None:
            positive = p[f"convex_positive_{tag}"][k]
            for o in range(width):
                total[o] += sum(v * softplus(float(positive[i][o])) for i, v in enumerate(h))
        h = total if tag == "out" else [softplus(v) for v in total]
    assert h is not None
    return h[0]


def polynomials(given: dict[str, Any], x: Sequence[float]) -> list[float]:
    """Sums of products of powers."""
    found = [0.0] * len(given["names"])
    for powers, factor, j in zip(given["exponents"], given["coefficients"], given["outputs"], strict=True):
        found[j] += factor * math.prod(v**p for v, p in zip(x, powers, strict=True))
    return found


def configuration(design: Any, p: dict[str, Any], k: int, x: Sequence[float], T: float) -> tuple[float, float]:
    """F_k (eV) and the intrinsic entropy S_k (eV/K) of configuration k, F_k = E_k - T S_k.

    `design` names the form; `p` holds the values of parameters by name.
    """
    if design.inputs is None:
        seen, centre, scale = list(x), design.x_centre, design.x_scale
    else:
        seen, centre, scale = polynomials(design.inputs, x), design.input_centre, design.input_scale
    scaled = [(v - c) / s for v, c, s in zip(seen, centre, scale, strict=True)]
    heat = (T - design.T_centre) / design.T_scale
    free, root, entropy = 0.0, 0.0, 0.0
    if design.energy != "network":
        form = birch_murnaghan if design.energy == "birch-murnaghan" else vinet
        free += form(
            x[0],
            float(p["energy"][k]),
            math.exp(p["log_volume"][k]),
            math.exp(p["log_bulk_modulus"][k]),
            float(p["bulk_modulus_slope"][k]),
        )
    depth = len(design.hidden)
    if design.hidden and design.convex:
        seen = heat if design.explicit_temperature else None
        free += design.correction * convex_network(scaled, seen, p, k, depth)
        if design.split and design.explicit_temperature:
            root += design.entropy_correction * network([heat], p, k, depth, "entropy_")
    elif design.hidden:
        fed = [*scaled, heat] if design.explicit_temperature else scaled
        if design.gains:
            damped = [gain * v for gain, v in zip(design.gains, scaled, strict=True)]
            first = [*damped, heat] if design.explicit_temperature else damped
            free += design.correction * network(first, p, k, depth)
            free += design.correction * design.fine * network(fed, p, design.n_configurations + k, depth)
        else:
            free += design.correction * network(fed, p, k, depth)
        if design.split:
            root += design.entropy_correction * network(fed, p, design.n_configurations + k, depth)
    if design.split:
        root += float(p["entropy_root"][k])
        entropy += design.boltzmann * root**2
        free -= T * design.boltzmann * root**2
    if design.thermal != "none":
        s = math.log(x[0] / design.x_centre[0])
        theta = math.exp(p["log_temperature"][k]) * math.exp(
            -float(p["grueneisen"][k]) * s - float(p["grueneisen_slope"][k]) * s**2
        )
        y, amount = theta / T, design.n_atoms * design.boltzmann
        if design.thermal == "classical":
            electrons = amount * (p["anharmonicity"][k] + p["anharmonicity_slope"][k] * s) / 1000.0
        else:
            electrons = math.exp(p["log_electronic"][k])
        of_y = {
            "debye": (debye_free, debye_entropy),
            "einstein": (einstein_free, einstein_entropy),
            "classical": (lambda v: 3.0 * math.log(v), lambda v: 3.0 - 3.0 * math.log(v)),
        }[design.thermal]
        free += amount * T * of_y[0](y) - 0.5 * electrons * T**2
        entropy += amount * of_y[1](y) + electrons * T
    return free, entropy


def mixture(
    free: Sequence[float], entropies: Sequence[float], T: float, n: float = 1.0, gamma: float = math.inf, kb: float = KB
) -> tuple[float, list[float]]:
    """F = sum_k p_k F_k + (k_B T / n) sum_k p_k ln p_k, and p_k = softmax(-n F_k / (k_B T) - (S_k / (gamma k_B))^2)."""
    a = [-n * f / (kb * T) - (s / (gamma * kb)) ** 2 for f, s in zip(free, entropies, strict=True)]
    top = max(a)
    weights = [math.exp(v - top) for v in a]
    total = math.fsum(weights)
    p = [w / total for w in weights]
    mixing = math.fsum(q * math.log(q) for q in p if q > 0.0)
    return math.fsum(q * f for q, f in zip(p, free, strict=True)) + kb * T / n * mixing, p


def free_energy(
    design: Any, p: dict[str, Any], x: Sequence[float], T: float
) -> tuple[float, list[float], list[float], list[float]]:
    """F, F_k, S_k and p_k at one point."""
    parts = [configuration(design, p, k, x, T) for k in range(design.n_configurations)]
    free, entropies = [f for f, _ in parts], [s for _, s in parts]
    total, shares = mixture(free, entropies, T, design.coherence, design.gamma, design.boltzmann)
    return total, free, entropies, shares


def jensen_shannon(p: Sequence[float], q: Sequence[float]) -> list[float]:
    """Terms of the divergence between two distributions: they are never negative, and sum to it."""
    terms = []
    for a, b in zip(p, q, strict=True):
        m = 0.5 * (a + b)
        terms.append(0.5 * ((a * math.log(a / m) if a > 0 else 0.0) + (b * math.log(b / m) if b > 0 else 0.0)))
    return terms


def difference(function: Any, x: float, h: float, order: int) -> float:
    """Central differences of sixth order of accuracy (order 1 and 2): what derivatives are compared with."""
    weights = {
        1: ([-1 / 60, 3 / 20, -3 / 4, 0.0, 3 / 4, -3 / 20, 1 / 60], h),
        2: ([1 / 90, -3 / 20, 3 / 2, -49 / 18, 3 / 2, -3 / 20, 1 / 90], h * h),
    }
    c, unit = weights[order]
    return sum(w * function(x + (i - 3) * h) for i, w in enumerate(c) if w) / unit
