"""Polytopes: what is inside, uniform points against exact moments, corners, slices, and what is refused."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.spatial import ConvexHull

from quests_zenn._core.checks import DataError, DataWarning
from quests_zenn.sampling import domain
from quests_zenn.sampling._walks import billiard, hit_and_run
from quests_zenn.sampling.domain import METHODS, Polytope

WALKS = ("billiard", "hit-and-run")


def product(p: Polytope, q: Polytope) -> Polytope:
    """The first coordinates in p, the others in q."""
    A = np.zeros((len(p.b) + len(q.b), p.dim + q.dim))
    A[: len(p.b), : p.dim] = p.A
    A[len(p.b) :, p.dim :] = q.A
    return Polytope(A, np.concatenate([p.b, q.b]))


def moved(p: Polytope, matrix: np.ndarray, shift: np.ndarray) -> Polytope:
    """The domain of matrix x + shift, x in p."""
    A = p.A @ np.linalg.inv(matrix)
    return Polytope(A, p.b + A @ shift)


def simplex_moments(d: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance of the first d of d + 1 components with the flat Dirichlet distribution."""
    k = d + 1
    return np.full(d, 1.0 / k), (np.eye(d) * k - 1.0) / (k**2 * (k + 1))


def cube_moments(d: int) -> tuple[np.ndarray, np.ndarray]:
    return np.full(d, 0.5), np.eye(d) / 12.0


