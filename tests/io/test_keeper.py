"""Unfinished work on disk: it comes back, or the run begins anew; nothing that goes wrong with it ends a run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from quests_zenn import DataWarning
from quests_zenn.io import keeper as room
from quests_zenn.io.keeper import DiskKeeper, default_folder

STATE = {"sums": np.random.default_rng(0).normal(size=(2, 500)), "done": np.array(7)}


def assert_is_state(found: object) -> None:
    assert isinstance(found, dict)
    assert found.keys() == STATE.keys()
    for name, values in STATE.items():
        np.testing.assert_array_equal(found[name], values, strict=True)


def killed_run(folder: Path) -> Path:
    """What a run leaves that is killed after it has kept a state."""
    keeper = DiskKeeper(folder)
    assert keeper.load("abc") is None
    keeper.save("abc", lambda: STATE, now=True)
    keeper.close()
    return folder / "abc" / "state.qarrays"


def test_a_state_comes_back_and_goes_away_with_the_work(tmp_path: Path) -> None:
    killed_run(tmp_path)
    told: list[Path] = []
    with DiskKeeper(tmp_path, told.append) as keeper:
        assert_is_state(keeper.load("abc"))
        assert keeper.load("def") is None
        assert told == [tmp_path / "abc"]
        assert_is_state(keeper.load("abc"))
        assert len(told) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_fails_leaves_its_state(tmp_path: Path) -> None:
    def run() -> None:
        with DiskKeeper(tmp_path) as keeper:
            keeper.save("abc", lambda: STATE, now=True)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run()
    assert_is_state(DiskKeeper(tmp_path).load("abc"))


def test_states_are_kept_every_few_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(room.time, "monotonic", lambda: clock[0])
    keeper = DiskKeeper(tmp_path)
    keeper.load("abc")
    asked = []

    def state() -> dict[str, np.ndarray]:
        asked.append(clock[0])
        return STATE

    for clock[0] in np.arange(0.0, 20.0, 0.5).tolist():
        keeper.save("abc", state)
    assert asked == [5.0, 10.0, 15.0]
    keeper.save("abc", state, now=True)
    assert asked[-1] == 19.5
    keeper.drop("abc")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("fault", ["truncated", "changed", "empty", "another", "folder"])
def test_a_damaged_state_is_ignored(tmp_path: Path, fault: str) -> None:
    path = killed_run(tmp_path)
    whole = path.read_bytes()
    if fault == "truncated":
        os.truncate(path, len(whole) // 2)
    elif fault == "changed":
        path.write_bytes(whole[:2000] + bytes([whole[2000] ^ 1]) + whole[2001:])
    elif fault == "empty":
        path.write_bytes(b"")
    elif fault == "another":
        os.rename(path.parent, tmp_path / "def")
    else:
        path.unlink()
        path.mkdir()
    key = "def" if fault == "another" else "abc"
    keeper = DiskKeeper(tmp_path)
    assert keeper.load(key) is None
    if fault != "folder":
        keeper.save(key, lambda: STATE, now=True)
        assert_is_state(keeper.load(key))
    keeper.close()


def test_of_two_runs_one_keeps(tmp_path: Path) -> None:
    with DiskKeeper(tmp_path) as first, DiskKeeper(tmp_path) as second:
        first.save("abc", lambda: STATE, now=True)
        assert second.load("abc") is None
        second.save("abc", lambda: {"sums": np.zeros(1)}, now=True)
        second.drop("abc")
        assert_is_state(first.load("abc"))
    with DiskKeeper(tmp_path) as third:
        assert third.load("abc") is None


def test_a_process_that_is_killed_leaves_its_last_state(tmp_path: Path) -> None:
    code = f"""
import itertools, numpy as np
from quests_zenn.io.keeper import DiskKeeper
keeper = DiskKeeper({os.fspath(tmp_path)!r})
for n in itertools.count():
    keeper.save("abc", lambda: {{"n": np.full(100_000, n)}}, now=True)
    if n == 3:
        print("saved", flush=True)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "saved\n"
        process.send_signal(signal.SIGKILL)  # it is writing, most of the time
        process.wait(10)
    found = DiskKeeper(tmp_path).load("abc")
    assert found is not None
    assert found["n"].min() == found["n"].max() >= 3


def test_old_states_are_removed(tmp_path: Path) -> None:
    path = killed_run(tmp_path)
    (tmp_path / "notes").mkdir()  # not ours
    old = time.time() - 31 * 86400
    for entry in path.parent.iterdir():
        os.utime(entry, (old, old))
    other = DiskKeeper(tmp_path / "elsewhere")
    assert other.load("def") is None
    assert path.exists()
    with DiskKeeper(tmp_path) as keeper:
        assert keeper.load("abc") is None
        assert not path.exists()
        assert (tmp_path / "notes").exists()


@contextmanager
def told_once(text: str) -> Iterator[None]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    assert len(caught) == 1
    assert issubclass(caught[0].category, DataWarning)
    assert text in str(caught[0].message)


def test_a_run_goes_on_without_a_place_to_keep_it(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with DiskKeeper(tmp_path / "file") as keeper, told_once("the run could not go on after an interruption: "):
        assert keeper.load("abc") is None
        for _ in range(3):
            keeper.save("abc", lambda: STATE, now=True)
        keeper.save("def", lambda: STATE, now=True)
    assert (tmp_path / "file").read_text() == "in the way"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits the size of files as Linux does")
def test_a_run_goes_on_when_the_disk_is_full(tmp_path: Path) -> None:
    import resource

    keeper = DiskKeeper(tmp_path)
    keeper.save("abc", lambda: STATE, now=True)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
        with told_once("cannot be written (File too large)"):
            for _ in range(2):
                keeper.save("abc", lambda: {"sums": np.zeros(100_000)}, now=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    keeper.close()
    assert [path.name for path in sorted((tmp_path / "abc").iterdir())] == ["lock", "state.qarrays"]
    assert_is_state(DiskKeeper(tmp_path).load("abc"))


def test_where_runs_are_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", os.fspath(tmp_path))
    assert default_folder() == tmp_path / "quests_zenn" / "runs"
    for value in ("relative", ""):
        monkeypatch.setenv("XDG_CACHE_HOME", value)
        assert default_folder() == Path.home() / ".cache" / "quests_zenn" / "runs"


def test_a_key_names_no_other_place(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"a key must consist of letters and digits, got '../abc'"):
        DiskKeeper(tmp_path).load("../abc")
