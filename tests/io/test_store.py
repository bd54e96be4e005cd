"""Stores of environments: what goes in comes out, whatever happens in between."""

from __future__ import annotations

import errno
import json
import os
import pickle
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from quests_zenn._core import locks
from quests_zenn._core.checks import DataError
from quests_zenn._core.rows import Rows, piece_rows
from quests_zenn.io import store as room
from quests_zenn.io import store_form
from quests_zenn.io.store import Store, open_store
from quests_zenn.io.store_form import FrameRecord, StoreParameters
from quests_zenn.io.store_writer import StoreWriter, check_store_output

pytest.importorskip("zarr")
pytestmark = pytest.mark.extra

#: Rows of a chunk here.
CHUNK = 60

PARAMETERS = StoreParameters(3, 5.0, "none")

KEY = {"inputs": [{"path": "a.xyz", "size": 100, "mtime_ns": 5}]}

PROVENANCE = [{"name": "a.xyz", "index": ":", "n_frames": 30}, {"name": "b.xyz", "index": ":", "n_frames": 1}]


@pytest.fixture(autouse=True)
def small_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_chunks_small(monkeypatch)
    monkeypatch.chdir(tmp_path)


def make_chunks_small(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(store_form, "chunk_rows", lambda width: CHUNK)
    patch.setattr(store_form, "TEXT_CHUNK", 2000)
    patch.setattr(store_form, "LENGTH_CHUNK", 20)
    patch.setattr(os, "fsync", lambda number: None)  # nobody pulls the plug here


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("stores") / "s.zarr"
    with pytest.MonkeyPatch.context() as patch:
        make_chunks_small(patch)
        Content().write(os.fspath(path))
    return path


@pytest.fixture
def there(written: Path, small_chunks: None) -> None:
    """A store, ``s.zarr``, with the usual content."""
    shutil.copytree(written, "s.zarr")


class Content:
    """What is written: frames of 0 to 12 rows."""

    def __init__(self, n_frames: int = 31, seed: int = 0, dtype: str = "float64") -> None:
        rng = np.random.default_rng(seed)
        self.lengths = rng.integers(0, 13, n_frames)
        n = int(self.lengths.sum())
        self.offsets = np.concatenate([[0], np.cumsum(self.lengths)])
        self.x = rng.random((n, 5)).astype(dtype)
        self.numbers = rng.choice([1, 8, 29], n)
        self.tied, self.incomplete = rng.random((2, n)) < 0.3
        self.records = [
            FrameRecord(
                f"a.xyz, frame {f}", int(m), file=f % 2, volume=None if f == 2 else 10.0 + f / 3,
                without_volume="no cell" if f == 2 else "", properties={"energy": f / 7},
                info={"config_type": "även" if f % 2 else "odd", "n": f, "flag": True}, results={"free_energy": 0.1},
                arrays=("virial",),
            )
            for f, m in enumerate(self.lengths.tolist())
        ]  # fmt: skip

    def write(
        self, name: str = "s.zarr", *, frames: int | None = None, step: int = 3, key: Any = KEY, pause: float = 0.0,
        parameters: StoreParameters = PARAMETERS, overwrite: bool = False,
    ) -> StoreWriter:  # fmt: skip
        """Write all frames, or break off after some, as an error would."""
        last = len(self.lengths) if frames is None else frames
        with StoreWriter(name, parameters, key, overwrite) as writer:
            for a in range(writer.n_frames, last, step):
                b = min(a + step, last)
                rows = slice(self.offsets[a], self.offsets[b])
                writer.append(
                    self.x[rows], self.numbers[rows], self.tied[rows], self.incomplete[rows], self.records[a:b]
                )
                time.sleep(pause)
            if frames is None:
                writer.finish(PROVENANCE)
        return writer

    def assert_in(self, store: Store) -> None:
        assert store.shape == self.x.shape
        assert len(store) == len(self.x)
        assert store.dtype == self.x.dtype
        np.testing.assert_array_equal(store.read(0, len(store)), self.x)
        np.testing.assert_array_equal(store.numbers, self.numbers)
        np.testing.assert_array_equal(store.tied, self.tied)
        np.testing.assert_array_equal(store.incomplete, self.incomplete)
        np.testing.assert_array_equal(store.frame_offsets, self.offsets)
        assert list(store.records()) == self.records
        assert (store.n_tied, store.n_incomplete) == (self.tied.sum(), self.incomplete.sum())


def refused(sentence: str, call: Any, *args: Any, **kwargs: Any) -> None:
    with pytest.raises(DataError, match=sentence):
        call(*args, **kwargs)


# --- what goes in comes out -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("n_frames", [31, 3])
def test_what_is_written_is_read(n_frames: int, dtype: str) -> None:
    content = Content(n_frames, dtype=dtype)
    parameters = StoreParameters(3, 5.0, "none", dtype=dtype)
    content.write(parameters=parameters)
    store = open_store("s.zarr", verify=True)
    content.assert_in(store)
    assert store.parameters == StoreParameters(3, 5.0, "none", ("Cu", "H", "O"), dtype)
    assert store.provenance == PROVENANCE
    assert store.labels[1] == "a.xyz, frame 1"
    assert store.present == (1, 8, 29)
    assert sorted(os.listdir()) == ["s.zarr"]


def test_zarr_itself_reads_a_store() -> None:
    import zarr

    content = Content()
    content.write()
    group = zarr.open_group("s.zarr", mode="r")
    np.testing.assert_array_equal(group["x"][:], content.x)
    np.testing.assert_array_equal(group["numbers"][:], content.numbers)
    lines = group["frames"][:].tobytes().decode().splitlines()
    assert [json.loads(line)["n"] for line in lines] == content.lengths.tolist()


@pytest.mark.usefixtures("there")
def test_rows_are_read_in_pieces() -> None:
    content = Content()
    store = open_store("s.zarr")
    assert isinstance(store, Rows)
    assert store.rows is store
    n = len(store)
    rng = np.random.default_rng(1)
    for _ in range(2):  # before chunks were judged, and afterwards, when a few rows are read alone
        for first, last in [(0, n), (0, 0), (5, 7), (CHUNK - 1, CHUNK + 1), (CHUNK, 3 * CHUNK), (n - 1, n), (3, n + 9)]:
            np.testing.assert_array_equal(store.read(first, last), content.x[first:last])
        for rows in (
            rng.permutation(n),
            rng.integers(0, n, 9),
            np.array([7, 6, 7]),
            np.array([0, n - 1]),
            [],
            [1, 2, 45],
        ):
            np.testing.assert_array_equal(store.take(np.array(rows, int)), content.x[np.array(rows, int)])
    for wrong in (-1, n):
        with pytest.raises(IndexError, match=f"range from 0 to {n - 1}"):
            store.take(np.array([wrong]))


@pytest.mark.usefixtures("there")
def test_a_piece_travels_to_another_process() -> None:
    content = Content()
    piece = open_store("s.zarr").piece(30, 95)
    packed = pickle.dumps(piece)
    assert len(packed) < 500
    os.chdir("/")
    np.testing.assert_array_equal(pickle.loads(packed).load(), content.x[30:95])


@pytest.mark.usefixtures("there")
def test_a_piece_of_a_store_that_was_replaced_is_refused() -> None:
    piece = open_store("s.zarr").piece(0, 5)
    shutil.rmtree("s.zarr")
    Content(seed=3).write()
    room._opened.cache_clear()
    refused("another store than it was when the run began", piece.load)


def test_chunks_are_quarters_of_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    for width in (1, 63, 1000, 100_000):
        assert 4 * store_form.chunk_rows(width) == piece_rows(width)


def test_equal_contents_have_equal_tokens_and_others_have_not() -> None:
    content = Content()
    content.write("a.zarr", step=1)
    content.write("b.zarr", step=31)
    token = open_store("a.zarr").token
    assert open_store("b.zarr").token == token
    content.x[100, 2] = np.nextafter(content.x[100, 2], 2.0)
    content.write("c.zarr")
    assert open_store("c.zarr").token != token
    Content().write("d.zarr", parameters=StoreParameters(3, 6.0, "none"))
    assert open_store("d.zarr").token != token


def test_frames_without_rows_at_the_end_are_kept() -> None:
    content = Content(8)
    content.lengths[-1:] = 0
    content.records[-1] = FrameRecord("last", 0)
    content.offsets = np.concatenate([[0], np.cumsum(content.lengths)])
    for name in ("x", "numbers", "tied", "incomplete"):
        setattr(content, name, getattr(content, name)[: content.offsets[-1]])
    content.write()
    content.assert_in(open_store("s.zarr"))


# --- what is refused in writing ---------------------------------------------------------------------------------------


def test_rows_that_are_wrong_are_refused() -> None:
    content = Content()
    content.x[70, 1] = np.nan
    refused("a.xyz, frame .* or a frame soon after it: an environment is not finite", content.write)
    content = Content()
    content.numbers[70] = 40_000
    refused("an atomic number is out of range", content.write, "t.zarr")
    with pytest.raises(ValueError, match="frames of 2 rows, got 3"), StoreWriter("u.zarr", PARAMETERS, KEY) as writer:
        writer.append(np.ones((3, 5)), np.ones(3, int), *np.zeros((2, 3), bool), [FrameRecord("f", 2)])
    with StoreWriter("v.zarr", PARAMETERS, KEY) as writer:
        refused("there are no environments to write", writer.finish, [])
        writer.append(np.ones((1, 5)), np.ones(1, int), *np.zeros((2, 1), bool), [FrameRecord("f", 1)])
        with pytest.raises(ValueError, match="rows must have 5 columns, got 6"):
            writer.append(np.ones((1, 6)), np.ones(1, int), *np.zeros((2, 1), bool), [FrameRecord("f", 1)])


def test_a_store_is_not_replaced_unasked() -> None:
    content, other = Content(), Content(seed=5)
    content.write()
    refused("s.zarr: exists already; choose another name or say --overwrite", other.write)
    content.assert_in(open_store("s.zarr"))
    other.write(overwrite=True)
    other.assert_in(open_store("s.zarr"))
    assert os.listdir() == ["s.zarr"]


def test_what_is_no_store_is_never_replaced() -> None:
    Path("s.zarr").mkdir()
    Path("s.zarr/letter.txt").write_text("dear")
    refused("is no store of environments, and is not replaced by one", check_store_output, "s.zarr", True)
    Path("t.zarr").write_text("dear")
    refused("is no store of environments, and is not replaced by one", check_store_output, "t.zarr", True)
    refused("the name of a store must end in .zarr", check_store_output, "t.h5")
    refused("the folder .*nowhere does not exist", check_store_output, "nowhere/s.zarr")
    assert Path("s.zarr/letter.txt").exists()


# --- runs that are killed ---------------------------------------------------------------------------------------------

WRITER = """
import sys
sys.path[:0] = {path!r}
from test_store import Content, store_form
store_form.chunk_rows, store_form.TEXT_CHUNK, store_form.LENGTH_CHUNK = lambda width: {chunk}, 2000, 20
Content().write(pause=0.02, step=1)
"""


def begin() -> subprocess.Popen[bytes]:
    """A process that writes the store, slowly."""
    code = WRITER.format(path=[str(Path(__file__).parent), str(Path(__file__).parent.parent)], chunk=CHUNK)
    return subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE)


