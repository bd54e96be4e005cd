"""Who computes, as commands are told; and runs that were killed and go on."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ase.build import bulk
from ase.io import write
from commands import run

from quests_zenn.cli import _backend
from quests_zenn.entropy import _squares


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a trajectory, and a cache of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", os.fspath(tmp_path / "cache"))
    frames = []
    for seed in range(6):
        atoms = bulk("Cu", cubic=True) * (4, 4, 4)
        atoms.rattle(0.02 + 0.03 * seed, seed=seed)
        frames.append(atoms)
    write("traj.xyz", frames)
    return tmp_path


def document(*args: Any) -> dict[str, Any]:
    """The JSON document of a run, without times."""
    run(*args, "--json", "found.json", "--overwrite", "--quiet")
    found: dict[str, Any] = json.loads(Path("found.json").read_text())
    del found["timings"]
    return found


# --- options ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (["entropy", "traj.xyz", "--tls-ca", "x"], "--tls-ca belongs to --scheduler"),
        (["dh", "traj.xyz", "--reference", "traj.xyz", "--tls-key", "x"], "--tls-key belongs to --scheduler"),
        (
            ["entropy", "traj.xyz", "--backend", "threads", "--scheduler", "tcp://a:1"],
            "--scheduler is for --backend dask",
        ),
        (["compress", "traj.xyz", "--backend", "dask"], "--backend dask is for --chunk: without it, each structure"),
        (["compress", "traj.xyz", "--scheduler", "tcp://a:1"], "--scheduler is for --chunk: without it, each"),
        (["overlap", "traj.xyz", "--backend", "dask"], "No such option '--backend'"),
    ],
)
def test_options_that_do_not_go_together(args: list[str], sentence: str) -> None:
    assert sentence in run(*args, status=2)[1]


def test_without_dask_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("dask", "distributed"):
        monkeypatch.setitem(sys.modules, name, None)
    for option in (["--backend", "dask"], ["--scheduler", "tcp://127.0.0.1:1"]):
        error = run("entropy", "traj.xyz", *option, status=1)[1]
        assert error == (
            "quests-zenn entropy: this needs dask, which is not installed: pip install 'quests_zenn[dask]'\n"
        )


@pytest.mark.extra
def test_a_scheduler_that_is_not_there() -> None:
    pytest.importorskip("dask")
    error = run("entropy", "traj.xyz", "--scheduler", "scheduler.json", status=1)[1]
    assert error.startswith("quests-zenn entropy: scheduler.json: is neither an address of a scheduler")


# --- a local cluster --------------------------------------------------------------------------------------------------


@pytest.mark.extra
def test_answers_do_not_depend_on_who_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("dask")
    pytest.importorskip("cryptography")
    monkeypatch.setattr(_squares, "LEAST_PAIRS_ELSEWHERE", 1)
    monkeypatch.setattr(_squares, "PAIRS_PER_CALL", 2**16)
    common = ("entropy", "traj.xyz", "--bandwidth", "0.03,0.06", "--jobs", 2)
    found = [document(*common), document(*common, "--backend", "dask")]
    assert [(each.pop("backend"), each.pop("n_workers")) for each in found] == [("threads", 2), ("dask", 2)]
    assert found[0] == found[1]


@pytest.mark.extra
@pytest.mark.slow
def test_table_tells_who_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("dask")
    pytest.importorskip("cryptography")
    monkeypatch.setattr(_squares, "LEAST_PAIRS_ELSEWHERE", 1)
    monkeypatch.setattr(_backend, "_has_bokeh", lambda: False)
    out, error = run("dh", "traj.xyz@3:", "--reference", "traj.xyz@:3", "--jobs", 1, "--backend", "dask")
    assert re.search(r"^time .*; 1 Dask worker\)$", out, re.MULTILINE)
    assert error == "no dashboard: it needs bokeh (pip install 'quests_zenn[dask]')\n"
    whole, parts = run("dh", "traj.xyz@3:", "--reference", "traj.xyz@:3", "--jobs", 1)[0], out
    assert [line for line in whole.splitlines() if not line.startswith("time")] == [
        line for line in parts.splitlines() if not line.startswith("time")
    ]


@pytest.mark.extra
@pytest.mark.slow
def test_chunks_of_a_compression_are_shared() -> None:
    pytest.importorskip("dask")
    pytest.importorskip("cryptography")
    common = ("compress", "traj.xyz", "--size", 2, "--chunk", 3, "--jobs", 2)
    found = [document(*common), document(*common, "--backend", "dask")]
    assert [each.pop("backend") for each in found] == ["threads", "dask"]
    assert found[0] == found[1]


@pytest.mark.extra
@pytest.mark.slow
def test_a_link_to_the_dashboard_is_told_once() -> None:
    pytest.importorskip("dask")
    pytest.importorskip("bokeh")
    told = run("entropy", "traj.xyz", "--backend", "dask", "--jobs", 1)[1]
    assert len(re.findall(r"^dashboard: http://127\.0\.0\.1:\d+/status$", told, re.MULTILINE)) == 1


# --- runs that go on --------------------------------------------------------------------------------------------------

#: A run that keeps its state after each part, and is killed after some of them.
KILLED = """
import os, signal
from quests_zenn.cli.main import quests_entropy
from quests_zenn.entropy import _plan
from quests_zenn.io.keeper import DiskKeeper
_plan.ROWS_OF_RUN = 256
save, left = DiskKeeper.save, [3]
def save_and_die(self, key, state, now=False):
    save(self, key, state, now=True)
    left[0] -= 1
    if not left[0]:
        os.kill(os.getpid(), signal.SIGKILL)
