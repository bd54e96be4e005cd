"""The adapter to icet: ideal solutions, whose mu is known, and mchammer asked directly."""

from __future__ import annotations

import numpy as np
import pytest

from quests_zenn._core.checks import DataError, MissingExtraError
from quests_zenn.sampling import _icet
from quests_zenn.sampling._icet import IcetOracle
from quests_zenn.sampling._icet_run import blocking_error

extra = pytest.mark.extra

# icet calls spglib in a way that spglib will drop
pytestmark = pytest.mark.filterwarnings("ignore:Set OLD_ERROR_HANDLING:DeprecationWarning")


def expansion(parameters=(0.0, 0.0, 0.0), symbols=("Ag", "Au")):
    icet = pytest.importorskip("icet")
    from ase.build import bulk

    space = icet.ClusterSpace(bulk("Au"), cutoffs=[3.0], chemical_symbols=list(symbols))
    return icet.ClusterExpansion(space, list(parameters))


def test_without_icet_the_extra_is_named(monkeypatch):
    monkeypatch.setattr(_icet, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"needs icet, which is not installed: .*\[active\]"):
        IcetOracle(None, (3, 3, 3), ["Au"])


def test_errors_of_means_know_of_correlation():
    rng = np.random.default_rng(0)
    white = rng.standard_normal((4096, 1))
    assert blocking_error(white)[0] == pytest.approx(1.0 / 64.0, rel=0.35)
    slow = np.repeat(white[:256], 16, axis=0)  # 256 independent values
    assert blocking_error(slow)[0] == pytest.approx(1.0 / 16.0, rel=0.35)
    assert blocking_error(np.ones((100, 2))).tolist() == [0.0, 0.0]


@pytest.mark.slow
@extra
def test_an_ideal_solution_has_its_mu():
    oracle = IcetOracle(expansion(), (4, 4, 4), ["Au"], sweeps=600, phi=2.0)
    assert (oracle.names, oracle.q, oracle.sites, oracle.candidates()) == (("c_Au",), 1, 64, None)
    T = np.array([600.0, 900.0])
    points = np.array([[0.3], [0.6]])
    kT = _icet.BOLTZMANN * T[:, None]
    guess = kT * np.log(points / (1.0 - points))
    results = [oracle.evaluate(points, T, seeds=[1, 2], jobs=jobs, mu_guess=guess) for jobs in (1, 2)]
    np.testing.assert_array_equal(results[0].mu, results[1].mu)
    result = results[0]
    assert result.message == ["", ""]
    assert np.abs(result.x - points).max() < 0.02
    exact = kT * np.log(result.x / (1.0 - result.x))
    assert (np.abs(result.mu - exact) < 5.0 * result.mu_error + 0.02 * kT).all()
    assert ((result.mu_error > 0.0) & (result.mu_error < 0.1 * kT)).all()
    unguided = oracle.evaluate(points[:1], T[:1], seeds=[1])
    np.testing.assert_allclose(unguided.mu, -4.0 * (unguided.x - points[:1]), atol=1e-12)


@extra
@pytest.mark.filterwarnings("ignore:The inplace keyword:DeprecationWarning")  # mchammer, of pandas
def test_it_is_mchammer_with_the_same_settings():
    model = expansion((0.0, 0.1, -0.02))  # skips where icet, which brings mchammer, is not installed
    from mchammer.calculators import ClusterExpansionCalculator
    from mchammer.ensembles import VCSGCEnsemble

    oracle = IcetOracle(model, (3, 3, 3), ["Au"], sweeps=200, phi=5.0, equilibration=0.5)
    result = oracle.evaluate([[0.4]], 700.0, seeds=[11])
    structure = model.get_cluster_space_copy().primitive_structure.repeat(3)
    kappa = 5.0 / (_icet.BOLTZMANN * 700.0)
    direct = VCSGCEnsemble(
        structure=structure,
        calculator=ClusterExpansionCalculator(structure, model),
        temperature=700.0,
        phis={"Au": -0.8},
        kappa=kappa,
        boltzmann_constant=_icet.BOLTZMANN,
        random_seed=11,
    )
    direct.run(27 * 200)
    assert result.x[0, 0] == pytest.approx(np.mean(direct.data_container.get("Au_count")[100:]) / 27, abs=1e-12)
    theirs = np.mean(direct.data_container.get("free_energy_derivative_Au")[100:])
    assert result.mu[0, 0] == pytest.approx(theirs, abs=1e-9)


