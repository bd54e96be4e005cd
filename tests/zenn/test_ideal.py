"""Ideal mixing: exact values, all derivatives, and models that add to it."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from quests_zenn._core.checks import DataError
from quests_zenn.zenn import IdealMixing
from quests_zenn.zenn._ideal import FLOOR, _x_log_x

extra = pytest.mark.extra

#: Checkerboard order on the square lattice: composition, and half the difference of two sublattices.
Q = [[0.5, 0.5], [0.5, -0.5]]
KB = 8.617333262e-5


def plain(x, T, occupations):
    """Term by term: sites are w each, fractions o and 1 - o."""
    total = 0.0
    for y in occupations(x):
        for o in (y, 1.0 - y):
            total += o * math.log(o)
    return KB * T * total / len(occupations(x))


@settings(deadline=None, max_examples=30)
@given(st.floats(0.05, 0.95), st.floats(-0.9, 0.9), st.floats(10.0, 3000.0))
def test_values_are_those_of_the_formula(c, share, T):
    s = share * (min(c, 1.0 - c) - 2 * FLOOR)
    found = IdealMixing.sublattices(Q).derivatives([[c, s]], [T], [(0, 0, 0), (0, 0, 1), (0, 0, 2)], KB)
    exact = plain((c, s), T, lambda x: (x[0] + x[1], x[0] - x[1]))
    assert found[0, 0, 0][0] == pytest.approx(exact, rel=1e-12, abs=1e-15)
    assert found[0, 0, 1][0] == pytest.approx(exact / T, rel=1e-12, abs=1e-18)
    assert found[0, 0, 2][0] == 0.0


def test_an_ideal_solution_has_its_chemical_potential():
    x = np.array([[0.2, 0.5], [0.1, 0.1]])
    T = np.array([300.0, 900.0])
    found = IdealMixing.simplex(2).derivatives(x, T, [(1, 0, 0), (0, 1, 0), (1, 0, 1)], KB)
    rest = 1.0 - x.sum(1)
    np.testing.assert_allclose(found[1, 0, 0], KB * T * np.log(x[:, 0] / rest), rtol=1e-12)
    np.testing.assert_allclose(found[0, 1, 0], KB * T * np.log(x[:, 1] / rest), rtol=1e-12)
    np.testing.assert_allclose(found[1, 0, 1], KB * np.log(x[:, 0] / rest), rtol=1e-12)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.integers(0, 2), min_size=3, max_size=3),
    st.integers(0, 2),
    st.lists(st.floats(-0.02, 1.02), min_size=3, max_size=3),
    st.integers(0, 1),
)
def test_each_order_is_the_slope_of_the_one_below(order, axis, y, of_T):
    """Within the domain, at its edge and outside of it; up to where the parabola ends."""
    Q3 = np.array([[1.0, 1.0, 1.0], [1.0, -1.0, 0.0], [1.0, 1.0, -2.0]]) / 3.0
    mixing = IdealMixing.sublattices(Q3)
    assume(all(abs(o - FLOOR) > 1e-4 for v in y for o in (v, 1.0 - v)))  # third derivatives jump here
    x = Q3 @ np.array(y)
    below, above = (*order, of_T), (*(n + (i == axis) for i, n in enumerate(order)), of_T)
    step = np.zeros(3)
    step[axis] = 1e-6
    ends = mixing.derivatives([x - step, x + step], [700.0, 700.0], [below], 1.0)[below]
    slope = mixing.derivatives([x], [700.0], [above], 1.0)[above][0]
    # terms of sublattices may cancel, and leave their rounding
    terms = np.abs(_x_log_x(mixing.P @ x + mixing.c, sum(order))).max()
    assert (ends[1] - ends[0]) / 2e-6 == pytest.approx(slope, rel=2e-2, abs=1e-3 + 700.0 * 1e-9 * terms)


def test_value_slope_and_curvature_go_on_at_the_floor():
    mixing = IdealMixing([[1.0]], [0.0], [1.0])
    orders = [(0, 0), (1, 0), (2, 0)]
    below, above = (mixing.derivatives([[FLOOR + d]], [1.0], orders, 1.0) for d in (-1e-12, 1e-12))
    for order in orders:
        assert below[order][0] == pytest.approx(above[order][0], rel=1e-8)
    far = mixing.derivatives([[-0.5]], [1.0], orders, 1.0)
    assert np.isfinite([value[0] for value in far.values()]).all()
    assert far[2, 0][0] == 1.0 / FLOOR


@pytest.mark.parametrize(
    ("arrays", "sentence"),
    [
        (([[1.0]], [0.0, 1.0], [1.0]), r"needs P \(n, q\), c \(n,\) and weights"),
        (([[math.nan]], [0.0], [1.0]), "finite numbers"),
        (([[1.0]], [0.0], [0.0]), "positive weights"),
        (([["a"]], [0.0], [1.0]), "arrays of numbers"),
    ],
)
def test_arrays_that_make_no_sense(arrays, sentence):
    with pytest.raises(DataError, match=sentence):
        IdealMixing(*arrays)


def test_matrices_that_make_no_sense():
    with pytest.raises(DataError, match="square matrix"):
        IdealMixing.sublattices([[1.0, 0.0]])
    with pytest.raises(DataError, match="no inverse"):
        IdealMixing.sublattices([[1.0, 1.0], [1.0, 1.0]])
    with pytest.raises(DataError, match="n must lie between 1 and the 2 rows"):
        IdealMixing.sublattices(Q, 3)
    with pytest.raises(DataError, match="P, c and weights"):
        IdealMixing.from_dict({"P": [[1.0]]})
    for wrong in (1.5, "1", True, 0):
        with pytest.raises(ValueError, match="n must be a whole number of at least 1"):
            IdealMixing.sublattices(Q, wrong)
        with pytest.raises(ValueError, match="q must be a whole number of at least 1"):
            IdealMixing.simplex(wrong)
    for wrong in ([[1.0], [1.0, 2.0]], [["a"]], [[1j]], None):
        with pytest.raises(DataError, match="Q is none"):
            IdealMixing.sublattices(wrong)
    with pytest.raises(DataError, match="no inverse"):
        IdealMixing.sublattices([[1.0, 1.0], [1.0, 1.0 + 1e-13]])


@pytest.mark.parametrize("order", [(0, 0), (-1, 0, 0), (0.5, 0, 0), (0, 0, -1)])
def test_orders_that_make_no_sense(order):
    mixing = IdealMixing.sublattices(Q)
    with pytest.raises(ValueError, match="an order names 2 components of x and T"):
        mixing.derivatives([[0.5, 0.0]], [300.0], [order], KB)
    with pytest.raises(DataError, match=r"x must have the shape \(n, 2\)"):
        mixing.derivatives([0.5, 0.0], [300.0], [(0, 0, 0)], KB)


def test_it_is_known_by_what_it_is():
    one, same, other = IdealMixing.sublattices(Q), IdealMixing.sublattices(Q), IdealMixing.simplex(2)
    assert one == same == IdealMixing.from_dict(one.to_dict())
    assert one != other
    assert repr(one) == repr(same) != repr(other)


def alloy(x, T):
    """mu of a regular solution that orders: ideal mixing and 0.2 c (1 - c) - 0.4 s^2."""
    c, s = x.T
    mixing = IdealMixing.sublattices(Q).derivatives(x, T, [(1, 0, 0), (0, 1, 0)], KB)
    return np.stack([mixing[1, 0, 0] + 0.2 * (1.0 - 2.0 * c), mixing[0, 1, 0] - 0.8 * s], axis=1)


def domain(n, seed, edge=0.05):
    y = np.random.default_rng(seed).uniform(edge, 1.0 - edge, (n, 2))
    return y @ np.array(Q).T


@extra
def test_a_model_learns_what_is_left():
    pytest.importorskip("torch")
    from quests_zenn.zenn import IDNN

    x, T = domain(30, 0), np.linspace(400.0, 900.0, 30)
    settings_ = {"hidden": (8,), "n_members": 2, "random_state": 1, "n_jobs": 1, "verbose": False}
    model = IDNN(ideal=IdealMixing.sublattices(Q), **settings_).fit(x, T, mu=alloy(x, T))
    edge = np.array([[0.01, 0.004], [0.985, -0.002], [0.5, 0.488]])  # nearer to the edges than any row
    heat = np.full(3, 600.0)
    with pytest.warns(match="outside the data"):
        np.testing.assert_allclose(model.chemical_potential(edge, heat), alloy(edge, heat), atol=0.02)
    without = IDNN(**settings_).fit(x, T, mu=alloy(x, T))
    with pytest.warns(match="outside the data"):
        assert np.abs(without.chemical_potential(edge, heat) - alloy(edge, heat)).max() > 0.05
    # slopes are those of the whole: dmu/ds of order, at x inside
    inside = np.array([[0.5, 0.1]])
    found = model.derivatives(inside, 600.0, [(0, 2, 0)])[0, 2, 0][0]
    above, below = (alloy(np.array([[0.5, s]]), np.array([600.0]))[0, 1] for s in (0.1 + 1e-5, 0.1 - 1e-5))
    exact = (above - below) / 2e-5
    assert found == pytest.approx(exact, rel=0.1)


@extra
def test_energies_and_entropies_are_split_as_they_are():
    pytest.importorskip("torch")
    from quests_zenn.zenn import ZENN

    x, T = domain(60, 1), np.tile([500.0, 700.0, 900.0], 20)
    ideal = IdealMixing.sublattices(Q)
    mixing = ideal.derivatives(x, T, [(0, 0, 0), (0, 0, 1)], KB)
    U, S = 0.3 * x[:, 0] * (1.0 - x[:, 0]), 3e-5 * x[:, 0] ** 2
    common = {"coordinate": "order", "ideal": ideal, "hidden": (6,), "random_state": 0, "n_jobs": 1, "verbose": False}
    targets = {"F": U - T * S + mixing[0, 0, 0], "U": U, "S": S - mixing[0, 0, 1]}
    model = ZENN(1, n_members=2, **common).fit(x, T, **targets)
    np.testing.assert_allclose(model.internal_energy(x, T), U, atol=3e-3)
    np.testing.assert_allclose(model.entropy(x, T), targets["S"], atol=3e-6)
    model = ZENN(2, n_members=2, max_iterations=10, **common).fit(x, T, **targets)
    parts = model.configurations(x, T)
    whole = (parts["p"] * (parts["F"] + KB * T[:, None] * np.log(parts["p"]))).sum(1)
    member = model.derivatives(x, T, [(0, 0, 0)], members=True)[0, 0, 0][0]
    np.testing.assert_allclose(whole, member, atol=1e-10)
    np.testing.assert_allclose(parts["E"] - T[:, None] * parts["S"], parts["F"], atol=1e-12)


@extra
def test_files_keep_it_and_warm_starts_look_at_it(tmp_path):
    pytest.importorskip("torch")
    from quests_zenn.zenn import IDNN

    x, T = domain(20, 2), np.full(20, 600.0)
    model = IDNN(
        ideal=IdealMixing.sublattices(Q), hidden=(4,), n_members=2, random_state=0, n_jobs=1, verbose=False,
        warm_start=True, max_iterations=20,
    )  # fmt: skip
    model.fit(x, T, mu=alloy(x, T))
    model.save(tmp_path / "m")
    again = IDNN.load(tmp_path / "m")
    np.testing.assert_array_equal(again.chemical_potential(x, T), model.chemical_potential(x, T))
    assert again.ideal == model.ideal
    document = json.loads((tmp_path / "m" / "model.json").read_text(encoding="utf-8"))
    document["settings"]["ideal"] = IdealMixing.simplex(3).to_dict()
    (tmp_path / "m" / "model.json").write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(DataError, match="damaged"):
        IDNN.load(tmp_path / "m")
    cold = IDNN(hidden=(4,), n_members=2, random_state=0, n_jobs=1, verbose=False, max_iterations=20)
    cold.fit(x, T, mu=alloy(x, T))
    model.set_params(ideal=None).fit(x, T, mu=alloy(x, T))
    np.testing.assert_array_equal(model.chemical_potential(x, T), cold.chemical_potential(x, T))


@extra
def test_what_does_not_go_together():
    pytest.importorskip("torch")
    from quests_zenn.zenn import IDNN, ZENN

    x, T = domain(20, 2), np.full(20, 600.0)
    with pytest.raises(ValueError, match="ideal mixing needs coordinate='order'"):
        ZENN(ideal=IdealMixing.simplex(1), verbose=False).fit(np.arange(1.0, 9.0), 300.0, F=np.arange(8.0))
    with pytest.raises(ValueError, match=r"such as IdealMixing\.sublattices"):
        IDNN(ideal="sublattices", verbose=False).fit(x, T, mu=alloy(x, T))
    with pytest.raises(DataError, match="ideal mixing is of 3 order parameters"):
        IDNN(ideal=IdealMixing.simplex(3), verbose=False).fit(x, T, mu=alloy(x, T))
    with pytest.raises(ValueError, match="from a density"):
        IDNN(ideal=IdealMixing.sublattices(Q), verbose=False).fit(x, T, density=np.ones(20))
    for convexity in (0.1, "construction"):
        with pytest.raises(ValueError, match="with ideal mixing use convexity=0"):
            ZENN(coordinate="order", ideal=IdealMixing.sublattices(Q), convexity=convexity, verbose=False).fit(
                x, T, mu=x
            )


@extra
def test_a_part_that_is_not_convex_is_no_violation(monkeypatch):
    """What ideal mixing leaves, an attraction, may bend down where the whole does not."""
    pytest.importorskip("torch")
    from quests_zenn.zenn import ZENN, model

    asked = []
    settings_of = model.FreeEnergyModel._settings
    monkeypatch.setattr(
        model.FreeEnergyModel, "_settings", lambda self, design: asked.append(settings_of(self, design)) or asked[-1]
    )
    x, T = domain(20, 2), np.full(20, 600.0)
    common = {"coordinate": "order", "n_members": 1, "hidden": (3,), "max_iterations": 2, "verbose": False}
    for ideal, convexity in ((None, 0.1), (IdealMixing.sublattices(Q), 0.0)):
        ZENN(2, ideal=ideal, **common).fit(x, T, mu=alloy(x, T))
        assert asked[-1].convexity == convexity


@extra
def test_an_ideal_solution_is_no_failure():
    """All is explained by ideal mixing: what the network adds is nothing, and that is no reason to warn."""
    pytest.importorskip("torch")
    from quests_zenn.zenn import IDNN

    x = domain(30, 3)
    ideal = IdealMixing.sublattices(Q)
    found = ideal.derivatives(x, np.full(30, 600.0), [(1, 0, 0), (0, 1, 0)], KB)
    mu = np.stack([found[1, 0, 0], found[0, 1, 0]], 1) + 1e-4 * np.random.default_rng(0).normal(size=(30, 2))
    model = IDNN(ideal=ideal, hidden=(4,), n_members=2, random_state=0, n_jobs=1, verbose=False).fit(x, 600.0, mu=mu)
    assert np.abs(model.chemical_potential(x, np.full(30, 600.0)) - mu).max() < 1e-3
