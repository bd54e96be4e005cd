"""Exact kernel sums and searches for nearest environments through torch, in tiles: for GPUs.

The meaning of the sums is that of `_engine`, which is faster on processors. torch is imported only when it is used.

*Digits.* Squared distances are ``|a|^2 + |b|^2 - 2 a.b`` of rows relative to the centre of a block of neighbouring
columns. They are shifted in float64 and then rounded, so that both are short where a pair matters, and little cancels.
Squared lengths of rows, what a row is to itself, and sums from tile to tile are float64.

*Far points.* Each row carries the largest exponent so far, and its sum relative to it: nothing underflows.

Each pair of a set is computed twice. Tiles depend on the sizes alone, so results do not depend on how data lie in
memory, and on a processor a single thread does the work: they do not depend on threads either.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from quests_zenn._core.checks import MissingExtraError
from quests_zenn._core.parallel import Workers
from quests_zenn.entropy._engine import _members
from quests_zenn.entropy._packing import neighbours_together

if TYPE_CHECKING:
    import torch

FloatArray = npt.NDArray[np.floating]
Progress = Callable[[int], None]

#: Columns of a tile at most: neighbours that share a centre. Fewer lose fewer digits in float32, more are faster.
COLUMNS = 512

#: Kernel sums cut a set into this many blocks of columns or more, unless these held fewer than the second number.
#: In small sets the errors of float32 average out less, and speed matters less.
BLOCKS, LEAST_COLUMNS = 64, 16

#: Size of a tile. Some such are held at a time.
TILE_BYTES = 256 * 2**20

#: Candidates beyond the n nearest, so that rounding can change their order.
SPARE = 16


def torch_device(name: str) -> torch.device:
    """Device of torch: "cuda", or "cuda:1" and so on; "torch" is the processor, for tests.

    Raises
    ------
    MissingExtraError
        If torch is not installed.
    ValueError
        If there is no such device, or it cannot do what is needed here.
    """
    try:
        import torch
    except ImportError:
        raise MissingExtraError("torch", "zenn") from None
    if name == "torch":
        return torch.device("cpu")
    if name == "mps":
        raise ValueError("device mps has no float64, which these sums need: use cuda or the processor")
    if not re.fullmatch(r"cuda(:\d+)?", name):
        raise ValueError(f"device must be torch, cuda, or cuda:0, cuda:1 and so on, got {name!r}")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if count <= int(name[5:] or 0):
        raise ValueError(f"device {name} is not there: torch finds {count} CUDA devices")
    return torch.device(name)


def log_sums_within(
    x: FloatArray,
    h: npt.NDArray[np.float64],
    weights: npt.NDArray[np.float64] | None = None,
    groups: npt.NDArray[np.int64] | None = None,
    *,
    precision: str,
    device: str,
    progress: Progress | None = None,
) -> npt.NDArray[np.float64]:
    """ln p of every environment within its own set, each counting itself at distance 0.

    Parameters
    ----------
    x : (N, d), 1/Å
    h : (H,) bandwidths, 1/Å
    weights : (N,) or None
        Non-negative.
    groups : (N,) or None
        Whole numbers; environments of different groups do not see each other.
    precision : {"float64", "float32"}
        Arithmetic within a tile. Single precision errs by less than 1e-6 nats in H (real sets, h = 0.015).
    device : str
        See `torch_device`.
    progress : callable or None
        Told the number of pairs queued since the last call, about N^2 / 2 in all for one group.

    Returns
    -------
    (H, N) natural logarithms, -inf where nothing of positive weight is in the group.

    Raises
    ------
    ValueError
        If squared distances overflow, or the device cannot be had.
    """
    half = None if progress is None else lambda pairs: progress(pairs // 2)
    out = np.empty((len(h), len(x)))
    with _exactly(torch_device(device)) as where:
        for members in _members(groups, len(x)):
            inner = None if weights is None else weights[members]
            out[:, members] = _log_sums(None, x[members], h, inner, precision, where, half)
    return out


def log_sums_against(
    y: FloatArray,
    x: FloatArray,
    h: npt.NDArray[np.float64],
    weights: npt.NDArray[np.float64] | None = None,
    *,
    precision: str,
    device: str,
    progress: Progress | None = None,
) -> npt.NDArray[np.float64]:
    """ln p of every row of y (n, d) given the reference x (N, d): an array (H, n). See `log_sums_within`.

    `progress` is told n N pairs in all.
    """
    with _exactly(torch_device(device)) as where:
        return _log_sums(y, x, h, weights, precision, where, progress)


def nearest(
    y: FloatArray, x: FloatArray, n: int, *, precision: str, device: str, exclude_same_row: bool = False
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """The n nearest rows of x for each row of y, exact, sorted by distance and then by index.

    Candidates are ranked by a lower bound of their distance, rounding included. Where the n nearest of them are not
    surely nearer than all other rows (more than `SPARE` rows as near as the last one, say), all distances are sorted.

    Parameters
    ----------
    y : (m, d), 1/Å
    x : (N, d), 1/Å
    n : int
    precision : {"float64", "float32"}
        Arithmetic of the search. It does not change the result.
    device : str
        See `torch_device`.
    exclude_same_row : bool
        Leave out row i of x for row i of y: a search of a set within itself.

    Returns
    -------
    indices : (m, n) rows of x
    distances : (m, n), 1/Å, float64

    Raises
    ------
    ValueError
        If there are fewer than n rows to be found, squared distances overflow, or the device cannot be had.
    """
    where = torch_device(device)
    import torch

    available = len(x) - exclude_same_row
    if not 1 <= n <= available:
        raise ValueError(f"n must lie between 1 and the {available} rows that can be found, got {n}")
    if exclude_same_row and len(y) > len(x):
        raise ValueError(f"y has {len(y)} rows, but x, within which they are to be left out, has {len(x)}")
    kept = min(n + SPARE, available)
    rows, width = len(y), x.shape[1]
    with _exactly(where):
        order, sizes = _order(x, max(COLUMNS, 4 * kept))
        own = np.argsort(order)[:rows] if exclude_same_row else None
        queries, references = _tensor(y, where), _tensor(x, where)
        rank = torch.tensor(order, device=where)
        least = torch.full((rows, kept), math.inf, dtype=torch.float64, device=where)
        found = torch.full((rows, kept), -1, dtype=torch.int64, device=where)
        for part, columns, products, a, b in _tiles(queries, references[rank], sizes, 1.0, precision, own):
            top, at = products.topk(min(kept, products.shape[1]), dim=1)
            # whatever the order of summation, half a squared distance errs by less than this
            slack = (width + 8) * torch.finfo(top.dtype).eps * (a.sqrt() + b.amax().sqrt()).square()
            bounds = torch.cat([least[part], 2.0 * ((a - slack)[:, None] - top)], dim=1)
            ids = torch.cat([found[part], rank[columns][at]], dim=1)
            least[part], at = bounds.topk(kept, dim=1, largest=False)
            found[part] = ids.gather(1, at)
        found, distances = _by_distance(queries, references, found)
        if kept < available:
            unsure = torch.nonzero(distances[:, n - 1].square() >= least.amax(1)).flatten()
            for some in unsure.split(max(1, TILE_BYTES // (8 * len(x)))):
                whole = torch.cdist(queries[some], references, compute_mode="donot_use_mm_for_euclid_dist")
                if exclude_same_row:
                    whole.scatter_(1, some[:, None], math.inf)
                ids = whole.sort(dim=1, stable=True).indices[:, :kept]
                found[some], distances[some] = _by_distance(queries[some], references, ids)
        return found[:, :n].cpu().numpy(), distances[:, :n].cpu().numpy()


def _by_distance(y: torch.Tensor, x: torch.Tensor, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows of x named by `ids` (m, n), in order of their distance to the row of y, then of their index; distances."""
    import torch

    ids = ids.sort(dim=1).values
    step = max(1, TILE_BYTES // (8 * ids.shape[1] * x.shape[1]))
    parts = zip(y.split(step), ids.split(step), strict=True)
    distances = torch.cat([(x[some] - part[:, None]).square().sum(2).sqrt() for part, some in parts])
    distances, at = distances.sort(dim=1, stable=True)
    return ids.gather(1, at), distances


def _log_sums(
    y: FloatArray | None,
    x: FloatArray,
    h: npt.NDArray[np.float64],
    weights: npt.NDArray[np.float64] | None,
    precision: str,
    device: torch.device,
    progress: Progress | None,
) -> npt.NDArray[np.float64]:
    """ln p (H, n) of the rows of y given x, or (H, N) of x within itself if y is None."""
    import torch

    rows = x if y is None else y
    counted = np.arange(len(x)) if weights is None else np.flatnonzero(weights > 0.0)
    if len(rows) == 0 or len(counted) == 0:
        return np.full((len(h), len(rows)), -np.inf)
    order, sizes = _order(x[counted], min(COLUMNS, max(LEAST_COLUMNS, len(counted) // BLOCKS)))
    order = counted[order]
    top_weight = 0.0 if weights is None else math.log(weights.max())
    shares = np.zeros(len(order)) if weights is None else np.log(weights[order]) - top_weight
    largest, totals = np.full((len(h), len(rows)), -np.inf), np.zeros((len(h), len(rows)))
    own = None
    if y is None:  # the row itself, with nothing rounded
        own = np.full(len(rows), -1)
        own[order] = np.arange(len(order))
        largest[:, order], totals[:, order] = shares, 1.0
    most, sums, log_weights = (_tensor(array, device) for array in (largest, totals, shares))
    scales = ((h.min() / h) ** 2).astype(precision).tolist()
    tiles = _tiles(_tensor(rows, device), _tensor(x[order], device), sizes, 1.0 / h.min(), precision, own)
    for part, columns, products, a, _ in tiles:
        for scale, highest, total in zip(scales, most[:, part], sums[:, part], strict=True):
            exponents = products if len(h) == 1 else products * scale
            if weights is not None:
                exponents += log_weights[columns].to(exponents.dtype)
            top = exponents.amax(1).clamp_(min=torch.finfo(exponents.dtype).min)
            sums_here = exponents.sub_(top[:, None]).exp_().sum(1)
            top_here = top.double() - scale * a
            new = torch.maximum(highest, top_here)
            total.mul_((highest - new).exp_()).add_(sums_here * (top_here - new).exp_())
            highest.copy_(new)
        if progress is not None:
            progress(products.numel())
    return (most + sums.log_() + top_weight).cpu().numpy()


def _tiles(
    y: torch.Tensor, x: torch.Tensor, sizes: npt.NDArray[np.int64], scale: float, precision: str, own: Any
) -> Iterator[tuple[slice, slice, torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Tiles of rows of y and blocks of x: (rows, columns, products, half lengths of rows, half lengths of columns).

    Half a squared distance is the half length (squared, float64) of the row less the entry of the products, which is
    -inf where the column is the row itself; `own` holds the column of each row, -1 for none.
    """
    import torch

    if len(y) == 0:
        return
    dtype = getattr(torch, precision)
    middle = x.mean(0)
    longest = sum(float((part - middle).abs().amax()) for part in (y, x)) * math.sqrt(x.shape[1]) * scale
    if not longest < 0.5 * math.sqrt(torch.finfo(dtype).max):
        raise ValueError(f"environments spread so widely that squared distances overflow in {precision}")

    def shifted(part: torch.Tensor, centre: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        short = ((part - centre) * scale).to(dtype)
        return short, 0.5 * short.double().square().sum(1)

    blocks, first = [], 0
    for size in sizes.tolist():
        block = x[first : first + size]
        centre = block.mean(0)
        blocks.append((slice(first, first + size), centre, *shifted(block, centre)))
        first += size
    own = None if own is None else torch.tensor(own, device=y.device)[:, None]
    step = max(1, TILE_BYTES // (8 * max(int(sizes.max()), x.shape[1])))
    for first in range(0, len(y), step):
        rows = slice(first, first + step)
        for columns, centre, b, half_b in blocks:
            a, half_a = shifted(y[rows], centre)
            products = torch.addmm(-half_b.to(dtype), a, b.T)
            if own is not None:
                at = own[rows] - columns.start
                column = at.clamp(0, len(b) - 1)
                products.scatter_(1, column, products.gather(1, column).masked_fill_(at == column, -math.inf))
            yield rows, columns, products, half_a, half_b


def _order(x: FloatArray, width: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Rows of x in blocks of at most `width` neighbours, and the sizes of the blocks."""
    blocks = -(-len(x) // width)
    sizes = np.full(blocks, len(x) // blocks)
    sizes[: len(x) % blocks] += 1
    with Workers(1) as workers:
        (rows,) = neighbours_together(np.ascontiguousarray(x, np.float64), [np.arange(len(x))], [sizes], workers)
    return rows, sizes


def _tensor(x: npt.NDArray[Any], device: torch.device) -> torch.Tensor:
    """A contiguous copy of x in float64 on the device."""
    import torch

    return torch.tensor(np.ascontiguousarray(x, np.float64), device=device)


@contextmanager
def _exactly(device: torch.device) -> Iterator[torch.device]:
    """Products of matrices with all digits, without gradients; on the processor in one thread, for the same bits."""
    import torch

    backends: Any = torch.backends
    settings: tuple[list[Any], str, Any] = ([backends.cuda.matmul], "allow_tf32", False)
    if hasattr(backends, "fp32_precision"):  # torch >= 2.9, where the old name fails if the caller used the new one
        settings = ([backends.cuda.matmul, backends.mkldnn.matmul], "fp32_precision", "ieee")
    flags, name, exact = settings
    before = [getattr(flag, name) for flag in flags]
    threads = torch.get_num_threads()
    try:
        for flag in flags:
            setattr(flag, name, exact)
        if device.type == "cpu":
            torch.set_num_threads(1)
        with torch.inference_mode(), torch.autocast(device.type, enabled=False):
            yield device
    finally:
        torch.set_num_threads(threads)
        for flag, value in zip(flags, before, strict=True):
            setattr(flag, name, value)
