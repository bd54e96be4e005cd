"""Files that grow by records, and survive that their writer is killed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from quests_zenn._core.checks import DataError
from quests_zenn.io import journal as room
from quests_zenn.io.journal import Journal, journal_of

RUN = {"inputs": ["a.xyz"], "threshold": 0.1}
RECORDS = [b"first\n", b"the second\n", b"3\n"]


class Killed(BaseException):
    """Stands for SIGKILL: nothing of the run is executed after it."""


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "out.xyz"


def work(output: Path, in_place: bool, **more: Any) -> list[int]:
    """A run that writes all records that are not there yet; returns those it found noted down."""
    with Journal(output, RUN, in_place=in_place, **more) as journal:
        found = [entry["record"] for entry in journal.entries() if "record" in entry]
        for number in range(journal.state.get("done", 0), len(RECORDS)):
            journal.add(b"", {"tried": number})
            journal.add(RECORDS[number], {"done": number + 1, "record": number})
        journal.finish()
    return found


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("torn", [0.0, 0.5, 1.0])
def test_killed_anywhere(in_place: bool, torn: float, output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process dies before, in the middle of, or after each write; then the same run is done again."""
    write = room._write
    survived = False
    for last in range(100):
        count = 0

        def dying(stream: Any, content: bytes) -> None:
            nonlocal count
            count += 1
            if count > last:  # noqa: B023
                stream.write(content[: int(torn * len(content))])
                stream.flush()
                raise Killed
            write(stream, content)

        monkeypatch.setattr(room, "_write", dying)
        try:
            work(output, in_place)
            survived = True
        except Killed:
            assert in_place or not output.exists()
        monkeypatch.setattr(room, "_write", write)
        if not survived:
            work(output, in_place)
        assert output.read_bytes() == b"".join(RECORDS), last
        if not in_place:
            assert list(output.parent.iterdir()) == [output]
        for path in output.parent.iterdir():
            path.unlink()
        if survived:
            break
    assert last > 2 * len(RECORDS)


