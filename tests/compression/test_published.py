"""The published code selects the same structures, wherever it has an answer: finite dH, and no ties."""

from __future__ import annotations

import functools
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import naive
import numpy as np
import numpy.typing as npt
import pytest
from small_sets import compressor

from quests_zenn.compression import DatasetCompressor

pytestmark = [
    pytest.mark.extra,
    # the published kernels mix integer types; Numba says so when it compiles them
    pytest.mark.filterwarnings("ignore::numba.core.errors.NumbaTypeSafetyWarning"),
]

Array = npt.NDArray[np.float64]

#: Scores that differ by less are equal.
TIE = 1e-9

#: Densities below exp(-690) = 1e-300 lose digits before they underflow, at exp(-745).
LARGEST = 690.0


@pytest.fixture(scope="module")
def peer() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fps = pytest.importorskip("quests.compression.fps", exc_type=ImportError)
    return SimpleNamespace(fps=fps.fps, msc=fps.msc, msc_conditional=fps.msc_conditional)


@functools.cache
def described(path: Path, index: str, h: float) -> DatasetCompressor:
    from ase.io import read

    return DatasetCompressor(read(path, index), h, jobs=1)


def parts(data: DatasetCompressor) -> list[Array]:
    return np.split(data.x, data.frame_offsets[1:-1])


def dense(n: int, seed: int) -> list[Array]:
    """Structures whose environments are all within reach of each other."""
    rng = np.random.default_rng([n, seed])
    return [rng.normal(size=(rng.integers(2, 12), 4)) * rng.uniform(0.5, 1.5) for _ in range(n)]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("n", "size"), [(20, 20), (80, 40)])
def test_random_sets(peer: Any, n: int, size: int, seed: int) -> None:
    structures = dense(n, seed)
    data = compressor(structures, h=0.7)
    found = data.select("msc", size)
    assert np.isfinite(found.scores[1:]).all()
    assert found.indices.tolist() == peer.msc(structures, data.entropies, size, h=0.7)
    assert data.get_indices("fps", size).tolist() == peer.fps(structures, data.entropies, size)
    known = dense(5, seed + 100)
    found = data.select("msc_conditional", size, reference=known)
    assert found.indices.tolist() == peer.msc_conditional(structures, data.entropies, size, known, h=0.7)


@pytest.mark.parametrize("h", [0.015, 0.06])
@pytest.mark.parametrize(
    ("name", "index"),
    [("acac_test_dihedral.xyz", ":"), ("acac_test_600K.xyz", "::10"), ("acac_train_300K.xyz", "::10")],
)
def test_acetylacetone(peer: Any, data_dir: Path, name: str, index: str, h: float) -> None:
    data = described(data_dir / name, index, h)
    structures, n = parts(data), data.n_structures
    found = data.select("msc", 1.0)
    assert np.isfinite(found.scores[1:]).all()
    assert found.scores[1:].max() < LARGEST
    assert found.indices.tolist() == peer.msc(structures, data.entropies, n, h=h)
    assert data.get_indices("fps", 1.0).tolist() == peer.fps(structures, data.entropies, n)
    known = parts(described(data_dir / "acac_train_300K.xyz", "::50", h))
    found = data.select("msc_conditional", 0.5, reference=known)
    assert found.scores.max() < LARGEST
    assert found.indices.tolist() == peer.msc_conditional(structures, data.entropies, len(found), known, h=h)


@pytest.mark.parametrize("h", [0.015, 0.06])
@pytest.mark.parametrize("name", ["mlearn_Si_test.xyz", "mlearn_Ge_test.xyz", "mlearn_Mo_test.xyz"])
def test_metals_up_to_the_first_tie(peer: Any, data_dir: Path, name: str, h: float) -> None:
    """Some structures are copies of others by symmetry. Where the two selections part, both choices are worth the same,
    and ours has the lower index.
    """
    data = described(data_dir / name, ":", h)
    structures, n = parts(data), data.n_structures
    for method, theirs in (
        ("msc", peer.msc(structures, data.entropies, n, h=h)),
        ("fps", peer.fps(structures, data.entropies, n)),
    ):
        found = data.select(method, 1.0)
        apart = np.flatnonzero(found.indices != np.array(theirs))
        assert len(apart) == 0 or "Mo" not in name
        if len(apart) and apart[0] > 0:
            first = int(apart[0])
            known = [structures[s] for s in theirs[:first]]
            worth = []
            for s in (int(found.indices[first]), theirs[first]):
                x = structures[s]
                value = naive.log_value(method, x, [0] * len(x), known, [[0] * len(k) for k in known], h)
                worth.append(value + naive.entropy(x, h) if method == "msc" else value)
            assert worth[0] == pytest.approx(worth[1], abs=TIE)
            assert found.indices[first] < theirs[first]


def test_the_published_code_ties_what_is_far(peer: Any) -> None:
    """Beyond the reach of its sums it goes by index; ours still tells what is farther."""
    structures = [x * 0.1 for x in dense(6, 0)]
    for place, far in ((2, 5.0), (4, 9.0)):
        structures[place] = structures[place] + far
    data = compressor(structures, h=0.015)
    keep_first = int(np.argmax(data.entropies))
    with np.errstate(divide="ignore"):
        theirs = peer.msc(structures, data.entropies, 3, h=0.015)
    found = data.select("msc", 3)
    assert found.indices[0] == theirs[0] == keep_first
    assert np.isfinite(found.scores[1:]).all()
    assert found.indices[1] == 4
