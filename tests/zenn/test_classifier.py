"""Classes as configurations: probabilities are those of the formula, temperatures are found, no label is peeked at."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import cross_val_score

from quests_zenn._core.checks import DataError, DataWarning
from quests_zenn.zenn.calibration import calibration_error, reliability

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")

from quests_zenn.zenn.classifier import (  # noqa: E402
    CrossEntropyClassifier,
    ZENNClassifier,
    _one_thread,
    _validation,
)

pytestmark = pytest.mark.extra

Array = npt.NDArray[Any]

#: Enough to see whether things work.
BRIEF: dict[str, Any] = {"n_members": 2, "adam_steps": 40, "polish_steps": 10, "random_state": 0}

NAMES = np.array(["liquid", "solid", "vapour"])


def true_probabilities(x: Array, T: Array) -> Array:
    """Three classes: energies x, -x and 0.5, entropies 0, 0.3 and 1.2; k_B = 1."""
    energy = np.stack([x[:, 0], -x[:, 0], np.full(len(x), 0.5)], axis=1)
    p = np.exp(-energy / T[:, None] + np.array([0.0, 0.3, 1.2]))
    return p / p.sum(axis=1, keepdims=True)


def draw(p: Array, rng: np.random.Generator) -> Array:
    """One class for each row of probabilities."""
    return (rng.random(len(p))[:, None] > np.cumsum(p, axis=1)[:, :-1]).sum(axis=1)


def made(n: int, seed: int = 0) -> tuple[Array, Array, Array]:
    """x (n, 2), of which the second column says nothing, T and classes."""
    rng = np.random.default_rng(seed)
    x, T = rng.normal(size=(n, 2)), rng.uniform(0.3, 4.0, n)
    return x, T, NAMES[draw(true_probabilities(x, T), rng)]


@pytest.fixture(scope="module")
def known() -> ZENNClassifier:
    x, T, y = made(150)
    return ZENNClassifier(gamma=3.0, **BRIEF).fit(x, y, T=T)


@pytest.fixture(scope="module")
def gated() -> ZENNClassifier:
    x, _, y = made(150)
    return ZENNClassifier(n_temperatures=2, **BRIEF).fit(x, y)


@pytest.fixture(scope="module")
def sourced() -> ZENNClassifier:
    x, T, y = made(150)
    return ZENNClassifier(**BRIEF).fit(x, y, source=np.where(T > 2.0, "hot", "cold"))


# --- twins: plain loops, from the formula -----------------------------------------------------------------------------


def twin_network(parts: dict[str, Array], prefix: str, member: int, group: int, x: Array, t: float | None) -> Array:
    """Outputs of one network for one row."""
    z = parts[f"{prefix}.0.weight"][member, group] @ x + parts[f"{prefix}.0.bias"][member, group]
    if t is not None:
        z = z + parts[f"{prefix}.0.temperature"][member, group] * t
    layer = 1
    while f"{prefix}.{layer}.weight" in parts:
        z = parts[f"{prefix}.{layer}.weight"][member, group] @ np.tanh(z)
        z = z + parts[f"{prefix}.{layer}.bias"][member, group]
        layer += 1
    return z


def softmax(a: Array) -> Array:
    e = np.exp(a - a.max())
    return e / e.sum()


def twin_classes(model: ZENNClassifier, parts: dict[str, Array], member: int, x: Array, T: float) -> Array:
    """p_k of one member at one point; energies and entropies in units where k_B = model.boltzmann."""
    k_B, n = model.boltzmann, len(model.classes_)
    t = (T - model._t_mean) / model._t_scale
    a = np.empty(n)
    for k in range(n):
        energy = k_B * model._t_unit * twin_network(parts, "classes", member, k, x, t)[0]
        entropy = k_B * twin_network(parts, "classes", member, n + k, x, t)[0] ** 2
        a[k] = -(energy - T * entropy) / (k_B * T) - (entropy / (model.gamma * k_B)) ** 2
    return softmax(a)


def twin_temperatures(model: ZENNClassifier, parts: dict[str, Array], member: int) -> list[float]:
    learned = [0.1 + 9.9 / (1.0 + math.exp(-value)) for value in parts["temperatures.odds"][member]]
    return learned if model.sources_ is not None else [1.0, *learned]


def twin(model: ZENNClassifier, rows: Array, T: Any = None, source: Any = None) -> Array:
    parts = model._views(model._theta)
    total = np.zeros((len(rows), len(model.classes_)))
    for i, row in enumerate((rows - model._x_mean) / model._x_scale):
        for m in range(model.n_members_):
            if T is not None:
                total[i] += twin_classes(model, parts, m, row, T[i])
                continue
            temperatures = twin_temperatures(model, parts, m)
            if source is not None:
                chosen = temperatures[model.sources_.tolist().index(source[i])]
                total[i] += twin_classes(model, parts, m, row, chosen)
                continue
            gate = softmax(twin_network(parts, "gate", m, 0, row, None))
            for weight, temperature in zip(gate, temperatures, strict=True):
                total[i] += weight * twin_classes(model, parts, m, row, temperature)
    return total / model.n_members_


@pytest.mark.parametrize("gamma", [0.7, 3.0, math.inf])
@pytest.mark.parametrize("boltzmann", [1.0, 8.617e-5])
def test_probabilities_are_those_of_the_formula(known: ZENNClassifier, gamma: float, boltzmann: float) -> None:
    x, T, _ = made(20, seed=1)
    T = np.clip(T, *known.T_range_)
    model = load_parameters(known, gamma=gamma, boltzmann=boltzmann)
    np.testing.assert_allclose(model.predict_proba(x, T=T), twin(model, x, T=T), rtol=0, atol=1e-13)


def load_parameters(model: ZENNClassifier, **changed: Any) -> ZENNClassifier:
    """A copy with other arguments and the same parameters."""
    copy = clone(model).set_params(**changed)
    for name, value in vars(model).items():
        if name not in copy.get_params():
            setattr(copy, name, value)
    return copy


def test_the_gate_mixes_temperatures(gated: ZENNClassifier) -> None:
    x = made(20, seed=1)[0]
    np.testing.assert_allclose(gated.predict_proba(x), twin(gated, x), rtol=0, atol=1e-13)
    gate = gated.gate(x)
    assert gate.shape == (20, 3)
    np.testing.assert_allclose(gate.sum(axis=1), 1.0, atol=1e-12)
    temperatures = gated.temperatures_
    assert temperatures is not None
    assert temperatures.shape == (2, 3)
    assert (temperatures[:, 0] == 1.0).all()
    assert (np.diff(temperatures[:, 1:], axis=1) > 0).all()


def test_sources_are_known_or_mixed(sourced: ZENNClassifier) -> None:
    x = made(20, seed=1)[0]
    source = np.where(np.arange(20) % 3 == 0, "hot", "cold")
    np.testing.assert_allclose(sourced.predict_proba(x), twin(sourced, x), rtol=0, atol=1e-13)
    one = sourced.predict_proba(x, source=source)
    np.testing.assert_allclose(one, twin(sourced, x, source=source), rtol=0, atol=1e-13)
    assert np.abs(one - sourced.predict_proba(x)).max() > 1e-3
    np.testing.assert_array_equal(sourced.predict_proba(x, source="hot"), sourced.predict_proba(x, source=["hot"] * 20))
    assert sourced.temperatures_ is not None
    assert sourced.temperatures_.shape == (2, 2)
    assert ((sourced.temperatures_ > 0.1) & (sourced.temperatures_ < 10.0)).all()


@pytest.mark.parametrize("mode", ["known", "gated", "sourced"])
def test_what_is_trained_is_what_is_predicted(request: pytest.FixtureRequest, mode: str) -> None:
    """The likelihood of a member is its own probability of the class: no other weight of temperatures has a part."""
    model: ZENNClassifier = request.getfixturevalue(mode)
    x, T, y = made(30, seed=2)
    T = np.clip(T, 0.5, 3.5)
    codes = np.searchsorted(model.classes_, y)
    origin = (T > 2.0).astype(np.int64)
    with torch.no_grad():
        p = model._views(torch.from_numpy(model._theta))
        data = torch.from_numpy(model._scaled(x)), torch.from_numpy(T).reshape(1, 1, -1)
        seen = model._log_likelihood(p, *data, torch.from_numpy(codes), torch.from_numpy(origin)).numpy()
        gate = None if mode == "known" else torch.exp(model._log_gate(p, data[0])).numpy()
    members = model._members(
        x, T if mode == "known" else None, np.array(["cold", "hot"])[origin] if mode == "sourced" else None
    )
    expected = members[:, np.arange(30), codes]
    if mode == "sourced":
        assert gate is not None
        expected = expected * gate[:, origin, np.arange(30)]
    np.testing.assert_allclose(np.exp(seen), expected, rtol=1e-12)


@pytest.mark.parametrize("mode", ["known", "gated", "sourced"])
def test_gradients(request: pytest.FixtureRequest, mode: str) -> None:
    """Of the likelihood in all parameters, against differences."""
    model: ZENNClassifier = request.getfixturevalue(mode)
    x, T, y = made(4, seed=3)
    data = (
        torch.from_numpy(model._scaled(x)),
        torch.from_numpy(T).reshape(1, 1, -1),
        torch.from_numpy(np.searchsorted(model.classes_, y)),
        torch.from_numpy((T > 2.0).astype(np.int64)),
    )
    theta = torch.from_numpy(model._theta.copy()).requires_grad_(True)
    assert torch.autograd.gradcheck(lambda t: model._log_likelihood(model._views(t), *data).sum(), (theta,), atol=1e-6)


# --- limits -----------------------------------------------------------------------------------------------------------


def one_hot(columns: Array) -> Array:
    return np.eye(3)[columns]


def test_cold_classes_are_those_of_the_lowest_energy(known: ZENNClassifier) -> None:
    x = made(40, seed=4)[0]
    cold = np.full(40, 1e-6)
    energy, entropy = known.configurations(x, cold)
    assert energy.shape == entropy.shape == (2, 40, 3)
    assert (entropy >= 0).all()
    with pytest.warns(DataWarning, match="40 of 40 temperatures are outside of the range of fit"):
        found = known.predict_proba(x, T=cold)
    np.testing.assert_allclose(found, one_hot(energy.argmin(axis=2)).mean(axis=0), atol=1e-9)


def test_hot_classes_are_those_of_entropy(known: ZENNClassifier) -> None:
    x = made(40, seed=4)[0]
    hot = np.full(40, 1e9)
    entropy = known.configurations(x, hot)[1]
    a = entropy - (entropy / known.gamma) ** 2
    expected = np.exp(a) / np.exp(a).sum(axis=2, keepdims=True)
    with pytest.warns(DataWarning, match="outside of the range"):
        found = known.predict_proba(x, T=hot)
    np.testing.assert_allclose(found, expected.mean(axis=0), atol=1e-7)


def test_gamma_bounds_the_entropy(known: ZENNClassifier) -> None:
    x, T, _ = made(40, seed=4)
    T = np.clip(T, *known.T_range_)
    free = load_parameters(known, gamma=math.inf).predict_proba(x, T=T)
    np.testing.assert_allclose(load_parameters(known, gamma=1e7).predict_proba(x, T=T), free, atol=1e-12)
    assert np.abs(known.predict_proba(x, T=T) - free).max() > 1e-3  # gamma = 3 is felt
    entropy = known.configurations(x, T)[1]
    strict = load_parameters(known, gamma=1e-5).predict_proba(x, T=T)
    np.testing.assert_allclose(strict, one_hot(entropy.argmin(axis=2)).mean(axis=0), atol=1e-9)


def test_boltzmann_is_a_unit_only() -> None:
    x, T, y = made(80)
    one = ZENNClassifier(**BRIEF).fit(x, y, T=T)
    other = ZENNClassifier(boltzmann=8.617e-5, **BRIEF).fit(x, y, T=T)
    np.testing.assert_array_equal(one.predict_proba(x, T=T), other.predict_proba(x, T=T))
    for a, b in zip(one.configurations(x, T), other.configurations(x, T), strict=True):
        np.testing.assert_allclose(b, 8.617e-5 * a, rtol=1e-12)


def test_temperatures_in_other_units_change_nothing() -> None:
    x, T, y = made(80)
    one = ZENNClassifier(**BRIEF).fit(x, y, T=T).predict_proba(x, T=T)
    other = ZENNClassifier(**BRIEF).fit(x, y, T=1024.0 * T).predict_proba(x, T=1024.0 * T)
    np.testing.assert_allclose(other, one, atol=1e-6)


# --- what is learned --------------------------------------------------------------------------------------------------


def test_probabilities_at_temperatures_are_recovered() -> None:
    """Each point has all classes, each weighted with its true probability: there is no noise of draws."""
    rng = np.random.default_rng(5)
    n = 400
    x, T = rng.normal(size=(n, 2)), rng.uniform(0.3, 4.0, n)
    weight = true_probabilities(x, T).ravel()
    rows = np.repeat(np.arange(n), 3)
    model = ZENNClassifier(n_members=2, weight_decay=1e-5, random_state=0)
    model.fit(x[rows], np.tile(NAMES, n), T=T[rows], sample_weight=weight, groups=rows)
    at = np.array([[-1.0, 0.0], [0.0, 0.0], [1.0, 0.0]])
    for temperature in (0.5, 1.0, 3.0):
        expected = true_probabilities(at, np.full(3, temperature))
        np.testing.assert_allclose(model.predict_proba(at, T=temperature), expected, atol=0.015)


@pytest.mark.slow
def test_probabilities_are_recovered_from_draws() -> None:
    x, T, y = made(3000, seed=5)
    model = ZENNClassifier(n_members=3, random_state=0).fit(x, y, T=T)
    x, T, _ = made(2000, seed=6)
    T = np.clip(T, *model.T_range_)
    p, q = true_probabilities(x, T), model.predict_proba(x, T=T)
    assert np.mean(np.sum(p * np.log(p / q), axis=1)) < 0.015
    assert np.mean(np.sum(p * np.log(p / p.mean(axis=0)), axis=1)) > 0.1  # what there is to learn


def noisy_sources(n: int, seed: int) -> tuple[Array, Array, Array, Array]:
    """Two sources that see the same, one of which errs three times of ten; and the probability of class 1."""
    rng = np.random.default_rng(seed)
    x, careless = rng.uniform(-2.0, 2.0, n), rng.random(n) < 0.5
    p = 1.0 / (1.0 + np.exp(-6.0 * x))
    p = np.where(careless, 0.7 * p + 0.3 * (1.0 - p), p)
    return x, (rng.random(n) < p).astype(int), np.where(careless, "careless", "careful"), p


def test_a_noisy_source_is_hotter() -> None:
    x, y, source, _ = noisy_sources(1500, seed=0)
    model = ZENNClassifier(random_state=0).fit(x, y, source=source)
    assert model.sources_ is not None
    assert model.sources_.tolist() == ["careful", "careless"]
    assert model.temperatures_ is not None
    assert (model.temperatures_[:, 1] > 1.5 * model.temperatures_[:, 0]).all()
    x, y, source, p = noisy_sources(1500, seed=1)
    found = model.predict_proba(x, source=source)[:, 1]
    unknown = model.predict_proba(x)[:, 1]
    assert np.mean(np.abs(found - p)) < 0.05
    assert np.mean(np.abs(unknown - p)) > 0.1  # who said it matters
    sharp = 1.0 / (1.0 + np.exp(-6.0 * x))
    assert np.mean(np.abs(unknown - 0.85 * sharp - 0.15 * (1.0 - sharp))) < 0.05
    np.testing.assert_allclose(model.gate(x), 0.5, atol=0.15)
    both = np.stack([1 - found, found], axis=1)
    assert calibration_error(y, both) < 0.06


def test_hidden_temperatures_change_with_x() -> None:
    """Left of zero labels are random, right of it they are certain given the second feature."""
    rng = np.random.default_rng(0)
    x = rng.uniform(-1.0, 1.0, size=(1200, 2))
    sure = 1.0 / (1.0 + np.exp(-12.0 * x[:, 1]))
    y = (rng.random(1200) < np.where(x[:, 0] > 0.0, sure, 0.5)).astype(int)
    model = ZENNClassifier(n_members=2, random_state=0).fit(x, y)
    found = model.predict_proba(np.array([[-0.6, 0.8], [0.6, 0.8], [-0.6, -0.8], [0.6, -0.8]]))[:, 1]
    np.testing.assert_allclose(found, [0.5, 1.0, 0.5, 0.0], atol=0.12)


def test_weights_of_rows_count() -> None:
    """Each row with the label 0 twice as often as 1, but 1 weighs four times as much."""
    x, y = np.zeros((90, 1)), np.tile([0, 0, 1], 30)
    weight = np.where(y == 1, 4.0, 1.0)
    settings = BRIEF | {"adam_steps": 300, "polish_steps": 100, "weight_decay": 0.0, "validation": 0.0}
    for model in (ZENNClassifier(**settings), CrossEntropyClassifier(**settings)):
        found = model.fit(x, y, sample_weight=weight).predict_proba([[0.0]])
        np.testing.assert_allclose(found, [[1 / 3, 2 / 3]], atol=1e-3)
        found = model.fit(x, y).predict_proba([[0.0]])
        np.testing.assert_allclose(found, [[2 / 3, 1 / 3]], atol=1e-3)


# --- committee, polishing, reproducibility ----------------------------------------------------------------------------


def test_committee(known: ZENNClassifier) -> None:
    x, T, _ = made(25, seed=7)
    T = np.clip(T, *known.T_range_)
    members = known._members(x, T, None)
    mean, spread = known.predict_proba(x, T=T, std=True)
    np.testing.assert_array_equal(mean, members.mean(axis=0))
    np.testing.assert_allclose(spread, members.std(axis=0, ddof=1), atol=1e-15)
    assert spread.max() > 1e-4
    np.testing.assert_allclose(mean.sum(axis=1), 1.0, atol=1e-14)
    assert np.abs(members[0] - members[1]).max() > 1e-4
    xt, Tt, yt = made(60)
    single = ZENNClassifier(**BRIEF | {"n_members": 1}).fit(xt, yt, T=Tt)
    assert not single.predict_proba(xt, T=Tt, std=True)[1].any()


def test_a_member_does_not_depend_on_the_others() -> None:
    """Without a validation split: Adam moves each member as if it were alone."""
    x, T, y = made(60)
    settings = BRIEF | {"polish_steps": 0, "validation": 0.0}
    model = ZENNClassifier(**settings).fit(x, y, T=T)
    alone = ZENNClassifier(**settings | {"n_members": 1})
    alone._initial = lambda torch, rng: model_start[1:2].copy()  # type: ignore[method-assign]
    first = ZENNClassifier(**settings)
    first.classes_, first.sources_, first._mode, first.n_features_in_ = model.classes_, None, "known", 2
    rng = np.random.default_rng(0)
    model_start = first._initial(torch, rng)
    alone.fit(x, y, T=T)
    np.testing.assert_allclose(alone._members(x, T, None)[0], model._members(x, T, None)[1], atol=1e-9)


class Watched(ZENNClassifier):
    """Notes the states that training passes through."""

    def _log_likelihood(self, p: Any, x: Any, T: Any, y: Any, source: Any) -> Any:
        vars(self).setdefault("passed", []).append(p["classes.0.bias"].detach().numpy().copy())
        return super()._log_likelihood(p, x, T, y, source)


def test_rows_held_out_are_not_trained_on(monkeypatch: pytest.MonkeyPatch) -> None:
    x, T, y = made(80)
    held = np.arange(80) % 4 == 0
    monkeypatch.setattr("quests_zenn.zenn.classifier._validation", lambda *_: held)

    def passed(changed: Array) -> Array:
        other = np.where(changed, "solid", y)
        return np.array(vars(Watched(**BRIEF | {"polish_steps": 0}).fit(x, other, T=T))["passed"])

    seen = passed(np.zeros(80, dtype=bool))
    assert np.abs(np.diff(seen, axis=0)[:-1]).max() > 1e-3
    np.testing.assert_array_equal(passed(held), seen)
    assert not np.array_equal(passed(~held), seen)


def test_weights_decay_and_biases_do_not() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(90, 1)), np.tile([0, 0, 1], 30)
    x[:, 0] += y
    settings = BRIEF | {"adam_steps": 300, "polish_steps": 100, "validation": 0.0}
    for kind in (ZENNClassifier, CrossEntropyClassifier):
        stiff = kind(weight_decay=100.0, **settings).fit(x, y).predict_proba(x)
        np.testing.assert_allclose(stiff, np.tile([2 / 3, 1 / 3], (90, 1)), atol=0.01)
        assert np.ptp(kind(weight_decay=0.0, **settings).fit(x, y).predict_proba(x)[:, 0]) > 0.5


def test_sorting_temperatures_changes_no_prediction() -> None:
    x, _, y = made(60)
    model = ZENNClassifier(n_temperatures=3, **BRIEF).fit(x, y)
    views = model._views(model._theta)
    views["temperatures.odds"][:] = [[0.5, -2.0, -1.0], [-1.0, 0.7, -0.5]]  # views: the model changes
    assert not np.array_equal(model.temperatures_, np.sort(model.temperatures_, axis=1))
    gate, found = [], []
    for sort in (False, True):
        if sort:
            model._finish()
        p = model._views(torch.from_numpy(model._theta))
        gate.append(model._log_gate(p, torch.zeros(2, 1, dtype=torch.float64))[:, :, 0].numpy())
        found.append(model.predict_proba(x))
    assert (np.diff(model.temperatures_[:, 1:], axis=1) > 0).all()
    np.testing.assert_allclose(found[1], found[0], atol=1e-13)
    for member, order in enumerate([[0, 2, 3, 1], [0, 1, 3, 2]]):
        np.testing.assert_allclose(gate[1][member], gate[0][member][order], atol=1e-13)


def test_polishing_lowers_the_loss() -> None:
    x, T, y = made(150)
    settings = BRIEF | {"validation": 0.0}
    rough = ZENNClassifier(**settings | {"polish_steps": 0}).fit(x, y, T=T).report_
    polished = ZENNClassifier(**settings | {"polish_steps": 100}).fit(x, y, T=T).report_
    assert (np.array(polished["loss_training"]) < np.array(rough["loss_training"]) - 1e-3).all()
    assert rough["polish_steps"] == 0
    assert polished["polish_steps"] > 10


def test_the_best_state_is_kept() -> None:
    """Pure noise: the longer the training, the worse the rows held out; the state before that is kept."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(60, 4)), np.tile([0, 1], 30)
    model = CrossEntropyClassifier(hidden=(8, 8), random_state=0, weight_decay=0.0).fit(x, y)
    assert max(model.report_["loss_validation"]) < 0.8  # near ln 2
    free = CrossEntropyClassifier(hidden=(8, 8), random_state=0, weight_decay=0.0, validation=0.0).fit(x, y)
    assert max(free.report_["loss_training"]) < 0.01


