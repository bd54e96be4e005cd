"""The published code computes the same numbers, wherever its sums do not underflow."""

from __future__ import annotations

import functools
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from quests_zenn.descriptors import get_descriptors
from quests_zenn.entropy import delta_entropy, diversity, entropy, get_all_metrics, get_bandwidth

pytestmark = [
    pytest.mark.extra,
    # the published kernels mix integer types; Numba says so when it compiles them
    pytest.mark.filterwarnings("ignore::numba.core.errors.NumbaTypeSafetyWarning"),
]

#: Name of a file, and the frames of it that are compared.
FILES = [
    ("mlearn_Si_test.xyz", ":"),
    ("mlearn_Mo_test.xyz", ":"),
    ("Ta_fitsnap.xyz", "::3"),
    ("acac_test_dihedral.xyz", ":"),
    ("acac_test_600K.xyz", "::10"),
]

#: Densities below exp(-690) = 1e-300 lose digits before they underflow, at exp(-745).
LARGEST = 690.0


@pytest.fixture(scope="module")
def peer() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("quests.entropy", exc_type=ImportError)


@functools.cache
def descriptors(path: Path, index: str) -> npt.NDArray[np.float64]:
    from ase.io import read

    return get_descriptors(read(path, index))


@pytest.mark.parametrize(("name", "index"), FILES)
@pytest.mark.parametrize("h", [0.01, 0.015, 0.06])
def test_entropy_and_diversity(peer: Any, data_dir: Path, name: str, index: str, h: float) -> None:
    x = descriptors(data_dir / name, index)
    value, d, dh = get_all_metrics(x, h)
    expected = peer.get_all_metrics(x, h)
    np.testing.assert_allclose(value, expected[0], rtol=1e-10)
    np.testing.assert_allclose(d, expected[1], rtol=1e-10)
    np.testing.assert_allclose(dh, expected[2], rtol=0.0, atol=1e-10)
    assert 0.0 < value < np.log(len(x))  # the comparison would say little at either end


@pytest.mark.parametrize("h", [0.01, 0.015, 0.06])
@pytest.mark.parametrize(
    ("asked", "known"),
    [
        ("mlearn_Si_test.xyz", "mlearn_Ge_test.xyz"),
        ("mlearn_Mo_test.xyz", "mlearn_Si_test.xyz"),
        ("acac_test_dihedral.xyz", "acac_test_H_transfer.xyz"),
    ],
)
def test_delta_entropy(peer: Any, data_dir: Path, asked: str, known: str, h: float) -> None:
    y, x = descriptors(data_dir / asked, ":"), descriptors(data_dir / known, ":")
    found = delta_entropy(y, x, h)
    with np.errstate(divide="ignore"):
        expected = peer.delta_entropy(y, x, h)
    near = expected < LARGEST
    assert near.any()
    np.testing.assert_allclose(found[near], expected[near], rtol=1e-12, atol=1e-10)
    # where the published code has no number any more, ours is a large one
    assert np.isfinite(found).all()
    assert (found[~near] > 600.0).all()


def test_all_doors(peer: Any, data_dir: Path) -> None:
    x = descriptors(data_dir / "mlearn_Mo_test.xyz", ":")
    np.testing.assert_allclose(entropy(x), peer.entropy(x), rtol=1e-10)
    np.testing.assert_allclose(diversity(x), peer.diversity(x), rtol=1e-10)
    np.testing.assert_allclose(entropy(x, h=0.03), peer.perfect_entropy(x, h=0.03), rtol=1e-10)


def test_the_peer_underflows_where_we_do_not(peer: Any, data_dir: Path) -> None:
    x = descriptors(data_dir / "mlearn_Mo_test.xyz", "0")
    y = x.copy()
    y[:, 3] += 0.7
    with np.errstate(divide="ignore"):
        assert np.isposinf(peer.delta_entropy(y, x)).all()
    assert np.isfinite(delta_entropy(y, x)).all()


@pytest.mark.parametrize("volume", [5.0, 10.896, 11.81, 20.0, 60.0])
def test_bandwidth(peer: Any, volume: float) -> None:
    np.testing.assert_allclose(get_bandwidth(volume), peer.get_bandwidth(volume), rtol=1e-14)
