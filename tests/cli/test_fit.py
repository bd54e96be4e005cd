"""``quests-zenn fit``."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import commands
import numpy as np
import pytest

from quests_zenn.cli import _fit, _options
from quests_zenn.cli.fit import Comparison, Condition, UnitsOf
from quests_zenn.io.tables import write_table

from . import stand_in
from .stand_in import GPA, V0, StandIn, derivative

ARGS = ("table.csv", "--x", "volume_A3", "--T", "T_K", "--target", "F=F_eV", "-o", "model")


def run(*args: Any, status: int = 0) -> tuple[str, str]:
    """What the command says on stdout and stderr."""
    return commands.run("fit", *args, status=status)


def document(*args: Any) -> dict[str, Any]:
    out, _ = run(*args, "--quiet", "--json", "found.json", "--overwrite")
    assert out == ""
    found: dict[str, Any] = json.loads(Path("found.json").read_text(encoding="utf-8"))
    return found


def given() -> dict[str, Any]:
    """What the last fit got."""
    return StandIn.fitted[-1]


def refused(sentence: str, *args: Any, status: int = 1) -> None:
    before, n_fits = {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()}, len(StandIn.fitted)
    out, err = run(*args, status=status)
    assert out == ""
    assert re.search(sentence, " ".join(err.split())), err
    assert "Traceback" not in err
    if status == 1:
        assert len(err.splitlines()) == 1
    assert {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()} == before
    assert len(StandIn.fitted) == n_fits


def columns() -> dict[str, np.ndarray]:
    """A grid of 7 volumes and 5 temperatures."""
    T, V = (grid.ravel() for grid in np.meshgrid(np.linspace(50.0, 350.0, 5), np.linspace(144.0, 156.0, 7)))
    return {
        "volume_A3": V, "T_K": T, "F_eV": derivative(V, T, (0, 0)), "P_kbar": np.cos(V), "U_meV": 1e3 * np.sin(V),
        "S_kB": V - T, "free": 0.5 * V, "mu_0": 0.1 * V, "mu_1": -T / 7.0, "n_0": V / 156.0, "n_1": T / 350.0,
        "density": np.exp(-np.abs(V - V0)), "w": 1.0 + np.arange(len(V)), "P_std_GPa": 0.01 * V,
        "odd": np.arange(len(V)) % 2.0,
    }  # fmt: skip


def rewrite(name: str, row: int, cell: str) -> int:
    """Put other content into one cell; its line."""
    lines = Path("table.csv").read_text(encoding="utf-8").splitlines()
    cells = lines[row + 1].split(",")
    cells[lines[0].split(",").index(name)] = cell
    lines[row + 1] = ",".join(cells)
    Path("table.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return row + 2


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A table, and a model that only notes down what it gets."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(_fit, "require_torch", lambda: None)
    names = {"configurations": "n_configurations", "members": "n_members", "seed": "random_state"}

    def make(options: dict[str, Any]) -> StandIn:
        wanted = ("coordinate", "n_atoms", "configurations", "members", "seed", "jobs")
        return StandIn(**{names.get(name, name): options[name] for name in wanted})

    monkeypatch.setattr(_fit, "make_model", make)
    write_table("table.csv", columns())
    StandIn.fitted.clear()
    yield
    StandIn.fitted.clear()


# --- what a model gets ------------------------------------------------------------------------------------------------


def test_the_table_reaches_the_model() -> None:
    run(*ARGS, "--atoms", 12, "--configurations", 7, "--members", 3, "--seed", 5, "--jobs", 2)
    expected = columns()
    np.testing.assert_array_equal(given()["x"], expected["volume_A3"])
    np.testing.assert_array_equal(given()["T"], expected["T_K"])
    np.testing.assert_array_equal(given()["F"], expected["F_eV"])
    assert (given()["sample_weight"], given()["errors"]) == (None, None)
    assert given()["options"] == {
        "coordinate": "volume", "n_atoms": 12, "n_configurations": 7, "n_members": 3, "random_state": 5, "jobs": 2,
    }  # fmt: skip
    assert sorted(path.name for path in Path().iterdir()) == ["model", "table.csv"]
    assert sorted(path.name for path in Path("model").iterdir()) == ["model.json", "model.safetensors"]


def test_units_of_all_targets() -> None:
    run(
        *ARGS, "--target", "P=P_kbar", "--target", "U=U_meV", "--target", "S=S_kB", "--target", "density=density",
        "--weight", "w", "--error", "F=0.002", "--error", "P=P_std_GPa", "--error", "U=3",
    )  # fmt: skip
    expected, got = columns(), given()
    np.testing.assert_allclose(got["P"], 0.1 * expected["P_kbar"], rtol=1e-15)
    np.testing.assert_allclose(got["U"], 1e-3 * expected["U_meV"], rtol=1e-15)
    np.testing.assert_allclose(got["S"], 8.617333262145179e-05 * expected["S_kB"], rtol=1e-15)
    np.testing.assert_array_equal(got["density"], expected["density"])
    np.testing.assert_array_equal(got["sample_weight"], expected["w"])
    np.testing.assert_array_equal(got["errors"]["F"], np.full(35, 0.002))
    np.testing.assert_array_equal(got["errors"]["P"], expected["P_std_GPa"])
    np.testing.assert_allclose(got["errors"]["U"], 3e-3)  # in the unit of its column, meV
    assert set(got["errors"]) == {"F", "P", "U"}


def test_units_that_names_do_not_tell() -> None:
    run("table.csv", "--x", "volume_A3", "--T", "T_K", "--target", "F=free", "--units", "free=kJ_mol,T_K=kK", "-o", "m")
    np.testing.assert_allclose(given()["F"], columns()["free"] * 0.0103642697, rtol=1e-7)
    np.testing.assert_allclose(given()["T"], 1e3 * columns()["T_K"])


def test_order_parameters() -> None:
    run(
        "table.csv", "--coordinate", "order", "--x", "n_0,n_1", "--T", "T_K", "--target", "mu=mu_0,mu_1",
        "--units", "mu_*=meV", "--error", "mu=0.5", "-o", "m",
    )  # fmt: skip
    expected = columns()
    np.testing.assert_array_equal(given()["x"], np.column_stack([expected["n_0"], expected["n_1"]]))
    np.testing.assert_allclose(given()["mu"], 1e-3 * np.column_stack([expected["mu_0"], expected["mu_1"]]))
    np.testing.assert_allclose(given()["errors"]["mu"], np.full((35, 2), 5e-4))


def test_order_parameters_need_no_second_temperature() -> None:
    write_table("table.csv", columns() | {"T_K": np.full(35, 300.0)}, overwrite=True)
    out, _ = run(
        "table.csv", "--coordinate", "order", "--x", "n_0", "--x", "n_1", "--T", "T_K", "--target", "mu=mu_0,mu_1",
        "--units", "mu_*=meV", "-o", "m",
    )  # fmt: skip
    expected = columns()
    np.testing.assert_array_equal(given()["x"], np.column_stack([expected["n_0"], expected["n_1"]]))
    assert re.search("^range +2 coordinates, T_K 300 K$", out, re.M)
    assert re.search("^model +12 configurations, committee of 5$", out, re.M)


def test_missing_targets_stay_missing_and_empty_rows_go() -> None:
    rewrite("F_eV", 3, "")
    rewrite("F_eV", 4, "nan")
    rewrite("P_kbar", 4, "")
    found = document(*ARGS, "--target", "P=P_kbar")
    assert found["rows"] == {"table": 35, "where": 35, "without_target": 1, "copies": 0, "used": 34}
    assert np.flatnonzero(np.isnan(given()["F"])).tolist() == [3]
    assert not np.isnan(given()["P"]).any()


def test_errors_are_needed_only_where_targets_are() -> None:
    rewrite("P_kbar", 4, "")
    rewrite("P_std_GPa", 4, "")
    run(*ARGS, "--target", "P=P_kbar", "--error", "P=P_std_GPa")
    expected = columns()["P_std_GPa"]
    expected[4] = 1.0  # where nothing is known, any will do
    np.testing.assert_array_equal(given()["errors"]["P"], expected)
    line = rewrite("P_std_GPa", 5, "0")
    refused(
        rf"line {line}: P_std_GPa must be a positive error, got 0",
        *ARGS[:-1], "other", "--target", "P=P_kbar", "--error", "P=P_std_GPa",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("condition", "holds"),
    [
        ("T_K<=200", lambda c: c["T_K"] <= 200.0),
        ("T_K < 200", lambda c: c["T_K"] < 200.0),
        ("T_K>=200", lambda c: c["T_K"] >= 200.0),
        ("T_K>1.25e2", lambda c: c["T_K"] > 125.0),
        ("volume_A3!=150", lambda c: c["volume_A3"] != 150.0),
        ("odd==1", lambda c: c["odd"] == 1.0),
        ("odd = 0", lambda c: c["odd"] == 0.0),
    ],
)
def test_where(condition: str, holds: Any) -> None:
    found = document(*ARGS, "--where", condition, "--where", "T_K>0")
    expected = columns()
    np.testing.assert_array_equal(given()["F"], expected["F_eV"][holds(expected)])
    assert found["rows"]["where"] == holds(expected).sum() < 35
    assert len(found["where"]) == 2


def test_copies_are_counted_once() -> None:
    text = Path("table.csv").read_text(encoding="utf-8")
    Path("table.csv").write_text(text + "".join(text.splitlines(keepends=True)[2:4]), encoding="utf-8")
    out, err = run(*ARGS)
    assert err == "warning: table.csv: 2 rows repeat earlier ones exactly and are left out (line 37)\n"
    assert re.search(r"^table +table\.csv: 35 of 37 rows used; left out: 2 copies$", out, re.M)
    np.testing.assert_array_equal(given()["F"], columns()["F_eV"])
    rewrite("F_eV", 36, "0.125")  # the same state, measured again
    run(*ARGS, "--overwrite")
    assert len(given()["F"]) == 36


# --- what is told -----------------------------------------------------------------------------------------------------


def test_the_document() -> None:
    found = document(*ARGS, "--target", "P=P_kbar", "--atoms", 12, "--seed", 3, "--error", "P=0.1", "--jobs", 1)
    assert (found["command"], found["inputs"], found["seed"], found["n_workers"]) == ("fit", ["table.csv"], 3, 1)
    assert (found["n_atoms"], found["n_configurations"], found["n_members"]) == (12, 12, 5)
    assert found["columns"] == {
        "x": ["volume_A3"], "T": "T_K", "targets": {"F": ["F_eV"], "P": ["P_kbar"]}, "errors": {"P": ["0.1"]},
        "weight": None,
    }  # fmt: skip
    assert found["column_units"] == {"volume_A3": "A3", "T_K": "K", "F_eV": "eV", "P_kbar": "kbar"}
    assert set(found["targets"]) == {"F", "P"}
    assert set(found["targets"]["F"]) == {"n", "rms", "chi2", "rms_validation", "noise"}
    assert found["report"] == {"seconds": 0.5, "iterations": 40, "converged": True}  # each thing is told once
    assert found["continued"] is False
    assert found["T_range"] == [50.0, 350.0]
    assert found["critical_point"]["temperature"] == pytest.approx(160.0, abs=1e-5)
    assert set(found) >= {"versions", "timings", "units", "report", "relative_to"}
    assert set(found["timings"]) >= {"reading", "torch", "fit", "writing", "analysis", "total"}
    first, second, third = found["configurations"]
    assert {first["number"], second["number"], third["number"]} == {0, 1, 2}
    assert third == {"number": 2, "share": pytest.approx(0.1), "rules": 0.0, "T_range": None, "x_range": None}
    assert first["share"] + second["share"] + third["share"] == pytest.approx(1.0)
    (above,) = (entry for entry in found["configurations"] if entry["number"] == 0)
    assert above["x_range"] == [[150.0, 156.0]]  # at V0 the first of equals
    assert above["rules"] == pytest.approx(4 / 7)


def test_the_table() -> None:
    out, err = run(*ARGS, "--target", "P=P_kbar", "--where", "T_K<=300", "--atoms", 12, "--jobs", 1)
    assert err == ""
    for row in (
        r"table +table\.csv: 28 of 35 rows used; left out: 7 by --where",
        r"range +volume_A3 144 to 156 Å3, T_K 50 to 275 K",
        r"model +12 configurations, committee of 5, 12 atoms per unit",
        r"relative to +F of the table",
        r"critical +160\.0 ± \d.* K, 150 Å3, 6\.4\d+ ± 0\.\d+ GPa \(in 100% of the committee\)",
        r"written +model/",
        r"time +\d.* s \(reading \d.*, importing torch \d.*, fit \d.*, writing \d.*, analysis \d.*; 1 thread\)",
        r"target +unit +values +rms +rms valid\. +noise +chi2",
        r"F +meV +28 +0\.5 +0\.45 +0\.25 +1\.25",
        r"P +GPa +28 +0\.0005 +0\.00045 +0\.00025 +1\.25",
        r"configuration +share +rules +where: T \(K\), x \(Å3\)",
        r"0 +\d\d\.\d% +57\.1%  50 to 275, 150 to 156",
        r"1 +\d\d\.\d% +42\.9%  50 to 275, 144 to 148",
        r"2 +10\.0% +0\.0%",
    ):
        assert re.search(f"^{row}$", out, re.M), (row, out)
    assert not re.search(r"^fit ", out, re.M)  # it ended by itself, and in one go
    assert run(*ARGS, "--overwrite", "--quiet") == ("", "")


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What replaces the report of a fit of F and P, to be filled."""
    changes: dict[str, Any] = {}
    usual = stand_in.report

    def report(names: list[str], n: int) -> dict[str, Any]:
        found = usual(names, n)
        for name, values in changes.get("targets", {}).items():
            found["targets"][name] |= values
        return found | {key: value for key, value in changes.items() if key != "targets"}

    monkeypatch.setattr(stand_in, "report", report)
    return changes


