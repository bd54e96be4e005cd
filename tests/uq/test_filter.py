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
from quests_zenn._core.parallel import Workers
from quests_zenn.uq import Reference
from quests_zenn.uq._scaled import Surroundings
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


def test_atoms_asked_about_are_judged(reference: Reference, others: list[Structure]) -> None:
    judge = FrameFilter(reference, -1.0)
    frame = others[5]
    mask = scores(reference, frame) >= -1.0
    verdict = judge.judge(frame, mask)
    assert verdict.n_asked == np.count_nonzero(mask) < len(mask)
    np.testing.assert_array_equal(verdict.novel, mask)
    n = len(mask)
    for asked, told in [
        (np.array([n]), rf"lie between 0 and {n - 1}, got {n}"), (np.array([-1]), "got -1"),
        (np.array([1.0, 2.0]), "whole numbers"), (np.array([1, 1]), "each index once"), (mask[1:], "a mask of"),
    ]:  # fmt: skip
        with pytest.raises(ValueError, match=f"^asked must .*{told}"):
            judge.judge(frame, asked)


def test_what_was_kept_is_forgotten(reference: Reference, others: list[Structure]) -> None:
    judge = FrameFilter(reference, 0.5)
    verdict = judge.judge(others[10])
    judge.keep(verdict)
    assert not judge.judge(others[10]).new
    judge.forget()
    assert judge.judge(others[10]).new
    assert judge.n_kept == 0


@pytest.mark.parametrize("threshold", [-1.5, 0.5, 4.0])
def test_what_was_kept_is_not_new(threshold: float, reference: Reference, others: list[Structure]) -> None:
    """The rule, written out: novel to the reference, and to the novel atoms of kept frames that are as high."""
    judge = FrameFilter(reference, threshold, min_atoms=2)
    kept: list[tuple[int, npt.NDArray[Any]]] = []
    told = []
    for frame in [*others, *others]:
        env = reference.describe([frame])
        dh = scores(reference, frame)
        novel = dh >= threshold
        new = novel.copy()
        step = max(0, math.floor(math.log(max(dh.max(), 1e-9) / max(threshold, 1.0)) / math.log(1.5)))
        high = [x for own, x in kept if own >= step]
        if high:
            apart = ((env.x[:, None, :] - np.concatenate(high)[None]) ** 2).sum(axis=2)
            dh = -np.logaddexp.reduce(-apart / (2.0 * H**2), axis=1)
            new &= dh >= max(threshold, 1e-5)
        verdict = judge.judge(frame)
        assert verdict.flagged == (np.count_nonzero(novel) >= 2)
        assert verdict.new == (np.count_nonzero(new) >= 2)
        told.append((verdict.flagged, verdict.new))
        if verdict.new:
            judge.keep(verdict)
            kept.append((step, env.x[novel]))
    assert judge.n_kept == len(kept) > 1
    again = told[len(others) :]
    assert any(flagged for flagged, _ in again)
    assert not any(new for _, new in again)


def test_an_excursion_is_kept_up_to_its_height(reference: Reference) -> None:
    """An atom leaves its place: frames are alike step by step, and yet the highest is kept, and few of them."""
    positions, *rest = crystals(1, 0.06, 7)[0]
    path = []
    for shift in [*np.linspace(0.0, 1.1, 40), *np.linspace(1.1, 0.0, 40)]:
        moved = positions.copy()
        moved[0] += [shift, 0.5 * shift, 0.2 * shift]
        path.append((moved, *rest))
    judge = FrameFilter(reference, 15.0)
    highest, kept = 0.0, []
    for frame in path:
        verdict = judge.judge(frame)
        highest = max(highest, float(scores(reference, frame).max()))
        if verdict.new:
            judge.keep(verdict)
            kept.append(verdict.largest)
    assert highest > 70.0
    assert max(kept) > highest / 1.5
    assert sorted(kept) == kept  # nothing on the way back
    assert len(kept) < 12


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


@pytest.fixture(scope="module")
def uneven() -> Reference:
    """Many frames that know each other well, and some compressed ones that do not."""
    sparse = [structures.fcc(a=a, repeat=(2, 2, 1)) for a in (3.2, 2.95, 2.7, 2.45, 2.2)]
    return Reference.fit([*crystals(50, 0.05, 1), *sparse], H, k=12)


def scaled_by_hand(reference: Reference, x: Any, dh: Any, mine: Any = None) -> npt.NDArray[np.float64]:
    found = leave_out(reference)
    own = np.maximum(found.dh, 0.0)
    member = found.groups[found.frames]
    out = np.array(dh, float)
    for i in np.flatnonzero(out > 0.0):
        apart = ((reference.x - x[i]) ** 2).sum(axis=1)
        if mine is not None:
            apart[member == mine[i]] = np.inf
        out[i] /= 1.0 + own[apart.argmin()] / 5.0
    return out


