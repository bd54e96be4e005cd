"""Training: interrupted fits go on to the same bits, rows held out are not seen, draws sum to zero."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from sklearn.base import clone

from quests_zenn._core.checks import DataError

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")

from handmade import VOLUME  # noqa: E402

from quests_zenn.zenn import IDNN, _train  # noqa: E402
from quests_zenn.zenn._files import read_tensors, write_tensors  # noqa: E402
from quests_zenn.zenn._parts import Design  # noqa: E402
from quests_zenn.zenn._problem import Rows  # noqa: E402
from quests_zenn.zenn._train import Settings, Trainer  # noqa: E402
from quests_zenn.zenn.model import DNN, ZENN  # noqa: E402

pytestmark = pytest.mark.extra

Array = npt.NDArray[Any]

BRIEF: dict[str, Any] = {
    "n_members": 2,
    "max_iterations": 8,
    "random_state": 3,
    "n_jobs": 1,
    "verbose": False,
}


def table() -> tuple[Array, Array, Array]:
    V, T = (a.ravel() for a in np.meshgrid(np.linspace(10.5, 13.5, 7), np.linspace(100.0, 600.0, 4)))
    F = 0.05 * (V - 12.0) ** 2 - 0.004 * (V - 12.0) ** 3 - 1.5e-7 * T**2 * (1.0 + 0.05 * (V - 12.0))
    return V, T, F + 1e-4 * np.random.default_rng(0).normal(size=V.shape)


FORMS: dict[str, Any] = {
    "equation of state": ZENN(2, hidden=(2,), **BRIEF),
    "networks": ZENN(2, energy="network", thermal="none", hidden=(3,), adam_steps=10, **BRIEF),
}


@pytest.fixture(scope="module")
def undisturbed() -> dict[str, tuple[Any, list[str]]]:
    """Each form fitted without interruption, and the stages it told of."""
    V, T, F = table()
    made = {}
    for name, model in FORMS.items():
        told: list[str] = []
        made[name] = clone(model).fit(V, T, F=F, progress=lambda stage, done, told=told: told.append(stage)), told
    return made


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Checkpoints at every step: the clock runs by ten seconds whenever it is asked."""
    now = [0.0]

    def clock() -> float:
        now[0] += 10.0
        return now[0]

    monkeypatch.setattr(_train.time, "monotonic", clock)


class Interruption:
    """Raises KeyboardInterrupt at one call of a stage."""

    def __init__(self, at: int) -> None:
        self.left = at

    def __call__(self, stage: str, done: int) -> None:
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt


def test_progress_names_stages(undisturbed: dict[str, tuple[Any, list[str]]]) -> None:
    told = undisturbed["networks"][1]
    assert told[:10] == ["adam"] * 10
    assert set(told[10:]) == {"screen", "fit"}
    assert told.count("fit") == undisturbed["networks"][0].report_["iterations"]
    model, told = undisturbed["equation of state"]
    assert "adam" not in told
    assert model.report_["iterations"] <= 8
    assert told[-model.report_["iterations"] :] == ["fit"] * model.report_["iterations"]


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.8, 0.97])
def test_an_interrupted_fit_goes_on_to_the_same_bits(
    name: str, share: float, tmp_path: Path, undisturbed: dict[str, tuple[Any, list[str]]]
) -> None:
    V, T, F = table()
    expected, told = undisturbed[name]
    path = tmp_path / "state.safetensors"
    model = clone(FORMS[name])
    with pytest.raises(KeyboardInterrupt):
        model.fit(V, T, F=F, checkpoint=path, progress=Interruption(round(share * len(told))))
    assert not hasattr(model, "z_")
    calls: list[str] = []
    model.fit(V, T, F=F, checkpoint=path, progress=lambda stage, done: calls.append(stage))
    assert torch.equal(model.z_, expected.z_)
    assert model.noise_ == expected.noise_
    assert model.report_["cost"] == expected.report_["cost"]
    assert model.report_["iterations"] == expected.report_["iterations"]
    if share > 0.9:
        assert len(calls) < len(told)  # it did go on, and not begin anew


