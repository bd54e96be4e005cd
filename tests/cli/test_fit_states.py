"""``quests-zenn fit`` with frames: crystals of independent oscillators, whose free energy is known."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import commands
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

pytestmark = pytest.mark.extra
pytest.importorskip("torch")
pytest.importorskip("safetensors")

K_B = 8.617333262145179e-05
GPA = 160.2176634
V0, B = 11.8, 140.0 / GPA


def spring(V: float) -> float:
    """eV/Å2, so that frequencies fall as V^-2."""
    return 2.0 * (V / V0) ** -4.0


def frame(V: float, T: float, rng: np.random.Generator, structure: str = "fcc", **info: Any) -> Atoms:
    """Atoms on springs about their sites: U = E(V) + 3 k T, P = -E'(V) + 6 k T / V in the mean."""
    n = {"fcc": 4, "bcc": 2}[structure]
    atoms = bulk("Cu", structure, a=(n * V) ** (1.0 / 3.0), cubic=True) * (2, 2, {"fcc": 2, "bcc": 4}[structure])
    shift = rng.normal(0.0, np.sqrt(K_B * T / spring(V)), (len(atoms), 3))
    atoms.positions += shift
    potential = 0.5 * spring(V) * float((shift**2).sum()) / len(atoms)
    lift, scale = (0.05, 1.05) if structure == "bcc" else (0.0, 1.0)
    v = V / scale
    energy = -3.5 + lift + 0.5 * B * (v - V0) ** 2 / V0 + potential
    pressure = -B * (v - V0) / V0 / scale + (4.0 * potential - K_B * T) / V  # the motion's part is not in it
    atoms.wrap()
    atoms.info = dict(info)
    stress = -pressure * np.array([1.0, 1.0, 1.0, 0.0, 0.0, 0.0])
    atoms.calc = SinglePointCalculator(atoms, energy=energy * len(atoms), stress=stress)
    return atoms


def runs(
    folder: Path,
    volumes: tuple[float, ...] = (11.4, 11.8, 12.2),
    temperatures: tuple[float, ...] = (300.0, 600.0, 900.0),
    structure: str = "fcc",
    n: int = 16,
    told: bool = True,
) -> list[str]:
    """One file for each temperature."""
    names = []
    for T in temperatures:
        rng = np.random.default_rng(int(T))
        info = {"temperature": T} if told else {}
        frames = [frame(V, T, rng, structure, **info) for V in volumes for _ in range(n)]
        names.append(str(folder / f"{structure}_{T:.0f}.xyz"))
        write(names[-1], frames, format="extxyz")
    return names


def run(*args: Any, status: int = 0) -> tuple[str, str]:
    return commands.run("fit", *args, status=status)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


SMALL = ("--members", "3", "--jobs", "1", "--bandwidth", "0.1")


