"""Compiled code on disk, and locks: what processes share."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from quests_zenn._core import jit
from quests_zenn._core.locks import locked
from quests_zenn.descriptors._cells import sort_into_bins
from quests_zenn.descriptors._kernels import fill_descriptors
from quests_zenn.entropy._sweep import sum_tiles
from quests_zenn.sampling._lattice_kernels import group_total

#: Saves fifty entries of its own for one function.
WRITER = """
import sys
from numba.core.caching import IndexDataCacheFile
from quests_zenn._core.jit import _OneAtATime
folder, name = sys.argv[1:]
files = _OneAtATime(IndexDataCacheFile(folder, "function", "stamp"), folder)
print("ready", flush=True)
sys.stdin.readline()
for i in range(50):
    files.save((name, i), (name, i))
"""


def test_processes_that_save_at_once_keep_their_entries_apart(tmp_path: Path) -> None:
    from numba.core.caching import IndexDataCacheFile

    names = ["a", "b", "c"]
    pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path), name], **pipes) for name in names]
    for writer in writers:
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        writer.stdin.write("go\n")
        writer.stdin.flush()
    for writer in writers:
        writer.communicate()
        assert writer.returncode == 0
    files = jit._OneAtATime(IndexDataCacheFile(str(tmp_path), "function", "stamp"), str(tmp_path))
    for name in names:
        for i in range(50):
            assert files.load((name, i)) == (name, i)
    files.flush()
    assert files.load(("a", 0)) is None


@pytest.mark.skipif(jit.PLAIN, reason="kernels run as plain Python")
def test_kernels_of_all_kinds_share_their_cache() -> None:
    for function in (fill_descriptors, sum_tiles, sort_into_bins, group_total):
        assert isinstance(function._cache._cache_file, jit._OneAtATime)


def test_who_comes_second_waits(tmp_path: Path) -> None:
    entered, order = threading.Event(), []

    def second() -> None:
        with locked(tmp_path / "lock"):
            order.append("second")
            entered.set()

    other = threading.Thread(target=second)
    with locked(tmp_path / "lock"):
        other.start()
        assert not entered.wait(0.2)
        order.append("first")
    other.join(20.0)
    assert order == ["first", "second"]


def test_nobody_waits_for_a_lock_that_cannot_be(tmp_path: Path) -> None:
    with locked(tmp_path / "no folder" / "lock"):
        pass
    assert list(tmp_path.iterdir()) == []