def wait_for(path: Path, process: subprocess.Popen[bytes]) -> None:
    for _ in range(3000):
        if path.exists():
            return
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)
    raise AssertionError(f"{path} never came")


@pytest.mark.parametrize("sign", ["x/c/1/0", "numbers/c/2", "record.json"])
def test_a_run_that_is_killed_goes_on(sign: str, capsys: pytest.CaptureFixture[str]) -> None:
    content = Content()
    content.write("whole.zarr")
    part = Path(".s.zarr.part")
    process = begin()
    wait_for(part / sign, process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.communicate()
    assert not Path("s.zarr").exists()
    refused("s.zarr: is not complete; repeat the command that makes it", open_store, "s.zarr")
    writer = content.write()
    assert writer.n_frames > 0 or sign != "numbers/c/2"
    store, whole = open_store("s.zarr", verify=True), open_store("whole.zarr")
    content.assert_in(store)
    assert store.token == whole.token
    assert sorted(os.listdir()) == ["s.zarr", "whole.zarr"]
    assert tree("s.zarr") == tree("whole.zarr")


def tree(name: str) -> dict[str, bytes]:
    return {path.relative_to(name).as_posix(): path.read_bytes() for path in Path(name).rglob("*") if path.is_file()}


@pytest.mark.parametrize("frames", range(1, 31, 7))
def test_a_run_goes_on_from_any_frame(frames: int) -> None:
    content = Content()
    content.write("whole.zarr")
    left = content.write(frames=frames)
    writer = content.write(step=2)
    assert writer.began_anew == ""
    assert left.n_kept == int(content.offsets[frames]) // CHUNK * CHUNK
    assert writer.n_rows <= left.n_kept < writer.n_rows + CHUNK
    content.assert_in(open_store("s.zarr"))
    assert tree("s.zarr") == tree("whole.zarr")


def test_what_was_written_is_not_written_again(monkeypatch: pytest.MonkeyPatch) -> None:
    content = Content()
    content.write(frames=20)
    before = Path(".s.zarr.part/x/c/0/0").stat()
    content.write()
    after = Path("s.zarr/x/c/0/0").stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def test_a_run_that_ends_before_its_first_chunk_leaves_nothing() -> None:
    Content().write(frames=2)
    assert os.listdir() == []


def test_another_input_or_parameter_begins_anew() -> None:
    content = Content()
    content.write(frames=20)
    changed = {"inputs": [{"path": "a.xyz", "size": 100, "mtime_ns": 6}]}
    other = Content(seed=4)
    writer = other.write(key=changed)
    assert re.search(r"the run before this one had inputs \[.* 5}\], and this one has \[.* 6}\]", writer.began_anew)
    assert writer.n_frames == 0
    other.assert_in(open_store("s.zarr", verify=True))
    content.write("t.zarr", frames=20)
    writer = content.write("t.zarr", parameters=StoreParameters(3, 6.0, "none"))
    assert writer.began_anew == "the run before this one had cutoff 5.0, and this one has 6.0"


@pytest.mark.parametrize("harm", ["chunk", "missing", "frames", "record", "run"])
def test_what_is_left_and_damaged_is_not_used(harm: str) -> None:
    content = Content()
    content.write(frames=20)
    part = Path(".s.zarr.part")
    if harm == "chunk":
        os.truncate(part / "x/c/1/0", 10)
    elif harm == "missing":
        (part / "flags/c/0").unlink()
    else:
        path = part / {"frames": "frames.jsonl", "record": "record.json", "run": "run.json"}[harm]
        os.truncate(path, path.stat().st_size // 2)
    writer = content.write()
    assert writer.n_frames == 0
    assert re.search("what an earlier run left is (damaged|not enough to go on from)", writer.began_anew)
    content.assert_in(open_store("s.zarr", verify=True))


@pytest.mark.parametrize(
    "changes",
    [{"chunks": "2"}, {"chunks": -1}, {"width": 10**40}, {"bytes": 10**40}, {"digest": 5}, {"present": ["x"]}],
)
def test_a_record_that_lies_is_not_used(changes: dict[str, Any]) -> None:
    content = Content()
    content.write(frames=20)
    path = Path(".s.zarr.part/record.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    writer = content.write()
    assert writer.n_frames == 0
    assert re.search("what an earlier run left is (damaged|not enough to go on from)", writer.began_anew)
    content.assert_in(open_store("s.zarr", verify=True))


@pytest.mark.parametrize("call", [1, 2])
def test_a_run_that_ends_at_the_last_renaming_goes_on(call: int, monkeypatch: pytest.MonkeyPatch) -> None:
    content = Content()
    if call == 2:
        Content(5).write()
    calls, really = [], os.rename

    def rename(*names: Any) -> None:
        calls.append(names)
        if len(calls) == call:
            raise OSError(errno.EIO, "no more")
        really(*names)

    monkeypatch.setattr(os, "rename", rename)
    refused(r"s.zarr: cannot be written \(no more\); what is finished is kept", content.write, overwrite=True)
    monkeypatch.setattr(os, "rename", really)
    writer = content.write(overwrite=True)
    assert not writer.began_anew
    assert writer.n_frames > 10
    content.assert_in(open_store("s.zarr", verify=True))
    assert {*os.listdir("s.zarr")} == {"zarr.json", "x", "numbers", "flags", "frame_lengths", "frames"}
    assert os.listdir() == ["s.zarr"]


def test_two_processes_cannot_write_one_store() -> None:
    process = begin()
    part = Path(".s.zarr.part")
    wait_for(part / "record.json", process)
    refused("s.zarr: another process is writing it", Content(seed=9).write)
    refused("s.zarr: another process is writing it", Content(seed=9).write, key={"inputs": []})
    assert process.wait(60) == 0
    process.communicate()
    Content().assert_in(open_store("s.zarr", verify=True))


def test_without_locks_the_first_of_two_writers_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "fcntl", None)
    content = Content()
    with StoreWriter("s.zarr", PARAMETERS, KEY) as first:
        content.write(frames=20)
        part = slice(0, content.offsets[3])
        first.append(
            content.x[part], content.numbers[part], content.tied[part], content.incomplete[part], content.records[:3]
        )
        refused("another process has begun to write it; this one stops", first.finish, [])
    content.write()
    content.assert_in(open_store("s.zarr", verify=True))


# --- disks that are full ----------------------------------------------------------------------------------------------


def test_a_full_disk_is_told_and_the_next_run_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    content = Content()
    content.write("whole.zarr")
    replace = os.replace

    def full(source: Any, target: Any) -> None:
        if str(target).endswith("x/c/2/0"):
            raise OSError(errno.ENOSPC, "No space left on device")
        replace(source, target)

    monkeypatch.setattr(os, "replace", full)
    refused(
        r"s.zarr: cannot be written \(No space left on device\); what is finished is kept, and the same command goes",
        content.write,
    )
    monkeypatch.setattr(os, "replace", replace)
    writer = content.write()
    assert writer.n_frames > 0
    assert tree("s.zarr") == tree("whole.zarr")


def test_files_may_be_too_large_for_the_system() -> None:
    content = Content()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1200, limits[1]))
    try:
        refused(r"s.zarr: cannot be written \(File too large\)", content.write)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    content.write()
    content.assert_in(open_store("s.zarr"))


