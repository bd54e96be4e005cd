"""New structures on purpose: Monte Carlo walks that end where a reference knows little, but not nothing."""

from __future__ import annotations

import hashlib
import math
import os
import threading
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

import quests_zenn
from quests_zenn._core.checks import DataError, finite, one_of, positive, whole_number
from quests_zenn._core.parallel import Workers
from quests_zenn.descriptors import element_symbols
from quests_zenn.io.frames import FrameSource, as_frame, is_single, selected_atoms
from quests_zenn.io.journal import Journal
from quests_zenn.uq._guards import DEFAULT_MIN_DISTANCE, Box, distances, nearest_distance, volume_range
from quests_zenn.uq._walk import DECIMALS, Rules, Start, Walk, Walker
from quests_zenn.uq.reference import Reference

#: What is compared with the target.
STATISTICS = ("max", "mean", "quantile")

#: What became of a walk.
KEPT, MISSED, REPEATED = "kept", "missed", "repeated"

#: With moves of the volume and no limits, it may change by these factors of the smallest and largest at the start.
DEFAULT_VOLUMES = (0.8, 1.25)

#: Largest strain of a single move of the cell.
LARGEST_STRAIN = 0.2

#: Arrays that belong to atoms, not to a configuration of them.
_KEPT_ARRAYS = ("tags", "initial_magmoms", "initial_charges")


@dataclass(frozen=True)
class GeneratedFrame:
    """A structure that a walk has found.

    Attributes
    ----------
    atoms : ase.Atoms
        With dH (nats, given the reference and all frames kept before this one) in the array ``dH``, and what is below
        in its info.
    name, parent : str
        ``g2w5`` for walk 5 of generation 2; the name of what it started from, or the label of a starting frame.
    generation : int
        From 1.
    outcome : {"kept", "missed", "repeated"}
        ``kept``: it is what was asked for. ``missed``: the walk never came within `width` of the target. ``repeated``:
        it did, but is too much like a frame kept before it in its generation.
    reached : float
        The statistic of dH where the walk ended, nats, given what was known when it began: the reference and what was
        kept of earlier generations.
    value : float
        The same given all frames kept before this one.
    mean, max : float
        Mean and largest dH of its atoms, nats.
    min_distance : float
        Smallest distance between two atoms, Å; inf where no two are within the cutoff.
    volume : float
        Å3 per atom; NaN where the frame is not periodic along all axes.
    moves : int
        Moves of the walk.
    acceptance : float
        Share of moves accepted.
    step_size, strain : float
        As adapted in the burn-in; Å, and 1.
    arrived : int
        Moves until the statistic was first near the target; -1 if it never was.
    trace : numpy.ndarray, shape (p, 2)
        Number of moves, and the statistic then, along the walk.
    """

    atoms: Any
    name: str
    parent: str
    generation: int
    outcome: str
    value: float
    reached: float
    mean: float
    max: float
    min_distance: float
    volume: float
    moves: int
    acceptance: float
    step_size: float
    strain: float
    arrived: int
    trace: npt.NDArray[np.float64]

    @property
    def kept(self) -> bool:
        """Whether it is what was asked for."""
        return self.outcome == KEPT