def test_scaled_dh(uneven: Reference) -> None:
    """The rule by default, written out, for the reference itself and for frames that are judged."""
    found = leave_out(uneven)
    own = scaled_by_hand(uneven, uneven.x, found.dh, found.groups[found.frames])
    assert (own < found.dh - 1.0).any()
    largest = np.maximum.reduceat(own, uneven.frame_offsets[:-1])
    groups = found.groups
    threshold = frame_threshold(uneven, 0.1, scaled=True)
    assert threshold == pytest.approx(group_quantile(largest, groups, 0.1, "frames"), rel=1e-9)
    assert threshold < frame_threshold(uneven, 0.1)
    n = frame_threshold(uneven, 0.1, min_atoms=3, scaled=True)
    third = np.sort(own.reshape(-1, 16), axis=1)[:, -3]
    assert n == pytest.approx(group_quantile(third, groups, 0.1, "frames"), rel=1e-9)
    for judge in (FrameFilter(uneven, false_alarm=0.1), FrameFilter(uneven.copy(), false_alarm=0.1, jobs=1)):
        assert judge.scaled
        assert judge.threshold == threshold
        flags = []
        for frame in [*crystals(3, 0.05, 2), *crystals(6, 0.15, 3), structures.fcc(a=3.05, repeat=(2, 2, 1))]:
            env = uneven.describe([frame])
            by_hand = scaled_by_hand(uneven, env.x, uneven.score(env))
            verdict = judge.judge(frame)
            np.testing.assert_array_equal(verdict.novel, by_hand >= threshold)
            flags.append(verdict.flagged)
            if verdict.flagged:
                assert verdict.largest == pytest.approx(by_hand.max(), rel=1e-9)
        assert 0 < sum(flags) < len(flags)
    assert not FrameFilter(uneven, 1.0).scaled
    assert not FrameFilter(uneven, false_alarm=0.1, of="atom").scaled


def test_b_of_single_environments_is_that_of_all(uneven: Reference) -> None:
    """Those that are asked for one by one, as with a threshold that was saved, have the same dH as in the whole."""
    found = leave_out(uneven)
    fresh = uneven.copy()
    fresh._left_out = None
    rows = np.arange(0, len(fresh), 7)
    with Workers(2) as workers:
        known = Surroundings(fresh)._known(rows, workers)
        assert np.isnan(Surroundings(fresh)._own).all()
    np.testing.assert_allclose(known, np.maximum(found.dh[rows], 0.0), rtol=1e-9, atol=1e-9)


def test_a_new_phase_among_sparse_frames(uneven: Reference) -> None:
    """A frame that is far from all, though not as far as the sparse frames of the reference are from each other."""
    frame = crystals(1, 0.2, 9)[0]
    plain = frame_threshold(uneven, 0.02)
    assert uneven.score([frame]).max() < plain
    assert FrameFilter(uneven, false_alarm=0.02).judge(frame).flagged


def test_thresholds_of_some_elements() -> None:
    frames = []
    for i in range(20):
        positions, cell, pbc, numbers = crystals(1, 0.05, 30 + i)[0]
        numbers, positions = numbers.copy(), positions.copy()
        numbers[:4] = 47
        positions[:4] += np.random.default_rng(i).normal(0.0, 0.2, (4, 3))
        frames.append((positions, cell, pbc, numbers))
    known = Reference.fit(frames, H, k=12)
    found = leave_out(known)
    for element, number in (("Cu", 29), ("Ag", 47)):
        mine = known.numbers == number
        owner = np.repeat(np.arange(20), 16)[mine]
        starts = np.flatnonzero(np.diff(owner, prepend=-1))
        expected = group_quantile(np.maximum.reduceat(found.dh[mine], starts), np.arange(20), 0.1, "frames")
        assert frame_threshold(known, 0.1, elements=[element]) == expected
        expected = group_quantile(found.dh[mine], owner, 0.1, "atoms")
        assert frame_threshold(known, 0.1, of="atom", elements=[element]) == expected
    assert frame_threshold(known, 0.1, elements=["Cu"]) < frame_threshold(known, 0.1, elements=["Ag"])
    assert frame_threshold(known, 0.1, elements=["Cu", "Ag"]) == frame_threshold(known, 0.1)
    with pytest.raises(DataError, match="the reference holds no Zr to find a threshold from"):
        frame_threshold(known, 0.1, elements=["Zr"])


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
    with pytest.raises(
        DataError, match="takes at least 99 groups of frames that are no copies of each other, and there are 30"
    ):
        FrameFilter(reference, false_alarm=0.01)
    with pytest.raises(
        DataError, match="takes at least 99 groups of frames that are no copies of each other, and there are 30"
    ):
        FrameFilter(reference, false_alarm=0.01, min_atoms=2)
    with pytest.raises(DataError, match="min_atoms = 17 is more than the 16 atoms of some frames"):
        FrameFilter(reference, false_alarm=0.1, min_atoms=17)