@pytest.mark.parametrize("mode", ["known", "gated", "sourced", "plain"])
def test_a_seed_means_the_same_bits(mode: str) -> None:
    x, T, y = made(80)
    kind = CrossEntropyClassifier if mode == "plain" else ZENNClassifier
    given: dict[str, Any] = {"T": T} if mode in ("known", "plain") else {}
    if mode == "sourced":
        given = {"source": T > 2.0}
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            torch.manual_seed(threads)
            np.random.seed(threads)  # noqa: NPY002
            model = kind(**BRIEF).fit(x, y, **given)
            assert torch.get_num_threads() == threads
            found.append(model.predict_proba(x, T) if "T" in given else model.predict_proba(x))
    finally:
        torch.set_num_threads(before)
    np.testing.assert_array_equal(*found)
    other = kind(**BRIEF | {"random_state": 1}).fit(x, y, **given)
    assert not np.array_equal(found[0], other.predict_proba(x, T) if "T" in given else other.predict_proba(x))


def test_threads_are_restored_after_errors() -> None:
    before = torch.get_num_threads()
    with _one_thread():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before
    with pytest.raises(KeyError), _one_thread():
        raise KeyError
    assert torch.get_num_threads() == before


def test_progress_counts_iterations() -> None:
    x, T, y = made(60)
    done: list[int] = []
    model = ZENNClassifier(**BRIEF).fit(x, y, T=T, progress=done.append)
    assert sum(done) == 40 + model.report_["polish_steps"]
    assert model.report_["n_parameters"] == model.n_parameters_


