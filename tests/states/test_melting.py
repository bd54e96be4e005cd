"""The parts of the benchmark of melting that can be wrong without anybody noticing."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "benchmarks" / "thermo"


@pytest.fixture
def orders(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import _melting_orders

    yield _melting_orders
    sys.modules.pop("_melting_orders", None)


def crystal(cells: int = 5, a: float = 3.6) -> tuple[np.ndarray, np.ndarray]:
    grid = np.stack(np.meshgrid(*[np.arange(cells)] * 3, indexing="ij"), -1).reshape(-1, 1, 3)
    sites = np.array([[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])
    return a * (grid + sites).reshape(-1, 3), np.full(3, a * cells)


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("width", [1.0, 12.0])
def test_a_step_is_found_where_it_is(orders, sign, width):
    t = np.arange(1000.0, 1400.0, 2.0)[:: int(sign)]
    y = 0.002 * t + 0.8 / (1.0 + np.exp(-(t - 1233.0) / width))
    y = y + np.random.default_rng(0).normal(0.0, 0.02, len(t))
    change = orders.change_point(t, y)
    assert change.at == pytest.approx(1233.0, abs=3.0)
    assert abs(change.at - 1233.0) < 3 * change.error
    assert change.jump == pytest.approx(0.8 * sign, rel=0.15)
    assert change.noise == pytest.approx(0.02, rel=0.3)


def test_auroc_counts_pairs(orders):
    score, truth = np.array([0.1, 0.4, 0.4, 0.9]), np.array([False, True, False, True])
    assert orders.auroc(score, truth) == pytest.approx(3.5 / 4)


def test_clusters_go_through_faces_of_the_cell(orders):
    x, lengths = crystal()
    near = orders.Neighbours(x, lengths)
    assert len(near.pairs) == 6 * len(x)  # twelve nearest neighbours, each pair once
    edge = (x[:, 0] < 1.0) | (x[:, 0] > lengths[0] - 2.0)  # two neighbouring planes, one on each side of the face
    middle = np.abs(x[:, 0] - lengths[0] / 2) < 0.5
    label = near.clusters(edge | middle)
    assert set(label[edge]) == {0}
    assert set(label[middle]) == {1}
    assert near.largest(edge | middle) == edge.sum()
    assert near.largest(np.zeros(len(x), bool)) == 0
    np.testing.assert_allclose(near.mean(np.arange(len(x)) * 0.0 + 2.5), 2.5)


@pytest.mark.extra
def test_bond_order_knows_a_crystal(orders):
    pytest.importorskip("freud")
    x, lengths = crystal()
    order, bonds = orders.bond_order(x, lengths)
    np.testing.assert_allclose(order, 0.5745, atol=1e-3)  # q6 of fcc
    assert (bonds == 12).all()
    gas = np.random.default_rng(1).uniform(0, lengths, x.shape)
    order, bonds = orders.bond_order(gas, lengths)
    assert order.mean() < 0.3
    assert (bonds >= 7).mean() < 0.05