# --- stores that are damaged or strange -------------------------------------------------------------------------------


@pytest.mark.usefixtures("there")
def test_damaged_chunks_are_told() -> None:
    kept = tree("s.zarr")

    def harmed(path: str, change: Any, sentence: str) -> None:
        change(Path("s.zarr") / path)
        refused(sentence, lambda: open_store("s.zarr", verify=True))
        place = Path("s.zarr") / path
        if place.is_symlink() or place.exists():
            place.unlink()
        place.write_bytes(kept[path])

    def flip(path: Path) -> None:
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)

    flipped = r"s.zarr: chunk 1 of its array x is damaged: its checksum is another; make the store again"
    harmed("x/c/1/0", flip, flipped)
    harmed(
        "x/c/1/0", lambda path: os.truncate(path, 100), r"chunk 1 of its array x has 100 bytes and not 2,404: it is t"
    )
    harmed("x/c/1/0", Path.unlink, "s.zarr: chunk 1 of its array x is missing")
    harmed("x/c/1/0", lambda path: (path.unlink(), path.symlink_to("/dev/zero")), "array x is no plain file")
    for path in ("numbers/c/0", "flags/c/0", "frame_lengths/c/1", "frames/c/2"):
        harmed(path, flip, f"chunk {path[-1]} of its array {path.split('/')[0]} is damaged")
        harmed(path, Path.unlink, f"chunk {path[-1]} of its array {path.split('/')[0]} is missing")
    open_store("s.zarr", verify=True)


