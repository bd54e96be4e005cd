"""References: made, asked, extended, kept."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from ase import Atoms
from ase.build import bulk
from ase.io import write
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import cdist
from scipy.special import logsumexp

from quests_zenn import DataError
from quests_zenn.descriptors import describe, get_descriptors
from quests_zenn.descriptors._layout import relayout
from quests_zenn.uq import Reference

Array = npt.NDArray[np.float64]

SMALL = {"k": 8, "cutoff": 4.0}


def rattled(n: int, amount: float = 0.08, seed: int = 0, repeat: int = 2) -> list[Atoms]:
    """Frames of fcc copper with random displacements."""
    rng = np.random.default_rng(seed)
    frames = []
    for _ in range(n):
        atoms = bulk("Cu", cubic=True).repeat(repeat)
        atoms.positions += rng.normal(0.0, amount, atoms.positions.shape)
        frames.append(atoms)
    return frames


def alloy(n: int, symbols: str = "CuZr", seed: int = 0, amount: float = 0.1) -> list[Atoms]:
    frames = rattled(n, amount, seed)
    rng = np.random.default_rng(seed)
    names = [symbols[i : i + 2] for i in range(0, len(symbols), 2)]
    for atoms in frames:
        atoms.set_chemical_symbols(rng.permutation([names[i % len(names)] for i in range(len(atoms))]).tolist())
    return frames


def plain_dh(y: Array, x: Array, h: float) -> Array:
    """dH by distances and a log-sum-exp of SciPy."""
    return -logsumexp(-cdist(y, x, "sqeuclidean") / (2.0 * h * h), axis=1)


@pytest.fixture(scope="module")
def reference() -> Reference:
    return Reference.fit(rattled(20), 0.05, **SMALL)


# --- scores -----------------------------------------------------------------------------------------------------------


def test_scores_are_those_of_the_formula(reference: Reference) -> None:
    frames = rattled(3, 0.15, 1)
    expected = plain_dh(get_descriptors(frames, **SMALL), get_descriptors(rattled(20), **SMALL), 0.05)
    found = reference.score(frames)
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-10)
    np.testing.assert_array_equal(reference.score(frames, jobs=1), reference.score(frames, jobs=3))
    np.testing.assert_allclose(reference.score(reference.describe(frames)), found, rtol=1e-14)
    np.testing.assert_allclose(reference.score(frames[0]), found[:32], rtol=1e-12)


def test_scores_of_frames(reference: Reference) -> None:
    frames = [*rattled(2, 0.15, 1), *rattled(1, 0.3, 2, repeat=1)]
    middle = float(np.median(reference.score(frames)))
    found = reference.score_frames(frames, middle)
    assert len(found) == 3
    assert found.frame_offsets.tolist() == [0, 32, 64, 68]
    for f, (first, last) in enumerate(((0, 32), (32, 64), (64, 68))):
        dh = found.dh[first:last]
        assert found.mean[f] == pytest.approx(dh.mean())
        assert found.max[f] == dh.max()
        assert found.novel_share[f] == pytest.approx(np.mean(dh >= middle))
    assert 0.0 < found.novel_share[0] < 1.0
    assert found.threshold == middle


@pytest.mark.parametrize("species", ["blocks", "pairs"])
def test_different_centres_do_not_resemble_each_other(species: str) -> None:
    frames, asked = alloy(6), alloy(2, seed=5)
    reference = Reference.fit(frames, 0.1, species=species, **SMALL)
    env, known = describe(asked, species=species, **SMALL), describe(frames, species=species, **SMALL)
    expected = np.empty(len(env))
    for z in (29, 40):
        mine, theirs = env.numbers == z, known.numbers == z
        expected[mine] = plain_dh(env.x[mine], known.x[theirs], 0.1)
    np.testing.assert_allclose(reference.score(asked), expected, rtol=1e-9)
    np.testing.assert_array_equal(reference.is_novel(asked, 2.0), expected >= 2.0)
    blind = Reference.fit(frames, 0.1, species=species, same_centre=False, **SMALL)
    np.testing.assert_allclose(blind.score(asked), plain_dh(env.x, known.x, 0.1), rtol=1e-9)


@pytest.mark.parametrize("species", ["none", "blocks", "pairs"])
def test_unknown_elements_are_novel_and_said_so(species: str) -> None:
    reference = Reference.fit(alloy(6), 0.1, species=species, **SMALL)
    frame = alloy(1, seed=5)[0]
    before = reference.score(frame)
    frame.symbols[3] = "Ag"
    with pytest.warns(UserWarning, match="never saw Ag"):
        after = reference.score(frame)
    with pytest.warns(UserWarning, match="never saw Ag"):
        novel = reference.is_novel(frame, 1e6)
    assert after[3] == np.inf
    assert novel[3]
    others = np.arange(32) != 3
    assert np.isfinite(after[others]).all()
    assert np.count_nonzero(novel) == np.count_nonzero(after >= 1e6)
    near = others & (frame.get_distances(3, range(32), mic=True) < SMALL["cutoff"])
    if species == "none":
        np.testing.assert_allclose(after[others], before[others], rtol=1e-12)
    elif species == "pairs":
        assert (after[near] > before[near]).all()
    # the same as a reference whose rows have empty blocks for the stranger
    known = describe(alloy(6), species=species, **SMALL)
    wide = relayout(known.x, ("Cu", "Zr"), ("Ag", "Cu", "Zr"), species, SMALL["k"])
    env = describe(frame, species=species, elements=["Ag", "Cu", "Zr"], **SMALL)
    for z in (29, 40):
        mine = env.numbers == z
        theirs = known.numbers == z if species != "none" else np.ones(len(known), bool)
        np.testing.assert_allclose(after[mine], plain_dh(env.x[mine], wide[theirs], 0.1), rtol=1e-9)


@given(
    amount=st.floats(0.0, 0.5),
    threshold=st.floats(-5.0, 60.0),
    h=st.floats(0.003, 0.3),
    species=st.sampled_from(["none", "pairs"]),
    seed=st.integers(0, 99),
)
def test_decisions_are_those_of_the_scores(amount: float, threshold: float, h: float, species: str, seed: int) -> None:
    reference = Reference.fit(alloy(5), h, species=species, **SMALL)
    asked = alloy(2, seed=seed, amount=amount)
    reference.extend(alloy(1, seed=7))
    dh = reference.score(asked)
    sure = np.abs(dh - threshold) > 1e-9
    np.testing.assert_array_equal(reference.is_novel(asked, threshold)[sure], (dh >= threshold)[sure])
    np.testing.assert_array_equal(
        reference.is_novel(asked, threshold, jobs=1), reference.is_novel(asked, threshold, jobs=4)
    )


def test_what_is_in_the_reference_is_known(reference: Reference) -> None:
    assert not reference.is_novel(rattled(20)).any()
    alone = Reference.fit(rattled(1)[0], 0.015)
    assert alone.score(rattled(1)[0]).max() <= 0.0
    assert not alone.is_novel(rattled(1)[0]).any()
    assert alone.is_novel(rattled(1, 0.3, 4)[0]).all()


def test_a_decision_on_real_data(data_dir: Path) -> None:
    reference = Reference.fit(data_dir / "mlearn_Si_train.xyz")
    other = Reference.fit(data_dir / "mlearn_Si_test.xyz")
    dh = plain_dh(other.x, reference.x, 0.015)
    for threshold in (1e-5, 3.0, "auto"):
        value = reference.as_threshold(threshold)
        found = reference._novel(other.x, other.numbers, None, value, None)
        np.testing.assert_array_equal(found, dh >= value)
        assert 0 < np.count_nonzero(found) < len(found)


# --- parameters -------------------------------------------------------------------------------------------------------


def test_other_parameters_are_refused(reference: Reference) -> None:
    for other in ({"k": 9}, {"cutoff": 5.0}, {"species": "blocks"}):
        env = describe(rattled(1), **{**SMALL, **other})
        with pytest.raises(DataError, match=next(iter(other))):
            reference.score(env)
        with pytest.raises(DataError, match=next(iter(other))):
            reference.is_novel(env)
        with pytest.raises(DataError, match=next(iter(other))):
            reference.require(**other)
    reference.require(k=8, cutoff=4.0, species="none", bandwidth=0.05, elements=["Cu"], same_centre=None)
    with pytest.raises(DataError, match="elements"):
        reference.require(elements=["Cu", "Zr"])


@pytest.mark.parametrize("threshold", [np.nan, np.inf, "often", None, [1.0]])
def test_bad_thresholds(reference: Reference, threshold: Any) -> None:
    with pytest.raises(ValueError, match="threshold must be"):
        reference.is_novel(rattled(1), threshold)


@pytest.mark.parametrize("h", [0.0, -1.0, np.nan, "wide", 1e10])
def test_bad_bandwidths(h: Any) -> None:
    with pytest.raises(ValueError, match="bandwidth must"):
        Reference.fit(rattled(1), h)


def test_bad_frames(reference: Reference) -> None:
    for bad in (3, None, [3], [], iter([])):
        with pytest.raises(DataError):
            Reference.fit(bad)
    frame = rattled(1)[0]
    frame.positions[4, 1] = np.nan
    for ask in (reference.score, reference.is_novel, reference.extend, Reference.fit):
        with pytest.raises(DataError, match="atom 4"):
            ask([rattled(1)[0], frame])
    assert len(reference) == 640
    with pytest.raises(ValueError, match="groups must have shape"):
        Reference.fit(rattled(3), groups=[1, 2])


def test_files_and_frames_make_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write("a.xyz", rattled(4), columns=["symbols", "positions"])
    write("b.xyz", rattled(2, seed=3), columns=["symbols", "positions"])
    both = Reference.fit(["a.xyz@1:", Path("b.xyz")], **SMALL)
    assert both.n_frames == 5
    assert [(s["name"], s["n_frames"], s["n_environments"]) for s in both.sources] == [
        ("a.xyz", 3, 96),
        ("b.xyz", 2, 64),
    ]
    one = Reference.fit("a.xyz", **SMALL)
    np.testing.assert_allclose(both.x[:96], one.x[32:], atol=1e-12)
    memory = Reference.fit([*rattled(4)[1:], *rattled(2, seed=3)], **SMALL)
    assert memory.sources == [{"name": "memory", "n_frames": 5, "n_environments": 160}]
    np.testing.assert_allclose(memory.x, both.x, atol=1e-6)
    with pytest.raises(DataError, match="no such file"):
        Reference.fit("missing.xyz")


# --- extending --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("asked_before", [False, True])
@pytest.mark.parametrize("n_more", [1, 40])
def test_extended_is_as_if_made_at_once(asked_before: bool, n_more: int) -> None:
    grown, asked = Reference.fit(rattled(10), 0.05, **SMALL), rattled(2, 0.2, 9)
    if asked_before:  # with packed parts, few rows come later and many are packed again
        grown.score(asked)
        grown.is_novel(asked)
    assert grown.extend(rattled(n_more, 0.12, 1)) == 32 * n_more
    whole = Reference.fit([*rattled(10), *rattled(n_more, 0.12, 1)], 0.05, **SMALL)
    np.testing.assert_allclose(grown.score(asked), whole.score(asked), rtol=1e-10)
    np.testing.assert_array_equal(grown.is_novel(asked, 1.0), whole.is_novel(asked, 1.0))
    np.testing.assert_array_equal(grown.x, whole.x)
    np.testing.assert_array_equal(grown.frame_offsets, whole.frame_offsets)
    assert grown.threshold(0.1) == pytest.approx(whole.threshold(0.1))


@pytest.mark.parametrize("species", ["none", "blocks", "pairs"])
def test_new_elements_widen_the_reference(species: str) -> None:
    grown = Reference.fit(alloy(3), 0.1, species=species, **SMALL)
    asked = alloy(2, "CuZrAg", 4)
    with pytest.warns(UserWarning, match="never saw Ag"):
        grown.is_novel(asked)
    grown.extend(alloy(3, "CuAg", 2))
    assert grown.elements == ("Ag", "Cu", "Zr")
    whole = Reference.fit([*alloy(3), *alloy(3, "CuAg", 2)], 0.1, species=species, **SMALL)
    np.testing.assert_array_equal(grown.x, whole.x)
    np.testing.assert_allclose(grown.score(asked), whole.score(asked), rtol=1e-10)
    np.testing.assert_array_equal(grown.is_novel(asked, 3.0), whole.is_novel(asked, 3.0))


def test_only_what_is_new_is_added() -> None:
    reference = Reference.fit(rattled(10), 0.02, **SMALL)
    new = rattled(2, 0.15, 1)
    novel = reference.is_novel(new[:1], 0.5)
    assert 0 < np.count_nonzero(novel) < 32
    grown = reference.copy()
    added = grown.extend([new[0], new[0], new[1]], only_new=True, threshold=0.5)
    assert len(grown) == len(reference) + added
    assert np.count_nonzero(novel) < added < 64
    np.testing.assert_array_equal(grown.x[320 : 320 + np.count_nonzero(novel)], reference.describe(new[0]).x[novel])
    # the second time it is known already, itself included
    again = grown.copy()
    again.extend(rattled(1, 0.15, 1)[0])
    assert grown.extend(rattled(1, 0.0)[0], only_new=True, threshold=20.0) == 0
    assert grown.n_frames == 12
    assert grown.sources[-1] == {"name": "memory", "n_frames": 2, "n_environments": added, "only_new": 0.5}
    higher = reference.copy().extend([new[0], new[0], new[1]], only_new=True, threshold=3.0)
    assert higher < added
    assert len(reference) == 320


def test_environments_extend_as_frames_do() -> None:
    grown, other = (
        Reference.fit(alloy(3), 0.1, species="pairs", **SMALL),
        Reference.fit(alloy(3), 0.1, species="pairs", **SMALL),
    )
    more = alloy(2, "CuAg", 2)
    assert grown.extend(describe(more, species="pairs", **SMALL)) == other.extend(more) == 64
    np.testing.assert_array_equal(grown.x, other.x)
    assert grown.sources == other.sources
    with pytest.raises(DataError, match="species"):
        grown.extend(describe(more, **SMALL))


def test_a_refused_extension_changes_nothing() -> None:
    reference = Reference.fit(alloy(3), 0.1, species="pairs", **SMALL)
    for threshold in (np.nan, "auto"):
        with pytest.raises(ValueError, match="threshold must be"):
            reference.extend(alloy(1, "CuAg"), only_new=True, threshold=threshold)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="groups must have shape"):
        reference.extend(alloy(1, "CuAg"), groups=[1, 2])
    assert reference.elements == ("Cu", "Zr")
    assert len(reference) == 96


def test_new_elements_are_new() -> None:
    grown = Reference.fit(alloy(3), 0.1, **SMALL)
    before = len(grown)
    frame = alloy(1)[0]
    frame.symbols[5] = "Ag"
    assert grown.extend([frame, frame], only_new=True, threshold=1e3) == 1
    assert grown.numbers[before:].tolist() == [47]
    assert not grown.is_novel(frame, 1e3).any()


def test_a_copy_grows_on_its_own(reference: Reference) -> None:
    asked = rattled(1, 0.2, 9)[0]
    before = reference.score(asked)
    other = reference.copy()
    other.extend(asked)
    np.testing.assert_array_equal(reference.score(asked), before)
    assert (other.score(asked) <= 1e-12).all()
    assert not other.is_novel(asked).any()
    assert reference.is_novel(asked).any()
    assert (len(reference), len(other)) == (640, 672)


# --- keeping ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    reference = Reference.fit(alloy(4), 0.1, species="pairs", groups=["a", "a", "b", "b"], **SMALL)
    reference.threshold(0.4)
    reference.save(tmp_path / "alloy.qref")
    return tmp_path / "alloy.qref"


def test_saved_and_loaded_is_the_same(saved: Path) -> None:
    reference = Reference.fit(alloy(4), 0.1, species="pairs", groups=["a", "a", "b", "b"], **SMALL)
    loaded = Reference.load(saved)
    assert isinstance(loaded.x.base, np.memmap)
    assert loaded.parameters == reference.parameters
    assert loaded.elements == ("Cu", "Zr")
    assert loaded.groups.tolist() == [0, 0, 1, 1]
    assert loaded.sources == reference.sources
    assert loaded._thresholds == {(0.4, "atom"): reference.threshold(0.4)}
    asked = alloy(2, seed=8)
    np.testing.assert_array_equal(loaded.score(asked), reference.score(asked))
    np.testing.assert_array_equal(loaded.is_novel(asked), reference.is_novel(asked))
    loaded.extend(asked)
    assert loaded._thresholds == {}
    assert not loaded.is_novel(asked).any()
    loaded.save(saved, overwrite=True)
    assert len(Reference.load(saved)) == 4 * 32 + 64
    with pytest.raises(DataError, match="exists already"):
        loaded.save(saved)


def test_expectations_are_held(saved: Path) -> None:
    Reference.load(saved, k=8, cutoff=4.0, species="pairs", bandwidth=0.1, elements=["Zr", "Cu"])
    for expected in ({"k": 32}, {"cutoff": 5.0}, {"species": "none"}, {"bandwidth": 0.015}, {"elements": ["Cu"]}):
        with pytest.raises(DataError, match=rf"alloy\.qref: {next(iter(expected))} is "):
            Reference.load(saved, **expected)


def rewrite(path: Path, change: Any) -> None:
    """The archive with another document."""
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    meta = json.loads(parts["meta.json"])
    change(meta, parts)
    parts["meta.json"] = json.dumps(meta).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda meta, parts: meta.update(format_version=2), "newer than this version"),
        (lambda meta, parts: meta.update(format_version="2"), "newer than this version"),
        (lambda meta, parts: meta.update(format_version=True), "newer than this version"),
        (lambda meta, parts: meta.update(format_version=-5), "newer than this version"),
        (lambda meta, parts: meta.update(format="a cake"), "is no reference"),
        (lambda meta, parts: meta.update(sources=[1]), "do not fit together"),
        (lambda meta, parts: meta.update(sources=[]), "do not fit together"),
        (lambda meta, parts: meta["sources"][0].update(n_frames=10**9), "do not fit together"),
        (lambda meta, parts: meta["sources"][0].update(name=3), "do not fit together"),
        (lambda meta, parts: meta["sources"][0].update(index=3), "do not fit together"),
        (lambda meta, parts: meta.update(versions=[]), "do not fit together"),
        (lambda meta, parts: meta["thresholds"][0].update(of="bogus"), "do not fit together"),
        (lambda meta, parts: meta["thresholds"][0].update(threshold=None), "do not fit together"),
        (lambda meta, parts: meta.pop("k"), "do not fit together"),
        (lambda meta, parts: meta.update(k=9), "do not fit together"),
        (lambda meta, parts: meta.update(bandwidth=-1.0), "do not fit together"),
        (lambda meta, parts: meta.update(species="many"), "do not fit together"),
        (lambda meta, parts: meta.update(cutoff="far"), "do not fit together"),
        (lambda meta, parts: meta.update(elements=["Cu"]), "do not fit together"),
        (lambda meta, parts: meta.update(thresholds=[1]), "do not fit together"),
        (lambda meta, parts: parts.pop("numbers.npy"), "do not fit together"),
        (lambda meta, parts: parts.update({"groups.npy": parts["numbers.npy"]}), "do not fit together"),
        (lambda meta, parts: parts.update({"x.npy": parts["numbers.npy"]}), "do not fit together"),
    ],
)
def test_other_files_are_refused(saved: Path, change: Any, message: str) -> None:
    rewrite(saved, change)
    with pytest.raises(DataError, match=message) as caught:
        Reference.load(saved)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_written_to_while_in_use_is_refused(saved: Path, tmp_path: Path) -> None:
    loaded, kept = Reference.load(saved), Reference.load(saved)
    expected = kept.score(alloy(1, seed=8))
    other = Reference.fit(alloy(9), 0.1, species="pairs", **SMALL)
    other.save(saved, overwrite=True)  # another file takes its place; the map keeps the old one
    np.testing.assert_array_equal(loaded.score(alloy(1, seed=8)), expected)
    loaded = Reference.load(saved)
    saved.write_bytes(saved.read_bytes()[:-1] + b" ")
    for ask in (loaded.score, loaded.is_novel):
        with pytest.raises(DataError, match=r"alloy\.qref: was written to while it was in use"):
            ask(alloy(1))
    with pytest.raises(DataError, match="was written to"):
        loaded.save(tmp_path / "other.qref")


def test_far_frames_have_finite_scores() -> None:
    """Two atoms nearly at one point: coordinates of 1e7 1/Å, 1e11 bandwidths away."""
    reference = Reference.fit(rattled(3), 1e-4, **SMALL)
    frame = rattled(1, seed=3)[0]
    frame.positions[5] = frame.positions[6] + [1e-7, 0.0, 0.0]
    env = reference.describe(frame)
    nearest = cdist(env.x, reference.x).min(axis=1)
    np.testing.assert_allclose(reference.score(frame), nearest**2 / (2.0 * 1e-4**2), rtol=1e-3)
    assert reference.is_novel(frame).all()


def test_numbers_that_are_not_finite_are_refused(saved: Path) -> None:
    reference = Reference.load(saved)
    reference.x[17, 3] = np.nan
    reference.save(saved, overwrite=True)
    with pytest.raises(DataError, match="do not fit together"):
        Reference.load(saved)
