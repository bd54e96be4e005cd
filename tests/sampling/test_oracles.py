"""Oracles: each answers what it should, and loses only the points that fail."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from quests_zenn._core.checks import DataError
from quests_zenn.sampling._program import another_seed, read_answers
from quests_zenn.sampling._results import Oracle, Result
from quests_zenn.sampling.oracles import FunctionOracle, MonteCarloOracle, PoolOracle, ProgramOracle

ROOT = Path(__file__).resolve().parents[2]


def same(one: Result, other: Result) -> None:
    """Equal to the last bit."""
    for name in ("x", "T", "mu", "mu_error", "F", "index"):
        a, b = getattr(one, name), getattr(other, name)
        assert (a is None) == (b is None), name
        if a is not None:
            np.testing.assert_array_equal(a, b, err_msg=name)
    assert one.message == other.message


def lost(result: Result) -> list[int]:
    """Rows without an answer: NaN, and with a message; all others have neither."""
    for row, good in enumerate(result.ok):
        assert bool(result.message[row]) != good
        if not good:
            assert np.isnan(result.x[row]).all()
            assert np.isnan(result.mu[row]).all()
    return np.flatnonzero(~result.ok).tolist()


# (a) pool -------------------------------------------------------------------------------------------------------------


def pool(**options) -> PoolOracle:
    x = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 100.0], [1.0, 100.0]])
    return PoolOracle(x, 10.0 * x + 1.0, **options)


def test_the_pool_answers_with_the_nearest_row_in_units_of_its_spread():
    result = pool().evaluate([[0.6, 20.0]], 300.0, seeds=[0])
    assert result.index.tolist() == [1]
    np.testing.assert_array_equal(result.x, [[1.0, 0.0]])
    np.testing.assert_array_equal(result.mu, [[11.0, 1.0]])
    assert result.message == [""]
    assert result.mu_error is None
    assert result.F is None


def test_the_spread_decides():
    x = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 100.0]])
    oracle = PoolOracle(x, x)
    # both spreads are sqrt(2)/3 of the extent: (0.45, 60) is nearest to row 2, (0.9, 40) to row 1
    assert oracle.evaluate([[0.9, 40.0]], 300.0, seeds=[0]).index.tolist() == [1]
    assert oracle.evaluate([[0.45, 60.0]], 300.0, seeds=[0]).index.tolist() == [2]
    # of (0.9, 52) row 2 is nearer in raw numbers, row 1 in units of the spread
    assert oracle.evaluate([[0.9, 52.0]], 300.0, seeds=[0]).index.tolist() == [1]
    assert np.argmin(np.linalg.norm(x - [0.9, 52.0], axis=1)) == 2
    rng = np.random.default_rng(0)
    for point in rng.uniform([0, 0], [1, 100], (50, 2)):
        expected = np.argmin(np.linalg.norm((x - point) / x.std(axis=0), axis=1))
        assert oracle.evaluate(point[None], 300.0, seeds=[0]).index[0] == expected


def test_no_row_answers_twice_and_the_last_points_fail_in_words():
    oracle = pool(F=[0.0, 1.0, 2.0, np.nan], mu_error=np.full((4, 2), 0.5))
    points = np.zeros((5, 2))
    result = oracle.evaluate(points, 300.0, seeds=range(5))
    assert result.index.tolist() == [0, 1, 2, 3, -1]  # rows 1 and 2 are equally near: the first one comes first
    assert lost(result) == [4]
    assert "all 4 rows of the pool are taken" in result.message[4]
    assert result.message[4].startswith("point 4 (eta_0 = 0, eta_1 = 0, T = 300): ")
    np.testing.assert_array_equal(result.F, [0.0, 1.0, 2.0, np.nan, np.nan])
    np.testing.assert_array_equal(result.mu_error[:4], 0.5)
    assert np.isnan(result.mu_error[4]).all()
    later = oracle.evaluate(points[:2], 300.0, seeds=[0, 1], used=np.array([0, 2]))
    assert later.index.tolist() == [1, 3]
    assert oracle.evaluate(points[:1], 300.0, seeds=[0]).index.tolist() == [0]  # nothing is remembered


def test_several_temperatures_are_one_more_coordinate():
    x = np.array([[0.5], [0.5], [0.52], [0.9]])
    oracle = PoolOracle(x, x, T=[300.0, 900.0, 900.0, 900.0])
    result = oracle.evaluate([[0.5], [0.5]], [880.0, 880.0], seeds=[0, 1])
    assert result.index.tolist() == [1, 2]
    assert result.T.tolist() == [900.0, 900.0]


def test_the_pool_gives_candidates_that_are_a_copy():
    oracle = pool()
    oracle.candidates()[:] = 7.0
    assert oracle.candidates().max() == 100.0


def test_a_pool_from_a_table(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("T,a,b,pa,pb,g\n300,0.1,0.2,1,2,5\n300,0.3,0.4,3,4,\n")
    oracle = PoolOracle.from_csv(path, x=["a", "b"], mu=["pa", "pb"], F="g")
    assert oracle.names == ("a", "b")
    assert oracle.q == 2
    result = oracle.evaluate([[0.3, 0.4]], 300.0, seeds=[0])
    assert (result.index.tolist(), result.mu.tolist()) == ([1], [[3.0, 4.0]])
    assert PoolOracle.from_csv(path, x=["a"], mu=["pa"], T=500.0).T.tolist() == [500.0, 500.0]
    with pytest.raises(DataError, match=r"has no column 'paa'; did you mean pa\?"):
        PoolOracle.from_csv(path, x=["a"], mu=["paa"])
    path.write_text("T,a,pa\n300,0.1,1\n300,,3\n")
    with pytest.raises(DataError, match=r"line 3: x has no number there"):
        PoolOracle.from_csv(path, x=["a"], mu=["pa"])


def test_the_pool_of_real_rows(data_dir):
    columns = {"x": [f"eta_{i}" for i in range(7)], "mu": [f"mu_{i}" for i in range(7)]}
    oracle = PoolOracle.from_csv(data_dir / "lco_mc.csv", **columns)
    assert len(oracle) == 1283
    asked = oracle.candidates()[[5, 900, 5]]
    result = oracle.evaluate(asked, 300.0, seeds=[0, 1, 2])
    assert result.index[:2].tolist() == [5, 900]
    assert result.index[2] not in (5, 900)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": np.zeros((0, 2))}, "at least one row"),
        ({"mu": np.zeros((4, 3))}, r"mu must have the shape of x, \(4, 2\), got \(4, 3\)"),
        ({"mu": np.array([[0, 0], [0, 0], [0, np.nan], [0, 0]])}, "mu must be finite, and row 2 of the pool is not"),
        ({"T": -1.0}, "T must be positive and finite, got"),
        ({"T": [300.0, 300.0]}, "T must be a number, or 4 of them"),
        ({"mu_error": -np.ones((4, 2))}, "mu_error must be finite and not negative"),
        ({"F": [0.0, np.inf, 0.0, 0.0]}, "F must be finite, and row 1"),
        ({"x": np.zeros((2, 2, 2))}, r"x must have the shape \(n, q\)"),
        ({"x": "what"}, "x must be an array of numbers"),
        ({"names": ["a"]}, "names must hold 2 names, got 1"),
        ({"names": ["a", "a"]}, "names must differ"),
        ({"names": ["a", "T"]}, "no order parameter may be called 'T'"),
        ({"names": ["a", "b c"]}, "names must be letters"),
    ],
)
def test_a_bad_pool_is_one_sentence(change, message):
    given = {"x": np.zeros((4, 2)), "mu": np.zeros((4, 2)), **change}
    with pytest.raises(ValueError, match=message) as caught:
        PoolOracle(**given)
    assert "\n" not in str(caught.value)


# what all of them are asked -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("points", "T", "options", "message"),
    [
        ([[0.0]], 300.0, {"seeds": [0]}, "points must have 2 order parameters each, got 1"),
        ([[0.0, np.nan]], 300.0, {"seeds": [0]}, "points must be finite, and point 0 is not"),
        ([[0.0, 0.0]], 0.0, {"seeds": [0]}, "T must be positive and finite"),
        ([[0.0, 0.0]], [1.0, 2.0], {"seeds": [0]}, "T must be a number, or 1 of them"),
        ([[0.0, 0.0]], 300.0, {"seeds": [0, 1]}, "seeds must be a list of 1 whole numbers"),
        ([[0.0, 0.0]], 300.0, {"seeds": [-1]}, "a seed must be a whole number of at least 0"),
        ([[0.0, 0.0]], 300.0, {"seeds": [0], "jobs": 0}, "jobs must be a whole number of at least 1"),
        ([[0.0, 0.0]], 300.0, {"seeds": [0], "used": [9]}, "used must hold numbers of rows from 0 to 3"),
    ],
)
def test_bad_questions_are_one_sentence(points, T, options, message):
    with pytest.raises(ValueError, match=message) as caught:
        pool().evaluate(points, T, **options)
    assert "\n" not in str(caught.value)


def test_no_points_are_no_answers():
    programs = ProgramOracle([sys.executable, "-c", "pass"], 2)
    for oracle in (pool(), FunctionOracle(lambda x, T: x, 2), programs):
        assert isinstance(oracle, Oracle)
        result = oracle.evaluate(np.empty((0, 2)), np.empty(0), seeds=[])
        assert (len(result), result.x.shape, result.message) == (0, (0, 2), [])


def test_fingerprints_tell_oracles_apart():
    def twice(x, T):
        return 2.0 * x

    def thrice(x, T):
        return 3.0 * x

    python = sys.executable
    mc = SimpleNamespace(run=print, fingerprint=lambda: "a")
    other = SimpleNamespace(run=print, fingerprint=lambda: "b")
    oracles = [
        pool(),
        pool(T=301.0),
        pool(names=["a", "b"]),
        pool(F=np.zeros(4)),
        PoolOracle([[0.0, 0.0]], [[0.0, 1e-12]]),
        FunctionOracle(twice, 1),
        FunctionOracle(thrice, 1),
        FunctionOracle(twice, 2),
        FunctionOracle(twice, 1, noise=0.1),
        FunctionOracle(twice, 1, label="this one"),
        ProgramOracle([python, "-c", "pass"], 1),
        ProgramOracle([python, "-c", "1"], 1),
        ProgramOracle([python, "-c", "pass"], 1, per="batch"),
        MonteCarloOracle(mc, 1.0, 100),
        MonteCarloOracle(other, 1.0, 100),
        MonteCarloOracle(mc, 2.0, 100),
        MonteCarloOracle(mc, 1.0, 101),
    ]
    prints = [oracle.fingerprint() for oracle in oracles]
    assert len(set(prints)) == len(prints)
    assert pool().fingerprint() == prints[0]
    # how long one waits and how often one tries does not make another oracle
    assert ProgramOracle([python, "-c", "pass"], 1, timeout=5.0, retries=3).fingerprint() == prints[10]


# (b) functions --------------------------------------------------------------------------------------------------------


def test_a_function_answers_mu_or_mu_and_F():
    result = FunctionOracle(lambda x, T: 2.0 * x, 2).evaluate([[1.0, 2.0], [3.0, 4.0]], 300.0, seeds=[0, 1])
    np.testing.assert_array_equal(result.mu, [[2.0, 4.0], [6.0, 8.0]])
    assert result.F is None
    assert result.mu_error is None
    both = FunctionOracle(lambda x, T: (2.0 * x, T + np.array([0.0, np.nan])), 1)
    result = both.evaluate([[1.0], [2.0]], 300.0, seeds=[0, 1])
    np.testing.assert_array_equal(result.F, [300.0, np.nan])
    assert lost(result) == []
    flat = FunctionOracle(lambda x, T: x[:, 0] ** 2, 1).evaluate([[3.0]], 300.0, seeds=[0])
    assert flat.mu.tolist() == [[9.0]]


def test_a_point_where_the_function_fails_is_lost_alone():
    calls = []

    def function(x, T):
        calls.append(len(x))
        if (x == 2.0).any():
            raise ArithmeticError("no\nway")
        return np.where(x == 3.0, np.nan, x)

    result = FunctionOracle(function, 1).evaluate([[1.0], [2.0], [3.0], [4.0]], 300.0, seeds=range(4))
    assert lost(result) == [1, 2]
    assert result.message[1] == "point 1 (eta_0 = 2, T = 300): the function raised ArithmeticError: no way"
    assert "returned NaN or infinity" in result.message[2]
    assert result.mu[[0, 3], 0].tolist() == [1.0, 4.0]
    assert calls == [4, 1, 1, 1, 1]


def test_a_function_of_the_wrong_shape_says_so():
    result = FunctionOracle(lambda x, T: np.zeros(3), 2).evaluate([[0.0, 0.0]], 300.0, seeds=[0])
    assert lost(result) == [0]
    assert "mu must have the shape (1, 2), got (3,)" in result.message[0]


def test_a_function_cannot_change_what_was_asked():
    def function(x, T):
        x[:] = 0.0
        T[:] = 0.0
        return x

    result = FunctionOracle(function, 1).evaluate([[1.0]], 300.0, seeds=[0])
    assert (result.x.tolist(), result.T.tolist()) == ([[1.0]], [300.0])


def test_noise_belongs_to_a_point_and_its_seed():
    oracle = FunctionOracle(lambda x, T: 0.0 * x, 2, noise=[0.1, 0.0])
    points = np.arange(6.0).reshape(3, 2)
    straight = oracle.evaluate(points, 300.0, seeds=[5, 6, 7])
    turned = oracle.evaluate(points[::-1], 300.0, seeds=[7, 6, 5])
    np.testing.assert_array_equal(straight.mu, turned.mu[::-1])
    assert len(set(straight.mu[:, 0].tolist())) == 3
    assert (straight.mu[:, 1] == 0.0).all()
    np.testing.assert_array_equal(straight.mu_error, np.tile([0.1, 0.0], (3, 1)))
    many = oracle.evaluate(np.zeros((4000, 2)), 300.0, seeds=range(4000)).mu[:, 0]
    assert abs(many.mean()) < 4.0 * 0.1 / np.sqrt(4000)
    assert many.std() == pytest.approx(0.1, rel=0.05)


def test_a_bad_function_is_one_sentence():
    with pytest.raises(ValueError, match="function must be something that can be called"):
        FunctionOracle(3, 1)
    with pytest.raises(ValueError, match="noise must be finite and not negative"):
        FunctionOracle(print, 1, noise=-1.0)
    with pytest.raises(ValueError, match="q must be a whole number of at least 1"):
        FunctionOracle(print, 0)


# (c) programs ---------------------------------------------------------------------------------------------------------

#: What test programs begin with: the points they are asked for, and a way to answer.
BEGIN = """
import csv, os, sys, time, signal, pathlib
rows = list(csv.DictReader(open(sys.argv[1])))
def answer(rows, extra=lambda row: {}):
    lines = []
    for row in rows:
        given = {"id": row["id"], "mu_0": repr(2.0 * float(row["eta_0"]) + float(row["T"]))}
        lines.append({**given, **extra(row)})
    with open(sys.argv[2], "w") as out:
        table = csv.DictWriter(out, list(lines[0]))
        table.writeheader()
        table.writerows(lines)
