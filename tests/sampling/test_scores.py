"""Runs whose points come with frames: scores, weights of rows, novelty among environments, temperatures of pools."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import commands
import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("safetensors")

from test_loop import files, learning, potentials
from test_snapshots import frames

from quests_zenn._core.checks import DataError, DataWarning
from quests_zenn.sampling import ActiveLearning, FunctionOracle, PoolOracle, ProgramOracle, Snapshots
from quests_zenn.sampling.config import from_config
from quests_zenn.zenn import IDNN

pytestmark = pytest.mark.extra

ROWS = 40
SMALL: dict[str, Any] = {"k": 12, "bandwidth": 0.01}


def points(n: int = ROWS) -> np.ndarray:
    return np.random.default_rng(5).uniform(-0.9, 0.9, (n, 2))


def pool(folder: Path, x: np.ndarray, which: Any, **more: Any) -> PoolOracle:
    """Rows whose frames are one of a few crystals each; -1 for none."""
    folder.mkdir(exist_ok=True)
    for number in set(which) - {-1}:
        path = folder / f"{number}.xyz"
        if not path.exists():
            frames(path, 3.5 + 0.15 * number)
    named = [None if number < 0 else folder / f"{number}.xyz" for number in which]
    return PoolOracle(x, potentials(x, np.full(len(x), 300.0)), snapshots=named, **more)


def kinds() -> list[int]:
    """Most rows are the same crystal; three others are rarer, and some rows have no frames."""
    return [i % 4 if i % 3 == 0 else -1 if i % 7 == 0 else 0 for i in range(ROWS)]


def scored(folder: Path | None, crystals: Path, **more: Any) -> ActiveLearning:
    settings = more.pop("settings", {"weights": "density", "novelty": True})
    oracle = more.pop("oracle", None) or pool(crystals, points(), kinds())
    return learning(folder, oracle, scores=Snapshots(**SMALL, **settings), recency=0.9, **more)


def table(path: Path) -> dict[str, np.ndarray]:
    lines = [line.split(",") for line in path.read_text(encoding="utf-8").splitlines()]
    return {name: np.array([float(line[i]) for line in lines[1:]]) for i, name in enumerate(lines[0])}


@pytest.fixture(scope="module")
def crystals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("crystals")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, crystals: Path) -> Path:
    folder = tmp_path_factory.mktemp("scores") / "run"
    scored(folder, crystals).run()
    return folder


# --- scores and weights -----------------------------------------------------------------------------------------------


def test_every_round_keeps_scores_of_all_points_so_far(undisturbed: Path, crystals: Path) -> None:
    run = scored(undisturbed, crystals).run()
    which = np.array(kinds())[run.rows_.index]
    assert set(which) == {-1, 0, 1, 2, 3}  # else this tests nothing
    for number, n in enumerate((8, 12, 16)):
        found = table(undisturbed / "rounds" / f"{number:04d}" / "scores.csv")
        mine = which[:n]
        assert found["environments"].tolist() == [0 if kind < 0 else 4 for kind in mine]
        assert np.isnan(found["mean"][mine < 0]).all()
        assert (found["weight"][mine < 0] == 1.0).all()
        there = mine >= 0
        # these crystals do not know each other at all: each row's p is the number of rows of its crystal
        counts = np.array([(mine == kind).sum() for kind in mine])
        np.testing.assert_allclose(found["density"][there], -np.log(counts[there]), atol=1e-6)
        raw = 1.0 / counts[there]
        np.testing.assert_allclose(found["weight"][there], raw / raw.mean(), rtol=1e-6)
        alone = there & (counts == 1)
        assert (found["mean"][alone] > 1.0).all()
        assert (found["novel"][there & ~alone] == 0.0).all()
        told = json.loads((undisturbed / "rounds" / f"{number:04d}" / "metrics.json").read_text())["scores"]
        weight = found["weight"] * 0.9 ** (number - run.rows_.round[:n])
        assert told["n_scored"] == int(there.sum())
        assert told["effective_sample_size"] == pytest.approx(weight.sum() ** 2 / (weight**2).sum())
        assert told["mean_dh"] == pytest.approx(found["mean"][there].mean())
        assert told["max_dh"] == pytest.approx(found["max"][there].max())


def test_the_fit_sees_weights_of_scores_times_those_of_age(
    undisturbed: Path, crystals: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[np.ndarray] = []
    fit = IDNN.fit

    def spy(self: Any, *args: Any, **more: Any) -> Any:
        seen.append(more["sample_weight"])
        return fit(self, *args, **more)

    monkeypatch.setattr(IDNN, "fit", spy)
    run = scored(None, crystals).run()
    np.testing.assert_array_equal(run.rows_.index, scored(undisturbed, crystals).run().rows_.index)
    for number, weights in enumerate(seen):
        found = table(undisturbed / "rounds" / f"{number:04d}" / "scores.csv")["weight"]
        expected = found * 0.9 ** (number - run.rows_.round[: len(found)])
        np.testing.assert_allclose(weights, expected / expected.mean(), rtol=1e-12)
    assert len(np.unique(np.round(seen[-1], 6))) > 3


def test_scores_do_not_depend_on_threads_nor_on_a_folder(undisturbed: Path, crystals: Path) -> None:
    assert scored(None, crystals, n_jobs=2).run().rounds_ == scored(undisturbed, crystals).run().rounds_


SIMULATION = """
import csv, sys
((row,),) = [list(csv.DictReader(open(sys.argv[1])))]
a, b = float(row["eta_0"]), float(row["eta_1"])
size = 2.5 if a > 0.0 else 3.0
with open("md.xyz", "w") as out:
    for i in range(4):
        print(1, f'Lattice="{size} 0 0 0 {size} 0 0 0 {size}" pbc="T T T"', "Cu 0 0 0", sep="\\n", file=out)
