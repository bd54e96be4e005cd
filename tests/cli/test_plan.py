"""``quests-zenn plan``: what it counts, what it says, and that ``--dry-run`` says the same."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase.build import bulk
from ase.io import read, write
from commands import run

from quests_zenn._core.parallel import Workers
from quests_zenn.cli import _plan, _tell
from quests_zenn.cli._source import Source
from quests_zenn.descriptors import describe
from quests_zenn.distributed.costs import Machine
from quests_zenn.entropy import estimate_entropy
from quests_zenn.entropy._packing import pack_rows
from quests_zenn.entropy._plan import run_edges


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def traj(tmp_path_factory: pytest.TempPathFactory) -> Path:
    frames = []
    for i in range(4):
        atoms = bulk("Cu", cubic=True) * (2, 2, 2)
        atoms.rattle(0.1, seed=i)
        frames.append(atoms)
    path = tmp_path_factory.mktemp("plan") / "copper.xyz"
    write(path, frames)
    return path


@pytest.fixture
def fixed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with known rates: nothing depends on what else runs here."""
    monkeypatch.setattr(_plan, "measure", lambda seen, options, bandwidths, jobs, machine: machine)


def document(*args: Any) -> dict[str, Any]:
    run("plan", *args, "--quiet", "--json", "plan.json", "--overwrite")
    return json.loads(Path("plan.json").read_text(encoding="utf-8"))


def test_what_is_told(traj: Path, here: Path) -> None:
    out, err = run("plan", traj, "--workers", 2, "--jobs", 1)
    assert err == ""
    lines = out.splitlines()
    assert lines[:3] == [
        "environments  128 in 4 frames, of 63 numbers",
        "sums          exact: 8.2e+03 pairs",
        "workers       2 of 1 thread; the command itself has 1 thread",
    ]
    for name in ("reading", "descriptors", "preparing", "sums", "in all"):
        assert re.search(rf"^{name} +[0-9.e-]+ s .*250 MB", out, re.MULTILINE), name
    assert "scaling       nothing of this is worth sending to workers: one process does it all" in lines
    assert f"measured here on 128 environments of {traj}" in out
    assert lines[-1].endswith("nobody has measured what other processes cost: their part is a forecast")
    assert list(here.iterdir()) == []


@pytest.mark.usefixtures("here", "fixed")
def test_the_document(traj: Path) -> None:
    found = document(traj, "--environments", "1e6", "--workers", 64, "--estimator", "exact", "--precision", "float32")
    assert found["n_environments"] == 1_000_000
    assert found["n_frames"] is None
    work, plan = found["work"], found["plan"]
    assert (work["runs"], work["pairs"], work["width"], work["itemsize"]) == (64, 5e11, 63, 4)
    assert plan["workers"] == 64
    assert [stage["name"] for stage in plan["stages"]] == [
        "reading", "descriptors", "preparing", "sums", "collecting",
    ]  # fmt: skip
    assert plan["seconds"] == pytest.approx(sum(stage["seconds"] for stage in plan["stages"]))
    assert plan["seconds"] < found["without_workers"]["seconds"]
    assert 16 < found["limits"]["dominated_from"] < 256
    assert found["limits"]["best"] > found["limits"]["dominated_from"]
    assert found["machine"]["pair"] == Machine().pair
    ten = document(traj, "--environments", "1e7", "--workers", 64, "--estimator", "exact")
    assert ten["work"]["pairs"] == 100 * work["pairs"]


@pytest.mark.usefixtures("here", "fixed")
def test_a_billion_of_a_made_up_kind() -> None:
    out, err = run("plan", "--environments", "1e9", "--store", "--workers", 1000, "--memory", "500MB")
    assert "environments  1,000,000,000, of 63 numbers" in out
    assert re.search(r"sums +sampled: about .* \+ 1,000 x 1,000,000,000 references", out)
    assert re.search(r"^writing .* 504\.0 GB", out, re.MULTILINE)
    assert re.search(r"scaling +(always|from \d+ workers on), half of the time or more is not shared, most by \w+", out)
    assert re.fullmatch(r"warning: sums: a worker needs \d+ MB, more than --memory 500 MB\n", err)


@pytest.mark.usefixtures("here", "fixed")
def test_selections_are_described_and_not_summed(traj: Path) -> None:
    found = document(traj, "--select", "0:8")
    assert found["work"]["n"] == 32
    assert found["work"]["described"] == 128


