"""Files that other processes read and describe, and how much memory that may take."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase.build import bulk
from ase.io import write
from commands import run
from elsewhere import Elsewhere

from quests_zenn._core import rows as rows_module
from quests_zenn.cli import _ranges, _source
from quests_zenn.cli._ranges import How, described_elsewhere
from quests_zenn.cli._source import Source
from quests_zenn.descriptors import describe
from quests_zenn.entropy import estimate
from quests_zenn.io import read_frames

HOW = How(32, 5.0, "none", None, "float64")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(_source, "BATCH_ATOMS", 64)
    frames = []
    for number in range(9):
        atoms = bulk("Cu", cubic=True) * (2, 2, 2)
        atoms.rattle(0.02 * (1 + number), seed=number)
        atoms.info |= {"temperature": 100.0 * number, "kind": "hot" if number > 4 else "cold", "energy": -float(number)}
        frames.append(atoms)
    write("traj.xyz", frames)


def options(**more: Any) -> dict[str, Any]:
    common = {"k": 32, "cutoff": 5.0, "species": "none", "jobs": 1, "quiet": True, "type_map": None}
    return common | {"precision": "float64", "bandwidths": (["auto"],)} | more


@pytest.mark.parametrize("skip", [0, 2, 3, 8])
def test_ranges_are_what_the_whole_file_is(skip: int) -> None:
    remote = Elsewhere()
    found = described_elsewhere(remote, "traj.xyz", HOW, 64, skip=skip)
    assert found is not None
    parts = list(found)
    expected = describe(read_frames(f"traj.xyz@{skip}:"))
    np.testing.assert_array_equal(np.concatenate([env.x for env, _ in parts]), expected.x)
    np.testing.assert_array_equal(np.concatenate([env.numbers for env, _ in parts]), expected.numbers)
    labels = [record.label for _, records in parts for record in records]
    assert labels == [f"traj.xyz, frame {number}" for number in range(skip, 9)]
    assert [len(env) for env, _ in parts] == [sum(record.n for record in records) for _, records in parts]
    assert remote.ran == 5 - skip // 2


def test_what_cannot_be_cut_is_left_to_the_caller() -> None:
    write("one.cif", bulk("Cu", cubic=True))
    write("small.xyz", bulk("Cu", cubic=True))
    for spec in ("traj.xyz@1:", "one.cif", "small.xyz"):
        assert described_elsewhere(Elsewhere(), spec, HOW, 64) is None


@pytest.mark.parametrize(
    "more", [{}, {"by": "kind"}, {"energy_key": "energy"}, {"select": "0:3"}, {"species": "blocks"}]
)
def test_a_source_knows_the_same_of_frames_that_others_have_read(more: dict[str, Any]) -> None:
    one = Source(("traj.xyz", "traj.xyz@::2"), options(**more))
    mine = Source(("traj.xyz", "traj.xyz@::2"), options(**more))
    one.describe()
    remote = Elsewhere()
    mine.describe(remote)
    assert bool(remote.ran) == (not more.keys() & {"select", "species"})
    for name in ("lengths", "labels", "specs", "keys", "properties", "volumes"):
        assert getattr(mine, name) == getattr(one, name), name
    np.testing.assert_array_equal(mine.x, one.x)
    np.testing.assert_array_equal(mine.owner, one.owner)
    assert mine.parameters() == one.parameters()


def test_a_bad_frame_is_named_wherever_it_is_read() -> None:
    text = Path("traj.xyz").read_text().splitlines()
    text[34 * 7 + 5] = text[34 * 7 + 5].replace(text[34 * 7 + 5].split()[1], "nan", 1)
    Path("bad.xyz").write_text("\n".join(text) + "\n")
    found = described_elsewhere(Elsewhere(), "bad.xyz", HOW, 64)
    assert found is not None
    with pytest.raises(ValueError, match=r"bad\.xyz, frame 7, atom 3: its position is not finite"):
        list(found)


def test_texts_of_frames_are_kept_up_to_a_length() -> None:
    atoms = bulk("Cu", cubic=True)
    atoms.info |= {"short": "x" * _ranges.MOST_LETTERS, "long": "x" * (_ranges.MOST_LETTERS + 1), "table": np.eye(2)}
    facts = _ranges.facts_of(atoms)
    assert facts["info"].keys() == {"short"}
    assert facts["arrays"] == ("table",)


# --- memory -----------------------------------------------------------------------------------------------------------


def refused(*args: Any) -> str:
    out, err = run(*args, status=1)
    assert out == ""
    return err


def test_frames_that_do_not_fit_into_memory_are_refused_while_they_are_read() -> None:
    err = refused("entropy", "traj.xyz", "--memory", "1MB")
    assert "traj.xyz: " in err
    assert "environments and more need about" in err
    assert "more than --memory 1 MB; quests-zenn descriptors -o NAME.zarr writes a store" in err
    run("entropy", "traj.xyz", "--memory", "8GB", "--quiet")


@pytest.mark.extra
def test_stores_are_loaded_only_where_they_fit_and_only_where_they_must(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("zarr")
    from quests_zenn.io.store import Store

    run("descriptors", "traj.xyz", "-o", "s.zarr", "--quiet")
    assert "288 environments need about" in refused("entropy", "s.zarr", "--memory", "1MB")
    assert "--estimator sampled, and nothing asked of parts, takes less" in refused(
        "entropy", "s.zarr", "--memory", "1MB"
    )
    assert "a machine with more of it" in refused(
        "entropy", "s.zarr", "--memory", "1MB", "--estimator", "sampled"
    )  # fmt: skip
    # in pieces of 64 rows: nobody reads the whole
    monkeypatch.setattr(rows_module, "piece_rows", lambda d: 64)
    reads = []
    seen = Store.read
    monkeypatch.setattr(Store, "read", lambda self, a, b: (reads.append(b - a), seen(self, a, b))[1])
    run("entropy", "s.zarr", "--estimator", "sampled", "--quiet")
    assert reads
    assert max(reads) == 64


@pytest.mark.extra
def test_a_small_part_of_a_large_store_is_summed_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("zarr")
    run("descriptors", "traj.xyz", "-o", "s.zarr", "--quiet")
    monkeypatch.setattr(estimate, "EXACT_UP_TO", 100)
    for spec in ("s.zarr@:2", "traj.xyz@:2"):
        run("entropy", spec, "--json", "found.json", "--overwrite", "--quiet")
        found = json.loads(Path("found.json").read_text())
        assert found["estimator"] == "exact"
        assert found["n_environments"] == 64
    assert "64 environments need about" in refused("entropy", "s.zarr@:2", "--memory", "1MB")