with open(sys.argv[2], "w") as out:
    print("id,mu_0,mu_1,snapshots", file=out)
    print(row["id"], 0.4 * a * (a * a - 0.25), 0.1 * b, "md.xyz@:2" if b < 0.8 else "../md.xyz", sep=",", file=out)
"""


def test_points_of_a_program_come_with_frames(tmp_path: Path) -> None:
    (tmp_path / "simulation.py").write_text(SIMULATION)
    command = [sys.executable, "-S", str(tmp_path / "simulation.py"), "{input}", "{output}"]
    found = []
    for folder in (tmp_path / "run", None):
        scores = Snapshots(k=6, bandwidth=0.01, weights="density", clip=(0.0, 100.0))
        run = learning(folder, ProgramOracle(command, 2), scores=scores, stop=12, min_distance=0.01).run()
        found.append(run)
    one, two = found
    assert one.rounds_ == two.rounds_
    assert one.rows_.message == two.rows_.message
    high = one.rows_.asked[:, 1] >= 0.8
    assert high.any()
    assert one.rows_.good.all()
    for message, expected in zip(one.rows_.message, high, strict=True):
        assert ("lies outside of the folder of the point" in message) == expected
    table_ = table(tmp_path / "run" / "rounds" / "0001" / "scores.csv")
    assert table_["environments"].tolist() == np.where(high, 0, 2).tolist()
    side = np.where(high, -1, one.rows_.asked[:, 0] > 0.0)
    raw = np.array([0.0 if kind < 0 else 1.0 / (side == kind).sum() for kind in side])
    expected = np.where(high, 1.0, raw / raw[~high].mean())
    np.testing.assert_allclose(table_["weight"], expected, rtol=1e-9)


def test_uniform_weights_change_nothing(crystals: Path, tmp_path: Path) -> None:
    plain = learning(None, pool(crystals, points(), kinds())).run()
    told = learning(tmp_path / "run", pool(crystals, points(), kinds()), scores=Snapshots(**SMALL)).run()
    np.testing.assert_array_equal(plain.rows_.index, told.rows_.index)
    for one, two in zip(plain.rounds_, told.rounds_, strict=True):
        more = two.pop("scores")
        assert one == two
        assert more["effective_sample_size"] == one["n_known"]
    assert "environments" not in (tmp_path / "run" / "rounds" / "0000" / "points.csv").read_text()


def test_weights_of_novelty(crystals: Path, tmp_path: Path) -> None:
    settings = {"weights": "novelty", "clip": [0.5, 3.0]}
    run = scored(tmp_path / "run", crystals, settings=settings, stop=8).run()
    found = table(tmp_path / "run" / "rounds" / "0000" / "scores.csv")
    there = found["environments"] > 0
    assert (found["weight"][there & (found["novel"] == 0.0)] == 0.5).all()
    assert (found["weight"][there & (found["novel"] > 0.0)] > 1.0).all()
    assert found["weight"].mean() == pytest.approx(1.0)
    assert run.rounds_[0]["scores"]["weights"] == "novelty"


# --- novelty among environments ---------------------------------------------------------------------------------------


def test_what_is_novel_is_said_by_environments_not_by_order_parameters(crystals: Path) -> None:
    """Rows far from all that is known have known frames; rows near to it have new ones."""
    near, far = points(20) * 0.2, np.sign(points(20)) * 0.9 + 0.02 * points(20)
    x = np.concatenate([near, far])
    oracle = pool(crystals, x, [0] * 10 + [1, 2] * 5 + [0] * 20)
    run = scored(None, crystals, oracle=oracle, stop=10)
    run.rows_ = run._evaluated(0, 300.0, x[:10], ["random"] * 10)
    context = run._context(1, 300.0)
    assert len(context.x) == 30
    found = context.novelty_at(context.x)
    assert found is not None
    assert (found[:10] > 1.0).all()
    assert (found[10:] == 0.0).all()
    from quests_zenn.sampling.criteria import _novel

    kept = np.mean([_novel(context, context.x, np.random.default_rng(i)) for i in range(200)], axis=0)
    assert (kept[10:] == 0.0).all()
    assert (kept[:10] == 1.0).all()  # what is usual is that nothing is novel
    plain = learning(None, oracle, stop=10)
    plain.rows_ = plain._evaluated(0, 300.0, x[:10], ["random"] * 10)
    ours = plain._context(1, 300.0)
    distances = np.mean([_novel(ours, ours.x, np.random.default_rng(i)) for i in range(200)], axis=0)
    assert distances[10:].mean() > distances[:10].mean()


def test_the_filter_takes_other_distances() -> None:
    from quests_zenn.sampling.criteria import novelty

    x, old = np.array([[0.1], [0.2], [0.3], [5.0]]), np.array([[0.0], [1.0]])

    def kept(distance: Any, **more: Any) -> list[float]:
        draws = [novelty(x, old, rng=i, distance=distance, **more) for i in range(2000)]
        return np.round(np.mean(draws, axis=0), 1).tolist()

    # 3 w_0 for the first, w_0 = 1; NaN counts as the median of the others, infinity as the largest
    assert kept([3.0, 1.0, 0.0, 1.0]) == [0.8, 0.5, 0.0, 0.5]
    assert kept([3.0, 1.0, 1.0, np.nan]) == [0.8, 0.5, 0.5, 0.5]
    assert kept([3.0, 1.0, 1.0, np.inf]) == [0.6, 0.3, 0.3, 0.6]
    assert kept([3.0, 1.0, 0.0, 1.0], min_distance=0.15) == [0.0, 0.5, 0.0, 0.5]
    assert kept([np.nan] * 4) == kept(None)
    with pytest.raises(DataError, match="4 points, but distances of shape"):
        novelty(x, old, distance=[1.0])
    with pytest.raises(DataError, match="must not be negative"):
        novelty(x, old, distance=[-1.0, 0.0, 0.0, 0.0])


def test_distances_are_the_answer_where_no_frames_are_known(crystals: Path) -> None:
    x = points(20)
    oracle = pool(crystals, x, [-1] * 10 + [0] * 10)
    run = scored(None, crystals, oracle=oracle, stop=10)
    run.rows_ = run._evaluated(0, 300.0, x[:10], ["random"] * 10)
    found = run._context(1, 300.0).novelty_at(x[10:])
    assert found is not None
    assert np.isnan(found).all()


def test_novelty_needs_a_pool_with_snapshots(crystals: Path) -> None:
    empty = PoolOracle(points(), points(), snapshots=[None] * ROWS)
    for oracle in (FunctionOracle(potentials, 2), PoolOracle(points(), points()), empty):
        with pytest.raises(ValueError, match="novelty in dH needs a pool whose rows have snapshots"):
            scored(None, crystals, oracle=oracle)
    with pytest.raises(ValueError, match="needs the novelty filter"):
        scored(None, crystals, novelty=False)
    with pytest.raises(ValueError, match="scores must be Snapshots"):
        learning(scores={"k": 3})


# --- frames that cannot be read, or are not there ---------------------------------------------------------------------


def test_no_snapshots_at_all(tmp_path: Path) -> None:
    run = learning(tmp_path / "run", scores=Snapshots(**SMALL, weights="density"), stop=8)
    with pytest.warns(DataWarning, match="no point came with snapshots"):
        run.run()
    told = run.rounds_[0]["scores"]
    assert (told["n_scored"], told["mean_dh"], told["effective_sample_size"]) == (0, None, 8.0)
    assert not (tmp_path / "run" / "rounds" / "0000" / "environments").exists()
    again = learning(tmp_path / "run", scores=Snapshots(**SMALL, weights="density"), stop=8).run()  # warns no more
    assert again.rounds_ == run.rounds_


def test_a_file_that_cannot_be_read_costs_the_scores_of_its_point_only(tmp_path: Path) -> None:
    bad = tmp_path / "bad.xyz"
    bad.write_text("4\nnonsense\nCu 0 0\n")
    good = frames(tmp_path / "good.xyz", 3.6)
    x = points(8)
    oracle = PoolOracle(x, potentials(x, np.full(8, 300.0)), snapshots=[bad, *[good] * 7])
    run = learning(tmp_path / "run", oracle, scores=Snapshots(**SMALL, weights="density")).run()
    (row,) = np.flatnonzero(run.rows_.index == 0)
    assert run.rows_.good.all()
    assert run.rows_.message[row].startswith(f"point {row}: no scores: {bad}")
    assert run.rounds_[0]["n_failed"] == 0
    assert run.rounds_[0]["scores"]["n_scored"] == 7
    found = table(tmp_path / "run" / "rounds" / "0000" / "scores.csv")
    assert (found["weight"] == 1.0).all()
    again = learning(tmp_path / "run", oracle, scores=Snapshots(**SMALL, weights="density")).run()
    assert again.rows_.message == run.rows_.message


# --- going on ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("last", ["points.csv", "environments", "results.csv", "scores.csv", "model", "metrics.json"])
def test_a_run_goes_on_from_any_step(last: str, undisturbed: Path, crystals: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(undisturbed, folder)
    shutil.rmtree(folder / "rounds" / "0002")
    order = ["points.csv", "environments", "results.csv", "scores.csv", "model", "metrics.json"]
    for name in order[order.index(last) + 1 :]:
        path = folder / "rounds" / "0001" / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    scored(folder, crystals).run()
    assert files(folder) == files(undisturbed)


def test_environments_are_made_once(undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "run"
    shutil.copytree(undisturbed, folder)
    for name in ("metrics.json", "scores.csv"):
        (folder / "rounds" / "0002" / name).unlink()
    kept = undisturbed.parents[1] / "crystals_elsewhere"
    oracle = pool(kept, points(), kinds())
    shutil.rmtree(kept)  # frames may go when they were read
    scored(folder, tmp_path, oracle=oracle).run()
    assert files(folder) == files(undisturbed)


def test_environments_that_are_gone(undisturbed: Path, crystals: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(undisturbed, folder)
    next((folder / "rounds" / "0000" / "environments").iterdir()).unlink()
    assert len(scored(folder, crystals).run().rows_) == 16  # what is finished needs them no more
    with pytest.raises(DataError, match=r"\.npy: is missing"):
        scored(folder, crystals, stop=20).run()


def test_other_scores_are_another_run(undisturbed: Path, crystals: Path) -> None:
    with pytest.raises(DataError, match="is a run with another scores"):
        scored(undisturbed, crystals, settings={"weights": "novelty", "novelty": True}).run()
    with pytest.raises(DataError, match="is a run with another"):
        learning(undisturbed, pool(crystals, points(), kinds()), recency=0.9).run()


PROGRAM = """
import sys
from pathlib import Path
tests = Path({tests!r})
sys.path[:0] = [str(tests), str(tests.parent)]
from test_scores import scored
scored(Path(sys.argv[1]), Path({crystals!r})).run()
"""


@pytest.mark.slow
def test_a_run_that_is_killed_again_and_again(undisturbed: Path, crystals: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    program = textwrap.dedent(PROGRAM).format(tests=str(Path(__file__).parent), crystals=str(crystals))
    command = [sys.executable, "-c", program, str(folder)]
    for seconds in (3.0, 3.5, 4.0, 5.0):
        process = subprocess.Popen(command, start_new_session=True)
        time.sleep(seconds)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert subprocess.run(command, check=False).returncode == 0
    left = {name: content for name, content in files(folder).items() if ".part" not in name}
    assert left == files(undisturbed)


# --- pools of several temperatures ------------------------------------------------------------------------------------


def grid(temperatures: list[float], n: int = 12) -> PoolOracle:
    """The same places at each temperature."""
    x = np.tile(points(n), (len(temperatures), 1))
    T = np.repeat(temperatures, n)
    return PoolOracle(x, potentials(x, T) * (T[:, None] / 300.0), T=T)


def test_rows_of_a_pool_are_bought_at_their_own_temperature() -> None:
    run = learning(oracle=grid([300.0, 500.0]), initial=6, per_round=4, stop=100).run()
    oracle = grid([300.0, 500.0])
    np.testing.assert_array_equal(run.rows_.T, oracle.T[run.rows_.index])
    np.testing.assert_array_equal(run.rows_.mu, oracle.mu[run.rows_.index])
    assert [entry["temperature"] for entry in run.rounds_][:4] == [300.0, 500.0, 300.0, 500.0]
    # the same place is asked at both, and the last temperature is used up alone
    assert sorted(run.rows_.index.tolist()) == list(range(24))
    assert run.stopped_ == "the oracle has no points left"


def test_only_the_temperatures_that_are_asked_for() -> None:
    run = learning(oracle=grid([300.0, 500.0, 700.0]), temperature=500.0, stop=100).run()
    assert sorted(run.rows_.index.tolist()) == list(range(12, 24))
    with pytest.raises(DataError, match="the pool has no rows at 400 K; it has rows at 300, 500 K"):
        learning(oracle=grid([300.0, 500.0]), temperature=[300.0, 400.0])
    x = points(40)
    with pytest.raises(DataError, match="the pool has 40 temperatures"):
        learning(oracle=PoolOracle(x, x, T=300.0 + np.arange(40.0)))


def test_known_points_of_another_temperature_are_not_in_the_way() -> None:
    run = learning(temperature=[300.0, 500.0], stop=8)
    run.rows_ = run._evaluated(0, 300.0, points(8), ["random"] * 8)
    assert len(run._context(1, 500.0).old) == 0
    assert len(run._context(2, 300.0).old) == 8
    run.model_, run._weight = object(), np.arange(8.0) + 1.0
    behind = run._context(1, 500.0).behind  # the model has seen all of them
    assert (behind.x.shape, behind.T.tolist(), behind.mu.shape) == ((8, 2), [300.0] * 8, (8, 2))
    np.testing.assert_allclose(behind.weight, (np.arange(8) + 1.0) / 4.5)


# --- settings of contexts ---------------------------------------------------------------------------------------------


def test_settings_are_handed_on_to_criteria() -> None:
    run = learning(tolerance=0.01, surplus=2.0, plane=[0.1, -0.1], slices=[(1, 0)])
    context = run._context(0, 300.0)
    assert (context.tolerance, context.surplus, context.slices) == (0.01, 2.0, ((1, 0),))
    assert context.reservoir.tolist() == [0.1, -0.1]
    assert {"tolerance", "surplus", "plane", "slices"} <= set(run.about())
    assert not {"tolerance", "surplus", "plane", "slices", "scores"} & set(learning().about())


@pytest.mark.parametrize(
    ("setting", "value", "told"),
    [
        ("tolerance", np.nan, "tolerance must be finite"),
        ("surplus", 0.5, "surplus must be at least 1"),
        ("plane", [1.0], "plane must hold 2"),
        ("slices", [(0, 0)], "two axes of a slice must differ"),
        ("slices", [(0, 2)], "slices names component 2"),
    ],
)
def test_settings_that_make_no_sense(setting: str, value: Any, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        learning(**{setting: value})


# --- from a file ------------------------------------------------------------------------------------------------------

TOML = """
[run]
seed = 3
[domain]
kind = "box"
low = [-1.0, -1.0]
high = [1.0, 1.0]
names = ["a", "b"]
slices = [["b", "a"]]
plane = [0.0, 0.1]
scale = [1.0, 2.0]
[oracle]
kind = "pool"
file = "rows.csv"
T = "T"
[model]
hidden = [4]
n_members = 2
max_iterations = 4
adam_steps = 10
inputs = "inputs.json"
[budget]
initial = 8
per_round = 4
total = 12
surplus = 3
convex_tolerance = 0.001
[scores]
k = 12
cutoff = 5
bandwidth = 0.05
species = "none"
weights = "density"
novelty = true
clip = [0.2, 5]
"""


def written(folder: Path, text: str = TOML) -> Path:
    folder.mkdir(exist_ok=True)
    oracle = pool(folder, points(), kinds())
    lines = ["a,b,mu_0,mu_1,T,snapshots"]
    for x, mu, kind in zip(oracle.x, oracle.mu, kinds(), strict=True):
        name = f"{kind}.xyz" if kind >= 0 else ""
        lines.append(",".join([*map(repr, x.tolist()), *map(repr, mu.tolist()), "450", name]))
    (folder / "rows.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / "inputs.json").write_text('["x[:,0]", "x[:,1]", "x[:,0]**2"]', encoding="utf-8")
    (folder / "run.toml").write_text(text, encoding="utf-8")
    return folder / "run.toml"


def test_scores_from_a_file(tmp_path: Path) -> None:
    run = from_config(written(tmp_path / "here"), n_jobs=1)
    assert run.scores == Snapshots(k=12, cutoff=5, bandwidth=0.05, weights="density", novelty=True, clip=(0.2, 5.0))
    assert run.temperatures == (450.0,)  # of the pool
    assert (run.surplus, run.tolerance, run.slices) == (3.0, 0.001, [(1, 0)])
    assert run.lengths.tolist() == [1.0, 2.0]
    assert run.oracle.snapshots[0] == tmp_path / "here" / "0.xyz"  # type: ignore[attr-defined]
    run.run()
    assert run.rounds_[1]["scores"]["n_scored"] > 4
    out, err = commands.run("active", str(tmp_path / "here" / "run.toml"), "--report", "--json", str(tmp_path / "j"))
    told = run.rounds_[-1]["scores"]
    assert f"scores: {told['n_scored']} points with snapshots, largest dH " in out
    assert f"weights density, effective sample size {told['effective_sample_size']:.1f} of 12" in out
    assert err == ""
    assert json.loads((tmp_path / "j").read_text())["rounds"][-1]["scores"] == told
    # all of it may be moved
    (tmp_path / "here").rename(tmp_path / "there")
    again = from_config(tmp_path / "there" / "run.toml", n_jobs=1).run()
    assert again.rounds_ == run.rounds_


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("k = 12", "neighbours = 12", r"\[scores\] has no key 'neighbours'"),
        ("bandwidth =", "bandwith =", r"\[scores\] has no key 'bandwith' .did you mean 'bandwidth'"),
        ("k = 12", "k = 1.5", "k of .scores. must be of type int"),
        ("novelty = true", 'novelty = "yes"', "novelty of .scores. must be of type bool"),
        ('weights = "density"', 'weights = "dense"', r"\[scores\]: weights must be one of"),
        ("clip = [0.2, 5]", "clip = [0.2]", r"\[scores\]: clip must be two numbers"),
        ('species = "none"', 'species = "pairs"', r"\[scores\]: species 'pairs' needs elements"),
        ("[scores]", "[score]", r"unknown table \[score\] .did you mean 'scores'"),
        ('slices = [["b", "a"]]', 'slices = [["b", "c"]]', "slices of .domain. names 'c'"),
        ('slices = [["b", "a"]]', "slices = [0]", "slices of .domain. must be pairs"),
        ("plane = [0.0, 0.1]", "plane = [0.0]", "plane must hold 2"),
        ("[run]", "[run]\ntemperature = 300", "the pool has no rows at 300 K; it has rows at 450 K"),
        ('T = "T"', 'T = "T"\nsnapshots = "frames"', "has no column 'frames'"),
    ],
)
def test_what_a_file_may_not_say(old: str, new: str, told: str, tmp_path: Path) -> None:
    assert old in TOML
    with pytest.raises(DataError, match=told) as error:
        from_config(written(tmp_path / "here", TOML.replace(old, new)))
    assert "\n" not in str(error.value)
    assert not (tmp_path / "here" / "run").exists()


def test_a_run_of_a_program_may_be_moved(tmp_path: Path) -> None:
    examples = Path(__file__).resolve().parents[2] / "examples"
    prints = []
    for name in ("one", "two"):
        folder = tmp_path / name
        folder.mkdir()
        for file in ("wells.toml", "wells_oracle.py"):
            shutil.copy(examples / file, folder)
        oracle = from_config(folder / "wells.toml").oracle
        assert oracle.command[1] == str(folder / "wells_oracle.py")  # type: ignore[attr-defined]
        prints.append(oracle.fingerprint())
    assert prints[0] == prints[1]


@pytest.mark.filterwarnings("ignore:Set OLD_ERROR_HANDLING:DeprecationWarning")
def test_a_cluster_expansion_from_a_file(tmp_path: Path) -> None:
    icet = pytest.importorskip("icet")
    from ase.build import bulk

    from quests_zenn.sampling import IcetOracle

    space = icet.ClusterSpace(bulk("Au"), cutoffs=[3.0], chemical_symbols=["Ag", "Au"])
    IcetOracle(icet.ClusterExpansion(space, [0.0, 0.0, 0.0]), (3, 3, 3), ["Au"]).save(tmp_path / "ce.json")
    text = """