@pytest.mark.usefixtures("there")
def test_a_chunk_that_is_harmed_later_is_told() -> None:
    store = open_store("s.zarr")
    store.read(0, len(store))
    os.truncate("s.zarr/x/c/1/0", 100)
    refused("chunk 1 of its array x is truncated or damaged", store.read, CHUNK + 5, CHUNK + 6)
    refused("chunk 1 of its array x has 100 bytes", store.read, CHUNK, 2 * CHUNK)
    refused("chunk 1 of its array x has 100 bytes", store.take, np.arange(len(store)))


@pytest.mark.usefixtures("there")
def test_rows_that_are_not_finite_are_told() -> None:
    import zarr

    zarr.open_group("s.zarr", mode="r+")["x"][67, 2] = np.inf
    refused(
        "s.zarr: row 67 of its array x is not finite; make the store again", open_store("s.zarr").take, np.array([61])
    )


def changed(path: str, change: Any) -> None:
    place = Path("s.zarr") / path / "zarr.json"
    content = json.loads(place.read_text())
    change(content)
    place.write_text(json.dumps(content))


STRANGE: dict[str, tuple[str, Any, str]] = {
    "version": ("", lambda own: own.update(format_version=2), "was written in version 2 of the format, and this"),
    "unfinished": ("", lambda own: own.update(complete=False), "is not complete"),
    "k": ("", lambda own: own.update(k=4), "elements do not make so many columns"),
    "rows": ("", lambda own: own.update(n_environments=10**15), "what it says of itself is damaged|another form"),
    "columns": ("", lambda own: own.update(n_columns=10**12), "what it says of itself is damaged"),
    "chunk": ("", lambda own: own.update(rows_per_chunk=10**9), r"damaged \(rows_per_chunk\)"),
    "dtype": ("", lambda own: own.update(dtype="object"), r"damaged \(dtype\)"),
    "text": ("", lambda own: own.update(cutoff=[]), "what it says of itself is damaged"),
    "present": ("", lambda own: own.update(present=[10**30]), r"damaged \(present\)"),
    "elements": ("", lambda own: own.update(elements=["Cu"]), r"damaged \(elements are not those of its atoms\)"),
    "symbols": ("", lambda own: own.update(elements=["Cu\x1b", "H", "O"]), "elements do not make so many columns"),
    "provenance": ("", lambda own: own.update(provenance=["abc"]), "what it says of itself is damaged"),
    "missing": ("", lambda own: own.pop("token"), r"damaged \('token'\)"),
    "object": ("x", lambda found: found.update(data_type="object"), "its array x has another form than this package"),
    "pickle": ("x", lambda found: found.update(codecs=[{"name": "numcodecs.pickle"}]), "its array x has another form"),
    "gzip": ("flags", lambda found: found["codecs"].append({"name": "gzip"}), "its array flags has another form"),
    "shape": ("x", lambda found: found.update(shape=[10**12, 5]), "its array x has another form"),
    "grid": (
        "flags", lambda found: found["chunk_grid"]["configuration"].update(chunk_shape=[9**9]), "another form",
    ),
    "lengths": ("frames", lambda found: found.update(shape=[10**12]), "of its array frames is missing"),
    "negative": ("frames", lambda found: found.update(shape=[-5]), r"damaged \(frames\)"),
    "transformers": ("x", lambda found: found.update(storage_transformers=[{"name": "evil"}]), "x has another form"),
}  # fmt: skip


