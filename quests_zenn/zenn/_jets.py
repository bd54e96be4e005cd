"""Truncated Taylor series in torch: derivatives forwards, to any order, in one pass.

A *jet* is a tensor whose first axis holds the Taylor coefficients (derivatives over factorials) of a function of a few
variables around the points of the remaining axes. Sums, products and compositions of jets are those of power series, so
that a model written once for jets gives its value and all its derivatives, exact to rounding, and remains open to
backward differentiation in its parameters. (Griewank and Walther, Evaluating Derivatives, SIAM 2008, chapter 13.)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from itertools import product
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    #: Coefficients of a function of one variable around a point: value, first derivative, second over two, ...
    Series = list[torch.Tensor]


class Orders:
    """Which derivatives a jet carries: the wanted ones and all that they need.

    Parameters
    ----------
    wanted : iterable of tuples of int
        Orders of differentiation by variable, ``(2, 1)`` for d3/dx2 dT.
    """

    def __init__(self, wanted: Iterable[tuple[int, ...]]) -> None:
        asked = list(wanted)
        below = {item for top in asked for item in product(*(range(n + 1) for n in top))}
        self.list = sorted(below, key=lambda item: (sum(item), item))
        self.index = {item: i for i, item in enumerate(self.list)}
        self.degree = max(sum(item) for item in self.list)
        self.factorials = [math.prod(math.factorial(n) for n in item) for item in self.list]
        #: For each coefficient of a product, the pairs of coefficients that make it up.
        self.products: list[list[tuple[int, int]]] = []
        for item in self.list:
            pairs = []
            for i, left in enumerate(self.list):
                right = tuple(n - m for n, m in zip(item, left, strict=True))
                if right in self.index:
                    pairs.append((i, self.index[right]))
            self.products.append(pairs)

        #: Positions of the coefficients that belong to all variables but the last.
        self.inner = [i for i, item in enumerate(self.list) if item[-1] == 0]

    def __len__(self) -> int:
        return len(self.list)

    def without_last(self) -> Orders:
        """The orders of what does not depend on the last variable; see `inner` and `embed`."""
        return self if len(self.inner) == len(self) else Orders([self.list[i] for i in self.inner])

    def embed(self, a: torch.Tensor) -> torch.Tensor:
        """A jet of these orders from one of the orders `without_last`."""
        if len(self.inner) == len(self):
            return a
        whole = a.new_zeros((len(self), *a.shape[1:]))
        whole[self.inner] = a
        return whole

    def variable(self, value: torch.Tensor, which: int) -> torch.Tensor:
        """The jet of one of the variables itself."""
        import torch

        n = len(self.list[0])
        unit = tuple(int(i == which) for i in range(n))
        parts = [torch.zeros_like(value) for _ in self.list]
        parts[0] = value
        if unit in self.index:
            parts[self.index[unit]] = torch.ones_like(value)
        return torch.stack(parts)

    def constant(self, value: torch.Tensor) -> torch.Tensor:
        """The jet of what depends on no variable."""
        import torch

        return torch.cat([value[None], value.new_zeros((len(self) - 1, *value.shape))])

    def multiply(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        """Product of two jets (shapes broadcast after the first axis)."""
        import torch

        if len(self) == 1:
            return a * b
        return torch.stack([_sum([a[i] * b[j] for i, j in pairs]) for pairs in self.products])

    def compose(self, series: Callable[[torch.Tensor, int], Series], a: torch.Tensor) -> torch.Tensor:
        """A function of one variable applied to a jet; `series` gives its coefficients around a value, to a degree."""
        import torch

        coefficients = series(a[0], self.degree)
        if self.degree == 0:
            return coefficients[0][None]
        rest = a[1:]
        if self.degree == 1:
            return torch.cat([coefficients[0][None], coefficients[1] * rest])
        # Horner's scheme in the jet without its value, whose powers end at the degree
        result: list[torch.Tensor | None] = [coefficients[-1], *[None] * (len(self) - 1)]
        for coefficient in reversed(coefficients[:-1]):
            parts: list[torch.Tensor | None] = [coefficient]
            for pairs in self.products[1:]:
                terms = [left * a[j] for i, j in pairs if j > 0 and (left := result[i]) is not None]
                parts.append(_sum(terms) if terms else None)
            result = parts
        return torch.stack([torch.zeros_like(coefficients[0]) if part is None else part for part in result])

    def logsumexp(self, a: torch.Tensor, axis: int) -> torch.Tensor:
        """ln sum exp over an axis of a jet, counted without the axis of coefficients. Never overflows.

        The largest term is taken out with all its derivatives: where it rules, theirs would cancel.
        """
        top = a.gather(axis + 1, largest(a[0], axis)[None].expand(len(self), *[-1] * (a.dim() - 1)))
        rest = self.compose(exp, a - top).sum(axis + 1)
        return self.compose(log, rest) + top.squeeze(axis + 1)

    def derivative(self, a: torch.Tensor, order: Sequence[int]) -> torch.Tensor:
        """The derivative of a jet that `order` names."""
        i = self.index[tuple(order)]
        return a[i] * float(self.factorials[i])


def largest(a: torch.Tensor, axis: int) -> torch.Tensor:
    """Index of the largest along an axis, which is kept."""
    return a.detach().argmax(axis, keepdim=True)


def _sum(terms: list[torch.Tensor]) -> torch.Tensor:
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total


def exp(value: torch.Tensor, degree: int) -> Series:
    """Series of exp."""
    top = value.exp()
    return [top / math.factorial(m) for m in range(degree + 1)]


def log(value: torch.Tensor, degree: int) -> Series:
    """Series of the natural logarithm."""
    inverse = 1.0 / value
    result, power = [value.log()], inverse
    for m in range(1, degree + 1):
        result.append(power / (m if m % 2 else -m))
        power = power * inverse
    return result


def power(exponent: float) -> Callable[[torch.Tensor, int], Series]:
    """Series of a real power of a positive number."""

    def series(value: torch.Tensor, degree: int) -> Series:
        term = value**exponent
        result, inverse = [term], 1.0 / value
        for m in range(1, degree + 1):
            term = term * inverse * ((exponent - m + 1) / m)
            result.append(term)
        return result

    return series


def square(value: torch.Tensor, degree: int) -> Series:
    """Series of the square."""
    import torch

    start = [value * value, 2.0 * value, torch.ones_like(value)]
    return (start + [torch.zeros_like(value)] * max(0, degree - 2))[: degree + 1]


def tanh(value: torch.Tensor, degree: int) -> Series:
    """Series of tanh, from y' = 1 - y^2."""
    result = [value.tanh()]
    for m in range(degree):
        total = _sum([result[i] * result[m - i] for i in range(m + 1)])
        result.append(((1.0 - total) if m == 0 else -total) / (m + 1))
    return result