def test_a_fit_that_ended_by_its_limit_says_so(told: dict[str, Any]) -> None:
    told |= {"converged": False, "iterations": 100}
    out, err = run(*ARGS)
    assert re.search("^fit +ended by its limit of 100 steps; fine where rms valid. is near the noise$", out, re.M)
    assert err == ""


def test_errors_of_held_out_rows_above_the_noise(told: dict[str, Any]) -> None:
    told["targets"] = {"F": {"rms_validation": 0.0006, "noise": 0.0003}, "P": {"rms_validation": 0.5, "noise": 0.125}}
    out, err = run(*ARGS, "--target", "P=P_kbar")
    assert err == (
        "warning: rms valid. is well above the noise (P 4.0 times): "
        "try another --seed or more --members, or more data\n"
    )
    assert run(*ARGS, "--target", "P=P_kbar", "--overwrite", "--quiet") == ("", "")
    told["targets"] = {"F": {"rms_validation": None, "noise": None, "chi2": None}}  # as with errors, or no such rows
    out, err = run(*ARGS, "--overwrite")
    assert err == ""
    assert re.search(r"^F +meV +35 +0\.5 +- +- +-$", out, re.M)


@pytest.mark.parametrize(("members", "hint"), [(1, r" \(no bands\)"), (3, r" \(bands of so few are rough\)"), (4, "")])
def test_few_members_are_told(members: int, hint: str) -> None:
    out, _ = run(*ARGS, "--members", members)
    assert re.search(f"^model .*, committee of {members}{hint}, 1 atom per unit$", out, re.M)