def both(one: tuple[np.ndarray, np.ndarray], two: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    mean = np.concatenate([one[0], two[0]])
    covariance = np.zeros((len(mean), len(mean)))
    covariance[: len(one[0]), : len(one[0])] = one[1]
    covariance[len(one[0]) :, len(one[0]) :] = two[1]
    return mean, covariance


def in_own_terms(p: Polytope, matrix: np.ndarray, shift: np.ndarray, moments: tuple[np.ndarray, np.ndarray]) -> Any:
    return moved(p, matrix, shift), (matrix @ moments[0] + shift, matrix @ moments[1] @ matrix.T)


SKEW = np.array([[1.0, 2.0, 0.0, 0.0], [0.0, 1e-4, 0.0, 3.0], [0.3, 0.0, 50.0, 0.0], [1.0, 0.0, 0.0, 0.02]])

#: Domains whose mean and covariance are known.
KNOWN: dict[str, Any] = {
    "interval": (Polytope.box(-1.0, 3.0), (np.array([1.0]), np.array([[16.0 / 12.0]]))),
    "triangle": (Polytope.simplex(2), simplex_moments(2)),
    "simplex of 4": (Polytope.simplex(4), simplex_moments(4)),
    "simplex of 7": (Polytope.simplex(7), simplex_moments(7)),
    "cube of 2": (Polytope.box([0, 0], 1), cube_moments(2)),
    "cube of 7": (Polytope.box(np.zeros(7), 1), cube_moments(7)),
    "thin box": (
        Polytope.box([0.0, -1e-6, 1e3, 0.0], [1e-9, 1e-6, 1e3 + 1e-3, 1e6]),
        (np.array([5e-10, 0.0, 1e3 + 5e-4, 5e5]), np.diag([1e-18, 4e-12, 1e-6, 1e12]) / 12.0),
    ),
    "simplex x cube": (
        product(Polytope.simplex(3), Polytope.box([0, 0], 1)),
        both(simplex_moments(3), cube_moments(2)),
    ),
    "skewed simplex": in_own_terms(Polytope.simplex(4), SKEW, np.array([0.0, 5.0, -1.0, 2.0]), simplex_moments(4)),
    "skewed cube": in_own_terms(Polytope.box(np.zeros(4), 1), SKEW, np.zeros(4), cube_moments(4)),
}


def exactly_inside(A: np.ndarray, b: np.ndarray, x: np.ndarray) -> bool:
    """A x <= b in exact arithmetic."""
    return all(
        sum(Fraction(float(a)) * Fraction(float(v)) for a, v in zip(row, point, strict=True)) <= Fraction(float(limit))
        for point in x
        for row, limit in zip(A, b, strict=True)
    )


def check_uniform(x: np.ndarray, mean: np.ndarray, covariance: np.ndarray, most: float = 4.5) -> None:
    """Mean and covariance of nearly independent points (n, d), each within its own standard errors.

    Points are standardised first, so that a narrow direction counts as much as a wide one.
    """
    n, d = x.shape
    z = np.linalg.solve(np.linalg.cholesky(covariance), (x - mean).T).T
    # what is left of correlations (0.1 at most, by the trial) makes errors larger by sqrt(1.1 / 0.9)
    larger = math.sqrt(1.1 / 0.9)
    assert np.abs(z.mean(axis=0)).max() < most * larger / math.sqrt(n)
    for i, j in itertools.combinations_with_replacement(range(d), 2):
        terms = z[:, i] * z[:, j]
        error = larger * terms.std() / math.sqrt(n)
        assert abs(terms.mean() - float(i == j)) < most * error, (i, j)


# -------------------------------------------------------------------- uniform points


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", KNOWN)
def test_moments_of_known_domains(name: str, method: str) -> None:
    p, (mean, covariance) = KNOWN[name]
    x = p.sample(6000, method, rng=11)
    assert x.shape == (6000, p.dim)
    assert p.contains(x, 0.0).all()
    check_uniform(x, mean, covariance)


@pytest.mark.parametrize("method", METHODS)
def test_the_check_of_moments_can_fail(method: str) -> None:
    p, (mean, covariance) = KNOWN["simplex of 4"]
    x = p.sample(6000, method, rng=11)
    with pytest.raises(AssertionError):
        check_uniform(x * 0.97, mean, covariance)
    with pytest.raises(AssertionError):  # the right mean, denser in the middle
        check_uniform(mean + 0.95 * (x - mean), mean, covariance)


@pytest.mark.parametrize("method", METHODS)
def test_distribution_of_one_coordinate(method: str) -> None:
    """In the simplex of d dimensions, 1 - (1 - x)^d is uniform: not only two moments are right."""
    n, d = 6000, 5
    x = Polytope.simplex(d).sample(n, method, rng=3)
    u = np.sort(1.0 - (1.0 - x) ** d, axis=0)
    steps = (np.arange(n) + 0.5)[:, None] / n
    # Kolmogorov and Smirnov: 1.95 is passed by one in a thousand
    assert np.abs(u - steps).max() < 1.95 * math.sqrt(1.1 / 0.9) / math.sqrt(n)


@pytest.mark.parametrize("method", WALKS)
def test_neighbours_in_a_chain_are_nearly_independent(method: str) -> None:
    p, (mean, covariance) = KNOWN["simplex of 7"]
    x = p.sample(64 * 100, method, rng=5)
    z = ((x - mean) / np.sqrt(np.diag(covariance))).reshape(100, 64, p.dim)
    together = (z[1:] * z[:-1]).mean(axis=(0, 1))
    assert np.abs(together).max() < 0.1 + 0.066 + 4.0 / math.sqrt(6400)


def test_sobol_fills_more_evenly() -> None:
    """Means of a simplex and of a skewed cube: the errors of a Sobol sequence are smaller by far."""
    for name in ("simplex of 7", "cube of 7", "skewed cube"):
        p, (mean, covariance) = KNOWN[name]
        errors = {
            method: np.mean(
                [
                    np.abs(p.sample(1024, method, seed).mean(axis=0) - mean) / np.sqrt(np.diag(covariance))
                    for seed in (0, 1)
                ]
            )
            for method in ("sobol", "random")
        }
        assert errors["sobol"] < 0.5 * errors["random"], name


@pytest.mark.parametrize("d", [15, 30])
def test_many_dimensions(d: int) -> None:
    for p, (mean, covariance) in [
        (Polytope.simplex(d), simplex_moments(d)),
        (Polytope.box(np.zeros(d), 1), cube_moments(d)),
    ]:
        for method in ("sobol", "billiard", "random"):
            x = p.sample(2000, method, rng=1)
            assert p.contains(x, 0.0).all()
            check_uniform(x, mean, covariance, most=5.0)


@pytest.mark.slow
def test_hit_and_run_in_15_dimensions() -> None:
    p = Polytope.simplex(15)
    check_uniform(p.sample(2000, "hit-and-run", rng=1), *simplex_moments(15), most=5.0)


def test_a_domain_with_too_many_corners_is_walked() -> None:
    """A skewed cube of 9 dimensions would be cut into too many simplices."""
    d = 9
    matrix = np.random.default_rng(0).standard_normal((d, d))
    p = moved(Polytope.box(np.zeros(d), 1), matrix, np.zeros(d))
    assert p._acceptance < domain.LEAST_ACCEPTANCE
    with pytest.warns(DataWarning, match="too many corners for a Sobol sequence: points come from the billiard walk"):
        x = p.sample(3000, "sobol", rng=0)
    check_uniform(x, matrix @ np.full(d, 0.5), matrix @ matrix.T / 12.0)
    y = p.sample(3000, "random", rng=0)  # says nothing: they are random
    check_uniform(y, matrix @ np.full(d, 0.5), matrix @ matrix.T / 12.0)


@pytest.mark.parametrize("method", METHODS)
def test_a_seed_means_the_same_bits(method: str) -> None:
    make: Callable[[], Polytope] = lambda: product(Polytope.simplex(3), Polytope.box([0, 0], 1))  # noqa: E731
    first = make().sample(200, method, rng=4, jobs=1)
    p = make()
    p.sample(50, method, rng=9)  # what was asked before does not matter
    np.testing.assert_array_equal(p.sample(200, method, rng=4, jobs=3), first)
    np.testing.assert_array_equal(p.sample(200, method, rng=np.random.default_rng(4)), first)
    assert not np.array_equal(p.sample(200, method, rng=5), first)


@pytest.mark.parametrize("method", METHODS)
def test_few_points(method: str) -> None:
    p = Polytope.simplex(3)
    assert p.sample(0, method).shape == (0, 3)
    for n in (1, 2, 65):
        x = p.sample(n, method, rng=0)
        assert x.shape == (n, 3)
        assert len(np.unique(x, axis=0)) == n


@pytest.mark.parametrize("method", WALKS)
def test_a_walk_from_a_corner_forgets_it(method: str) -> None:
    p, (mean, covariance) = KNOWN["simplex of 7"]
    check_uniform(p.sample(3000, method, rng=2, start=np.zeros(7)), mean, covariance)


def test_a_walk_that_stays_correlated_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(domain, "DOUBLINGS", 1)
    monkeypatch.setattr(domain, "CORRELATED", -1.0)
    p = Polytope.simplex(2)
    with pytest.warns(DataWarning, match="points of the billiard walk in this domain are correlated"):
        x = p.sample(10, "billiard", rng=0)
    assert p.contains(x, 0.0).all()


def test_simplices_that_leave_a_hole_are_found() -> None:
    """The square with corners 0 1 2 3 in turn: two triangles, one missing, and two that overlap."""
    sides = [0b0011, 0b0110, 0b1100, 0b1001]
    assert domain._fits_together([0b0111, 0b1101], sides)
    assert not domain._fits_together([0b0111], sides)
    assert not domain._fits_together([0b0111, 0b1011], sides)


def test_points_on_a_plane_are_moved_inwards(monkeypatch: pytest.MonkeyPatch) -> None:
    """A walk, and the cut into simplices, whose points are all on planes, or outside of them by rounding."""
    p = in_own_terms(Polytope.simplex(4), SKEW, np.array([0.0, 5.0, -1.0, 2.0]), simplex_moments(4))[0]
    rounded = p._rounded
    on = np.linalg.solve(rounded.turn, (p.boundary(64, rng=0) - rounded.origin).T).T * (1.0 + 1e-15)
    assert not p.contains(rounded.back(on), 0.0).all()
    monkeypatch.setattr(domain, "_walk", lambda *arguments: on[:, None])
    monkeypatch.setattr(domain, "_autocorrelation", lambda y: 0.0)
    x = p.sample(64, "billiard", rng=0)
    assert p.contains(x, 0.0).all()
    assert exactly_inside(p._guard_A, p._guard_b, x)
    np.testing.assert_allclose(x, rounded.back(on), rtol=1e-12, atol=1e-12)

    monkeypatch.undo()

    class Ends:
        """Random numbers that are all 0: corners of simplices."""

        def random(self, shape: tuple[int, int]) -> np.ndarray:
            return np.zeros(shape)

    q = moved(Polytope.simplex(7), np.random.default_rng(1).standard_normal((7, 7)), np.ones(7))
    assert q._simplices is not None
    q._simplices[0][:] += 1e-11 * (q._simplices[0] - q.centre)
    assert not q.contains(q._simplices[0][0], 0.0).any()
    assert q.contains(q._from_simplices(4, "random", Ends()), 0.0).all()  # type: ignore[arg-type]


# -------------------------------------------------------------------- kernels and their twins


def twin_hit_and_run(
    G: list[list[float]], h: list[float], y: list[float], rays: list[list[float]], fractions: list[float], every: int
) -> list[list[float]]:
    kept = []
    for step, (ray, fraction) in enumerate(zip(rays, fractions, strict=True), 1):
        low, high = -math.inf, math.inf
        for row, limit in zip(G, h, strict=True):
            gap = max(limit - math.fsum(a * b for a, b in zip(row, y, strict=True)), 0.0)
            speed = math.fsum(a * b for a, b in zip(row, ray, strict=True))
            if speed > 0.0:
                high = min(high, gap / speed)
            if speed < 0.0:
                low = max(low, gap / speed)
        move = low + fraction * (high - low)
        y = [a + move * b for a, b in zip(y, ray, strict=True)]
        if step % every == 0:
            kept.append(y)
    return kept


def twin_billiard(
    G: list[list[float]],
    h: list[float],
    y: list[float],
    rays: list[list[float]],
    lengths: list[float],
    most: int,
    every: int,
) -> list[list[float]]:
    kept = []
    for step, (ray, length) in enumerate(zip(rays, lengths, strict=True), 1):
        here, v, left, wall = list(y), list(ray), length, -1
        for _ in range(most):
            meetings = []
            for i, (row, limit) in enumerate(zip(G, h, strict=True)):
                speed = math.fsum(a * b for a, b in zip(row, v, strict=True))
                gap = limit - math.fsum(a * b for a, b in zip(row, here, strict=True))
                if speed > 0.0 and i != wall:
                    meetings.append((max(gap, 0.0) / speed, i))
            time, wall = min(meetings)
            if time >= left:
                y = [a + left * b for a, b in zip(here, v, strict=True)]
                break
            here = [a + time * b for a, b in zip(here, v, strict=True)]
            left -= time
            speed = math.fsum(a * b for a, b in zip(G[wall], v, strict=True))
            v = [a - 2.0 * speed * b for a, b in zip(v, G[wall], strict=True)]
        if step % every == 0:
            kept.append(y)
    return kept


def walk_case(d: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    G = np.vstack([rng.standard_normal((3 * d, d)), np.eye(d), -np.eye(d)])
    G /= np.linalg.norm(G, axis=1)[:, None]
    h = rng.uniform(0.5, 1.5, len(G))
    rays = rng.standard_normal((40, d))
    return G, h, 0.1 * rng.uniform(-1, 1, d), rays, rng.random(40)


@pytest.mark.parametrize("d", [1, 2, 5])
def test_hit_and_run_small_against_its_twin(d: int) -> None:
    G, h, y, rays, fractions = walk_case(d, d)
    expected = twin_hit_and_run(G.tolist(), h.tolist(), y.tolist(), rays.tolist(), fractions.tolist(), 4)
    out = np.full((10, d), np.nan)
    hit_and_run(np.ascontiguousarray(G.T), h, y, rays, fractions, 4, out, np.empty(2 * len(h)))
    np.testing.assert_allclose(out, expected, rtol=0, atol=1e-12)
    np.testing.assert_array_equal(out[-1], y)


@pytest.mark.parametrize("most", [4, 100])
@pytest.mark.parametrize("d", [2, 5])
def test_billiard_small_against_its_twin(d: int, most: int) -> None:
    G, h, y, rays, fractions = walk_case(d, d)
    rays /= np.linalg.norm(rays, axis=1)[:, None]
    lengths = 4.0 * fractions
    expected = twin_billiard(G.tolist(), h.tolist(), y.tolist(), rays.tolist(), lengths.tolist(), most, 1)
    if most == 4:  # some flights are not made
        assert any(a == b for a, b in itertools.pairwise(expected))
    out = np.full((40, d), np.nan)
    billiard(np.ascontiguousarray(G.T), G @ G.T, h, y, rays.copy(), lengths, most, 1, out, np.empty(2 * len(h) + d))
    np.testing.assert_allclose(out, expected, rtol=0, atol=1e-9)
    np.testing.assert_array_equal(out[-1], y)


def test_billiard_known_by_thought() -> None:
    """In the square [-1, 1]^2, 3.25 to the right from the middle: 1 to the wall, 2 back to the other, and 0.25."""
    G = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    y, out = np.zeros(2), np.empty((1, 2))
    billiard(
        np.ascontiguousarray(G.T),
        G @ G.T,
        np.ones(4),
        y,
        np.array([[1.0, 0.0]]),
        np.array([3.25]),
        9,
        1,
        out,
        np.empty(10),
    )
    np.testing.assert_allclose(y, [-0.75, 0.0], atol=1e-15)


# -------------------------------------------------------------------- any polytope


@st.composite
def polytopes(draw: Any, dims: Sequence[int] = (1, 2, 3, 4)) -> Polytope:
    d = draw(st.sampled_from(list(dims)))
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    A = np.vstack([rng.standard_normal((draw(st.integers(0, 2 * d)), d)), np.eye(d), -np.eye(d)])
    b = np.concatenate([rng.uniform(0.05, 1.0, len(A) - 2 * d), np.ones(2 * d)])
    stretch = 10.0 ** rng.integers(-4, 5, d)
    shift = rng.standard_normal(d) * 10.0 ** draw(st.integers(-2, 2)) * stretch
    A = A / stretch * 10.0 ** rng.integers(-3, 4, len(A))[:, None]
    return Polytope(A, b * np.linalg.norm(A * stretch, axis=1) + A @ shift)


@given(polytopes(), st.sampled_from(METHODS), st.integers(0, 1000))
def test_no_point_is_outside(p: Polytope, method: str, seed: int) -> None:
    x = p.sample(40, method, rng=seed)
    assert p.contains(x, 0.0).all()
    assert exactly_inside(p._guard_A, p._guard_b, x)
    assert (p.distance_to_boundary(x) >= 0.0).all()
    # in any order of the sum
    order = list(range(p.dim))
    random.Random(seed).shuffle(order)
    for point in x:
        for row, limit in zip(p._guard_A.tolist(), p._guard_b.tolist(), strict=True):
            total = 0.0
            for c in order:
                total += row[c] * float(point[c])
            assert total <= limit


@given(polytopes())
def test_corners_are_corners(p: Polytope) -> None:
    v = p.vertices()
    assert p.contains(v, 0.0).all()
    half = (p.bounds[:, 1] - p.bounds[:, 0]) / 2.0
    A = p.A * half
    gap = (p.b - v @ p.A.T) / np.linalg.norm(A, axis=1)
    assert (gap.min(axis=0) < 1e-9).all()  # each plane that is left holds a corner
    on = gap < 1e-9
    assert (on.sum(axis=1) >= p.dim).all()
    assert all(np.linalg.matrix_rank(A[row]) == p.dim for row in on)
    np.testing.assert_allclose(v.min(axis=0), p.bounds[:, 0], atol=1e-8 * half.max(), rtol=1e-9)
    if p.dim > 1:
        z = (v - p.bounds.mean(axis=1)) / half
        assert len(ConvexHull(z).vertices) == len(v)  # none is inside of the others, none twice
        assert p._simplices is not None
        volume = p._simplices[1].sum() / math.factorial(p.dim)
        assert volume == pytest.approx(ConvexHull(z).volume, rel=1e-8)


@given(polytopes(), st.integers(0, 1000))
def test_points_of_the_boundary_are_on_planes(p: Polytope, seed: int) -> None:
    x = p.boundary(30, rng=seed)
    assert p.contains(x, 0.0).all()
    half = (p.bounds[:, 1] - p.bounds[:, 0]) / 2.0
    gap = (p.b - x @ p.A.T) / np.linalg.norm(p.A * half, axis=1)
    assert (gap.min(axis=1) < 1e-9).all()
    np.testing.assert_array_equal(p.boundary(30, rng=seed), x)


@given(polytopes(dims=(2, 3, 4)), st.integers(0, 1000))
def test_slices_are_inside(p: Polytope, seed: int) -> None:
    at = p.sample(1, rng=seed)[0]
    axes = (p.dim - 1, 0)
    part = p.slice(axes, at)
    assert part.dim == 2
    assert part.names == (p.names[-1], p.names[0])
    assert part.contains(at[list(axes)])
    for points in (part.sample(30, rng=seed), part.vertices()):
        full = part.embed(points)
        assert p.contains(full, 0.0).all()
        half = (p.bounds[:, 1] - p.bounds[:, 0]) / 2.0
        assert (np.abs(full[:, list(axes)] - points) <= 1e-9 * half[list(axes)]).all()
        others = [c for c in range(p.dim) if c not in axes]
        np.testing.assert_allclose(full[:, others], np.broadcast_to(at[others], (len(full), len(others))), rtol=1e-14)
    # corners of the slice are on the boundary of the whole
    gap = (p.b - part.embed(part.vertices()) @ p.A.T) / np.linalg.norm(p.A * half, axis=1)
    assert (gap.min(axis=1) < 1e-7).all()


@given(polytopes())
def test_the_largest_ball(p: Polytope) -> None:
    gap = p.b - p.A @ p.centre
    assert gap.min() == p.radius > 0.0
    # no other point is farther from all planes
    x = p.sample(500, "random", rng=0)
    assert p.distance_to_boundary(x).max() <= p.radius * (1.0 + 1e-7)
    # and the planes that it touches hold it: no direction leads away from all of them
    touched = p.A[gap <= p.radius * (1.0 + 1e-6)]
    rays = np.random.default_rng(0).standard_normal((500, p.dim))
    assert ((rays @ touched.T).max(axis=1) > -1e-6).all()


@given(polytopes(), st.integers(0, 1000))
def test_planes_that_do_not_matter_are_dropped(p: Polytope, seed: int) -> None:
    rng = np.random.default_rng(seed)
    rays = rng.standard_normal((5, p.dim)) / (p.bounds[:, 1] - p.bounds[:, 0])
    far = (p.vertices() @ rays.T).max(axis=0) + 0.01 * np.linalg.norm(rays * np.diff(p.bounds)[:, 0], axis=1)
    A, b = np.vstack([rays, p.A, 3.0 * p.A]), np.concatenate([far, p.b, 3.0 * p.b])
    again = Polytope(A, b)
    assert again.n_redundant == 5 + len(p.b)
    assert len(again.b) == len(p.b)
    np.testing.assert_allclose(again.bounds, p.bounds, rtol=1e-9, atol=1e-9 * np.diff(p.bounds).max())
    assert again.contains(again.sample(20, rng=0), 0.0).all()


def test_the_way_is_that_of_distance() -> None:
    p = Polytope.box([0, 0], [2, 1])
    np.testing.assert_allclose(p.distance_to_boundary([[1.0, 0.25], [3.0, 0.5], [0.0, 0.0]]), [0.25, -1.0, 0.0])
    assert p.distance_to_boundary([1.0, 0.5]).shape == ()
    assert p.contains([[1.0, 1.0 + 1e-10], [1.0, 1.1]]).tolist() == [True, False]
    assert p.contains([[1.0, 1.0 + 1e-10], [1.0, 1.0]], tolerance=0.0).tolist() == [False, True]
    assert p.contains(np.zeros((3, 4, 2))).shape == (3, 4)


# -------------------------------------------------------------------- known ones


def test_box_and_simplex() -> None:
    p = Polytope.box([0, -1], [1, 3], names=["a", "b"])
    assert (p.dim, p.names, p.n_redundant) == (2, ("a", "b"), 0)
    np.testing.assert_array_equal(p.bounds, [[0, 1], [-1, 3]])
    np.testing.assert_array_equal(p.centre, [0.5, 1.0])
    assert p.radius == 0.5
    np.testing.assert_array_equal(p.vertices(), [[0, -1], [0, 3], [1, -1], [1, 3]])
    q = Polytope.simplex(3)
    np.testing.assert_array_equal(sorted(q.vertices().tolist()), [[0, 0, 0], [0, 0, 1], [0, 1, 0], [1, 0, 0]])
    assert q.radius == pytest.approx(1.0 / (3.0 + math.sqrt(3.0)), rel=1e-9)
    np.testing.assert_allclose(q.centre, q.radius, rtol=1e-9)


def test_centre_of_a_needle_is_in_its_middle() -> None:
    p = Polytope.box([0, 0, 0], [1e-9, 1.0, 1e6])
    np.testing.assert_allclose(p.centre, [5e-10, 0.5, 5e5], rtol=1e-9)
    assert p.radius == pytest.approx(5e-10, rel=1e-9)


def test_arrays_cannot_be_written() -> None:
    p = Polytope.simplex(2)
    for array in (p.A, p.b, p.centre, p.bounds):
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0.0


def test_corners_when_there_are_many() -> None:
    p = Polytope.box(np.zeros(30), 1)
    assert p._corners is None
    v = p.vertices(most=20)
    assert v.shape == (20, 30)
    assert set(np.unique(v)) == {0.0, 1.0}
    assert len(np.unique(v, axis=0)) == 20
    np.testing.assert_array_equal(p.vertices(most=20), v)
    square = Polytope.box([0, 0], [1, 1]).vertices(most=2)
    assert np.abs(square[0] - square[1]).tolist() == [1.0, 1.0]  # opposite ones


def test_faces_of_the_boundary_are_all_met() -> None:
    p = product(Polytope.simplex(3), Polytope.box([0, 0], 1))
    x = p.boundary(2000, rng=0)
    on = (p.b - x @ p.A.T) < 1e-9
    assert (on.sum(axis=0) > 50).all()


def test_slice_through_the_centre() -> None:
    p = Polytope.simplex(3, names=["a", "b", "c"])
    part = p.slice()
    assert part.names == ("a", "b")
    np.testing.assert_allclose(part.bounds, [[0, 1 - p.centre[2]], [0, 1 - p.centre[2]]], atol=1e-12)
    grid = np.array([[[0.1, 0.2], [2.0, 2.0]]])
    full = part.embed(grid)
    assert full.shape == (1, 2, 3)
    np.testing.assert_array_equal(full[..., :2], grid)  # outside stays outside
    assert (full[..., 2] == p.centre[2]).all()
    assert p.slice(axes=(0, 1, 2)).dim == 3
    assert p.slice(axes=[1]).dim == 1


# -------------------------------------------------------------------- sublattices and files


def test_sublattices_by_hand() -> None:
    """Two sublattices: mean and half difference of two occupations. The domain is a square on its corner."""
    Q = np.array([[0.5, 0.5], [0.5, -0.5]])
    p = Polytope.from_sublattices(Q)
    assert p.names == ("eta_0", "eta_1")
    np.testing.assert_allclose(p.vertices(), [[0, 0], [0.5, -0.5], [0.5, 0.5], [1, 0]], atol=1e-15)
    np.testing.assert_array_equal(Polytope.from_sublattices(Q, n=1).bounds, [[0, 1]])
    np.testing.assert_array_equal(Polytope.from_sublattices(Q[:1]).bounds, [[0, 1]])
    np.testing.assert_allclose(Polytope.from_sublattices(Q, low=0.25, high=0.5).bounds[0], [0.25, 0.5])


def test_lithium_cobalt_oxide(data_dir: Path) -> None:
    p = Polytope.from_sublattices(data_dir / "lco_Q.txt", n=7)
    assert (p.dim, len(p.b), p.n_redundant) == (7, 64, 0)
    np.testing.assert_array_equal(p.bounds, [[0, 1], *[[-0.5, 0.5]] * 6])
    np.testing.assert_array_equal(p.centre, [0.5, 0, 0, 0, 0, 0, 0])
    table = np.genfromtxt(data_dir / "lco_mc.csv", delimiter=",", names=True)
    eta = np.stack([table[f"eta_{i}"] for i in range(7)], axis=1)
    assert p.contains(eta, 0.0).all()
    occupations = np.linalg.solve(np.loadtxt(data_dir / "lco_Q.txt"), np.pad(eta, ((0, 0), (0, 25))).T)
    nearest = np.minimum(occupations, 1.0 - occupations).min(axis=0)
    # the first column of Q^-1 is 1, so that its normalised rows begin with 1 / |row|
    np.testing.assert_allclose(nearest * abs(p.A[0, 0]), p.distance_to_boundary(eta), rtol=1e-9)
    v = p.vertices()
    assert len(v) == 46
    assert p._simplices is not None
    volume = p._simplices[1].sum() / math.factorial(7) * np.prod(np.diff(p.bounds) / 2.0)
    assert volume == pytest.approx(ConvexHull(v).volume, rel=1e-9)
    x = {method: p.sample(6000, method, rng=0) for method in METHODS}
    # the domain is symmetric: its mean is its centre; methods agree with the exact points about the covariance
    covariance = np.cov(p.sample(200_000, "random", rng=1), rowvar=False)
    for points in x.values():
        assert p.contains(points, 0.0).all()
        check_uniform(points, p.centre, covariance)


def test_text(tmp_path: Path) -> None:
    path = tmp_path / "square.txt"
    path.write_text("# a square\n1 0 1\n-1, 0, 0  # comma\n\n0 1 1\n0 -1 0\n", encoding="utf-8")
    p = Polytope.read(path, names=["u", "v"])
    np.testing.assert_array_equal(p.bounds, [[0, 1], [0, 1]])
    assert p.names == ("u", "v")


def test_archive(tmp_path: Path) -> None:
    p = Polytope.simplex(2)
    np.savez(tmp_path / "p.npz", A=p.A, b=p.b, names=np.array(["u", "v"]))
    q = Polytope.read(tmp_path / "p.npz")
    assert q.names == ("u", "v")
    np.testing.assert_array_equal(q.A, p.A)
    np.save(tmp_path / "Q.npy", np.array([[0.5, 0.5], [0.5, -0.5]]))
    assert Polytope.from_sublattices(tmp_path / "Q.npy").dim == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "holds no numbers"),
        ("# only words\n", "holds no numbers"),
        ("1 0 1\n1 0\n", r"line 2: has 2 numbers, the lines before it have 3"),
        ("1 0 1\n1 zero 1\n", r"line 2: must hold numbers only, got '1 zero 1'"),
        ("1\n2\n", "at least two numbers"),
        ("1 nan\n-1 0\n", r"b must be finite, but holds NaN or infinity"),
        ("1 0 1\n", r"square.txt: the domain is not bounded"),
    ],
)
def test_text_that_is_refused(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "square.txt"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        Polytope.read(path)


class Trap:
    """Would leave a mark if it were unpickled."""

    def __reduce__(self) -> Any:
        return (print, ("unpickled",))


def test_nothing_in_a_file_is_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    objects = np.array([Trap()], dtype=object)
    np.savez(tmp_path / "p.npz", A=objects, b=np.ones(1))
    np.save(tmp_path / "Q.npy", objects)
    (tmp_path / "broken.npz").write_bytes(b"no archive")
    (tmp_path / "broken.txt").write_bytes(b"\xff\xfe\x00")
    np.savez(tmp_path / "half.npz", A=np.eye(2))
    with pytest.raises(DataError, match=r"p\.npz: is not an archive of plain arrays"):
        Polytope.read(tmp_path / "p.npz")
    with pytest.raises(DataError, match=r"broken\.npz: is not an archive of plain arrays"):
        Polytope.read(tmp_path / "broken.npz")
    with pytest.raises(DataError, match=r"broken\.txt: is not text"):
        Polytope.read(tmp_path / "broken.txt")
    with pytest.raises(DataError, match=r"half\.npz: holds no array 'b'"):
        Polytope.read(tmp_path / "half.npz")
    with pytest.raises(DataError, match=r"Q\.npy: is not a plain array"):
        Polytope.from_sublattices(tmp_path / "Q.npy")
    with pytest.raises(FileNotFoundError):
        Polytope.read(tmp_path / "nowhere.txt")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("Q", "arguments", "error", "message"),
    [
        ([[1.0, 1.0], [1.0, 0.0]], {}, DataError, "rows of Q must be orthogonal, but rows 0 and 1 are not"),
        ([[1.0, 1.0], [0.0, 0.0]], {}, DataError, "row 1 of Q is zero"),
        ([[1.0], [0.0]], {}, DataError, r"at most as many rows as columns, got shape \(2, 1\)"),
        ([[1.0, math.nan]], {}, DataError, "must be finite, but holds NaN or infinity in row 0"),
        ([["a", "b"]], {}, DataError, "Q must consist of real numbers"),
        (np.eye(2), {"n": 3}, ValueError, "n must be at most 2"),
        (np.eye(2), {"n": 0}, ValueError, "n must be a whole number of at least 1, got 0"),
        (np.eye(2), {"low": 1.0}, ValueError, "low must be below high, got 1 and 1"),
    ],
)
def test_sublattices_that_are_refused(Q: Any, arguments: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Polytope.from_sublattices(Q, **arguments)


# -------------------------------------------------------------------- what is refused

SQUARE = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])