DiskKeeper.save = save_and_die
quests_entropy()
"""


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of the work so small that this trajectory has many."""
    from quests_zenn.entropy import _plan

    monkeypatch.setattr(_plan, "ROWS_OF_RUN", 256)


def kept(folder: Path) -> list[Path]:
    return sorted((folder / "cache" / "quests_zenn" / "runs").glob("*/state.*"))


@pytest.mark.usefixtures("small_parts")
def test_a_run_that_was_interrupted_goes_on(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from quests_zenn.io.keeper import DiskKeeper

    wanted = document("entropy", "traj.xyz", "--bandwidth", 0.03)
    assert kept(here) == []
    save = DiskKeeper.save
    states: list[int] = []

    def save_and_stop(self: DiskKeeper, key: str, state: Any, now: bool = False) -> None:
        save(self, key, state, now=True)
        states.append(int(state()["done"]))
        if len(states) == 3:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(DiskKeeper, "save", save_and_stop)
    error = run("entropy", "traj.xyz", "--bandwidth", 0.03, status=130)[1]
    assert error == "quests-zenn entropy: interrupted; the same command goes on where this one stopped\n"
    assert len(kept(here)) == 1
    at = states[2]
    states.clear()
    error = run("entropy", "traj.xyz", "--bandwidth", 0.03, "--json", "again.json")[1]
    assert f"goes on where an earlier run stopped (kept in {kept_in(error)})" in error
    assert states[0] > at
    found = json.loads(Path("again.json").read_text())
    del found["timings"]
    assert found == wanted
    assert kept(here) == []


def kept_in(error: str) -> str:
    found = re.search(r"kept in (.*)\)", error)
    assert found is not None
    return found[1]


@pytest.mark.usefixtures("small_parts")
def test_a_run_that_was_killed_goes_on(here: Path) -> None:
    wanted = document("entropy", "traj.xyz", "--bandwidth", 0.03)
    command = [sys.executable, "-c", KILLED, "traj.xyz", "--bandwidth", "0.03"]
    ended = subprocess.run(command, capture_output=True, timeout=120, check=False)
    assert ended.returncode == -signal.SIGKILL
    assert len(kept(here)) == 1
    error = run("entropy", "traj.xyz", "--bandwidth", 0.03, "--json", "again.json")[1]
    assert "goes on where an earlier run stopped" in error
    found = json.loads(Path("again.json").read_text())
    del found["timings"]
    assert found == wanted
    assert kept(here) == []


@pytest.mark.usefixtures("small_parts")
def test_other_parameters_or_inputs_begin_anew(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from quests_zenn.io.keeper import DiskKeeper

    with monkeypatch.context() as patch:
        patch.setattr(DiskKeeper, "close", lambda self, done=False: None)  # as if it were killed at the end
        run("entropy", "traj.xyz", "--bandwidth", 0.03)
    assert len(kept(here)) == 1
    for change in (["traj.xyz@:5", "--bandwidth", 0.03], ["traj.xyz", "--bandwidth", 0.04]):
        assert "goes on" not in run("entropy", *change)[1]