def test_validation_rows_are_stratified() -> None:
    codes = np.repeat([0, 1, 2, 3], [100, 40, 5, 1])
    held = _validation(codes, 0.2, None, np.random.default_rng(0))
    assert np.bincount(codes[held], minlength=4).tolist() == [20, 8, 1, 0]
    assert not _validation(codes, 0.0, None, np.random.default_rng(0)).any()


@pytest.mark.parametrize("seed", range(5))
def test_validation_keeps_groups_together(seed: int) -> None:
    rng = np.random.default_rng(seed)
    groups = rng.integers(0, 25, 200)
    codes = rng.integers(0, 3, 25)[groups]
    codes[groups == 0] = np.arange(np.count_nonzero(groups == 0)) % 3  # one group holds all classes
    held = _validation(codes, 0.2, groups, rng)
    assert not set(groups[held]) & set(groups[~held])
    assert 10 < np.count_nonzero(held) < 100
    assert set(codes[~held]) == {0, 1, 2}


# --- scikit-learn -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [ZENNClassifier, CrossEntropyClassifier])
def test_conventions(kind: Any) -> None:
    x, T, y = made(90)
    model = kind(hidden=(4, 3), **BRIEF)
    copy = clone(model)
    assert copy.get_params() == model.get_params()
    assert copy.get_params()["hidden"] == (4, 3)
    assert copy.set_params(n_members=1).n_members == 1
    with pytest.raises(NotFittedError):
        model.predict(x)
    assert model.fit(x, y) is model
    assert model.classes_.tolist() == NAMES.tolist()
    assert model.n_features_in_ == 2
    found = model.predict(x)
    assert set(found) <= set(NAMES)
    np.testing.assert_array_equal(found, NAMES[model.predict_proba(x).argmax(axis=1)])
    assert model.score(x, y) == np.mean(found == y)
    weight = (y == "solid").astype(float)
    assert model.score(x, y, sample_weight=weight) == pytest.approx(np.mean(found[y == "solid"] == "solid"))
    assert cross_val_score(model, x, y, cv=2).shape == (2,)
    model.fit(x, y, T=T)
    assert model.score(x, y, T=T) == np.mean(model.predict(x, T=T) == y)