@pytest.mark.usefixtures("eager")
def test_several_interruptions_of_one_fit(tmp_path: Path, undisturbed: dict[str, tuple[Any, list[str]]]) -> None:
    """Each time some more steps are done; in the end the bits are those of no interruption."""
    V, T, F = table()
    model, stops = clone(FORMS["networks"]), 0
    for _ in range(200):
        try:
            model.fit(V, T, F=F, checkpoint=tmp_path / "state", progress=Interruption(14))
            break
        except KeyboardInterrupt:
            stops += 1
    assert stops >= 2
    assert torch.equal(model.z_, undisturbed["networks"][0].z_)


@pytest.mark.usefixtures("eager")
def test_a_fit_that_had_ended_ends_at_once(tmp_path: Path) -> None:
    """The same call again, with the checkpoint of a fit that converged: no more steps, the same bits."""
    V, T, F = table()
    model = clone(FORMS["equation of state"]).set_params(hidden=(), max_iterations=200, tolerance=1e-3)
    path = tmp_path / "state"
    first = clone(model).fit(V, T, F=F, checkpoint=path)
    assert first.report_["converged"]
    again = clone(model).fit(V, T, F=F, checkpoint=path)
    assert again.report_["iterations"] == first.report_["iterations"]
    assert again.report_["converged"]
    assert torch.equal(again.z_, first.z_)


def test_checkpoints_are_written_now_and_then_only(
    tmp_path: Path, undisturbed: dict[str, tuple[Any, list[str]]]
) -> None:
    """Not at each step (they cost time), but always before the last stage; nothing else is left behind."""
    V, T, F = table()
    path = tmp_path / "state"
    model = clone(FORMS["networks"]).fit(V, T, F=F, checkpoint=path)
    assert torch.equal(model.z_, undisturbed["networks"][0].z_)
    tensors, about = read_tensors(path)
    assert about["stage"] in ("damped", "done")
    assert tensors["z"].shape == model.z_.shape
    assert [entry.name for entry in tmp_path.iterdir()] == ["state"]


@pytest.mark.usefixtures("eager")
def test_a_checkpoint_without_a_seed_brings_its_own(tmp_path: Path) -> None:
    """random_state=None draws a seed; going on must not draw another."""
    V, T, F = table()
    model = clone(FORMS["equation of state"]).set_params(random_state=None, max_iterations=4)
    told: list[str] = []
    clone(model).fit(V, T, F=F, progress=lambda stage, done: told.append(stage))
    with pytest.raises(KeyboardInterrupt):
        model.fit(V, T, F=F, checkpoint=tmp_path / "state", progress=Interruption(len(told) - 1))
    seed = read_tensors(tmp_path / "state")[1]["seed"]
    model.fit(V, T, F=F, checkpoint=tmp_path / "state")
    assert model.seed_ == seed
    assert torch.equal(model.z_, clone(model).set_params(random_state=seed).fit(V, T, F=F).z_)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    V, T, F = table()
    path = tmp_path_factory.mktemp("checkpoint") / "state"
    clone(FORMS["equation of state"]).fit(V, T, F=F, checkpoint=path)
    return path


@pytest.mark.parametrize("change", ["F", "T", "weights", "seed", "settings", "form", "errors"])
def test_a_checkpoint_of_another_fit_is_refused(change: str, checkpoint: Path) -> None:
    V, T, F = table()
    model, more = clone(FORMS["equation of state"]), {}
    if change == "F":
        F = F + 1e-9 * np.arange(len(F))
    elif change == "T":
        T = T + 1e-6 * np.arange(len(T))
    elif change == "weights":
        more["sample_weight"] = 1.0 + np.arange(len(F))
    elif change == "errors":
        more["errors"] = {"F": 1e-3}
    elif change == "seed":
        model.set_params(random_state=4)
    elif change == "settings":
        model.set_params(tolerance=1e-6)
    else:
        model.set_params(coherence=2.0)
    before = checkpoint.read_bytes()
    with pytest.raises(
        DataError, match="state: this checkpoint is of a fit with other data, settings or seed; delete it"
    ):
        model.fit(V, T, F=F, checkpoint=checkpoint, **more)
    assert checkpoint.read_bytes() == before