@pytest.mark.parametrize("coordinate", ["volume", "order"])
def test_the_plot(coordinate: str) -> None:
    pytest.importorskip("matplotlib")
    if coordinate == "volume":
        run(*ARGS, "--target", "P=P_kbar", "--target", "S=S_kB", "--plot", "fit.png")
    else:
        run(
            "table.csv", "--coordinate", "order", "--x", "n_0,n_1", "--T", "T_K", "--target", "mu=mu_0,mu_1",
            "--units", "mu_*=eV", "-o", "model", "--plot", "fit.png",
        )  # fmt: skip
    assert Path("fit.png").stat().st_size > 10_000
    refused("fit.png: exists already", *ARGS[:-1], "other", "--plot", "fit.png")


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (("--target", "G=F_eV"), "'G' is none of F, U, P, S, mu, density"),
        (("--target", "F"), "'F' is not of the form F=column"),
        (("--target", "F=P_kbar"), "--target F is given twice"),
        (("--target", "P=P_kbar,F_eV"), "--target P takes one column, got 2"),
        (("--target", "P=P_kbar,"), "does not name columns"),
        (("--target", "mu=mu_0"), "--target mu belongs to --coordinate order"),
        (("--x", "n_0,n_1"), "a volume is one column, got 3; see --coordinate order"),
        (("--x", "n_0,n_0"), "names a column twice"),
        (("--x", "volume_A3"), "--x names a column twice"),
        (("--x", "n_0"), "a volume is one column, got 2; see --coordinate order"),
        (("--coordinate", "order", "--target", "P=P_kbar"), "--target P belongs to --coordinate volume"),
        (("--coordinate", "order", "--target", "mu=mu_0,mu_1"), "one column for each of --x, got 2 for 1"),
        (("--coordinate", "order", "--target", "mu=mu_0", "--target", "mu=mu_1"), "columns are separated by commas"),
        (("--error", "P=1"), "--error P belongs to --target P, which is not given"),
        (("--error", "F=1", "--error", "F=2"), "--error F is given twice"),
        (("--error", "F=1,2"), "--error F takes one column or number"),
        (("--target", "density=density", "--error", "density=1"), "densities are compared as a whole, without errors"),
        (("--units", "F_eV=furlong"), "'furlong' is no known unit; known are A3"),
        (("--units", "F_eV"), "'F_eV' is not of the form column=eV"),
        (("--where", "T_K"), "'T_K' is not of the form T_K<=400"),
        (("--where", "T_K<=a"), "compares with 'a', which is no finite number"),
        (("--where", "T_K<=nan"), "no finite number"),
        (("--where", "1<T_K<400"), "is not of the form"),
        (("--where", "__import__('os')"), "is not of the form"),
        (("--members", "0"), "Invalid value for '--members'"),
        (("--atoms", "0"), "Invalid value for '--atoms'"),
    ],
)
def test_usage(args: tuple[str, ...], sentence: str) -> None:
    refused(sentence, *ARGS, *args, status=2)


