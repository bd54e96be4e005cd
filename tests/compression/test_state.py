"""Runs that are interrupted go on as if nothing had been; files of other runs, and damaged ones, are refused."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_sets import compressor, make

from quests_zenn._core.checks import DataError, DataWarning
from quests_zenn._core.remote import fingerprint
from quests_zenn.compression import ORDERED, DatasetCompressor, Selection, Size, _course, _state
from quests_zenn.compression._state import Checkpoint


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """The state is kept after each structure."""
    monkeypatch.setattr(_state, "INTERVAL", -1.0)


def options_of(method: str) -> dict[str, Any]:
    return {"reference": np.concatenate(make("random", 3, seed=99))} if method == "msc_conditional" else {}


def interrupt_after(number: int, error: type[BaseException] = KeyboardInterrupt) -> Callable[[int], None]:
    """Progress that is interrupted once so many structures were chosen."""
    seen = [0]

    def progress(n: int) -> None:
        seen[0] += n
        if seen[0] >= number:
            raise error

    return progress


def assert_same(found: Selection, expected: Selection) -> None:
    np.testing.assert_array_equal(found.indices, expected.indices)
    np.testing.assert_array_equal(found.scores, expected.scores)  # to the bit; NaN equals NaN
    for name in ("method", "stop", "n_kept", "overlap", "n_candidates"):
        assert getattr(found, name) == getattr(expected, name)


def assert_resumes(make_data: Callable[[], DatasetCompressor], path: Path, at: list[int], **arguments: Any) -> None:
    """Interrupted at each of these, and once more a little later, the run comes to the same end."""
    expected = make_data().select(**arguments)
    for number in at:
        with pytest.raises(KeyboardInterrupt):
            make_data().select(**arguments, checkpoint=path, progress=interrupt_after(number))
        assert path.is_file()
        seen: list[int] = []
        try:
            make_data().select(**arguments, checkpoint=path, progress=interrupt_after(2))
        except KeyboardInterrupt:
            assert path.is_file()
            found = make_data().select(**arguments, checkpoint=path, progress=seen.append)
            assert_same(found, expected)
        assert not path.exists()
        assert list(path.parent.iterdir()) == []


# --- interrupted ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ORDERED)
@pytest.mark.parametrize("kind", ["random", "lattice", "outliers"])
def test_interrupted_after_each_structure(method: str, kind: str, tmp_path: Path) -> None:
    structures = make(kind, 16, seed=1)
    labels = np.arange(sum(len(x) for x in structures)) % 2
    extra = options_of(method)
    if extra:
        extra["reference_labels"] = np.arange(len(extra["reference"])) % 2
    assert_resumes(
        lambda: compressor(structures, labels=labels), tmp_path / "state", list(range(1, 13)), method=method, size=12,
        random_state=5, **extra,
    )  # fmt: skip


@pytest.mark.parametrize("method", ORDERED)
def test_interrupted_in_a_larger_run(method: str, tmp_path: Path) -> None:
    """Rows that were left below their floors, half seen, are taken up where they were."""
    structures = make("random", 250, seed=2, largest=25)
    assert_resumes(
        lambda: compressor(structures, 0.8, jobs=2), tmp_path / "state", [1, 40, 120, 199], method=method, size=200,
        **options_of(method),
    )  # fmt: skip


@pytest.mark.parametrize("method", ["msc", "msc_conditional", "fps", "random"])
@pytest.mark.parametrize(
    "size", [Size("overlap", 0.9), Size("max_loss", 0.3), Size.parse("auto"), Size.parse("40env"), Size("cost", 12.7)]
)
def test_interrupted_on_the_way_to_a_target(method: str, size: Size, tmp_path: Path) -> None:
    structures = make("clustered", 30, seed=3)
    costs = np.random.default_rng(0).random(30) + 0.3
    assert_resumes(
        lambda: compressor(structures, weights=costs[::-1], costs=costs), tmp_path / "state", [1, 3, 7], method=method,
        size=size, keep=[4, 2], by=np.arange(30) % 3, balance="proportional", **options_of(method),
    )  # fmt: skip


@pytest.mark.parametrize("method", ORDERED)
def test_interrupted_in_stages(method: str, tmp_path: Path) -> None:
    """In the chunks, between them, and in the second stage."""
    structures = make("random", 40, seed=4)
    assert_resumes(
        lambda: compressor(structures), tmp_path / "state", [1, 4, 5, 9, 16, 17, 20, 23], method=method, size=8,
        chunk=10, keep=[3], random_state=9, **options_of(method),
    )  # fmt: skip


def test_chunks_that_are_done_are_not_done_again(tmp_path: Path) -> None:
    data, path = compressor(make("random", 40, seed=4)), tmp_path / "state"
    with pytest.raises(KeyboardInterrupt):
        data.select("msc", 8, chunk=10, checkpoint=path, progress=interrupt_after(14))
    seen: list[int] = []
    data.select("msc", 8, chunk=10, checkpoint=path, progress=seen.append)
    assert sum(seen) == 4 + 8  # the last chunk, and the second stage


@pytest.mark.parametrize("method", ORDERED)
def test_killed_at_any_time(method: str, tmp_path: Path, always: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a chance to say goodbye: from every state that was ever in the file, the run comes to the same end."""
    structures = make("clustered", 25, seed=5)
    path = tmp_path / "state"
    arguments: dict[str, Any] = {"method": method, "size": 14, "keep": [3, 1], **options_of(method)}
    expected = compressor(structures).select(**arguments)
    kept: list[Path] = []
    save = Checkpoint.save

    def copying(self: Checkpoint, *given: Any, **named: Any) -> None:
        save(self, *given, **named)
        kept.append(tmp_path / f"copy{len(kept)}")
        shutil.copy(path, kept[-1])

    monkeypatch.setattr(Checkpoint, "save", copying)
    assert_same(compressor(structures).select(**arguments, checkpoint=path), expected)
    monkeypatch.setattr(Checkpoint, "save", save)
    assert len(kept) == 12
    for number, copy in enumerate(kept, start=1):
        copy.rename(path)
        seen: list[int] = []
        assert_same(compressor(structures).select(**arguments, checkpoint=path, progress=seen.append), expected)
        assert sum(seen) == 12 - number  # nothing was done twice
        assert not path.exists()