def test_one_column_may_be_a_vector() -> None:
    x, _, y = made(60)
    one = ZENNClassifier(**BRIEF).fit(x[:, 0], y)
    two = ZENNClassifier(**BRIEF).fit(x[:, :1], y)
    np.testing.assert_array_equal(one.predict_proba(x[:, 0]), two.predict_proba(x[:, :1]))


@pytest.mark.parametrize("d", [1, 3, 10])
@pytest.mark.parametrize("k", [2, 5])
@pytest.mark.parametrize("with_T", [True, False])
def test_the_rival_has_the_same_size(d: int, k: int, with_T: bool) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, d)), np.arange(40) % k
    T = rng.uniform(1.0, 2.0, 40) if with_T else None
    settings = BRIEF | {"adam_steps": 1, "polish_steps": 0}
    ours = ZENNClassifier(**settings).fit(x, y, T=T)
    rival = CrossEntropyClassifier(n_parameters=ours.n_parameters_, **settings).fit(x, y, T=T)
    assert abs(rival.n_parameters_ / ours.n_parameters_ - 1.0) < 0.03
    assert rival.n_parameters_ == rival._theta.shape[1]
    if with_T:
        assert CrossEntropyClassifier(**settings).fit(x, y, T=T).widths_ == rival.widths_