def test_param_types() -> None:
    assert Comparison().convert(" T_K =  3 ", None, None) == Condition("T_K", "==", 3.0)
    assert str(Comparison().convert("free energy (eV)>=-1e3", None, None)) == "free energy (eV)>=-1000"
    assert UnitsOf().convert("F=eV, a=b=K", None, None) == {"F": "eV", "a=b": "K"}


def other(*changes: str) -> tuple[str, ...]:
    """The usual arguments with some that replace those given before."""
    args = list(ARGS)
    for option, value in zip(changes[::2], changes[1::2], strict=True):
        args[args.index(option) + 1] = value
    return tuple(args)


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (other("--x", "volume_A"), r"table\.csv: has no column 'volume_A'; did you mean volume_A3\?"),
        (other("--T", "temperature"), r"table\.csv: has no column 'temperature'; "),
        (other("--target", "F=F_ev"), r"has no column 'F_ev'; did you mean F_eV\?"),
        (other("--target", "F=free"), r"the name of column 'free' ends in no known unit of energy \(_eV, _meV, .*\); "
                                      r"say it with --units free=eV$"),
        (other("--target", "F=P_kbar"), r"column 'P_kbar' cannot be used here: kbar is a unit of pressure, where an "
                                        r"energy is needed; its units are eV, meV"),
        (other("--x", "T_K"), "K is a unit of temperature, where a volume is needed"),
        ((*ARGS, "--units", "fre=eV"), r"has no column 'fre', which --units names; did you mean free\?"),
        ((*ARGS, "--units", "nu_*=eV"), r"has no column 'nu_\*', which --units names; "),
        ((*ARGS, "--weight", "nothing"), "has no column 'nothing'"),
        ((*ARGS, "--error", "F=nothing"), "has no column 'nothing'"),
        ((*ARGS, "--error", "F=w"), "the name of column 'w' ends in no known unit of energy"),
        ((*ARGS, "--error", "F=-1"), "--error F=-1: must be positive and finite"),
        ((*ARGS, "--where", "Tk<3"), r"has no column 'Tk'; did you mean T_K\?"),
        ((*ARGS, "--where", "T_K>1000", "--where", "w>0"), "no row fulfils --where T_K>1000, w>0"),
        ((*ARGS, "--where", "T_K<60"), "table.csv: 7 rows to fit after --where, at least 8 are needed"),
        ((*ARGS, "--where", "T_K<130", "--where", "T_K>120", "--where", "w>0"), "7 rows to fit"),
        (other("-o", "table.csv"), "table.csv: exists and is no folder"),
        (other("-o", "none/model"), "the folder none does not exist"),
        ((*ARGS, "--json", "a.json", "--plot", "a.json"), "two outputs have the same name"),
        ((*ARGS, "--json", "table.csv"), "table.csv: exists already"),
        ((*ARGS, "--json", "model"), "model: is where the model goes"),
        ((*ARGS, "--overwrite", "--json", "table.csv"), "table.csv: is an input, and would be replaced"),
    ],
)  # fmt: skip
def test_bad_tables_and_names(args: tuple[str, ...], sentence: str) -> None:
    refused(sentence, *args)