@extra
def test_the_semi_grand_ensemble_finds_c_of_a_mu_with_three_species():
    icet = pytest.importorskip("icet")
    from ase.build import bulk

    space = icet.ClusterSpace(bulk("Au"), cutoffs=[3.0], chemical_symbols=["Ag", "Au", "Pd"])
    model = icet.ClusterExpansion(space, np.zeros(len(space)))
    oracle = IcetOracle(model, (4, 4, 4), ["Au", "Pd"], sweeps=600, ensemble="semi-grand")
    point = np.array([[0.2, 0.5]])
    result = oracle.evaluate(point, 800.0, seeds=[3])
    assert result.message == [""]
    assert np.abs(result.x - point).max() < 0.03  # mu of an ideal solution was the guess, and is right
    kT = _icet.BOLTZMANN * 800.0
    exact = kT * np.log(result.x / (1.0 - result.x.sum()))
    assert (np.abs(result.mu - exact) < 6.0 * result.mu_error).all()
    assert (result.mu_error < 0.1 * kT).all()
    guided = oracle.evaluate(point, 800.0, seeds=[3], mu_guess=[[0.01, np.nan]])
    assert guided.mu[0, 0] == 0.01
    assert guided.mu[0, 1] == result.mu[0, 1]
    with pytest.raises(DataError, match="exact for two species only; say ensemble='semi-grand'"):
        IcetOracle(model, (4, 4, 4), ["Au", "Pd"])


@extra
def test_answers_are_kept(tmp_path):
    oracle = IcetOracle(expansion(), (3, 3, 3), ["Au"], sweeps=40)
    first = oracle.evaluate([[0.4]], 700.0, seeds=[11], folder=tmp_path)
    (answer,) = tmp_path.glob("*/answer.json")
    again = IcetOracle(expansion(), (3, 3, 3), ["Au"], sweeps=40)
    assert again.fingerprint() == oracle.fingerprint()
    np.testing.assert_array_equal(again.evaluate([[0.4]], 700.0, seeds=[11], folder=tmp_path).mu, first.mu)
    assert len(list(answer.parent.glob("run-*"))) == 1


@extra
def test_expansions_travel_as_json(tmp_path):
    model = expansion((0.3, 0.1, -0.02))
    oracle = IcetOracle(model, (3, 3, 3), ["Ag"], sweeps=40)
    oracle.save(tmp_path / "model.json")
    again = IcetOracle(tmp_path / "model.json", (3, 3, 3), ["Ag"], sweeps=40)
    assert again.fingerprint() == oracle.fingerprint()
    pruned = expansion((0.3, 0.0, -0.02))
    pruned.prune()
    assert len(pruned.parameters) == 2
    there = _icet.expansion_to_plain(pruned)
    structure = model.get_cluster_space_copy().primitive_structure.repeat(2)
    structure.symbols[3] = "Au"
    assert _icet.expansion_from_plain(there).predict(structure) == pytest.approx(pruned.predict(structure), abs=1e-14)
    (tmp_path / "not.json").write_text("{}")
    with pytest.raises(DataError, match="this is no cluster expansion"):
        IcetOracle(tmp_path / "not.json", (3, 3, 3), ["Ag"])
    with pytest.raises(DataError, match="no such file"):
        IcetOracle(tmp_path / "none.json", (3, 3, 3), ["Ag"])


@extra
def test_files_of_icet_are_pickles_and_are_not_read(tmp_path):
    model = expansion((0.3, 0.1, -0.02))
    path = tmp_path / "model.ce"
    model.write(str(path))
    with pytest.raises(DataError, match="pickles, which can run any code when they are read"):
        IcetOracle(path, (3, 3, 3), ["Ag"])


@extra
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"species": ["Cu"]}, r"species must be 1 of the 2 on the active sublattice \(Ag, Au\), got Cu"),
        ({"species": ["Ag", "Au"]}, "species must be 1 of the 2"),
        ({"supercell": (3, 3)}, "supercell must be an ase.Atoms or three numbers"),
        ({"supercell": (0, 3, 3)}, "a repetition must be a whole number of at least 1"),
        ({"phi": -1.0}, "phi must be positive"),
        ({"sweeps": 3}, "sweeps must be a whole number of at least 20"),
        ({"equilibration": 1.0}, "equilibration must lie between 0 and 0.9"),
        ({"ensemble": "canonical"}, "ensemble must be one of"),
        ({"cluster_expansion": 3}, "cannot be taken apart"),
    ],
)
def test_bad_settings_are_one_sentence(change, message):
    given = {"cluster_expansion": expansion(), "supercell": (3, 3, 3), "species": ["Au"], **change}
    with pytest.raises(ValueError, match=message) as caught:
        IcetOracle(**given)
    assert "\n" not in str(caught.value)


@extra
def test_a_supercell_of_other_species_is_one_sentence():
    from ase.build import bulk

    with pytest.raises(DataError, match="the supercell does not fit the cluster expansion"):
        IcetOracle(expansion(), bulk("Cu").repeat(3), ["Au"])
