"""The course of ``quests-zenn generate``."""

from __future__ import annotations

import math
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import click
import numpy as np

from quests_zenn._core.checks import DataError
from quests_zenn._core.parallel import resolve_jobs
from quests_zenn._core.progress import progress_bar
from quests_zenn.cli import _options, _tell
from quests_zenn.cli._known import Known, open_known
from quests_zenn.cli._source import SCORED, check_outputs, needs_frames
from quests_zenn.cli._tell import warn
from quests_zenn.io.frames import read_atoms, split_index, stem
from quests_zenn.io.journal import journal_of
from quests_zenn.io.outputs import write_scored
from quests_zenn.io.store_form import is_store
from quests_zenn.uq import GeneratedFrame
from quests_zenn.uq import generate as generate_frames
from quests_zenn.uq._guards import distances
from quests_zenn.uq._walk_figure import plot_walks

#: Options that go to the library as they are.
_PASSED = (
    "target", "width", "statistic", "quantile", "number", "generations", "steps", "linger", "burn_in", "temperature",
    "step_size", "atoms_per_move", "acceptance", "swaps", "volume_moves", "shear_moves", "strain", "min_distance",
    "volume", "ceiling", "apart", "select", "overwrite",
)  # fmt: skip

#: Share of accepted moves below which a walk hardly moves.
FEW_ACCEPTED = 0.05


def generate(files: tuple[str, ...], options: dict[str, Any]) -> None:
    """Structures near a target dH."""
    references: tuple[str, ...] = options["reference"]
    check_outputs((*files, *references), options, output=SCORED)
    for spec in files:
        if is_store(split_index(spec)[0]):
            needs_frames(spec, "a walk")
    times = _tell.Times()
    known = open_known(references, {key: value for key, value in options.items() if key != "select"}, times=times)
    starts = times.step("reading", lambda: [item for spec in files for item in read_atoms(spec, options["type_map"])])
    labels = [label for label, _ in starts]
    frames = [atoms for _, atoms in starts]
    walks, told = times.step("walks", lambda: _walks(frames, labels, known, options))
    found = walks if options["keep_all"] else [walk for walk in walks if walk.kept]
    journal = journal_of(_checkpoint(options))
    if not found:
        journal.unlink(missing_ok=True)
        raise DataError(_nothing(walks, options))
    if options["plot_file"]:
        guard = distances(options["min_distance"], known.reference, np.concatenate([a.numbers for a in frames]))
        plot_walks(
            options["plot_file"], walks, target=options["target"], width=options["width"],
            statistic=_statistic(options), guard=min(guard.limits.values()),
            title=f"from {', '.join(map(stem, files[:3]))} given {', '.join(map(stem, references[:3]))}",
            overwrite=options["overwrite"],
        )  # fmt: skip
    times.step("writing", lambda: _write(found, options))
    _options.Interrupts.raise_if_pending()
    jobs = resolve_jobs(options["jobs"])
    _tell.write_document("generate", files, options, _document(walks, found, frames, known, options), times, jobs)
    journal.unlink(missing_ok=True)
    if options["quiet"]:
        return
    _table(files, walks, found, frames, known, options, times.row(jobs))
    known.warn()
    for sentence in told:
        warn(sentence)
    _warn(walks, options)


def _checkpoint(options: dict[str, Any]) -> Path:
    """What the journal is named after: the output itself must not be there yet, or stay until it is replaced."""
    return Path(f"{options['output']}.walks")


def _walks(
    frames: list[Any], labels: list[str], known: Known, options: dict[str, Any]
) -> tuple[list[GeneratedFrame], list[str]]:
    """All walks, and what the library remarks on them."""
    checkpoint = _checkpoint(options)
    with (
        warnings.catch_warnings(record=True) as remarks,
        progress_bar("walks", "move", quiet=options["quiet"]) as advance,
    ):
        warnings.simplefilter("always", RuntimeWarning)

        def progress(moves: int) -> None:
            _options.Interrupts.raise_if_pending()
            advance(moves)

        try:
            walks = generate_frames(
                frames, known.reference, **{name: options[name] for name in _PASSED}, keep_all=True,
                rng=options["seed"], jobs=options["jobs"], labels=labels, scope=known.scope, checkpoint=checkpoint,
                progress=progress,
            )  # fmt: skip
        except KeyboardInterrupt:
            if not options["quiet"]:
                warn(f"finished walks are kept in {journal_of(checkpoint)}; the same command goes on from there")
            raise
    return walks, [str(remark.message) for remark in remarks]


def _write(found: list[GeneratedFrame], options: dict[str, Any]) -> None:
    dh = np.concatenate([walk.atoms.arrays["dH"] for walk in found])
    write_scored(options["output"], [(walk.name, walk.atoms.copy()) for walk in found], dh, options["overwrite"])


def _statistic(options: dict[str, Any]) -> str:
    if options["statistic"] == "quantile":
        return f"{options['quantile']:g} quantile of dH"
    return {"max": "largest dH", "mean": "mean dH"}[options["statistic"]]