[domain]
kind = "box"
low = [0.05]
high = [0.95]
names = ["c_Au"]
[oracle]
kind = "icet"
file = "ce.json"
supercell = [3, 3, 3]
species = ["Au"]
sweeps = 50
phi = 2.0
"""
    (tmp_path / "run.toml").write_text(text)
    oracle = from_config(tmp_path / "run.toml").oracle
    assert isinstance(oracle, IcetOracle)
    assert (oracle.sites, oracle.sweeps, oracle.phi, oracle.retries) == (27, 50, 2.0, 1)
    assert oracle.evaluate([[0.4]], 900.0, seeds=[1], jobs=1).ok.all()
    from ase.io import write

    write(tmp_path / "cell.xyz", bulk("Au").repeat(2))
    (tmp_path / "run.toml").write_text(text.replace("[3, 3, 3]", '"cell.xyz"'))
    assert from_config(tmp_path / "run.toml").oracle.sites == 8  # type: ignore[attr-defined]
    for old, new, told in (
        ("sweeps = 50", "sweep = 50", r"\[oracle\] has no key 'sweep' .did you mean 'sweeps'"),
        ("[3, 3, 3]", "[3, 3]", r"\[oracle\]: supercell must be"),
        ("[3, 3, 3]", '"none.xyz"', "supercell of .oracle.: .*no such file"),
        ("phi = 2.0", "phi = -2.0", r"\[oracle\]: phi must be positive"),
        ('"ce.json"', '"ce.ce"', "names .*ce.ce, which is no file"),
    ):
        (tmp_path / "run.toml").write_text(text.replace(old, new))
        with pytest.raises(DataError, match=told):
            from_config(tmp_path / "run.toml")