def softplus(value: torch.Tensor, degree: int) -> Series:
    """Series of ln(1 + exp); its derivative s obeys s' = s (1 - s)."""
    import torch

    slope = [torch.sigmoid(value)]
    for m in range(degree - 1):
        total = _sum([slope[i] * slope[m - i] for i in range(m + 1)])
        slope.append((slope[m] - total) / (m + 1))
    return [torch.nn.functional.softplus(value, threshold=40.0)] + [slope[m] / (m + 1) for m in range(degree)]


def occupation(value: torch.Tensor, degree: int) -> Series:
    """Series of n = 1 / (exp(y) - 1), y > 0, from n' = -n - n^2."""
    import torch

    decay = torch.exp(-value)  # expm1(y) would overflow far below the Debye temperature
    result = [decay / -torch.expm1(-value)]
    for m in range(degree):
        total = _sum([result[i] * result[m - i] for i in range(m + 1)])
        result.append(-(result[m] + total) / (m + 1))
    return result


def einstein(value: torch.Tensor, degree: int) -> Series:
    """Series of F / (N k T) of Einstein's solid at y = theta / T: 3 (y / 2 + ln(1 - exp(-y)))."""
    import torch

    result = [3.0 * (0.5 * value + torch.log(-torch.expm1(-value)))]
    slope = occupation(value, max(0, degree - 1))
    for m in range(degree):
        result.append(3.0 * slope[m] / (m + 1) + (1.5 if m == 0 else 0.0))
    return result