def generate(
    frames: FrameSource,
    reference: Reference,
    target: float = 20.0,
    number: int | None = None,
    generations: int = 1,
    *,
    width: float = 2.0,
    statistic: str = "max",
    quantile: float = 0.9,
    temperature: float = 0.1,
    steps: int | None = None,
    linger: int = 0,
    burn_in: int | None = None,
    step_size: float = 0.1,
    atoms_per_move: int = 1,
    acceptance: float = 0.3,
    swaps: float = 0.0,
    volume_moves: float = 0.0,
    shear_moves: float = 0.0,
    strain: float = 0.01,
    min_distance: float | str | Mapping[tuple[str, str], float] = DEFAULT_MIN_DISTANCE,
    volume: tuple[float, float] | str | None = None,
    ceiling: float | None = None,
    apart: float | None = None,
    select: str | None = None,
    keep_all: bool = False,
    rng: int | np.random.Generator | None = None,
    jobs: int | None = None,
    labels: Sequence[str] | None = None,
    scope: str = "the reference",
    checkpoint: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    progress: Callable[[int], None] | None = None,
) -> list[GeneratedFrame]:
    """New structures whose dH given a reference is near a target: beyond what is known, but not absurd.

    Walks start from the given frames. Each is a Metropolis Monte Carlo run on the energy ``((s - target) / width)^2``,
    where s is a statistic of the dH of the atoms; moves that bring atoms too close to each other are refused. A walk
    ends once s is within `width` of the target. Frames that get there, and are not too much like each other, are kept:
    they become known, and the next generation starts from them and seeks the target given all of them.

    No energy is computed: guards are all that keeps structures from being unphysical.

    Parameters
    ----------
    frames : structures
        One, or an iterable of them: what to start from. Walks of the first generation take them in turn.
    reference : Reference
        What is known. It is not changed.
    target, width : float
        nats
    number : int or None
        Walks of each generation; None for one per starting frame.
    generations : int
    statistic : {"max", "mean", "quantile"}
        Of the dH of the atoms: the largest, the mean, or the smallest value that a share `quantile` of them does not
        exceed.
    quantile : float
        Between 0 and 1.
    temperature : float
        Of the Metropolis rule. There are more ways to be strange than to be near the target, so that a high one ends
        above it.
    steps : int or None
        Most moves of a walk; None for ten per atom that may move, and at least 200.
    linger : int
        Moves that a walk goes on for once it has reached the target. It then stays near it, and changes more of the
        structure.
    burn_in : int or None
        Number of moves, from the first on, after which step sizes are adapted; None for half of `steps`.
    step_size : float
        Standard deviation of displacements along each axis, Å. It is adapted, to at most three times as much.
    atoms_per_move : int
        Atoms that are displaced together.
    acceptance : float
        Share of moves accepted at which the adaption aims. Half of the shortest moves lead to a higher dH: a walk that
        seeks one can have no larger share.
    swaps, volume_moves, shear_moves : float
        Shares of moves that exchange two atoms of different elements, scale the cell and all positions, or change its
        shape at constant volume. The others displace atoms.
    strain : float
        Standard deviation of ln V, and of the components of the shear. Adapted as `step_size`.
    min_distance : float, str or mapping
        Smallest distance of two atoms: Å; ``"reference:0.9"``, that share of the smallest distances in the reference
        (for a pair of elements, the larger of those of their closest neighbours); ``"covalent:0.7"``, that share of
        the sum of the covalent radii; or Å for pairs of elements (``{("Cu", "O"): 1.7}`` or ``"Cu-O=1.7,O-O=2.1"``),
        with the first rule for all others.
    volume : (low, high), "LOW:HIGH" or None
        Limits of the volume per atom, Å3. None: with moves of the volume 0.8 times the smallest and 1.25 times the
        largest of the starting frames.
    ceiling : float or None
        Moves that take the dH of any atom above this (nats) are refused; None for ten widths above the target.
    apart : float or None
        Frames of one generation do not know of each other while they walk. A frame is left out if the statistic given
        those kept before it is below this (nats); None for half of a positive target, else the target less a width.
    select : str or None
        Atoms that move and whose dH counts: elements (``"C,O"``), indices (``"0,5,10:20"``), or an array of the frames,
        whose non-zero entries count. All others stay where they are, as do those held by
        ``ase.constraints.FixAtoms``.
    keep_all : bool
        Also return frames that missed the target or repeat others.
    rng : int, Generator or None
        Each walk has its own stream, so that results do not depend on the number of threads.
    jobs : int or None
        Threads, each of which walks on its own; None for all available cores.
    labels : sequence of str, optional
        Names of the starting frames.
    scope : str
        What the reference is called in ``info["dH_scope"]``.
    checkpoint : file name or None
        Finished walks are noted down in ``CHECKPOINT.progress.jsonl``. If the run is interrupted, the same call goes on
        from there. The file may be removed afterwards.
    overwrite : bool
        If what is noted down is of another run, begin anew.
    progress : callable or None
        Called with the number of moves done since the last call, from any thread.

    Returns
    -------
    list of GeneratedFrame
        In the order of generations and walks. A generation of which nothing is kept is the last, with a warning.

    Raises
    ------
    DataError
        If a starting frame has elements that the reference never saw, breaks a guard, or cannot move; if there are no
        frames; if the checkpoint is of another run.
    ValueError
        For arguments out of range.

    Examples
    --------
    >>> from quests_zenn.uq import Reference, generate
    >>> reference = Reference.fit("train.xyz")                                      # doctest: +SKIP
    >>> found = generate(atoms, reference, target=20, number=10, generations=3)     # doctest: +SKIP
    >>> new = [frame.atoms for frame in found]                                      # doctest: +SKIP
    """
    generations = whole_number(generations, "generations", 1)
    starts, templates = _starts(frames, reference, select, labels)
    number = len(starts) if number is None else whole_number(number, "number", 1)
    numbers = np.unique(np.concatenate([start.numbers for start in starts]))
    shares = {name: _share(value, name) for name, value in
              (("swaps", swaps), ("volume_moves", volume_moves), ("shear_moves", shear_moves))}  # fmt: skip
    if sum(shares.values()) > 1.0 + 1e-12:
        raise ValueError(f"the shares of moves, {' + '.join(shares)}, must not exceed 1, got {sum(shares.values()):g}")
    target, width = finite(target, "target"), positive(width, "width")
    rules = Rules(
        target=target,
        width=width,
        statistic=one_of(statistic, "statistic", STATISTICS),
        quantile=_share(quantile, "quantile"),
        temperature=_not_negative(temperature, "temperature"),
        steps=None if steps is None else whole_number(steps, "steps", 1),
        linger=whole_number(linger, "linger", 0),
        burn_in=None if burn_in is None else whole_number(burn_in, "burn_in", 0),
        step_size=positive(step_size, "step_size"),
        atoms_per_move=whole_number(atoms_per_move, "atoms_per_move", 1),
        acceptance=_share(acceptance, "acceptance"),
        **shares,
        strain=positive(strain, "strain"),
        distances=distances(min_distance, reference, numbers),
        volume=_volumes(volume, starts, volume_moves > 0.0),
        ceiling=target + 10.0 * width if ceiling is None else finite(ceiling, "ceiling"),
        apart=_apart(target, width) if apart is None else finite(apart, "apart"),
    )
    _check(starts, reference, rules)
    entropy = _entropy(rng)
    run = _Run(starts, templates, reference, rules, number, generations, entropy, scope, jobs, progress)
    with _open_journal(checkpoint, lambda: run.identity(rng is None), overwrite) as journal:
        found = run.everything(journal)
    return found if keep_all else [frame for frame in found if frame.kept]


