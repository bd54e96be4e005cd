"""Which frames are flagged, and which of these are kept."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import structures
from structures import Structure

from quests_zenn._core.checks import DataError
from quests_zenn.uq import Reference
from quests_zenn.uq.filter import FrameFilter, frame_threshold, needed_atoms
from quests_zenn.uq.thresholds import group_quantile, leave_out

H = 0.03


def crystals(n: int, amplitude: float, seed: int) -> list[Structure]:
    return [structures.fcc(repeat=(2, 2, 1), rattle=amplitude, seed=100 * seed + i) for i in range(n)]


@pytest.fixture(scope="module")
def reference() -> Reference:
    return Reference.fit(crystals(30, 0.06, 1), H, k=12)


@pytest.fixture(scope="module")
def others() -> list[Structure]:
    """Some that are known, some that are not."""
    return [*crystals(4, 0.06, 2), *crystals(5, 0.12, 3), *crystals(5, 0.2, 3), *crystals(2, 0.06, 4)]


def scores(reference: Reference, frame: Any) -> npt.NDArray[np.float64]:
    return reference.score([frame])


@pytest.mark.parametrize(
    ("threshold", "min_atoms", "min_share"), [(-1.0, 1, 0.0), (0.5, 3, 0.0), (-2.0, 1, 0.5), (2.0, 2, 0.1)]
)
def test_frames_are_flagged_by_the_rule(
    threshold: float, min_atoms: int, min_share: float, reference: Reference, others: list[Structure]
) -> None:
    judge = FrameFilter(reference, threshold, min_atoms=min_atoms, min_share=min_share)
    flags = []
    for frame in others:
        verdict = judge.judge(frame)
        dh = scores(reference, frame)
        np.testing.assert_array_equal(verdict.novel, dh >= threshold)
        assert verdict.n_novel == np.count_nonzero(dh >= threshold)
        assert verdict.flagged == (verdict.n_novel >= min_atoms and verdict.n_novel / len(dh) >= min_share)
        assert verdict.new == verdict.flagged  # nothing was kept
        np.testing.assert_array_equal(judge.score(verdict), dh)
        flags.append(verdict.flagged)
    assert 0 < sum(flags) < len(flags)


def test_only_atoms_asked_about_count(reference: Reference, others: list[Structure]) -> None:
    judge = FrameFilter(reference, -1.0)
    frame = others[5]
    dh = scores(reference, frame)
    known, novel = np.flatnonzero(dh < -1.0), np.flatnonzero(dh >= -1.0)
    assert len(known)
    assert len(novel)
    verdict = judge.judge(frame, known)
    assert not verdict.flagged
    assert verdict.n_asked == len(known)
    verdict = judge.judge(frame, novel[:1])
    assert verdict.flagged
    assert np.flatnonzero(verdict.novel).tolist() == novel[:1].tolist()
    assert not judge.judge(frame, np.zeros(0, np.int64)).flagged
    share = FrameFilter(reference, -1.0, min_share=1.0)
    assert share.judge(frame, novel).flagged
    assert not share.judge(frame).flagged


@pytest.mark.parametrize("threshold", [-1.5, 0.5, 4.0])
def test_what_was_kept_is_not_new(threshold: float, reference: Reference, others: list[Structure]) -> None:
    """The rule, written out: novel to the reference, and to the novel atoms of kept frames."""
    judge = FrameFilter(reference, threshold, min_atoms=2)
    kept: list[npt.NDArray[Any]] = []
    told = []
    for frame in [*others, *others]:
        env = reference.describe([frame])
        novel = scores(reference, frame) >= threshold
        new = novel.copy()
        if kept:
            apart = ((env.x[:, None, :] - np.concatenate(kept)[None]) ** 2).sum(axis=2)
            dh = -np.logaddexp.reduce(-apart / (2.0 * H**2), axis=1)
            new &= dh >= max(threshold, 1e-5)
        verdict = judge.judge(frame)
        assert verdict.flagged == (np.count_nonzero(novel) >= 2)
        assert verdict.new == (np.count_nonzero(new) >= 2)
        told.append((verdict.flagged, verdict.new))
        if verdict.new:
            judge.keep(verdict)
            kept.append(env.x[novel])
    assert judge.n_kept == len(kept) > 1
    again = told[len(others) :]
    assert any(flagged for flagged, _ in again)
    assert not any(new for _, new in again)


def test_elements_that_were_never_seen(reference: Reference) -> None:
    positions, cell, pbc, numbers = structures.fcc(repeat=(2, 2, 1), rattle=0.06, seed=101)
    numbers = numbers.copy()
    numbers[3] = 79
    for known in (reference, Reference.fit(crystals(10, 0.06, 1), H, k=12, species="blocks")):
        judge = FrameFilter(known, 1e3)
        verdict = judge.judge((positions, cell, pbc, numbers))
        assert verdict.flagged
        assert np.flatnonzero(verdict.novel).tolist() == [3]
        assert judge.unseen == {"Au"}
        assert np.isposinf(judge.score(verdict)[3])
        judge.keep(verdict)
        again = judge.judge((positions, cell, pbc, numbers))
        assert again.flagged
        assert not again.new


def test_the_reference_is_not_changed(reference: Reference, others: list[Structure]) -> None:
    before = len(reference)
    judge = FrameFilter(reference, 0.0)
    for frame in others:
        verdict = judge.judge(frame)
        if verdict.flagged:
            judge.keep(verdict)
    assert judge.n_kept > 0
    assert len(reference) == before


# --- thresholds -------------------------------------------------------------------------------------------------------


def test_rates_of_false_alarms(reference: Reference) -> None:
    """With the threshold found, so many frames are flagged as were promised, when each is judged by the others."""
    found = leave_out(reference)
    by_frame = found.dh.reshape(30, 16)
    for rate, min_atoms, min_share in [(0.1, 1, 0.0), (0.1, 4, 0.0), (0.2, 1, 0.25), (0.1, 2, 0.5)]:
        threshold = frame_threshold(reference, rate, min_atoms=min_atoms, min_share=min_share)
        n = needed_atoms(16, min_atoms, min_share)
        statistic = np.sort(by_frame, axis=1)[:, -n]
        flagged = np.count_nonzero(statistic >= threshold)
        assert flagged == 30 - math.ceil(31 * (1.0 - rate) - 1e-9)
        assert threshold == group_quantile(statistic, np.arange(len(statistic)), rate, "frames")
    assert frame_threshold(reference, 0.1) == reference.threshold(0.1, of="max")
    assert frame_threshold(reference, 0.1, of="atom") == reference.threshold(0.1, of="atom")
    assert FrameFilter(reference, false_alarm=0.2).threshold == frame_threshold(reference, 0.2)
    assert FrameFilter(reference, false_alarm=0.2, min_atoms=3).threshold == frame_threshold(
        reference, 0.2, min_atoms=3
    )
    assert FrameFilter(reference, false_alarm=0.2, of="atom").threshold == reference.threshold(0.2, of="atom")


def test_so_many_atoms() -> None:
    assert needed_atoms(100) == 1
    assert needed_atoms(100, 3) == 3
    assert needed_atoms(100, 3, 0.1) == 10
    assert needed_atoms(101, 3, 0.1) == 11
    assert needed_atoms(10, 1, 0.3) == 3
    assert needed_atoms(0) == 1


def test_arguments_are_judged(reference: Reference) -> None:
    for arguments, sentence in [
        ({"min_atoms": 0}, "min_atoms must be a whole number of at least 1"),
        ({"min_share": 1.5}, "min_share must lie between 0 and 1"),
        ({"min_share": math.nan}, "min_share must be finite"),
        ({"threshold": "high"}, 'threshold must be a number or "auto"'),
        ({"threshold": math.inf}, "threshold must be finite"),
        ({"of": "day"}, "of must be one of frame, atom"),
        ({"false_alarm": 1.0, "min_atoms": 2}, "false_alarm must lie between 0 and 1"),
    ]:
        with pytest.raises(ValueError, match=sentence):
            FrameFilter(reference, **arguments)
    with pytest.raises(DataError, match="needs at least 99 frames, and there are 30"):
        FrameFilter(reference, false_alarm=0.01)
    with pytest.raises(DataError, match="needs at least 99 frames, and there are 30"):
        FrameFilter(reference, false_alarm=0.01, min_atoms=2)
    with pytest.raises(DataError, match="min_atoms = 17 is more than the 16 atoms of some frames"):
        FrameFilter(reference, false_alarm=0.1, min_atoms=17)