value = float(rows[0]["eta_0"])
"""


def program(tmp_path: Path, body: str, q: int = 1, **options) -> ProgramOracle:
    script = tmp_path / "program.py"
    script.write_text(BEGIN + body)
    given = {"retries": 0, "timeout": 30.0, **options}
    return ProgramOracle([sys.executable, "-S", str(script), "{input}", "{output}"], q, **given)


X = np.array([[0.0], [1.0], [2.0], [3.0]])


@pytest.mark.parametrize("per", ["point", "batch"])
def test_a_program_answers(tmp_path, per):
    oracle = program(tmp_path, "answer(rows)", per=per)
    result = oracle.evaluate(X + 0.1, [300.0, 400.0, 500.0, 600.0], seeds=range(4), jobs=2)
    assert lost(result) == []
    np.testing.assert_array_equal(result.mu[:, 0], 2.0 * (X[:, 0] + 0.1) + [300.0, 400.0, 500.0, 600.0])
    np.testing.assert_array_equal(result.x, X + 0.1)
    assert result.mu_error is None
    assert result.F is None
    assert oracle.candidates() is None


def test_a_program_says_where_it_was_how_sure_it_is_and_F(tmp_path):
    body = """
def extra(row):
    x = float(row["eta_0"])
    return {"x_0": x + 0.01, "mu_error_0": 0.5, "F": x**2 if x > 1 else "", "more": "text"}
