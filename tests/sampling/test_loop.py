"""The loop: what is asked, what is kept, and that a run which was killed ends as one that was not."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")

from quests_zenn._core.checks import DataError  # noqa: E402
from quests_zenn.sampling import ActiveLearning, Polytope  # noqa: E402
from quests_zenn.sampling.loop import Row, Stop, _usual_where_unknown, errors_over_points  # noqa: E402
from quests_zenn.sampling.oracles import FunctionOracle, PoolOracle  # noqa: E402
from quests_zenn.zenn import IDNN  # noqa: E402

pytestmark = pytest.mark.extra

Array = npt.NDArray[np.float64]


def potentials(x: Array, T: Array) -> Array:
    """Of g = 0.1 (x0^2 - 1/4)^2 + 0.05 x1^2: two wells."""
    return np.stack([0.4 * x[:, 0] * (x[:, 0] ** 2 - 0.25), 0.1 * x[:, 1]], axis=1)


BOX = {"low": [-1.0, -1.0], "high": [1.0, 1.0]}
MODEL: dict[str, Any] = {"hidden": (4,), "n_members": 2, "n_starts": 2, "adam_steps": 20, "max_iterations": 6}
BRIEF: dict[str, Any] = {
    "initial": 8, "per_round": 4, "stop": 16, "n_candidates": 64, "random_state": 3, "n_jobs": 1,
}  # fmt: skip


def learning(folder: Path | None = None, oracle: Any = None, **more: Any) -> ActiveLearning:
    """A run of a few seconds."""
    asked = FunctionOracle(potentials, 2, noise=1e-4) if oracle is None else oracle
    settings = {"model": IDNN(verbose=False, **MODEL), **BRIEF, **more}
    return ActiveLearning(Polytope.box(**BOX), asked, folder=folder, **settings)


def files(folder: Path) -> dict[str, bytes]:
    """All that a run is, apart from its lock and how long its fits took."""
    return {
        path.relative_to(folder).as_posix(): re.sub(rb'"seconds": [-+.e0-9]+', b"", path.read_bytes())
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("active") / "run"
    learning(folder).run()
    return folder


# --- a run ------------------------------------------------------------------------------------------------------------


def test_a_run_buys_its_budget_inside_of_the_domain(undisturbed: Path) -> None:
    run = learning(undisturbed).run()
    assert len(run.rows_) == 16
    assert run.stopped_ == "the budget of 16 points is spent"
    assert [entry["n_points"] for entry in run.rounds_] == [8, 12, 16]
    assert run.domain.contains(run.rows_.asked, tolerance=0.0).all()
    np.testing.assert_array_equal(run.rows_.x, run.rows_.asked)  # a function answers where it is asked
    np.testing.assert_allclose(run.rows_.mu, potentials(run.rows_.x, run.rows_.T), atol=1e-3)


def test_every_round_says_who_proposed_its_points(undisturbed: Path) -> None:
    for number, count in enumerate((8, 4, 4)):
        folder = undisturbed / "rounds" / f"{number:04d}"
        lines = (folder / "points.csv").read_text(encoding="utf-8").splitlines()
        assert lines[0] == "id,criterion,x_eta_0,x_eta_1" or lines[0].startswith("id,criterion,")
        assert len(lines) == count + 1
        entry = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
        assert sum(found["points"] for found in entry["by_criterion"].values()) == count
        assert (folder / "model" / "model.safetensors").exists()


def test_without_a_folder_the_same_points_are_bought(undisturbed: Path) -> None:
    one, two = learning(undisturbed).run(), learning().run()
    np.testing.assert_array_equal(one.rows_.x, two.rows_.x)
    np.testing.assert_array_equal(one.rows_.mu, two.rows_.mu)
    assert one.rounds_ == two.rounds_


def test_results_do_not_depend_on_the_number_of_threads(undisturbed: Path) -> None:
    run = learning(n_jobs=2).run()
    assert run.rounds_ == learning(undisturbed).run().rounds_


def test_another_seed_is_another_run(undisturbed: Path) -> None:
    run = learning(random_state=4, stop=8).run()
    assert not np.array_equal(run.rows_.x, learning(undisturbed).run().rows_.x[:8])


def test_errors_over_points() -> None:
    run = learning(test=([[0.1, 0.1], [0.5, -0.5]], 300.0, potentials(np.array([[0.1, 0.1], [0.5, -0.5]]), None))).run()
    found = errors_over_points(run.rounds_)
    assert found["points"] == [8, 12, 16]
    assert all(np.isfinite(found["median"]))
    assert errors_over_points(run.rounds_, "new")["points"] == [12, 16]


def test_temperatures_take_turns() -> None:
    run = learning(temperature=[300.0, 500.0], stop=14, per_round=3).run()
    assert run.rows_.T.tolist() == [300.0] * 8 + [500.0] * 3 + [300.0] * 3


def test_a_tolerance_ends_a_run_early() -> None:
    run = learning(stop=Stop(1000, tolerance=1e6, patience=2)).run()
    assert [entry["round"] for entry in run.rounds_] == [0, 1, 2]
    assert "within 1e+06" in run.stopped_


def test_a_search_in_a_round_changes_the_form_of_the_model(tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    more: dict[str, Any] = {"tune_at": [1], "tune_trials": 2, "tune_space": {"hidden": [(3,)]}}
    run = learning(tmp_path / "run", **more).run()
    assert run.model_.hidden == (3,)
    assert IDNN.load(tmp_path / "run" / "rounds" / "0000" / "model").hidden == (4,)
    found = json.loads((tmp_path / "run" / "rounds" / "0001" / "settings.json").read_text(encoding="utf-8"))
    assert found == {"hidden": [3]}
    import shutil

    before = files(tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "rounds" / "0002")
    learning(tmp_path / "run", **more).run()
    assert files(tmp_path / "run") == before


# --- going on ---------------------------------------------------------------------------------------------------------


def test_a_finished_run_ends_at_once(undisturbed: Path) -> None:
    before = files(undisturbed)
    seen: list[tuple[int, bool]] = []
    learning(undisturbed, after_round=lambda run, number, new: seen.append((number, new))).run()
    assert files(undisturbed) == before
    assert seen == [(0, False), (1, False), (2, False)]


@pytest.mark.parametrize("last", ["points.csv", "results.csv", "model", "metrics.json"])
def test_a_run_goes_on_from_any_step(last: str, undisturbed: Path, tmp_path: Path) -> None:
    """All that came after `last` of the second round is taken away."""
    import shutil

    folder = tmp_path / "run"
    shutil.copytree(undisturbed, folder)
    shutil.rmtree(folder / "rounds" / "0002")
    order = ["points.csv", "results.csv", "model", "metrics.json"]
    for name in order[order.index(last) + 1 :]:
        path = folder / "rounds" / "0001" / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    learning(folder).run()
    assert files(folder) == files(undisturbed)


def test_a_larger_budget_goes_on(undisturbed: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    learning(folder, stop=12).run()
    learning(folder).run()
    assert files(folder) == files(undisturbed)


PROGRAM = """
import sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from test_loop import learning
learning(Path(sys.argv[1])).run()
"""


@pytest.mark.slow
def test_a_run_that_is_killed_again_and_again_ends_as_one_that_is_not(undisturbed: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    program = textwrap.dedent(PROGRAM).format(tests=str(Path(__file__).parent))
    command = [sys.executable, "-c", program, str(folder)]
    for seconds in (2.0, 2.5, 3.0, 3.5, 4.0, 5.0):
        process = subprocess.Popen(command, start_new_session=True)
        time.sleep(seconds)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert subprocess.run(command, check=False).returncode == 0
    left = {name: content for name, content in files(folder).items() if ".part" not in name}
    assert left == files(undisturbed)


# --- points that fail -------------------------------------------------------------------------------------------------


def test_a_point_that_fails_is_lost_alone() -> None:
    def sometimes(x: Array, T: Array) -> Array:
        found = potentials(x, T)
        found[x[:, 0] > 0.5] = np.nan
        return found

    run = learning(oracle=FunctionOracle(sometimes, 2)).run()
    bad = run.rows_.asked[:, 0] > 0.5
    assert bad.any()
    assert (run.rows_.good == ~bad).all()
    assert all(bool(message) == failed for message, failed in zip(run.rows_.message, bad, strict=True))
    assert run.rounds_[-1]["n_known"] == int((~bad).sum())


def test_an_oracle_that_answers_nothing() -> None:
    run = learning(oracle=FunctionOracle(lambda x, T: np.full(x.shape, np.nan), 2))
    with pytest.raises(DataError, match="round 0: none of 8 points was answered"):
        run.run()


def test_what_nobody_answered_is_asked_again(tmp_path: Path) -> None:
    """An oracle that is mended, or another one: nothing was found that could be lost."""
    dumb = FunctionOracle(lambda x, T: np.full(x.shape, np.nan), 2)
    with pytest.raises(DataError, match="the same command asks again"):
        learning(oracle=dumb, folder=tmp_path / "run").run()
    assert not (tmp_path / "run" / "rounds" / "0000" / "results.csv").exists()
    run = learning(folder=tmp_path / "run").run()
    assert run.rows_.good.all()
    with pytest.raises(DataError, match="is a run with another oracle"):
        learning(oracle=dumb, folder=tmp_path / "run").run()


def test_a_run_ends_where_no_point_is_new() -> None:
    """Four places, each measured three times."""
    x = np.tile([[0.3, 0.3], [-0.3, 0.1], [0.5, 0.1], [-0.2, -0.6]], (3, 1))
    run = learning(oracle=PoolOracle(x, potentials(x, np.full(12, 300.0))), initial=4, per_round=2).run()
    assert len(run.rows_) == 4
    assert run.stopped_ == "no new point is at least 0.001 from all known ones"


def test_fixed_shares_below_a_point_are_carried_over() -> None:
    shares = {"random": 5.0, "vertices": 1.0}
    run = learning(criteria=shares, dynamic=False, novelty=False, initial=4, per_round=2, stop=16)
    run.run()
    bought = [entry["budget"] for entry in run.rounds_[1:]]
    assert sum(entry.get("vertices", 0) for entry in bought) == 2
    assert sum(entry.get("random", 0) for entry in bought) == 10


def test_a_pool_is_used_up_and_no_row_twice() -> None:
    x = np.random.default_rng(0).uniform(-0.9, 0.9, (14, 2))
    run = learning(oracle=PoolOracle(x, potentials(x, np.full(14, 300.0)))).run()
    assert len(run.rows_) == 14
    assert sorted(run.rows_.index.tolist()) == list(range(14))
    assert run.stopped_ == "the oracle has no points left"


# --- what is refused --------------------------------------------------------------------------------------------------


def test_another_run_in_the_folder(undisturbed: Path) -> None:
    with pytest.raises(DataError, match="is a run with another random_state"):
        learning(undisturbed, random_state=5).run()
    run = learning(undisturbed)
    run.model = IDNN(hidden=(5,))
    with pytest.raises(DataError, match="another model"):
        run.run()


def test_a_folder_of_other_things(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work", encoding="utf-8")
    with pytest.raises(DataError, match="holds other things than a run"):
        learning(tmp_path).run()
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("name", ["points.csv", "results.csv"])
def test_a_damaged_file(name: str, undisturbed: Path, tmp_path: Path) -> None:
    import shutil

    folder = tmp_path / "run"
    shutil.copytree(undisturbed, folder)
    path = folder / "rounds" / "0001" / name
    text = path.read_text(encoding="utf-8")
    path.write_text(text[: len(text) // 2].rsplit(",", 2)[0], encoding="utf-8")
    with pytest.raises(DataError, match=r"damaged|has . rows for"):
        learning(folder).run()


def test_only_one_process_at_a_time(tmp_path: Path) -> None:
    fcntl = pytest.importorskip("fcntl")
    folder = tmp_path / "run"
    learning(folder, stop=8).run()
    with open(folder / ".lock", "a", encoding="utf-8") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        with pytest.raises(DataError, match="another process"):
            learning(folder).run()


def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fcntl = pytest.importorskip("fcntl")

    def refuse(stream: Any, how: int) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", refuse)
    assert learning(tmp_path / "run", stop=8).run().rounds_


@pytest.mark.parametrize(
    ("setting", "value", "told"),
    [
        ("initial", 0, "initial"),
        ("per_round", 1.5, "per_round"),
        ("recency", 0.0, "recency"),
        ("recency", 1.1, "recency"),
        ("min_distance", -1.0, "min_distance"),
        ("temperature", -3.0, "temperature"),
        ("temperature", [], "temperature"),
        ("scale", [1.0], "scale"),
        ("stop", 0, "total"),
        ("criteria", {"space-filing": 1.0}, "space-filling"),
        ("n_jobs", 0, "jobs"),
    ],
)
def test_settings_that_make_no_sense(setting: str, value: Any, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        learning(**{setting: value})


def test_dimensions_that_do_not_fit() -> None:
    with pytest.raises(DataError, match="2 order parameters and the oracle answers 3"):
        learning(oracle=FunctionOracle(lambda x, T: x, 3))


def test_no_rows() -> None:
    assert len(Row.none(3)) == 0
    assert Row.none(3).good.shape == (0,)


def test_errors_that_nobody_told_are_the_usual_ones() -> None:
    error = np.array([[0.1, np.nan], [np.nan, 0.5], [0.3, 0.0], [0.2, 0.7]])
    found = _usual_where_unknown(error)
    assert found is not None
    np.testing.assert_allclose(found, [[0.1, 0.6], [0.2, 0.5], [0.3, 0.6], [0.2, 0.7]])
    assert _usual_where_unknown(np.array([[0.1, np.nan], [0.2, np.nan]])) is None
    assert _usual_where_unknown(np.zeros((2, 1))) is None


def test_guesses_stay_near_what_was_measured() -> None:
    """A model that is absurd far from data must not lead a bias there."""

    class Absurd:
        def derivatives(self, x: Any, T: Any, orders: Any, members: bool = False) -> Any:
            return {order: np.full(len(x), 1e6 * (-1) ** order[0]) for order in orders}

    run = ActiveLearning(Polytope.box([0.0, 0.0], [1.0, 1.0]), FunctionOracle(lambda x, T: x, 2), IDNN(verbose=False))
    x, mu = np.array([[0.1, 0.2], [0.3, 0.4]]), np.array([[1.0, 0.0], [2.0, 5.0]])
    run.rows_ = replace(Row.none(2), x=x, T=np.full(2, 300.0), mu=mu, F=np.full(2, np.nan))
    run.model_ = Absurd()
    np.testing.assert_allclose(run._guessed(np.zeros((1, 2)), 300.0), [[0.0, 10.0]])


# --- damaged folders, and what a run must not die of ------------------------------------------------------------------


@pytest.fixture
def done(tmp_path: Path) -> Path:
    """A folder of a run with three rounds."""
    learning(folder=tmp_path / "run", stop=14).run()
    assert (tmp_path / "run" / "rounds" / "0002" / "metrics.json").exists()
    return tmp_path / "run"


@pytest.mark.parametrize("content", ["", "{}", "[]", "\x00", '{"round": 1}', '{"round": 1, "by_criterion": []}'])
@pytest.mark.parametrize("number", [0, 2])
def test_metrics_that_are_damaged(content: str, number: int, done: Path) -> None:
    path = done / "rounds" / f"{number:04d}" / "metrics.json"
    whole = path.read_bytes()
    path.write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=r"metrics\.json: is damaged; delete it, and the same command makes it again"):
        learning(folder=done, stop=14).run()
    path.unlink()
    learning(folder=done, stop=14).run()
    assert path.read_bytes() == whole


@pytest.mark.parametrize(
    ("name", "old", "new", "told"),
    [
        ("results.csv", "mu_a", "mu_z", "it has no column"),
        ("results.csv", "300.0,", "300.0,x", "could not convert"),
        ("points.csv", ",space-filling,", ",space-filling,x", "could not convert"),
        ("points.csv", ",space-filling,", ",", "rows are not as long"),
    ],
)
def test_tables_that_are_damaged(name: str, old: str, new: str, told: str, done: Path) -> None:
    path = done / "rounds" / "0000" / name
    text = path.read_text(encoding="utf-8")
    old, new = (part.replace("mu_a", f"mu_{learning().names[0]}") for part in (old, new))
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(DataError, match=rf"0000.{name}: is damaged \({told}.*put back the file"):
        learning(folder=done, stop=14).run()


@pytest.mark.parametrize("name", ["points.csv", "results.csv", "model"])
def test_a_report_makes_nothing(name: str, done: Path) -> None:
    """What is missing is told; nothing is asked, trained or written."""
    path = done / "rounds" / "0001" / name
    path.rename(done.parent / "away")
    before = sorted(str(entry) for entry in done.rglob("*"))
    with pytest.raises(DataError, match=rf"0001.{name}: is damaged \(it is missing\)"):
        learning(folder=done, stop=14).restore()
    assert sorted(str(entry) for entry in done.rglob("*")) == before
    (done.parent / "away").rename(path)
    assert len(learning(folder=done, stop=14).restore().rounds_) == 3


def test_what_a_kill_left_of_a_file_is_no_other_thing(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".2e463e2948c7.part.json").write_text("{", encoding="utf-8")
    assert learning(folder=tmp_path / "run", stop=8).run().rows_.good.all()


def test_too_few_answers_for_a_model_are_no_end() -> None:
    """Three known points are too few for a fit: the next round fills space again."""
    calls: list[int] = []

    def first_fails(x: Array, T: Array) -> Array:
        found = potentials(x, T)
        if not calls:
            found[1:] = np.nan
        calls.append(len(x))
        return found

    run = learning(oracle=FunctionOracle(first_fails, 2), initial=4, per_round=4, stop=12).run()
    assert run.rounds_[0]["n_known"] == 1
    assert run.rounds_[0]["train"] is None
    assert set(run.rounds_[1]["by_criterion"]) == {"space-filling"}
    assert run.model_ is not None
    assert len(run.rounds_) == 3


def test_a_pool_outside_of_the_domain() -> None:
    x = 10.0 + np.arange(10.0).reshape(5, 2)
    with pytest.raises(DataError, match="no point of the domain can be asked: no row of the pool lies in it"):
        learning(oracle=PoolOracle(x, x)).run()


def test_a_single_model_has_no_committee() -> None:
    single = IDNN(n_members=1, verbose=False)
    with pytest.raises(ValueError, match="'committee' needs a model of two members or more"):
        learning(model=single, criteria={"committee": 1.0, "random": 1.0})
    assert "committee" not in (learning(model=single, criteria=None).criteria or {})


def test_a_constant_component_has_no_spread() -> None:
    """Its standard deviation is that of rounding; errors are not counted in it."""

    def level(x: Array, T: Array) -> Array:
        return np.stack([x[:, 0], np.full(len(x), 0.3)], axis=1)

    run = learning(oracle=FunctionOracle(level, 2)).run()
    assert run._spread()[1] == 1.0
    assert all(entry["new"]["median"] < 10.0 for entry in run.rounds_[1:])


def test_an_infinite_error_tells_nothing() -> None:
    x = Polytope.box([-1.0, -1.0], [1.0, 1.0]).sample(30, method="sobol", rng=0)
    mu = potentials(x, np.full(30, 300.0))
    error = np.full((30, 2), 0.01)
    wrong, worth = mu.copy(), error.copy()
    wrong[3], worth[3] = 1e3, np.inf
    run = learning(stop=30)
    found = []
    for values, errors in ((mu, error), (wrong, worth)):
        run.rows_ = replace(
            Row.none(2), x=x, T=np.full(30, 300.0), mu=values, mu_error=errors, F=np.full(30, np.nan),
            round=np.zeros(30, np.int64),
        )  # fmt: skip
        run.model_ = None
        found.append(run._trained(0, np.ones(30)).chemical_potential(x[10:12], 300.0))
    np.testing.assert_allclose(found[1], found[0], atol=0.1)
