"""``quests-zenn active``."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import commands
import numpy as np
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


def change(path: Path, old: str, new: str) -> None:
    """Another text in a file."""
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


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
    assert lines[0].startswith("errors of mu at new points, before they were learned, in units of the spread of mu")
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
    assert "ended: the budget of 12 points is spent" in out
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


def test_a_report_of_a_budget_that_is_not_spent(here: Path) -> None:
    run("wells.toml", "--quiet")
    change(here / "wells.toml", "total = 12", "total = 15")
    out, _ = run("wells.toml", "--report", "--json", "found.json")
    assert "ended" not in out
    assert json.loads((here / "found.json").read_text(encoding="utf-8"))["stopped"] is None


@pytest.mark.parametrize("more", [(), ("--report",)])
def test_a_total_below_the_points_that_were_asked(more: tuple[str, ...], here: Path) -> None:
    run("wells.toml", "--quiet")
    change(here / "wells.toml", "total = 12", "total = 7")
    out, err = run("wells.toml", *more)
    assert "ended: 12 points were asked before, more than the total of 7; no more are bought" in out
    assert [line.split()[:2] for line in out.splitlines()[2:5]] == [["0", "6"], ["1", "9"], ["2", "12"]]
    assert err == ""


def test_files_of_the_run_itself_are_replaced(here: Path) -> None:
    command = ("wells.toml", "--json", "found.json", "--plot", "found.png", "--quiet")
    run(*command)
    known = json.loads((here / "wells" / "outputs.json").read_text(encoding="utf-8"))
    assert sorted(known) == ["../found.json", "../found.png"]
    change(here / "wells.toml", "total = 12", "total = 15")
    run(*command)
    assert json.loads((here / "found.json").read_text(encoding="utf-8"))["n_points"] == 15
    # all of it somewhere else, and from another folder
    moved = here / "moved"
    moved.mkdir()
    for name in ("wells", "wells.toml", "wells_oracle.py", "found.json", "found.png"):
        (here / name).rename(moved / name)
    run("moved/wells.toml", "--report", "--json", "moved/found.json", "--plot", "moved/found.png", "--quiet")


def test_a_file_that_was_edited_is_not_replaced(here: Path) -> None:
    run("wells.toml", "--json", "found.json", "--quiet")
    (here / "found.json").write_text("mine", encoding="utf-8")
    change(here / "wells.toml", "total = 12", "total = 15")
    _, err = run("wells.toml", "--json", "found.json", "--plot", "new.png", status=1)
    assert "found.json: exists already" in err
    assert (here / "found.json").read_text(encoding="utf-8") == "mine"
    assert not (here / "wells" / "rounds" / "0003").exists()  # before any work
    # nor a copy of what the run wrote, under another name
    run("wells.toml", "--report", "--json", "a.json", "--quiet")
    shutil.copy(here / "a.json", here / "b.json")
    _, err = run("wells.toml", "--report", "--json", "b.json", status=1)
    assert "b.json: exists already" in err
    run("wells.toml", "--report", "--json", "found.json", "--overwrite", "--quiet")
    run("wells.toml", "--report", "--json", "found.json", "--quiet")


@pytest.mark.parametrize("text", ["{", "[]", '{"../found.json": 3}'])
def test_a_damaged_list_of_outputs_lets_nothing_be_replaced(text: str, here: Path) -> None:
    run("wells.toml", "--json", "found.json", "--quiet")
    (here / "wells" / "outputs.json").write_text(text, encoding="utf-8")
    _, err = run("wells.toml", "--json", "found.json", status=1)
    assert "exists already" in err


def test_one_dimension_is_drawn(here: Path) -> None:
    """Also the first round alone, which has no errors yet."""
    rows = [f"{i / 29},{(i / 29 - 0.3) * (i / 29 - 0.6)}" for i in range(30)]
    (here / "rows.csv").write_text("\n".join(["c,mu", *rows]) + "\n", encoding="utf-8")
    text = """
[domain]
kind = "simplex"
dimensions = 1
names = ["c"]
[oracle]
kind = "pool"
file = "rows.csv"
mu = ["mu"]
[model]
hidden = [3]
n_members = 2
max_iterations = 4
adam_steps = 10
[criteria]
space-filling = 1
[budget]
initial = 6
per_round = 3
total = 6
"""
    (here / "line.toml").write_text(text, encoding="utf-8")
    _, err = run("line.toml", "--plot", "line.png")
    assert err == ""
    first = (here / "line.png").read_bytes()
    assert len(first) > 10_000
    change(here / "line.toml", "total = 6", "total = 9")
    run("line.toml", "--plot", "line.png", "--quiet")
    assert (here / "line.png").read_bytes() != first


def test_panels_have_room_and_legends_cover_none(monkeypatch: pytest.MonkeyPatch) -> None:
    from quests_zenn.io import plots_active

    drawn: list[Any] = []
    monkeypatch.setattr(plots_active, "_save", lambda figure, *_: drawn.append(figure))
    grid = np.linspace(-1.0, 1.0, 9)
    energy = grid[:, None] ** 2 + grid**2
    some, none = np.zeros((1, 2)), np.empty((0, 2))
    slices = [
        plots_active.Slice("300 K", ("a", "b"), grid, grid, energy, energy < 0.1, some, wells) for wells in (some, none)
    ]
    names = [f"a criterion {i}" for i in range(12)]
    plots_active.plot_course(
        "drawn.png",
        courses=[plots_active.Course(name, [20], [0.2], [0.4]) for name in ("held out", "new, before training")],
        shares={name: [1, 2] for name in names},
        rounds=[0, 1],
        slices=slices + slices[:1],
    )
    figure = drawn[0]
    figure.draw_without_rendering()
    axes = [axis for axis in figure.axes if axis.get_xlabel()]
    assert len(axes) == 5
    panels = [axis.get_window_extent() for axis in axes]
    width, height = figure.bbox.size
    assert all(box.width > 0.15 * width and box.height > 0.2 * height for box in panels)
    legends = [axis.get_legend() for axis in figure.axes if axis.get_legend()] + figure.legends
    assert [len(legend.get_texts()) for legend in legends] == [4, 12, 3]
    boxes = [axis.get_tightbbox() for axis in axes] + [legend.get_window_extent() for legend in legends]
    overlaps = [(i, j) for j in range(len(boxes)) for i in range(j) if boxes[i].overlaps(boxes[j])]
    assert not overlaps
    assert all(min(box.x0, box.y0) >= 0.0 and box.x1 <= width and box.y1 <= height for box in boxes)
    assert [tick for tick in axes[1].get_xticks() if tick % 1] == []
    for axis in axes[2:]:
        assert len(axis.get_xticks()) <= 5
        assert len(axis.get_yticks()) <= 5
    # one point has marks for both numbers, and its axis some numbers to read them by
    assert [line.get_marker() for line in axes[0].lines] == ["o", "s"] * 2
    low, high = axes[0].get_ylim()
    assert sum(low <= tick <= high for tick in axes[0].get_yticks()) >= 2


def test_files_that_exist_stay(here: Path) -> None:
    (here / "found.json").write_text("mine", encoding="utf-8")
    _, err = run("wells.toml", "--json", "found.json", status=1)
    assert "exists already" in err
    assert not (here / "wells").exists()
    assert (here / "found.json").read_text(encoding="utf-8") == "mine"


def test_a_figure_that_a_kill_prevented_is_drawn(here: Path) -> None:
    pytest.importorskip("matplotlib")
    run("wells.toml")
    picture = next(here.glob("**/rounds/0001/figure.png"))
    picture.unlink()
    run("wells.toml")
    assert picture.exists()