def test_the_rival_is_a_network_with_a_softmax() -> None:
    x, T, y = made(80)
    model = CrossEntropyClassifier(**BRIEF).fit(x, y, T=T)
    parts = model._views(model._theta)
    found = model.predict_proba(x[:9], T=T[:9])
    for i, row in enumerate((x[:9] - model._x_mean) / model._x_scale):
        t = (T[i] - model._t_mean) / model._t_scale
        p = [softmax(twin_network(parts, "network", m, 0, row, t)) for m in range(2)]
        np.testing.assert_allclose(found[i], np.mean(p, axis=0), atol=1e-13)


# --- files ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["known", "gated", "sourced"])
def test_a_saved_model_predicts_the_same_bits(request: pytest.FixtureRequest, tmp_path: Path, mode: str) -> None:
    model: ZENNClassifier = request.getfixturevalue(mode)
    model.save(tmp_path / "model")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model"]
    assert sorted(p.name for p in (tmp_path / "model").iterdir()) == ["model.json", "model.safetensors"]
    again = ZENNClassifier.load(tmp_path / "model")
    x, T, _ = made(50, seed=8)
    T = np.clip(T, 0.5, 3.5)
    given = {"T": T} if mode == "known" else {}
    np.testing.assert_array_equal(again.predict_proba(x, **given), model.predict_proba(x, **given))
    if mode == "sourced":
        np.testing.assert_array_equal(again.predict_proba(x, source="hot"), model.predict_proba(x, source="hot"))
    if mode != "known":
        np.testing.assert_array_equal(again.gate(x), model.gate(x))
        np.testing.assert_array_equal(again.temperatures_, model.temperatures_)
    np.testing.assert_array_equal(again.classes_, model.classes_)
    assert again.classes_.dtype == model.classes_.dtype
    assert again.get_params() == model.get_params()
    assert again.report_ == model.report_
    np.testing.assert_array_equal(again.extrapolates(x), model.extrapolates(x))