@pytest.mark.parametrize("kind", ["empty", "cut", "text", "header", "folder"])
def test_a_damaged_checkpoint_is_refused(kind: str, checkpoint: Path, tmp_path: Path) -> None:
    V, T, F = table()
    path = tmp_path / "state"
    whole = checkpoint.read_bytes()
    if kind == "folder":
        path.mkdir()
    elif kind == "header":
        write_tensors(path, {"z": torch.zeros(2)}, {})
        tensors, about = read_tensors(checkpoint)
        del about["stage"]
        write_tensors(path, tensors, about)
    else:
        path.write_bytes({"empty": b"", "cut": whole[: len(whole) // 2], "text": b"no checkpoint at all" * 50}[kind])
    sentence = "is a folder, not a file" if kind == "folder" else "is no checkpoint of a fit, or is damaged; delete it"
    with pytest.raises(DataError, match=f"state: {sentence}"):
        clone(FORMS["equation of state"]).fit(V, T, F=F, checkpoint=path)


def test_a_checkpoint_in_a_folder_that_is_not_there(tmp_path: Path) -> None:
    V, T, F = table()
    with pytest.raises(DataError, match="nowhere"):
        clone(FORMS["equation of state"]).fit(V, T, F=F, checkpoint=tmp_path / "nowhere" / "state")


# --- members, draws, rows held out ------------------------------------------------------------------------------------


def trainer(members: int = 4, count: int = 50, kinds: tuple[str, ...] = ("F", "P"), **more: Any) -> Trainer:
    rng = np.random.default_rng(0)
    x = np.linspace(10.5, 13.5, count)[:, None]
    T = rng.choice([100.0, 300.0, 500.0, 600.0, 700.0], count)
    targets = {kind: rng.normal(size=count) * 0.01 for kind in kinds}
    cell = None
    if "density" in kinds:
        T = np.sort(T)
        targets["density"] = rng.uniform(0.1, 1.0, count)
        cell = np.ones(count)
    rows = Rows(x, T, targets, {}, np.ones(count), cell)
    design = Design(2, hidden=(2,), **VOLUME)
    return Trainer(design, rows, Settings(n_members=members, n_starts=2 * members, **more), seed=5)


def test_draws_of_a_committee_sum_to_zero() -> None:
    """So that the mean of the members is not moved; each has unit variance."""
    t = trainer(members=4, count=400)
    for draws in (*t.epsilon.values(), t.zeta):
        assert draws.shape[0] == 4
        np.testing.assert_allclose(draws.sum(0).numpy(), 0.0, atol=1e-12)
    assert float(t.epsilon["F"].var()) == pytest.approx(1.0, rel=0.1)
    assert float(t.epsilon["F"].std(1).min()) > 0.9
    correlation = np.corrcoef(t.epsilon["F"].numpy())
    assert correlation[0, 1] == pytest.approx(-1 / 3, abs=0.12)  # as it must be, for a sum of zero
    assert not torch.equal(t.epsilon["F"], t.epsilon["P"])
    for draws in (*trainer(members=1).epsilon.values(), trainer(members=1).zeta):
        assert bool((draws == 0.0).all())
    assert bool((trainer(kinds=("density",)).epsilon["density"] == 0.0).all())


def test_each_member_holds_out_rows_of_its_own() -> None:
    t = trainer(members=4, count=50, validation_fraction=0.2)
    held = t.train.numpy() == 0.0
    assert held.sum(1).tolist() == [10, 10, 10, 10]
    assert (held.sum(0) <= 1).all()  # none twice while there are others
    assert trainer(validation_fraction=0.0).train.min() == 1.0
    assert float(trainer(count=4, validation_fraction=0.1).train.min()) == 1.0
    five = trainer(members=6, count=20, validation_fraction=0.25).train.numpy() == 0.0
    assert five.sum(1).tolist() == [5] * 6
    assert five.sum(0).min() >= 1


def test_rows_held_out_are_not_trained_on() -> None:
    """Whatever stands in the rows that one member holds out, its cost and gradient do not see it."""
    t = trainer(validation_fraction=0.2)
    out = np.flatnonzero(t.train[1].numpy() == 0.0)
    other = trainer(validation_fraction=0.2)
    for kind in other.kinds:
        other.problem.targets[kind][torch.from_numpy(out)] += 100.0
    z = t.z0[:4]
    state = [
        _train._State("damped", 0, {"z": z}, dict.fromkeys(one.kinds, 0.01), [1.0] * len(one.blocks))
        for one in (t, other)
    ]
    sums = []
    for one, s in zip((t, other), state, strict=True):
        with _train.Workers(1) as one.workers:
            sums.append(one._sums(s, z, True))
    assert torch.equal(sums[0].gradient[1], sums[1].gradient[1])
    assert torch.equal(sums[0].cost[1], sums[1].cost[1])
    assert not torch.equal(sums[0].gradient[0], sums[1].gradient[0])
    assert float(sums[1].held["F"][1]) > 100.0 * float(sums[0].held["F"][1])


def test_the_noise_is_found_with_the_right_size() -> None:
    """Learned for each kind of target, in its unit; not learned where errors are given."""
    rng = np.random.default_rng(1)
    V, T, F = table()
    V, T, F = np.tile(V, 4), np.tile(T, 4), np.tile(F, 4)
    F = F + 2e-3 * rng.normal(size=F.shape)
    settings = {**BRIEF, "n_members": 4, "max_iterations": 100, "hidden": (), "n_configurations": 1}
    model = ZENN(**settings).fit(V, T, F=F)
    assert model.noise_["F"] == pytest.approx(2e-3, rel=0.3)
    assert model.report_["targets"]["F"]["noise"] == model.noise_["F"]
    given = ZENN(**settings).fit(V, T, F=F, errors={"F": 2e-3})
    assert "F" not in given.noise_
    assert given.report_["targets"]["F"]["noise"] is None
    np.testing.assert_allclose(given.free_energy(V, T), model.free_energy(V, T), atol=1e-3)


def test_the_spread_of_a_committee_is_that_of_the_posterior() -> None:
    """A model that is linear in its parameters: the spread of many members is known from least squares."""
    rng = np.random.default_rng(2)
    V, T, F = table()
    F = F + 2e-3 * rng.normal(size=F.shape)
    settings = {**BRIEF, "max_iterations": 30, "hidden": (), "n_configurations": 1, "validation_fraction": 0.0}
    small = ZENN(**{**settings, "n_members": 12, "learn_priors": False}).fit(V, T, F=F, errors={"F": 2e-3})
    large = ZENN(**{**settings, "n_members": 12, "learn_priors": False}).fit(V, T, F=F, errors={"F": 8e-3})
    at = (np.array([11.0, 12.0, 13.0]), np.array([300.0, 300.0, 300.0]))
    spread = [model.free_energy(*at, std=True)[1].mean() for model in (small, large)]
    count = len(V)
    assert 2e-3 / math.sqrt(count) < spread[0] < 2e-3
    assert 2.0 < spread[1] / spread[0] < 5.0


def test_the_best_of_many_starts_are_taken() -> None:
    V, T, F = table()
    settings = {**BRIEF, "n_members": 1, "max_iterations": 3, "hidden": (2,), "n_configurations": 2}
    few = ZENN(n_starts=1, **settings).fit(V, T, F=F)
    many = ZENN(n_starts=8, **settings).fit(V, T, F=F)
    assert many.report_["targets"]["F"]["rms"] < few.report_["targets"]["F"]["rms"]


def test_models_too_large_for_damped_steps_are_fitted_all_the_same(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Quasi-Newton steps: they fit, are reproducible, and go on after an interruption."""
    V, T, F = table()
    original = _train.Settings

    def small(**given: Any) -> Settings:
        return original(**{**given, "max_damped_parameters": 30})

    monkeypatch.setattr("quests_zenn.zenn.model.Settings", small)
    model = DNN(hidden=(4, 4), **{**BRIEF, "max_iterations": 25})
    told: list[str] = []
    first = clone(model).fit(V, T, F=F, progress=lambda stage, done: told.append(stage))
    assert first.n_parameters_ > 30
    assert first.report_["targets"]["F"]["rms"] < 5e-3
    path = tmp_path / "state"
    with pytest.raises(KeyboardInterrupt):
        clone(model).fit(V, T, F=F, checkpoint=path, progress=Interruption(len(told) - 1))
    again = clone(model).set_params(n_jobs=2).fit(V, T, F=F, checkpoint=path)
    assert torch.equal(first.z_, again.z_)


def test_validation_is_reported_only_where_rows_were_held_out() -> None:
    V, T, F = table()
    settings = {**BRIEF, "hidden": (), "n_configurations": 1, "max_iterations": 5}
    with_rows = ZENN(validation_fraction=0.25, **settings).fit(V, T, F=F).report_["targets"]["F"]
    without = ZENN(validation_fraction=0.0, **settings).fit(V, T, F=F).report_["targets"]["F"]
    assert with_rows["rms_validation"] > 0.0
    assert without["rms_validation"] is None


def test_members_far_above_the_best_start_again_where_it_stands() -> None:
    fit = trainer(members=3)
    z = torch.arange(3.0, dtype=torch.float64)[:, None].repeat(1, fit.z0.shape[1])
    far = 4.0 * np.sqrt(len(fit.rows) + z.shape[1])
    damping = torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64)
    moved, damped = fit._found_again(z, torch.tensor([10.0 + 0.9 * far, 10.0, 10.0 + 1.1 * far]), damping)
    assert moved[:, 0].tolist() == [0.0, 1.0, 1.0]
    assert damped.tolist() == [0.1, 0.2, 0.2]


def test_members_are_looked_for_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    fit = trainer(members=2, max_iterations=8, tolerance=1e-300)

    def watched(self: Any, z: Any, cost: Any, damping: Any) -> Any:
        seen.append(1)
        return z, damping

    monkeypatch.setattr(Trainer, "_found_again", watched)
    fit.run()
    assert len(seen) == 2


def potentials() -> tuple[np.ndarray, np.ndarray]:
    """Twelve rows of mu of two components with noise of 2 meV: fewer numbers than the network has weights."""
    rng = np.random.default_rng(0)
    x = rng.uniform(-1.0, 1.0, (12, 2))
    mu = np.stack([0.4 * x[:, 0] * (x[:, 0] ** 2 - 0.25), 0.3 * x[:, 1] ** 3], axis=1)
    return x, mu + 2e-3 * rng.normal(size=mu.shape)


@pytest.mark.filterwarnings("ignore:the fit explains next to nothing")
def test_with_few_rows_no_component_of_mu_is_met_at_the_cost_of_others() -> None:
    x, mu = potentials()
    how: dict[str, Any] = {"hidden": (8,), "n_members": 2, "max_iterations": 40, "n_jobs": 1, "verbose": False}
    for seed in range(3):
        model = IDNN(random_state=seed, **how).fit(x, 300.0, mu=mu)
        first, second = model.noise_["mu_0"] / mu[:, 0].std(), model.noise_["mu_1"] / mu[:, 1].std()
        assert 0.5 < first / second < 2.0


def test_with_many_rows_each_component_of_mu_has_its_own_noise() -> None:
    """2 and 20 meV."""
    rng = np.random.default_rng(0)
    x = rng.uniform(-1.0, 1.0, (400, 2))
    mu = np.stack([0.3 * x[:, 0], 0.3 * x[:, 1]], axis=1) + rng.normal(size=(400, 2)) * [2e-3, 2e-2]
    how: dict[str, Any] = {"hidden": (3,), "n_members": 2, "max_iterations": 60, "n_jobs": 1, "verbose": False}
    model = IDNN(random_state=0, **how).fit(x, 300.0, mu=mu)
    assert model.noise_["mu_1"] == pytest.approx(2e-2, rel=0.15)
    # drawn towards the other a little: thirty rows' worth
    assert 1.8e-3 < model.noise_["mu_0"] < 6e-3


@pytest.mark.filterwarnings("ignore:the fit explains next to nothing")
def test_a_warm_start_does_not_hold_on_to_noise_that_was_too_small() -> None:
    x, mu = potentials()
    how: dict[str, Any] = {"hidden": (4,), "n_members": 2, "max_iterations": 20, "n_jobs": 1, "verbose": False}
    model = IDNN(random_state=0, **how).fit(x[:6], 300.0, mu=mu[:6])
    model.noise_ = dict.fromkeys(model.noise_, 1e-12)
    model.set_params(warm_start=True, max_iterations=40).fit(x, 300.0, mu=mu)
    assert all(noise > 1e-4 for noise in model.noise_.values())


# --- arguments of different scales ------------------------------------------------------------------------------------


def coarse_and_fine(n: int, seed: int, small: float = 0.01) -> tuple[np.ndarray, np.ndarray]:
    """x (n, 3) from -1 to 1, and mu of sin(3 x_0) + small ((x_1^2 - 0.3)^2 + x_0 x_2^2)."""
    x = np.random.default_rng(seed).uniform(-1.0, 1.0, (n, 3))
    a, b, c = x.T
    mu = [3.0 * np.cos(3.0 * a) + small * c**2, small * 4.0 * b * (b**2 - 0.3), small * 2.0 * a * c]
    return x, np.stack(mu, axis=1)


def test_two_networks_where_some_arguments_matter_far_less() -> None:
    settings = {"hidden": (8,), "n_members": 2, "random_state": 0, "n_jobs": 1, "verbose": False}
    x, mu = coarse_and_fine(60, 0)
    model = IDNN(**settings).fit(x, 300.0, mu=mu)
    gains = model.design_.gains
    assert gains[0] == 1.0
    assert all(0.001 < gain < 0.1 for gain in gains[1:])
    assert 0.001 < model.design_.fine < 0.1
    test, exact = (values[(np.abs(coarse_and_fine(200, 1)[0]) < 0.9).all(1)] for values in coarse_and_fine(200, 1))
    rms = np.sqrt(np.mean((model.chemical_potential(test, 300.0) - exact) ** 2, axis=0))
    assert (rms[1:] < 0.3 * exact[:, 1:].std(0)).all()
    x, mu = coarse_and_fine(60, 0, small=1.0)
    assert IDNN(**settings).fit(x, 300.0, mu=mu).design_.gains == ()


def test_how_much_an_argument_matters_is_learned() -> None:
    """Of two networks each has its own widths, one for each input of its first layer."""
    x, mu = coarse_and_fine(60, 0)
    x = np.column_stack([x, np.random.default_rng(2).uniform(-1.0, 1.0, 60)])  # F does not hang on the last
    mu = np.column_stack([mu, np.zeros(60)])
    model = IDNN(hidden=(8,), n_members=2, random_state=0, n_jobs=1, verbose=False).fit(x, 300.0, mu=mu)
    widths = model.report_["prior_widths"]
    found = [widths[f"weights_0[{i}]"] for i in range(8)]
    assert len([name for name in widths if name.startswith("weights_0")]) == 8
    assert found[7] == min(found)
    assert found[7] < 0.3 * max(found[4:7])


def test_a_warm_start_goes_on_with_learned_widths() -> None:
    x, mu = coarse_and_fine(60, 0)
    settings = {"hidden": (8,), "n_members": 2, "random_state": 0, "n_jobs": 1, "verbose": False, "warm_start": True}
    model = IDNN(**settings).fit(x, 300.0, mu=mu)
    before = dict(model.report_["prior_widths"])
    more, new = coarse_and_fine(70, 0)
    model.fit(more, 300.0, mu=new)
    assert model.report_["iterations"] <= 30
    after = model.report_["prior_widths"]
    assert after.keys() == before.keys()
    assert all(0.2 < after[name] / before[name] < 5.0 for name in before)
