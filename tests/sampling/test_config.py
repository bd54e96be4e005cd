"""Configurations of runs: what they say, and what is refused."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

from quests_zenn._core.checks import DataError
from quests_zenn.sampling.config import from_config
from quests_zenn.sampling.oracles import MonteCarloOracle, PoolOracle, ProgramOracle
from quests_zenn.zenn import IdealMixing

pytestmark = pytest.mark.extra

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"

POOL = """
[run]
seed = 7
[domain]
kind = "box"
low = [0.0, 0.0]
high = [1.0, 1.0]
conserved = ["eta_0"]
[oracle]
kind = "pool"
file = "rows.csv"
x = ["a", "b"]
mu = ["mu_a", "mu_b"]
T = 500.0
"""

LATTICE = """
[domain]
kind = "simplex"
dimensions = 1
names = ["c"]
[oracle]
kind = "lattice"
lattice = "square"
size = 8
pairs = [0.02]
phi = 2.0
sweeps = 50
"""


def config(folder: Path, text: str) -> Path:
    path = folder / "run.toml"
    path.write_text(text, encoding="utf-8")
    rows = ["a,b,mu_a,mu_b"] + [f"{i / 9},{1 - i / 9},{i},{-i}" for i in range(10)]
    (folder / "rows.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return path


def test_a_pool(tmp_path: Path) -> None:
    run = from_config(config(tmp_path, POOL))
    assert isinstance(run.oracle, PoolOracle)
    assert run.oracle.T.tolist() == [500.0] * 10
    assert run.random_state == 7
    assert run.conserved == [0]
    assert run.path == tmp_path / "run"
    assert (run.initial, run.per_round, run.stop.total) == (40, 20, 300)  # type: ignore[union-attr]
    assert from_config(tmp_path / "run.toml", tmp_path / "elsewhere").path == tmp_path / "elsewhere"


def test_all_that_can_be_said(tmp_path: Path) -> None:
    text = (
        POOL
        + """