@pytest.mark.parametrize(
    ("A", "b", "message"),
    [
        (SQUARE, [1.0, -2.0, 1.0, 1.0], r"^the domain is empty: planes 0 and 1 contradict each other$"),
        (1e-6 * SQUARE, [1.0, -2.0, 1.0, 1.0], r"^the domain is empty: planes 0 and 1 contradict each other$"),
        ([*SQUARE.tolist(), [0.0, 0.0]], [1.0, 0.0, 1.0, 0.0, -1.0], r"empty: plane 4 has only zeros in A .* 0 <= -1$"),
        ([[-1.0, 0.0], [0.0, -1.0], [1.0, 1.0]], [0.0, 0.0, -1.0], r"planes 0, 1 and 2 contradict each other"),
        ([[1.0, 0.0], [-1.0, 0.0]], [1.0, -2.0], r"^the domain is empty: planes 0 and 1 contradict each other$"),
        (SQUARE[:3], [1.0, 1.0, 1.0], r"not bounded: nothing limits it in the direction \(0, -1\)$"),
        (SQUARE[:2], [1.0, 1.0], r"not bounded: nothing limits it in the direction \(0, 1\)$"),
        (SQUARE[[0, 2]], [0.0, 0.0], r"not bounded: nothing limits it in the direction \(-1"),
        ([[0.0, 0.0]], [1.0], r"^the domain is not bounded: no plane limits it$"),
        (SQUARE, [1.0, -1.0, 1.0, 1.0], r"^the domain is flat: coordinate 0 can only be 1; leave it out"),
        (SQUARE, [0.0, 0.0, 1.0, 1.0], r"^the domain is flat: coordinate 0 can only be 0; leave it out"),
        (
            [*SQUARE.tolist(), [1.0, 1.0], [-1.0, -1.0]],
            [1.0, 1.0, 1.0, 1.0, 0.5, -0.5],
            r"^the domain is flat: planes 4 and 5 leave no room between them; write it in fewer coordinates$",
        ),
        (SQUARE, [1.0, 1.0, 1.0], r"^b must have shape \(4,\), one number per plane of A, got \(3,\)$"),
        (SQUARE[0], [1.0], r"^A must have shape \(planes, coordinates\), with at least one of each, got \(2,\)$"),
        (np.empty((0, 2)), [], r"^A must have shape .* got \(0, 2\)$"),
        ([[1.0, math.nan], [1.0, 0.0]], [1.0, 1.0], r"^A must be finite, but holds NaN or infinity in row 0$"),
        (SQUARE, [1.0, 1.0, math.inf, 1.0], r"^b must be finite, but holds NaN or infinity$"),
        (1e200 * SQUARE, np.ones(4), r"^A must not hold numbers beyond 1e\+100$"),
        ([["a", "b"]], [1.0], r"^A must consist of real numbers, in rows of one length$"),
        ([[1.0], [1.0, 2.0]], [1.0, 1.0], r"^A must consist of real numbers, in rows of one length$"),
    ],
)
def test_domains_that_are_refused(A: Any, b: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        Polytope(A, b)


def test_thinner_than_numbers_are_dense() -> None:
    """A skewed strip at 1e8, where numbers are 1e-8 apart: 1e-3 wide, and 1e-6."""
    A = SQUARE @ np.array([[0.6, -0.8], [0.8, 0.6]]).T
    shift = A @ np.array([1e8, 1e8])
    strip = Polytope(A, np.array([1.0, 1.0, 1e-3, 1e-3]) + shift)
    assert strip.contains(strip.sample(100, rng=0), 0.0).all()
    with pytest.raises(DataError, match="the domain is flat: it is thinner than the rounding of its coordinates"):
        Polytope(A, np.array([1.0, 1.0, 1e-6, 1e-6]) + shift)


@given(polytopes(dims=(2, 3)), st.integers(0, 1000), st.sampled_from([0.0, 1e-3, 1.0]))
def test_flat_and_empty_are_told_apart(p: Polytope, seed: int, too_far: float) -> None:
    """A domain with an equation through a point of it is flat; with two planes that exclude each other, empty."""
    rng = np.random.default_rng(seed)
    width = np.diff(p.bounds)[:, 0]
    normal = rng.standard_normal(p.dim) / width
    at = p.sample(1, "random", seed)[0]
    value = float(normal @ at)
    A = np.vstack([p.A, normal, -normal])
    b = np.concatenate([p.b, [value, -value - too_far * np.linalg.norm(normal * width)]])
    assume(np.abs(at).max() < 1e4 * width.min())
    with pytest.raises(DataError, match="the domain is flat" if too_far == 0.0 else "the domain is empty"):
        Polytope(A, b)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a"], r"names must be 2 words, one per coordinate, got \('a',\)"),
        (["a", "a"], r"names must differ from each other"),
        (["a", ""], r"names must be 2 words"),
        ("ab", r"names must be 2 words"),
    ],
)
def test_names_that_are_refused(names: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        Polytope.simplex(2, names)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda p: p.sample(-1), ValueError, "n must be a whole number of at least 0, got -1"),
        (lambda p: p.sample(1.5), ValueError, "n must be a whole number"),
        (lambda p: p.sample(5, "soboll"), ValueError, "method must be one of sobol, billiard, hit-and-run, random"),
        (lambda p: p.sample(5, rng="seed"), ValueError, "random_state must be a whole number"),
        (lambda p: p.sample(5, "billiard", jobs=0), ValueError, "jobs must be a whole number of at least 1"),
        (lambda p: p.sample(5, start=[2, 2]), DataError, "start is outside of the domain: one plane is passed by 2.12"),
        (lambda p: p.sample(5, start=[0.1]), DataError, r"start must have 2 coordinates per point, got shape \(1,\)"),
        (
            lambda p: p.sample(5, start=[[0.1, 0.1]]),
            DataError,
            r"start must be one point of shape \(2,\), got \(1, 2\)",
        ),
        (lambda p: p.sample(5, start=[0.1, math.nan]), DataError, "start must be finite"),
        (lambda p: p.contains([[1, 2, 3]]), DataError, r"x must have 2 coordinates per point, got shape \(1, 3\)"),
        (lambda p: p.contains([math.nan, 0.0]), DataError, "x must be finite"),
        (lambda p: p.contains([0.0, 0.0], -1.0), ValueError, "tolerance must not be negative"),
        (lambda p: p.distance_to_boundary(3.0), DataError, r"x must have 2 coordinates per point, got shape \(\)"),
        (lambda p: p.vertices(0), ValueError, "most must be a whole number of at least 1"),
        (lambda p: p.boundary(-1), ValueError, "n must be a whole number of at least 0"),
        (lambda p: p.slice((0, 0)), ValueError, r"axes must be different numbers from 0 to 1, got \(0, 0\)"),
        (lambda p: p.slice((0, 2)), ValueError, "axes must be different numbers from 0 to 1"),
        (lambda p: p.slice(()), ValueError, "axes must be different numbers from 0 to 1"),
        (lambda p: p.slice((0,), at=[2, 2]), DataError, "at is outside of the domain"),
        (lambda p: p.slice((0,), at=[0, 1]), DataError, "the domain is flat"),
        (lambda p: p.slice((0,)).embed([[0.0, 0.0]]), DataError, "x must have 1 coordinates per point"),
        (lambda p: Polytope.box([0, 0], [1, 0]), DataError, "coordinate 1 has low 0 and high 0"),
        (lambda p: Polytope.box([0, 0], [1, 1, 1]), DataError, "as many of one as of the other"),
        (lambda p: Polytope.box([0, math.nan], 1), DataError, "low must be below high, but coordinate 1 has low nan"),
        (lambda p: Polytope.box(0, math.inf), DataError, "b must be finite"),
        (lambda p: Polytope.simplex(0), ValueError, "d must be a whole number of at least 1, got 0"),
    ],
)
def test_arguments_that_are_refused(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call(Polytope.simplex(2))