@pytest.mark.parametrize(
    "classes",
    [np.array([3, -1]), np.array([0.5, 1.25]), np.array([True, False]), np.array(["é", "b"], dtype=object)],
)
def test_classes_of_all_kinds_are_saved(tmp_path: Path, classes: Array) -> None:
    x = np.arange(20.0)
    model = CrossEntropyClassifier(**BRIEF).fit(x, classes[np.arange(20) % 2])
    model.save(tmp_path / "m")
    again = CrossEntropyClassifier.load(tmp_path / "m")
    assert again.classes_.dtype == model.classes_.dtype
    assert again.predict(x).tolist() == model.predict(x).tolist()


def test_infinite_gamma_is_saved(tmp_path: Path) -> None:
    x, T, y = made(60)
    ZENNClassifier(gamma=math.inf, **BRIEF).fit(x, y, T=T).save(tmp_path / "m")
    assert ZENNClassifier.load(tmp_path / "m").gamma == math.inf
    json.loads((tmp_path / "m" / "model.json").read_text(), parse_constant=pytest.fail)


def test_nothing_is_overwritten_unasked(gated: ZENNClassifier, known: ZENNClassifier, tmp_path: Path) -> None:
    path = tmp_path / "model"
    gated.save(path)
    with pytest.raises(DataError, match="exists already"):
        known.save(path)
    known.save(path, overwrite=True)
    assert ZENNClassifier.load(path)._mode == "known"
    (path / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match="other things than a model"):
        known.save(path, overwrite=True)
    assert (path / "notes.txt").read_text() == "mine"
    with pytest.raises(DataError, match="does not exist"):
        known.save(tmp_path / "nowhere" / "model")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(DataError, match="exists and is no folder"):
        known.save(tmp_path / "file", overwrite=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "model"]


