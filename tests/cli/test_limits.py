"""Whole runs where there is little: of address space, and of disk."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk
from ase.io import write

from quests_zenn.io import open_store

pytest.importorskip("zarr")
pytestmark = [pytest.mark.extra, pytest.mark.slow]

BIN = Path(sys.executable).parent


@pytest.fixture(scope="module")
def traj(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 frames of 2,048 atoms."""
    path = tmp_path_factory.mktemp("frames") / "traj.xyz"
    crystal = bulk("Cu", cubic=True) * (8, 8, 8)
    frames = []
    for seed in range(60):
        atoms = crystal.copy()
        atoms.rattle(0.05 + 0.002 * seed, seed=seed)
        frames.append(atoms)
    write(path, frames)
    return path


def command(name: str, *args: object, space: int | None = None, **environ: str) -> subprocess.CompletedProcess[str]:
    """A command in a process of its own, which may take so many bytes of address space."""

    def limit() -> None:
        if space is not None:
            resource.setrlimit(resource.RLIMIT_AS, (space, space))

    return subprocess.run(
        [str(BIN / name), *map(str, args)],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, **environ},
        preexec_fn=limit,
    )


def test_runs_in_little_address_space(traj: Path, tmp_path: Path) -> None:
    store = tmp_path / "s.zarr"
    made = command(
        "quests-zenn", "descriptors", traj, "-o", store, "--precision", "float32", "--jobs", 2, space=2_500_000_000
    )
    assert made.returncode == 0, made.stderr
    sampled = command(
        "quests-entropy", store, "--estimator", "sampled", "--bandwidth", 0.03, "--jobs", 2, space=2_500_000_000
    )
    assert sampled.returncode == 0, sampled.stderr
    assert "122,880" in sampled.stdout
    # where it is too little, there is one sentence, and nothing else
    poor = command("quests-entropy", traj, "--estimator", "exact", "--jobs", 2, space=590_000_000)
    assert poor.returncode != 0
    assert "Traceback" not in poor.stderr
    assert poor.stdout == ""


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 20 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=20m", "tmpfs", folder], capture_output=True)
    if made.returncode:
        pytest.skip("file systems can be mounted by root only")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def test_a_full_disk_keeps_what_is_finished(traj: Path, small_disk: Path, tmp_path: Path) -> None:
    store, other = small_disk / "s.zarr", tmp_path / "other.zarr"
    full = command("quests-zenn", "descriptors", traj, "-o", store, "--precision", "float32")
    assert full.returncode == 1
    assert "cannot be written (No space left on device); what is finished is kept" in full.stderr
    assert full.stderr.count("\n") == 1
    assert not store.exists()
    subprocess.run(["mount", "-o", "remount,size=80m", small_disk], check=True)
    again = command("quests-zenn", "descriptors", traj, "-o", store, "--precision", "float32")
    assert again.returncode == 0, again.stderr
    assert "goes on after" in again.stderr
    assert command("quests-zenn", "descriptors", traj, "-o", other, "--precision", "float32").returncode == 0
    assert open_store(store).token == open_store(other).token
    np.testing.assert_array_equal(open_store(store).read(0, 1000), open_store(other).read(0, 1000))


def test_a_cache_that_is_full_costs_only_what_it_would_have_kept(traj: Path, small_disk: Path) -> None:
    (small_disk / "filler").write_bytes(bytes(20 * 2**20 - 8192))
    found = command(
        "quests-entropy", f"{traj}@:20", "--estimator", "exact", "--bandwidth", 0.03, XDG_CACHE_HOME=str(small_disk)
    )
    assert found.returncode == 0, found.stderr
    assert "entropy H" in found.stdout