# --- judging the arguments --------------------------------------------------------------------------------------------


def _share(value: Any, name: str) -> float:
    number = finite(value, name)
    if not 0.0 <= number <= 1.0:
        raise ValueError(f"{name} is a share and must lie between 0 and 1, got {value!r}")
    return number


def _apart(target: float, width: float) -> float:
    """Statistic below which a frame repeats another."""
    return min(0.5 * target, target - width)


def _not_negative(value: Any, name: str) -> float:
    number = finite(value, name)
    if number < 0.0:
        raise ValueError(f"{name} must not be negative, got {value!r}")
    return number


def _entropy(rng: Any) -> int:
    """What all streams are made of."""
    if isinstance(rng, np.random.Generator):
        return int(rng.integers(2**63))
    if rng is None:
        return int(np.random.default_rng().integers(2**63))
    return whole_number(rng, "rng", 0)


def _starts(
    frames: FrameSource, reference: Reference, select: str | None, labels: Sequence[str] | None
) -> tuple[list[Start], list[Any]]:
    """Starting points, and an ``ase.Atoms`` of each that holds what new frames inherit."""
    items = [frames] if is_single(frames) else frames
    if isinstance(items, str | os.PathLike) or not isinstance(items, Iterable):
        raise DataError("frames must be structures; read files first, with ase.io.read or quests_zenn.io.read_frames")
    starts: list[Start] = []
    templates: list[Any] = []
    known = set(reference.elements)
    for index, item in enumerate(items):
        frame = as_frame(item, labels[index] if labels is not None else f"frame {index}")
        label = frame.label
        if len(frame) == 0:
            raise DataError(f"{label}: it has no atoms")
        if not np.isfinite(frame.positions).all():
            raise DataError(f"{label}: its positions are not all finite")
        strangers = [symbol for symbol in element_symbols(frame.numbers) if symbol not in known]
        if strangers:
            raise DataError(
                f"{label}: it holds {' '.join(strangers)}, which the reference ({' '.join(sorted(known))}) never saw, "
                "so that dH is infinite whatever moves; add frames with it to the reference"
            )
        template, fixed = _template(item, frame)
        atoms = np.arange(len(frame)) if select is None else selected_atoms(template, select, label)
        movable = np.setdiff1d(atoms, fixed)
        if len(movable) == 0:
            what = "selects" if not len(atoms) else "leaves"
            raise DataError(f"{label}: no atom can move; the selection {what} none that no constraint holds")
        starts.append(
            Start(
                np.round(frame.positions, DECIMALS), frame.cell.copy(), frame.pbc.copy(), frame.numbers.copy(),
                movable, atoms, label,
            )
        )  # fmt: skip
        templates.append(template)
    if not starts:
        raise DataError("there are no frames to start from")
    return starts, templates


