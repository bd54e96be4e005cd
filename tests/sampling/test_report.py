"""Slices of free energies, and who bought what."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from quests_zenn._core.checks import DataError
from quests_zenn.sampling.domain import Polytope
from quests_zenn.sampling.report import asked_before, energy_line, energy_slice, shares

Array = npt.NDArray[np.float64]


class Wells:
    """g = (x^2 - 0.25)^2 + y^2 + (z - 0.1)^2 + 3 x - y: two wells, at x = +-0.5, once the plane is gone; z = 0.1."""

    def derivatives(self, x: Array, T: Array, orders: Any, members: bool = False) -> dict[tuple[int, ...], Array]:
        a, b, c = x.T
        one = np.ones(len(x))
        values = {
            (0, 0, 0, 0): (a**2 - 0.25) ** 2 + b**2 + (c - 0.1) ** 2 + 3.0 * a - b,
            (2, 0, 0, 0): 12.0 * a**2 - 1.0,
            (0, 2, 0, 0): 2.0 * one,
            (0, 0, 2, 0): 2.0 * one,
        }
        return {order: values.get(order, 0.0 * one) for order in orders}


@pytest.fixture(scope="module")
def cube() -> Polytope:
    return Polytope.box([-1.0, -1.0, -1.0], [1.0, 1.0, 1.0])


def test_wells_and_the_unstable_region_of_a_slice(cube: Polytope) -> None:
    known = np.array([[0.1, 0.2, 0.0], [0.3, 0.4, 0.9]])
    found = energy_slice(Wells(), cube, (0, 1), 300.0, known=known, resolution=81)
    assert found.energy.shape == (81, 81)
    assert not np.isnan(found.energy).any()
    np.testing.assert_allclose(np.sort(found.wells[:, 0]), [-0.5, 0.5], atol=0.013)
    np.testing.assert_allclose(found.wells[:, 1], 0.0, atol=0.013)
    # 12 x^2 < 1, whatever y
    edge = np.abs(found.x) < np.sqrt(1.0 / 12.0)
    assert (found.unstable == edge[None, :]).all()
    np.testing.assert_array_equal(found.points, [[0.1, 0.2]])  # the other lies far off in z


def test_the_plane_of_least_squares_is_taken_off(cube: Polytope) -> None:
    found = energy_slice(Wells(), cube, (0, 1), 300.0, resolution=21)
    x, y = np.meshgrid(found.x, found.y)
    design = np.column_stack([np.ones(x.size), x.ravel(), y.ravel()])
    np.testing.assert_allclose(design.T @ found.energy.ravel(), 0.0, atol=1e-9)


def test_outside_of_the_domain_there_is_nothing() -> None:
    simplex = Polytope.simplex(3)
    found = energy_slice(Wells(), simplex, (0, 2), 300.0, resolution=41)
    x, z = np.meshgrid(found.x, found.y)
    y = float(np.asarray(simplex.centre)[1])
    outside = x + z + y > 1.0 + 1e-9
    assert outside.any()
    assert np.isnan(found.energy[outside]).all()
    assert not found.unstable[outside].any()


def test_a_slice_through_a_chosen_point(cube: Polytope) -> None:
    """Across x = 0 nothing is stable; across x = 0.9 all is."""
    for at, stable in (([0.0, 0.0, 0.0], False), ([0.9, 0.0, 0.0], True)):
        found = energy_slice(Wells(), cube, (1, 2), 300.0, at=np.array(at), resolution=11)
        assert (found.unstable != stable).all()
        np.testing.assert_array_equal(found.at, at)
        assert len(found.wells) == int(stable)


def test_shares() -> None:
    rounds = [
        {"by_criterion": {"space-filling": {"points": 5}}},
        {"by_criterion": {"committee": {"points": 2}, "space-filling": {"points": 1}}},
    ]
    assert shares(rounds) == {"space-filling": [5, 1], "committee": [0, 2]}
    assert shares([]) == {}


class Double:
    """g = (x^2 - 0.25)^2 + 3 x + 2: two wells at x = +-0.5 once a line is gone, not convex where 12 x^2 < 1."""

    def derivatives(self, x: Array, T: Array, orders: Any, members: bool = False) -> dict[tuple[int, ...], Array]:
        assert x.ndim == 1
        values = {
            (0, 0): (x**2 - 0.25) ** 2 + 3.0 * x + 2.0,
            (1, 0): 4.0 * x * (x**2 - 0.25) + 3.0,
            (2, 0): 12.0 * x**2 - 1.0,
        }
        return {order: values[order] for order in orders}


def test_a_line_in_one_dimension(cube: Polytope) -> None:
    found = energy_line(Double(), Polytope.box([-1.0], [1.0]), 300.0)
    assert (found.x[0], found.x[-1]) == (-1.0, 1.0)
    np.testing.assert_allclose(found.wells, [-0.5, 0.5], atol=1e-9)
    np.testing.assert_array_equal(found.unstable, 12.0 * found.x**2 < 1.0)
    # less a line, but mu with its slope
    np.testing.assert_allclose(found.mu, 4.0 * found.x * (found.x**2 - 0.25) + 3.0, atol=1e-12)
    np.testing.assert_allclose([found.energy.mean(), found.energy @ found.x], 0.0, atol=1e-9)
    with pytest.raises(ValueError, match="of one dimension, got one of 3"):
        energy_line(Double(), cube, 300.0)


def test_points_asked_before(tmp_path: Path) -> None:
    assert asked_before(None) == asked_before(tmp_path) == 0
    for number, text in ((0, '{"n_points": 6}'), (1, '{"n_points": 9}'), (3, '{"n_points": 90}')):
        folder = tmp_path / "rounds" / f"{number:04d}"
        folder.mkdir(parents=True)
        (folder / "metrics.json").write_text(text, encoding="utf-8")
    assert asked_before(tmp_path) == 9  # nothing follows on a round that did not end
    (tmp_path / "rounds" / "0001" / "metrics.json").write_text("{", encoding="utf-8")
    with pytest.raises(DataError, match="is damaged"):
        asked_before(tmp_path)