@pytest.mark.usefixtures("here", "fixed")
def test_a_dry_run_says_the_same(traj: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked = _plan.look
    monkeypatch.setattr(
        _plan, "look", lambda source, whole=True: looked(source, whole).of_size(10**6)
    )  # large, so that the figures differ from those of small sets
    for options in ([], ["--estimator", "exact"], ["--bandwidth", "0.02,0.03"], ["--species", "blocks"]):
        found = document(traj, *options)["without_workers"]
        line, _ = run("entropy", traj, *options, "--dry-run")
        assert f"about {_tell.duration(found['seconds'])} on" in line
        assert f"threads, {_tell.size(found['client_memory'])} of memory" in line


@pytest.mark.usefixtures("here", "fixed")
def test_further_work_of_a_dry_run_counts(traj: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked = _plan.look
    monkeypatch.setattr(_plan, "look", lambda source, whole=True: looked(source, whole).of_size(40_000))
    plain, by = (run("entropy", traj, *more, "--dry-run")[0] for more in ([], ["--by", "frame"]))
    seconds = [float(re.search(r"about ([0-9.]+) s", line)[1]) for line in (plain, by)]  # type: ignore[index]
    assert seconds[1] == pytest.approx(2.2 * seconds[0], rel=0.1)


@pytest.mark.extra
@pytest.mark.usefixtures("fixed")
def test_a_store_is_counted_without_reading_it(traj: Path, here: Path) -> None:
    pytest.importorskip("zarr")
    run("descriptors", traj, "-o", "store.zarr", "--quiet")
    found = document("store.zarr")
    assert found["work"]["n"] == 128
    assert found["work"]["described"] == 128
    assert found["work"]["kind"] == "store"
    assert [stage["name"] for stage in found["plan"]["stages"]] == ["reading", "preparing", "sums"]
    out, _ = run("entropy", "store.zarr", "--dry-run")
    assert out.startswith("4 frames, 128 environments: about ")
    _, err = run("plan", "store.zarr", traj, status=1)
    assert "frames and stores together cannot be predicted; write all to one store first" in err


def test_runs_are_those_of_the_plan() -> None:
    rng = np.random.default_rng(0)
    for n in (1, 500, 16_384, 16_500, 70_000):
        with Workers(1) as workers:
            packed = pack_rows(
                rng.normal(size=(n, 2)), [np.arange(n)], 1.0, None, np.float32, workers, "x", as_they_are=True
            )
        (edges,) = run_edges(packed)
        assert _plan.runs_of(n) == len(edges) - 1


def test_samples_are_about_those_of_the_estimate() -> None:
    rng = np.random.default_rng(3)
    x = rng.normal(size=(60_000, 3)) * 0.1
    for tolerance in (0.05, 0.01):
        used = estimate_entropy(x, 0.03, "sampled", tolerance, random_state=1)
        sizes, asked, _ = _plan.levels_of(len(x), tolerance, *_plan.spreads(x[:8_192], 0.03, len(x)))
        assert sizes == used.references
        assert np.log(asked) == pytest.approx(np.log(used.environments), abs=np.log(1.5))


@pytest.mark.usefixtures("here")
def test_what_is_refused(traj: Path) -> None:
    for args, status, message in (
        ([], 2, "name files, or a number of --environments"),
        ([traj, "--environments", "1.5"], 2, "'1.5' is not a whole number from 1 to 1e15"),
        ([traj, "--environments", "many"], 2, "'many' is not a whole number from 1 to 1e15"),
        ([traj, "--workers", "0"], 2, "--workers"),
        ([traj, "--select", "Ag"], 1, "'Ag'"),
        (["--environments", "1e6", "--bandwidth", "auto"], 1, "--bandwidth auto needs frames"),
        (["missing.xyz"], 1, "missing.xyz"),
    ):  # fmt: skip
        out, err = run("plan", *args, status=status)
        assert message in err
        assert out == ""
    Path("plan.json").write_text("mine")
    _, err = run("plan", traj, "--json", "plan.json", status=1)
    assert "exists already" in err
    assert Path("plan.json").read_text() == "mine"


def test_frames_from_all_over_the_file_are_looked_at(traj: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_plan, "DESCRIBED", 32)
    options: dict[str, Any] = {"k": 32, "cutoff": 5.0, "species": "none", "jobs": 1, "quiet": True}
    frames = read(traj, ":")
    seen = _plan.look(Source((str(traj),), options))
    assert (seen.n, seen.n_frames, seen.kind) == (128, 4, "xyz")
    assert seen.input_bytes == traj.stat().st_size
    np.testing.assert_array_equal(seen.x, describe(frames[::2]).x)
    # or the first only, where the others are not even counted
    seen = _plan.look(Source((str(traj),), options), whole=False)
    assert seen.n == 32
    np.testing.assert_array_equal(seen.x, describe(frames[:1]).x)
    assert seen.of_size(320).input_bytes == 10 * seen.input_bytes