answer(rows, extra)
"""
    result = program(tmp_path, body, per="batch").evaluate(X, 300.0, seeds=range(4))
    np.testing.assert_array_equal(result.x, X + 0.01)
    np.testing.assert_array_equal(result.mu_error, np.full((4, 1), 0.5))
    np.testing.assert_array_equal(result.F, [np.nan, np.nan, 4.0, 9.0])


def test_answers_may_come_in_any_order(tmp_path):
    late = "time.sleep(0.4 if value == 0.0 else 0.0)\nanswer(rows)"
    for oracle, jobs in [
        (program(tmp_path, "answer(rows[::-1])", per="batch"), 1),
        (program(tmp_path, late), 4),
    ]:
        result = oracle.evaluate(X, 300.0, seeds=range(4), jobs=jobs)
        np.testing.assert_array_equal(result.mu, 2.0 * X + 300.0)


FAILURES = {
    "status": (
        "print('all lost', file=sys.stderr); sys.exit(3)",
        'ended with status 3; its last words: "all lost"',
    ),
    "raises": ("raise RuntimeError('oh no')", 'its last words: "RuntimeError: oh no"'),
    "signal": ("os.kill(os.getpid(), signal.SIGSEGV)", "was ended by signal SIGSEGV"),
    "silent": ("sys.exit(0)", "wrote no results.csv"),
    "empty": ("open(sys.argv[2], 'w').close(); sys.exit(0)", "results.csv is empty"),
    "nan": ("answer(rows, lambda row: {'mu_0': 'nan'}); sys.exit(0)", "mu_0 is NaN"),
    "missing": ("answer(rows, lambda row: {'mu_0': ''}); sys.exit(0)", "mu_0 is NaN"),
    "infinite": ("answer(rows, lambda row: {'mu_0': '-inf'}); sys.exit(0)", "mu_0 is infinite"),
    "words": ("answer(rows, lambda row: {'mu_0': 'high'}); sys.exit(0)", "mu_0 must be a number, got 'high'"),
    "stranger": ("answer(rows, lambda row: {'id': 99}); sys.exit(0)", "no row with id 2, only one with id '99'"),
    "twice": ("answer(rows + rows); sys.exit(0)", "is answered by more than one row"),
    "cells": ("open(sys.argv[2], 'w').write('id,mu_0\\n2,1,5\\n'); sys.exit(0)", "has 3 cells under a header of 2"),
    "column": ("open(sys.argv[2], 'w').write('id,nu_0\\n2,1\\n'); sys.exit(0)", "has no column mu_eta_0"),
    "columns": ("open(sys.argv[2], 'w').write('id,mu_0,mu_0\\n2,1,1\\n'); sys.exit(0)", "two columns called 'mu_0'"),
    "binary": ("open(sys.argv[2], 'wb').write(bytes(range(256)) * 9); sys.exit(0)", "results.csv"),
    "folder": ("os.mkdir(sys.argv[2]); sys.exit(0)", "results.csv cannot be read"),
    "error": ("answer(rows, lambda row: {'mu_error_0': -1}); sys.exit(0)", "mu_error_0 is negative"),
}


@pytest.mark.parametrize("kind", FAILURES)
def test_a_point_that_fails_is_lost_alone(tmp_path, kind):
    failure, message = FAILURES[kind]
    body = f"if value == 2.0:\n    {failure}\nanswer(rows)"
    result = program(tmp_path, body).evaluate(X, 300.0, seeds=range(4), jobs=2)
    assert lost(result) == [2]
    assert result.message[2].startswith("point 2 (eta_0 = 2, T = 300): ")
    assert message in result.message[2]
    assert "\n" not in result.message[2]
    np.testing.assert_array_equal(result.mu[[0, 1, 3]], 2.0 * X[[0, 1, 3]] + 300.0)


def test_a_program_that_hangs_is_killed_with_all_its_children(tmp_path):
    pids = tmp_path / "pids"
    body = f"""