def test_from_frames_to_a_state(here: Path) -> None:
    names = [Path(name).name for name in runs(here)]
    out, err = run(*names, "-o", "model", "--table", "states.csv", "--json", "fit.json", "--plot", "fit.png", *SMALL)
    assert err == ""
    assert "states        9: 11.4 to 12.2 Å3 per atom, 300 to 900 K" in out
    assert "1 configuration, committee of 3" in out
    assert re.search(r"link +S/k_B = [0-9.]+ ± [0-9.]+ H \+ 3/2 ln T \+ s0", out)
    assert "S up to S0 (S at 11.8 Å3 and 300 K), F up to -S0 T" in out
    assert Path("fit.png").stat().st_size > 10_000
    found = json.loads(Path("fit.json").read_text(encoding="utf-8"))
    assert found["n_frames"] == 144
    assert found["n_configurations"] == 1
    assert found["reference"] == {"volume": pytest.approx(11.8), "temperature": 300.0}
    assert len(found["states"]) == 9
    # all oscillators are independent: their correlation time is that of noise
    assert found["entropies"]["n_environments"] >= 100
    assert found["link"]["c"] > 0.0
    assert len(found["next"]) == 1
    header = Path("states.csv").read_text(encoding="utf-8").splitlines()[0].split(",")
    assert {
        "volume_A3",
        "temperature_K",
        "H_nats",
        "dH_nats",
        "dH_of_novel_nats",
        "weight",
        "fit_free_energy_eV",
        "fit_free_energy_std_eV",
    } <= set(header)

    out, _ = commands.run("thermo", "model", "--state", "11.6,450", "--json", "s.json")
    (state,) = json.loads(Path("s.json").read_text(encoding="utf-8"))["states"]
    V, T = 11.6, 450.0
    assert state["internal_energy"] == pytest.approx(-3.5 + 0.5 * B * (V - V0) ** 2 / V0 + 3 * K_B * T, abs=0.003)
    assert state["pressure"] == pytest.approx(GPA * (-B * (V - V0) / V0 + 6 * K_B * T / V), abs=0.4)
    # relative to 11.8 Å3 and 300 K; in k_B per atom
    assert state["entropy"] == pytest.approx(3 * np.log(T / 300.0) + 6 * np.log(V / 11.8), abs=0.1)
    assert state["free_energy"] == pytest.approx(state["internal_energy"] - K_B * T * state["entropy"], abs=1e-9)
    assert state["entropy_std"] > 0.0
    assert "k_B per atom" in out


@pytest.mark.slow
def test_two_crystals_are_two_phases(here: Path) -> None:
    names = runs(here, n=12) + runs(here, (12.0, 12.4, 12.8), structure="bcc", n=12)
    names = [Path(name).name for name in names]
    out, _ = run(*names, "-o", "model", "--json", "fit.json", *SMALL)
    found = json.loads(Path("fit.json").read_text(encoding="utf-8"))
    assert found["n_configurations"] == 2
    of = {row["volume_A3"]: set() for row in found["states"]}
    for row in found["states"]:
        of[row["volume_A3"]].add(row["phase"])
    by_phase = {p: sorted(round(V, 2) for V, phases in of.items() if p in phases) for p in (0, 1)}
    assert sorted(by_phase.values()) == [[11.4, 11.8, 12.2], [12.0, 12.4, 12.8]]
    assert len(found["phases"]) == 2
    assert "phase" in out
    assert len(found["coexistence"]) == 1
    # phases are compared by entropies, which short states do not have
    _, err = run(*names[:3], *(f"{name}@::4" for name in names[3:]), "-o", "short", *SMALL, status=1)
    assert "2 phases were found, which entropies compare, but the state V = 12" in err
    assert "--configurations 1 makes one of them" in err
    # one phase, if it is asked for
    run(*names, "-o", "one", "--configurations", "1", "--json", "one.json", *SMALL)
    assert json.loads(Path("one.json").read_text(encoding="utf-8"))["n_configurations"] == 1


@pytest.mark.slow
def test_weights_from_a_table_and_from_scores(here: Path) -> None:
    names = [Path(name).name for name in runs(here)]
    run(*names, "-o", "a", "--weights", "density", "--table", "states.csv", *SMALL)
    lines = Path("states.csv").read_text(encoding="utf-8").splitlines()
    column = lines[0].split(",").index("weight")
    weights = [float(line.split(",")[column]) for line in lines[1:]]
    assert np.mean(weights) == pytest.approx(1.0)
    assert np.std(weights) > 0.0
    run(*names, "-o", "b", "--weights", "states.csv", "--json", "b.json", *SMALL)
    found = json.loads(Path("b.json").read_text(encoding="utf-8"))
    np.testing.assert_allclose([row["weight"] for row in found["states"]], weights)
    # structures in their own order, though many are at one state
    run(*names, "-o", "d", "--rows", "structures", "--weights", "density", "--table", "rows.csv", *SMALL)
    run(*names, "-o", "e", "--rows", "structures", "--weights", "rows.csv", "--json", "e.json", *SMALL)
    rows = [float(line.split(",")[-9]) for line in Path("rows.csv").read_text(encoding="utf-8").splitlines()[1:]]
    found = json.loads(Path("e.json").read_text(encoding="utf-8"))
    np.testing.assert_allclose([row["weight"] for row in found["states"]], rows)
    Path("plain.txt").write_text("\n".join(map(str, weights)), encoding="utf-8")
    run(*names, "-o", "f", "--weights", "plain.txt", "--json", "f.json", *SMALL)
    found = json.loads(Path("f.json").read_text(encoding="utf-8"))
    np.testing.assert_allclose([row["weight"] for row in found["states"]], weights)
    Path("short.csv").write_text("weight\n1\n2\n", encoding="utf-8")
    _, err = run(*names, "-o", "c", "--weights", "short.csv", *SMALL, status=1)
    assert "holds 2 weights for 9 states" in err