def test_damaged_models_are_refused(gated: ZENNClassifier, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is no model"):
        ZENNClassifier.load(tmp_path)
    with pytest.raises(NotFittedError):
        ZENNClassifier().save(tmp_path / "m")
    gated.save(tmp_path / "m")
    with pytest.raises(DataError, match="holds a ZENNClassifier, not a CrossEntropyClassifier"):
        CrossEntropyClassifier.load(tmp_path / "m")
    text = (tmp_path / "m" / "model.json").read_text()
    for before, after, message in (
        ('"format_version": 1', '"format_version": 9', "was written in format 9"),
        ("quests_zenn classifier", "something", "is no saved classifier"),
        ('"mode": "none"', '"mode": "odd"', "the model is damaged .mode must be one of"),
        ('"mode": "none"', '"mode": "source"', "the model is damaged .classes or sources do not fit"),
        ('"mode": "none"', '"mode": "known"', "the model is damaged .T_range does not fit"),
        ('"n_temperatures": 2', '"n_temperatures": 3', "the model is damaged"),
        ('"T_mean": 1.0', '"T_mean": NaN', "the model is damaged .NaN is no number"),
        ('"T_mean": 1.0', '"T_mean": 1e999', "the model is damaged .T_mean must be finite"),
        ('"T_scale": 3.0', '"T_scale": 0.0', "the model is damaged .T_scale must be positive"),
        ('"T_unit": 1.0', '"T_unit": null', "the model is damaged .T_unit must be a number"),
        ('"T_range": null', '"T_range": [1.0, 2.0]', "the model is damaged .T_range does not fit"),
        ('"solid"', '"liquid"', "the model is damaged .labels are not finite, or not all different"),
    ):
        assert before in text
        (tmp_path / "m" / "model.json").write_text(text.replace(before, after))
        with pytest.raises(DataError, match=message):
            ZENNClassifier.load(tmp_path / "m")
    (tmp_path / "m" / "model.json").write_text(text)
    tensors = tmp_path / "m" / "model.safetensors"
    tensors.write_bytes(tensors.read_bytes()[:100])
    with pytest.raises(DataError, match="the model is damaged"):
        ZENNClassifier.load(tmp_path / "m")
    tensors.unlink()
    with pytest.raises(DataError, match="the model is damaged"):
        ZENNClassifier.load(tmp_path / "m")


@pytest.mark.parametrize("value", ["null", "1.0", "[]", "[1.0]", "[1.0, 1e999]", '["a", "b"]'])
def test_damaged_temperatures_are_refused(known: ZENNClassifier, tmp_path: Path, value: str) -> None:
    known.save(tmp_path / "m")
    path = tmp_path / "m" / "model.json"
    document = json.loads(path.read_text())
    document["T_range"] = "HERE"
    path.write_text(json.dumps(document).replace('"HERE"', value))
    with pytest.raises(DataError, match="the model is damaged"):
        ZENNClassifier.load(tmp_path / "m")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("x_mean", np.array([0.0, np.nan]), "x_mean is not finite"),
        ("x_scale", np.array([1.0, 0.0]), "x_scale must be positive"),
        ("x_scale", np.ones(3), "x_scale is float64 of shape"),
        ("x_range", np.zeros((2, 2), np.float32), "x_range is float32"),
        ("classes.0.bias", None, "classes.0.bias"),
    ],
)
def test_damaged_tensors_are_refused(
    known: ZENNClassifier, tmp_path: Path, name: str, value: Array | None, message: str
) -> None:
    from safetensors.torch import load_file, save_file

    known.save(tmp_path / "m")
    path = tmp_path / "m" / "model.safetensors"
    tensors = load_file(path)
    del tensors[name]
    save_file(tensors if value is None else tensors | {name: torch.from_numpy(value)}, path)
    with pytest.raises(DataError, match=f"the model is damaged .*{message}"):
        ZENNClassifier.load(tmp_path / "m")


# --- bad input --------------------------------------------------------------------------------------------------------

