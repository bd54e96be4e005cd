"""Polynomials that networks see in place of order parameters: read without running them, and invariant."""

from __future__ import annotations

import json
import math
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")

from sklearn.base import clone  # noqa: E402

from quests_zenn._core.checks import DataError  # noqa: E402
from quests_zenn.zenn import DNN, IDNN, ZENN  # noqa: E402
from quests_zenn.zenn._jets import Orders  # noqa: E402
from quests_zenn.zenn._polynomials import Polynomials  # noqa: E402

pytestmark = pytest.mark.extra

Array = npt.NDArray[np.float64]

EXPRESSIONS = [
    "x[:,0]",
    "2./3.*(x[:,1]**2 + x[:,2]**2)",
    "-(x_1 - x_2)**2 * 4 / 8 + np.sqrt(5)*eta_0*x_1*x_2",
    "64.*np.sqrt(5)*x[:,1]*x[:,2]*(x[:,0]**2 - 1)",
]


def by_hand(x: Array) -> Array:
    a, b, c = x.T
    return np.stack(
        [
            a,
            2.0 / 3.0 * (b**2 + c**2),
            -0.5 * (b - c) ** 2 + math.sqrt(5.0) * a * b * c,
            64.0 * math.sqrt(5.0) * b * c * (a**2 - 1.0),
        ],
        axis=1,
    )


@pytest.fixture(scope="module")
def some() -> Polynomials:
    return Polynomials.parse(EXPRESSIONS)


# --- what they say ----------------------------------------------------------------------------------------------------


def test_expressions_mean_what_they_say(some: Polynomials) -> None:
    x = np.random.default_rng(0).normal(size=(50, 3))
    np.testing.assert_allclose(some(x), by_hand(x), rtol=1e-13, atol=1e-13)
    assert (some.n_inputs, some.n_outputs, some.degree) == (3, 4, 4)


def test_derivatives(some: Polynomials) -> None:
    x, h = np.random.default_rng(1).normal(size=(20, 3)), 1e-5
    slopes, bends = some.gradient(x), some.hessian(x)
    for i in range(3):
        step = h * np.eye(3)[i]
        np.testing.assert_allclose(
            slopes[:, :, i], (by_hand(x + step) - by_hand(x - step)) / (2 * h), rtol=0, atol=1e-6
        )
        numeric = (some.gradient(x + step) - some.gradient(x - step)) / (2 * h)
        np.testing.assert_allclose(bends[:, :, i], numeric, rtol=0, atol=1e-5)


def test_jets_are_the_same_derivatives(some: Polynomials) -> None:
    """Coefficients of a Taylor series in x and T; nothing here depends on T."""
    x = np.random.default_rng(2).normal(size=(7, 3))
    orders = Orders([(1, 0, 0, 0), (0, 2, 0, 0), (0, 1, 1, 0), (0, 0, 0, 1)])
    series = torch.stack([orders.variable(torch.from_numpy(x[:, i].copy()), i) for i in range(3)], dim=-1)
    found = some.jets(orders, series)
    slopes, bends = some.gradient(x), some.hessian(x)
    for order, expected in (
        ((0, 0, 0, 0), some(x)),
        ((1, 0, 0, 0), slopes[:, :, 0]),
        ((0, 2, 0, 0), bends[:, :, 1, 1]),
        ((0, 1, 1, 0), bends[:, :, 1, 2]),
        ((0, 0, 0, 1), np.zeros((7, 4))),
    ):
        got = torch.stack([orders.derivative(found[..., j], order) for j in range(4)], dim=-1)
        np.testing.assert_allclose(np.asarray(got).reshape(7, 4), expected, rtol=1e-12, atol=1e-12)