if value == 2.0:
    import subprocess
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    child = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(60)"])
    pathlib.Path({str(pids)!r}).write_text(f"{{os.getpid()}} {{child.pid}}")
    print("thinking", file=sys.stderr, flush=True)
    time.sleep(60)
answer(rows)
"""
    began = time.monotonic()
    result = program(tmp_path, body, timeout=3.0).evaluate(X, 300.0, seeds=range(4), jobs=4)
    assert time.monotonic() - began < 30.0
    assert lost(result) == [2]
    assert 'did not end within 3 s and was killed; its last words: "thinking"' in result.message[2]
    for pid in map(int, pids.read_text().split()):
        wait_for(lambda pid=pid: not alive(pid))


def test_what_a_program_leaves_behind_ends_with_it(tmp_path):
    pids = tmp_path / "pids"
    body = f"""
import subprocess
child = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(60)"])
pathlib.Path({str(pids)!r}).write_text(str(child.pid))
answer(rows)
"""
    assert lost(program(tmp_path, body).evaluate([[1.0]], 300.0, seeds=[0])) == []
    wait_for(lambda: not alive(int(pids.read_text())))


def test_a_batch_that_answers_partly_loses_only_the_rest(tmp_path):
    text = r"id,mu_0\n3,3\n1,'1\"2\n0,0\n,,\nx,5\n"
    body = f'open(sys.argv[2], "w").write("{text}")'
    result = program(tmp_path, body, per="batch").evaluate(X, 300.0, seeds=range(4))
    assert lost(result) == [1, 2]
    assert "mu_0 must be a number" in result.message[1]
    assert "no row with id 2" in result.message[2]
    assert result.mu[[0, 3], 0].tolist() == [0.0, 3.0]


@pytest.mark.parametrize(
    ("failure", "left"), [("sys.exit(1)", [0]), ("time.sleep(60)", [0]), ("answer(rows[1:] or rows)", [])]
)
def test_one_bad_point_does_not_cost_a_batch(tmp_path, failure, left):
    body = f"if any(float(row['eta_0']) == 0.0 for row in rows):\n    {failure}\nelse:\n    answer(rows)"
    oracle = program(tmp_path, body, per="batch", retries=1, timeout=5.0)
    result = oracle.evaluate(X, 300.0, seeds=range(4), jobs=4)
    assert lost(result) == left
    np.testing.assert_array_equal(result.mu[1:], 2.0 * X[1:] + 300.0)


def test_failed_points_are_tried_again_with_another_seed(tmp_path):
    body = """
