"""The scripts of the gallery run without a warning, draw what they announce, and find what their text says."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

GALLERY = Path(__file__).resolve().parent.parent / "examples" / "gallery"
SCRIPTS = sorted(GALLERY.glob("*.py"))

#: What a script prints, and what its text says of these numbers.
FOUND: dict[str, tuple[str, Any]] = {
    "1_melting": (r"largest rise: (\S+) nats at (\d+) ps", lambda rise, at: rise > 0.3 and abs(at - 117) < 4),
    "2_bandwidth": (r"differ most at h = (\S+) 1/Å, by (\S+) nats", lambda h, by: 0.015 < h < 0.03 and by > 3.3),
    "3_learning_curve": (
        r"crystal, h = 0.03: H = (\S+), missing (\S+) ± .*\nliquid, h = 0.015: H = (\S+), missing the curve rises",
        lambda crystal, gap, liquid: crystal < 2.5 < 8 < liquid and abs(gap) < 0.1,
    ),
    "4_new_atoms": (
        r"first ten frames (\S+)%, last ten (\S+)%\n.* are new: (\S+) Å apart, drawn at random (\S+) ± (\S+) Å",
        lambda first, last, new, drawn, std: first < 1 and last > 40 and new < drawn - 2 * std,
    ),
    "5_compress": (
        r"msc .* D (\S+) nats, (\S+)% covered\nrandom .* D (\S+) nats, (\S+)% covered",
        lambda D, covered, D_random, covered_random: D_random < D and covered > covered_random,
    ),
    "6_free_energy": (
        r"rms (\S+) meV\ncritical point (\d+) ± (\d+) K, (\S+) ± (\S+) GPa",
        lambda rms, T, dT, P, dP: rms < 0.7 and abs(T - 126.5) < 3 * dT < 60 and abs(P - 3.3) < 3 * dP < 3,
    ),
    "7_active_learning": (r"barrier between the wells: (\S+) meV, truth (\S+)", lambda g, truth: abs(g - truth) < 3),
    "8_map": (
        r"(\d+)% of the variance in two directions of 63\n.* in about (\d+) directions",
        lambda share, directions: share > 60 and 5 < directions < 25,
    ),
}


def test_every_script_is_judged() -> None:
    assert [path.stem for path in SCRIPTS] == list(FOUND)


@pytest.mark.slow  # building the pages runs them as well
@pytest.mark.extra
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_script(script: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    matplotlib = pytest.importorskip("matplotlib")
    if "the extra ``zenn``" in " ".join(script.read_text(encoding="utf-8").split()).replace("# ", ""):
        pytest.importorskip("torch")
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    plt.close("all")
    monkeypatch.chdir(GALLERY)
    before = sorted(GALLERY.iterdir())
    try:
        runpy.run_path(str(script), run_name="__main__")
        (number,) = plt.get_fignums()
        panels = plt.figure(number).axes
        assert all(axes.get_xlabel() or axes.get_ylabel() for axes in panels)
        assert all(axes.lines or axes.collections or axes.patches for axes in panels)
    finally:
        plt.close("all")
    pattern, judge = FOUND[script.stem]
    printed = capsys.readouterr().out
    found = re.search(pattern, printed)
    assert found is not None, printed
    assert judge(*map(float, found.groups())), printed
    assert sorted(path for path in GALLERY.iterdir() if path.name != "__pycache__") == before  # it writes nothing


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_without_matplotlib_a_script_says_which_extra_it_takes(script: Path) -> None:
    told = run_without("matplotlib", script)
    assert told.strip() == "this example draws, which takes the extra plot: pip install quests_zenn[plot]"


@pytest.mark.extra
@pytest.mark.parametrize("name", ["6_free_energy", "7_active_learning"])
def test_without_torch_a_script_says_which_extra_it_takes(name: str) -> None:
    pytest.importorskip("matplotlib")
    told = run_without("torch", GALLERY / f"{name}.py")
    assert re.search(r"MissingExtraError: .*torch.*zenn", told.splitlines()[-1]), told


#: Runs a script as if a package were not installed. (Others look for it in sys.modules, so that None there is no way.)
WITHOUT = """
import runpy, sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == sys.argv[1]:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Missing())
runpy.run_path(sys.argv[2], run_name="__main__")
"""


def run_without(package: str, script: Path) -> str:
    """What a script says on stderr where a package is missing."""
    command = [sys.executable, "-W", "error", "-c", WITHOUT, package, script.name]
    done = subprocess.run(command, cwd=GALLERY, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 1
    return done.stderr
