"""The course of ``quests-zenn outliers``. Imported only when it really runs."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import click
import numpy as np

from quests_zenn._core.checks import DataError
from quests_zenn._core.parallel import resolve_jobs
from quests_zenn._core.remote import Remote
from quests_zenn.cli import _known, _options, _tell
from quests_zenn.cli._source import SCORED, Source, check_outputs, known
from quests_zenn.descriptors import Environments, element_symbols
from quests_zenn.io import plots_novel
from quests_zenn.io.frames import stem
from quests_zenn.uq import Reference
from quests_zenn.uq.outliers import Outliers, find_outliers

#: Frames that a table lists.
MOST_FRAMES = 5

SCOPE = "all other groups of frames"


class _Marked(Source):
    """A source that also notes what frames say of themselves under one key."""

    def __init__(self, files: tuple[str, ...], options: dict[str, Any]) -> None:
        super().__init__(files, options)
        self.mark: str | None = options["mark"]
        self.marks: list[str] = []
        self.without_mark = ""

    def _note(self, label: str, atoms: Any) -> None:
        super()._note(label, atoms)
        if self.mark is not None:
            value = atoms.info.get(self.mark)
            if value is None and not self.without_mark:
                self.without_mark = f"{label}: no key {self.mark!r} (its info holds {known(atoms)})"
            self.marks.append("(none)" if value is None else str(value))

    def describe(self, remote: Remote | None = None) -> Environments:
        env = super().describe(remote)
        if self.without_mark and set(self.marks) == {"(none)"}:
            raise DataError(f"{self.without_mark}; nor has any other frame")
        return env


def rank(files: tuple[str, ...], options: dict[str, Any]) -> None:
    """Atoms in the order of their leave-out dH, with reasons."""
    check_outputs(files, options, output=SCORED)
    times = _tell.Times()
    jobs = resolve_jobs(options["jobs"])
    source: _Marked | None = None
    if any(map(_known.is_saved, files)):
        reference, labels, origin = _saved(files, options, times)
    else:
        source = _Marked(files, options)
        if len(source.requested) > 1:
            raise DataError("this command takes one --bandwidth, got several")
        source.warm_up()
        env = source.describe()
        for name, seconds in source.seconds.items():
            times.seconds[name] = times.seconds.get(name, 0.0) + seconds
        _options.Interrupts.raise_if_pending()
        (h,), (origin,) = source.bandwidths()
        groups = None if options["by"] is None else source.frame_groups()[0]
        reference = Reference.from_environments(env, h, groups, source.provenance())
        labels = source.labels
    among = None if source is None else source.chosen
    found = times.step(
        "sums",
        lambda: find_outliers(
            reference, options["number"], among=among, one_per_frame=options["one_per_frame"], jobs=jobs
        ),
    )
    _options.Interrupts.raise_if_pending()
    asked = np.arange(len(reference)) if among is None else among
    if options["output"]:
        assert source is not None
        dh = found.dh if among is None else found.dh[among]
        scope = f"{SCOPE} (by {options['by'] or 'frame'}, copies merged)"
        times.step("writing", lambda: source.write_scored(dh, None, reference.bandwidth, scope))
    if options["plot_file"]:
        _plot(files, options, found, source, labels, asked)
    names = None if source is None or options["by"] is None else source.frame_groups()
    document = {
        **reference.parameters, "bandwidth_source": origin, "by": options["by"],
        "n_environments": len(asked), "n_frames": reference.n_frames, "elements": list(reference.elements),
        "select": options["select"], "n_groups": len(np.unique(found.groups)),
        "n_copies": int(np.count_nonzero(~found.first_copy)),
        "scope": {"dH": SCOPE, "outliers.dh": SCOPE, "frames.mean_dh": SCOPE, "frames.max_dh": SCOPE},
        "quantiles": _quantiles(found.dh[asked]),
        "outliers": [
            {"rank": place, **asdict(item), "label": labels[item.frame], "mark": _mark(source, item.frame),
             "nearest_label": labels[item.nearest_frame] if item.nearest_frame >= 0 else None}
            for place, item in enumerate(found.atoms, start=1)
        ],
        "frames": [
            {"index": f, "label": label, "mean_dh": found.mean[f], "max_dh": found.max[f], "mark": _mark(source, f),
             "group": int(found.groups[f]) if names is None else names[1][names[0][f]],
             "copy": not found.first_copy[f]}
            for f, label in enumerate(labels)
        ],
    }  # fmt: skip
    _tell.write_document("outliers", files, options, document, times, jobs)
    if options["quiet"]:
        return
    _tell.rows([*_rows(reference, found, options, source, origin, len(asked)), times.row(jobs)])
    _list_atoms(found, labels, source)
    _list_frames(found, labels, source)
    if source is not None:
        source.warn()


def _saved(files: tuple[str, ...], options: dict[str, Any], times: _tell.Times) -> tuple[Reference, list[str], str]:
    """A reference in place of frames, and names of its frames."""
    told = _known.open_known(files, options, by=options["by"], times=times)
    for name in ("output", "select", "mark"):
        if options[name] is not None:
            raise DataError(f"{files[0]}: a reference holds environments and no frames; leave out --{name}")
    return told.reference, _known.frame_names(told.reference), told.bandwidth_source


def _quantiles(dh: np.ndarray) -> dict[str, float]:
    shares = (0.5, 0.95, 0.99, 1.0)
    return dict(zip(map(str, shares), np.quantile(dh, shares, method="lower").tolist(), strict=True))


def _mark(source: _Marked | None, frame: int) -> str | None:
    return source.marks[frame] if source is not None and source.marks else None


def _rows(
    reference: Reference, found: Outliers, options: dict[str, Any], source: _Marked | None, origin: str, n: int
) -> list[tuple[str, str]]:
    n_groups, n_copies = len(np.unique(found.groups)), int((~found.first_copy).sum())
    copies = f"; {n_copies:,} {'frame is a copy' if n_copies == 1 else 'frames are copies'} of others"
    chosen = f" ({options['select']})" if options["select"] else ""
    quantiles = list(
        _quantiles(found.dh if source is None or source.chosen is None else found.dh[source.chosen]).values()
    )
    half, most, nearly, top = quantiles
    return [
        ("frames", f"{reference.n_frames:,} in {n_groups:,} groups{copies if n_copies else ''}"),
        ("environments", f"{n:,}{chosen}"),
        ("elements", " ".join(reference.elements)),
        ("descriptor", f"k = {reference.k}, cutoff {reference.cutoff:g} Å, species {reference.species}"),
        ("bandwidth", f"{reference.bandwidth:.5g} 1/Å ({origin})"),
        ("dH", f"given all other groups: half below {half:.4f}, 95% below {most:.4f}, 99% below {nearly:.4f}, "
               f"largest {top:.4f} nats"),
    ]  # fmt: skip


def _list_atoms(found: Outliers, labels: list[str], source: _Marked | None) -> None:
    h = found.reference.bandwidth

    def place(frame: int, atom: int, element: str) -> str:
        mark = _mark(source, frame)
        return f"{element} {atom} of {stem(labels[frame])}" + (f" ({mark})" if mark else "")

    names = [place(item.frame, item.atom, item.element) for item in found.atoms]
    width = max(map(len, names)) + 2
    click.echo(f"\n{'rank':>5}{'dH':>12}  {'atom':{width}}nearest environment of another group")
    for number, (item, name) in enumerate(zip(found.atoms, names, strict=True), start=1):
        there = ""
        if item.nearest_row >= 0:
            there = place(item.nearest_frame, item.nearest_atom, item.nearest_element)
            there += f", at {item.distance:.4f} 1/Å = {item.distance / h:.1f} h"
        click.echo(f"{number:5d}{item.dh:12.4f}  {name:{width}}{there}".rstrip())
        click.echo(f"{'':19}{item.reason}")


def _list_frames(found: Outliers, labels: list[str], source: _Marked | None) -> None:
    click.echo(f"\n{'rank':>5}{'mean dH':>12}{'largest':>12}  frame")
    for number, frame in enumerate(found.frame_order[:MOST_FRAMES].tolist(), start=1):
        mark = _mark(source, frame)
        told = f"  {stem(labels[frame])}" + (f" ({mark})" if mark else "")
        click.echo(f"{number:5d}{found.mean[frame]:12.4f}{found.max[frame]:12.4f}{told}")


def _plot(
    files: tuple[str, ...], options: dict[str, Any], found: Outliers, source: _Marked | None, labels: list[str],
    asked: np.ndarray,
) -> None:  # fmt: skip
    reference = found.reference
    owner = np.repeat(np.arange(reference.n_frames), np.diff(reference.frame_offsets))
    numbers = np.unique(reference.numbers)
    classes, names = (
        np.searchsorted(numbers, reference.numbers),
        [element_symbols(numbers[i : i + 1])[0] for i in range(len(numbers))],
    )
    what = "element"
    if source is not None and source.marks:
        names = list(dict.fromkeys(source.marks))
        classes, what = np.array([names.index(mark) for mark in source.marks])[owner], options["mark"]
    elif source is not None and options["by"] not in (None, "frame"):
        codes, names = source.frame_groups()
        classes, what = codes[owner], options["by"]
        names = [stem(name) for name in names] if options["by"] == "file" else names
    counted = asked[found.first_copy[owner[asked]]]
    finite = counted[np.isfinite(found.dh[counted])]
    if len(finite) == 0:
        raise DataError(
            f"{', '.join(files)}: dH is infinite everywhere (no group knows an element of another): no plot"
        )
    n_infinite = len(counted) - len(finite)
    if n_infinite:
        _tell.warn(f"the plot leaves out {n_infinite:,} environments with infinite dH")
    order = np.sort(found.dh[finite])[::-1]
    marks: list[tuple[int, float, str]] = []
    seen = set()
    for item in found.atoms:  # one name for each frame, and only a few
        if len(marks) < MOST_FRAMES and item.frame not in seen and np.isfinite(item.dh):
            seen.add(item.frame)
            rank_ = int(np.searchsorted(-order, -item.dh)) + 1
            marks.append(
                (rank_, item.dh, f"{item.element} {item.atom}, {stem(labels[item.frame]).rpartition(', ')[2]}")
            )
    plots_novel.plot_ranking(
        options["plot_file"], dh=found.dh[finite], classes=classes[finite], names=names, what=what, marks=marks,
        title=", ".join(map(stem, files[:3])), overwrite=options["overwrite"],
    )  # fmt: skip