def _template(item: Any, frame: Any) -> tuple[Any, npt.NDArray[np.int64]]:
    """Atoms with what they keep when they move, and the indices of those that do not."""
    from ase import Atoms
    from ase.constraints import FixAtoms

    template = Atoms(numbers=frame.numbers, positions=frame.positions, cell=frame.cell, pbc=frame.pbc)
    fixed: list[npt.NDArray[np.int64]] = [np.zeros(0, np.int64)]
    for name, values in getattr(item, "arrays", {}).items():
        if name not in template.arrays:
            template.arrays[name] = np.array(values)  # for selections
    for constraint in getattr(item, "constraints", []):
        if not isinstance(constraint, FixAtoms):
            raise DataError(
                f"{frame.label}: its constraint {type(constraint).__name__} is not obeyed by moves (only FixAtoms is); "
                "remove it first"
            )
        fixed.append(np.asarray(constraint.get_indices(), np.int64))
    held = np.unique(np.concatenate(fixed))
    if len(held):
        template.set_constraint(FixAtoms(held))
    return template, held


def _volumes(spec: Any, starts: list[Start], moves: bool) -> tuple[float, float] | None:
    """Limits of the volume per atom."""
    if spec is None and not moves:
        return None
    volumes = []
    for start in starts:
        if not start.pbc.all():
            raise DataError(
                f"{start.label}: it is not periodic along all axes, so that it has no volume to move or to limit"
            )
        volumes.append(abs(float(np.linalg.det(start.cell))) / len(start))
    if spec is None:
        return DEFAULT_VOLUMES[0] * min(volumes), DEFAULT_VOLUMES[1] * max(volumes)
    low, high = volume_range(spec)
    for start, value in zip(starts, volumes, strict=True):
        if not low <= value <= high:
            raise DataError(
                f"{start.label}: its volume of {value:.3f} Å3 per atom is outside the limits of {low:g} to {high:g}"
            )
    return low, high


