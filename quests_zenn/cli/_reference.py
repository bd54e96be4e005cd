"""The course of ``quests-zenn reference``. Imported only when it really runs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from quests_zenn._core.checks import DataError
from quests_zenn._core.parallel import resolve_jobs
from quests_zenn._core.progress import progress_bar
from quests_zenn.cli import _known, _options, _tell
from quests_zenn.cli._source import Source, check_outputs
from quests_zenn.cli._tell import warn
from quests_zenn.descriptors import element_symbols
from quests_zenn.io.arrays import read_arrays
from quests_zenn.io.frames import holds_bare_types
from quests_zenn.uq import Reference
from quests_zenn.uq.thresholds import STATISTICS

_TOLD = {"atom": "of the atoms", "mean": "of the frames, by mean dH", "max": "of the frames, by largest dH"}


def make(files: tuple[str, ...], options: dict[str, Any]) -> None:
    """A new reference."""
    _check(files, options)
    for name in files:
        if _known.is_saved(name):
            raise DataError(f"{name}: is a reference already; quests-zenn reference --extend adds frames to it")
    times = _tell.Times()
    known = _known.open_known(files, options, by=options["by"], times=times)
    _finish(known.reference, known.source, files, options, times, {"bandwidth_source": known.bandwidth_source})


def extend(files: tuple[str, ...], options: dict[str, Any]) -> None:
    """A reference with more frames."""
    same = os.path.realpath(options["extend"]) == os.path.realpath(options["output"])
    _check(files if same else (*files, options["extend"]), options)
    times = _tell.Times()
    known = _known.open_known((options["extend"],), options, times=times)
    if known.source is not None:
        raise DataError(f"{options['extend']}: is no reference; quests-zenn reference FILE... -o train.qref makes one")
    reference = known.reference
    groups = None
    if options["by"] is not None:
        source = Source(files, options | {"output": None})
        for _ in source.stream():
            _options.Interrupts.raise_if_pending()
        groups = source.frame_groups()[0]
    before = len(reference), reference.n_frames
    with progress_bar("descriptors", "env", quiet=options["quiet"]) as advance:
        added = times.step(
            "descriptors",
            lambda: reference.extend(
                files, only_new=options["only_new"], threshold=options["eps"], groups=groups,
                type_map=options["type_map"], jobs=options["jobs"], progress=advance,
            ),
        )  # fmt: skip
    _options.Interrupts.raise_if_pending()
    found = {
        "bandwidth_source": known.bandwidth_source,
        "extended": options["extend"],
        "only_new": options["only_new"],
        "eps": options["eps"] if options["only_new"] else None,
        "n_before": before[0],
        "n_added": added,
        "n_frames_added": reference.n_frames - before[1],
    }
    _finish(reference, None, files, options, times, found)
    if not options["quiet"]:
        bare = [name for name in files if not options["type_map"] and holds_bare_types(name)]
        if bare:
            warn(f"{bare[0]}: atom types were read as elements; --type-map 1=Cu,... names the real ones")


def show(options: dict[str, Any]) -> None:
    """What a reference holds."""
    check_outputs((options["show"],), options)
    times = _tell.Times()
    path = options["show"]
    reference = times.step("reading", lambda: Reference.load(path))
    meta = read_arrays(path, check=False)[0]
    document = _document(reference) | {"thresholds": meta["thresholds"], "made_with": meta["versions"]}
    _tell.write_document("reference", [path], options, document, times, resolve_jobs(options["jobs"]))
    if options["quiet"]:
        return
    made = meta["versions"].get("quests_zenn", "an unknown version")
    _tell.rows(
        [
            ("reference", f"{path}: {_size(path)}, made by quests_zenn {made}"),
            *_rows(reference),
            ("bandwidth", f"{reference.bandwidth:.5g} 1/Å"),
            *_threshold_rows(meta["thresholds"]),
            *_source_rows(reference),
        ]
    )


def _check(files: tuple[str, ...], options: dict[str, Any]) -> None:
    check_outputs(files, options)
    if not options["output"].endswith(_known.QREF):
        raise DataError(f"{options['output']}: the name of a reference must end in {_known.QREF}")


def _finish(
    reference: Reference, source: Source | None, files: tuple[str, ...], options: dict[str, Any], times: _tell.Times,
    found: dict[str, Any],
) -> None:  # fmt: skip
    """Thresholds, the file, the document and the table."""
    thresholds, reasons = [], []
    if not options["no_thresholds"]:
        thresholds, reasons = times.step("sums", lambda: _find(reference, options))
    _options.Interrupts.raise_if_pending()
    output = options["output"]
    times.step("writing", lambda: reference.save(output, options["overwrite"]))
    document = found | _document(reference) | {"thresholds": thresholds, "output": output}
    jobs = resolve_jobs(options["jobs"])
    _tell.write_document("reference", files, options, document, times, jobs)
    if options["quiet"]:
        return
    rows = _rows(reference)
    if "n_added" in found:
        frames, of = found["n_frames_added"], found["extended"]
        rows.append(
            ("added", f"{found['n_added']:,} environments of {frames:,} frames to the {found['n_before']:,} of {of}")
        )
    rows.append(("bandwidth", f"{reference.bandwidth:.5g} 1/Å ({found['bandwidth_source']})"))
    rows += _threshold_rows(thresholds) + [("no threshold", reason) for reason in reasons]
    rows.append(("written", f"{output}: {_size(output)}"))
    _tell.rows([*rows, times.row(jobs)])
    if source is not None:
        source.warn()


def _find(reference: Reference, options: dict[str, Any]) -> tuple[list[dict[str, Any]], list[str]]:
    """Thresholds for each statistic, and why there is none.

    A rate that the user gave must be told for something; where nothing was asked for, the reference is made either way.
    """
    rate, found, reasons = options["false_alarm"], [], []
    for of in STATISTICS:
        try:
            value = reference.threshold(rate, of=of, jobs=options["jobs"])
        except DataError as error:
            reasons.append(str(error))
            continue
        found.append({"false_alarm": rate, "of": of, "threshold": value})
    reasons = list(dict.fromkeys(reasons))
    if not found and _known.was_given("false_alarm"):
        raise DataError(reasons[0])
    return found, reasons


def _size(path: str) -> str:
    n_bytes = Path(path).stat().st_size
    return f"{n_bytes / 1e3:.0f} kB" if n_bytes < 1e6 else _tell.size(n_bytes)


def _document(reference: Reference) -> dict[str, Any]:
    return {
        **reference.parameters,
        "n_environments": len(reference),
        "n_frames": reference.n_frames,
        "n_groups": len(np.unique(reference.groups)),
        "n_copies": _copies(reference),
        "elements": list(reference.elements),
        "element_counts": _counts(reference),
        "sources": reference.sources,
    }


def _copies(reference: Reference) -> int | None:
    """Frames that are copies of others; None where nobody has looked."""
    found = reference._left_out
    return None if found is None else int(np.count_nonzero(~found.first_copy))


def _groups(reference: Reference) -> str:
    """How many groups there are, and how many once copies are joined."""
    found, n = reference._left_out, len(np.unique(reference.groups))
    told = f"{n:,} group{'' if n == 1 else 's'}"
    copies = _copies(reference)
    if found is None or not copies:
        return told
    left, frames = len(np.unique(found.groups)), "frame is a copy" if copies == 1 else "frames are copies"
    fewer = f", so that {left:,} group{'' if left == 1 else 's'} count" if left < n else ""
    return f"{told}; {copies:,} {frames} of others{fewer}"


def _counts(reference: Reference) -> dict[str, int]:
    """Environments of each element."""
    numbers, counts = np.unique(reference.numbers, return_counts=True)
    by_name = {element_symbols(numbers[i : i + 1])[0]: int(count) for i, count in enumerate(counts)}
    return dict(sorted(by_name.items()))


def _rows(reference: Reference) -> list[tuple[str, str]]:
    counts = _counts(reference)
    elements = list(counts) if len(counts) == 1 else [f"{name} {count:,}" for name, count in counts.items()]
    return [
        ("frames", f"{reference.n_frames:,} in {_groups(reference)}"),
        ("environments", f"{len(reference):,}"),
        ("elements", ", ".join(elements)),
        ("descriptor", f"k = {reference.k}, cutoff {reference.cutoff:g} Å, species {reference.species}"),
    ]


def _threshold_rows(thresholds: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [
        ("threshold", f"{item['threshold']:.4f} nats: reached by {item['false_alarm']:.3g} {_TOLD[item['of']]}")
        for item in thresholds
    ]


def _source_rows(reference: Reference) -> list[tuple[str, str]]:
    rows = []
    for part in reference.sources:
        index = part.get("index", ":")
        name = part["name"] if index == ":" else f"{part['name']}@{index}"
        new = f", only what was new at {part['only_new']:g} nats" if "only_new" in part else ""
        rows.append(("source", f"{name}: {part['n_frames']:,} frames, {part['n_environments']:,} environments{new}"))
    return rows