@pytest.mark.usefixtures("there")
@pytest.mark.parametrize("name", STRANGE)
def test_strange_stores_are_refused_before_they_are_read(name: str) -> None:
    path, change, sentence = STRANGE[name]
    changed(path, (lambda found: change(found["attributes"][store_form.FORMAT])) if path == "" else change)
    refused(f"^s.zarr: .*{sentence}", open_store, "s.zarr")


@pytest.mark.usefixtures("there")
def test_frames_that_do_not_fit_are_refused() -> None:
    path = Path("s.zarr/frame_lengths/c/0")
    import zarr

    lengths = zarr.open_group("s.zarr", mode="r+")["frame_lengths"]
    lengths[0] += 1
    refused("its array frame_lengths does not add up to its", lambda: open_store("s.zarr").frame_offsets)
    lengths[1] -= 1
    refused("what it says of frame 0 is damaged", lambda: open_store("s.zarr").labels)
    zarr.open_group("s.zarr", mode="r+")["numbers"][3] = 79
    refused("its array numbers holds what is not among its elements", lambda: open_store("s.zarr").numbers)
    assert path.exists()


@pytest.mark.parametrize(
    "line",
    [
        b"[]\n", b"{}\n", b'{"n": -1, "label": "a"}\n', b'{"n": 1, "label": 5}\n', b'{"n": 1, "label": "a", "q": 1}\n',
        b'{"n": 1, "label": "a", "properties": {"energy": "x"}}\n', b'{"n": true, "label": "a"}\n', b"x\n",
        b'{"n": 1, "label": "a", "volume": -5}\n', b'{"n": 1, "label": "a", "volume": NaN}\n',
        b'{"n": 1, "label": "a", "properties": {"energy": 1%s}}\n' % (b"0" * 400),
    ],
)  # fmt: skip
def test_records_of_frames_are_judged(line: bytes) -> None:
    with pytest.raises((ValueError, TypeError)):
        FrameRecord.from_json(line)