seeds = pathlib.Path(sys.argv[2]).parent.parent.parent.parent / f"seeds-{rows[0]['eta_0']}"
with open(seeds, "a") as out:
    out.write(rows[0]["seed"] + "\\n")
if value == 1.0 or value == 2.0 and rows[0]["seed"] == "12":
    sys.exit("not this time")
answer(rows)
"""
    oracle = program(tmp_path, body, retries=2)
    result = oracle.evaluate(X, 300.0, seeds=[10, 11, 12, 13], jobs=1, folder=tmp_path / "answers")
    assert lost(result) == [1]
    tried = [list(map(int, (tmp_path / f"seeds-{i}.0").read_text().split())) for i in range(4)]
    assert tried == [[10], [11, another_seed(11, 1), another_seed(11, 2)], [12, another_seed(12, 1)], [13]]
    assert len({seed for seeds in tried for seed in seeds}) == 7
    assert all(0 <= seed < 2**31 for seeds in tried for seed in seeds)


def test_the_number_of_jobs_changes_nothing(tmp_path):
    body = """
import random
random.seed(int(rows[0]["seed"]))
time.sleep(random.random() / 20)
if random.random() < 0.3:
    sys.exit("unlucky")
answer(rows, lambda row: {"mu_0": random.random(), "F": random.random()})
"""
    oracle = program(tmp_path, body, retries=1)
    points = np.linspace(0.0, 1.0, 12)[:, None]
    results = [oracle.evaluate(points, 300.0, seeds=range(12), jobs=jobs) for jobs in (1, 4)]
    same(*results)
    assert 0 < len(lost(results[0])) < 12


def test_placeholders_are_filled_in(tmp_path):
    script = tmp_path / "say.py"
    script.write_text(
        "import json, os, sys\n"
        "open(sys.argv[-1] + '/said.json', 'w').write(json.dumps([sys.argv[1:], os.getcwd()]))\n"
        "open('out.csv', 'w').write('mu_a,mu_b\\n1,2\\n')\n"
    )
    command = f"{sys.executable} -S {script} "
    command += "--x={a},{b} {seed} {T} '{{a b}} $HOME;' {input} {output} {folder}"
    oracle = ProgramOracle(command, names=["a", "b"], output="out.csv", input="in.csv")
    folder = tmp_path / "answers here"
    result = oracle.evaluate([[0.1, 1e-30]], 300.5, seeds=[7], folder=folder)
    assert result.mu.tolist() == [[1.0, 2.0]]
    (said,) = folder.glob("*/run-1/said.json")
    arguments, where = json.loads(said.read_text())
    here = str(said.parent)
    assert where == here
    assert arguments == ["--x=0.1,1e-30", "7", "300.5", "{a b} $HOME;", f"{here}/in.csv", f"{here}/out.csv", here]


def test_scripts_are_found_from_where_one_stands(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "local.py").write_text(BEGIN + "answer(rows)")
    oracle = ProgramOracle(f"{sys.executable} -S local.py {{input}} {{output}}", 1)
    monkeypatch.chdir("/")
    assert lost(oracle.evaluate(X, 300.0, seeds=range(4))) == []


@pytest.mark.parametrize(
    ("command", "options", "message"),
    [
        ("PY {inptu}", {}, r"unknown placeholder {inptu}; did you mean input\?"),
        ("PY {eta_2}", {}, r"unknown placeholder {eta_2}; did you mean eta_"),
        ("PY {}", {}, "unknown placeholder {}"),
        ("PY {0}", {}, "unknown placeholder {0}"),
        ("PY {input.parent}", {}, "unknown placeholder {input.parent}"),
        ("PY {T:.3f}", {}, r"{T} takes no format"),
        ("PY {T", {}, "has braces that do not match"),
        ("PY 'a", {}, "command cannot be split into arguments"),
        ("", {}, "command is empty"),
        (["PY", 3], {}, "each of them text"),
        ("no-such-program-anywhere {input}", {}, "there is no program 'no-such-program-anywhere'"),
        ("PY {seed}", {"per": "batch"}, "{seed} differs from point to point"),
        ("PY {eta_0}", {"per": "batch"}, "{eta_0} differs from point to point"),
        ("PY", {"per": "row"}, "per must be one of point, batch, got 'row'"),
        ("PY", {"timeout": 0}, "timeout must be positive"),
        ("PY", {"retries": -1}, "retries must be a whole number of at least 0"),
        ("PY", {"input": "a/b"}, "input must be the name of a file"),
        ("PY", {"output": "points.csv"}, "input and output must differ"),
        ("PY", {"names": ["a"]}, "names must hold 2 names, got 1"),
        ("PY", {"q": None}, "needs names of the order parameters"),
    ],
)
def test_a_bad_command_is_one_sentence(command, options, message):
    change = [sys.executable if part == "PY" else part for part in command] if isinstance(command, list) else None
    given = change or command.replace("PY", sys.executable)
    with pytest.raises(ValueError, match=message) as caught:
        ProgramOracle(given, **{"q": 2, **options})
    assert "\n" not in str(caught.value)


def test_a_program_that_vanished_fails_in_words(tmp_path):
    script = tmp_path / "tool"
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    oracle = ProgramOracle([str(script)], 1)
    script.unlink()
    result = oracle.evaluate([[1.0]], 300.0, seeds=[0])
    assert f"{script} cannot be run (No such file or directory)" in result.message[0]


COUNTED = """
counter = pathlib.Path(sys.argv[0]).with_name(f"count-{rows[0]['eta_0']}")
count = int(counter.read_text()) + 1 if counter.exists() else 1
counter.write_text(str(count))
"""


@pytest.mark.parametrize("per", ["point", "batch"])
def test_answers_are_kept_bit_for_bit(tmp_path, per):
    # answers differ from run to run, so that one that was computed anew would show
    body = (
        COUNTED
        + """