@pytest.mark.parametrize(
    ("name", "cell", "sentence"),
    [
        ("T_K", "0", "T_K is 0; temperatures must be positive"),
        ("T_K", "-5", "T_K is -5; temperatures must be positive"),
        ("T_K", "", "T_K is missing; every row needs it"),
        ("T_K", "hot", "T_K must be a number, got 'hot'"),
        ("volume_A3", "nan", "volume_A3 is missing; every row needs it"),
        ("volume_A3", "0", "volume_A3 is 0; volumes must be positive"),
        ("volume_A3", "inf", "volume_A3 must be finite, got infinity"),
        ("F_eV", "low", "F_eV must be a number, got 'low'"),
        ("w", "-1", "w is -1; weights must not be negative"),
        ("w", "", "w is missing; every row needs it"),
        ("density", "-1", "density is -1; densities must not be negative"),
    ],
)
def test_bad_cells(name: str, cell: str, sentence: str) -> None:
    line = rewrite(name, 4, cell)
    refused(rf"table\.csv, line {line}: {sentence}", *ARGS, "--weight", "w", "--target", "density=density")


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"T_K": np.full(35, 300.0)}, "all rows are at 300 K; .* of volume .* needs at least two temperatures"),
        ({"volume_A3": np.full(35, 150.0)}, "volume_A3 is 150 in all rows; it has to vary"),
        ({"F_eV": np.full(35, np.nan)}, "F_eV holds no number in the rows used"),
        ({"w": np.zeros(35)}, "all weights in w are zero"),
    ],
)
def test_bad_columns(changed: dict[str, np.ndarray], sentence: str) -> None:
    write_table("table.csv", columns() | changed, overwrite=True)
    refused(rf"table\.csv: {sentence}", *ARGS, "--weight", "w")