def classical(value: torch.Tensor, degree: int) -> Series:
    """Series of F / (N k T) of classical oscillators at y = theta / T: 3 ln y, the limit of small y of Einstein's."""
    import torch

    result = [3.0 * torch.log(value)]
    inverse = 1.0 / value
    for m in range(1, degree + 1):
        result.append(3.0 * (-1.0) ** (m - 1) / m * inverse**m)
    return result


def debye(value: torch.Tensor, degree: int) -> Series:
    """Series of F / (N k T) of Debye's solid at y = theta / T: 9 y / 8 + 3 ln(1 - exp(-y)) - D3(y).

    Its derivative is 9 / 8 + 3 D3(y) / y, and y D3' = 3 y n(y) - 3 D3.
    """
    import torch

    d3 = _debye_3(value)
    result = [1.125 * value + 3.0 * torch.log(-torch.expm1(-value)) - d3]
    if degree == 0:
        return result
    n = occupation(value, degree - 1)
    function, quotient = [d3], [d3 / value]
    for m in range(degree - 1):
        bose = value * n[m] + (n[m - 1] if m else 0.0)
        function.append((3.0 * bose - (3.0 + m) * function[m]) / (value * (m + 1)))
        quotient.append((function[m + 1] - quotient[m]) / value)
    for m in range(degree):
        result.append(3.0 * quotient[m] / (m + 1) + (1.125 if m == 0 else 0.0))
    return result


@cache
def _bernoulli(count: int) -> list[float]:
    """3 B_2k / ((2k + 3) (2k)!), k = 1 ... count: coefficients of D3 in y^2."""
    from scipy.special import zeta

    # B_2k / (2k)! = (-1)^(k+1) 2 zeta(2k) / (2 pi)^(2k)
    return [
        (-1) ** (k + 1) * 6.0 * float(zeta(2 * k)) / (2 * math.pi) ** (2 * k) / (2 * k + 3) for k in range(1, count + 1)
    ]


def _debye_3(y: torch.Tensor) -> torch.Tensor:
    """D3(y) = 3 / y^3 integral_0^y t^3 / (exp(t) - 1) dt, in full: power series below 2.5, exponentials above."""
    import torch

    low = torch.clamp(y, max=2.5)
    squared = low * low
    series = torch.zeros_like(y)
    for coefficient in reversed(_bernoulli(22)):
        series = (series + coefficient) * squared
    small = 1.0 - 0.375 * low + series
    high = torch.clamp(y, min=2.5)
    decay, inverse = torch.exp(-high), 1.0 / high
    total = torch.zeros_like(y)
    for k in range(16, 0, -1):
        term = 1.0 / k + inverse * (3.0 / k**2 + inverse * (6.0 / k**3 + inverse * (6.0 / k**4)))
        total = (total + term) * decay
    large = math.pi**4 / 5.0 * inverse**3 - 3.0 * total
    return torch.where(y < 2.5, small, large)


def entropy_of(free: Callable[[torch.Tensor, int], Series]) -> Callable[[torch.Tensor, int], Series]:
    """Series of S / (N k) = y f' - f of vibrations whose F / (N k T) = f(theta / T)."""

    def series(value: torch.Tensor, degree: int) -> Series:
        f = free(value, degree + 1)
        return [value * (m + 1) * f[m + 1] + (m - 1) * f[m] for m in range(degree + 1)]

    return series
