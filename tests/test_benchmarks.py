"""The rivals of the benchmarks mean the same quantity, and their tables are those of their figures."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"


@pytest.fixture
def density(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import density

    return density


def test_rivals_mean_the_same_sums(density: ModuleType) -> None:
    x = density.load("crystal", 200, "float64")
    rivals = density.rivals_of(1)
    exact = rivals["SciPy cdist"](x)()
    for name in ("ours, auto", "ours, float32", "BLAS, float64", "BLAS, float32"):
        np.testing.assert_allclose(rivals[name](x)(), exact, atol=1e-3 if "32" in name else 1e-9, err_msg=name)
    np.testing.assert_allclose(density.kernel_density("kd_tree", 1e-4)(x)(), exact, atol=1e-4)


def test_tables_are_those_of_the_figures(density: ModuleType) -> None:
    store = BENCHMARKS / "results" / "density.json"
    if not store.exists():
        pytest.skip("no results are stored")
    results = json.loads(store.read_text(encoding="utf-8"))
    assert density.markdown(results) == (BENCHMARKS / "results" / "density.md").read_text(encoding="utf-8")
