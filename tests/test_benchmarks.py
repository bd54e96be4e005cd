"""The rivals of the benchmarks mean the same quantity, and their tables are those of their figures."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read
from scipy.spatial.distance import cdist

from quests_zenn._core.checks import MissingExtraError
from quests_zenn.descriptors import describe
from quests_zenn.uq.lammps import import_lammps

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


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def uq(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import uq

    return uq


def test_tables_of_uncertainty_are_those_of_the_figures(uq: ModuleType) -> None:
    store = BENCHMARKS / "results" / "uq.json"
    if not store.exists():
        pytest.skip("no results are stored")
    results = json.loads(store.read_text(encoding="utf-8"))
    assert uq.markdown(results) == (BENCHMARKS / "results" / "uq.md").read_text(encoding="utf-8")


@pytest.fixture
def rivals(uq: ModuleType) -> ModuleType:
    import _uq_rivals

    return _uq_rivals


def test_auroc_counts_pairs(rivals: ModuleType) -> None:
    positive, negative = np.array([1.0, 3.0, np.inf]), np.array([0.0, 2.0, 3.0])
    pairs = [1.0 if p > n else 0.5 if p == n else 0.0 for p in positive for n in negative]
    assert rivals.auroc(positive, negative) == pytest.approx(np.mean(pairs))


def test_statistics_of_frames(rivals: ModuleType) -> None:
    found = rivals.statistics(np.array([1.0, 4.0, 2.0, 3.0, 9.0, 7.0]), np.array([0, 4, 5, 6]))
    assert found["mean"].tolist() == [2.5, 9.0, 7.0]
    assert found["quarter"].tolist() == found["max"].tolist() == [4.0, 9.0, 7.0]
    eight = rivals.statistics(np.arange(8.0), np.array([0, 8]))
    assert eight["quarter"].tolist() == [6.5]


def test_every_rival_tells_what_is_far(rivals: ModuleType, rng: np.random.Generator) -> None:
    known = rng.normal(size=(200, 3)) * (1.0, 0.3, 0.1)
    near, far = rng.normal(size=(50, 3)) * (1.0, 0.3, 0.1), rng.normal(size=(50, 3)) * 0.1 + (6.0, 2.0, 1.0)
    for name, make in rivals.RIVALS.items():
        score = make(known, np.arange(200))
        assert rivals.auroc(score(far), score(near)) == 1.0, name


def test_rivals_are_what_they_are_called(rivals: ModuleType, rng: np.random.Generator) -> None:
    known, asked = rng.normal(size=(60, 3)), rng.normal(size=(7, 3))
    frame = np.arange(60)
    apart = cdist(asked, known)
    np.testing.assert_allclose(rivals.nearest(known, frame)(asked), apart.min(axis=1))
    h = rivals.likely_bandwidth(known, frame).best  # three components keep all of the variance
    exact = -np.log(np.exp(-0.5 * (apart / h) ** 2).sum(axis=1))
    np.testing.assert_allclose(rivals.neighbour_density(known, frame)(asked), exact, atol=1e-6)


def test_excess_is_dh_less_that_of_the_nearest_known(rivals: ModuleType, rng: np.random.Generator) -> None:
    frames = [sheared_silicon(rng) for _ in range(6)]
    known, asked = describe(frames[:5]), describe(frames[5])
    reference = rivals.ours(known, 0.05)
    dh, kept = reference.score(asked), reference.leave_out().dh
    near = np.argsort(cdist(asked.x, known.x), axis=1)[:, : rivals.COMPARED]
    np.testing.assert_allclose(rivals.excess(reference, known, asked, dh), dh - kept[near].mean(axis=1))


@pytest.fixture
def potentials(uq: ModuleType) -> ModuleType:
    try:
        import_lammps()
    except MissingExtraError as error:
        pytest.skip(str(error))
    import _uq_potentials

    return _uq_potentials


def sheared_silicon(rng: np.random.Generator) -> Any:
    atoms = bulk("Si", cubic=True)
    atoms.set_cell(atoms.cell.array + rng.normal(scale=0.2, size=(3, 3)), scale_atoms=True)
    atoms.positions += rng.normal(scale=0.1, size=atoms.positions.shape)
    return atoms


def labelled(atoms: Any, energy: float = 0.0, forces: Any = 0.0) -> Any:
    atoms = atoms.copy()
    atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=np.zeros((len(atoms), 3)) + forces)
    return atoms


def test_rows_of_forces_are_derivatives_of_those_of_energies(potentials: ModuleType, rng: np.random.Generator) -> None:
    atoms, step = sheared_silicon(rng), 1e-4
    moved = []
    for shift in (step, -step):
        other = atoms.copy()
        other.positions[3, 1] += shift
        moved.append(labelled(other))
    here, up, down = potentials.designs([labelled(atoms), *moved])
    slopes = -len(atoms) * (up.energy_row - down.energy_row) / (2 * step)
    np.testing.assert_allclose(here.force_rows[3 * 3 + 1], slopes, atol=1e-5 * np.abs(slopes).max())
    zbl = -len(atoms) * (up.energy - down.energy) / (2 * step)  # the repulsion is taken off both
    assert here.forces[3 * 3 + 1] == pytest.approx(zbl, abs=1e-5)
    assert here.moves
    assert not potentials.designs([labelled(bulk("Si", cubic=True))])[0].moves


def test_a_linear_potential_is_found_again(potentials: ModuleType, rng: np.random.Generator) -> None:
    frames = [labelled(sheared_silicon(rng)) for _ in range(8)]
    plain = potentials.designs(frames)
    true = rng.normal(scale=0.1, size=len(plain[0].energy_row))
    made = [
        labelled(
            atoms,
            (one.energy_row @ true - one.energy) * len(atoms),
            (one.force_rows @ true - one.forces).reshape(-1, 3),
        )
        for atoms, one in zip(frames, plain, strict=True)
    ]
    found = potentials.designs(made)
    potential = potentials.fit(found[:6], np.arange(6))
    size = np.linalg.norm(np.concatenate([one.forces for one in found[6:]]).reshape(-1, 3), axis=1)
    assert potential.force_errors(found[6:]).max() < 1e-2 * size.mean()


def test_frames_are_turned_about_one_bond(uq: ModuleType, data_dir: Path) -> None:
    import _uq_frames

    atoms = read(data_dir / "acac_test_300K.xyz", 0)
    turned = _uq_frames.turn(atoms, 47.0)
    assert _uq_frames.dihedral(turned) == pytest.approx(47.0)
    still = [i for i in range(len(atoms)) if i not in _uq_frames.TURNED]
    np.testing.assert_allclose(turned.positions[still], atoms.positions[still], atol=1e-12)
    part = turned.positions[_uq_frames.TURNED]
    np.testing.assert_allclose(
        cdist(part, part), atoms.get_all_distances()[np.ix_(*[_uq_frames.TURNED] * 2)], atol=1e-9
    )


@pytest.fixture
def compression(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import compression

    return compression


@pytest.fixture
def subsets(compression: ModuleType) -> ModuleType:
    import _compression_models

    return _compression_models


def test_tables_of_subsets_are_those_of_the_figures(compression: ModuleType) -> None:
    store = BENCHMARKS / "results" / "compression.json"
    if not store.exists():
        pytest.skip("no results are stored")
    results = json.loads(store.read_text(encoding="utf-8"))
    assert compression.markdown(results) == (BENCHMARKS / "results" / "compression.md").read_text(encoding="utf-8")


def test_subsets_come_closest_to_the_atoms_asked_for(subsets: ModuleType, rng: np.random.Generator) -> None:
    sizes = rng.integers(1, 60, size=200)
    order = rng.permutation(200)
    for atoms in (1.0, 150.0, 0.25 * sizes.sum()):
        off = np.abs(np.cumsum(sizes[order]) - atoms)
        found = subsets.prefix(order, sizes, atoms)
        assert found.tolist() == order[: len(found)].tolist()
        assert abs(sizes[found].sum() - atoms) == off.min()
    near = subsets.matched(lambda n: order[:n], sizes, 0.25 * sizes.sum())
    assert sizes[near].sum() == pytest.approx(0.25 * sizes.sum(), rel=0.05)
    assert len(subsets.matched(lambda n: order[:n], sizes, 1.0)) == 1


def test_folds_hold_all_kinds_and_keep_copies_together(subsets: ModuleType) -> None:
    first = np.arange(100)
    first[50:60] = np.arange(10)
    fold = subsets.stratified(np.array(["A"] * 60 + ["B"] * 40), first)
    assert fold[50:60].tolist() == fold[:10].tolist()
    assert [sorted(set(part)) for part in (fold[:60], fold[60:])] == [list(range(subsets.FOLDS))] * 2


def random_designs(subsets: ModuleType, rng: np.random.Generator, n: int, truth: np.ndarray) -> list[Any]:
    found = []
    for _ in range(n):
        row, forces = np.append(1.0, 7.0 + rng.normal(size=len(truth) - 1)), rng.normal(size=(12, len(truth)))
        forces[:, 0] = 0.0
        noise = 0.01 * rng.normal(size=13)
        found.append(subsets.Design(row @ truth + noise[0], row, forces @ truth + noise[1:], forces))
    return found


def test_sums_of_products_give_the_ridge_of_all_rows(subsets: ModuleType, rng: np.random.Generator) -> None:
    from sklearn.linear_model import Ridge

    truth = rng.normal(size=6)
    found, heights = random_designs(subsets, rng, 9, truth), rng.uniform(0.0, 2.0, size=9)
    structures, penalty = np.array([0, 2, 3, 5, 8]), 0.1
    table = subsets.Table.of(found, heights)
    n_rows = table.count(structures)
    assert n_rows == 5 * 13
    (made,) = subsets.ridge(table.moments(structures), n_rows, [penalty])
    made[0] += table.mean[-1] - table.mean[:-1] @ made[1:]

    weights = subsets.ENERGY_WEIGHT / (1.0 + heights / subsets.FAR)
    x = np.concatenate([np.vstack([weights[s] * found[s].energy_row, found[s].force_rows]) for s in structures])
    y = np.concatenate([np.append(weights[s] * found[s].energy, found[s].forces) for s in structures])
    # the constant is not penalised: what it explains is projected out
    one = x[:, :1]
    rest = x[:, 1:] - one * (one.T @ x[:, 1:]) / (one.T @ one)
    target = y - one[:, 0] * (one[:, 0] @ y) / (one[:, 0] @ one[:, 0])
    scale = np.sqrt(np.mean(rest**2, axis=0))
    inner = Ridge(penalty * n_rows, fit_intercept=False).fit(rest / scale, target).coef_ / scale
    constant = one[:, 0] @ (y - x[:, 1:] @ inner) / (one[:, 0] @ one[:, 0])
    np.testing.assert_allclose(made, np.append(constant, inner), rtol=1e-6)


def test_errors_are_those_of_the_potential_on_what_was_asked(subsets: ModuleType, rng: np.random.Generator) -> None:
    truth = rng.normal(size=6)
    found = random_designs(subsets, rng, 90, truth)
    made, _ = subsets.fit(subsets.Table.of(found[:20], np.zeros(20)), np.arange(20), np.arange(20))
    np.testing.assert_allclose(made[1:], truth[1:], atol=0.02)
    assert made[0] == pytest.approx(truth[0], abs=0.2)  # far from where the rows are
    errors, asked = subsets.Errors.empty(90, 2), np.arange(20, 90)
    errors.ask(asked, found, np.array([made, truth]))
    assert np.isnan(errors.squares[:20]).all()
    test = np.zeros(90, bool)
    test[30:80] = True
    value = errors.of(test)
    off = np.concatenate([found[s].forces - found[s].force_rows @ made for s in range(30, 80)])
    energies = np.array([found[s].energy - found[s].energy_row @ made for s in range(30, 80)])
    assert value["force"][0] == pytest.approx(np.sqrt(np.mean(off**2)))
    assert value["force_mae"][0] == pytest.approx(np.abs(off).mean())
    assert value["energy"][0] == pytest.approx(1e3 * np.sqrt(np.mean(energies**2)))
    drawn = errors.drawn(test, rng)["force"]
    assert drawn.shape == (subsets.DRAWS, 2)
    assert drawn[:, 0].mean() == pytest.approx(value["force"][0], rel=0.02)


@pytest.mark.slow
def test_a_quick_run_writes_where_it_is_told(
    uq: ModuleType, data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.setenv("QUESTS_ZENN_DATA", str(data_dir))
    monkeypatch.setattr("sys.argv", ["uq.py", "--quick", "--only", "scan", "alarms", "--output", str(tmp_path)])
    uq.main()
    text = (tmp_path / "uq.md").read_text(encoding="utf-8")
    assert "Are 30 to 60 degrees known?" in text
    assert "False alarms" in text
    assert "Every setting" not in text


@pytest.fixture
def free_energies(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    pytest.importorskip("torch")
    pytest.importorskip("sklearn")
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import zenn

    return zenn


@pytest.mark.extra
def test_tables_of_free_energies_are_those_of_the_figures(free_energies: ModuleType) -> None:
    written = BENCHMARKS / "results" / "zenn.md"
    if not written.exists():
        pytest.skip("no results are stored")
    results = free_energies.stored(BENCHMARKS / "results")
    assert free_energies.markdown(results) == written.read_text(encoding="utf-8")


@pytest.mark.extra
def test_a_spline_surface_has_the_derivatives_of_what_it_goes_through(free_energies: ModuleType) -> None:
    from _zenn_rivals import Surface

    v, t = np.linspace(1.0, 2.0, 9), np.linspace(0.0, 3.0, 14)
    surface = Surface(v, t, v[:, None] ** 3 * t[None] ** 2 + 2.0 * v[:, None])
    x, T = np.array([1.1, 1.7]), np.array([0.4, 2.2])
    found = surface.derivatives(x, T, [(0, 0), (1, 0), (2, 1), (0, 2), (4, 0)])
    np.testing.assert_allclose(found[0, 0], x**3 * T**2 + 2.0 * x)
    np.testing.assert_allclose(found[1, 0], 3.0 * x**2 * T**2 + 2.0)
    np.testing.assert_allclose(found[2, 1], 12.0 * x * T)
    np.testing.assert_allclose(found[0, 2], 2.0 * x**3)
    np.testing.assert_allclose(found[4, 0], 0.0, atol=1e-6)
    assert surface.extrapolates([0.9, 1.5], [1.0, 1.0]).tolist() == [True, False]


@pytest.mark.extra
def test_the_process_knows_the_deviation_of_its_slope(free_energies: ModuleType, rng: np.random.Generator) -> None:
    """Against differences of the posterior: the deviation of P is that of -dF/dV."""
    import _zenn_rivals
    from sklearn.gaussian_process import GaussianProcessRegressor

    kept = []

    class Kept(GaussianProcessRegressor):
        def fit(self, x: Any, y: Any) -> Any:
            kept.append(super().fit(x, y))
            return self

    x, T = rng.uniform(10.0, 12.0, 30), rng.uniform(100.0, 300.0, 30)
    F = 1e-3 * (5.0 * np.sin(2.0 * x) + 0.01 * T + rng.normal(size=30))
    v, t = np.linspace(10.0, 12.0, 6), np.linspace(100.0, 300.0, 5)
    asked = _zenn_rivals.Asked(
        x, T, F, v, t, lambda a, b, orders: {order: np.zeros(len(a)) for order in orders}, lambda f: 0.0
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sklearn.gaussian_process.GaussianProcessRegressor", Kept)
        answer = _zenn_rivals.gaussian_process(0)(asked)
    kernel, step = kept[-1].kernel_.k1, 1e-3
    known = asked.scaled(x, T)
    inverse = np.linalg.inv(kept[-1].kernel_(known))
    at = asked.scaled(*asked.grid())
    aside = np.array([step, 0.0])
    up, down = at + aside, at - aside
    slope = (kernel(up, known) - kernel(down, known)) / (2.0 * step)
    own = np.diag(kernel(up, up) - kernel(up, down) - kernel(down, up) + kernel(down, down)) / (2.0 * step) ** 2
    std = np.sqrt(own - np.einsum("ij,jk,ik->i", slope, inverse, slope))
    # meV to eV, half of the range of V to Å3, eV/Å3 to GPa
    np.testing.assert_allclose(answer.p_std.ravel(), 160.2176634 * 1e-3 * std / 1.0, rtol=1e-3)


@pytest.mark.extra
def test_landscapes_lose_their_wells_where_they_say(free_energies: ModuleType) -> None:
    import _zenn_landscapes as landscapes

    for one in landscapes.LANDSCAPES:

        class Truth:
            n_members_ = 1

            def derivatives(self, x: Any, T: Any, orders: Any, members: bool = False, one: Any = one) -> Any:
                found = {order: one(x, T, order[0]) for order in orders}
                return {order: value[None] for order, value in found.items()} if members else found

        for t in (*one.between, *one.beyond):
            row = landscapes.at_temperature(Truth(), one, t)
            assert row["js"] == pytest.approx(0.0, abs=1e-12)
            assert row["wells_right"]
            assert row["d3"] == pytest.approx(0.0, abs=1e-12)
        if one.wells is not None:
            found = landscapes.bifurcation(Truth(), one)
            assert found["bifurcation"] == pytest.approx(one.wells[2], abs=0.05)


@pytest.mark.extra
def test_what_is_stored_is_not_made_again(free_energies: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "part.json"
    made = []

    def make() -> dict[str, Any]:
        made.append(1)
        return {"error": 0.5}

    for fresh in (False, False, True):
        row = free_energies.Store(path, fresh, {"cores": 1})(make, task="a", seed=0)
        assert row["error"] == 0.5
    assert len(made) == 2


@pytest.mark.slow
@pytest.mark.extra
def test_a_quick_run_of_free_energies_writes_where_it_is_told(
    free_energies: ModuleType, data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.setenv("QUESTS_ZENN_DATA", str(data_dir))
    arguments = ["zenn.py", "--quick", "--part", "noise", "--draws", "1", "--output", str(tmp_path)]
    monkeypatch.setattr("sys.argv", arguments)
    free_energies.main()
    text = (tmp_path / "zenn.md").read_text(encoding="utf-8")
    assert "Fe3Pt from 80 noisy points" in text
    assert "physics + Gaussian process" in text
    assert "Landscapes" not in text
    assert (tmp_path / "zenn_fe3pt.png").exists()


@pytest.fixture
def active(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    pytest.importorskip("torch")
    pytest.importorskip("sklearn")
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import active

    return active


@pytest.mark.extra
def test_tables_of_active_learning_are_those_of_the_figures(active: ModuleType) -> None:
    written = BENCHMARKS / "results" / "active.md"
    if not written.exists():
        pytest.skip("no results are stored")
    assert active.markdown(active.stored(BENCHMARKS / "results")) == written.read_text(encoding="utf-8")


@pytest.mark.extra
def test_a_ridge_polynomial_meets_a_polynomial(active: ModuleType, rng: np.random.Generator) -> None:
    """Its gradient, of a free energy that has the form; and mu of the invariants, not of x alone."""
    from _active_ridge import Ridge

    from quests_zenn.zenn._polynomials import Polynomials

    inputs = Polynomials.parse(["x_0", "x_1**2"], 2)
    x = rng.uniform(-1.0, 1.0, (80, 2))
    mu = np.stack([2.0 * x[:, 0] + x[:, 1] ** 2, 2.0 * x[:, 0] * x[:, 1] + 4.0 * x[:, 1] ** 3], axis=1)
    model = Ridge(inputs).fit(x, mu)
    test = rng.uniform(-0.9, 0.9, (20, 2))
    exact = np.stack(
        [2.0 * test[:, 0] + test[:, 1] ** 2, 2.0 * test[:, 0] * test[:, 1] + 4.0 * test[:, 1] ** 3], axis=1
    )
    np.testing.assert_allclose(model.potential(test), exact, atol=1e-4)


@pytest.mark.extra
@pytest.mark.parametrize("dims", ["2-D", "4-D"])
def test_known_free_energies_are_found_where_they_are(active: ModuleType, dims: str) -> None:
    """mu is the gradient of one function; wells and binodal of the exact mu have no error, those of another have."""
    known = active.Known(dims, quick=True)
    at, step = known.x[:20], 1e-5
    for i in range(known.q):
        for j in range(i):
            slopes = []
            for a, b in ((i, j), (j, i)):
                move = np.zeros(known.q)
                move[b] = step
                slopes.append((known.exact(at + move) - known.exact(at - move))[:, a] / (2.0 * step))
            np.testing.assert_allclose(slopes[0], slopes[1], atol=1e-8)
    assert len(known.wells) == 3
    assert np.abs(known.exact(known.wells)).max() < 2e-3
    assert active.well_error(active.minima(known.exact, known.q), known.wells) == 0.0
    assert active.well_error(known.wells + 0.1, known.wells) == pytest.approx(0.1 * np.sqrt(known.q), rel=0.5)
    low, high = known.ends
    assert -0.9 < low < high < 0.9


@pytest.mark.slow
@pytest.mark.extra
def test_a_quick_run_of_active_learning_writes_where_it_is_told(
    active: ModuleType, data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.setenv("QUESTS_ZENN_DATA", str(data_dir))
    parts = ["lco", "synthetic", "lattice", "speed"]
    monkeypatch.setattr("sys.argv", ["active.py", "--quick", "--part", *parts, "--output", str(tmp_path)])
    active.main()
    text = (tmp_path / "active.md").read_text(encoding="utf-8")
    assert "Real data: LixCoO2" in text
    assert "| ridge |" in text
    assert "| wells at 30 |" in text
    assert (tmp_path / "active.png").exists()