def _nothing(walks: list[GeneratedFrame], options: dict[str, Any]) -> str:
    if any(walk.outcome == "repeated" for walk in walks):
        return "each walk ended at a structure like one kept before, so that nothing was written; --apart says how far"
    nearest = min((walk.reached for walk in walks), key=lambda value: abs(value - options["target"]))
    return (
        f"no walk came within {options['width']:g} nats of the target {options['target']:g} (the nearest to "
        f"{nearest:.1f}), so that nothing was written; more --steps, a lower --min-distance, a larger --step-size or "
        "another --target may get there, and --keep-all writes what there is"
    )


def _document(
    walks: list[GeneratedFrame], found: list[GeneratedFrame], frames: list[Any], known: Known, options: dict[str, Any]
) -> dict[str, Any]:
    outcomes = Counter(walk.outcome for walk in walks)
    names = (
        "name", "parent", "generation", "outcome", "value", "reached", "min_distance", "volume", "moves", "acceptance",
        "step_size", "strain", "arrived", "trace",
    )  # fmt: skip
    written = {walk.name: place for place, walk in enumerate(found)}
    limits = distances(options["min_distance"], known.reference, np.concatenate([a.numbers for a in frames]))
    asked = {name: options[name] for name in _PASSED if name != "overwrite"}
    return {
        **asked,
        "guard": str(limits),
        "n_start": len(frames),
        "n_walks": len(walks),
        "n_kept": outcomes["kept"],
        "n_missed": outcomes["missed"],
        "n_repeated": outcomes["repeated"],
        "scope": {"dH": known.scope + ", and the frames kept before each"},
        "walks": [
            {"index": written.get(walk.name), "mean_dh": walk.mean, "max_dh": walk.max}
            | {name: getattr(walk, name) for name in names}
            for walk in walks
        ],
        **known.parameters(),
    }


def _table(
    files: tuple[str, ...], walks: list[GeneratedFrame], found: list[GeneratedFrame], frames: list[Any], known: Known,
    options: dict[str, Any], time: tuple[str, str],
) -> None:  # fmt: skip
    numbers = np.concatenate([atoms.numbers for atoms in frames])
    guard = distances(options["min_distance"], known.reference, numbers)
    outcomes = Counter(walk.outcome for walk in walks)
    moves = sum(walk.moves for walk in walks)
    accepted = sum(walk.acceptance * walk.moves for walk in walks)
    last = max(walk.generation for walk in walks)
    rows = [
        ("start", f"{_count(len(frames), 'frame')} of {_count(len(numbers), 'atom')} ({', '.join(files)})"),
        *known.rows(),
        ("target", f"{_statistic(options)} {options['target']:g} ± {options['width']:g} nats"),
        ("guard", f"{guard} ({guard.told})"),
        ("walks", f"{len(walks)} in {_count(last, 'generation')}: {outcomes['kept']} kept, {outcomes['missed']} missed "
                  f"the target, {outcomes['repeated']} repeat others"),
        ("moves", f"{moves:,}, {accepted / max(1, moves):.0%} accepted"),
        ("written", f"{options['output']}: {_count(len(found), 'frame')}"),
        time,
    ]  # fmt: skip
    _tell.rows(rows)
    width = max(6, *(len(walk.parent) for walk in found)) + 2
    click.echo(
        f"\n{'frame':>7}  {'walk':<8}{'from':<{width}}{'reached':>9}{'mean':>8}{'largest':>9}{'closest':>9}"
        f"{'Å3/atom':>9}{'moves':>8}{'accepted':>10}"
    )
    for place, walk in enumerate(found):
        volume = "-" if math.isnan(walk.volume) else f"{walk.volume:.2f}"
        click.echo(
            f"{place:>7}  {walk.name:<8}{walk.parent:<{width}}{walk.reached:>9.2f}{walk.mean:>8.2f}{walk.max:>9.2f}"
            f"{walk.min_distance:>9.3f}{volume:>9}{walk.moves:>8}{walk.acceptance:>10.0%}"
            + ("" if walk.kept else f"  {walk.outcome}")
        )


def _count(n: int, what: str) -> str:
    return f"{n:,} {what}" + ("" if n == 1 else "s")


def _warn(walks: list[GeneratedFrame], options: dict[str, Any]) -> None:
    missed = [walk for walk in walks if walk.outcome == "missed"]
    if missed:
        reached = [walk.reached for walk in missed]
        warn(
            f"{len(missed)} of {_count(len(walks), 'walk')} missed the target (they came to {min(reached):.1f} to "
            f"{max(reached):.1f} nats); more --steps, a lower --min-distance or another --target may get there"
        )
    repeated = sum(walk.outcome == "repeated" for walk in walks)
    if repeated:
        warn(
            f"{repeated} of {_count(len(walks), 'walk')} ended too close to a frame kept before; fewer of them per "
            "generation (--number) and more --generations keep them apart"
        )
    stuck = sum(walk.moves > 0 and walk.acceptance < FEW_ACCEPTED for walk in walks)
    if stuck:
        warn(
            f"{stuck} of {_count(len(walks), 'walk')} had fewer than {FEW_ACCEPTED:.0%} of their moves accepted; a "
            "smaller --step-size or more --burn-in helps"
        )