X, Y, T4 = np.array([[0.0], [1.0], [2.0], [3.0]]), ["a", "b", "a", "b"], np.array([1.0, 2.0, 3.0, 4.0])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"x": [[0.0], [np.nan], [2.0], [3.0]]}, "row 1 holds NaN"),
        ({"x": [[0.0], [np.inf], [2.0], [3.0]]}, "row 1 holds NaN or infinity"),
        ({"x": [["u"], ["v"], ["w"], ["z"]]}, "x must be numbers, a matrix with one row per sample"),
        ({"x": np.ma.masked_equal([[0.0], [1.0], [2.0], [3.0]], 1.0)}, "row 1 holds NaN"),
        ({"x": [[0.0], [1.0], [1e200], [3.0]]}, "x must lie within 1e\\+100, but row 2 does not"),
        ({"x": np.zeros((4, 0))}, "x must have shape"),
        ({"x": np.zeros((4, 1, 1))}, "x must have shape"),
        ({"y": ["a", "b", "a"]}, r"y must have shape \(4,\)"),
        ({"y": ["a"] * 4}, "all rows are of class 'a'"),
        ({"y": [0.0, 1.0, np.nan, 0.0]}, "y must be finite, but row 2"),
        ({"y": ["a", None, "b", "a"]}, "y must not be missing"),
        ({"T": [1.0, 2.0]}, r"T must have shape \(4,\)"),
        ({"T": [1.0, 0.0, 2.0, 3.0]}, "T must be positive and finite, but row 1 holds 0"),
        ({"T": [1.0, 1.0, np.nan, 3.0]}, "row 2 holds nan"),
        ({"T": np.ma.masked_equal([1.0, 2.0, 3.0, 4.0], 3.0)}, "row 2 holds nan"),
        ({"T": [1.0, 1.0, 2.0, 1e300]}, "T must lie between 1e-100 and 1e\\+100, but row 3 holds 1e\\+300"),
        ({"y": np.ma.masked_equal([0, 1, 0, 2], 2)}, "y must not be missing"),
        ({"T": -1.0}, "T must be positive"),
        ({"T": "warm"}, "T must be numbers"),
        ({"source": ["s"]}, r"source must have shape \(4,\)"),
        ({"sample_weight": [1.0]}, r"sample_weight must have shape \(4,\)"),
        ({"sample_weight": [1.0, -1.0, 1.0, 1.0]}, "sample_weight must be finite, not negative"),
        ({"sample_weight": [0.0] * 4}, "not all zero"),
        ({"groups": [0, 1]}, r"groups must have shape \(4,\)"),
    ],
)
def test_bad_data(given: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        ZENNClassifier(**BRIEF).fit(**({"x": X, "y": Y} | given))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"hidden": ()}, "hidden must be a sequence"),
        ({"hidden": 8}, "hidden must be a sequence"),
        ({"hidden": (8, 0)}, "hidden must be a whole number"),
        ({"gamma": 0.0}, "gamma must be positive"),
        ({"n_temperatures": -1}, "n_temperatures must be"),
        ({"boltzmann": 0.0}, "boltzmann must be positive"),
        ({"n_members": 0}, "n_members must be"),
        ({"weight_decay": -1.0}, "weight_decay must not be negative"),
        ({"validation": 1.0}, "validation must be a share"),
        ({"adam_steps": 0}, "adam_steps must be"),
        ({"learning_rate": 0.0}, "learning_rate must be positive"),
        ({"polish_steps": 0.5}, "polish_steps must be"),
        ({"random_state": "x"}, "random_state must be"),
    ],
)
def test_bad_arguments(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ZENNClassifier(**BRIEF | given).fit(X, Y)


def test_a_source_is_no_temperature() -> None:
    with pytest.raises(ValueError, match="T and source cannot both be given"):
        ZENNClassifier(**BRIEF).fit(X, Y, T=T4, source=Y)
    with pytest.raises(ValueError, match="n_parameters must be"):
        CrossEntropyClassifier(n_parameters=0).fit(X, Y)


def test_bad_questions(known: ZENNClassifier, gated: ZENNClassifier, sourced: ZENNClassifier) -> None:
    x = np.zeros((2, 2))
    with pytest.raises(ValueError, match="T is needed: this model was fitted with known temperatures"):
        known.predict(x)
    with pytest.raises(ValueError, match="T cannot be given"):
        gated.predict_proba(x, T=1.0)
    with pytest.raises(DataError, match="T must be positive"):
        known.predict_proba(x, T=[1.0, -2.0])
    with pytest.raises(ValueError, match="there is no gate"):
        known.gate(x)
    with pytest.raises(ValueError, match="source cannot be given"):
        gated.predict_proba(x, source="hot")
    with pytest.raises(DataError, match="source 'warm' is unknown; fit saw cold, hot"):
        sourced.predict_proba(x, source=["hot", "warm"])
    with pytest.raises(DataError, match=r"source must have shape \(2,\)"):
        sourced.predict_proba(x, source=["hot"])
    with pytest.raises(DataError, match="x must have 2 columns, as in fit, got 3"):
        gated.predict(np.zeros((2, 3)))
    with pytest.raises(DataError, match="row 0 holds NaN"):
        gated.predict(np.full((1, 2), np.nan))
    with pytest.raises(DataError, match="y must have shape"):
        gated.score(x, ["solid"])
    assert known.temperatures_ is None


def test_extrapolation_is_told(known: ZENNClassifier) -> None:
    inside = made(150)[0][:2]
    far = inside + np.array([[0.0, 0.0], [100.0, 0.0]])
    assert known.extrapolates(far).tolist() == [False, True]
    assert known.extrapolates(inside, [1.0, 99.0]).tolist() == [False, True]
    with pytest.warns(DataWarning, match="1 of 2 temperatures"):
        known.predict(inside, T=[1.0, 99.0])


# --- calibration ------------------------------------------------------------------------------------------------------


def test_calibration_known_by_thought() -> None:
    sure = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    assert calibration_error([0, 0, 1, 1], sure) == 0.0
    assert calibration_error([1, 1, 0, 0], sure) == 1.0
    assert calibration_error([0, 1, 1, 0], sure) == 0.5
    timid = np.full((4, 2), 0.5)  # the first column is taken to be predicted
    assert calibration_error([0, 1, 0, 1], timid) == 0.0
    assert calibration_error([0, 0, 0, 0], timid) == 0.5


def test_calibration_by_hand() -> None:
    """Bins 0.5-0.75 and 0.75-1: three of confidence 0.6, one right; one of 0.9, right."""
    p = np.array([[0.6, 0.4], [0.6, 0.4], [0.4, 0.6], [0.9, 0.1]])
    found = reliability(["a", "b", "a", "a"], p, bins=4, classes=["a", "b"])
    assert found.count.tolist() == [0, 0, 3, 1]
    np.testing.assert_allclose(found.confidence, [np.nan, np.nan, 0.6, 0.9])
    np.testing.assert_allclose(found.accuracy, [np.nan, np.nan, 1 / 3, 1.0])
    expected = 3 / 4 * (0.6 - 1 / 3) + 1 / 4 * 0.1
    assert found.error == pytest.approx(expected, abs=1e-15)
    assert calibration_error(["a", "b", "a", "a"], p, 4, classes=["a", "b"]) == found.error


def test_edges_belong_to_the_bin_below() -> None:
    p = np.array([[0.5, 0.5], [0.75, 0.25], [1.0, 0.0]])
    assert reliability([0, 0, 0], p, bins=4).count.tolist() == [0, 1, 1, 1]


def test_true_probabilities_are_calibrated() -> None:
    rng = np.random.default_rng(0)
    x, T, _ = made(40_000, seed=9)
    p = true_probabilities(x, T)
    y = draw(p, rng)
    assert calibration_error(y, p) < 0.01
    sharper = p**2 / np.sum(p**2, axis=1, keepdims=True)
    assert calibration_error(y, sharper) > 0.1


@pytest.mark.parametrize(
    ("y", "p", "message"),
    [
        ([0], [[0.5, 0.6]], "sum to one, but row 0"),
        ([0, 0], [[0.5, 0.5], [1.5, -0.5]], "not be negative and sum to one, but row 1"),
        ([0], [[np.nan, 1.0]], "row 0"),
        ([0], [0.5, 0.5], "must have shape"),
        ([0], [["a", "b"]], "must be numbers"),
        ([0, 1], [[0.5, 0.5]], "y must have shape"),
        ([2], [[0.5, 0.5]], "class 2, which has no column"),
    ],
)
def test_bad_probabilities(y: Any, p: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        calibration_error(y, p)


def test_bad_bins() -> None:
    with pytest.raises(ValueError, match="bins must be"):
        calibration_error([0], [[1.0, 0.0]], bins=0)
    with pytest.raises(DataError, match="classes must have shape"):
        calibration_error([0], [[1.0, 0.0]], classes=["a"])