def test_they_survive_a_file(some: Polynomials, tmp_path: Path) -> None:
    path = tmp_path / "h.json"
    path.write_text(json.dumps(some.to_dict()), encoding="utf-8")
    assert Polynomials.read(path) == some
    path.write_text(json.dumps([[f"h{i}", text] for i, text in enumerate(EXPRESSIONS)]), encoding="utf-8")
    assert Polynomials.read(path) == some


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("__import__('os').system('true')", "__import__"),
        ("x.__class__", "x.__class__"),
        ("open('a')", "open"),
        ("x[:,0]**2.5", "power"),
        ("x[:,0]**1000000000", "power|degree"),
        ("x[:,0]**-1", "power"),
        ("(x_0 + x_1 + x_2 + x_3 + x_4 + x_5)**24", "long|terms|large"),
        ("1 / x_0", "below a fraction"),
        ("x_0 / 0", "divi"),
        ("x[0]", "x"),
        ("x[:,-1]", "x"),
        ("sin(x_0)", "sin"),
        ("np.sqrt(x_0)", "sqrt"),
        ("np.sqrt(-1)", "sqrt"),
        ("x_0 if 1 else 2", "x_0 if 1 else 2"),
        ("lambda: 1", "lambda"),
        ("[x_0]", "x_0"),
        ("x_0 x_1", "x_0 x_1"),
        ("", "expression"),
        ("3", "does not depend on x"),
        ("x_0 - x_0", "does not depend on x"),
        ("1e400 * x_0", "finite|number"),
        ("(" * 300 + "x_0" + ")" * 300, "rules of arithmetic"),
        ("-" * 5000 + "x_0", "deep|nest|long|read"),
    ],
)
def test_what_is_no_polynomial(text: str, told: str) -> None:
    with pytest.raises(DataError, match=told) as error:
        Polynomials.parse([text])
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 500


@pytest.mark.parametrize(
    "content", ["{}", "3", "[]", "[[1, 2]]", "[null]", "not JSON", '{"names": ["a"]}', '[["a", "b", "c"]]']
)
def test_what_is_no_file_of_polynomials(content: str, tmp_path: Path) -> None:
    path = tmp_path / "h.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=r"h\.json"):
        Polynomials.read(path)


# --- groups -----------------------------------------------------------------------------------------------------------


def test_invariants_of_the_symmetric_group_are_its_power_sums() -> None:
    """Three variables: one generator of each degree up to three, and no more (Newton)."""
    found = Polynomials.from_group([[1, 2, 0], [1, 0, 2]], 5)
    assert sorted(int(found.exponents[found.outputs == j].sum(1).max()) for j in range(found.n_outputs)) == [1, 2, 3]


def test_invariants_of_a_change_of_sign_are_squares() -> None:
    found = Polynomials.from_group([-np.eye(1)], 6)
    assert found.n_outputs == 1
    x = np.array([[0.7]])
    assert found(x)[0, 0] == pytest.approx(0.49)


@given(st.integers(0, 10**6))
def test_invariants_of_a_group_do_not_change(seed: int) -> None:
    rng = np.random.default_rng(seed)
    q = int(rng.integers(2, 5))
    generators = [np.eye(q)[rng.permutation(q)] * rng.choice([-1.0, 1.0], q) for _ in range(2)]
    try:
        found = Polynomials.from_group(generators, 4)
    except DataError:
        return  # nothing but constants up to this degree
    x = rng.normal(size=(5, q))
    for matrix in generators:
        np.testing.assert_allclose(found(x @ matrix.T), found(x), rtol=1e-10, atol=1e-10)


def test_the_invariants_of_real_data(data_dir: Path) -> None:
    """The given functions of LixCoO2 lie in the span of those that their own symmetries give, degree by degree."""
    h = Polynomials.read(data_dir / "lco_transforms.json", 7)
    assert (h.n_inputs, h.n_outputs) == (7, 12)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(6, 7))
    generators = []
    for order in permutations(range(1, 7)):
        for code in range(64):
            signs = 1.0 - 2.0 * np.array([code >> i & 1 for i in range(6)])
            moved = x.copy()
            moved[:, 1:] = x[:, list(order)] * signs
            if np.abs(h(moved[:1]) - h(x[:1])).max() < 1e-9 and np.abs(h(moved) - h(x)).max() < 1e-9:
                matrix = np.zeros((7, 7))
                matrix[0, 0] = 1.0
                matrix[np.arange(1, 7), list(order)] = signs
                generators.append(matrix)
    assert len(generators) == 384
    chosen = [generators[i] for i in (1, 50, 100, 200, 300, 383)]
    span = Polynomials.from_group(chosen, 6, independent=False)
    points = rng.normal(size=(2 * span.n_outputs, 7))
    basis = span(points)
    left = h(points) - basis @ np.linalg.lstsq(basis, h(points), rcond=None)[0]
    assert np.abs(left).max() < 1e-8 * np.abs(h(points)).max()


# --- in models --------------------------------------------------------------------------------------------------------

BRIEF: dict[str, Any] = {
    "hidden": (4,), "n_members": 2, "n_starts": 2, "adam_steps": 20, "max_iterations": 8, "random_state": 0,
    "n_jobs": 1, "verbose": False,
}  # fmt: skip
EVEN = ["x_0", "x_1**2"]


