"""``quests-zenn thermo``."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import commands
import numpy as np
import pytest

from quests_zenn import DataError
from quests_zenn.cli import _fit, _thermo
from quests_zenn.cli._thermo import default_temperatures, load_model
from quests_zenn.cli.thermo import Numbers
from quests_zenn.io.tables import read_table

from . import stand_in
from .stand_in import GPA, TC, V0, StandIn, derivative


def run(*args: Any, status: int = 0) -> tuple[str, str]:
    """What the command says on stdout and stderr."""
    return commands.run("thermo", *args, status=status)


def document(*args: Any) -> dict[str, Any]:
    out, err = run("model", *args, "--quiet", "--json", "found.json", "--overwrite")
    assert (out, err) == ("", "")
    found: dict[str, Any] = json.loads(Path("found.json").read_text(encoding="utf-8"))
    return found


def refused(sentence: str, *args: Any, status: int = 1) -> None:
    before = sorted(path.name for path in Path().rglob("*"))
    out, err = run(*args, status=status)
    assert out == ""
    assert re.search(sentence, " ".join(err.split())), err
    if status == 1:
        assert len(err.splitlines()) == 1
    assert sorted(path.name for path in Path().rglob("*")) == before


@pytest.fixture(autouse=True)
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    """A landscape with a critical point, in place of what is in the folder ``model``."""
    monkeypatch.chdir(tmp_path)
    Path("model").mkdir()
    made = StandIn()
    monkeypatch.setattr(_thermo, "load_model", lambda name: made)
    monkeypatch.setattr(_thermo, "require_torch", lambda: None)
    return made


# --- what is found ----------------------------------------------------------------------------------------------------


def test_isobars_fulfil_their_equation_of_state() -> None:
    found = document("--pressure", "0:8:2", "--temperature", "50:350:50")
    assert found["pressures"] == [0.0, 2.0, 4.0, 6.0, 8.0]
    assert found["temperatures"] == [50.0, 100.0, 150.0, 200.0, 250.0, 300.0, 350.0]
    T = np.array(found["temperatures"])
    for isobar in found["isobars"]:
        V = np.array(isobar["volume"])
        np.testing.assert_allclose(-GPA * derivative(V, T, (1, 0)), isobar["pressure"], atol=1e-7)
        F, S = derivative(V, T, (0, 0)), -derivative(V, T, (0, 1))
        np.testing.assert_allclose(isobar["free_energy"], F, atol=1e-9)
        np.testing.assert_allclose(isobar["entropy"], S, atol=1e-12)
        np.testing.assert_allclose(isobar["internal_energy"], F + T * S, atol=1e-9)
        np.testing.assert_allclose(isobar["gibbs"], F + isobar["pressure"] * V / GPA, atol=1e-9)
        np.testing.assert_allclose(isobar["bulk_modulus"], GPA * V * derivative(V, T, (2, 0)), rtol=1e-6)
        np.testing.assert_allclose(isobar["heat_capacity"], -T * derivative(V, T, (0, 2)), rtol=1e-6)
        alpha = -derivative(V, T, (1, 1)) / (V * derivative(V, T, (2, 0)))
        np.testing.assert_allclose(isobar["thermal_expansion"], alpha, rtol=1e-6)
        assert isobar["extrapolated"] == [False] * len(T)
        assert all(std > 0.0 for std in isobar["volume_std"])
    assert found["extrapolated"] is False
    assert found["model"]["n_atoms"] == 12
    assert (found["command"], found["inputs"], found["n_workers"]) == ("thermo", ["model"], 1)
    assert set(found) >= {"versions", "timings", "units", "seed", "precision"}
    assert "torch" in found["versions"]


def test_transitions() -> None:
    found = document("--temperature", "100,150,200")
    point = found["critical_point"]
    assert point["temperature"] == pytest.approx(TC, abs=1e-5)
    assert point["volume"] == pytest.approx(V0, abs=1e-5)
    assert point["pressure"] == pytest.approx(stand_in.CRITICAL_PRESSURE, abs=1e-6)
    assert point["temperature_std"] == pytest.approx(np.std(stand_in.SHIFTS, ddof=1), rel=0.3)
    half = np.sqrt(stand_in.A * (TC - np.array([100.0, 150.0])) / (6 * stand_in.B))
    np.testing.assert_allclose(found["spinodal"]["volume_low"][:2], V0 - half, rtol=1e-7)
    np.testing.assert_allclose(found["spinodal"]["volume_high"][:2], V0 + half, rtol=1e-7)
    assert found["spinodal"]["volume_low"][2] is None
    assert found["binodal"]["pressure"][2] is None
    # odd in w about the critical volume
    expected = [(stand_in.P0 + stand_in.S0 * T) * GPA for T in (100.0, 150.0)]
    np.testing.assert_allclose(found["binodal"]["pressure"][:2], expected, rtol=1e-9)


def test_negative_expansion() -> None:
    """dP/dT at constant volume is S0 - 2 A w: expansion is negative at large volumes, which low pressures make."""
    found = document("--pressure", "5,9", "--temperature", "200:400:10")
    for isobar in found["isobars"]:
        expected = np.array(isobar["thermal_expansion"]) < 0.0
        T = np.array(found["temperatures"])
        inside = np.zeros(len(T), bool)
        for entry in isobar["negative_expansion"]:
            inside |= (entry["low"] - 1e-6 <= T) & (entry["high"] + 1e-6 >= T)
        np.testing.assert_array_equal(inside, expected)
    low, high = (isobar["negative_expansion"] for isobar in found["isobars"])
    assert high == []
    assert [(entry["low_kind"], entry["high_kind"], entry["share_of_members"]) for entry in low] == [
        ("range", "range", 1.0)
    ]


def test_default_temperatures_and_pressure(model: StandIn) -> None:
    found = document()
    assert found["pressures"] == [0.0]
    T = found["temperatures"]
    assert (T[0], T[-1]) == (5.0, 400.0)
    assert 40 <= len(T) <= 90
    for low, high in ((5.0, 600.0), (0.5, 6.0), (300.0, 301.0), (1e-3, 1e4)):
        T = default_temperatures(low, high)
        assert (T[0], T[-1]) == (low, high)
        assert 35 <= len(T) <= 95
        assert sorted(set(T)) == list(T)
    assert default_temperatures(5.0, 600.0)[:3] == (5.0, 10.0, 20.0)
    assert default_temperatures(300.0, 300.0) == (300.0,)


def test_states(model: StandIn) -> None:
    found = document("--state", "152,300", "--state", "157,300", "--pressure", "0")
    assert len(found["isobars"]) == 1
    found = document("--state", "152,300", "--state", "157,300")
    assert not {"isobars", "spinodal", "binodal", "critical_point", "pressures"} & set(found)  # nobody asked for them
    assert not {"isobars", "expansion", "transitions"} & set(found["timings"])
    first, second = found["states"]
    assert first["free_energy"] == pytest.approx(float(derivative(152.0, 300.0, (0, 0))))
    S = float(-derivative(152.0, 300.0, (0, 1))) / 8.617333262145179e-05 / 12
    assert first["entropy"] == pytest.approx(S)  # k_B per atom, as it is told
    assert first["pressure_std"] > 0.0
    assert (first["extrapolated"], second["extrapolated"], found["extrapolated"]) == (False, True, True)
    out, err = run("model", "--state", "152,300", "--state", "157,300")
    assert re.search(
        rf"^V = 152 Å3, T = 300 K\n  F  .* eV\n  U  .* eV\n  P  .* GPa\n  S  {S:.6g} k_B per atom$", out, re.M
    )
    assert re.search(r"^V = 157 Å3, T = 300 K  \(extrapolated\)$", out, re.M)
    assert re.fullmatch(
        r"warning: 1 of 2 states lie outside the range of the fit \(144 to 156 Å3, 5 to 400 K\) and are "
        r"extrapolated\n",
        err,
    )


def test_what_the_data_do_not_fix(model: StandIn) -> None:
    model.known_ = {"F", "P"}
    found = document("--state", "152,300", "--pressure", "0")
    assert found["states"][0]["entropy"] is None
    assert found["isobars"][0]["entropy"][0] is None
    assert re.search(r"^  S  not fixed by the data of the fit$", run("model", "--state", "152,300")[0], re.M)


def test_what_energies_are_relative_to(model: StandIn) -> None:
    assert document("--state", "152,300")["states"][0]["relative_to"] == {}
    model.known_ = {"F", "P"}
    model.relative_to_ = "F up to a function of T: differences in x at one temperature"
    found = document("--state", "152,300", "--pressure", "0")
    assert found["states"][0]["relative_to"] == {"free_energy": "up to a function of T"}
    assert found["isobars"][0]["relative_to"] == {
        "free_energy": "up to a function of T", "gibbs": "up to a function of T",
    }  # fmt: skip
    out, _ = run("model", "--state", "152,300")
    assert re.search(r"^  F  .* eV  \(up to a function of T\)$", out, re.M)
    assert re.search(r"^  P  .* GPa$", out, re.M)


@pytest.mark.parametrize(
    ("kinds", "expected"),
    [
        (["F", "P", "U"], {}),
        (["U", "S"], {}),
        (["P"], {"free_energy": "up to a function of T"}),
        (["density"], {"free_energy": "up to a function of T"}),
        (["U", "P"], {"entropy": "up to a constant s0", "free_energy": "up to -s0 T"}),
        (["S", "P"], {"free_energy": "up to a constant", "internal_energy": "up to a constant"}),
    ],
)
def test_offsets_follow_the_words_of_models(kinds: list[str], expected: dict[str, str]) -> None:
    rows = pytest.importorskip("quests_zenn.zenn._rows")
    found = _fit.offsets(rows.relative_to(kinds))
    assert found.pop("gibbs", None) == found.get("free_energy")
    assert found == expected


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({}, "130.5 ± 8.3 to 298.5 ± 3.1 K"),
        ({"high_kind": "jump", "high_std": None}, "130.5 ± 8.3 to 298.5 K (jump)"),
        ({"low_kind": "jump", "low_std": 0.0}, "130.5 (jump) to 298.5 ± 3.1 K"),
        ({"low_kind": "range", "low": 5.0, "low_std": None}, "<5 to 298.5 ± 3.1 K"),
        ({"high_kind": "range", "high": 600.0, "high_std": None}, "130.5 ± 8.3 to >600 K"),
        ({"high_kind": "bounds", "high_std": None}, "130.5 ± 8.3 to 298.5 K (end of volumes)"),
    ],
)
def test_ranges_of_negative_expansion(changes: dict[str, Any], told: str) -> None:
    entry = {"low": 130.4873, "low_std": 8.31, "high": 298.4871, "high_std": 3.14, "low_kind": "zero",
             "high_kind": "zero"}  # fmt: skip
    assert _thermo._range_told(entry | changes) == told


def test_the_table(model: StandIn) -> None:
    out, err = run("model", "--pressure", "0:12:4", "-o", "iso.csv")
    assert err == ""
    for row in (
        r"model +model: 12 atoms per unit, committee of 3 \(bands of so few are rough\)",
        r"range +144 to 156 Å3, 5 to 400 K",
        r"relative to +F of the table",
        r"critical +160\.0 ± \d\.\d K, 150 Å3, 6\.4\d+ ± 0\.\d+ GPa \(in 100% of the committee\)",
        r"written +iso\.csv",
        r"time +\d.* s \(importing torch \d.*, loading \d.*, isobars \d.*, expansion \d.*, transitions \d.*\)",
        r" +0 +5 to 400 +155\.196 to 153\.827 +\d.* +<5 to >400 K",
        r" +12 +5 to 400 +144\.986 to 146\.492 +\d.* +none",
    ):
        assert re.search(f"^{row}$", out, re.M), (row, out)
    out, _ = run("model", "--pressure", "100")
    assert re.search(r"^ +100  no stable state in the range of the fit$", out, re.M)


def test_the_csv(model: StandIn) -> None:
    found = document("--pressure", "0,4", "--temperature", "100:300:100", "-o", "iso.csv.gz")
    table = read_table("iso.csv.gz")
    assert table.column("pressure_GPa").tolist() == [0.0] * 3 + [4.0] * 3
    assert table.column("temperature_K").tolist() == [100.0, 200.0, 300.0] * 2
    for name, column in _thermo.COLUMNS.items():
        values = [value for isobar in found["isobars"] for value in isobar[name]]
        np.testing.assert_array_equal(table.column(column), values)
    values = [value for isobar in found["isobars"] for value in isobar["volume_std"]]
    np.testing.assert_array_equal(table.column("volume_std_A3"), values)
    assert table.column("extrapolated").tolist() == [0.0] * 6


def test_beyond_the_range(model: StandIn) -> None:
    _, err = run("model", "--temperature", "350:450:50", "-o", "iso.csv", "--json", "found.json")
    assert len(err.splitlines()) == 1
    assert re.match(r"warning: 1 of 3 states lie outside the range of the fit", err)
    assert read_table("iso.csv").column("extrapolated").tolist() == [0.0, 0.0, 1.0]
    found = json.loads(Path("found.json").read_text(encoding="utf-8"))
    assert found["isobars"][0]["extrapolated"] == [False, False, True]
    assert found["extrapolated"] is True
    assert run("model", "--temperature", "450", "--quiet") == ("", "")


def test_the_plot(model: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    for name, *args in (
        ("many.png", "--pressure", "0:8:0.5"),
        ("one.svg", "--temperature", "300"),
        ("none.pdf", "--pressure", "100", "--temperature", "300:500:50"),
    ):
        run("model", "--plot", name, *args)
        assert Path(name).stat().st_size > 5_000
    refused("exists already", "model", "--plot", "many.png")
    monkeypatch.setattr(stand_in, "SHIFTS", (0.0,))
    model.n_members_ = 1  # no deviations anywhere, and a critical point
    assert document("--plot", "alone.png", "--pressure", "8")["critical_point"]["temperature_std"] is None
    assert re.search(r"^critical +160 K, 150 Å3, 6.4\d+ GPa ", run("model", "--pressure", "8")[0], re.M)
    refused("a plot is written as", "model", "--plot", "many.txt")


def test_a_surface_without_instability(model: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    model.T_range_ = np.array([200.0, 400.0])
    found = document()
    assert found["critical_point"] is None
    assert set(found["spinodal"]["pressure_low"]) == {None}
    assert "none in the range of the fit" in run("model")[0]


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("0:8:1", [0, 1, 2, 3, 4, 5, 6, 7, 8]),
        ("0:1:0.1", [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]),
        ("-1:1:1", [-1, 0, 1]),
        ("0:5:2", [0, 2, 4]),
        ("3,1,2.5,1", [1, 2.5, 3]),
        ("7", [7]),
        ("2:2:1", [2]),
        ("1e1:3e1:1e1", [10, 20, 30]),
    ],
)
def test_numbers(text: str, numbers: list[float]) -> None:
    assert Numbers().convert(text, None, None) == tuple(map(float, numbers))


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (("--pressure", "0:8"), "'0:8' is no range FIRST:LAST:STEP"),
        (("--pressure", "8:0:1"), "it runs from small to large by a positive step"),
        (("--pressure", "0:8:0"), "it runs from small to large by a positive step"),
        (("--pressure", "0:1e9:1"), "stands for 1,000,000,001 numbers"),
        (("--pressure", "a"), "is no range FIRST:LAST:STEP and no list of numbers"),
        (("--pressure", "nan"), "no list of numbers"),
        (("--pressure", "1,,2"), "no list of numbers"),
        (("--temperature", "0:300:10"), "holds 0, and temperatures must be positive"),
        (("--temperature", "-5"), "temperatures must be positive"),
        (("--state", "150"), "'150' is not of the form V,T"),
        (("--state", "150,0"), "'150,0' is not of the form V,T"),
    ],
)
def test_usage(args: tuple[str, ...], sentence: str) -> None:
    refused(sentence, "model", *args, status=2)


def test_outputs_are_judged_first(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(name: str) -> Any:
        raise AssertionError("the work has begun")

    monkeypatch.setattr(_thermo, "load_model", never)
    Path("old.csv").write_text("kept", encoding="utf-8")
    refused("old.csv: exists already; choose another name or say --overwrite", "model", "-o", "old.csv")
    refused("its name must end in .csv or .csv.gz", "model", "-o", "iso.txt")
    refused("two outputs have the same name", "model", "-o", "a.csv", "--json", "a.csv")
    refused("model/x.json: lies in the folder of the model", "model", "--json", "model/x.json")
    refused("the folder none does not exist", "model", "--json", "none/x.json")


def test_models_that_are_none() -> None:
    Path("file").touch()
    with pytest.raises(DataError, match="none: no such folder; quests-zenn fit writes one"):
        load_model("none")
    with pytest.raises(DataError, match="file: is a file; a model is a folder that quests-zenn fit wrote"):
        load_model("file")


def test_a_model_of_order_parameters(model: StandIn) -> None:
    model.coordinate = "order"
    refused("model: is a free energy over order parameters; pressures and isobars need one over volume", "model")


def test_a_model_that_knows_no_pressure(model: StandIn) -> None:
    model.known_ = {"U", "C_V"}
    refused(
        r"model: the data of this model do not fix pressures \(F of the table\); fit F, P or densities too", "model"
    )


def test_missing_extras(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_thermo, "require_torch", _fit.require_torch)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    refused(r"this needs torch, which is not installed: pip install 'quests_zenn\[zenn\]'", "model")


def test_missing_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    refused(r"this needs matplotlib, .*quests_zenn\[plot\]", "model", "--plot", "pt.png")


@pytest.mark.parametrize("command", ["fit", "thermo"])
def test_help_needs_no_torch_and_no_numpy(command: str) -> None:
    code = f"""
import sys
for name in ("torch", "safetensors", "numpy", "matplotlib"):
    sys.modules[name] = None  # an import fails
from quests_zenn.cli.main import main
main(["{command}", "--help"])
"""
    ended = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "Usage:" in ended.stdout
    assert "Examples:" in ended.stdout