def test_killed_between_the_move_and_the_end(output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def die(*_: Any, **__: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(room.os, "replace", die)
        with pytest.raises(Killed):
            work(output, False)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", die)
        with pytest.raises(Killed):
            work(output, False)
    assert output.read_bytes() == b"".join(RECORDS)
    assert journal_of(output).exists()
    assert work(output, False) == [0, 1, 2]
    assert list(output.parent.iterdir()) == [output]


def test_what_was_finished_is_left_alone(output: Path) -> None:
    work(output, False)
    with pytest.raises(DataError, match=r"out\.xyz: exists already"):
        work(output, False)
    assert work(output, False, overwrite=True) == []


def test_in_place_it_goes_on(output: Path) -> None:
    assert work(output, True) == []
    assert work(output, True) == [0, 1, 2]
    assert work(output, True, overwrite=True) == []
    assert output.read_bytes() == b"".join(RECORDS)
    journal_of(output).unlink()
    with pytest.raises(DataError, match=r"out\.xyz: exists already"):
        work(output, True)


def half_done(output: Path, in_place: bool = False) -> None:
    with Journal(output, RUN, in_place=in_place) as journal:
        journal.add(RECORDS[0], {"done": 1, "record": 0})


def test_another_run_is_refused(output: Path) -> None:
    half_done(output)
    with (
        pytest.raises(DataError, match=r"had threshold 0\.1, and this one has 0\.2; repeat that command"),
        Journal(output, RUN | {"threshold": 0.2}),
    ):
        pass
    with (
        pytest.raises(DataError, match="had min atoms null, and this one has 3"),
        Journal(output, RUN | {"min_atoms": 3}),
    ):
        pass
    assert work(output, False) == [0]


def test_a_file_that_appeared_is_not_replaced(output: Path) -> None:
    half_done(output)
    output.write_text("mine")
    with pytest.raises(DataError, match="exists already"), Journal(output, RUN):
        pass
    assert output.read_text() == "mine"


def test_two_at_a_time_are_refused(output: Path) -> None:
    pytest.importorskip("fcntl")
    with Journal(output, RUN) as journal:
        journal.add(RECORDS[0], {"done": 1, "record": 0})
        for overwrite in (False, True):
            with (
                pytest.raises(DataError, match="another process is writing it"),
                Journal(output, RUN, overwrite=overwrite),
            ):
                pass
    assert work(output, False) == [0]


def test_what_was_tampered_with_is_refused(output: Path) -> None:
    half_done(output, True)
    output.write_bytes(b"fi")
    with pytest.raises(DataError, match="is shorter than"), Journal(output, RUN, in_place=True):
        pass
    path = journal_of(output)
    path.write_text("not a journal\n")
    with (
        pytest.raises(DataError, match=r"progress\.jsonl: is damaged, or no journal"),
        Journal(output, RUN, in_place=True),
    ):
        pass
    path.write_text(json.dumps({"format": "something else"}) + "\n")
    with pytest.raises(DataError, match="is damaged, or no journal"), Journal(output, RUN, in_place=True):
        pass


def test_nothing_written_is_no_file(output: Path) -> None:
    with Journal(output, RUN) as journal:
        journal.finish()
    assert list(output.parent.iterdir()) == []
    output.write_text("old")
    with Journal(output, RUN, overwrite=True) as journal:
        assert output.read_text() == "old"
        journal.finish()
    assert list(output.parent.iterdir()) == []


def test_discard_removes_what_was_begun(output: Path) -> None:
    half_done(output)
    with Journal(output, RUN) as journal:
        journal.discard()
    assert list(output.parent.iterdir()) == []


def test_places_are_judged_first(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"the folder .* does not exist"):
        Journal(tmp_path / "no" / "out.xyz", RUN)
    with pytest.raises(DataError, match="is a folder"):
        Journal(tmp_path, RUN)


@pytest.mark.parametrize("in_place", [False, True])
def test_an_overwriting_run_that_was_broken_off(in_place: bool, output: Path) -> None:
    for again in (False, True):
        output.write_text("old")
        with Journal(output, RUN, overwrite=True, in_place=in_place) as journal:
            journal.add(RECORDS[0], {"done": 1, "record": 0})
        assert work(output, in_place, overwrite=again) == [0]
        assert output.read_bytes() == b"".join(RECORDS)
        journal_of(output).unlink(missing_ok=True)
    # with other parameters, after its end, or begun without that leave: anew
    for first, entry, begun in ((RUN | {"threshold": 0.2}, {}, True), (RUN, {"ended": True}, True), (RUN, {}, False)):
        output.unlink()
        with Journal(output, first, overwrite=begun, in_place=in_place) as journal:
            journal.add(RECORDS[0], {"done": 1, "record": 0, **entry})
        assert work(output, in_place, overwrite=True) == []
        assert output.read_bytes() == b"".join(RECORDS)
        journal_of(output).unlink(missing_ok=True)


def test_a_journal_begins_anew(output: Path) -> None:
    half_done(output)
    with Journal(output, RUN) as journal:
        assert journal.resumed
        journal.restart()
        assert not journal.resumed
        assert list(journal.entries()) == []
        journal.add(RECORDS[1], {"done": 2, "record": 1})
        journal.finish()
    assert output.read_bytes() == RECORDS[1]


@pytest.mark.parametrize("said", [b"", b'{"format": "quests'])
@pytest.mark.parametrize("in_place", [False, True])
def test_a_journal_that_says_nothing_gives_no_leave(said: bytes, in_place: bool, output: Path) -> None:
    output.write_text("precious")
    journal_of(output).write_bytes(said)
    with pytest.raises(DataError, match=r"out\.xyz: exists already"):
        work(output, in_place)
    assert output.read_text() == "precious"
    assert work(output, in_place, overwrite=True) == []
    assert output.read_bytes() == b"".join(RECORDS)


def test_a_link_has_the_journal_of_what_it_points_to(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    real, link = tmp_path / "deep" / "real.xyz", tmp_path / "link.xyz"
    link.symlink_to(real)
    assert journal_of(link) == journal_of(real)
    with Journal(link, RUN, overwrite=True) as journal:
        journal.add(RECORDS[0], {"done": 1, "record": 0})
    assert work(link, False) == [0]
    assert real.read_bytes() == b"".join(RECORDS)
    assert link.is_symlink()


@pytest.mark.parametrize("in_place", [False, True])
def test_a_full_disk(in_place: bool, output: Path) -> None:
    """One sentence that names the file; when there is room again, the same run goes on."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    large = b"0123456789abcdef\n" * 350
    resource.setrlimit(resource.RLIMIT_FSIZE, (4_000, before[1]))
    try:
        with Journal(output, RUN, in_place=in_place) as journal:
            journal.add(RECORDS[0], {"done": 1, "record": 0})
            with pytest.raises(DataError, match=r"out\.xyz\S*: cannot be written \(File too large\)"):
                journal.add(large, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert work(output, in_place) == [0]
    assert output.read_bytes() == b"".join(RECORDS)
