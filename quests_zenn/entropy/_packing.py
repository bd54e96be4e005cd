"""Environments in the layout of the tiles: blocks of neighbours, each centred on its own mean, cut into panels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from quests_zenn._core.jit import kernel
from quests_zenn._core.parallel import Workers, split_by_cost, split_evenly
from quests_zenn._core.rows import Rows
from quests_zenn.entropy._tile import panel_width

FloatArray = npt.NDArray[np.floating]

#: Rows, and the sizes of the blocks that they are to be cut into.
_Part = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]

#: Rows that one task orders, averages or packs.
ROWS_PER_TASK = 8_192


@kernel
def pack(x, rows, first, last, width, centres, panel_block, scale, packed, norms):
    """Fill panels [first, last): component c of lane l of panel q is ``(x[i, c] - centre[c]) * scale``.

    ``i = rows[q * width + l]``; -1 stands for padding; the centre is that of the block of the panel. `norms` gets the
    squared length of each packed row, inf for padding (and NaN or inf where x is not finite).
    """
    d = x.shape[1]
    for q in range(first, last):
        at = q * width * d
        centre = centres[panel_block[q]]
        for lane in range(width):
            i = rows[q * width + lane]
            norm = 0.0
            if i < 0:
                norm = np.inf
                for c in range(d):
                    packed[at + c * width + lane] = 0.0
            else:
                for c in range(d):
                    packed[at + c * width + lane] = (x[i, c] - centre[c]) * scale
                    value = np.float64(packed[at + c * width + lane])  # float() would keep it single
                    norm += value * value
            norms[q * width + lane] = norm


@kernel
def principal_direction(x, members, step, direction):
    """Direction (d,) along which a sample of ``x[members]`` is widest, by a few steps of power iteration, in place."""
    d = x.shape[1]
    mean = np.zeros(d)
    count = 0
    for m in range(0, len(members), step):
        for c in range(d):
            mean[c] += x[members[m], c]
        count += 1
    for c in range(d):
        mean[c] /= count
    image = np.empty(d)
    for _ in range(4):
        image[:] = 0.0
        for m in range(0, len(members), step):
            i = members[m]
            along = 0.0
            for c in range(d):
                along += (x[i, c] - mean[c]) * direction[c]
            for c in range(d):
                image[c] += along * (x[i, c] - mean[c])
        length = 0.0
        for c in range(d):
            length += image[c] * image[c]
        if not length > 0.0:
            return
        for c in range(d):
            direction[c] = image[c] / math.sqrt(length)


@kernel
def project(x, members, direction, along):
    """along[m] = x[members[m]] . direction"""
    d = x.shape[1]
    for m in range(len(members)):
        total = 0.0
        for c in range(d):
            total += x[members[m], c] * direction[c]
        along[m] = total


@kernel
def block_means(x, rows, edges, first, last, means):
    """Mean (d,) of the environments of each block [first, last); block b holds ``rows[edges[b] : edges[b + 1]]``.

    Where some are a hundred times farther from it than most, of the nearer half only: an outlier must not drag the
    centre away from those that have neighbours, whose distances would drown in the distance to the centre. (Alone
    among n, it is n - 1 times as far from the mean as the others.)
    """
    d = x.shape[1]
    for b in range(first, last):
        members = rows[edges[b] : edges[b + 1]]
        squares = np.empty(len(members))
        limit = np.inf
        for _ in range(2):
            means[b] = 0.0
            count = 0
            for m in range(len(members)):
                if members[m] >= 0 and (limit == np.inf or squares[m] <= limit):
                    count += 1
                    for c in range(d):
                        means[b, c] += x[members[m], c]
            for c in range(d):
                means[b, c] /= count
            if limit < np.inf:
                break
            for m in range(len(members)):
                squares[m] = np.inf  # padding, sorted to the end
                if members[m] >= 0:
                    squares[m] = 0.0
                    for c in range(d):
                        apart = x[members[m], c] - means[b, c]
                        squares[m] += apart * apart
            ordered = np.sort(squares)
            if not ordered[count - 1] > min(1e4, 0.9 * (count - 1) ** 2) * ordered[count // 2]:
                break
            limit = ordered[count // 2]


@dataclass
class Packed:
    """Environments in the layout of the tiles.

    Groups are cut into blocks of neighbouring environments, blocks into panels. Each block is centred on its own mean.
    Only the last panel of a group is padded.
    """

    panels: FloatArray  #: flat, (n_panels * d * width,)
    norms: FloatArray  #: (n_panels * width,), inf for padding
    offsets: FloatArray  #: (n_panels * width,) added to the norm of a row: inf for padding
    weights: FloatArray  #: (n_panels * width,), 0 for padding
    rows: npt.NDArray[np.int64]  #: (n_panels * width,) index into the input, -1 for padding
    centres: npt.NDArray[np.float64]  #: (n_blocks, d)
    panel_block: npt.NDArray[np.int64]  #: (n_panels,) block of each panel
    radii: npt.NDArray[np.float64]  #: (n_blocks,) largest scaled distance of a member from the centre
    block_panels: npt.NDArray[np.int64]  #: (n_blocks + 1,) first panel of each block
    group_blocks: npt.NDArray[np.int64]  #: (n_groups + 1,) first block of each group
    d: int
    width: int

    @property
    def n_panels(self) -> int:
        return len(self.panel_block)

    def part(self, first: int, last: int) -> Packed:
        """Panels [first, last) of one group: what a tile needs of them, not copied."""
        blocks = slice(int(self.panel_block[first]), int(self.panel_block[last - 1]) + 1)
        rows = slice(first * self.width, last * self.width)
        return Packed(
            self.panels[rows.start * self.d : rows.stop * self.d],
            self.norms[rows],
            self.offsets[rows],
            self.weights[rows],
            self.rows[rows],
            self.centres[blocks],
            self.panel_block[first:last] - blocks.start,
            self.radii[blocks],
            np.clip(self.block_panels[blocks.start : blocks.stop + 1], first, last) - first,
            np.array([0, blocks.stop - blocks.start]),
            self.d,
            self.width,
        )

    @property
    def as_rows(self) -> tuple[np.ndarray, ...]:
        """What tiles read of their rows."""
        return self.panels, self.offsets, self.weights, self.centres, self.panel_block

    @property
    def as_columns(self) -> tuple[np.ndarray, ...]:
        """What tiles read of their columns."""
        return self.panels, self.norms, self.weights, self.centres, self.panel_block, self.radii


def pack_rows(
    x: FloatArray,
    groups: list[npt.NDArray[np.int64]],
    scale: float,
    weights: FloatArray | None,
    dtype: npt.DTypeLike,
    workers: Workers,
    name: str,
    rng: np.random.Generator | None = None,
    as_they_are: bool = False,
) -> Packed:
    """Pack the rows of x that each group names; in random order within each block where `rng` is given.

    Where nothing depends on short vectors, `as_they_are` saves the time that it takes to bring neighbours together.

    Raises
    ------
    ValueError
        If a row is not finite.
    """
    width, d = panel_width(dtype), x.shape[1]
    panels = np.array([-(-len(members) // width) for members in groups])
    edges = [
        [first + n * b // blocks for b in range(blocks)]
        for first, n, blocks in zip(
            np.cumsum(panels) - panels, panels.tolist(), [block_count(n * width) for n in panels.tolist()], strict=True
        )
    ]
    n_panels = int(panels.sum())
    block_panels = np.array([edge for group in edges for edge in group] + [n_panels], np.int64)
    group_blocks = np.concatenate([[0], np.cumsum([len(group) for group in edges])]).astype(np.int64)
    panel_block = np.repeat(np.arange(len(block_panels) - 1), np.diff(block_panels))
    rows = np.full(n_panels * width, -1, np.int64)

    sizes = np.diff(block_panels) * width
    of_groups = [sizes[first:last] for first, last in pairwise(group_blocks.tolist())]
    ordered = groups if as_they_are else neighbours_together(x, groups, of_groups, workers)
    for members, first in zip(ordered, (block_panels[group_blocks[:-1]] * width).tolist(), strict=True):
        rows[first : first + len(members)] = members
    real = rows >= 0
    if rng is not None:
        for first, last in pairwise((block_panels * width).tolist()):
            block = rows[first:last]
            rng.shuffle(block[: np.count_nonzero(block >= 0)])
    centres = np.empty((len(block_panels) - 1, d))
    workers.run(
        lambda part: block_means(x, rows, block_panels * width, part[0], part[1], centres),
        split_by_cost((np.diff(block_panels) * width).tolist(), ROWS_PER_TASK),
    )
    packed, norms = np.empty(n_panels * width * d, dtype), np.empty(n_panels * width, dtype)
    workers.run(
        lambda part: pack(x, rows, part[0], part[1], width, centres, panel_block, scale, packed, norms),
        split_evenly(n_panels, max(1, ROWS_PER_TASK // width)),
    )
    if not np.isfinite(norms[real]).all():
        raise ValueError(f"{name} spreads over so many bandwidths that squared distances overflow in {np.dtype(dtype)}")
    offsets = np.where(real, 0.0, np.inf).astype(dtype)
    row_weights = np.zeros(n_panels * width, dtype)
    row_weights[real] = 1.0 if weights is None else weights[rows[real]]
    radii = np.sqrt(np.maximum.reduceat(np.where(real, norms, 0.0), block_panels[:-1] * width))
    return Packed(
        packed, norms, offsets, row_weights, rows, centres, panel_block, radii, block_panels, group_blocks, d, width
    )  # fmt: skip


def neighbours_together(
    x: FloatArray,
    groups: Sequence[npt.NDArray[np.int64]],
    sizes: Sequence[npt.NDArray[np.int64]],
    workers: Workers,
) -> list[npt.NDArray[np.int64]]:
    """Reorder the rows of each group so that blocks of the given sizes hold neighbouring rows of x.

    Halves of halves, each cut across the direction in which a sample of it is widest. All cuts of one level are made at
    the same time, so that the work of large sets has no long part for one thread.
    """
    parts = list(zip(range(len(groups)), groups, sizes, strict=True))
    while to_cut := [(members, blocks) for _, members, blocks in parts if len(blocks) > 1 and len(members)]:
        halves = iter(_halves(x, to_cut, workers))
        parts = [
            (group, *half)
            for group, members, blocks in parts
            for half in (next(halves) if len(blocks) > 1 and len(members) else [(members, blocks)])
        ]
    found: list[list[npt.NDArray[np.int64]]] = [[] for _ in groups]
    for group, members, _ in parts:
        found[group].append(members)
    return [several[0] if len(several) == 1 else np.concatenate(several) for several in found]


def _halves(x: FloatArray, parts: list[_Part], workers: Workers) -> list[tuple[_Part, _Part]]:
    """Rows of blocks of given sizes, each part cut into two."""
    directions = np.ones((len(parts), x.shape[1]))
    along = [np.empty(len(members)) for members, _ in parts]
    halves: list[Any] = [None] * len(parts)

    def find_direction(number: int) -> None:
        members = parts[number][0]
        principal_direction(x, members, max(1, len(members) // 512), directions[number])

    def measure(task: tuple[int, tuple[int, int]]) -> None:
        number, (first, last) = task
        project(x, parts[number][0][first:last], directions[number], along[number][first:last])

    def cut(number: int) -> None:
        members, blocks = parts[number]
        half = len(blocks) // 2
        left = int(blocks[:half].sum())
        order = np.argpartition(along[number], left) if left < len(members) else np.arange(len(members))
        halves[number] = (members[order[:left]], blocks[:half]), (members[order[left:]], blocks[half:])

    rows = [(number, of) for number, part in enumerate(parts) for of in split_evenly(len(part[0]), ROWS_PER_TASK)]
    workers.run(find_direction, range(len(parts)))
    workers.run(measure, rows)
    workers.run(cut, range(len(parts)))
    return halves


def block_count(n_rows: int) -> int:
    """Blocks that a group is cut into: a function of its size alone, at most 1,024."""
    if n_rows <= 512:
        return 1
    return min(1024, max(4, 1 << math.ceil(math.log2(n_rows / 1024))))


def exponent_error(
    packed: Packed, exponent: npt.NDArray[np.float64] | float, rows: Packed
) -> npt.NDArray[np.float64] | float:
    """Bound of the rounding error of exponents as large as `exponent` (to base 2, <= 0) of `rows` against a packed set.

    The exponent is 2 a.b - a.a - b.b with a and b taken relative to the centre of the block of b. Each product of
    length d is off by at most (d + 8) units in the last place of what is added up, copying and moving included. Before
    it is moved there, a is relative to the centre of its own block, and off by the rounding of that length.
    """
    unit = 0.5 * float(np.finfo(packed.panels.dtype).eps)
    longest = math.sqrt(float(packed.norms[packed.rows >= 0].max()))
    apart = np.sqrt(-np.asarray(exponent))
    moved = 2.0 * unit * math.sqrt(float(rows.norms[rows.rows >= 0].max()))
    return 2.0 * (packed.d + 8) * unit * ((apart + longest) ** 2 + longest**2) + (2.0 * apart + moved) * moved


def rounding_error(reference: Packed, y: FloatArray, least: float, scale: float, workers: Workers) -> float:
    """Bound of the error, nats, that its precision makes in ln p >= `least` of rows of y against a packed reference.

    Terms smaller than 2^-40 of that are left to their number; the others are off by the rounding of their exponents.

    Raises
    ------
    ValueError
        If y spreads over more than that precision can tell.
    """
    dtype = reference.panels.dtype
    rows = pack_rows(y, [np.arange(len(y))], scale, None, dtype, workers, "y")
    lowest = -40.0 + min(0.0, least) * math.log2(math.e)
    terms = math.log(2.0) * float(exponent_error(reference, lowest, rows))
    return terms + len(reference.rows) * 2.0**-40 + 16.0 * float(np.finfo(dtype).eps)


#: Below so many environments single precision saves nothing worth having.
SMALL = 4096

#: Error of H, nats, that ``precision="auto"`` allows single precision to make.
ALLOWED_ERROR = 1e-6


def expected_error(packed: Packed, steepest: float) -> float:
    """Error of H, nats, to expect from single precision: its rounding times the mean squared length of packed rows.

    `steepest` is the largest factor of the exponents. On bulk, molecules, melts and extreme pressures, at bandwidths
    from 0.003 to 0.06, the error found was smaller than this (a test holds it).
    """
    return 2.0**-24 * steepest * float(packed.norms[packed.rows >= 0].mean())


def pack_precisely(
    x: FloatArray,
    groups: list[npt.NDArray[np.int64]],
    h: npt.NDArray[np.float64],
    weights: FloatArray | None,
    precision: str,
    workers: Workers,
    name: str,
    partners: int | None = None,
) -> tuple[Packed, str]:
    """`pack_rows` in the precision asked for, and which it is; for ``auto``, the fastest whose error is allowed.

    `partners` is the number of rows that x will be compared with, where it is not x.
    """
    scale = base_scale(h[0])
    if precision != "auto":
        return pack_rows(x, groups, scale, weights, precision, workers, name), precision
    if len(x) * (len(x) if partners is None else partners) >= SMALL**2:
        try:
            packed = pack_rows(x, groups, scale, weights, "float32", workers, name)
        except ValueError:  # too wide for single precision
            packed = None
        if packed is not None and expected_error(packed, float((h[0] / h.min()) ** 2)) <= ALLOWED_ERROR:
            return packed, "float32"
    return pack_rows(x, groups, scale, weights, "float64", workers, name), "float64"


def base_scale(h: float) -> float:
    """Factor after which squared distances are exponents to base 2."""
    return math.sqrt(0.5 * math.log2(math.e)) / h


def relative_scales(h: npt.NDArray[np.float64], precision: str) -> FloatArray:
    """Factors of those exponents for each bandwidth, relative to the first."""
    return ((h[0] / h) ** 2).astype(precision)


def for_samples(precision: str, x: Rows, h: float, allowed: float) -> str:
    """Single precision for ``auto`` where its error, nats, is allowed: samples err by more, unless x is very wide."""
    if precision != "auto":
        return precision
    if len(x) < SMALL:
        return "float64"
    some = x.take(np.arange(0, len(x), max(1, len(x) // 10_000)))
    with np.errstate(over="ignore", invalid="ignore"):  # too wide for float64 as well, which is told where it is packed
        exponent = base_scale(h) ** 2 * float(some.var(axis=0, dtype=np.float64).sum())
    return "float32" if 2.0**-24 * exponent <= allowed else "float64"