if value == 1.0 and count == 1 and len(rows) == 1:
    sys.exit(1)
import random
answer(rows, lambda row: {"mu_0": repr(random.random() / 3), "x_0": repr(random.random()), "mu_error_0": "0.1"})
"""
    )
    oracle, folder = program(tmp_path, body, per=per), tmp_path / "a" / "b"
    first = oracle.evaluate(X, 300.0, seeds=range(4), folder=folder, jobs=2)
    again = oracle.evaluate(X, 300.0, seeds=range(4), folder=folder, jobs=2)
    if per == "point":
        assert lost(first) == [1]
        assert lost(again) == []
        keep = [0, 2, 3]
        assert (tmp_path / "count-0.0").read_text() == "1"
        assert (tmp_path / "count-1.0").read_text() == "2"
        np.testing.assert_array_equal(first.mu[keep], again.mu[keep])
        np.testing.assert_array_equal(first.x[keep], again.x[keep])
    else:
        same(first, again)
    # in another order they are still the answers of the same points
    turned = oracle.evaluate(X[::-1], 300.0, seeds=range(4)[::-1], folder=folder)
    np.testing.assert_array_equal(turned.mu[::-1], again.mu)
    # another seed, T or point is another question
    fresh = oracle.evaluate(X, 300.0, seeds=range(10, 14), folder=folder)
    assert (fresh.mu != again.mu).all()


def test_a_damaged_answer_is_computed_again(tmp_path):
    oracle, folder = program(tmp_path, "answer(rows)"), tmp_path / "answers"
    first = oracle.evaluate(X, 300.0, seeds=range(4), folder=folder)
    stored = sorted(folder.glob("*/answer.json"))
    assert len(stored) == 4
    stored[0].write_text(stored[0].read_text()[:40])
    stored[1].write_text(stored[1].read_text().replace('"T": 300.0', '"T": 301.0'))
    stored[2].write_text("[]")
    stored[3].write_text(json.dumps({**json.loads(stored[3].read_text()), "mu": []}))
    same(first, oracle.evaluate(X, 300.0, seeds=range(4), folder=folder))
    assert len(list(folder.glob("*/run-2"))) == 4


def test_another_oracle_finds_nothing(tmp_path):
    folder = tmp_path / "answers"
    program(tmp_path, "answer(rows)").evaluate([[1.0]], 300.0, seeds=[0], folder=folder)
    other = program(tmp_path, "answer(rows)", names=["eta_1"])
    (tmp_path / "program.py").write_text(BEGIN.replace("eta_0", "eta_1") + "answer(rows)")
    other.evaluate([[1.0]], 300.0, seeds=[0], folder=folder)
    assert len(list(folder.glob("*/answer.json"))) == 2


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="file/answers: this folder cannot be made"):
        program(tmp_path, "answer(rows)").evaluate(X, 300.0, seeds=range(4), folder=tmp_path / "file" / "answers")


def alive(pid: int) -> bool:
    """Whether a process runs (one that ended and was not asked about does not)."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_for(condition, seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


PARENT = """
import sys, json
import numpy as np
from quests_zenn.sampling.oracles import ProgramOracle
oracle = ProgramOracle([sys.executable, "-S", sys.argv[1], "{input}", "{output}"], 1, timeout=60.0, retries=0)
points = np.arange(6.0)[:, None] / 7.0
try:
    result = oracle.evaluate(points, 300.0, seeds=range(6), jobs=2, folder=sys.argv[2])
except KeyboardInterrupt:
    print("interrupted", flush=True)
    sys.exit(5)
print(json.dumps([result.x.tolist(), result.mu.tolist(), result.message]))
"""


