"""How much to keep, as people say it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_sets import compressor, make

from quests_zenn.compression import Size
from quests_zenn.compression.size import KINDS

TABLE = [
    (100, Size("structures", 100)),
    (1, Size("structures", 1)),
    (np.int32(7), Size("structures", 7)),
    (0.1, Size("structures", 0.1, share=True)),
    (1.0, Size("structures", 1.0, share=True)),
    (np.float32(0.25), Size("structures", 0.25, share=True)),
    ("0.1", Size("structures", 0.1, share=True)),
    (".5", Size("structures", 0.5, share=True)),
    ("1e-3", Size("structures", 1e-3, share=True)),
    ("1.0", Size("structures", 1.0, share=True)),
    ("1", Size("structures", 1)),
    ("100", Size("structures", 100)),
    (" 100 ", Size("structures", 100)),
    ("1e3", Size("structures", 1000)),
    ("100.0", Size("structures", 100)),
    ("5000env", Size("environments", 5000)),
    ("1env", Size("environments", 1)),
    ("5e3 env", Size("environments", 5000)),
    ("0.1env", Size("environments", 0.1, share=True)),
    ("1.0env", Size("environments", 1.0, share=True)),
    ("3e5cost", Size("cost", 3e5)),
    ("2.5cost", Size("cost", 2.5)),
    ("0.1cost", Size("cost", 0.1, share=True)),
    ("1cost", Size("cost", 1.0)),
    (np.str_("auto"), Size("auto")),
    (Size("overlap", 0.95), Size("overlap", 0.95)),
]


def same(one: Size, other: Size) -> bool:
    values = (one.value, other.value)
    return (one.kind, one.share) == (other.kind, other.share) and (
        values[0] == values[1] or (math.isnan(values[0]) and math.isnan(values[1]))
    )


@pytest.mark.parametrize(("given", "expected"), TABLE)
def test_what_sizes_mean(given: Any, expected: Size) -> None:
    found = Size.parse(given)
    assert same(found, expected), found
    if found.kind not in ("overlap", "max_loss"):
        assert same(Size.parse(str(found)), found), str(found)


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (Size("auto"), "auto"),
        (Size("structures", 100), "100"),
        (Size("structures", 1.0, share=True), "1.0"),
        (Size("environments", 5000), "5000env"),
        (Size("environments", 0.1, share=True), "0.1env"),
        (Size("cost", 3e5), "300000cost"),
        (Size("cost", 2.5), "2.5cost"),
        (Size("overlap", 0.95), "0.95 overlap"),
        (Size("max_loss", 0.1), "0.1 nats of loss"),
    ],
)
def test_texts(size: Size, text: str) -> None:
    assert str(size) == text


@given(st.integers(1, 10**15), st.floats(1e-12, 1.0), st.floats(1.0, 1e300), st.sampled_from(["", "env", "cost"]))
def test_texts_are_read_back(number: int, share: float, budget: float, unit: str) -> None:
    for text in (f"{number}{unit}", f"{share!r}{unit}", f"{budget!r}cost"):
        found = Size.parse(text)
        assert same(Size.parse(str(found)), found), text


@pytest.mark.parametrize(
    "bad",
    ["", "all", "10%", "-5", "0x10", "1,000", "nan", "inf", "5 structures", "5000 envs", "e", "1e", "--1", "1.5.2",
     "5000cost env", "５", None, [3], True, np.bool_(True)],
)  # fmt: skip
def test_what_is_no_size(bad: Any) -> None:
    with pytest.raises(ValueError, match=r"size must be a share|must be positive and finite"):
        Size.parse(bad)


@pytest.mark.parametrize("bad", [0.0, -0.1, 1.5, math.nan, math.inf])
def test_what_is_no_share(bad: float) -> None:
    with pytest.raises(ValueError, match=r"as a share of all structures, the size must lie in \(0, 1\], got"):
        Size.parse(bad)


@pytest.mark.parametrize("bad", ["1.5", "2.5env", "100.5"])
def test_what_is_neither_share_nor_whole(bad: str) -> None:
    with pytest.raises(ValueError, match=r"a share must lie in \(0, 1\] and a number be whole, got '"):
        Size.parse(bad)


@pytest.mark.parametrize("bad", [0, -3, "0", "-3", "0.0", "0env", "-1cost", "1e999", "1e999cost", "1e-999"])
def test_what_is_out_of_range(bad: Any) -> None:
    with pytest.raises(ValueError, match=r"a size in \w+ must be positive and finite, got"):
        Size.parse(bad)


def test_sizes_made_by_hand() -> None:
    for kind in ("overlap", "structures"):
        with pytest.raises(ValueError, match=r"the (overlap|share) must be at most 1, got 1.5"):
            Size(kind, 1.5, share=kind != "overlap")
    with pytest.raises(ValueError, match=r"the number of environments must be whole, got 1.5"):
        Size("environments", 1.5)
    for kind in ("overlap", "max_loss"):
        with pytest.raises(ValueError, match=r"a size in .* is no share"):
            Size(kind, 0.5, share=True)
    with pytest.raises(ValueError, match=r"kind must be one of structures, environments, cost, auto"):
        Size("atoms", 5)
    for kind in KINDS:
        for bad in (0.0, -1.0, math.nan, math.inf, "x", None):
            if kind == "max_loss" and bad == 0.0:
                assert Size(kind, bad).value == 0.0  # nothing may be lost
                continue
            if kind == "auto":
                Size(kind, bad)  # type: ignore[arg-type]
                continue
            with pytest.raises(ValueError, match=rf"a size in {kind} must be"):
                Size(kind, bad)  # type: ignore[arg-type]


def test_amounts() -> None:
    assert Size.parse(0.1).of(30) == 3.0
    assert Size.parse(0.1).of(31) == 4.0
    assert Size.parse(1e-9).of(30) == 1.0
    assert Size.parse(1.0).of(30) == 30.0
    assert Size.parse(100).of(30) == 100.0
    assert Size.parse("0.5env").of(31) == 15.5
    assert Size.parse("7cost").of(31) == 7.0
    for total in range(1, 400):
        for parts in (3, 7, 10, 20):
            assert Size.parse(1.0 / parts).of(total * parts) == total


@pytest.mark.parametrize(
    ("size", "n"),
    [(0.1, 3), (0.001, 1), (1.0, 30), (1, 1), (29, 29), (30, 30), (31, 30), (10**9, 30), ("100", 30), ("1e9env", 30)],
)
@pytest.mark.parametrize("method", ["msc", "random", "k_means", "direct"])
def test_how_many_are_chosen(method: str, size: Any, n: int) -> None:
    found = compressor(make("random", 30)).select(method, size)
    assert len(found) == len(set(found.indices.tolist())) == n
    assert found.stop == ("all structures are chosen" if n == 30 else "the size is reached")
    assert same(found.size, Size.parse(size))