def _check(starts: list[Start], reference: Reference, rules: Rules) -> None:
    """Whether each start may be moved as asked, and keeps to the guards."""
    if rules.strain > LARGEST_STRAIN:
        raise ValueError(f"strain must be at most {LARGEST_STRAIN:g}, got {rules.strain:g}")
    if rules.swaps > 0.0 and reference.species == "none":
        raise ValueError(
            "swaps need a reference with species blocks or pairs: with none, dH does not tell elements apart"
        )
    for start in starts:
        box = Box.of(start.cell, start.pbc, rules.distances.farthest, start.label)
        rules.distances.check(start.positions, start.numbers, box, start.label)
        if rules.swaps > 0.0 and len(np.unique(start.numbers[start.movable])) < 2:
            raise DataError(f"{start.label}: its atoms that may move are of one element, so that none can be swapped")
        if rules.volume_moves + rules.shear_moves > 0.0:
            if not start.pbc.all():
                raise DataError(f"{start.label}: it is not periodic along all axes, so that its cell cannot move")
            if len(start.movable) < len(start):
                raise DataError(
                    f"{start.label}: moves of the cell move all atoms, and a constraint or the selection holds some"
                )


def _digest(*arrays: npt.NDArray[Any]) -> str:
    found = hashlib.sha256()
    for array in arrays:
        found.update(str((array.dtype.str, array.shape)).encode())
        found.update(np.ascontiguousarray(array).data)
    return found.hexdigest()


def _open_journal(
    checkpoint: str | os.PathLike[str] | None, identity: Callable[[], dict[str, Any]], overwrite: bool
) -> AbstractContextManager[Journal | None]:
    if checkpoint is None:
        return nullcontext()
    run = identity()
    if overwrite:  # what is there counts if it is of this run: the outcome would be the same
        try:
            with Journal(checkpoint, run):
                pass
        except DataError:
            return Journal(checkpoint, run, overwrite=True)
    return Journal(checkpoint, run)


# --- the run ----------------------------------------------------------------------------------------------------------


