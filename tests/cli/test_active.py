"""``quests-zenn active``."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import commands
import pytest

pytest.importorskip("torch")
pytest.importorskip("safetensors")

pytestmark = pytest.mark.extra

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"

#: The example with little of everything.
BRIEF = {
    "initial = 16": "initial = 6", "per_round = 8": "per_round = 3", "total = 40": "total = 12",
    "candidates = 2000": "candidates = 50", "hidden = [8]": "hidden = [3]\nmax_iterations = 4\nadam_steps = 10",
    "n_members = 3": "n_members = 2",
}  # fmt: skip


def run(*args: Any, status: int = 0) -> tuple[str, str]:
    """What the command says on stdout and stderr."""
    return commands.run("active", *args, status=status)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    text = (EXAMPLES / "wells.toml").read_text(encoding="utf-8")
    for old, new in BRIEF.items():
        assert old in text
        text = text.replace(old, new)
    (tmp_path / "wells.toml").write_text(text, encoding="utf-8")
    shutil.copy(EXAMPLES / "wells_oracle.py", tmp_path)
    return tmp_path


def test_a_run_is_told_kept_and_drawn(here: Path) -> None:
    out, err = run("wells.toml", "--json", "found.json", "--plot", "found.png")
    lines = out.splitlines()
    assert lines[0].startswith("errors of mu at new points")
    assert [line.split()[:3] for line in lines[2:5]] == [["0", "6", "0"], ["1", "9", "0"], ["2", "12", "0"]]
    assert "ended: the budget of 12 points is spent" in out
    assert err == ""
    found = json.loads((here / "found.json").read_text(encoding="utf-8"))
    assert found["n_points"] == found["n_known"] == 12
    assert [entry["n_points"] for entry in found["rounds"]] == [6, 9, 12]
    assert found["parameters"]["random_state"] == 1
    assert (here / "found.png").stat().st_size > 10_000
    assert (here / "wells" / "rounds" / "0002" / "figure.png").stat().st_size > 10_000


def test_the_same_command_goes_on(here: Path) -> None:
    run("wells.toml", "--quiet")
    before = (here / "wells" / "rounds" / "0002" / "metrics.json").read_bytes()
    text = (here / "wells.toml").read_text(encoding="utf-8")
    (here / "wells.toml").write_text(text.replace("total = 12", "total = 15"), encoding="utf-8")
    out, _ = run("wells.toml")
    assert "ended: the budget of 15 points is spent" in out
    assert (here / "wells" / "rounds" / "0002" / "metrics.json").read_bytes() == before


def test_a_report_buys_nothing(here: Path) -> None:
    out, err = run("wells.toml", "--report", status=1)
    assert "holds no run" in err
    run("wells.toml", "-o", "kept", "--quiet")
    (here / "wells_oracle.py").unlink()
    (here / "wells_oracle.py").write_text("raise SystemExit('nobody may call me')", encoding="utf-8")
    out, err = run("wells.toml", "-o", "kept", "--report", "--plot", "again.png")
    assert "12" in out
    assert err == ""
    assert (here / "again.png").exists()


def test_points_that_fail_are_named_and_the_run_goes_on(here: Path) -> None:
    text = (here / "wells_oracle.py").read_text(encoding="utf-8")
    broken = text.replace(
        "        for row in rows:\n", '        for row in rows:\n            assert float(row["c"]) < 0.3, "too rich"\n'
    )
    (here / "wells_oracle.py").write_text(broken, encoding="utf-8")
    out, err = run("wells.toml")
    assert "ended" in out
    assert "too rich" in err
    assert "Traceback" not in err


def test_an_oracle_that_never_answers(here: Path) -> None:
    (here / "wells_oracle.py").write_text("raise SystemExit(3)", encoding="utf-8")
    _, err = run("wells.toml", status=1)
    assert len(err.splitlines()) == 1
    assert "none of 6 points was answered" in err


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("[budget]", "[bugdet]", r"unknown table [bugdet] (did you mean 'budget'?)"),
        ('kind = "IDNN"', 'kind = "IDN"', "must be one of IDNN, ZENN"),
        ("n_members = 2", "n_members = 0", "n_members"),
        ("{input}", "{inputs}", "inputs"),
    ],
)
def test_what_is_refused(old: str, new: str, told: str, here: Path) -> None:
    path = here / "wells.toml"
    path.write_text(path.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")
    out, err = run("wells.toml", status=1)
    assert out == ""
    assert told in err
    assert len(err.splitlines()) == 1


def test_files_that_exist_stay(here: Path) -> None:
    (here / "found.json").write_text("mine", encoding="utf-8")
    _, err = run("wells.toml", "--json", "found.json", status=1)
    assert "exists already" in err
    assert not (here / "wells").exists()
    assert (here / "found.json").read_text(encoding="utf-8") == "mine"