def test_existing_models_are_kept_unasked() -> None:
    run(*ARGS)
    refused("model: exists already; choose another name or say --overwrite", *ARGS)
    run(*ARGS, "--overwrite")
    Path("model/notes.txt").write_text("mine", encoding="utf-8")
    refused("model: the folder holds other things than a model", *ARGS, "--overwrite")


def test_missing_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    refused(r"this needs matplotlib, .*quests_zenn\[plot\]", *ARGS, "--plot", "fit.png")


def test_missing_torch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    refused(r"this needs torch, which is not installed: pip install 'quests_zenn\[zenn\]'", *ARGS)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object() if name == "torch" else None)
    refused(r"this needs safetensors, which is not installed: pip install 'quests_zenn\[zenn\]'", *ARGS)


# --- fits that end early ----------------------------------------------------------------------------------------------


def test_an_interrupted_fit_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = StandIn.save

    def interrupted(self: StandIn, path: Any, overwrite: bool = False) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(StandIn, "save", interrupted)
    _, err = run(*ARGS, status=_options.INTERRUPTED)
    assert err == "quests-zenn fit: interrupted; the same command goes on where this one stopped\n"
    assert Path(".model.checkpoint").read_text(encoding="utf-8") == "half of it"
    assert not Path("model").exists()
    monkeypatch.setattr(StandIn, "save", whole)
    out, err = run(*ARGS)
    assert err == ""
    assert re.search("^fit +went on from an unfinished one$", out, re.M)
    assert given()["checkpoint"] == Path(".model.checkpoint")
    assert sorted(path.name for path in Path().iterdir()) == ["model", "table.csv"]


