"""``quests-zenn calibrate``: every option, what is written, what is refused."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import commands
import numpy as np
import numpy.typing as npt
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read, write
from click.testing import CliRunner

from quests_zenn.cli._calibrate import _print_bound
from quests_zenn.uq import ErrorBound, Reference, check_coverage

Array = npt.NDArray[np.float64]

H = 0.05
KEYS = ("--forces-key", "REF_forces", "--predicted-key", "MACE_forces")
ENERGIES = ("--energy-key", "REF_energy", "--predicted-energy-key", "MACE_energy")
KNOWN = ("--reference", "cold.qref")


def run(*args: Any, status: int = 0) -> tuple[str, str]:
    """What the command says on stdout and stderr."""
    return commands.run("calibrate", *args, status=status)


def document(*args: Any) -> dict[str, Any]:
    out, err = run(*args, "--quiet", "--json", "found.json", "--overwrite")
    assert out == ""
    assert err == ""
    found: dict[str, Any] = json.loads(Path("found.json").read_text(encoding="utf-8"))
    return found


def refused(sentence: str, *args: Any, status: int = 1) -> None:
    before = sorted(path.name for path in Path().iterdir())
    _, err = run(*args, status=status)
    assert re.search(sentence, err), err
    assert "Traceback" not in err
    if status == 1:
        assert len([line for line in err.splitlines() if not line.startswith("compiling")]) == 1
    assert sorted(path.name for path in Path().iterdir()) == before


def crystal(amplitude: float, seed: int, name: str = "Cu") -> Atoms:
    """A shaken crystal whose predicted forces are off by more, the more it is shaken."""
    rng = np.random.default_rng(seed)
    atoms = bulk(name, cubic=True, a=3.61) * (2, 2, 2)
    atoms.positions += rng.normal(scale=amplitude, size=(32, 3))
    true = rng.normal(size=(32, 3))
    atoms.arrays["REF_forces"] = true
    atoms.arrays["MACE_forces"] = true + amplitude * math.exp(0.3 * rng.normal()) * rng.normal(size=(32, 3))
    atoms.info |= {"REF_energy": -100.0, "MACE_energy": -100.0 + 32.0 * amplitude * rng.normal()}
    atoms.info |= {"run": f"run{seed % 17}", "amplitude": "large" if amplitude > 0.1 else "small"}
    return atoms


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("calibrate")
    cold = [crystal(0.04, 1000 + seed) for seed in range(6)]
    write(folder / "cold.xyz", cold)
    Reference.fit(folder / "cold.xyz", H).save(folder / "cold.qref")
    frames = [crystal(0.03 + 0.004 * (seed % 40), seed) for seed in range(60)]
    write(folder / "test.xyz", frames)
    write(folder / "few.xyz", frames[:11])
    turned = frames[0].copy()
    turned.rotate(90.0, "z", rotate_cell=True)
    write(folder / "copies.xyz", [*frames[:20], turned])
    return folder


@pytest.fixture(autouse=True)
def here(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for path in store.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    monkeypatch.chdir(tmp_path)
    return tmp_path


def by_hand(name: str = "test.xyz", qref: str = "cold.qref") -> dict[str, npt.NDArray[Any]]:
    """dH, errors, groups and frames of a file."""
    frames = read(name, ":")
    errors = [np.linalg.norm(atoms.arrays["MACE_forces"] - atoms.arrays["REF_forces"], axis=1) for atoms in frames]
    owner = np.repeat(np.arange(len(frames)), 32)
    dh = Reference.load(qref).score(frames)
    return {"dh": dh, "errors": np.concatenate(errors), "groups": owner, "frames": owner}


# --- a bound is made --------------------------------------------------------------------------------------------------


def test_table_document_and_bound() -> None:
    out, err = run("test.xyz", *KNOWN, *KEYS, "-o", "bound.json", "--json", "found.json", "--splits", 40)
    found = json.loads(Path("found.json").read_text(encoding="utf-8"))
    data = by_hand()
    checks = check_coverage(**data, level=[0.9, 0.95], splits=40)
    assert [result["level"] for result in found["results"]] == [0.9, 0.95]
    for result, check in zip(found["results"], checks, strict=True):
        np.testing.assert_allclose(result["measured"], check.measured, rtol=1e-12)
        assert result["mean"] == pytest.approx(check.mean)
        assert result["mean_width"] == pytest.approx(check.mean_width)
        np.testing.assert_allclose(result["by_dh"]["coverage"], check.by_dh)
        np.testing.assert_allclose(result["by_dh"]["constant"], check.by_dh_constant)
    assert found["command"] == "calibrate"
    assert found["coverage"] == "atom"
    assert "a random atom of a new structure" in found["coverage_meaning"]
    assert found["n_groups"] == 60
    assert (found["k"], found["bandwidth"], found["n_reference"]) == (32, H, 192)
    assert found["mean_error"] == pytest.approx(data["errors"].mean())
    reference = Reference.load("cold.qref")
    bound = ErrorBound.load("bound.json", reference)
    expected = ErrorBound.fit(**data, level=[0.9, 0.95], reference=reference)
    at = np.linspace(-5.0, 30.0, 20)
    np.testing.assert_allclose(bound.bound(at, 0.95), expected.bound(at, 0.95), rtol=1e-12)
    assert found["bound"]["factors"] == list(bound.factors)
    notes = json.loads(Path("bound.json").read_text(encoding="utf-8"))["notes"]
    assert notes["keys"] == ["REF_forces", "MACE_forces"]
    assert notes["inputs"] == ["test.xyz"]
    assert "coverage      of a random atom of a new structure" in out
    assert re.search(
        r"^groups        60 of 60 frames; 40 splits: 11 for the width, 34 to calibrate, 15 held out$", out, re.M
    )
    assert re.search(rf"^ +90% +{found['results'][0]['mean']:.1%} ", out, re.M)
    assert "the bound from all groups (eV/Å), at dH =" in out
    assert "warning" not in err


def test_levels_seed_splits_and_shares() -> None:
    args = ("test.xyz", *KNOWN, *KEYS)
    base = document(*args, "--splits", 10)
    assert len(base["results"][0]["measured"]) == base["splits"] == 10
    assert document(*args, "--splits", 10)["results"] == base["results"]
    other = document(*args, "--splits", 10, "--seed", 7)
    assert other["seed"] == 7
    assert other["results"][0]["measured"] != base["results"][0]["measured"]
    assert other["bound"]["widths"] != base["bound"]["widths"]
    levels = document(*args, "--splits", 10, "--level", 0.8, "--level", 0.5)
    assert levels["bound"]["levels"] == [0.5, 0.8]
    assert [result["level"] for result in levels["results"]] == [0.5, 0.8]
    half = document(*args, "--splits", 10, "--test-share", 0.5)["results"][0]
    assert (half["n_train"], half["n_calibration"], half["n_test"]) == (8, 22, 30)
    wide = document(*args, "--splits", 10, "--train-share", 0.5)
    assert (wide["results"][0]["n_train"], wide["results"][0]["n_calibration"]) == (22, 23)
    assert wide["bound"]["n_train"] == 30
    assert document(*args)["splits"] == 200


def test_coverage_of_whole_frames() -> None:
    args = ("test.xyz", *KNOWN, *KEYS, "--splits", 30)
    atom, frame = document(*args), document(*args, "--coverage", "frame")
    assert (atom["coverage"], frame["coverage"]) == ("atom", "frame")
    assert frame["coverage_meaning"] == "all atoms of a new frame at once"
    assert frame["bound"]["factors"][0] > 1.2 * atom["bound"]["factors"][0]
    assert frame["results"][0]["frame"] > 0.8 > atom["results"][0]["frame"]
    out, _ = run(*args, "--coverage", "frame")
    assert "coverage by largest dH of the frame" in out


def test_groups_of_frames() -> None:
    args = (*KNOWN, *KEYS, "--splits", 5)
    assert document("copies.xyz", *args)["n_groups"] == 20
    assert document("copies.xyz", *args, "--by", "frame")["n_groups"] == 21
    assert document("test.xyz", *args, "--by", "run")["n_groups"] == 17
    assert document("test.xyz@:30", "test.xyz@30:", *args, "--by", "file")["n_groups"] == 2
    out, _ = run("copies.xyz", *args)
    assert "20 of 21 frames (copies by symmetry merged); 5 splits" in out
    out, _ = run("test.xyz", *args, "--by", "run")
    assert "17 of 60 frames (by run)" in out
    refused(r"test.xyz, frame 0: no key 'phase' to group frames by", "test.xyz", *args, "--by", "phase")
    refused("all frames belong to one group", "test.xyz", *args, "--by", "file")


def test_too_few_groups() -> None:
    out, err = run("few.xyz", *KNOWN, *KEYS, "--splits", 3)
    assert "level 0.95 takes at least 19 groups to calibrate and one for the width, and there are 11" in err
    assert "level 0.9 takes" not in err
    assert re.search(r"^ +95%( +inf)+$", out, re.M)
    _, err = run("test.xyz@:30", "test.xyz@30:", *KNOWN, *KEYS, "--by", "file", "--level", 0.5)
    assert "with two groups none can be held out" in err
    found = document("few.xyz", *KNOWN, *KEYS, "--splits", 3)
    assert found["bound"]["factors"][1] is None
    assert found["results"][1]["mean_width"] is None
    assert found["results"][1]["mean"] == 1.0


def test_energies() -> None:
    args = ("test.xyz", *KNOWN, *ENERGIES, "--splits", 20)
    found = document(*args)
    frames = read("test.xyz", ":")
    dh = Reference.load("cold.qref").score_frames(frames)
    errors = np.array([(atoms.info["MACE_energy"] - atoms.info["REF_energy"]) / 32.0 for atoms in frames])
    expected = ErrorBound.fit(dh.mean, errors, np.arange(60), level=[0.9, 0.95], quantity="energy")
    np.testing.assert_allclose(found["bound"]["factors"], expected.factors)
    np.testing.assert_allclose(found["bound"]["widths"], expected.widths)
    assert (found["quantity"], found["unit"], found["statistic"]) == ("energy", "eV/atom", "mean")
    assert found["coverage_meaning"] == "the energy of a new frame"
    top = document(*args, "--frame-dh", "max")
    expected = ErrorBound.fit(dh.max, errors, np.arange(60), level=[0.9, 0.95], quantity="energy", statistic="max")
    np.testing.assert_allclose(top["bound"]["nodes"], expected.nodes)
    assert top["statistic"] == "max"
    out, err = run(*args)
    assert "eV/atom" in out
    assert "same zero" not in err
    for atoms in frames:
        atoms.info["MACE_energy"] += 1e5
    write("shifted.xyz", frames)
    assert "do both count from the same zero?" in run("shifted.xyz", *args[1:])[1]


def test_forces_in_arrays_or_in_a_calculator() -> None:
    frames = read("test.xyz", ":")
    plain = document("test.xyz", *KNOWN, *KEYS, "--splits", 3)
    for atoms in frames:
        energy, forces = atoms.info.pop("REF_energy"), atoms.arrays.pop("REF_forces")
        atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces)
    write("ase.xyz", frames)
    assert read("ase.xyz").calc is not None
    by_default = document("ase.xyz", *KNOWN, "--predicted-key", "MACE_forces", "--splits", 3)
    assert by_default["keys"] == ["forces", "MACE_forces"]
    assert by_default["results"] == plain["results"]
    energies = document("ase.xyz", *KNOWN, "--predicted-energy-key", "MACE_energy", "--splits", 3)
    assert energies["results"] == document("test.xyz", *KNOWN, *ENERGIES, "--splits", 3)["results"]


def test_reference_from_frames_and_its_parameters() -> None:
    args = ("test.xyz", "--reference", "cold.xyz", *KEYS, "--splits", 3)
    saved = document("test.xyz", *KNOWN, *KEYS, "--splits", 3)
    assert document(*args, "--bandwidth", H)["results"] == saved["results"]
    default = document(*args)
    assert default["bandwidth"] == 0.015
    for option, value in (("k", 16), ("cutoff", 4.0), ("species", "blocks")):
        found = document(*args, f"--{option}", value)
        assert found[option] == value
        assert found["bound"]["nodes"] != default["bound"]["nodes"]
    two = document(*args, "--reference", "few.xyz@:3")
    assert two["n_reference"] == 9 * 32
    refused("cold.qref: was made with k 32, and --k 8 asks for another", "test.xyz", *KNOWN, *KEYS, "--k", 8)


def test_reference_needs_no_labels() -> None:
    frames = read("cold.xyz", ":")
    for atoms in frames:
        atoms.info.clear()
        del atoms.arrays["REF_forces"], atoms.arrays["MACE_forces"]
    write("bare.xyz", frames)
    args = ("--bandwidth", H, "--splits", 3)
    for keys in (KEYS, ENERGIES):
        bare = document("test.xyz", "--reference", "bare.xyz", *keys, *args)
        assert bare["results"] == document("test.xyz", *KNOWN, *keys, "--splits", 3)["results"]


def test_selected_atoms_count() -> None:
    found = document("test.xyz", *KNOWN, *KEYS, "--splits", 3, "--select", "0:8")
    assert found["n_environments"] == 480
    data = by_hand()
    keep = np.tile(np.arange(32) < 8, 60)
    bound = ErrorBound.fit(**{name: values[keep] for name, values in data.items()}, level=[0.9, 0.95])
    np.testing.assert_allclose(found["bound"]["factors"], bound.factors)
    energies = document("test.xyz", *KNOWN, *ENERGIES, "--splits", 3, "--select", "0:8")
    assert energies["bound"]["nodes"] != document("test.xyz", *KNOWN, *ENERGIES, "--splits", 3)["bound"]["nodes"]


def test_type_map_and_jobs() -> None:
    frames = read("test.xyz", ":")
    for atoms in frames:
        atoms.numbers[:] = 1
    write("types.xyz", frames)
    args = ("types.xyz", *KNOWN, *KEYS, "--splits", 3)
    found = document(*args, "--type-map", "1=Cu", "--jobs", 1)
    assert found["elements"] == ["Cu"]
    assert found["n_workers"] == 1
    assert document(*args)["elements"] == ["H"]
    assert document(*args, "--type-map", "1=Cu", "--jobs", 2)["results"] == found["results"]


def test_warnings() -> None:
    _, err = run("cold.xyz", "test.xyz", *KNOWN, *KEYS, "--splits", 3)
    assert "6 of 66 frames are in the reference already, or are copies of such frames" in err
    Reference.fit([crystal(0.04, 1), crystal(0.04, 2)], H, species="blocks").save("blocks.qref")
    silver = read("test.xyz", ":")
    for atoms in silver[::2]:
        atoms.symbols[0] = "Ag"
    write("silver.xyz", silver)
    assert "errors are zero" not in err
    out, err = run("silver.xyz", "--reference", "blocks.qref", *KEYS, "--splits", 3)
    assert "the reference never saw Ag" in err
    assert "inf" not in out
    assert run("silver.xyz", "--reference", "blocks.qref", *KEYS, "--splits", 3, "--quiet") == ("", "")


def test_errors_that_are_all_zero() -> None:
    frames = read("test.xyz", ":")
    for atoms in frames:
        atoms.arrays["MACE_forces"] = atoms.arrays["REF_forces"]
        atoms.info["MACE_energy"] = atoms.info["REF_energy"]
    write("same.xyz", frames)
    args = (*KNOWN, "--splits", 3)
    _, err = run("same.xyz", *args, *KEYS, "-o", "zero.json")
    assert "all errors are zero: do REF_forces and MACE_forces hold the same numbers?" in err
    assert "do REF_energy and MACE_energy hold the same numbers?" in run("same.xyz", *args, *ENERGIES)[1]
    assert "all errors are zero" in run("same.xyz", "--load", "zero.json", *KNOWN, *KEYS)[1]
    assert "all errors are zero" not in run("test.xyz", "--load", "zero.json", *KNOWN, *KEYS)[1]


def test_columns_stay_apart() -> None:
    """Numbers such as -2.247e-09 have ten characters."""
    dh = np.array([-1e-2, -5.054e-3, -2.247e-9, -1.5e-4, 1.0])
    bound = ErrorBound.fit(dh, np.full(5, 0.1), np.arange(5), level=0.5)
    with CliRunner().isolation() as (out, *_):
        _print_bound(bound, dh)
        lines = out.getvalue().decode().splitlines()[-2:]
    head, values = (line.split() for line in lines)
    assert "-2.247e-09" in head
    assert len(head) == len(values) > 4
    np.testing.assert_allclose([float(value) for value in values[1:]], 0.1)


# --- a bound is used --------------------------------------------------------------------------------------------------


@pytest.fixture
def bound() -> ErrorBound:
    run("test.xyz@:50", *KNOWN, *KEYS, "-o", "bound.json", "--splits", 1, "--quiet")
    return ErrorBound.load("bound.json")


def test_frames_with_their_bounds(bound: ErrorBound) -> None:
    hot = crystal(0.4, 5)
    write("md.xyz", [*read("test.xyz", "50:"), hot])
    args = ("md.xyz", "--load", "bound.json", *KNOWN)
    out, err = run(*args, "-o", "bounded.xyz", "--json", "found.json")
    reference = Reference.load("cold.qref")
    frames = read("bounded.xyz", ":")
    dh = reference.score(frames)
    for level, name in ((0.9, "force_bound_90"), (0.95, "force_bound_95")):
        written = np.concatenate([atoms.arrays[name] for atoms in frames])
        np.testing.assert_allclose(written, bound.bound(dh, level), atol=1e-7)
    np.testing.assert_allclose(np.concatenate([atoms.arrays["dH"] for atoms in frames]), dh, atol=1e-7)
    beyond = bound.extrapolated(dh)
    assert beyond[-32:].sum() > 10
    assert [atoms.info["n_extrapolated"] for atoms in frames] == beyond.reshape(-1, 32).sum(axis=1).tolist()
    flags = np.concatenate([atoms.arrays["extrapolated"] for atoms in frames])
    assert flags.dtype == bool
    np.testing.assert_array_equal(flags, beyond)
    assert np.isinf(frames[-1].arrays["force_bound_90"][flags[-32:]]).all()
    assert np.isfinite(frames[-1].arrays["force_bound_90"][~flags[-32:]]).all()
    assert frames[0].info["bound_largest_dH"] == pytest.approx(bound.largest_dh)
    assert "the bound is inf" in frames[0].info["bound_beyond"]
    assert frames[0].info["bound_coverage"] == "atom"
    assert frames[0].info["dH_bandwidth"] == H
    assert "MACE_forces" in frames[0].arrays
    found = json.loads(Path("found.json").read_text(encoding="utf-8"))
    assert found["extrapolated"] == pytest.approx(beyond.mean())
    assert found["results"] == []
    assert found["levels"][1]["quantiles"] == {
        "0.5": pytest.approx(np.quantile(bound.bound(dh, 0.95), 0.5, method="lower")), "0.95": None, "1.0": None,
    }  # fmt: skip
    assert found["levels"][1]["mean"] == pytest.approx(bound.bound(dh, 0.95)[~beyond].mean())
    assert (found["infinite_dh"], found["infinite"]) == (0.0, found["extrapolated"])
    assert f"warning: {beyond.sum()} of {len(dh)} atoms lie beyond the largest dH" in err
    assert "too few groups" not in err
    assert "never saw" not in err
    assert "extrapolated" in out
    only = document(*args, "--level", 0.95)
    assert [level["level"] for level in only["levels"]] == [0.95]
    refused(r"this bound has the level 0\.9, 0\.95, and none of 0\.99", *args, "--level", 0.99, "-o", "no.xyz")
    run(*args, "-o", "some.xyz", "--select", "0:4", "--quiet", "--level", 0.9)
    some = read("some.xyz", ":")[0]
    assert np.isfinite(some.arrays["force_bound_90"]).sum() == 4
    some = read("some.xyz", "-1")
    np.testing.assert_array_equal(some.arrays["extrapolated"], flags[-32:] & (np.arange(32) < 4))
    assert "force_bound_95" not in some.arrays


def test_a_bound_is_tried_on_new_frames(bound: ErrorBound) -> None:
    args = ("test.xyz@50:", "--load", "bound.json", *KNOWN)
    found = document(*args, *KEYS)
    data = {name: values[50 * 32 :] for name, values in by_hand().items()}
    for result, level in zip(found["results"], (0.9, 0.95), strict=True):
        expected = bound.evaluate(**data, level=level)
        assert result["measured"] == pytest.approx(expected.measured)
        assert result["band"] == list(expected.band)
        assert result["n_groups"] == 10
    out, err = run(*args, *KEYS)
    assert "chance" not in err
    assert found["results"][0]["inside"] is True
    assert re.search(rf"^ +90% +{found['results'][0]['measured']:.1%} ", out, re.M)
    assert document(*args, *KEYS, "--by", "amplitude")["results"][0]["n_groups"] == 2
    refused("bound.json: is a bound of force errors, and the keys given are of energies", *args, *ENERGIES)


@pytest.mark.parametrize(("factor", "sentence"), [(5.0, "less is covered than chance"), (0.05, "more is covered than")])
def test_coverage_that_chance_does_not_explain(factor: float, sentence: str) -> None:
    frames = [crystal(0.03 + 0.004 * (seed % 40), seed) for seed in range(100, 160)]
    for atoms in frames:
        true = atoms.arrays["REF_forces"]
        atoms.arrays["MACE_forces"] = true + factor * (atoms.arrays["MACE_forces"] - true)
    write("other.xyz", frames)
    run("test.xyz", *KNOWN, *KEYS, "-o", "bound.json", "--splits", 1, "--quiet", "--level", 0.5)
    args = ("other.xyz", "--load", "bound.json", *KNOWN, *KEYS)
    _, err = run(*args)
    first = document(*args)["results"][0]
    assert not first["inside"]
    low, high = first["band"]
    assert re.search(f"{sentence}.* {first['measured']:.1%} at level 0.5 \\({low:.1%} to {high:.1%} expected\\)", err)
    assert len(re.findall("is covered than chance", err)) == 1


def test_a_bound_fails_in_the_table_where_it_is_infinite_in_the_file(bound: ErrorBound) -> None:
    """Infinite bounds would cover all, and hide that the largest one calibrated does not."""
    hot = [crystal(0.8, seed) for seed in range(10)]
    write("hot.xyz", hot)
    found = document("hot.xyz", "--load", "bound.json", *KNOWN, *KEYS)
    assert found["extrapolated"] > 0.9
    assert found["results"][0]["measured"] < 0.5
    assert "less is covered" in run("hot.xyz", "--load", "bound.json", *KNOWN, *KEYS)[1]


def test_elements_that_the_reference_never_saw(bound: ErrorBound) -> None:
    mixed = crystal(0.05, 3)
    mixed.symbols[:5] = "Ta"
    write("mixed.xyz", mixed)
    _, err = run("mixed.xyz", "--load", "bound.json", *KNOWN, "-o", "bounded.xyz")
    assert "5 of 32 atoms have an infinite bound: the reference never saw Ta" in err
    assert err.count("never saw") == 1
    assert "groups" not in err
    assert "largest dH" not in err
    written = read("bounded.xyz").arrays
    np.testing.assert_array_equal(np.isinf(written["force_bound_90"]), np.arange(32) < 5)
    np.testing.assert_array_equal(written["extrapolated"], np.arange(32) < 5)


def test_energy_bounds_in_frames() -> None:
    run("test.xyz", *KNOWN, *ENERGIES, "-o", "energy.json", "--quiet", "--frame-dh", "max", "--splits", 1)
    args = ("test.xyz@:5", "--load", "energy.json", *KNOWN)
    run(*args, "-o", "bounded.xyz", "--quiet")
    frames = read("bounded.xyz", ":")
    expected = ErrorBound.load("energy.json").bound(Reference.load("cold.qref").score_frames(frames).max, 0.9)
    np.testing.assert_allclose([atoms.info["energy_bound_90"] for atoms in frames], expected)
    assert [atoms.info["extrapolated"] for atoms in frames] == [False] * 5
    assert "force_bound_90" not in frames[0].arrays
    assert "extrapolated" not in frames[0].arrays
    write("hot.xyz", [crystal(0.5, 7), read("test.xyz")])
    _, err = run("hot.xyz", *args[1:], "-o", "hot_bounded.xyz")
    assert "1 of 2 frames lie beyond" in err
    assert [atoms.info["extrapolated"] for atoms in read("hot_bounded.xyz", ":")] == [True, False]
    assert np.isinf(read("hot_bounded.xyz", "0").info["energy_bound_90"])
    found = document(*args, *ENERGIES)
    assert found["results"][0]["n_rows"] == 5
    out, _ = run(*args)
    assert "of the energy of a new frame" in out


def test_bounds_of_another_reference_are_refused(bound: ErrorBound) -> None:
    args = ("test.xyz", "--load", "bound.json")
    refused(r"bound.json: was calibrated with another reference \(bandwidth 0.05, and this one has 0.015\)",
            *args, "--reference", "cold.xyz")  # fmt: skip
    run(*args, "--reference", "cold.xyz", "--bandwidth", H, "--quiet")
    refused("missing.json: no such file", "test.xyz", "--load", "missing.json", *KNOWN)
    refused("cold.xyz: cannot be read", "test.xyz", "--load", "cold.xyz", *KNOWN)


def test_infinite_bounds_are_told() -> None:
    run("few.xyz", *KNOWN, *KEYS, "-o", "few.json", "--splits", 1, "--quiet")
    _, err = run("few.xyz", "--load", "few.json", *KNOWN, "-o", "bounded.xyz")
    assert "level 0.95 takes at least 19 groups to calibrate, and few.json was made with 9: it is infinite" in err
    assert "level 0.9 takes" not in err
    assert np.isinf(read("bounded.xyz").arrays["force_bound_95"]).all()


# --- figures ----------------------------------------------------------------------------------------------------------


def test_figures(bound: ErrorBound) -> None:
    pytest.importorskip("matplotlib")
    args = ("test.xyz", *KNOWN, *KEYS, "--splits", 5, "--quiet")
    run(*args, "--plot", "made.svg")
    run("few.xyz", *args[1:], "--plot", "few.png")  # an infinite bound
    run("test.xyz", *KNOWN, *ENERGIES, "--splits", 5, "--quiet", "--plot", "energy.png")
    run("test.xyz", "--load", "bound.json", *KNOWN, "--quiet", "--plot", "bounds.svg")
    run("test.xyz", "--load", "bound.json", *KNOWN, *KEYS, "--quiet", "--plot", "tried.svg")
    made, tried = (Path(name).read_text(encoding="utf-8") for name in ("made.svg", "tried.svg"))
    assert "coverage on held-out structures" in made
    assert "coverage on held-out structures" not in tried
    assert "force error (eV/Å)" in made
    assert "bound, 95% per atom" in tried
    for label in ("where 95% of the splits should lie", "90%: mean coverage", "95%: mean coverage"):
        assert label in made
    plain = Path("bounds.svg").read_text(encoding="utf-8")
    assert "largest bound of a frame" in plain
    write("hot.xyz", [crystal(0.03, 5), crystal(0.4, 5)])
    run("hot.xyz", "--load", "bound.json", *KNOWN, "--quiet", "--plot", "hot.svg")
    run("hot.xyz", "--load", "bound.json", *KNOWN, *KEYS, "--quiet", "--plot", "hot_tried.svg")
    assert "atoms without a bound" in Path("hot.svg").read_text(encoding="utf-8")
    assert "no bound: beyond all that calibrated it" in Path("hot_tried.svg").read_text(encoding="utf-8")
    assert "no bound" not in made
    write("only.xyz", crystal(0.4, 5))
    run("only.xyz", "--load", "bound.json", *KNOWN, "--quiet", "--plot", "only.svg")
    assert "no frame has a finite bound" in Path("only.svg").read_text(encoding="utf-8")
    assert Path("few.png").stat().st_size > 10_000
    Reference.fit([crystal(0.04, 1)], H, species="blocks").save("blocks.qref")
    gold = [crystal(0.04, seed, "Au") for seed in range(4)]
    write("gold.xyz", gold)
    args = ("gold.xyz", "--reference", "blocks.qref", *KEYS, "--splits", 1)
    refused("gold.xyz: dH is infinite everywhere: no plot", *args, "--plot", "gold.png")


# --- what is refused --------------------------------------------------------------------------------------------------


def test_bad_frames() -> None:
    frames = read("test.xyz", ":4")
    del frames[2].arrays["MACE_forces"]
    write("hole.xyz", frames)
    args = (*KNOWN, "--forces-key", "REF_forces", "--predicted-key", "MACE_forces")
    refused(r"hole.xyz, frame 2: no forces under the key 'MACE_forces' \(its arrays of vectors: REF_forces\)",
            "hole.xyz", *args)  # fmt: skip
    frames = read("test.xyz", ":4")
    frames[1].arrays["MACE_forces"][7, 2] = np.nan
    write("nan.xyz", frames)
    refused("nan.xyz, frame 1, atom 7: 'MACE_forces' is not finite", "nan.xyz", *args)
    frames = read("test.xyz", ":4")
    frames[0].arrays["MACE_forces"] = np.ones(32)
    write("flat.xyz", frames)
    refused(r"flat.xyz, frame 0: 'MACE_forces' holds no forces: three numbers per atom are needed, got \(32,\)",
            "flat.xyz", *args)  # fmt: skip
    refused(r"test.xyz, frame 0: no energy under the key 'E' \(its numbers: MACE_energy, REF_energy\)",
            "test.xyz", *KNOWN, "--energy-key", "E", "--predicted-energy-key", "MACE_energy")  # fmt: skip
    refused("test.xyz, frame 0: 'run' holds no energy, but 'run0'",
            "test.xyz", *KNOWN, "--energy-key", "REF_energy", "--predicted-energy-key", "run")  # fmt: skip
    refused("missing.xyz: no such file", "missing.xyz", *args)
    refused("missing.qref: no such file", "test.xyz", "--reference", "missing.qref", *KEYS)
    refused("all frames belong to one group", "test.xyz@0", *KNOWN, *KEYS)


def test_outputs_are_judged_before_the_work() -> None:
    args = ("test.xyz", *KNOWN, *KEYS)
    refused("bound.xyz: a bound is written as .json", *args, "-o", "bound.xyz")
    refused("out.json: frames with their bounds are written as .xyz or .extxyz",
            "test.xyz", "--load", "b.json", *KNOWN, "-o", "out.json")  # fmt: skip
    refused("test.xyz: exists already", *args, "--json", "test.xyz")
    refused("cold.qref: is an input", *args, "--json", "cold.qref", "--overwrite")
    refused("two outputs have the same name", *args, "-o", "one.json", "--json", "one.json")
    Path("bound.json").write_text("mine", encoding="utf-8")
    refused("bound.json: exists already", *args, "-o", "bound.json")
    assert Path("bound.json").read_text(encoding="utf-8") == "mine"
    run(*args, "-o", "bound.json", "--overwrite", "--quiet", "--splits", 1)
    ErrorBound.load("bound.json")


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        ((), "say where frames keep what was predicted"),
        ((*KEYS, *ENERGIES), "one bound at a time"),
        (("--forces-key", "REF_forces"), "say where frames keep what was predicted"),
        ((*KEYS, "--energy-key", "REF_energy"), "--energy-key goes with --predicted-energy-key"),
        ((*ENERGIES, "--forces-key", "REF_forces"), "--forces-key goes with --predicted-key"),
        ((*ENERGIES, "--coverage", "atom"), "energies are of whole frames"),
        ((*KEYS, "--frame-dh", "max"), "--frame-dh goes with --predicted-energy-key"),
        ((*KEYS, "--level", "1.0"), "is not a number between 0 and 1"),
        ((*KEYS, "--test-share", "x"), "is not a number between 0 and 1"),
        ((*KEYS, "--splits", "0"), "Invalid value for '--splits'"),
        (("--predicted-key", "forces"), "true and predicted forces have the same key, 'forces'"),
        (("--forces-key", "F", "--predicted-key", "F"), "the same key, 'F', so that all errors would be zero"),
        (("--predicted-energy-key", "energy"), "true and predicted energies have the same key, 'energy'"),
        (("--load", "b.json", "--predicted-key", "forces"), "--forces-key names the true ones"),
        (("--load", "b.json", "--splits", "3"), "--splits has no effect on a bound that is loaded"),
        (("--load", "b.json", "--train-share", "0.3"), "--train-share has no effect"),
        (("--load", "b.json", "--coverage", "atom"), "--coverage has no effect"),
    ],
)
def test_wrong_usage(args: tuple[str, ...], sentence: str) -> None:
    refused(re.escape(sentence) if "'" not in sentence else sentence, "test.xyz", *KNOWN, *args, status=2)
