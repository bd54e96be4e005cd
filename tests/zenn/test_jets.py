"""Jets: values and derivatives are those of torch's autograd, of power series and of integrals, however extreme."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import naive_zenn as naive
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import bernoulli

torch = pytest.importorskip("torch")

from quests_zenn.zenn import _jets  # noqa: E402
from quests_zenn.zenn._jets import Orders  # noqa: E402

pytestmark = pytest.mark.extra

Function = Callable[[Any], Any]


def tensor(values: Any) -> Any:
    return torch.tensor(values, dtype=torch.float64)


def autograd(function: Function, inputs: list[Any], order: tuple[int, ...]) -> Any:
    """One mixed derivative of an elementwise function, by differentiating again and again."""
    leaves = [value.clone().requires_grad_() for value in inputs]
    result = function(*leaves)
    for leaf, times in zip(leaves, order, strict=True):
        for _ in range(times):
            (result,) = torch.autograd.grad(result.sum(), leaf, create_graph=True, allow_unused=True)
            if result is None:
                return torch.zeros_like(leaf)
            if not result.requires_grad:
                result = result + 0.0 * leaf
    return result.detach()


def einstein(y: Any) -> Any:
    return 3.0 * (0.5 * y + torch.log1p(-torch.exp(-y)))


def debye_integral(y: Any) -> Any:
    """3 / y^3 integral as Gauss-Legendre sums over pieces of [0, 1] in t / y: open to autograd."""
    nodes, weights = np.polynomial.legendre.leggauss(60)
    total = 0.0
    for low, high in itertools.pairwise((0.0, 0.1, 0.3, 0.6, 1.0)):
        s = tensor(low + (high - low) * (nodes + 1.0) / 2.0)
        w = tensor((high - low) / 2.0 * weights)
        total = total + (w * s**3 * y[:, None] / torch.expm1(s * y[:, None])).sum(1)
    return 3.0 * total


def debye(y: Any) -> Any:
    return 9.0 / 8.0 * y + 3.0 * torch.log1p(-torch.exp(-y)) - debye_integral(y)


FUNCTIONS: dict[str, tuple[Any, Function, list[float]]] = {
    "exp": (_jets.exp, torch.exp, [-30.0, -1.0, 0.0, 0.3, 5.0]),
    "log": (_jets.log, torch.log, [1e-3, 0.4, 1.0, 7.0, 1e4]),
    "power -2/3": (_jets.power(-2.0 / 3.0), lambda y: y ** (-2.0 / 3.0), [1e-2, 0.5, 1.0, 90.0]),
    "power -1": (_jets.power(-1.0), lambda y: 1.0 / y, [1e-2, 0.5, 1.0, 900.0]),
    "power 2": (_jets.power(2.0), lambda y: y * y, [1e-2, 0.5, 1.0, 900.0]),
    "square": (_jets.square, lambda y: y * y, [-3.0, 0.0, 1e-5, 2.0]),
    "tanh": (_jets.tanh, torch.tanh, [-4.0, -0.3, 0.0, 1e-4, 2.0]),
    "softplus": (_jets.softplus, lambda y: torch.log1p(torch.exp(y)), [-20.0, -1.0, 0.0, 0.5, 6.0]),
    "occupation": (_jets.occupation, lambda y: 1.0 / torch.expm1(y), [0.05, 0.5, 1.0, 4.0, 30.0]),
    "einstein": (_jets.einstein, einstein, [0.05, 0.3, 1.0, 2.5, 10.0, 30.0]),
    "debye": (_jets.debye, debye, [0.4, 1.0, 2.4, 2.6, 4.0, 12.0, 40.0]),
    "entropy of einstein": (
        _jets.entropy_of(_jets.einstein),
        lambda y: 3.0 * (y / torch.expm1(y) - torch.log1p(-torch.exp(-y))),
        [0.3, 1.0, 2.5, 10.0],
    ),
    "entropy of debye": (
        _jets.entropy_of(_jets.debye),
        lambda y: 4.0 * debye_integral(y) - 3.0 * torch.log1p(-torch.exp(-y)),
        [0.4, 1.0, 2.4, 2.6, 4.0, 12.0],
    ),
}


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("degree", [0, 1, 2, 3, 4])
def test_series_are_those_of_autograd(name: str, degree: int) -> None:
    series, function, where = FUNCTIONS[name]
    y = tensor(where)
    coefficients = series(y, degree)
    assert len(coefficients) == degree + 1
    for m in range(degree + 1):
        expected = autograd(function, [y], (m,)) / math.factorial(m)
        scale = torch.maximum(expected.abs(), tensor(1e-3))
        worst = float(((coefficients[m] - expected).abs() / scale).max())
        assert worst < 1e-8, (name, m, worst)


@pytest.mark.parametrize("y", [1e-4, 0.01, 0.3, 1.0, 2.4999, 2.5001, 5.0, 17.0, 60.0, 1e3, 1e4])
def test_the_debye_function_is_the_integral(y: float) -> None:
    assert float(_jets._debye_3(tensor([y]))[0]) == pytest.approx(naive.debye_integral(y), rel=2e-14)
    value = float(_jets.debye(tensor([y]), 0)[0][0])
    assert value == pytest.approx(naive.debye_free(y), rel=1e-13, abs=1e-14)


def test_the_debye_function_at_small_arguments_is_its_power_series() -> None:
    """3 sum_n B_n y^n / ((n + 3) n!), differentiated term by term."""
    numbers = bernoulli(40)
    for y in (1e-3, 0.02, 0.2, 1.0):
        value, slope = 0.0, 0.0
        for n in range(41):
            c = 3.0 * numbers[n] / ((n + 3.0) * math.factorial(n))
            value += c * y**n
            slope += c * n * y ** (n - 1) if n else 0.0
        found = _jets.debye(tensor([y]), 2)
        log = 3.0 * math.log(-math.expm1(-y))
        assert float(found[0][0]) == pytest.approx(1.125 * y + log - value, rel=1e-14)
        assert float(found[1][0]) == pytest.approx(1.125 + 3.0 / math.expm1(y) - slope, rel=1e-12)


def test_far_below_the_debye_temperature_the_law_of_the_cube_holds() -> None:
    """F / (N k T) = 9 y / 8 - pi^4 / (5 y^3): with T = 1 / y that is 9 / 8 - pi^4 T^4 / 5."""
    orders = Orders([(4,)])
    T = tensor([1e-3, 3e-3, 1e-2])
    t = orders.variable(T, 0)
    free = orders.multiply(t, orders.compose(_jets.debye, orders.compose(_jets.power(-1.0), t)))
    assert orders.derivative(free, (0,)).tolist() == pytest.approx([1.125] * 3, rel=1e-6)
    for m in (1, 2, 3, 4):
        expected = -(math.pi**4) / 5 * math.perm(4, m) * T ** (4 - m)
        # the zero point is T times 9 / (8 T): its derivatives cancel to rounding
        rounding = 50 * 2.2e-16 * math.factorial(m) / T**m
        gap = (orders.derivative(free, (m,)) - expected).abs()
        assert bool((gap < 1e-9 * expected.abs() + rounding).all()), m
        assert float(rounding[2]) < 1e-3 * float(expected[2].abs())  # so that the test can fail


def test_functions_of_vibrations_do_not_overflow() -> None:
    y = tensor([1e-6, 1e-3, 50.0, 700.0, 750.0, 1e4, 1e8])
    for series in (_jets.einstein, _jets.debye, _jets.entropy_of(_jets.einstein), _jets.entropy_of(_jets.debye)):
        for part in series(y, 4):
            assert bool(torch.isfinite(part).all())
    for part in _jets.softplus(tensor([-1e4, -800.0, 800.0, 1e4]), 4):
        assert bool(torch.isfinite(part).all())
    assert float(_jets.softplus(tensor([1e4]), 0)[0][0]) == 1e4


def test_orders_hold_all_that_lies_below() -> None:
    orders = Orders([(2, 1), (0, 2)])
    assert set(orders.list) == {(0, 0), (1, 0), (2, 0), (0, 1), (1, 1), (2, 1), (0, 2)}
    assert orders.degree == 3
    assert len(orders) == 7
    assert orders.list[0] == (0, 0)
    x, y = orders.variable(tensor([3.0]), 0), orders.variable(tensor([5.0]), 1)
    product = orders.multiply(orders.multiply(x, x), y)
    found = {item: float(orders.derivative(product, item)) for item in orders.list}
    assert found == {(0, 0): 45.0, (1, 0): 30.0, (2, 0): 10.0, (0, 1): 9.0, (1, 1): 6.0, (2, 1): 2.0, (0, 2): 0.0}
    assert orders.constant(tensor([4.0])).tolist() == [[4.0]] + [[0.0]] * 6


def test_what_does_not_depend_on_the_last_variable() -> None:
    """Worked out with fewer coefficients, then embedded: the same as with all."""
    whole = Orders([(3, 1), (0, 2)])
    inner = whole.without_last()
    assert [item[:-1] for item in inner.list] == [(0,), (1,), (2,), (3,)]
    x = tensor([0.3, 1.7])
    jet = whole.compose(_jets.tanh, whole.variable(x, 0))
    small = inner.compose(_jets.tanh, inner.variable(x, 0))
    np.testing.assert_allclose(whole.embed(small).numpy(), jet.numpy(), rtol=1e-14)
    np.testing.assert_array_equal(jet[whole.inner].numpy(), small.numpy())
    flat = Orders([(2, 0)])
    assert flat.without_last() is flat
    assert flat.embed(small) is small


def tangle(x: Any, y: Any, z: Any) -> Any:
    """Everything at once, in three variables."""
    a = torch.tanh(x * y - z) * torch.exp(-0.3 * z * z)
    b = torch.log1p(torch.exp(x - z * y)) + (y * y + 1.0) ** (-2.0 / 3.0)
    return a * b + torch.log(b * b + a * a) * (1.0 / (2.0 + torch.tanh(z)))


def tangle_jet(o: Orders, x: Any, y: Any, z: Any) -> Any:
    one = o.constant(torch.ones_like(x[0]))
    square = lambda v: o.compose(_jets.square, v)  # noqa: E731
    a = o.multiply(o.compose(_jets.tanh, o.multiply(x, y) - z), o.compose(_jets.exp, -0.3 * o.multiply(z, z)))
    b = o.compose(_jets.softplus, x - o.multiply(z, y)) + o.compose(_jets.power(-2.0 / 3.0), square(y) + one)
    last = o.compose(_jets.power(-1.0), 2.0 * one + o.compose(_jets.tanh, z))
    return o.multiply(a, b) + o.multiply(o.compose(_jets.log, square(b) + square(a)), last)


def test_mixed_derivatives_of_several_variables() -> None:
    wanted = [item for item in itertools.product(range(5), repeat=3) if sum(item) <= 4]
    rng = np.random.default_rng(0)
    inputs = [tensor(rng.uniform(-1.2, 1.2, 5)) for _ in range(3)]
    orders = Orders(wanted)
    jet = tangle_jet(orders, *(orders.variable(value, i) for i, value in enumerate(inputs)))
    for item in wanted:
        expected = autograd(tangle, inputs, item)
        np.testing.assert_allclose(
            orders.derivative(jet, item).numpy(), expected.numpy(), rtol=1e-9, atol=1e-9, err_msg=str(item)
        )


@pytest.mark.parametrize(
    "wanted", [[(0, 0, 0)], [(1, 0, 0)], [(0, 1, 0), (0, 0, 1)], [(1, 1, 0)], [(0, 2, 1), (2, 0, 0)]]
)
def test_few_orders_give_what_all_orders_give(wanted: list[tuple[int, ...]]) -> None:
    inputs = [tensor([0.3, -0.8]), tensor([0.9, 0.2]), tensor([-0.5, 1.1])]
    every = Orders([item for item in itertools.product(range(4), repeat=3) if sum(item) <= 3])
    few = Orders(wanted)
    full = tangle_jet(every, *(every.variable(value, i) for i, value in enumerate(inputs)))
    jet = tangle_jet(few, *(few.variable(value, i) for i, value in enumerate(inputs)))
    for item in few.list:
        np.testing.assert_allclose(few.derivative(jet, item).numpy(), every.derivative(full, item).numpy(), rtol=1e-12)


def test_jets_stay_open_to_differentiation_in_parameters() -> None:
    orders = Orders([(2,)])
    weight = tensor([0.7]).requires_grad_()
    x = orders.variable(tensor([0.4]), 0)
    curvature = orders.derivative(orders.compose(_jets.tanh, weight * x), (2,))
    (found,) = torch.autograd.grad(curvature.sum(), weight)
    plain = tensor([0.7]).requires_grad_()
    again = autograd_curvature(plain)
    (expected,) = torch.autograd.grad(again, plain)
    assert float(found) == pytest.approx(float(expected), rel=1e-12)


def autograd_curvature(weight: Any) -> Any:
    x = tensor([0.4]).requires_grad_()
    (first,) = torch.autograd.grad(torch.tanh(weight * x).sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), x, create_graph=True)
    return second.sum()


def test_logsumexp_and_its_derivatives() -> None:
    wanted = [item for item in itertools.product(range(5), repeat=2) if sum(item) <= 4]
    orders = Orders(wanted)
    x, y = tensor([0.3, -0.5, 1.4]), tensor([0.8, 0.1, -0.6])
    jx, jy = orders.variable(x, 0), orders.variable(y, 1)
    terms = torch.stack([jx, orders.multiply(jx, jy), -2.0 * jy, orders.compose(_jets.square, jx)], dim=1)
    jet = orders.logsumexp(terms, 0)

    def plain(x: Any, y: Any) -> Any:
        return torch.logsumexp(torch.stack([x, x * y, -2.0 * y, x * x]), 0)

    for item in wanted:
        np.testing.assert_allclose(
            orders.derivative(jet, item).numpy(), autograd(plain, [x, y], item).numpy(), rtol=1e-10, atol=1e-12
        )


@given(st.lists(st.floats(-1e12, 1e12), min_size=1, max_size=5))
def test_logsumexp_of_anything_is_finite_and_lies_within_its_bounds(values: list[float]) -> None:
    orders = Orders([(3,)])
    slopes = tensor([float(i) for i in range(len(values))])
    terms = orders.constant(tensor(values))
    terms = terms + orders.variable(torch.zeros_like(slopes), 0) * slopes
    found = orders.logsumexp(terms, 0)
    assert bool(torch.isfinite(found).all())
    top = max(values)
    assert top - 1e-9 * abs(top) <= float(found[0]) <= top + math.log(len(values)) + 1e-9 * abs(top)
    assert -1e-9 <= float(found[1]) <= len(values) - 1 + 1e-9


def test_where_one_term_rules_its_derivatives_are_those_of_the_sum() -> None:
    """a = -E / kT near T = 0: derivatives of a are huge, and powers of them must not cancel."""
    orders = Orders([(4,)])
    for T in (10.0, 1.0, 0.1):
        t = orders.compose(_jets.power(-1.0), orders.variable(tensor([T]), 0)) / 8.6e-5
        terms = torch.stack([-1.00 * t, -1.05 * t], dim=1)
        found = orders.logsumexp(terms, 0)
        for m in range(5):
            expected = float(orders.derivative(terms[:, 0], (m,)))
            assert float(orders.derivative(found, (m,))) == pytest.approx(expected, rel=1e-12), (T, m)
