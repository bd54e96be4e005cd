"""Coordinates of maps: against the definition, and where nothing is left to tell."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from quests_zenn._core.checks import DataError
from quests_zenn.entropy import coordinates
from quests_zenn.entropy.coordinates import map_coordinates

Array = npt.NDArray[np.float64]


def cloud(n: int = 300, d: int = 7, seed: int = 0) -> Array:
    """Points that are wide along some axes and narrow along others."""
    rng = np.random.default_rng(seed)
    turned = np.linalg.qr(rng.normal(size=(d, d)))[0]
    return 0.3 + (rng.normal(size=(n, d)) * 0.5 ** np.arange(d)) @ turned


def principal(x: Array, n: int) -> tuple[Array, Array]:
    """Coordinates and shares of the variance from the covariance matrix, written from the definition."""
    centred = x - x.mean(axis=0)
    values, vectors = np.linalg.eigh(centred.T @ centred / len(x))
    axes = vectors[:, ::-1][:, :n]
    axes = axes * np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(n)])
    return centred @ axes, values[::-1][:n] / values.sum()


@pytest.mark.parametrize("n", [1, 2, 3])
def test_principal_axes_are_those_of_the_covariance(n: int) -> None:
    x = cloud()
    found = map_coordinates(x, n_coordinates=n)
    values, explained = principal(x, n)
    np.testing.assert_allclose(found.values, values, atol=1e-10)
    np.testing.assert_allclose(found.explained, explained, atol=1e-12)


def test_rows_are_placed_among_all(monkeypatch: pytest.MonkeyPatch) -> None:
    x, rows = cloud(), np.array([4, 17, 250])
    whole = map_coordinates(x)
    np.testing.assert_allclose(map_coordinates(x, rows).values, whole.values[rows], atol=1e-12)
    # of very many, every second one counts for the axes
    monkeypatch.setattr(coordinates, "MOST_FITTED", 150)
    half = map_coordinates(x)
    assert half.values.shape == whole.values.shape
    centred = x - x[::2].mean(axis=0)
    reference = principal(x[::2], 2)[0]
    np.testing.assert_allclose(half.values[::2], reference, atol=1e-10)
    assert np.abs(half.values - whole.values).max() > 1e-4
    np.testing.assert_allclose(np.linalg.norm(map_coordinates(x, n_coordinates=3).values, axis=1).max(),
                               np.linalg.norm(centred, axis=1).max(), rtol=0.1)  # fmt: skip


def test_wide_rows_have_the_same_axes() -> None:
    x = np.hstack([cloud(60), np.zeros((60, 600))])
    np.testing.assert_allclose(map_coordinates(x).values, principal(x, 2)[0], atol=1e-8)


def test_the_sign_does_not_depend_on_the_order_of_rows() -> None:
    x = cloud()
    order = np.random.default_rng(1).permutation(len(x))
    np.testing.assert_allclose(map_coordinates(x[order]).values, map_coordinates(x).values[order], atol=1e-10)


@pytest.mark.parametrize("n", [1, 2, 50])
def test_equal_rows_lie_on_one_point(n: int) -> None:
    x = np.tile(cloud(1), (n, 1))
    x += np.where(np.arange(n) % 2, 1e-16, 0.0)[:, None]  # what rounding leaves
    found = map_coordinates(x)
    assert not found.values.any()
    assert found.explained is not None
    assert not found.explained.any()


def test_rows_on_a_line_have_one_coordinate() -> None:
    x = np.outer(np.arange(10.0), [3.0, 4.0])
    found = map_coordinates(x, n_coordinates=3)
    np.testing.assert_allclose(found.values[:, 0], 5.0 * (np.arange(10.0) - 4.5), atol=1e-12)
    assert not found.values[:, 1:].any()
    np.testing.assert_allclose(found.explained, [1.0, 0.0, 0.0], atol=1e-12)


def test_tsne_keeps_groups_together_and_apart() -> None:
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(size=(40, 5)) * 0.01, 1.0 + rng.normal(size=(40, 5)) * 0.01])
    found = map_coordinates(x, method="tsne")
    assert found.explained is None
    first, second = found.values[:40], found.values[40:]
    within = max(np.ptp(first, axis=0).max(), np.ptp(second, axis=0).max())
    assert np.linalg.norm(first.mean(axis=0) - second.mean(axis=0)) > within
    assert np.array_equal(found.values, map_coordinates(x, method="tsne").values)
    assert map_coordinates(x[:4], method="tsne", n_coordinates=3).values.shape == (4, 3)
    assert not map_coordinates(np.ones((9, 3)), method="tsne").values.any()


def test_bad_arguments() -> None:
    with pytest.raises(DataError, match="t-SNE needs at least 4 environments, got 3"):
        map_coordinates(cloud(3), method="tsne")
    with pytest.raises(ValueError, match="method must be one of"):
        map_coordinates(cloud(), method="umap")
    with pytest.raises(ValueError, match="n_coordinates must be 3 at most, got 4"):
        map_coordinates(cloud(), n_coordinates=4)
    with pytest.raises(ValueError, match="row 2 holds NaN"):
        map_coordinates(np.where(np.arange(5)[:, None] == 2, np.nan, cloud(5)))