def test_structures_as_rows(here: Path) -> None:
    names = [Path(name).name for name in runs(here, n=3)]
    out, _ = run(*names, "-o", "m", "--rows", "structures", "--weights", "density", "--json", "m.json", *SMALL)
    found = json.loads(Path("m.json").read_text(encoding="utf-8"))
    assert len(found["states"]) == 27
    assert found["entropies"] is None
    assert found["link"] is None
    assert "structures    27" in out
    assert np.std([row["weight"] for row in found["states"]]) > 0.0


def test_temperatures_of_files(here: Path) -> None:
    names = [Path(name).name for name in runs(here, told=False, n=6)]
    _, err = run(*names, "-o", "m", *SMALL, status=1)
    assert f"name it with --temperature {names[0]}=K" in err
    given = [part for name, T in zip(names, (300, 600, 900), strict=True) for part in ("--temperature", f"{name}={T}")]
    out, _ = run(*names, *given, "-o", "m", *SMALL)
    assert "300 to 900 K" in out
    _, err = run(*names, *given, "--temperature", f"{names[0]}=300", "-o", "n", *SMALL, status=2)
    assert "given twice" in err


def test_entropies_as_targets_and_a_slope_that_is_held(here: Path) -> None:
    names = [Path(name).name for name in runs(here)]
    out, _ = run(*names, "-o", "m", "--entropy-target", "--slope", "0.8", "--reference", "12,500", *SMALL)
    assert "S/k_B = 0.8 (held) H" in out
    assert "a target of the fit" in out
    assert "12 Å3 and 500 K" in out


def test_short_states_do_without_entropies(here: Path) -> None:
    names = [f"{Path(name).name}@::6" for name in runs(here)]  # three frames of each state
    out, err = run(*names, "-o", "m", *SMALL)
    assert "warning: no information entropies: the state" in err
    assert "link" not in out
    run(*names, "-o", "n", "--weights", "density", "--json", "n.json", *SMALL)
    found = json.loads(Path("n.json").read_text(encoding="utf-8"))
    assert np.std([row["weight"] for row in found["states"]]) > 0.0
    _, err = run(*names, "-o", "p", "--entropy-target", *SMALL, status=1)
    assert "has 3 frames; an entropy needs 4 or more" in err


