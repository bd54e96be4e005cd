"""Kernel sums over the environments of all other groups: what a set says about those that it has not seen.

``p_others = p_all - p_own`` costs two sums, and loses digits where nearly all of p comes from the own group. Those rows
are done again, directly, as a log-sum-exp over the others.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from quests_zenn._core.jit import strict_kernel
from quests_zenn._core.parallel import Workers, split_evenly, use_workers
from quests_zenn.entropy._engine import log_sums_against, log_sums_within

#: Where the others hold a smaller share of p than this, the difference is not trusted.
LEAST_SHARE = {"float64": 1e-6, "float32": 0.1}

#: Rows that share one sweep over the columns, and columns visited together: 512 of 63 components fill 256 KiB.
_ROWS, _COLUMNS = 16, 512

#: Pairs of environments in one task: tens of milliseconds.
_PAIRS = 4_000_000

#: Terms smaller than exp(-60) of the largest change no digit.
_NEGLIGIBLE = 60.0


# strict: distances are built up column by column, which is fast without re-association
@strict_kernel
def log_sums_of_others(columns, codes, asked, rows, wanted, scales, out):  # type: ignore[no-untyped-def]
    """``out[h, q] = ln sum_j exp(-scales[h] |x_i - x_j|^2)``, i = asked[q], over all j with ``codes[j] != codes[i]``.

    For each q of `rows` (m,) and each h with ``wanted[h, q]``; -inf where there is no such j. `columns` (d, N) is the
    transpose of x. The term of the nearest other is the largest one at every bandwidth, so one search serves all.
    """
    d, n = columns.shape
    squared, near = np.empty((_ROWS, n)), np.empty(n)
    for start in range(0, len(rows), _ROWS):
        count = min(_ROWS, len(rows) - start)
        for left in range(0, n, _COLUMNS):
            right = min(left + _COLUMNS, n)
            for r in range(count):
                row = squared[r, left:right]
                row[:] = 0.0
                for c in range(d):
                    here = columns[c, asked[rows[start + r]]]
                    for j in range(right - left):
                        apart = columns[c, left + j] - here
                        row[j] += apart * apart
        for r in range(count):
            q, row = rows[start + r], squared[r]
            i = asked[q]
            nearest = np.inf
            for j in range(n):
                if row[j] < nearest and codes[j] != codes[i]:
                    nearest = row[j]
            # the few that count at the widest of the bandwidths wanted
            limit = -np.inf
            for h in range(len(scales)):
                if wanted[h, q]:
                    limit = max(limit, nearest + _NEGLIGIBLE / scales[h])
            count_near = 0
            for j in range(n):
                if row[j] <= limit and codes[j] != codes[i]:
                    near[count_near] = row[j]
                    count_near += 1
            for h in range(len(scales)):
                if not wanted[h, q]:
                    continue
                total = 0.0
                for j in range(count_near):
                    below = (near[j] - nearest) * scales[h]
                    if below < _NEGLIGIBLE:
                        total += math.exp(-below)
                out[h, q] = math.log(total) - nearest * scales[h] if total > 0.0 else -np.inf


def log_sums_without_own_group(
    x: npt.NDArray[np.floating],
    h: npt.NDArray[np.float64],
    groups: npt.NDArray[np.int64] | None = None,
    *,
    log_all: npt.NDArray[np.float64] | None = None,
    precision: str = "float64",
    jobs: int | None = None,
    workers: Workers | None = None,
    progress: Callable[[int], None] | None = None,
) -> npt.NDArray[np.float64]:
    """ln of the kernel sum of every environment over the environments of all other groups; finite for any distance.

    Parameters
    ----------
    x : (N, d)
    h : (H,) bandwidths
    groups : (N,) or None
        Whole numbers; None: every environment is a group of its own.
    log_all : (H, N) or None
        ln p over the whole set from `log_sums_within`, if it is there already. It is not changed.

    Returns
    -------
    (H, N) natural logarithms; -inf where there is no other group. The same bits for any number of threads.
    """
    codes = np.arange(len(x)) if groups is None else groups
    sizes = np.unique(codes, return_counts=True)[1]
    if len(sizes) == 1:
        return np.full((len(h), len(x)), -np.inf)
    with use_workers(workers, jobs) as pool:
        if log_all is None:
            log_all = log_sums_within(x, h, precision=precision, workers=pool, progress=progress)
        out = np.zeros_like(log_all)  # a lone environment: its own term is 1
        if sizes.max() > 1:
            out = log_sums_within(x, h, None, codes, precision=precision, workers=pool, progress=progress)
        _subtract(log_all, out, x, h, codes, np.arange(len(x)), precision, pool, progress)
    return out


def log_sums_of_unseen(
    x: npt.NDArray[np.floating],
    h: npt.NDArray[np.float64],
    groups: npt.NDArray[np.int64],
    rows: npt.NDArray[np.int64],
    workers: Workers,
) -> npt.NDArray[np.float64]:
    """`log_sums_without_own_group` of some rows (m,), which hold whole groups, in float64: (H, m)."""
    if len(rows) == len(x):
        return log_sums_without_own_group(x, h, groups, workers=workers)
    own = log_sums_within(x[rows], h, None, groups[rows], workers=workers)
    log_all = log_sums_against(x[rows], x, h, workers=workers)
    _subtract(log_all, own, x, h, groups, rows, "float64", workers, None)
    return own


def _subtract(
    log_all: npt.NDArray[np.float64],
    out: npt.NDArray[np.float64],
    x: npt.NDArray[np.floating],
    h: npt.NDArray[np.float64],
    codes: npt.NDArray[np.int64],
    asked: npt.NDArray[np.int64],
    precision: str,
    workers: Workers,
    progress: Callable[[int], None] | None,
) -> None:
    """Turn `out` (H, m), ln p within the own groups of the rows `asked`, into that over the others, in place."""
    share = -np.expm1(np.minimum(out - log_all, 0.0))
    wanted = share <= LEAST_SHARE[precision]
    np.log(share, out=out, where=~wanted)
    np.add(out, log_all, out=out, where=~wanted)
    rows = np.flatnonzero(wanted.any(axis=0))
    if len(rows) == 0:
        return
    columns = np.ascontiguousarray(x.T, dtype=np.float64) / (math.sqrt(2.0) * h[0])
    scales = (h[0] / h) ** 2

    def work(part: tuple[int, int]) -> None:
        log_sums_of_others(columns, codes, asked, rows[part[0] : part[1]], wanted, scales, out)
        if progress is not None:
            progress((part[1] - part[0]) * len(x))

    workers.run(work, split_evenly(len(rows), max(_ROWS, _PAIRS // len(x)), least_parts=16))