def test_an_error_keeps_the_state_too(tmp_path: Path) -> None:
    data, path = compressor(make("random", 20)), tmp_path / "state"
    with pytest.raises(MemoryError):
        data.select("msc", 10, checkpoint=path, progress=interrupt_after(6, MemoryError))
    seen: list[int] = []
    assert_same(data.select("msc", 10, checkpoint=path, progress=seen.append), data.select("msc", 10))
    assert sum(seen) == 4


def test_an_interrupt_between_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sums of some rows are ahead of others: the same structures, and scores that are the same numbers."""
    data, path = compressor(make("random", 60, seed=6, largest=12)), tmp_path / "state"
    expected = data.select("msc", 40)
    refresh = _course.Novelty.refresh
    calls = [0, 0]

    def broken(self: Any, structures: Any, floors: Any) -> None:
        calls[0] += 1
        if calls[0] == calls[1]:
            half = len(structures) // 2
            refresh(self, structures[:half], floors[:half])
            raise KeyboardInterrupt
        refresh(self, structures, floors)

    monkeypatch.setattr(_course.Novelty, "refresh", broken)
    for at in (2, 3, 9, 17, 30):
        calls[:] = [0, at]
        with pytest.raises(KeyboardInterrupt):
            data.select("msc", 40, checkpoint=path)
        calls[1] = 0
        found = data.select("msc", 40, checkpoint=path)
        np.testing.assert_array_equal(found.indices, expected.indices)
        np.testing.assert_allclose(found.scores, expected.scores, rtol=1e-13, atol=1e-13)


# --- the file ---------------------------------------------------------------------------------------------------------


def kept_state(path: Path, **arguments: Any) -> DatasetCompressor:
    data = compressor(make("random", 20, seed=7), costs=np.linspace(1.0, 2.0, 20))
    with pytest.raises(KeyboardInterrupt):
        data.select(**{"method": "msc", "size": 10, **arguments}, checkpoint=path, progress=interrupt_after(5))
    return data


def test_nothing_is_written_before_its_time_and_nothing_is_left(tmp_path: Path, always: None) -> None:
    data, path = compressor(make("random", 20, seed=7)), tmp_path / "state"
    there: list[bool] = []
    data.select("msc", 10, checkpoint=str(path), progress=lambda n: there.append(path.exists()))
    assert there == [False] + [True] * 9
    assert list(tmp_path.iterdir()) == []
    _state.INTERVAL = 1e9  # put back by the fixture
    there.clear()
    data.select("msc", 10, checkpoint=path, progress=lambda n: there.append(path.exists()))
    assert not any(there)
    for method in ("k_means", "direct"):
        data.select(method, 10, checkpoint=path)
        data.select(method, 4, checkpoint=path, chunk=7)
    assert list(tmp_path.iterdir()) == []


def test_the_file_is_read_without_pickle(tmp_path: Path) -> None:
    kept_state(tmp_path / "state")
    with np.load(tmp_path / "state", allow_pickle=False) as content:
        assert all(content[name].dtype.kind in "fiU" for name in content.files)
        assert content["chosen"].tolist() == kept_state(tmp_path / "other").get_indices("msc", 5).tolist()


@pytest.mark.parametrize(
    "other",
    [
        {"method": "fps"},
        {"size": 11},
        {"size": "10env"},
        {"size": Size("cost", 0.5)},
        {"keep": [1]},
        {"by": [0, 1] * 10},
        {"by": [0, 0, 0, 1] * 5, "balance": "proportional"},
        {"eps": 1e-4},
        {"chunk": 10},
        {"method": "msc_conditional", "reference": np.ones((1, 3))},
    ],
)
def test_the_state_of_another_run_is_refused(other: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "state"
    data = kept_state(path)
    with pytest.raises(DataError, match=r"state: is of a run on other data or with other options; repeat that one, or"):
        data.select(**{"method": "msc", "size": 10, **other}, checkpoint=path)
    assert path.is_file()  # and left as it is
    assert len(data.select("msc", 10, checkpoint=path)) == 10


def test_a_budget_is_not_a_share_of_the_same_number(tmp_path: Path) -> None:
    path = tmp_path / "state"
    data = kept_state(path, size=Size("cost", 0.9, share=True))
    with pytest.raises(DataError, match=r"is of a run on other data or with other options"):
        data.select("msc", Size("cost", 0.9), checkpoint=path)


def test_data_are_part_of_the_run(tmp_path: Path) -> None:
    path = tmp_path / "state"
    kept_state(path)
    structures = make("random", 20, seed=7)
    costs = np.linspace(1.0, 2.0, 20)
    others: list[tuple[list[Any], dict[str, Any]]] = [
        (make("random", 20, seed=8), {"costs": costs}),
        (structures, {"costs": costs[::-1]}),
        (structures, {"costs": costs, "weights": costs}),
        (structures, {}),
        (structures, {"costs": costs, "h": 0.51}),
        (structures, {"costs": costs, "labels": np.arange(sum(len(x) for x in structures)) % 2}),
        ([structures[0][:1], structures[0][1:], *structures[1:]], {"costs": np.append(costs, 1.0)}),
        ([x.astype(np.float32) for x in structures], {"costs": costs}),
    ]
    assert len(structures[0]) > 1
    for other, options in others:
        with pytest.raises(DataError, match=r"is of a run on other data"):
            compressor(other, **options).select("msc", 10, checkpoint=path)


@pytest.mark.parametrize("method", ["random", "k_means", "direct"])
def test_seeds_are_part_of_the_run(method: str, tmp_path: Path, always: None, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "state"
    data = compressor(make("random", 20, seed=7))
    monkeypatch.setattr(Checkpoint, "discard", lambda self: None)
    data.select(method, 6, random_state=1, chunk=5, checkpoint=path)
    with pytest.raises(DataError, match=r"is of a run on other data or with other options"):
        data.select(method, 6, random_state=2, chunk=5, checkpoint=path)
    assert_same(
        data.select(method, 6, random_state=1, chunk=5, checkpoint=path),
        data.select(method, 6, random_state=1, chunk=5),
    )


def test_seeds_that_decide_nothing_are_no_part_of_the_run(tmp_path: Path) -> None:
    path = tmp_path / "state"
    data = kept_state(path, random_state=1)
    assert len(data.select("msc", 10, random_state=None, checkpoint=path)) == 10


def test_any_number_of_threads_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "state"
    kept_state(path)
    costs = np.linspace(1.0, 2.0, 20)
    structures = make("random", 20, seed=7)
    found = compressor(structures, costs=costs, jobs=3).select("msc", 10, checkpoint=path)
    assert_same(found, compressor(structures, costs=costs).select("msc", 10))


def damaged(path: Path, how: str) -> None:
    content = path.read_bytes()
    if how == "empty":
        path.write_bytes(b"")
    elif how == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif how == "text":
        path.write_text("this is a text\n")
    elif how == "zeros":
        path.write_bytes(bytes(len(content)))
    elif how == "matrix":
        with open(path, "wb") as stream:
            np.save(stream, np.ones((2, 2)))
    elif how == "other arrays":
        with open(path, "wb") as stream:
            np.savez(stream, x=np.ones((2, 2)))
    elif how == "pickle":
        with open(path, "wb") as stream:
            np.save(stream, np.array([{"format": 1}], dtype=object), allow_pickle=True)
    elif how == "pickle inside":
        with open(path, "wb") as stream:
            np.savez(stream, format=np.array([{"format": 1}], dtype=object))


@pytest.mark.parametrize("how", ["empty", "cut", "text", "zeros", "matrix", "other arrays", "pickle", "pickle inside"])
def test_files_that_hold_no_state(how: str, tmp_path: Path) -> None:
    path = tmp_path / "state"
    data = kept_state(path)
    damaged(path, how)
    before = path.read_bytes()
    with pytest.raises(DataError, match=r"state: is no state of a selection, or damaged; remove it to start anew"):
        data.select("msc", 10, checkpoint=path)
    assert path.read_bytes() == before


def test_the_state_of_another_version(tmp_path: Path) -> None:
    path = tmp_path / "state"
    data = kept_state(path)
    with np.load(path) as content:
        arrays = {name: content[name] for name in content.files}
    arrays["format"] = np.array("quests_zenn selection 0")
    with open(path, "wb") as stream:
        np.savez(stream, **arrays)
    with pytest.raises(DataError, match=r"state: is of a run on other data or with other options"):
        data.select("msc", 10, checkpoint=path)


def test_bits_that_flipped(tmp_path: Path) -> None:
    """Whatever byte is damaged: refused with a sentence, or it did not matter."""
    path = tmp_path / "state"
    data = kept_state(path)
    content = path.read_bytes()
    expected = data.select("msc", 10)
    rng = np.random.default_rng(0)
    told = []
    for place in rng.integers(len(content), size=300).tolist():
        path.write_bytes(content[:place] + bytes([content[place] ^ (1 << int(rng.integers(8)))]) + content[place + 1 :])
        try:
            assert_same(data.select("msc", 10, checkpoint=path), expected)
        except DataError as error:
            told.append(str(error))
    assert len(told) > 150
    assert not any("\n" in sentence for sentence in told)


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    data = compressor(make("random", 5))
    with pytest.raises(DataError, match=r"the folder .* does not exist"):
        data.select("msc", 2, checkpoint=tmp_path / "nowhere" / "state")
    with pytest.raises(DataError, match=r"is no state of a selection"):
        data.select("msc", 2, checkpoint=tmp_path)


def test_fingerprints() -> None:
    words = [
        fingerprint(np.arange(4), "a"),
        fingerprint(np.arange(4).reshape(2, 2), "a"),
        fingerprint(np.arange(4.0), "a"),
        fingerprint(np.arange(4)),
        fingerprint("a", np.arange(4)),
        fingerprint(np.arange(4), "a", None),
        fingerprint(np.arange(4), "b"),
    ]
    assert len(set(words)) == len(words)
    assert words[0] == fingerprint(np.arange(8)[:4], "a")
    assert fingerprint(np.arange(8)[::2]) == fingerprint(np.array([0, 2, 4, 6]))


def test_a_file_of_a_similar_name_is_left_alone(tmp_path: Path) -> None:
    beside = tmp_path / "run.npz"
    beside.write_text("mine")
    saved = Checkpoint(tmp_path / "run", "word")
    saved.save(lambda: {"n": np.array(1)}, now=True)
    assert beside.read_text() == "mine"
    assert int(Checkpoint(tmp_path / "run", "word").state["n"]) == 1


def test_a_state_that_cannot_be_kept_does_not_end_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: Any, **kwargs: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(_state, "INTERVAL", 0.0)
    monkeypatch.setattr(np, "savez", full)
    data = compressor(make("random", 12))
    with pytest.warns(DataWarning, match="could not go on after an interruption: .*No space left") as told:
        found = data.get_indices("msc", 8, checkpoint=tmp_path / "state")
    assert len(told) == 1
    np.testing.assert_array_equal(found, data.get_indices("msc", 8))
    assert list(tmp_path.iterdir()) == []