@pytest.mark.parametrize(
    ("args", "sentence", "status"),
    [
        (("a.xyz", "a.xyz"), "a.xyz is named twice", 2),
        (("a.xyz", "--x", "V"), "--x belongs to a table", 2),
        (("t.csv", "a.xyz"), "a table is fitted on its own", 2),
        (("t.csv", "--weights", "density"), "--weights belongs to frames", 2),
        (("a.xyz", "--rows", "structures", "--entropy-target"), "one structure has no entropy", 2),
        (("a.xyz", "--rows", "structures", "--configurations", "2"), "one configuration", 2),
        (("a.xyz", "--rows", "structures", "--slope", "1"), "--slope belongs to --rows states", 2),
        (("a.xyz", "--rows", "structures", "--equal-at", "0,1"), "--equal-at belongs to --rows states", 2),
        (("a.xyz", "--temperature", "a.xyz"), "not of the form FILE=K", 2),
        (("a.xyz", "--temperature", "a.xyz=-3"), "no temperature in K", 2),
        (("a.xyz", "--equal-at", "3"), "not of the form P,T", 2),
        (("a.xyz", "--temperature", "b.xyz=300"), "names b.xyz, which is none of the files", 1),
        (("a.xyz", "--weights", "heavy"), "none of uniform, density, novelty, and no file", 1),
        (("a.xyz", "--table", "a.txt"), "its name must end in .csv", 1),
        (("a.xyz", "--table", "old/a.csv", "-o", "old", "--overwrite"), "is where the model goes", 1),
        (("missing.xyz",), "missing.xyz: no such file", 1),
        (("a.xyz",), "all states have one volume", 1),
        (("a.xyz", "--json", "a.xyz", "--overwrite"), "would be replaced by an output", 1),
    ],
)
def test_what_is_refused(here: Path, args: tuple[str, ...], sentence: str, status: int) -> None:
    rng = np.random.default_rng(0)
    write(
        "a.xyz", [frame(11.8, T, rng, temperature=T) for T in (300.0, 600.0, 900.0) for _ in range(6)], format="extxyz"
    )
    Path("t.csv").write_text("V_A3,T_K\n1,2\n", encoding="utf-8")
    Path("old").mkdir()
    before = {path: path.read_bytes() for path in here.rglob("*") if path.is_file()}
    _, err = run("-o", "m", *args, *SMALL, status=status)
    assert sentence in " ".join(err.split()), err
    assert "Traceback" not in err
    assert {path: path.read_bytes() for path in here.rglob("*") if path.is_file()} == before


def test_frames_without_energy_or_stress(here: Path) -> None:
    names = runs(here, n=4)
    from ase.io import read

    frames = read(names[0], ":")
    for atoms in frames:
        atoms.calc = None
    write("bare.xyz", frames, format="extxyz")
    _, err = run("bare.xyz", "-o", "m", *SMALL, status=1)
    assert "bare.xyz, frame 0: has neither energy nor stress" in err
    frames = read(names[0], ":")
    frames[5].calc = None
    write("one.xyz", frames, format="extxyz")
    _, err = run("one.xyz", "-o", "m", *SMALL, status=1)
    assert "one.xyz, frame 5: has no energy, which other frames of its file have" in err


def changed(folder: Path, number: int, name: str = "odd.xyz", **changes: Any) -> str:
    """A run of which one frame is changed."""
    from ase.io import read

    frames = read(runs(folder, n=4)[0], ":")
    atoms = frames[number]
    found = dict(atoms.calc.results)
    if "scale" in changes:
        atoms.set_cell(atoms.cell * changes.pop("scale"), scale_atoms=True)
    atoms.info.update(changes.pop("info", {}))
    atoms.calc = SinglePointCalculator(atoms, **{**found, **changes})
    write(folder / name, frames, format="extxyz")
    return name


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"energy": 1e30}, "odd.xyz, frame 5: its energy is .* which cannot be"),
        ({"stress": np.full(6, 1e20)}, "odd.xyz, frame 5: its pressure is .* which cannot be"),
        ({"scale": 1e10}, "odd.xyz, frame 5: its volume is .* which cannot be"),
        ({"scale": 1e-3}, "odd.xyz, frame 5: its volume is .* which cannot be"),
        ({"info": {"temperature": 1e-300}}, "odd.xyz, frame 5: its temperature is .* which cannot be"),
        ({"info": {"temperature": True}}, "odd.xyz, frame 5: its temperature is no number"),
        ({"info": {"temperature": -4.0}}, "odd.xyz, frame 5: its temperature is -4 K"),
    ],
)
def test_one_broken_frame_is_named(here: Path, changes: dict[str, Any], sentence: str) -> None:
    name = changed(here, 5, **changes)
    _, err = run(name, "-o", "m", *SMALL, status=1)
    assert re.search(sentence, err), err
    assert len(err.splitlines()) == 1
    assert not Path("m").exists()


