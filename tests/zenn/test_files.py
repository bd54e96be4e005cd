"""Models on disk: the same bits come back, nothing else is ever replaced, and no file can run anything."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from quests_zenn._core.checks import DataError

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")

from handmade import DESIGNS, by_hand, drawn, points  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402

from quests_zenn.zenn import _files  # noqa: E402
from quests_zenn.zenn._files import check_folder, read_tensors, write_tensors  # noqa: E402
from quests_zenn.zenn.model import DNN, IDNN, ZENN, FreeEnergyModel  # noqa: E402

pytestmark = pytest.mark.extra


@pytest.fixture(scope="module")
def fitted() -> Any:
    V, T = (a.ravel() for a in np.meshgrid(np.linspace(10.5, 13.5, 6), np.linspace(100.0, 600.0, 3)))
    F = 0.05 * (V - 12.0) ** 2 - 1.5e-7 * T**2
    model = ZENN(2, hidden=(2,), n_members=2, max_iterations=3, random_state=np.random.default_rng(5), verbose=False)
    return model.fit(V, T, F=F - 3.0, P=np.where(V < 11.0, 5.0, np.nan), errors={"P": 10.0})


@pytest.fixture
def saved(fitted: Any, tmp_path: Path) -> Path:
    fitted.save(tmp_path / "model")
    return tmp_path / "model"


def test_the_same_bits_come_back(fitted: Any, saved: Path) -> None:
    again = ZENN.load(saved)
    assert type(again) is ZENN
    V, T = np.linspace(10.6, 13.4, 20), np.linspace(120.0, 580.0, 20)
    for name in ("free_energy", "entropy", "pressure", "heat_capacity", "bulk_modulus", "internal_energy"):
        for before, after in zip(
            getattr(fitted, name)(V, T, std=True), getattr(again, name)(V, T, std=True), strict=True
        ):
            np.testing.assert_array_equal(before, after)
    np.testing.assert_array_equal(fitted.probabilities(V, T), again.probabilities(V, T))
    assert torch.equal(fitted.z_, again.z_)
    assert again.design_ == fitted.design_
    for name in (
        "known_",
        "relative_to_",
        "shift_",
        "noise_",
        "n_members_",
        "n_parameters_",
        "n_features_in_",
        "seed_",
    ):
        assert getattr(again, name) == getattr(fitted, name), name
    np.testing.assert_array_equal(again.x_range_, fitted.x_range_)
    np.testing.assert_array_equal(again.T_range_, fitted.T_range_)
    assert again.report_ == json.loads(json.dumps(again.report_))
    assert again.report_["targets"] == fitted.report_["targets"]
    assert again.extrapolates(9.0, 300.0)


def test_settings_come_back(fitted: Any, saved: Path) -> None:
    settings, before = ZENN.load(saved).get_params(), fitted.get_params()
    assert settings.pop("random_state") == fitted.seed_  # a generator is kept as the seed it gave
    before.pop("random_state")
    assert settings == before


@pytest.mark.parametrize("name", DESIGNS)
def test_every_form_comes_back(name: str, tmp_path: Path) -> None:
    design = DESIGNS[name]
    model = by_hand(design, drawn(design, 2, 1), shift=1.5)
    model.set_params(energy=design.energy, thermal=design.thermal, hidden=design.hidden)
    if design.split:
        model.set_params(gamma=design.gamma, coherence=design.coherence)
    model.save(tmp_path / "model")
    again = FreeEnergyModel.load(tmp_path / "model")
    assert type(again) is type(model)
    assert again.design_ == design
    x, T = points(design, 5, 2)
    np.testing.assert_array_equal(model.free_energy(x, T), again.free_energy(x, T))
    assert again.get_params()["hidden"] == design.hidden


def test_a_model_that_was_loaded_can_be_saved_and_fitted(saved: Path, tmp_path: Path) -> None:
    again = ZENN.load(saved)
    again.save(tmp_path / "second")
    for name in ("model.safetensors", "model.json"):
        assert (tmp_path / "second" / name).read_bytes() == (saved / name).read_bytes()
    V, T = (a.ravel() for a in np.meshgrid(np.linspace(10.5, 13.5, 5), np.linspace(100.0, 600.0, 3)))
    again.set_params(warm_start=True, max_iterations=1).fit(V, T, F=0.05 * (V - 12.0) ** 2)


def test_what_lies_in_a_folder(saved: Path) -> None:
    """Numbers as safetensors, everything else as JSON: nothing that could run."""
    assert sorted(entry.name for entry in saved.iterdir()) == ["model.json", "model.safetensors"]
    assert sorted(entry.name for entry in saved.parent.iterdir()) == ["model"]
    document = json.loads((saved / "model.json").read_text(encoding="utf-8"))
    assert document["class"] == "ZENN"
    assert document["format"] == 1
    assert document["units"] == {"energy": "eV", "temperature": "K", "x": "Å3"}
    assert document["design"]["gamma"] is None
    assert document["settings"]["gamma"] == "inf"
    assert document["relative_to"].startswith("F as given")
    tensors = load_file(saved / "model.safetensors")
    assert set(tensors) == {"z"}
    assert tensors["z"].dtype == torch.float64


def test_nothing_unpickles(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("a file was unpickled")

    import pickle

    for module, name in ((torch, "load"), (pickle, "load"), (pickle, "loads"), (np, "load")):
        monkeypatch.setattr(module, name, never)
    ZENN.load(saved)
    pickled = saved / "model.safetensors"
    pickled.write_bytes(pickle.dumps({"z": [1.0]}))
    with pytest.raises(DataError, match="the model is damaged"):
        ZENN.load(saved)


# --- writing ----------------------------------------------------------------------------------------------------------


def test_a_model_replaces_a_model_only_when_told(fitted: Any, saved: Path) -> None:
    before = (saved / "model.json").read_bytes()
    with pytest.raises(DataError, match="model: exists already; choose another name"):
        fitted.save(saved)
    assert (saved / "model.json").read_bytes() == before
    other = by_hand(DESIGNS["order"], drawn(DESIGNS["order"], 1, 3))
    other.save(saved, overwrite=True)
    assert ZENN.load(saved).n_members_ == 1
    assert [entry.name for entry in saved.parent.iterdir()] == ["model"]


def test_an_empty_folder_is_filled(fitted: Any, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    fitted.save(tmp_path / "empty")
    assert ZENN.load(tmp_path / "empty").n_members_ == 2


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_is_no_model_is_never_replaced(fitted: Any, tmp_path: Path, overwrite: bool) -> None:
    folder = tmp_path / "thesis"
    folder.mkdir()
    (folder / "chapter.tex").write_text("years of work")
    file, link = tmp_path / "file", tmp_path / "link"
    file.write_text("a file")
    link.symlink_to(folder)
    for path, sentence in (
        (folder, "thesis: the folder holds other things than a model; choose another name"),
        (file, "file: exists and is no folder; a model is a folder"),
        (link, "link: exists and is no folder"),
        (tmp_path / "no" / "where", r"where: the folder .*no does not exist"),
        ("", "a model needs a name, got an empty one"),
    ):
        with pytest.raises(DataError, match=sentence):
            fitted.save(path, overwrite=overwrite)
        with pytest.raises(DataError, match=sentence):
            check_folder(path, overwrite)
    assert (folder / "chapter.tex").read_text() == "years of work"
    assert file.read_text() == "a file"
    assert link.is_symlink()
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["file", "link", "thesis"]


def test_a_model_with_something_beside_it_is_not_replaced(fitted: Any, saved: Path) -> None:
    (saved / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match="holds other things"):
        fitted.save(saved, overwrite=True)
    assert (saved / "notes.txt").read_text() == "mine"
    ZENN.load(saved)


def test_folders_with_other_things_in_folders_of_the_same_names(fitted: Any, tmp_path: Path) -> None:
    """A folder named model.json, with something in it, is no model."""
    deep = tmp_path / "model" / "model.json"
    deep.mkdir(parents=True)
    (deep / "thesis.tex").write_text("years of work")
    with pytest.raises(DataError):
        fitted.save(tmp_path / "model", overwrite=True)
    assert (deep / "thesis.tex").read_text() == "years of work"


def test_writing_that_fails_leaves_the_old_model(fitted: Any, saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {entry.name: entry.read_bytes() for entry in saved.iterdir()}
    real = os.replace
    calls = []

    def broken(source: Any, target: Any) -> None:
        calls.append(target)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        real(source, target)

    monkeypatch.setattr(_files.os, "replace", broken)
    with pytest.raises(DataError, match=r"model: cannot be written \(No space left on device\)"):
        fitted.save(saved, overwrite=True)
    monkeypatch.undo()
    assert len(calls) >= 2
    assert {entry.name: entry.read_bytes() for entry in saved.iterdir()} == before
    assert [entry.name for entry in saved.parent.iterdir()] == ["model"]


def test_an_interruption_while_writing_leaves_the_old_model(
    fitted: Any, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {entry.name: entry.read_bytes() for entry in saved.iterdir()}
    real = os.replace
    calls = []

    def interrupted(source: Any, target: Any) -> None:
        calls.append(target)
        if len(calls) == 2:
            raise KeyboardInterrupt
        real(source, target)

    monkeypatch.setattr(_files.os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fitted.save(saved, overwrite=True)
    monkeypatch.undo()
    assert saved.is_dir(), "the old model is gone, and there is no new one"
    assert {entry.name: entry.read_bytes() for entry in saved.iterdir()} == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_no_permission(fitted: Any, tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    with pytest.raises(DataError, match="no permission to write"):
        fitted.save(tmp_path / "locked" / "model")


# --- reading ----------------------------------------------------------------------------------------------------------


def changed(saved: Path, **changes: Any) -> None:
    """The document with other values; None takes a key away."""
    document = json.loads((saved / "model.json").read_text(encoding="utf-8"))
    for name, value in changes.items():
        place = document
        *way, last = name.split("__")
        for key in way:
            place = place[key]
        if value is None:
            del place[last]
        else:
            place[last] = value
    (saved / "model.json").write_text(json.dumps(document), encoding="utf-8")


def test_no_model_at_all(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name in ("nothing", "empty"):
        with pytest.raises(DataError, match=rf"{name}: is no model \(a folder with model.json and model.safetensors\)"):
            ZENN.load(tmp_path / name)


def test_a_model_of_another_class(saved: Path, tmp_path: Path) -> None:
    for kind in (DNN, IDNN):
        with pytest.raises(DataError, match=f"model: holds a model of the class ZENN, not {kind.__name__}"):
            kind.load(saved)
    assert type(FreeEnergyModel.load(saved)) is ZENN
    changed(saved, **{"class": "Exploit"})
    with pytest.raises(DataError, match="class Exploit, not FreeEnergyModel"):
        FreeEnergyModel.load(saved)
    for odd in (["ZENN"], {"a": 1}, 5):
        changed(saved, **{"class": odd})
        with pytest.raises(DataError, match="holds a model of the class"):
            FreeEnergyModel.load(saved)


def test_a_model_of_another_format(saved: Path) -> None:
    changed(saved, format=99)
    with pytest.raises(DataError, match="model: was written in format 99; this version reads format 1"):
        ZENN.load(saved)


DAMAGES: list[dict[str, Any]] = [
    {"shift": None},
    {"shift": "much"},
    {"design": None},
    {"design": 5},
    {"design__energy": "magic"},
    {"design__thermal": "magic"},
    {"design__n_configurations": 3},
    {"design__hidden": [3]},
    {"design__surprise": 1},
    {"settings__n_members": -1},
    {"settings__surprise": 1},
    {"settings": [1]},
    {"x_range": "wide"},
    {"x_range": [[1.0, 2.0], [3.0, 4.0]]},
    {"T_range": [1.0]},
    {"known": 5},
    {"noise": 5},
    {"report": None},
]


@pytest.mark.parametrize("damage", DAMAGES, ids=str)
def test_a_damaged_document(saved: Path, damage: dict[str, Any]) -> None:
    changed(saved, **damage)
    with pytest.raises(DataError, match=r"model: the model is damaged \("):
        ZENN.load(saved)


@pytest.mark.parametrize("text", ["", "{", "[1, 2]", '"text"', "\x00\xff", "null"])
def test_a_document_that_is_none(saved: Path, text: str) -> None:
    (saved / "model.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(DataError, match="model"):
        ZENN.load(saved)


def test_damaged_numbers(saved: Path) -> None:
    weights = saved / "model.safetensors"
    whole, z = weights.read_bytes(), load_file(weights)["z"]
    for content in (b"", whole[:-9], whole[:20], b"\xff" * 100):
        weights.write_bytes(content)
        with pytest.raises(DataError, match="the model is damaged"):
            ZENN.load(saved)
    for tensors in (
        {"other": z},
        {"z": z.float()},
        {"z": z[:, :-1].contiguous()},
        {"z": z[0].contiguous()},
        {"z": torch.full_like(z, torch.nan)},
        {"z": z[:0].contiguous()},
    ):
        save_file(tensors, weights)
        with pytest.raises(DataError, match="the model is damaged"):
            ZENN.load(saved)
    weights.unlink()
    with pytest.raises(DataError, match="model"):
        ZENN.load(saved)
    weights.write_bytes(whole)
    ZENN.load(saved)


def test_a_model_may_be_moved(fitted: Any, saved: Path, tmp_path: Path) -> None:
    shutil.move(saved, tmp_path / "elsewhere")
    assert torch.equal(ZENN.load(tmp_path / "elsewhere").z_, fitted.z_)


# --- checkpoints ------------------------------------------------------------------------------------------------------


def test_tensors_and_what_goes_with_them(tmp_path: Path) -> None:
    tensors = {"z": torch.randn(3, 4, dtype=torch.float64), "turned": torch.randn(4, 3, dtype=torch.float64).T}
    about = {"noise": {"F": 0.1 + 0.2}, "history": [[1e-300, float("inf")]], "stage": "fit"}
    path = tmp_path / "state"
    for _ in range(2):  # it replaces what is there
        write_tensors(path, tensors, about)
    found, told = read_tensors(path)
    assert told == about
    for name, tensor in tensors.items():
        assert torch.equal(found[name], tensor)
    assert [entry.name for entry in tmp_path.iterdir()] == ["state"]