@dataclass
class _Run:
    starts: list[Start]
    templates: list[Any]
    reference: Reference
    rules: Rules
    number: int
    generations: int
    entropy: int
    scope: str
    jobs: int | None
    progress: Callable[[int], None] | None

    def identity(self, any_seed: bool) -> dict[str, Any]:
        """What makes a run the same as another, up to the number of generations."""
        rules = asdict(self.rules)
        rules["distances"] = str(self.rules.distances)
        known = self.reference
        start_arrays = [
            array for s in self.starts for array in (s.positions, s.cell, s.pbc, s.numbers, s.movable, s.asked)
        ]
        return {
            "version": quests_zenn.__version__,
            "starting_frames": _digest(*start_arrays),
            "reference": _digest(known.x, known.numbers),
            "parameters": known.parameters,
            "number": self.number,
            "seed": None if any_seed else self.entropy,
            **rules,
        }

    def everything(self, journal: Journal | None) -> list[GeneratedFrame]:
        """All generations."""
        done: dict[tuple[int, int], Walk] = {}
        if journal is not None:
            for entry in journal.entries():
                if "entropy" in entry:
                    self.entropy = int(entry["entropy"])
                if "walk" in entry:
                    walk = Walk.from_entry(entry["walk"])
                    done[walk.generation, walk.number] = walk
            journal.add(b"", {"entropy": self.entropy})
        known = self.reference.copy()
        found: list[GeneratedFrame] = []
        starts, templates = self.starts, self.templates
        for generation in range(1, self.generations + 1):
            walks = self._walks(generation, starts, known, done, journal)
            judged = [self._judge(walk, starts, templates, known) for walk in walks]
            found += judged
            kept = [n for n, frame in enumerate(judged) if frame.kept]
            if not kept and generation < self.generations:
                warnings.warn(
                    f"nothing of generation {generation} was kept, so that it is the last", RuntimeWarning, stacklevel=4
                )
                break
            owners = [walks[n].number % len(starts) for n in kept]
            starts, templates = (
                [self._next(walks[n], starts[o], judged[n].name) for n, o in zip(kept, owners, strict=True)],
                [templates[o] for o in owners],
            )
        return found

    def _walks(
        self, generation: int, starts: list[Start], known: Reference, done: Mapping[tuple[int, int], Walk],
        journal: Journal | None,
    ) -> list[Walk]:  # fmt: skip
        """All walks of a generation; those that an earlier run has done are taken from it."""
        walks: list[Walk | None] = [done.get((generation, number)) for number in range(self.number)]
        left = [number for number, walk in enumerate(walks) if walk is None]
        if self.progress is not None:
            self.progress(sum(walk.moves for walk in walks if walk is not None))
        if left:
            first = starts[0]
            known.score((first.positions, first.cell, first.pbc, first.numbers), jobs=self.jobs)  # packs the reference
        stop, lock = threading.Event(), threading.Lock()

        def one(number: int) -> None:
            start = starts[number % len(starts)]
            seed = np.random.SeedSequence(self.entropy, spawn_key=(generation, number))
            walker = Walker(start, known, self.rules, seed)
            try:
                with Workers(threads) as own:
                    walk = walker.walk(generation, number, own, progress=self.progress, stopped=stop.is_set)
            except BaseException:
                stop.set()  # the others end at once, not after minutes
                raise
            with lock:
                walks[number] = walk
                if journal is not None:
                    journal.add(b"", {"walk": walk.entry()})

        with Workers(self.jobs) as workers:
            threads = max(1, workers.jobs // max(1, len(left)))  # of each walk
            try:
                workers.run(one, left)
            except BaseException:  # an interrupt while all wait for the last walk
                stop.set()
                raise
        return [walk for walk in walks if walk is not None]

    def _judge(self, walk: Walk, starts: list[Start], templates: list[Any], known: Reference) -> GeneratedFrame:
        """A walk as a frame, judged by all that is known; what is kept is known from then on."""
        owner = walk.number % len(starts)
        start, atoms = starts[owner], templates[owner].copy()
        for name in set(atoms.arrays) - {"numbers", "positions", *_KEPT_ARRAYS}:
            del atoms.arrays[name]
        atoms.set_cell(walk.cell)
        atoms.positions[:] = walk.positions
        env = known.describe(atoms, jobs=self.jobs)
        dh = known.score(env, jobs=self.jobs)
        value = self.rules.of(dh[start.asked])
        outcome = MISSED if not self.rules.near(walk.value) else KEPT if value >= self.rules.apart else REPEATED
        if outcome == KEPT:
            known.extend(atoms, jobs=self.jobs)
        volume = abs(float(np.linalg.det(walk.cell))) / len(start) if start.pbc.all() else math.nan
        name = f"g{walk.generation}w{walk.number}"
        frame = GeneratedFrame(
            atoms, name, start.label, walk.generation, outcome, value, walk.value, float(dh.mean()), float(dh.max()),
            nearest_distance(env.x, known.cutoff), volume, walk.moves, walk.acceptance, walk.step_size, walk.strain,
            walk.arrived, walk.trace,
        )  # fmt: skip
        atoms.arrays["dH"] = dh
        atoms.info.update(self._info(frame))
        return frame

    def _info(self, frame: GeneratedFrame) -> dict[str, Any]:
        rules, known = self.rules, self.reference
        info: dict[str, Any] = {"name": frame.name, "parent": frame.parent, "generation": frame.generation}
        info |= {"outcome": frame.outcome, "seed": self.entropy, "acceptance": frame.acceptance}
        info["min_distance"] = frame.min_distance
        info["dH_scope"] = f"{self.scope}, and the frames kept before this one"
        info |= {"dH_target": rules.target, "dH_width": rules.width, "dH_statistic": rules.statistic}
        if rules.statistic == "quantile":
            info["dH_quantile"] = rules.quantile
        info |= {"dH_reached": frame.reached, "dH_value": frame.value, "dH_mean": frame.mean, "dH_max": frame.max}
        return info | {f"dH_{name}": getattr(known, name) for name in ("bandwidth", "k", "cutoff", "species")}

    def _next(self, walk: Walk, start: Start, name: str) -> Start:
        """Where a walk ended, as a start of the next generation."""
        return Start(walk.positions, walk.cell, start.pbc, start.numbers, start.movable, start.asked, name)