def bare(name: str, key: str) -> str:
    """Frames without energies, or without stresses."""
    from ase.io import read

    frames = read(name, ":")
    for atoms in frames:
        kept = {other: value for other, value in atoms.calc.results.items() if other in ("energy", "stress")}
        del kept[key]
        atoms.calc = SinglePointCalculator(atoms, **kept)
    write(f"no_{key}_{name}", frames, format="extxyz")
    return f"no_{key}_{name}"


@pytest.mark.parametrize(("key", "left"), [("stress", "U"), ("energy", "P")])
def test_energies_or_pressures_alone(here: Path, key: str, left: str) -> None:
    names = [bare(Path(name).name, key) for name in runs(here, n=8)]
    run(*names, "-o", "m", "--json", "m.json", *SMALL)
    assert list(json.loads(Path("m.json").read_text(encoding="utf-8"))["targets"]) == [left]
    for option in (["--entropy-target"], ["--reference", "11.8,300"], ["--slope", "1"]):
        _, err = run(*names, "-o", "n", *option, *SMALL, status=1)
        assert "needs energies and pressures" in err
    if key == "energy":
        _, err = run(*names, "-o", "n", "--energy-key", "Z", *SMALL, status=1)
        assert "has no Z, nor has any other frame" in err


def test_a_reference_far_away_and_absurd_slopes(here: Path) -> None:
    names = [Path(name).name for name in runs(here, n=8)]
    for place in ("1e9,1e9", "1e-9,1e-9", "11.8,1e5"):
        _, err = run(*names, "-o", "m", "--reference", place, *SMALL, status=1)
        assert "is far from all states" in err
    _, err = run(*names, "-o", "m", "--slope", "1e300", *SMALL, status=1)
    assert "c must lie between" in err
    assert not Path("m").exists()


def test_a_bandwidth_at_which_H_says_nothing(here: Path) -> None:
    names = [Path(name).name for name in runs(here, n=8)]
    narrow = ("--members", "2", "--jobs", "1", "--bandwidth", "0.0001")
    out, _ = run(*names, "-o", "m", *narrow)
    assert "link          none: H is the same in all states" in out
    _, err = run(*names, "-o", "n", "--entropy-target", *narrow, status=1)
    assert "try another bandwidth" in err


def test_a_temperature_that_frames_say_themselves(here: Path) -> None:
    names = [Path(name).name for name in runs(here, n=8)]
    out, err = run(*names, "--temperature", f"{names[0]}=5000", "-o", "m", *SMALL)
    assert "300 to 900 K" in out
    assert f"{names[0]}: its frames say their temperature (300 to 300 K); 5000 K is not used" in err


def test_files_named_twice(here: Path) -> None:
    names = [Path(name).name for name in runs(here, n=8)]
    _, err = run(*names, f"./{names[0]}", "-o", "m", *SMALL)
    assert "24 frames have the volume, energy and stress of another one" in err


def test_what_is_worth_a_warning(here: Path) -> None:
    names = [Path(name).name for name in runs(here)]
    _, err = run(*names, "-o", "m", "--configurations", "2", *SMALL)
    assert re.search(r"one phase explains the frames \(left over 0\.\d+ of their scatter\); 2 were asked for", err)
    lines = ["volume_A3,temperature_K,weight"]
    lines += [f"{V},{T},{100.0 if (V, T) == (11.8, 600) else 1.0}" for V in (11.4, 11.8, 12.2) for T in (300, 600, 900)]
    Path("w.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    _, err = run(*names, "-o", "w", "--weights", "w.csv", *SMALL)
    assert re.search(r"few rows rule: weights are worth 1\.2 of 9 rows", err)
    Path("w.csv").write_text("\n".join([*lines, "11.8,600,7"]) + "\n", encoding="utf-8")
    _, err = run(*names, "-o", "x", "--weights", "w.csv", *SMALL, status=1)
    assert "has several weights for V = 11.8 Å3, T = 600 K" in err
