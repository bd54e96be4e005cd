"""Data sets of chemiscope, and tables of environments."""

from __future__ import annotations

import gzip
import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from quests_zenn._core.checks import DataError, MissingExtraError
from quests_zenn.io.chemiscope import as_structure, check_chemiscope, write_dataset
from quests_zenn.io.plots_map import plot_map
from quests_zenn.io.tables import write_table

WATER = as_structure(["O", "H", "H"], np.eye(3), np.zeros((3, 3)), np.zeros(3, bool))


def content(**changed: Any) -> dict[str, Any]:
    properties = {
        "dH": {"target": "atom", "values": np.array([-1.0, 1.0 / 3.0]), "units": "nats", "description": "new"},
        "kind": {"target": "structure", "values": ["wet"]},
    }
    plain = {
        "name": "a", "description": "b", "structures": [WATER], "environments": [(0, 0, 5.0), (0, 2, 5.0)],
        "properties": properties, "settings": {"target": "atom"},
    }  # fmt: skip
    return plain | changed


def test_a_structure_has_a_cell_where_it_is_periodic() -> None:
    flags, cell = np.array([True, True, False]), np.diag([3.0, 4.0, 5.0])
    assert as_structure(["Cu"], np.zeros((1, 3)), cell, flags) == {
        "size": 1, "names": ["Cu"], "x": [0.0], "y": [0.0], "z": [0.0], "cell": [3.0, 0, 0, 0, 4.0, 0, 0, 0, 5.0],
    }  # fmt: skip
    assert "cell" not in as_structure(["Cu"], np.zeros((1, 3)), cell, ~flags & False)
    assert "cell" not in as_structure(["Cu"], np.zeros((1, 3)), np.diag([3.0, 4.0, 0.0]), flags)


@pytest.mark.extra
def test_a_data_set_is_what_chemiscope_makes_of_it(tmp_path: Path) -> None:
    chemiscope = pytest.importorskip("chemiscope")
    write_dataset(tmp_path / "a.json", **content())
    found = json.loads((tmp_path / "a.json").read_text())
    assert found["meta"] == {"name": "a", "description": "b"}
    assert found["structures"] == [WATER]
    assert found["environments"] == [{"structure": 0, "center": c, "cutoff": 5.0} for c in (0, 2)]
    assert found["properties"]["dH"] == {
        "target": "atom", "values": [-1.0, 0.3333333], "units": "nats", "description": "new"
    }  # fmt: skip
    assert found["properties"]["kind"]["values"] == ["wet"]
    widget = chemiscope.show_input(str(tmp_path / "a.json"))
    assert json.loads(widget.value)["properties"] == found["properties"]


@pytest.mark.extra
def test_equal_content_gives_equal_bytes(tmp_path: Path) -> None:
    pytest.importorskip("chemiscope")
    for name in ("a.json", "b.json.gz", "c.json.gz"):
        write_dataset(tmp_path / name, **content())
    packed = (tmp_path / "b.json.gz").read_bytes()
    assert packed == (tmp_path / "c.json.gz").read_bytes()
    assert packed[3:8] == bytes(5)  # no name and no time in the header
    assert gzip.decompress(packed) == (tmp_path / "a.json").read_bytes()


@pytest.mark.extra
def test_what_is_no_data_set_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("chemiscope")
    target = tmp_path / "a.json"
    one = {"dH": {"target": "atom", "values": np.array([1.0])}}
    with pytest.raises(DataError, match=r"a.json: chemiscope refuses the data set .*expected 2 values, got 1"):
        write_dataset(target, **content(properties=one))
    with pytest.raises(DataError, match=r"chemiscope refuses the data set .*invalid center index"):
        write_dataset(target, **content(environments=[(0, 3, 5.0), (0, 0, 5.0)]))
    for bad in (np.nan, np.inf):
        with pytest.raises(DataError, match="the property 'dH' holds numbers that are not finite"):
            write_dataset(target, **content(properties={"dH": {"target": "atom", "values": np.array([1.0, bad])}}))
    assert list(tmp_path.iterdir()) == []
    write_dataset(target, **content())
    with pytest.raises(DataError, match="exists already"):
        write_dataset(target, **content())


def test_without_chemiscope(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "chemiscope", None)
    with pytest.raises(MissingExtraError, match=r"needs chemiscope.*pip install 'quests_zenn\[interop\]'"):
        check_chemiscope()


def test_columns_are_written_in_full(tmp_path: Path) -> None:
    columns = {
        "file": ['a,"b".xyz', "c"],
        "n": np.array([1, 2]),
        "dH": np.array([1 / 3, math.inf]),
        "x": [0.1, math.nan],
    }
    for name in ("a.csv", "a.csv.gz", "b.csv.gz"):
        write_table(tmp_path / name, columns)
    text = (tmp_path / "a.csv").read_text()
    assert text == 'file,n,dH,x\n"a,""b"".xyz",1,0.3333333333333333,0.1\nc,2,inf,\n'
    packed = (tmp_path / "a.csv.gz").read_bytes()
    assert packed == (tmp_path / "b.csv.gz").read_bytes()
    assert gzip.decompress(packed).decode() == text


@pytest.mark.extra
@pytest.mark.parametrize("ending", ["png", "svg"])
def test_a_figure_of_anything(tmp_path: Path, ending: str) -> None:
    pytest.importorskip("matplotlib")
    rng = np.random.default_rng(0)
    dh = rng.normal(size=2500)
    dh[3] = np.inf
    common: dict[str, Any] = {"labels": ["a", "b"], "colour_range": (-1.0, 1.0)}
    plot_map(
        tmp_path / f"a.{ending}", coordinates=rng.normal(size=(2500, 3)), dh=dh, classes=np.arange(2500) % 12,
        names=[f"${c}$" for c in range(12)], what="letter", **common,
    )  # fmt: skip
    plot_map(tmp_path / f"b.{ending}", coordinates=np.zeros((1, 2)), dh=np.zeros(1), **common)
    assert min((tmp_path / f"{name}.{ending}").stat().st_size for name in "ab") > 1000