def parent(tmp_path: Path, folder: Path, **options) -> subprocess.Popen[str]:
    """A process of ours that asks a program which notes what it does, and waits on its fourth point."""
    (tmp_path / "parent.py").write_text(PARENT)
    (tmp_path / "slow.py").write_text(
        BEGIN
        + COUNTED
        + """
pathlib.Path(sys.argv[0]).with_name(f"pid-{rows[0]['id']}-{count}").write_text(str(os.getpid()))
if int(rows[0]["id"]) >= 3 and pathlib.Path(sys.argv[0]).with_name("wait").exists():
    time.sleep(60)
import random
random.seed(int(rows[0]["seed"]))
answer(rows, lambda row: {"mu_0": repr(random.random() / 3)})
"""
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(tmp_path / "parent.py"), str(tmp_path / "slow.py"), str(folder)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, **options)


def test_a_run_that_was_killed_goes_on_as_if_it_was_not(tmp_path):
    (tmp_path / "wait").touch()
    with parent(tmp_path, tmp_path / "killed") as process:
        wait_for(lambda: len(list((tmp_path / "killed").glob("*/answer.json"))) == 3)
        wait_for(lambda: len([p for p in tmp_path.glob("pid-[345]-1") if p.read_text()]) == 2)
        orphans = [int(path.read_text()) for path in tmp_path.glob("pid-[345]-1")]
        process.send_signal(signal.SIGKILL)
    assert all(map(alive, orphans))
    (tmp_path / "wait").unlink()
    with parent(tmp_path, tmp_path / "killed") as process:
        resumed = process.communicate()[0]
    assert process.returncode == 0
    for pid in orphans:  # the next run ends what the killed one left running
        if Path("/proc").is_dir():
            wait_for(lambda pid=pid: not alive(pid))
        else:
            os.kill(pid, signal.SIGKILL)
    ran = {path.name: path.read_text() for path in tmp_path.glob("count-*")}
    assert sorted(ran.values()) == ["1", "1", "1", "1", "2", "2"]  # what was answered was not asked again
    with parent(tmp_path, tmp_path / "undisturbed") as process:
        undisturbed = process.communicate()[0]
    assert json.loads(resumed)[2] == [""] * 6
    assert resumed == undisturbed
    for killed in (tmp_path / "killed").glob("*/answer.json"):
        assert killed.read_bytes() == (tmp_path / "undisturbed" / killed.parent.name / "answer.json").read_bytes()


def test_an_interrupt_from_the_keyboard_ends_the_programs(tmp_path):
    (tmp_path / "wait").touch()
    with parent(tmp_path, tmp_path / "answers") as process:
        wait_for(lambda: len([p for p in tmp_path.glob("pid-[345]-1") if p.read_text()]) == 2)
        running = [int(path.read_text()) for path in tmp_path.glob("pid-[345]-1")]
        assert all(map(alive, running))
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        assert process.communicate()[0] == "interrupted\n"
    assert process.returncode == 5
    assert time.monotonic() - began < 20.0
    assert not any(map(alive, running))
    assert len(list((tmp_path / "answers").glob("*/answer.json"))) == 3
    assert not list((tmp_path / "answers").glob("*/*/process.json"))


def test_a_running_program_of_somebody_else_is_left_alone(tmp_path):
    oracle, folder = program(tmp_path, "answer(rows)"), tmp_path / "answers"
    oracle.evaluate([[1.0]], 300.0, seeds=[0], folder=folder)
    (home,) = folder.iterdir()
    (home / "answer.json").unlink()
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True) as other:
        note = {"pid": other.pid, "owner": 2**22 + 1, "owner_started": "1"}
        (home / "run-1" / "process.json").write_text(json.dumps(note))
        oracle.evaluate([[1.0]], 300.0, seeds=[0], folder=folder)  # it does not work in that folder
        assert other.poll() is None
        other.kill()


def test_a_huge_output_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr("quests_zenn.sampling._program._LARGEST", 100)
    path = tmp_path / "results.csv"
    path.write_text("id,mu_0\n" + "0,1\n" * 100)
    (said,) = read_answers(path, ["eta_0"], [SimpleNamespace(number=0, x=(0.0,))]).values()
    assert "is larger than" in said


# (d) Monte Carlo ------------------------------------------------------------------------------------------------------


class Harmonic:
    """g = a eta^2 / 2 + b eta, in the limit of many sites: mu = a eta + b = -2 phi (eta - kappa)."""

    n_eta = 2
    a, b = np.array([1.0, -0.5]), np.array([0.3, 0.1])

    def __init__(self, needs: int = 0, bad: float | None = None) -> None:
        self.needs, self.bad, self.calls = needs, bad, []

    def run(self, T, *, phi, kappa, sweeps, seed, jobs, every, warmup):
        self.calls.append((len(T), sweeps, list(seed)))
        if self.bad is not None and (kappa[:, 0] == self.bad).any():
            raise DataError("cannot be reached")
        eta = (2.0 * phi * kappa - self.b) / (2.0 * phi + self.a)
        return SimpleNamespace(
            eta=eta,
            eta_error=np.full(eta.shape, 0.01),
            mu=-2.0 * phi * (eta - kappa),
            mu_error=2.0 * phi * 0.01,
            equilibrated=np.array([sweeps >= self.needs or k > 0.5 for k in kappa[:, 0]]),
            reason=[""] * len(T),
        )

    def fingerprint(self) -> str:
        return "harmonic"