def test_a_fit_that_fails_leaves_no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(self: StandIn, *args: Any, **rest: Any) -> None:
        raise ValueError("the fit\ndiverged")

    monkeypatch.setattr(StandIn, "fit", fails)
    refused("quests-zenn fit: the fit diverged", *ARGS)


# --- with the real model ----------------------------------------------------------------------------------------------


@pytest.mark.extra
def test_from_a_table_to_isobars(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What the model was fitted on is what isobars show: the landscape that the table was made from."""
    pytest.importorskip("torch")
    pytest.importorskip("safetensors")
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    args = ("--atoms", 12, "--configurations", 2, "--members", 2, "--jobs", 1, "--target", "P=P_GPa")
    V, T = columns()["volume_A3"], columns()["T_K"]
    write_table("table.csv", {"volume_A3": V, "T_K": T, **solid(V, T)}, overwrite=True)
    found = document(*ARGS, *args)
    assert set(found["targets"]) == {"F", "P"}
    for name, limit in (("F", 2e-3), ("P", 0.1)):
        assert found["targets"][name]["n"] == 35
        assert found["targets"][name]["rms"] < limit
    assert sum(entry["share"] for entry in found["configurations"]) == pytest.approx(1.0)
    assert not Path(".model.checkpoint").exists()
    asked = ("--pressure", 2, "--temperature", "100:300:100", "--state", "150,200", "--quiet", "--json", "out.json")
    commands.run("thermo", "model", *asked)
    told = json.loads(Path("out.json").read_text(encoding="utf-8"))
    state, isobar = told["states"][0], told["isobars"][0]
    truth = solid(np.array([150.0]), np.array([200.0]))
    assert state["free_energy"] == pytest.approx(truth["F_eV"][0], abs=5e-3)
    assert state["pressure"] == pytest.approx(truth["P_GPa"][0], abs=0.2)
    volumes, at = np.array(isobar["volume"]), np.array(told["temperatures"])
    np.testing.assert_allclose(solid(volumes, at)["P_GPa"], 2.0, atol=0.2)
    assert told["extrapolated"] is False


def solid(V: np.ndarray, T: np.ndarray) -> dict[str, np.ndarray]:
    """A solid that expands when heated: F = b (V - 150)^2 - s (V - 150) T - d T^2 / 2."""
    b, s, d = 3.5e-3, 5e-5, 6e-6
    return {
        "F_eV": b * (V - V0) ** 2 - s * (V - V0) * T - d * T**2 / 2.0, "P_GPa": GPA * (s * T - 2.0 * b * (V - V0)),
    }  # fmt: skip
