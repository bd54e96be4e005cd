"""The file format of references: mapped, checked, refused where it is not what it should be."""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest

from quests_zenn import DataError
from quests_zenn.io.arrays import read_arrays, write_arrays

ARRAYS = {
    "x": np.random.default_rng(0).normal(size=(100, 7)),
    "small": np.arange(3, dtype=np.int64),
    "none": np.zeros((0, 4), np.float32),
    "one": np.array(7),
}
META = {"format": "a test", "values": [0.1, 1e-300], "name": "Ångström"}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_arrays(tmp_path / "a.qref", META, ARRAYS)
    return tmp_path / "a.qref"


def test_what_goes_in_comes_out_mapped_and_aligned(path: Path) -> None:
    meta, arrays = read_arrays(path)
    assert meta == META
    assert arrays.keys() == ARRAYS.keys()
    for name, values in ARRAYS.items():
        np.testing.assert_array_equal(arrays[name], values)
        assert arrays[name].dtype == values.dtype
    x = arrays["x"]
    assert isinstance(x.base, np.memmap)
    assert x.flags.aligned
    assert x.ctypes.data % 64 == 0
    before = path.read_bytes()
    x[:] = 0.0  # in memory only
    assert path.read_bytes() == before


def test_equal_contents_are_equal_bytes(path: Path, tmp_path: Path) -> None:
    write_arrays(tmp_path / "b.qref", META, ARRAYS)
    assert (tmp_path / "b.qref").read_bytes() == path.read_bytes()


def test_numpy_reads_it_too(path: Path) -> None:
    with np.load(path, allow_pickle=False) as found:
        np.testing.assert_array_equal(found["x"], ARRAYS["x"])


def test_files_of_other_hands_are_read_where_they_are_not_aligned(path: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.qref"
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(other, "w") as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    np.testing.assert_array_equal(read_arrays(other)[1]["x"], ARRAYS["x"])


def test_existing_files_are_left_alone_unless_asked(path: Path) -> None:
    before = path.read_bytes()
    with pytest.raises(DataError, match="exists already"):
        write_arrays(path, {}, {})
    assert path.read_bytes() == before
    write_arrays(path, {"new": 1}, {}, overwrite=True)
    assert read_arrays(path) == ({"new": 1}, {})


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.9, 0.999])
def test_truncated_files_are_refused_in_one_sentence(path: Path, share: float) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(DataError, match=r"a\.qref: cannot be read") as caught:
        read_arrays(path)
    assert "\n" not in str(caught.value)


def test_every_flipped_byte_of_the_numbers_is_noticed(path: Path) -> None:
    whole = path.read_bytes()
    start = whole.index(ARRAYS["x"].tobytes())
    for at in range(start, start + 800, 97):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
        with pytest.raises(DataError, match=r"x\.npy is damaged"):
            read_arrays(path)
        assert not np.array_equal(read_arrays(path, check=False)[1]["x"], ARRAYS["x"])


def test_other_things_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        read_arrays(tmp_path / "missing.qref")
    with pytest.raises(DataError, match="is a folder"):
        read_arrays(tmp_path)
    text = tmp_path / "text.qref"
    text.write_text("3\n\nH 0 0 0\n")
    with pytest.raises(DataError, match="cannot be read"):
        read_arrays(text)
    squeezed = tmp_path / "squeezed.qref"
    with zipfile.ZipFile(squeezed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("meta.json", "{}")
    with pytest.raises(DataError, match="compressed"):
        read_arrays(squeezed)
    for text_of_meta in ("[1]", "{", ""):
        with zipfile.ZipFile(squeezed, "w") as archive:
            archive.writestr("meta.json", text_of_meta)
        with pytest.raises(DataError, match="cannot be read"):
            read_arrays(squeezed)
    with zipfile.ZipFile(squeezed, "w") as archive:
        archive.writestr("other.json", json.dumps({}))
    with pytest.raises(DataError, match="cannot be read"):
        read_arrays(squeezed)


def test_pipes_and_loops_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.qref")
    with pytest.raises(DataError, match="a pipe or a device"):
        read_arrays(tmp_path / "pipe.qref")
    (tmp_path / "loop.qref").symlink_to(tmp_path / "loop.qref")
    with pytest.raises(DataError, match="no such file"):
        read_arrays(tmp_path / "loop.qref")


@pytest.mark.parametrize(
    "header", ["{'descr': '<f8', 'shape': (1,", "\x00", "{" * 500, "{'descr': '<f8', 'fortran_order': 0}"]
)
def test_headers_of_other_hands(tmp_path: Path, header: str) -> None:
    text = header.encode() + b"\n"
    with zipfile.ZipFile(tmp_path / "odd.qref", "w") as archive:
        archive.writestr("meta.json", "{}")
        archive.writestr("x.npy", b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text)
    with pytest.raises(DataError, match="cannot be read"):
        read_arrays(tmp_path / "odd.qref")


def test_objects_are_never_read(tmp_path: Path) -> None:
    path = tmp_path / "evil.qref"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("meta.json", "{}")
        with archive.open("x.npy", "w") as stream:
            np.lib.format.write_array(stream, np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match="plain numbers"):
        read_arrays(path)
