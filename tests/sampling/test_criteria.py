"""Criteria against answers known by thought alone; filters and budgets against what they promise."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.polynomial import Polynomial
from scipy.spatial.distance import cdist, pdist

from quests_zenn._core.checks import DataError
from quests_zenn.sampling import criteria
from quests_zenn.sampling._context import Trained
from quests_zenn.sampling._wells import _between
from quests_zenn.sampling.criteria import (
    CRITERIA,
    DEFAULT_CRITERIA,
    NEEDS_MODEL,
    Budget,
    Context,
    check_criteria,
    criterion,
    find_criterion,
    novelty,
    propose,
    spread,
)
from quests_zenn.sampling.domain import Polytope

Array = npt.NDArray[np.float64]

WELL = Polynomial([1.0, 0.0, -2.0, 0.0, 1.0])  # (x^2 - 1)^2
BOWL = Polynomial([0.0, 0.0, 5.0])
FLAT = Polynomial([0.0])

MODEL_FREE = sorted(set(CRITERIA) - NEEDS_MODEL)


class Separable:
    """g = p_1(x_1) + p_2(x_2) + ..., other polynomials for each member."""

    def __init__(self, *members: tuple[Polynomial, ...]) -> None:
        self.members = members
        self.calls: list[int] = []

    def derivatives(self, x: Any, T: Any, orders: Any, members: bool = False) -> dict[tuple[int, ...], Array]:
        x = np.asarray(x, float).reshape(-1, len(self.members[0]))
        self.calls.append(len(x))
        found = {}
        for order in orders:
            assert len(order) == x.shape[1] + 1
            values = np.zeros((len(self.members), len(x)))
            used = [i for i, n in enumerate(order[:-1]) if n]
            for m, parts in enumerate(self.members):
                if not used:
                    values[m] = sum(part(x[:, i]) for i, part in enumerate(parts))
                elif len(used) == 1:
                    values[m] = parts[used[0]].deriv(order[used[0]])(x[:, used[0]])
            found[order] = values if members else values.mean(0)
        return found

    @property
    def n_members_(self) -> int:
        return len(self.members)

    @property
    def n_parameters_(self) -> int:
        return 4 * len(self.members[0])

    @property
    def report_(self) -> dict[str, Any]:
        return {"targets": {f"mu_{i}": {"noise": 0.1} for i in range(len(self.members[0]))}}

    def slopes_of_mu(self, x: Any, T: Any, member: int = 0) -> Array:
        """Of four powers of each component."""
        q = len(self.members[0])
        x = np.asarray(x, float).reshape(-1, q)
        slopes = np.zeros((len(x), q, q, 4))
        for i in range(q):
            slopes[:, i, i] = x[:, i : i + 1] ** np.arange(4)
        return slopes.reshape(len(x), q, 4 * q)


class Ring(Separable):
    """g = (r^2 - 1)^2 + 0.1 y^2: wells at (-1, 0) and (1, 0), a wall of height 1 between them, and a way around it."""

    def __init__(self) -> None:
        super().__init__((FLAT, FLAT))

    def derivatives(self, x: Any, T: Any, orders: Any, members: bool = False) -> dict[tuple[int, ...], Array]:
        a, b = np.asarray(x, float).T
        s = a**2 + b**2 - 1.0
        every = {
            (0, 0, 0): s**2 + 0.1 * b**2,
            (1, 0, 0): 4.0 * a * s,
            (0, 1, 0): 4.0 * b * s + 0.2 * b,
            (2, 0, 0): 4.0 * s + 8.0 * a**2,
            (0, 2, 0): 4.0 * s + 8.0 * b**2 + 0.2,
            (1, 1, 0): 8.0 * a * b,
        }
        return {order: every[order][None] if members else every[order] for order in orders}


def line(low: float = -1.5, high: float = 1.5) -> Polytope:
    return Polytope.box([low], [high])


def square(half: float = 1.5, q: int = 2) -> Polytope:
    return Polytope.box([-half] * q, [half] * q)


def context(domain: Polytope, candidates: Any, model: Any = None, **settings: Any) -> Context:
    settings = {"scale": np.ones(domain.dim), "rng": 0, "T": 300.0, **settings}
    return Context(domain=domain, candidates=candidates, model=model, **settings)


def drawn(domain: Polytope, n: int, seed: int = 0) -> Array:
    return domain.sample(n, method="random", rng=np.random.default_rng(seed))


def rows(points: Array) -> list[tuple[float, ...]]:
    return sorted(map(tuple, points.tolist()))


# known answers --------------------------------------------------------------------------------------------------------


def test_expected_error_names_what_tells_of_most() -> None:
    """mu = a + b x with unit priors: the middle tells of a everywhere, then an end tells of b."""

    class Straight(Separable):
        n_parameters_ = 2

        def slopes_of_mu(self, x: Any, T: Any, member: int = 0) -> Array:
            x = np.asarray(x, float).reshape(-1)
            return np.stack([np.ones(len(x)), x], axis=1)[:, None]

    x = np.linspace(-1.0, 1.0, 21)[:, None]
    model = Straight((BOWL,))
    # after the middle x^2 / 3 of the variance is left on average, after an end (1 -+ x)^2 / 2
    first = CRITERIA["expected-error"](context(line(), x, model), 2)[:2, 0]
    assert np.abs(first).tolist() == [0.0, 1.0]
    known = {"known_x": [[-1.0]], "known_mu": [[0.3]]}
    assert CRITERIA["expected-error"](context(line(), x, model, **known), 1)[0, 0] == 1.0
    # where nothing was measured nothing is known
    unknown = {"known_x": [[0.0]], "known_mu": [[np.nan]]}
    again = CRITERIA["expected-error"](context(line(), x, model, **unknown, min_distance=0.01), 1)[0, 0]
    assert abs(again) == pytest.approx(0.1)


def test_expected_error_believes_rows_as_far_as_they_were_believed() -> None:
    """A row of a large error, or of little weight, tells next to nothing."""

    class Flat(Separable):
        n_parameters_ = 2

        def slopes_of_mu(self, x: Any, T: Any, member: int = 0) -> Array:
            x = np.asarray(x, float).reshape(-1)
            return np.stack([x < 0.0, x >= 0.0], axis=1)[:, None].astype(float)

    x = np.array([[-1.0], [1.0]])
    behind = np.array([[-1.1], [1.1]])

    def first(error: tuple[float, float], weight: tuple[float, float]) -> float:
        trained = Trained(behind, np.full(2, 300.0), np.zeros((2, 1)), np.array(error)[:, None], np.array(weight))
        return float(CRITERIA["expected-error"](context(line(), x, Flat((BOWL,)), trained=trained), 1)[0, 0])

    assert first((0.3, 0.01), (1.0, 1.0)) == -1.0
    assert first((0.01, 0.3), (1.0, 1.0)) == 1.0
    assert first((np.nan, np.nan), (0.1, 1.9)) == -1.0
    assert first((np.nan, np.nan), (1.9, 0.1)) == 1.0


def test_expected_error_buys_nothing_where_nothing_can_be_measured() -> None:
    """Two halves of a line alike but for the errors that rows came with: the quiet half is asked."""

    class Halves(Separable):
        n_parameters_ = 2

        def slopes_of_mu(self, x: Any, T: Any, member: int = 0) -> Array:
            x = np.asarray(x, float).reshape(-1)
            return np.stack([x < 0.0, x >= 0.0], axis=1)[:, None].astype(float)

    x = np.array([[-1.0], [1.0]])
    for quiet, loud in ((-1.0, 1.0), (1.0, -1.0)):
        trained = Trained(
            np.array([[1.1 * quiet], [1.1 * loud]]),
            np.full(2, 300.0),
            np.zeros((2, 1)),
            np.array([[0.5], [50.0]]),
            np.ones(2),
        )
        assert CRITERIA["expected-error"](context(line(), x, Halves((BOWL,)), trained=trained), 1)[0, 0] == quiet


def test_expected_error_compares_fewer_where_models_are_large(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    class Counted(Separable):
        def slopes_of_mu(self, x: Any, T: Any, member: int = 0) -> Array:
            found = super().slopes_of_mu(x, T, member)
            asked.append(len(found))
            return found

    domain = square()
    here = context(domain, drawn(domain, 300), Counted((WELL, BOWL)), known_x=drawn(domain, 50, 2))
    whole = CRITERIA["expected-error"](here, 3)
    monkeypatch.setattr(criteria, "SLOPES", 2 * 8 * 20)  # 20 points of two components and eight parameters
    asked.clear()
    few = CRITERIA["expected-error"](here, 3)
    assert asked == [20, 20, 10, 20]  # known ones in pieces, then candidates
    assert len(few) == len(whole) == 5
    monkeypatch.setattr(criteria, "SLOPES", 16)
    assert len(CRITERIA["expected-error"](here, 3)) == 5  # at least enough to choose from


def test_expected_error_of_very_large_models_is_the_committee(monkeypatch: pytest.MonkeyPatch) -> None:
    """No matrix of all pairs of parameters is made."""
    monkeypatch.setattr(criteria, "LARGEST", 7)  # these have eight
    domain = square()
    here = context(domain, drawn(domain, 50), Separable((WELL, BOWL), (BOWL, BOWL)))
    np.testing.assert_array_equal(CRITERIA["expected-error"](here, 3), CRITERIA["committee"](here, 3))
    alone = context(domain, drawn(domain, 50), Separable((WELL, BOWL)))
    assert len(CRITERIA["expected-error"](alone, 3)) == 0
    _, names = propose(alone, {"expected-error": 3})
    assert names == ["space-filling"] * 3


def test_expected_error_needs_slopes() -> None:
    class Without:
        derivatives = Separable((WELL,)).derivatives

    with pytest.raises(ValueError, match="needs a model that has slopes_of_mu"):
        CRITERIA["expected-error"](context(line(), drawn(line(), 5), Without()), 1)


def test_sets_are_not_filtered() -> None:
    """Of points that were chosen together the novelty filter takes none away."""
    domain = square()
    here = context(domain, drawn(domain, 200), Separable((WELL, BOWL)), known_x=drawn(domain, 5, 2))
    points, names = propose(here, {"expected-error": 8}, fill=False)
    assert names == ["expected-error"] * 8
    np.testing.assert_array_equal(points, CRITERIA["expected-error"](here, 8)[:8])


def test_committee_names_the_largest_disagreement_first() -> None:
    # mu of the members differs by 3 a x^2: the farther from 0, the more
    model = Separable(*((Polynomial([0.0, 0.0, 1.0, a]),) for a in (-1.0, 0.0, 1.0)))
    x = drawn(line(), 50)
    found = CRITERIA["committee"](context(line(), x, model), 5)
    assert found.shape == (20, 1)
    np.testing.assert_array_equal(found, x[np.argsort(-np.abs(x[:, 0]))][:20])


def test_committee_weighs_components_by_how_far_mu_spreads() -> None:
    # members differ by x_0 along the first axis and by x_1 / 10 along the second
    model = Separable(
        (Polynomial([0.0, 0.0, 0.5]), Polynomial([0.0, 0.0, 0.05])),
        (Polynomial([0.0, 0.0, -0.5]), -Polynomial([0.0, 0.0, 0.05])),
    )
    x = np.array([[1.0, 0.0], [0.0, 1.0], [0.1, 0.1]])
    known = {"known_x": np.array([[-1.0, -1.0], [-1.2, -1.2]])}
    wide = context(square(), x, model, known_mu=np.array([[-1.0, -1.0], [1.0, 1.0]]), **known)
    tight = context(square(), x, model, known_mu=np.array([[-1.0, -0.01], [1.0, 0.01]]), **known)
    assert CRITERIA["committee"](wide, 1)[0].tolist() == [1.0, 0.0]
    assert CRITERIA["committee"](tight, 1)[0].tolist() == [0.0, 1.0]


def test_committee_of_one_has_nothing_to_disagree_about() -> None:
    with pytest.raises(ValueError, match="two members or more"):
        CRITERIA["committee"](context(line(), drawn(line(), 5), Separable((WELL,))), 1)


def test_sensitivity_is_really_sorted() -> None:
    x = drawn(line(), 60)
    found = CRITERIA["sensitivity"](context(line(), x, Separable((WELL,))), 5)[:, 0]
    size = np.abs(12.0 * x[:, 0] ** 2 - 4.0)
    np.testing.assert_array_equal(found, x[np.argsort(-size), 0][:20])
    # a bend downwards counts as much as one upwards
    x = np.array([[0.0], [0.8], [0.6]])
    assert CRITERIA["sensitivity"](context(line(), x, Separable((WELL,))), 1)[0, 0] == 0.0


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_non_convex_looks_at_the_smallest_eigenvalue(axis: int) -> None:
    parts = [BOWL, 3.0 * BOWL, 2.0 * BOWL]
    parts[axis] = WELL
    domain = square(q=3)
    x = drawn(domain, 80)
    found = CRITERIA["non-convex"](context(domain, x, Separable(tuple(parts))), 100)
    unstable = x[np.abs(x[:, axis]) < np.sqrt(1.0 / 3.0)]
    np.testing.assert_array_equal(found, unstable[np.argsort(np.abs(unstable[:, axis]))])


def test_non_convex_below_a_tolerance() -> None:
    x = drawn(line(), 200)
    found = CRITERIA["non-convex"](context(line(), x, Separable((WELL,)), tolerance=-2.0), 100)
    assert rows(found) == rows(x[12.0 * x[:, 0] ** 2 - 4.0 < -2.0])
    assert len(CRITERIA["non-convex"](context(line(), x, Separable((BOWL,))), 5)) == 0


def test_eigenvalues_are_those_of_the_hessian_in_units_of_scale() -> None:
    x = drawn(square(), 30)
    here = context(square(), x, Ring(), scale=[2.0, 0.5])
    for i, point in enumerate(x):
        a, b = point
        s = a**2 + b**2 - 1.0
        hessian = np.array([[4 * s + 8 * a * a, 8 * a * b], [8 * a * b, 4 * s + 8 * b * b + 0.2]])
        hessian = hessian * np.outer([2.0, 0.5], [2.0, 0.5])
        values = here.eigenvalues[i]
        assert values[0] <= values[1]
        np.testing.assert_allclose(values.sum(), np.trace(hessian), atol=1e-12)
        np.testing.assert_allclose(values.prod(), np.linalg.det(hessian), atol=1e-12)
        np.testing.assert_allclose(hessian @ here.eigenvectors[i], here.eigenvectors[i] * values, atol=1e-12)


def test_high_error_goes_to_where_predictions_were_worst() -> None:
    known = np.array([[-1.0], [0.0], [0.5], [1.0]])
    error = [0.1, np.nan, 3.0, 1.0]
    x = np.arange(-150, 151)[:, None] / 100.0 + 0.003
    here = context(line(), x, known_x=known, known_error=error)
    found = CRITERIA["high-error"](here, 3)[:, 0]
    # around 0.5, then 1, then -1; never around 0
    np.testing.assert_allclose(found[:3], [0.503, 1.003, -0.997], atol=1e-12)
    assert len(found) == 12
    assert not np.any(np.abs(found) < 0.4)
    for nothing in ([np.nan] * 4, [0.0] * 4, None):
        assert len(CRITERIA["high-error"](context(line(), x, known_x=known, known_error=nothing), 3)) == 0


def test_wells_are_convex_with_small_mu() -> None:
    domain = square()
    here = context(domain, drawn(domain, 2000), Separable((WELL, BOWL)))
    centres = here.well_centres
    assert len(centres) == 2
    assert np.abs(np.abs(centres) - [1.0, 0.0]).max() < 0.15
    mu = np.stack([4 * centres[:, 0] * (centres[:, 0] ** 2 - 1), 10 * centres[:, 1]], 1)
    assert np.diff(np.linalg.norm(mu, axis=1))[0] >= 0.0
    found = CRITERIA["wells"](here, 10)
    assert len(found) == 40
    near = cdist(found, [[-1.0, 0.0], [1.0, 0.0]])
    assert near.min(1).max() < 1.0
    assert (near.argmin(1) == 0).sum() > 10
    assert (near.argmin(1) == 1).sum() > 10


def test_wells_that_were_measured_count_too() -> None:
    known = np.array([[-1.0], [0.0], [1.0]])
    here = context(line(), [[1.4]], Separable((WELL,)), known_x=known, known_mu=np.array([[0.01], [0.0], [0.02]]))
    assert here.well_centres[:, 0].tolist() == [-1.0, 1.0]


def test_no_wells() -> None:
    # convex everywhere, with its minimum far outside; flat; concave
    for model in (Separable((Polynomial([0.0, -20.0, 1.0]),)), Separable((FLAT,)), Separable((-BOWL,))):
        here = context(line(), drawn(line(), 200), model)
        assert len(here.well_centres) == 0
        assert len(CRITERIA["wells"](here, 5)) == 0
        assert len(CRITERIA["path"](here, 5)) == 0


def test_a_plane_moves_wells() -> None:
    # mu = 10 x: where the surroundings hold it at 5, the well lies at 0.5
    x = drawn(line(), 400)
    found = context(line(), x, Separable((BOWL,)), plane=[5.0]).well_centres
    assert abs(found[0, 0] - 0.5) < 0.02
    minimum = CRITERIA["predicted-wells"](context(line(), x, Separable((BOWL,)), plane=[5.0]), 1)
    np.testing.assert_allclose(minimum, [[0.5]], atol=1e-4)


def test_conserved_components_have_wells_at_any_potential() -> None:
    # along the first axis mu is nowhere small; along the second the wells are at -1 and 1
    domain = square()
    slope = Polynomial([0.0, 30.0, 1.0])
    x = drawn(domain, 3000)
    assert len(context(domain, x, Separable((slope, WELL))).well_centres) == 0
    centres = context(domain, x, Separable((slope, WELL)), conserved=[0]).well_centres
    assert len(centres) > 4
    assert np.abs(np.abs(centres[:, 1]) - 1.0).max() < 0.2
    assert np.ptp(centres[:, 0]) > 1.0
    found = CRITERIA["predicted-wells"](context(domain, x, Separable((slope, WELL)), conserved=[0]), 3)
    assert len(found) > 2
    np.testing.assert_allclose(np.abs(found[:, 1]), 1.0, atol=1e-3)


def test_without_wells_in_sight_a_minimum_is_one_at_the_potential_of_its_start() -> None:
    # from (0, 0.3), where mu_0 = 30 and nothing is convex: g - 30 x_0 = x_0^2 + (x_1^2 - 1)^2
    here = context(square(), [[0.0, 0.3]], Separable((Polynomial([0.0, 30.0, 1.0]), WELL)), conserved=[0])
    assert len(here.well_centres) == 0
    np.testing.assert_allclose(CRITERIA["predicted-wells"](here, 1), [[0.0, 1.0]], atol=1e-3)


def test_a_path_along_a_composition_is_judged_from_the_plane_through_its_ends() -> None:
    here = context(square(q=3), np.zeros((1, 3)), conserved=[0, 2], plane=[0.5, 0.25, 0.0], scale=[1.0, 2.0, 3.0])
    a, b = np.array([0.1, 0.2, 0.3]), np.array([1.1, -0.4, 0.9])
    slope = _between(here, a, b, 7.0)
    assert slope @ (b - a) == pytest.approx(7.0)
    assert slope[1] == 0.25
    free = context(square(q=3), np.zeros((1, 3)), plane=[0.5, 0.25, 0.0])
    assert _between(free, a, b, 7.0).tolist() == [0.5, 0.25, 0.0]


def test_predicted_wells_are_minima_lowest_first() -> None:
    tilted = WELL + Polynomial([0.0, 0.1])
    roots = np.sort(tilted.deriv().roots().real)
    found = CRITERIA["predicted-wells"](context(line(), drawn(line(), 100), Separable((tilted,))), 4)
    np.testing.assert_allclose(found[:, 0], [roots[0], roots[2]], atol=1e-4)
    domain = square()
    found = CRITERIA["predicted-wells"](context(domain, drawn(domain, 500), Separable((tilted, BOWL))), 4)
    np.testing.assert_allclose(found, [[roots[0], 0.0], [roots[2], 0.0]], atol=1e-3)


def test_predicted_wells_stay_inside() -> None:
    # a corner is cut off where the well would be: the lowest point of what is left
    domain = Polytope(np.array([[1.0, 0], [-1, 0], [0, 1], [0, -1], [1, 1]]), np.array([1.0, 1, 1, 1, 0.5]))
    far = (Polynomial([0.0, -2.0, 1.0]), Polynomial([0.0, -2.0, 1.0]))  # its minimum is at (1, 1)
    found = CRITERIA["predicted-wells"](context(domain, drawn(domain, 300), Separable(far)), 1)
    np.testing.assert_allclose(found[0], [0.25, 0.25], atol=1e-4)
    assert domain.contains(found).all()


def test_a_path_goes_around_the_wall() -> None:
    domain = square(1.6)
    here = context(domain, drawn(domain, 3000), Ring())
    # the valley is bent and soft: |mu| is small all along it, but there are two wells
    centres = here.well_centres
    assert len(centres) == 2
    assert cdist(centres, [[-1.0, 0.0], [1.0, 0.0]]).min(0).max() < 0.35
    found = CRITERIA["path"](here, 5)
    assert len(found) == 20
    r = np.linalg.norm(found, axis=1)
    assert r.min() > 0.8
    assert r.max() < 1.2
    # the first is half way: on top of the pass
    assert abs(found[0, 0]) < 0.35
    # one side only, all the way
    assert len(set(np.sign(found[np.abs(found[:, 1]) > 0.35, 1]))) == 1
    assert np.ptp(found[:, 0]) > 1.5


def test_a_path_in_one_dimension_lies_between_the_wells() -> None:
    found = CRITERIA["path"](context(line(), drawn(line(), 300), Separable((WELL,))), 2)
    assert len(found) == 8
    assert np.abs(found).max() < 1.0
    assert abs(found[0, 0]) < 0.15


def test_vertices_begin_with_end_members() -> None:
    domain = Polytope.simplex(2)
    found = CRITERIA["vertices"](context(domain, drawn(domain, 10)), 1)
    assert rows(np.round(found, 9) + 0.0) == [(0.0, 0.0), (0.0, 1.0), (1.0, 0.0)]
    cube = Polytope.box([0, 0, 0], [1, 2, 3])
    found = CRITERIA["vertices"](context(cube, drawn(cube, 10)), 2)
    assert len(found) == 8
    assert len(np.unique(np.round(found, 9), axis=0)) == 8
    np.testing.assert_allclose(found[0], [0, 0, 0], atol=1e-9)
    assert domain.contains(CRITERIA["vertices"](context(domain, drawn(domain, 10)), 1)).all()


def test_space_filling_of_a_pool_takes_the_farthest() -> None:
    x = np.arange(9)[:, None] / 8.0
    here = context(line(), x, only_candidates=True, known_x=[[0.0]], surplus=1)
    assert CRITERIA["space-filling"](here, 3)[:, 0].tolist() == [1.0, 0.5, 0.25]
    # with nothing known it begins in the middle of the domain
    assert CRITERIA["space-filling"](context(line(), x, only_candidates=True, surplus=1), 2)[:, 0].tolist() == [
        0.0,
        1.0,
    ]


def test_space_filling_covers_every_part() -> None:
    for name in ("space-filling", "billiard", "hit-and-run", "random"):
        found = CRITERIA[name](context(square(1.0), np.empty((0, 2))), 64)
        assert len(found) == 256
        counts = np.histogram2d(found[:, 0], found[:, 1], bins=4, range=np.array([[-1.0, 1.0]] * 2))[0]
        assert counts.sum() == 256
        # 16 each on average
        assert counts.min() >= (8 if name == "space-filling" else 1)


def test_slices_are_flat() -> None:
    domain = Polytope.simplex(4)
    here = context(domain, drawn(domain, 20), slices=[(1, 3)])
    found = CRITERIA["space-filling-2d"](here, 12)
    assert len(found) == 48
    assert domain.contains(found).all()
    # the components 0 and 2 are fixed: at the centre, or drawn in from (0, 0), (0, 1) or (1, 0)
    fixed = np.unique(np.round(found[:, [0, 2]], 9), axis=0)
    centre = domain.centre[[0, 2]]
    ends = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    expected = np.concatenate([centre[None], ends + 0.1 * (centre - ends)])
    np.testing.assert_allclose(fixed, expected[np.lexsort(expected.T[::-1])], atol=1e-8)
    assert len(np.unique(np.round(found[:, [1, 3]], 9), axis=0)) == 48
    model = Separable((BOWL,) * 4)
    assert len(CRITERIA["space-filling-2d"](context(domain, drawn(domain, 500), model), 12)) == 48


def test_best_is_sorted_apart_and_passes_over_what_is_near_known_points() -> None:
    x = drawn(line(), 400)
    here = context(line(), x, known_x=[[0.9]], min_distance=0.1)
    found = x[here.best(x[:, 0], 6), 0]
    assert (np.diff(found) < -0.1).all()
    assert not np.any(np.abs(found - 0.9) <= 0.1)
    assert found[0] == x.max()
    eligible = x[:, 0] < 0.0
    assert x[here.best(x[:, 0], 1, eligible), 0] == x[eligible].max()


# the model is asked once ----------------------------------------------------------------------------------------------


def test_candidates_are_predicted_once_for_all_criteria() -> None:
    domain = square()
    model = Separable((WELL, BOWL), (1.1 * WELL, BOWL))
    x = drawn(domain, 20_000)
    here = context(domain, x, model, known_x=drawn(domain, 10, 1), known_mu=np.zeros((10, 2)), known_error=np.ones(10))
    points, _ = propose(here, dict.fromkeys(CRITERIA, 2))
    assert len(points) == 2 * len(CRITERIA)
    large = [n for n in model.calls if n > 500]
    assert sum(large) == 20_000
    assert len(large) == 3


# edges ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(NEEDS_MODEL))
def test_criteria_of_a_model_say_so_before_the_first_fit(name: str) -> None:
    here = context(line(), drawn(line(), 5))
    with pytest.raises(ValueError, match="no fitted model yet"):
        CRITERIA[name](here, 1)
    with pytest.raises(
        ValueError, match=f"'{name}' needs a fitted model; before the first fit use one of space-filling"
    ):
        propose(here, {name: 1})
    assert len(propose(here, {name: 0, "random": 2})[0]) == 2


@pytest.mark.parametrize("only", [False, True])
@pytest.mark.parametrize("q", [1, 2, 3])
@pytest.mark.parametrize("name", sorted(CRITERIA))
def test_every_criterion_stays_in_the_domain_and_is_reproducible(name: str, q: int, only: bool) -> None:
    domain = square(q=q)
    model = Separable((WELL,) + (BOWL,) * (q - 1), (0.9 * WELL,) + (BOWL,) * (q - 1))
    x = drawn(domain, 300)
    known = drawn(domain, 6, 1)

    def once() -> Context:
        return context(
            domain, x, model, known_x=known, known_mu=known, known_error=np.arange(6.0), only_candidates=only,
            min_distance=0.01, rng=5,
        )  # fmt: skip

    found = CRITERIA[name](once(), 4)
    assert found.shape[1] == q
    assert len(found) >= 1
    assert domain.contains(found).all()
    np.testing.assert_array_equal(found, CRITERIA[name](once(), 4))
    points, names = propose(once(), {name: 4})
    assert len(points) == 4
    assert set(names) <= {name, "space-filling"}
    if only:
        assert set(map(tuple, points)) <= set(map(tuple, x))


@pytest.mark.parametrize("model", [Separable((FLAT, FLAT), (FLAT, FLAT)), None], ids=["flat", "none"])
def test_flat_free_energies_leave_distances(model: Any) -> None:
    domain = square()
    here = context(domain, drawn(domain, 100), model, known_x=drawn(domain, 5, 2))
    points, names = propose(here, {"random": 10})
    assert Counter(names) == {"random": 10}
    if model is not None:
        # all are equally good, and none is missing
        points, names = propose(here, {"committee": 5, "sensitivity": 5, "non-convex": 5, "wells": 5})
        assert Counter(names) == {"committee": 5, "sensitivity": 5, "space-filling": 10}
        assert pdist(points).min() > 0.0


def test_predictions_that_are_not_numbers_are_passed_over() -> None:
    class Broken(Separable):
        def derivatives(self, x: Any, T: Any, orders: Any, members: bool = False) -> dict[tuple[int, ...], Array]:
            found = super().derivatives(x, T, orders, members)
            bad = np.asarray(x).reshape(-1) > 0.5
            for value in found.values():
                value[..., bad] = np.nan
            return found

    x = drawn(line(), 300)
    here = context(line(), x, Broken((WELL,), (0.5 * WELL,)), known_x=[[0.2], [1.2]], known_mu=[[0.0], [0.0]])
    for name in sorted(NEEDS_MODEL):
        found = CRITERIA[name](here, 4)
        assert len(found) > 0 or name == "path"
        # what is drawn around a well may lie a little further
        assert (found <= (0.5 if name != "wells" else 1.2)).all()
    everywhere = Separable((Polynomial([np.nan]),), (WELL,))
    here = context(line(), x, everywhere)
    for name in sorted(NEEDS_MODEL):
        assert len(CRITERIA[name](here, 4)) == 0
    points, names = propose(here, dict.fromkeys(sorted(NEEDS_MODEL), 2))
    assert names == ["space-filling"] * 2 * len(NEEDS_MODEL)
    assert len(points) == len(names)


@pytest.mark.parametrize("count", [0, 1, 3])
def test_fewer_candidates_than_points(count: int) -> None:
    domain = square()
    model = Separable((WELL, BOWL), (0.9 * WELL, BOWL))
    x = drawn(domain, count)
    known = drawn(domain, 4, 1)
    here = context(domain, x, model, known_x=known, known_error=np.ones(4), only_candidates=True)
    for name in sorted(CRITERIA):
        assert len(CRITERIA[name](here, 5)) <= count
    points, names = propose(here, dict.fromkeys(CRITERIA, 5))
    assert rows(points) == rows(x)
    assert len(names) == count
    # all asked before: nothing is left
    here = context(domain, x, model, known_x=np.concatenate([x, known]), only_candidates=True)
    assert len(propose(here, {"random": 3})[0]) == 0


def test_candidates_outside_are_never_named() -> None:
    x = np.array([[0.0], [5.0], [1.0]])
    here = context(line(), x, Separable((WELL,), (0.5 * WELL,)), only_candidates=True)
    points, _ = propose(here, dict.fromkeys(CRITERIA, 3))
    assert rows(points) == [(0.0,), (1.0,)]


def test_arguments_are_judged() -> None:
    x = drawn(square(), 5)
    with pytest.raises(DataError, match=r"candidates has shape \(5, 2\), expected \(n, 1\)"):
        context(line(), x)
    with pytest.raises(DataError, match="candidates must be finite"):
        context(line(), [[np.nan]])
    with pytest.raises(DataError, match="2 known points have 1 rows of mu and 2 errors"):
        context(line(), [[0.0]], known_x=[[0.0], [1.0]], known_mu=[[0.0]])
    with pytest.raises(DataError, match="scale must hold 2 positive lengths"):
        context(square(), x, scale=[1.0, 0.0])
    with pytest.raises(DataError, match="plane must hold 2"):
        context(square(), x, plane=[1.0])
    with pytest.raises(ValueError, match="conserved must leave"):
        context(line(), [[0.0]], conserved=[0])
    with pytest.raises(ValueError, match="slices names component 2"):
        context(square(), x, slices=[(0, 2)])
    with pytest.raises(ValueError, match="two axes of a slice must differ"):
        context(square(), x, slices=[(1, 1)])
    with pytest.raises(ValueError, match="min_distance must not be negative"):
        context(square(), x, min_distance=-1.0)
    with pytest.raises(ValueError, match="min_distance must not be negative"):
        propose(context(square(), x), {"random": 1}, min_distance=-1.0)
    with pytest.raises(ValueError, match="surplus must be at least 1"):
        context(square(), x, surplus=0.5)
    with pytest.raises(ValueError, match="the budget of 'random'"):
        propose(context(square(), x), {"random": -1})
    with pytest.raises(DataError, match="do not go together"):
        novelty(x, [[0.0]])
    with pytest.raises(DataError, match=r"5 points, but eigenvalues of shape \(2,\)"):
        novelty(x, x, [1.0, 2.0])
    with pytest.raises(DataError, match="scale must hold"):
        spread(x, x, scale=[1.0])
    with pytest.raises(DataError, match="must be finite"):
        spread([[np.nan]])
    with pytest.raises(ValueError, match="min_distance must not be negative"):
        spread(x, x, -1.0)


def test_points_that_failed_have_no_place() -> None:
    here = context(line(), [[0.0]], known_x=[[np.nan], [1.0]], known_mu=[[1.0], [2.0]], known_error=[3.0, 4.0])
    assert here.old.tolist() == [[1.0]]
    assert here.measured.tolist() == [[2.0]]
    assert here.errors.tolist() == [4.0]


# names ----------------------------------------------------------------------------------------------------------------


def test_unknown_names_get_a_suggestion() -> None:
    with pytest.raises(ValueError, match="no criterion 'comittee'; did you mean 'committee'"):
        find_criterion("comittee")
    with pytest.raises(ValueError, match="there are space-filling, "):
        find_criterion("xyz")
    with pytest.raises(ValueError, match="did you mean 'non-convex'"):
        propose(context(line(), [[0.0]]), {"nonconvex": 1})
    with pytest.raises(ValueError, match="did you mean 'wells'"):
        check_criteria({"wels": 1.0})


def test_shares_are_judged() -> None:
    assert check_criteria(None) == DEFAULT_CRITERIA
    assert check_criteria({"wells": 2, "random": 0}) == {"wells": 2.0, "random": 0.0}
    with pytest.raises(ValueError, match="must not be negative"):
        check_criteria({"wells": -1.0})
    with pytest.raises(ValueError, match="one share or more"):
        check_criteria({"wells": 0.0})
    with pytest.raises(ValueError, match="one share or more"):
        check_criteria({})


def test_a_new_criterion_takes_one_line() -> None:
    before = dict(CRITERIA)
    try:

        @criterion("rightmost")
        def rightmost(context: Context, n: int) -> Array:
            return context.x[context.best(context.x[:, 0], context.many(n))]

        x = drawn(line(), 20)
        points, names = propose(context(line(), x), {"rightmost": 2})
        assert points[:, 0].tolist() == np.sort(x[:, 0])[::-1][:2].tolist()
        assert names == ["rightmost"] * 2
        criterion("rightmost")(rightmost)
        with pytest.raises(ValueError, match="there is a criterion 'rightmost' already"):
            criterion("rightmost")(CRITERIA["wells"])

        @criterion("wrong")
        def wrong(context: Context, n: int) -> Array:
            return np.zeros((n, 7))

        with pytest.raises(DataError, match=r"'wrong' returned an array of shape \(2, 7\), not \(n, 1\)"):
            propose(context(line(), x), {"wrong": 2})

        @criterion("outside")
        def outside(context: Context, n: int) -> Array:
            return np.array([[9.0], [np.nan], [0.5]])

        points, names = propose(context(line(), x), {"outside": 3}, fill=False)
        assert points.tolist() == [[0.5]]
    finally:
        CRITERIA.clear()
        CRITERIA.update(before)


# a round --------------------------------------------------------------------------------------------------------------


def full(seed: int = 3, order: Any = slice(None), **settings: Any) -> Context:
    domain = square()
    known = drawn(domain, 12, 1)
    return context(
        domain,
        drawn(domain, 400)[order],
        Separable((WELL, BOWL), (0.9 * WELL, 1.2 * BOWL), (1.05 * WELL, BOWL)),
        **{
            "known_x": known,
            "known_mu": known,
            "known_error": np.linspace(0, 1, 12),
            "rng": seed,
            "min_distance": 0.02,
            **settings,
        },
    )


def test_a_round_has_all_its_points_apart() -> None:
    budgets = dict.fromkeys(CRITERIA, 3)
    points, names = propose(full(), budgets)
    assert len(points) == len(names) == sum(budgets.values())
    assert full().domain.contains(points).all()
    assert pdist(points).min() > 0.02
    assert cdist(points, full().old).min() > 0.02
    # nobody gets more than its budget, but for what fills
    counts = Counter(names)
    assert all(counts[name] <= 3 for name in CRITERIA if name != "space-filling")
    assert counts["committee"] == counts["sensitivity"] == counts["high-error"] == 3


def test_the_same_seed_gives_the_same_points() -> None:
    budgets = dict.fromkeys(CRITERIA, 3)
    points, names = propose(full(), budgets)
    again, others = propose(full(), dict(reversed(budgets.items())))
    np.testing.assert_array_equal(points, again)
    assert names == others
    assert not np.array_equal(points, propose(full(seed=4), budgets)[0])


def test_what_others_are_asked_does_not_change_the_first() -> None:
    alone, names = propose(full(), {"space-filling": 4})
    both, _ = propose(full(), {"space-filling": 4, "committee": 4})
    assert names == ["space-filling"] * 4
    np.testing.assert_array_equal(alone, both[:4])


@pytest.mark.parametrize("only", [False, True])
def test_the_order_of_candidates_and_known_points_means_nothing(only: bool) -> None:
    budgets = {
        "committee": 3, "sensitivity": 3, "non-convex": 3, "high-error": 3, "vertices": 2, "wells": 2,
        "space-filling": 2, "predicted-wells": 1,
    }  # fmt: skip
    order = np.random.default_rng(8).permutation(400)
    turned = np.random.default_rng(9).permutation(12)
    here, there = full(only_candidates=only), full(order=order, only_candidates=only)
    there = full(
        order=order,
        only_candidates=only,
        known_x=here.old[turned],
        known_mu=here.measured[turned],
        known_error=here.errors[turned],
    )
    # where a draw decides what is usual, it takes all candidates here
    points, names = propose(here, budgets)
    others, also = propose(there, budgets)
    np.testing.assert_allclose(points, others, atol=1e-9)
    assert names == also


def test_ties_do_not_hang_on_the_order() -> None:
    x = np.array([[0.5, -0.5], [-0.5, 0.5], [0.5, 0.5], [-0.5, -0.5], [0.0, 0.0]])
    found = [
        CRITERIA["sensitivity"](context(square(), x[order], Separable((WELL, WELL))), 1).tolist()
        for order in ([0, 1, 2, 3, 4], [3, 2, 4, 1, 0])
    ]
    assert found[0] == found[1]
    assert found[0][0] == [0.0, 0.0]


def test_a_full_domain_gives_fewer_points() -> None:
    points, names = propose(context(line(0.0, 1.0), [[0.5]]), {"random": 50}, min_distance=0.1)
    assert 5 <= len(points) <= 10
    assert len(points) == len(names)
    assert pdist(points).min() > 0.1
    assert len(propose(context(line(0.0, 1.0), [[0.5]]), {"random": 50})[0]) == 50


def test_filling_goes_on_until_there_is_no_room() -> None:
    points, names = propose(context(line(0.0, 1.0), [[0.5]]), {"high-error": 40}, min_distance=0.05)
    # at most 20 fit, about 15 if they come in any order
    assert 12 <= len(points) <= 20
    assert pdist(points).min() > 0.05
    assert set(names) == {"space-filling"}


def test_each_proposal_has_a_candidate_of_its_own() -> None:
    here = context(line(), [[1.0], [0.0], [-1.2]], only_candidates=True, known_x=[[1.0]])
    assert here.admit([[0.1], [0.11], [0.12], [9.0]]).tolist() == [[0.0], [-1.2]]
    assert here.admit([[np.nan]]).shape == (0, 1)


def test_criteria_draw_differently() -> None:
    before = dict(CRITERIA)
    try:
        criterion("random too")(lambda context, n: before["random"](context, n))
        points, names = propose(context(line(), [[0.5]], surplus=1), {"random": 5, "random too": 5}, fill=False)
    finally:
        CRITERIA.clear()
        CRITERIA.update(before)
    assert names == ["random"] * 5 + ["random too"] * 5
    assert pdist(points).min() > 0.0


def test_nothing_is_asked() -> None:
    points, names = propose(full(), {"committee": 0})
    assert points.shape == (0, 2)
    assert names == []


def test_without_filling() -> None:
    points, names = propose(full(), {"predicted-wells": 10}, fill=False, filtered=False)
    np.testing.assert_allclose(np.sort(points[:, 0]), [-1.0, 1.0], atol=1e-3)
    assert names == ["predicted-wells"] * 2


# the filters ----------------------------------------------------------------------------------------------------------

places = st.lists(st.tuples(*[st.integers(-8, 8)] * 2), max_size=40)


def grid(values: list[tuple[int, ...]]) -> Array:
    return np.array(values, float).reshape(-1, 2) / 4.0


@given(points=places, known=places, gap=st.sampled_from([0.0, 0.25, 0.3, 1.0]), n=st.integers(0, 50))
def test_spread_is_greedy(points: Any, known: Any, gap: float, n: int) -> None:
    x, old = grid(points), grid(known)
    taken: list[int] = []
    for i, point in enumerate(x):
        others = np.concatenate([old, x[taken]])
        if len(taken) < n and (np.linalg.norm(others - point, axis=1) > gap).all():
            taken.append(i)
    assert spread(x, old, gap, n).tolist() == taken


def test_spread_of_many_points_goes_through_all_blocks() -> None:
    x = np.random.default_rng(0).random((1500, 2))
    found = spread(x, None, 0.03)
    assert pdist(x[found]).min() > 0.03
    # nothing that was left out would have fitted
    assert cdist(x, x[found]).min(1).max() <= 0.03
    np.testing.assert_array_equal(spread(x * [1, 100.0], None, 0.03, scale=[1.0, 100.0]), found)
    np.testing.assert_array_equal(spread(x, None, 0.03, 40), found[:40])


@given(points=places, known=places, gap=st.sampled_from([0.0, 0.3, 1.0]), seed=st.integers(0, 99))
def test_novelty_never_keeps_what_is_too_near(points: Any, known: Any, gap: float, seed: int) -> None:
    x, old = grid(points), grid(known)
    keep = novelty(x, old, np.ones(len(x)), None, gap, seed)
    assert keep.shape == (len(x),)
    if not len(old):
        assert keep.all()
        return
    near = cdist(x, old).min(1, initial=np.inf) <= gap
    assert not (keep & near).any()
    # the order of known points means nothing, nor does the unit of the eigenvalues
    np.testing.assert_array_equal(keep, novelty(x, old[::-1], np.ones(len(x)), None, gap, seed))
    np.testing.assert_array_equal(keep, novelty(x, old, -64.0 * np.ones(len(x)), None, gap, seed))


def test_novelty_grows_with_bend_and_distance() -> None:
    n = 4000
    at = np.repeat([[1.0], [2.0], [4.0]], n, axis=0)
    keep = novelty(at, [[0.0]], np.ones(3 * n), rng=0, reference=2.0).reshape(3, n).mean(1)
    # w / (w + 2): a third, a half, two thirds; four standard errors
    np.testing.assert_allclose(keep, [1 / 3, 1 / 2, 2 / 3], atol=0.032)
    bend = np.repeat([1.0, -2.0, 4.0], n)
    keep = novelty(np.ones((3 * n, 1)), [[0.0]], bend, rng=0, reference=2.0).reshape(3, n).mean(1)
    np.testing.assert_allclose(keep, [1 / 3, 1 / 2, 2 / 3], atol=0.032)
    # the usual proposal is kept every other time
    assert abs(novelty(np.ones((n, 1)), [[0.0]], rng=0).mean() - 0.5) < 0.032


def test_novelty_takes_the_five_nearest() -> None:
    known = np.array([[1.0], [2.0], [3.0], [4.0], [5.0], [1e6]])
    draws = np.random.default_rng(7).random(1000)
    keep = novelty(np.zeros((1000, 1)), known, None, rng=7, reference=1.0)
    np.testing.assert_array_equal(keep, draws < 3.0 / 4.0)
    # in units of scale; of fewer points, as many as there are
    keep = novelty(np.zeros((1000, 1)), known[:2], None, [1.5], rng=7, reference=1.0)
    np.testing.assert_array_equal(keep, draws < 1.0 / 2.0)


def test_novelty_without_numbers() -> None:
    x, known = np.full((500, 1), 2.0), [[0.0]]
    plain = novelty(x, known, None, rng=1)
    for nothing in (np.zeros(500), np.full(500, np.nan)):
        np.testing.assert_array_equal(plain, novelty(x, known, nothing, rng=1))
    some = np.where(np.arange(500) % 2, np.nan, 3.0)
    np.testing.assert_array_equal(novelty(x, known, some, rng=1), novelty(x, known, np.full(500, 3.0), rng=1))
    assert len(novelty(np.empty((0, 1)), known)) == 0


# budgets --------------------------------------------------------------------------------------------------------------

weights = st.dictionaries(st.sampled_from("abcdefgh"), st.floats(0.01, 100.0), min_size=1)
brought = st.dictionaries(
    st.sampled_from("abcdefghxy"),
    st.fixed_dictionaries({"points": st.integers(0, 30), "error": st.none() | st.floats(0.0, 10.0)}),
)


@given(weights=weights, rounds=st.lists(brought, max_size=8), n=st.integers(0, 60), floor=st.floats(0.0, 1.0))
def test_budgets_sum_and_keep_their_floor(weights: Any, rounds: Any, n: int, floor: float) -> None:
    budget = Budget(weights, floor=floor)
    for found in rounds:
        budget.learn(found)
    shares = budget.shares()
    assert sum(shares.values()) == pytest.approx(1.0)
    whole = sum(weights.values())
    for name, weight in weights.items():
        assert shares[name] >= floor * weight / whole - 1e-12
    given_ = budget.split(n)
    assert sum(given_.values()) == n
    assert min(given_.values()) >= 0
    assert all(type(value) is int for value in given_.values())
    assert given_ == budget.split(n)
    # one that remembers nothing else gives each its share, to a point
    fresh = Budget(weights, floor=floor).split(n)
    for name, weight in weights.items():
        assert abs(fresh[name] - n * weight / whole) < 1.0 + 1e-9


@given(weights=weights, n=st.integers(1, 20), errors=st.lists(st.floats(0.0, 5.0), min_size=8, max_size=8))
def test_fractions_of_points_are_carried_over(weights: Any, n: int, errors: list[float]) -> None:
    budget = Budget(weights)
    owed, had = dict.fromkeys(weights, 0.0), dict.fromkeys(weights, 0)
    for _ in range(30):
        given_ = budget.split(n)
        for name, share in budget.shares().items():
            owed[name] += n * share
            had[name] += given_[name]
        budget.learn({name: {"points": given_[name], "error": errors[ord(name) - 97]} for name in given_})
    for name in weights:
        assert had[name] > owed[name] - len(weights)
        assert had[name] < owed[name] + 1.0 + 1e-6


def test_a_small_share_comes_to_its_turn() -> None:
    budget = Budget({"big": 9.0, "small": 1.0}, floor=1.0)
    had = []
    for _ in range(10):
        given_ = budget.split(2)
        had.append(given_["small"])
        budget.learn({name: {"points": count, "error": None} for name, count in given_.items()})
    assert sum(had) == 2


def test_budgets_follow_what_points_brought() -> None:
    budget = Budget({"good": 1.0, "poor": 1.0}, floor=0.2)
    assert budget.split(20) == {"good": 10, "poor": 10}
    for _ in range(12):
        budget.learn({"good": {"points": 30, "error": 3.0}, "poor": {"points": 30, "error": 0.1}})
    worth = budget.worth()
    assert worth["good"] > 1.7
    assert worth["poor"] < 0.3
    shares = budget.shares()
    assert shares["good"] > 0.75
    assert shares["poor"] > 0.1
    # what was long ago is forgotten
    for _ in range(12):
        budget.learn({"good": {"points": 30, "error": 0.1}, "poor": {"points": 30, "error": 3.0}})
    assert budget.shares()["poor"] > 0.75


def test_the_worth_by_hand() -> None:
    budget = Budget({"a": 1.0, "b": 3.0}, floor=0.5, discount=0.5, prior=2.0)
    budget.learn({"a": {"points": 4, "error": 2.0}, "b": {"points": 4, "error": 1.0}})
    # mean 1.5: a (8 / 1.5 + 2) / 6, b (4 / 1.5 + 2) / 6
    assert budget.worth() == pytest.approx({"a": 11 / 9, "b": 7 / 9})
    pull = 0.25 * 11 / 9, 0.75 * 7 / 9
    assert budget.shares()["a"] == pytest.approx(0.5 * 0.25 + 0.5 * pull[0] / sum(pull))
    budget.learn({"b": {"points": 2, "error": 0.5}, "a": {"points": 3, "error": None}})
    # a: 2 points, 4; b: 4 points, 3: mean 7 / 6
    assert budget.worth() == pytest.approx({"a": (24 / 7 + 2) / 4, "b": (18 / 7 + 2) / 6})


def test_nothing_known_changes_nothing() -> None:
    budget = Budget({"a": 2.0, "b": 1.0, "off": 0.0})
    assert budget.active == ["a", "b"]
    for found in (
        {},
        {"a": {"points": 3, "error": None}},
        {"a": {"points": 3, "error": float("nan")}},
        {"b": {"points": 0, "error": 1.0}},
        {"a": {"points": 3, "error": 0.0}, "b": {"points": 3, "error": 0.0}},
        {"other": {"points": 9, "error": 1.0}, "off": {"points": 1, "error": 1.0}},
    ):
        budget.learn(found)
        assert budget.shares() == pytest.approx({"a": 2 / 3, "b": 1 / 3})
    assert budget.rounds == 6


def test_budgets_do_not_hang_on_the_order_of_names() -> None:
    there = {"c": 1.0, "a": 1.0, "b": 1.0}
    back = dict(reversed(there.items()))
    assert Budget(there).split(4) == Budget(back).split(4) == {"a": 2, "b": 1, "c": 1}


@given(weights=weights, rounds=st.lists(brought, max_size=5), n=st.integers(0, 40))
def test_a_state_in_json_is_all(weights: Any, rounds: Any, n: int) -> None:
    budget = Budget(weights, floor=0.3, discount=0.6, prior=3.0)
    for found in rounds:
        budget.learn(found)
    again = Budget.from_state(json.loads(json.dumps(budget.state())))
    assert again.state() == budget.state()
    assert again.split(n) == budget.split(n)
    for one in (budget, again):
        one.learn({"a": {"points": 3, "error": 1.0}})
    assert again.state() == budget.state()


def test_budgets_judge_their_arguments() -> None:
    with pytest.raises(ValueError, match="one criterion or more of positive weight"):
        Budget({})
    with pytest.raises(ValueError, match="the weight of a must not be negative"):
        Budget({"a": -1.0})
    with pytest.raises(ValueError, match="floor must lie between 0 and 1"):
        Budget({"a": 1.0}, floor=1.5)
    with pytest.raises(ValueError, match="n must be a whole number"):
        Budget({"a": 1.0}).split(-1)
    with pytest.raises(DataError, match="'a' brought is no pair"):
        Budget({"a": 1.0}).learn({"a": {"points": 1}})
    with pytest.raises(DataError, match="error of criterion 'a' must be a number from 0"):
        Budget({"a": 1.0}).learn({"a": {"points": 1, "error": -1.0}})
    with pytest.raises(DataError, match="not the state of a budget"):
        Budget.from_state({"format": 1})
    with pytest.raises(DataError, match="its format is 9"):
        Budget.from_state({**Budget({"a": 1.0}).state(), "format": 9})


# a real model ---------------------------------------------------------------------------------------------------------


@pytest.mark.extra
@pytest.mark.parametrize("q", [1, 2])
def test_with_a_fitted_network(q: int) -> None:
    pytest.importorskip("torch")
    from quests_zenn.zenn import IDNN

    domain = square(q=q)
    x = drawn(domain, 60)
    truth = Separable((WELL,) + (BOWL,) * (q - 1))
    orders = [tuple(int(i == j) for j in range(q + 1)) for i in range(q)]
    found = truth.derivatives(x, 300.0, orders)
    mu = np.stack([found[order] for order in orders], 1)
    model = IDNN(hidden=(8, 8), n_members=2, max_iterations=30, random_state=0, n_jobs=1, verbose=False)
    model.fit(x, 300.0, mu=mu)
    here = context(domain, drawn(domain, 3000, 1), model, known_x=x, known_mu=mu, known_error=np.ones(60))
    here = context(
        domain, here.x[~model.extrapolates(here.x, 300.0)], model, known_x=x, known_mu=mu, known_error=np.ones(60)
    )
    np.testing.assert_allclose(here.mu, model.chemical_potential(here.x, 300.0).reshape(-1, q), atol=1e-12)
    hessian = model.hessian(here.x, 300.0).reshape(-1, q, q)
    np.testing.assert_allclose(here.eigenvalues, np.linalg.eigvalsh(hessian), atol=1e-9)
    wells = CRITERIA["predicted-wells"](here, 4)[:2]
    np.testing.assert_allclose(np.sort(wells[:, 0]), [-1.0, 1.0], atol=0.1)
    points, names = propose(here, dict.fromkeys(CRITERIA, 2), min_distance=1e-3)
    assert len(points) == len(names) == 2 * len(CRITERIA)
    assert domain.contains(points).all()