def rows() -> tuple[Array, Array]:
    """mu of x_0^2 / 2 + x_1^4 - x_1^2."""
    x = np.random.default_rng(3).uniform(-1.0, 1.0, (40, 2))
    return x, np.stack([x[:, 0], 4.0 * x[:, 1] ** 3 - 2.0 * x[:, 1]], axis=1)


@pytest.fixture(scope="module")
def even() -> Any:
    x, mu = rows()
    return IDNN(inputs=EVEN, **BRIEF).fit(x, 300.0, mu=mu)


def test_a_free_energy_has_the_symmetry_of_its_inputs(even: Any) -> None:
    x = np.random.default_rng(4).uniform(-0.7, 0.7, (30, 2))
    turned = x * [1.0, -1.0]
    np.testing.assert_array_equal(even.free_energy(turned, 300.0), even.free_energy(x, 300.0))
    np.testing.assert_array_equal(
        even.chemical_potential(turned, 300.0), even.chemical_potential(x, 300.0) * [1.0, -1.0]
    )


def test_potentials_and_hessians_are_derivatives(even: Any) -> None:
    x, h = np.random.default_rng(5).uniform(-0.7, 0.7, (10, 2)), 1e-5
    mu, bend = even.chemical_potential(x, 300.0), even.hessian(x, 300.0)
    for i in range(2):
        step = h * np.eye(2)[i]
        up, down = (even.free_energy(x + s * step, 300.0) for s in (1.0, -1.0))
        np.testing.assert_allclose(mu[:, i], (up - down) / (2 * h), rtol=0, atol=1e-8)
        up, down = (even.chemical_potential(x + s * step, 300.0) for s in (1.0, -1.0))
        np.testing.assert_allclose(bend[:, i], (up - down) / (2 * h), rtol=0, atol=1e-7)


@pytest.mark.parametrize("make", [IDNN, lambda **how: ZENN(2, coordinate="order", **how)], ids=["IDNN", "ZENN"])
@pytest.mark.parametrize("given_as", ["list", "file", "polynomials"])
def test_a_model_with_polynomials_is_kept(make: Any, given_as: str, tmp_path: Path) -> None:
    x, mu = rows()
    (tmp_path / "h.json").write_text(json.dumps(EVEN), encoding="utf-8")
    inputs: Any = {"list": EVEN, "file": tmp_path / "h.json", "polynomials": Polynomials.parse(EVEN)}[given_as]
    model = make(inputs=inputs, **BRIEF).fit(x, 300.0, mu=mu)
    model.save(tmp_path / "model")
    (tmp_path / "h.json").unlink()
    again = type(model).load(tmp_path / "model")
    np.testing.assert_array_equal(again.chemical_potential(x, 300.0), model.chemical_potential(x, 300.0))
    again.set_params(warm_start=True, max_iterations=3).fit(x, 300.0, mu=mu)
    assert again.design_.inputs == model.design_.inputs


def test_conventions_hold(even: Any) -> None:
    other = clone(even)
    assert other.get_params()["inputs"] == EVEN
    assert clone(IDNN(inputs=Polynomials.parse(EVEN))).inputs == Polynomials.parse(EVEN)


def test_what_models_refuse() -> None:
    x, mu = rows()
    with pytest.raises(ValueError, match="coordinate='order'"):
        ZENN(2, inputs=EVEN).fit(np.full(8, 10.0), np.arange(1.0, 9.0), F=np.arange(8.0))
    with pytest.raises(ValueError, match="inputs must be None"):
        IDNN(inputs=3).fit(x, 300.0, mu=mu)
    with pytest.raises(DataError, match="x_5"):
        IDNN(inputs=["x_5"], **BRIEF).fit(x, 300.0, mu=mu)
    with pytest.raises(DataError, match="2 columns, but inputs are polynomials of 3"):
        IDNN(inputs=Polynomials.parse(["x_0*x_2"]), **BRIEF).fit(x, 300.0, mu=mu)
    with pytest.raises(ValueError, match="construction"):
        DNN(coordinate="order", inputs=EVEN, convexity="construction").fit(x, 300.0, mu=mu)


def test_x_itself_may_be_named() -> None:
    x, mu = rows()
    one, two = IDNN(**BRIEF).fit(x, 300.0, mu=mu), IDNN(inputs="x", **BRIEF).fit(x, 300.0, mu=mu)
    np.testing.assert_array_equal(one.chemical_potential(x, 300.0), two.chemical_potential(x, 300.0))