[model]
hidden = [3, 2]
n_members = 2
[criteria]
random = 1
vertices = 0.5
[budget]
initial = 4
per_round = 2
total = 8
dynamic = false
novelty = false
candidates = 100
min_distance = 0.01
recency = 0.9
[stop]
tolerance = 0.1
patience = 3
[test]
file = "rows.csv"
x = ["a", "b"]
mu = ["mu_a", "mu_b"]
"""
    )
    run = from_config(config(tmp_path, text))
    assert run.model.hidden == (3, 2)
    assert dict(run.criteria or {}) == {"random": 1.0, "vertices": 0.5}
    assert (run.dynamic, run.novelty, run.n_candidates, run.min_distance, run.recency) == (False, False, 100, 0.01, 0.9)
    assert run.stop.tolerance == 0.1  # type: ignore[union-attr]
    assert run.test is not None
    assert len(run.test[0]) == 10


def test_columns_of_a_test_are_those_of_the_pool(tmp_path: Path) -> None:
    run = from_config(config(tmp_path, POOL + '[test]\nfile = "rows.csv"\n'))
    assert run.test is not None
    np.testing.assert_array_equal(run.test[1], np.full(10, 500.0))
    np.testing.assert_array_equal(run.test[2][:, 1], -np.arange(10.0))
    run = from_config(config(tmp_path, POOL + '[test]\nfile = "rows.csv"\nT = 400.0\nmu = ["mu_b", "mu_a"]\n'))
    assert run.test is not None
    np.testing.assert_array_equal(run.test[1], np.full(10, 400.0))
    np.testing.assert_array_equal(run.test[2][:, 1], np.arange(10.0))


def test_a_lattice(tmp_path: Path) -> None:
    run = from_config(config(tmp_path, LATTICE))
    assert isinstance(run.oracle, MonteCarloOracle)
    found = run.oracle.evaluate(np.array([[0.3]]), 2000.0, seeds=[1], jobs=1)
    assert found.message == [""]
    # <eta> lies where the bias and the ideal solution balance, near the asked point
    assert 0.2 < found.x[0, 0] < 0.45


def test_ideal_mixing_is_that_of_the_domain(tmp_path: Path) -> None:
    assert from_config(config(tmp_path, LATTICE)).model.ideal is None
    assert from_config(config(tmp_path, LATTICE + "[model]\nideal = false\n")).model.ideal is None
    assert from_config(config(tmp_path, LATTICE + "[model]\nideal = true\n")).model.ideal == IdealMixing.simplex(1)
    np.savetxt(tmp_path / "Q.txt", [[0.5, 0.5], [0.5, -0.5]])
    domain = 'kind = "sublattices"\nfile = "Q.txt"\n'
    text = POOL.replace('kind = "box"\nlow = [0.0, 0.0]\nhigh = [1.0, 1.0]\n', domain) + "[model]\nideal = 2\n"
    found = from_config(config(tmp_path, text)).model.ideal
    mixing = IdealMixing.sublattices([[0.5, 0.5], [0.5, -0.5]])
    assert found == IdealMixing(mixing.P, mixing.c, 2.0 * mixing.weights)


def test_the_example() -> None:
    run = from_config(EXAMPLES / "wells.toml", "never_made")
    assert isinstance(run.oracle, ProgramOracle)
    assert run.names == ("c", "s")
    assert run.oracle.command[1] == str(EXAMPLES / "wells_oracle.py")


def test_the_potentials_of_the_example_are_a_gradient(tmp_path: Path) -> None:
    """Of the free energy that its docstring states."""
    import subprocess

    def g(c: float, s: float) -> float:
        return 0.4 * (c**2 - 0.36) ** 2 + 0.3 * (s**2 - (0.5 - c) / 2) ** 2

    points = [(0.6, 0.1), (-0.6, 0.7), (0.2, -0.4)]
    rows = [f"{i},300,{c},{s},{100 * i + k}" for i, (c, s) in enumerate(points) for k in range(100)]
    (tmp_path / "in.csv").write_text("id,T,c,s,seed\n" + "\n".join(rows) + "\n", encoding="utf-8")
    program = [sys.executable, str(EXAMPLES / "wells_oracle.py"), "in.csv", "out.csv"]
    subprocess.run(program, cwd=tmp_path, check=True)
    found = np.genfromtxt(tmp_path / "out.csv", delimiter=",", names=True)
    for i, (c, s) in enumerate(points):
        mine = found["id"] == i
        h = 1e-6
        slope = (g(c + h, s) - g(c - h, s)) / (2 * h), (g(c, s + h) - g(c, s - h)) / (2 * h)
        for name, exact in zip(("mu_c", "mu_s"), slope, strict=True):
            assert found[name][mine].mean() == pytest.approx(exact, abs=5 * 0.002 / 10)
            assert found[name][mine].std() == pytest.approx(0.002, rel=0.5)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[domain", "is no TOML"),
        ("[oracle]\nkind = 'pool'\n", "needs a table .domain."),
        (POOL + "[modle]\n", r"unknown table \[modle\] .did you mean 'model'"),
        (POOL + "[model]\nhiden = [3]\n", r"\[model\] has no key 'hiden' .did you mean 'hidden'"),
        (POOL + "[budget]\ntotl = 3\n", r"\[budget\] has no key 'totl' .did you mean 'total'"),
        (POOL + "[budget]\ntotal = 'many'\n", "total of .budget. must be of type int, got 'many'"),
        (POOL + "[budget]\ntotal = true\n", "must be of type int, got True"),
        (POOL + "[budget]\ntotal = 0\n", "total must be"),
        (POOL + "[criteria]\nspace-filing = 1\n", "did you mean 'space-filling'"),
        (POOL + "[criteria]\nrandom = 'much'\n", "share of 'random'"),
        (POOL + "[stop]\ntolerance = -1\n", "tolerance must be positive"),
        (POOL.replace('"box"', '"bx"'), "must be one of file, sublattices, box, simplex, got 'bx'"),
        (POOL.replace("low = [0.0, 0.0]\n", ""), r"\[domain\] needs low"),
        (
            POOL.replace('"box"', '"sublattices"\nQ = [[1.0]]').replace("low", "# ").replace("high", "# "),
            r"\[domain\] has no key 'Q' .did you mean 'file'..; it knows kind, file, order_parameters, names",
        ),
        (POOL.replace("low =", "lo ="), r"\[domain\] has no key 'lo' .did you mean 'low'"),
        (POOL.replace("low = [0.0, 0.0]", "low = [2.0, 0.0]"), r"run.toml"),
        (POOL.replace("rows.csv", "raws.csv"), "raws.csv, which is no file"),
        (POOL.replace('"a", "b"]\nmu', '"a", "z"]\nmu'), "z"),
        (POOL.replace("low = [0.0, 0.0]\nhigh = [1.0, 1.0]", "low = [0.0]\nhigh = [1.0]"), "1 order parameters"),
        (POOL.replace("eta_0", "eta_9"), "conserved of .domain. names 'eta_9'"),
        (POOL.replace("seed = 7", "seed = -7"), "random_state"),
        (POOL.replace("seed = 7", "temperature = 'hot'"), "temperature"),
        (POOL + "[model]\nideal = true\n", r"ideal of \[model\] needs a \[domain\] that tells occupations"),
        (
            LATTICE + "[model]\nideal = 'yes'\n",
            "must be true, false or the number of sites that g refers to, got 'yes'",
        ),
        (LATTICE + "[model]\nideal = 0\n", "must be true, false or the number of sites"),
        (LATTICE.replace("square", "sqare"), "did you mean 'square'"),
        (LATTICE.replace("size = 8", "size = 0"), r"\[oracle\]"),
        (LATTICE.replace("pairs = [0.02]", "pairs = ['x']"), r"\[oracle\]"),
        (LATTICE.replace("phi = 2.0\n", ""), "needs phi"),
    ],
)
def test_what_is_refused(text: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=told) as error:
        from_config(config(tmp_path, text))
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        from_config(tmp_path / "none.toml")
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match="UTF-8"):
        from_config(tmp_path / "bytes.toml")


def test_a_program_that_is_not_there(tmp_path: Path) -> None:
    text: Any = POOL.replace('kind = "pool"', 'kind = "program"\ncommand = "no_such_program {input}"')
    for line in ('file = "rows.csv"\n', 'x = ["a", "b"]\n', 'mu = ["mu_a", "mu_b"]\n', "T = 500.0\n"):
        text = text.replace(line, "")
    with pytest.raises(DataError, match="no_such_program"):
        from_config(config(tmp_path, text))
