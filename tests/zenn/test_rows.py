"""Tables become rows of a fit: units, gaps, densities, weights; and one clear sentence for each that cannot."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quests_zenn._core.checks import DataError
from quests_zenn.zenn._parts import GPA
from quests_zenn.zenn._problem import Rows, orders_for
from quests_zenn.zenn._rows import as_points, as_temperatures, make_rows, relative_to, what_is_known

Array = npt.NDArray[Any]
NAN = float("nan")
V = np.array([10.0, 11.0, 12.0, 13.0, 14.0])
T = np.array([100.0, 200.0, 300.0, 400.0, 500.0])
F = np.array([0.5, 0.2, 0.1, 0.2, 0.4])


def rows_of(
    x: Any = V, heat: Any = T, weight: Any = None, errors: Any = None, coordinate: str = "volume", **given: Any
) -> Rows:
    return make_rows(x, heat, given or {"F": F}, weight, errors, coordinate)


# --- what is kept, and how --------------------------------------------------------------------------------------------


def test_rows_hold_what_was_given() -> None:
    rows = rows_of(F=F, P=[1.0, 2.0, NAN, 4.0, 5.0])
    assert rows.kinds() == ["F", "P"]
    assert len(rows) == 5
    np.testing.assert_array_equal(rows.x, V[:, None])
    np.testing.assert_array_equal(rows.T, T)
    np.testing.assert_array_equal(rows.targets["F"], F)
    np.testing.assert_allclose(rows.targets["P"], np.array([1.0, 2.0, NAN, 4.0, 5.0]) / GPA, rtol=1e-15)
    np.testing.assert_array_equal(rows.weight, 1.0)
    assert rows.errors == {}
    assert rows.cell is None


def test_arrays_of_the_caller_are_left_alone() -> None:
    x, heat, density, weight = V.copy(), np.full(5, 300.0), np.array([1.0, 2.0, 3.0, 2.0, 1.0]), np.ones(5)
    kept = [array.copy() for array in (x, heat, density, weight)]
    for array in (x, heat, density, weight):
        array.setflags(write=False)
    rows = rows_of(x, heat, weight, density=density)
    rows.targets["density"] *= 0.0
    rows.x *= 0.0
    for array, copy in zip((x, heat, density, weight), kept, strict=True):
        np.testing.assert_array_equal(array, copy)
    for give in ("F", "P"):
        values = F.copy()
        made = rows_of(**{give: values})
        made.targets[give] += 1.0
        np.testing.assert_array_equal(values, F)


def test_rows_without_a_target_are_left_out() -> None:
    rows = rows_of(F=[0.5, NAN, 0.1, 0.2, NAN], U=[NAN, NAN, 1.0, 1.0, 2.0])
    np.testing.assert_array_equal(rows.x[:, 0], [10.0, 12.0, 13.0, 14.0])
    np.testing.assert_array_equal(rows.targets["F"], [0.5, 0.1, 0.2, NAN])
    np.testing.assert_array_equal(rows.targets["U"], [NAN, 1.0, 1.0, 2.0])


def test_a_target_without_any_number_is_none() -> None:
    assert rows_of(F=F, S=[NAN] * 5).kinds() == ["F"]


def test_rows_of_weight_zero_are_left_out() -> None:
    rows = rows_of(weight=[2.0, 0.0, 1.0, 1.0, 4.0])
    np.testing.assert_array_equal(rows.x[:, 0], [10.0, 12.0, 13.0, 14.0])
    np.testing.assert_allclose(rows.weight, [1.0, 0.5, 0.5, 2.0])


def test_a_target_known_only_where_weights_are_zero_is_none() -> None:
    rows = rows_of(weight=[0.0, 1.0, 1.0, 1.0, 1.0], F=[1.0, NAN, NAN, NAN, NAN], P=F)
    assert rows.kinds() == ["P"]


@given(st.floats(1e-6, 1e6))
def test_weights_have_no_scale(factor: float) -> None:
    weight = np.array([1.0, 2.0, 0.5, 3.0, 0.1])
    np.testing.assert_allclose(rows_of(weight=factor * weight).weight, rows_of(weight=weight).weight, rtol=1e-13)


def test_one_temperature_goes_for_all_rows() -> None:
    np.testing.assert_array_equal(rows_of(heat=300.0).T, np.full(5, 300.0))
    np.testing.assert_array_equal(as_temperatures(300, 2), [300.0, 300.0])


def test_points_are_columns() -> None:
    assert as_points([1, 2, 3]).shape == (3, 1)
    assert as_points(5.0).shape == (1, 1)
    assert as_points(np.zeros((4, 2))).shape == (4, 2)


def test_chemical_potentials_go_by_component() -> None:
    x = np.arange(10.0).reshape(5, 2)
    mu = x**2
    mu[3, 1] = NAN
    rows = rows_of(x, coordinate="order", mu=mu)
    assert rows.kinds() == ["mu_0", "mu_1"]
    np.testing.assert_array_equal(rows.targets["mu_1"], mu[:, 1])
    one = rows_of(V, coordinate="order", mu=F)
    assert one.kinds() == ["mu_0"]


def test_errors_have_the_unit_of_their_target() -> None:
    rows = rows_of(F=F, P=F, errors={"P": 0.5, "F": [0.1, 0.2, 0.3, 0.4, 0.5]})
    np.testing.assert_allclose(rows.errors["P"], np.full(5, 0.5 / GPA), rtol=1e-15)
    np.testing.assert_array_equal(rows.errors["F"], [0.1, 0.2, 0.3, 0.4, 0.5])
    x = np.arange(10.0).reshape(5, 2)
    for given_errors, second in ((0.1, 0.1), ([0.1, 0.3], 0.3), (np.tile([0.1, 0.3], (5, 1)), 0.3)):
        made = rows_of(x, coordinate="order", mu=x, errors={"mu": given_errors})
        np.testing.assert_array_equal(made.errors["mu_0"], np.full(5, 0.1))
        np.testing.assert_array_equal(made.errors["mu_1"], np.full(5, second))


def test_errors_of_missing_targets_do_not_matter() -> None:
    rows = rows_of(F=[0.5, NAN, 0.1, 0.2, 0.4], U=F, errors={"F": [0.1, NAN, 0.1, 0.1, 0.1]})
    assert len(rows) == 5


# --- densities --------------------------------------------------------------------------------------------------------


def test_densities_become_probabilities_of_each_temperature() -> None:
    """On an uneven grid, in any order, on any scale: p is proportional to density times width, and sums to 1."""
    x = np.array([0.0, 1.0, 3.0, 4.0, 0.0, 2.0, 4.0])
    heat = np.array([300.0] * 4 + [100.0] * 3)
    density = np.array([1.0, 2.0, 3.0, 1.0, 5.0, 5.0, 5.0])
    order = np.array([5, 0, 3, 6, 1, 4, 2])
    rows = rows_of(x[order], heat[order], density=10.0 * density[order], coordinate="order")
    assert (np.diff(rows.T) >= 0.0).all()
    assert rows.cell is not None
    for t, widths in ((300.0, {0.0: 1.0, 1.0: 4 / 3, 3.0: 4 / 3, 4.0: 1.0}), (100.0, {0.0: 2.0, 2.0: 2.0, 4.0: 2.0})):
        here = np.isclose(rows.T, t)
        places = rows.x[here, 0]
        values = {float(v): d for v, d in zip(x[heat == t], density[heat == t], strict=True)}
        slopes = np.gradient(np.sort(places))
        cell = np.array([slopes[np.sort(places).tolist().index(v)] for v in places])
        assert set(places.tolist()) == set(widths)
        np.testing.assert_allclose(rows.cell[here], cell / cell.sum(), rtol=1e-14)
        p = np.array([values[float(v)] for v in places]) * cell
        np.testing.assert_allclose(rows.targets["density"][here], p / p.sum(), rtol=1e-14)
        assert rows.targets["density"][here].sum() == pytest.approx(1.0, rel=1e-14)


def test_a_flat_density_is_the_share_of_each_row() -> None:
    rows = rows_of(V, 300.0, density=np.full(5, 3.0), coordinate="order")
    np.testing.assert_allclose(rows.targets["density"], rows.cell, rtol=1e-14)


def test_densities_of_several_coordinates_count_rows() -> None:
    x = np.random.default_rng(0).normal(size=(5, 2))
    rows = rows_of(x, 300.0, density=[1.0, 1.0, 2.0, 0.0, 4.0], coordinate="order")
    np.testing.assert_allclose(rows.targets["density"], np.array([1, 1, 2, 0, 4]) / 8.0)
    np.testing.assert_allclose(rows.cell, 0.2)


# --- what cannot be used ----------------------------------------------------------------------------------------------


def with_value(values: Array, row: int, value: float) -> Array:
    changed = np.array(values, dtype=float)
    changed[row] = value
    return changed


SENTENCES: list[tuple[dict[str, Any], str]] = [
    ({"x": ["a", "b"]}, r"^x must be numbers, of shape \(n,\) or \(n, q\)$"),
    ({"x": np.zeros((2, 2, 2))}, r"^x must be of shape \(n,\) or \(n, q\), got \(2, 2, 2\)$"),
    ({"x": []}, r"^x must be of shape .*, got \(0,\)$"),
    ({"x": with_value(V, 3, NAN)}, r"^x of row 3 is not finite; leave such rows out$"),
    ({"x": with_value(V, 1, np.inf)}, r"^x of row 1 is not finite"),
    ({"x": with_value(V, 2, -1.0)}, r"^x of row 2 is -1\.0, which is no volume; .*coordinate='order'"),
    ({"x": with_value(V, 4, 0.0)}, r"^x of row 4 is 0\.0, which is no volume"),
    ({"x": np.ones((5, 2))}, r"^x has 2 columns, but a volume is one; .*coordinate='order'"),
    ({"heat": ["warm"] * 5}, r"^T must be numbers, of shape \(n,\)$"),
    ({"heat": T[:3]}, r"^T must hold one temperature for each of the 5 rows of x, got shape \(3,\)$"),
    ({"heat": T[:, None]}, r"^T must hold one temperature .* got shape \(5, 1\)$"),
    ({"heat": with_value(T, 2, 0.0)}, r"^T of row 2 is 0\.0: temperatures must be positive and finite$"),
    ({"heat": with_value(T, 1, -3.0)}, r"^T of row 1 is -3\.0: temperatures must be positive and finite$"),
    ({"heat": with_value(T, 4, NAN)}, r"^T of row 4 is nan: temperatures"),
    ({"heat": -5.0}, r"^T of row 0 is -5\.0: temperatures"),
    ({"F": ["x"] * 5}, r"^F must be numbers, NaN where there is none$"),
    ({"F": F[:4]}, r"^F must hold one number for each of the 5 rows of x, got shape \(4,\)$"),
    ({"U": F[:, None]}, r"^U must hold one number for each of the 5 rows of x, got shape \(5, 1\)$"),
    ({"F": with_value(F, 3, np.inf)}, r"^F of row 3 is infinite; write NaN where there is no value$"),
    ({"S": with_value(F, 0, -np.inf)}, r"^S of row 0 is infinite"),
    ({"F": None}, r"^no target was given: one or more of F, U, P, S, mu, density are needed"),
    ({"F": [NAN] * 5}, r"^no target was given: .* with a number in some row$"),
    ({"F": [0.1, 0.2, NAN, NAN, 0.3]}, r"^3 rows have a target and a weight; a model needs at least 4$"),
    ({"F": F, "weight": [1.0, 1.0, 0.0, 0.0, 1.0]}, r"^3 rows have a target and a weight"),
    ({"P": F, "coordinate": "order"}, r"^P needs x to be a volume; give mu, the derivative of F in x"),
    ({"mu": F[:3]}, r"^mu must be of shape \(5, 1\) as x is, got \(3,\)$"),
    ({"mu": F, "x": np.ones((5, 2)), "coordinate": "order"}, r"^mu must be of shape \(5, 2\) as x is, got \(5,\)$"),
    ({"density": with_value(F, 2, -0.1)}, r"^density of row 2 is negative$"),
    ({"density": with_value(F, 2, NAN), "F": F}, r"^a density must be known in all rows"),
    ({"density": F}, r"^the density at T = 100 has 1 rows; a distribution needs at least 3$"),
    ({"density": F, "heat": 300.0, "x": [10, 11, 11, 12, 13]}, r"^the density at T = 300 holds one x twice$"),
    ({"density": 0.0 * F, "heat": 300.0}, r"^the density at T = 300 is zero everywhere$"),
    ({"weight": ["a"] * 5}, r"^sample_weight must be numbers$"),
    ({"weight": [1.0, 2.0]}, r"^sample_weight must hold one number for each of the 5 rows of x, got shape \(2,\)$"),
    (
        {"weight": with_value(np.ones(5), 3, -1.0)},
        r"^sample_weight of row 3 is -1\.0: weights must be finite and not neg",
    ),
    ({"weight": with_value(np.ones(5), 1, NAN)}, r"^sample_weight of row 1 is nan"),
    ({"weight": np.zeros(5)}, r"^all weights are zero$"),
    ({"errors": {"P": 0.1}, "F": F}, r"^errors of P were given, but P itself was not$"),
    ({"errors": {"F": "small"}}, r"^errors of F must be numbers$"),
    ({"errors": {"F": [0.1, 0.2]}}, r"^errors of F must be one number, or one for each of the 5 rows, got \(2,\)$"),
    ({"errors": {"F": 0.0}}, r"^the error of F in row 0 is 0\.0: errors must be positive$"),
    ({"errors": {"F": with_value(np.ones(5), 2, NAN)}}, r"^the error of F in row 2 is nan: errors must be positive$"),
    ({"errors": {"density": 0.1}, "density": F, "heat": 300.0}, r"^errors of densities are not used; leave them out$"),
]


@pytest.mark.parametrize(("given_", "sentence"), SENTENCES)
def test_bad_tables_get_one_sentence(given_: dict[str, Any], sentence: str) -> None:
    with pytest.raises(DataError, match=sentence) as caught:
        rows_of(**given_)
    assert "\n" not in str(caught.value)


def test_signs_and_gaps_of_densities_are_judged_in_the_same_rows() -> None:
    """A NaN before a negative number: the number of the row is that in the table."""
    with pytest.raises(DataError, match="density of row 3 is negative"):
        rows_of(density=[NAN, 1.0, 1.0, -1.0, 1.0])


# --- what data fix ----------------------------------------------------------------------------------------------------

EVERYTHING = {"F", "S", "U", "C_V", "P", "B", "mu"}
KNOWN: list[tuple[list[str], set[str], str]] = [
    (["F"], EVERYTHING, "F as given"),
    (["F", "density"], EVERYTHING, "F as given"),
    (["P", "U"], EVERYTHING, "U as given; S up to a constant"),
    (["S", "mu_0"], EVERYTHING, "S as given; U and F up to a constant"),
    (["S", "U"], EVERYTHING, "U and S as given"),
    (["density"], {"F", "P", "B", "mu"}, "F up to a function of T"),
    (["mu_0", "mu_1"], {"F", "P", "B", "mu"}, "F up to a function of T"),
    (["P"], {"F", "P", "B", "mu"}, "F up to a function of T"),
    (["U"], {"U", "C_V"}, "U as given"),
    (["S"], {"S", "C_V"}, "S as given"),
    (["density", "U"], EVERYTHING, "U as given; S up to a constant"),
]


@pytest.mark.parametrize(("kinds", "known", "words"), KNOWN)
def test_what_data_fix(kinds: list[str], known: set[str], words: str) -> None:
    assert what_is_known(kinds) == known
    assert relative_to(kinds).startswith(words)


def test_derivatives_that_targets_need() -> None:
    assert set(orders_for(["F"], 1).list) == {(0, 0)}
    assert set(orders_for(["P"], 1).list) == {(0, 0), (1, 0)}
    assert set(orders_for(["S"], 2).list) == {(0, 0, 0), (0, 0, 1)}
    assert set(orders_for(["mu_1", "U"], 2).list) == {(0, 0, 0), (0, 1, 0), (0, 0, 1)}