def test_what_strangers_say_does_not_move_the_cursor() -> None:
    line = FrameRecord("a\x1b[2Jb é", 1, without_volume="\n\r").to_json()
    record = FrameRecord.from_json(line)
    assert (record.label, record.without_volume) == ("a?[2Jb é", "??")


def test_what_is_no_store_is_told() -> None:
    refused("s.zarr: no such store", open_store, "s.zarr")
    Path("s.zarr").mkdir()
    refused("s.zarr: is no store of environments; quests-zenn descriptors", open_store, "s.zarr")
    Path("s.zarr/zarr.json").write_text("{" * 100_000)
    refused("s.zarr: is no store of environments; quests-zenn descriptors", open_store, "s.zarr")
    Path("s.zarr/zarr.json").write_text('{"zarr_format": 3, "node_type": "group", "attributes": 5}')
    refused("s.zarr: is no store of environments; quests-zenn descriptors", open_store, "s.zarr")
    Path("t.zarr").write_text("text")
    refused("t.zarr: is no store of environments", open_store, "t.zarr")


@pytest.mark.usefixtures("there")
def test_without_zarr_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "zarr", None)
    sentence = r"this needs zarr, which is not installed: pip install 'quests_zenn\[dask\]'"
    with pytest.raises(ImportError, match=sentence):
        open_store("s.zarr")
    with pytest.raises(ImportError, match=sentence):
        StoreWriter("t.zarr", PARAMETERS, KEY)


def test_a_store_that_took_the_place_of_another_is_not_mixed_with_it(there: None) -> None:
    """Its chunks are as large, and their checksums are right."""
    store = open_store("s.zarr")
    assert len(store.read(0, 5)) == 5
    Content(seed=1).write("other.zarr")
    shutil.rmtree("s.zarr")
    os.rename("other.zarr", "s.zarr")
    for ask in (lambda: store.read(0, len(store)), lambda: store.take(np.array([1, 120])), lambda: store.numbers):
        with pytest.raises(DataError, match=r"s\.zarr: was replaced while it was in use; repeat the command"):
            ask()
    assert len(open_store("s.zarr").read(0, 5)) == 5