def test_monte_carlo_answers_where_it_landed():
    oracle = MonteCarloOracle(Harmonic(), phi=[2.0, 3.0], sweeps=100)
    points = np.array([[0.2, 0.3], [0.4, -0.1]])
    result = oracle.evaluate(points, 300.0, seeds=[1, 2])
    assert lost(result) == []
    assert (np.abs(result.x - points) > 1e-3).all()
    np.testing.assert_allclose(result.mu, Harmonic.a * result.x + Harmonic.b, atol=1e-12)
    np.testing.assert_allclose(result.mu_error, [[0.04, 0.06]] * 2)
    # with the right guess it lands on the point
    guess = Harmonic.a * points + Harmonic.b
    exact = oracle.evaluate(points, 300.0, seeds=[1, 2], mu_guess=guess)
    np.testing.assert_allclose(exact.x, points, atol=1e-12)
    np.testing.assert_allclose(exact.mu, guess, atol=1e-12)
    # and no guess is as good as none
    same(result, oracle.evaluate(points, 300.0, seeds=[1, 2], mu_guess=np.full((2, 2), np.nan)))
    with pytest.raises(DataError, match="mu_guess must have the shape of points"):
        oracle.evaluate(points, 300.0, seeds=[1, 2], mu_guess=guess[:1])


def test_runs_that_did_not_settle_are_repeated_longer_or_lost():
    points = np.array([[0.2, 0.3], [0.9, 0.3]])
    enough, never = Harmonic(needs=200), Harmonic(needs=1000)
    result = MonteCarloOracle(enough, [2.0, 3.0], 100).evaluate(points, 300.0, seeds=[1, 2])
    assert lost(result) == []
    assert enough.calls == [(2, 100, [1, 2]), (1, 200, [another_seed(1, 1)])]
    result = MonteCarloOracle(never, [2.0, 3.0], 100).evaluate(points, 300.0, seeds=[1, 2])
    assert lost(result) == [0]
    assert "not in equilibrium after 200 sweeps" in result.message[0]
    loose = MonteCarloOracle(Harmonic(needs=1000), [2.0, 3.0], 100, strict=False)
    assert lost(loose.evaluate(points, 300.0, seeds=[1, 2])) == []


def test_a_simulation_that_fails_loses_one_point():
    oracle = MonteCarloOracle(Harmonic(bad=0.4), [2.0, 3.0], 100, retries=0)
    result = oracle.evaluate([[0.2, 0.3], [0.4, 0.1], [0.5, 0.1]], 300.0, seeds=[1, 2, 3])
    assert lost(result) == [1]
    assert "the simulation raised DataError: cannot be reached" in result.message[1]


def test_monte_carlo_goes_on_where_it_was_killed(tmp_path):
    class Killed(Harmonic):
        def run(self, T, **options):
            if len(self.calls) == 2:
                raise KeyboardInterrupt
            return super().run(T, **options)

    rng = np.random.default_rng(0)
    points = rng.uniform(0.0, 1.0, (20, 2))
    whole = MonteCarloOracle(Harmonic(), [2.0, 3.0], 100).evaluate(points, 300.0, seeds=range(20))
    with pytest.raises(KeyboardInterrupt):
        MonteCarloOracle(Killed(), [2.0, 3.0], 100).evaluate(points, 300.0, seeds=range(20), jobs=2, folder=tmp_path)
    rest = Harmonic()
    resumed = MonteCarloOracle(rest, [2.0, 3.0], 100).evaluate(points, 300.0, seeds=range(20), jobs=1, folder=tmp_path)
    same(whole, resumed)
    assert sum(n for n, *_ in rest.calls) == 4


def test_bad_monte_carlo_is_one_sentence():
    with pytest.raises(ValueError, match="simulation must have a method run"):
        MonteCarloOracle(3, 1.0, 100)
    with pytest.raises(ValueError, match="phi must be positive and finite"):
        MonteCarloOracle(Harmonic(), [1.0, 0.0], 100)
    with pytest.raises(ValueError, match="sweeps must be a whole number of at least 1"):
        MonteCarloOracle(Harmonic(), 1.0, 0)


def test_the_lattice_answers_as_an_ideal_solution():
    from quests_zenn.sampling.lattice import LatticeMC

    mc = LatticeMC.square(12, 0.0)
    kT = mc.boltzmann * 1000.0
    oracle = MonteCarloOracle(mc, phi=1.0, sweeps=2000)
    points = np.array([[0.2], [0.5], [0.8]])
    guess = kT * np.log(points / (1.0 - points))
    results = [oracle.evaluate(points, 1000.0, seeds=[1, 2, 3], jobs=jobs, mu_guess=guess) for jobs in (1, 2)]
    same(*results)
    result = results[0]
    assert lost(result) == []
    assert np.abs(result.x - points).max() < 0.01
    # <dg/d(eta)> is exact, and that at <eta> holds to O(1/M)
    exact = kT * np.log(result.x / (1.0 - result.x))
    assert (np.abs(result.mu - exact) < 5.0 * result.mu_error + kT * 0.02).all()
    assert (result.mu_error > 0.0).all()
