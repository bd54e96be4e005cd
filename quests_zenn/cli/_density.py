"""The course of the commands about densities. Imported only when one of them really runs."""

from __future__ import annotations

import math
from typing import Any

import click
import numpy as np

from quests_zenn import entropy as room
from quests_zenn._core.checks import DataError, bandwidth_list, whole_number
from quests_zenn._core.parallel import Workers
from quests_zenn._core.progress import progress_bar
from quests_zenn.cli import _known, _options, _tell
from quests_zenn.cli._backend import Backend, kept
from quests_zenn.cli._run import MOST_COLUMNS, group_document, print_groups, short_names, warn_of_blocks
from quests_zenn.cli._source import SCORED, Source, check_outputs, with_stores
from quests_zenn.cli._tell import warn
from quests_zenn.io import plots
from quests_zenn.io.frames import read_atoms, split_index, stem
from quests_zenn.io.store import open_store
from quests_zenn.io.store_form import is_store


def _open(files: tuple[str, ...], options: dict[str, Any], times: _tell.Times, volumes: bool | None = None) -> Source:
    """Files read and described."""
    source = Source(files, options, volumes)
    if len(source.requested) > 1:
        raise DataError("this command takes one --bandwidth, got several")
    source.warm_up()
    source.describe()
    for name, seconds in source.seconds.items():
        times.seconds[name] = times.seconds.get(name, 0.0) + seconds
    _options.Interrupts.raise_if_pending()
    return source


def _one_bandwidth(source: Source) -> tuple[float, str]:
    values, sources = source.bandwidths()
    return values[0], sources[0]


def _bandwidth_row(h: float, origin: str) -> tuple[str, str]:
    return "bandwidth", f"{h:.5g} 1/Å ({origin})"


def _finish(
    command: str, source: Source, options: dict[str, Any], found: dict[str, Any], times: _tell.Times,
    rows: list[tuple[str, str]], backend: Backend | None = None,
) -> bool:  # fmt: skip
    """Write the document, print the table; whether more may be printed."""
    _options.Interrupts.raise_if_pending()
    document = found | source.parameters()
    jobs = source.jobs if backend is None else backend.n_workers
    _tell.write_document(command, source.files, options, document, times, jobs)
    if options["quiet"]:
        return False
    _tell.rows([*source.rows(), *rows, times.row(jobs if backend is None else backend.told)])
    return True


# ---------------------------------------------------------------------- dh


def dh(files: tuple[str, ...], options: dict[str, Any]) -> None:
    """dH of atoms given a reference."""
    if not math.isfinite(options["eps"]):
        raise DataError(f"--eps must be finite, got {options['eps']}")
    backend = Backend(options)
    references: tuple[str, ...] = options["reference"]
    check_outputs((*files, *references), options, output=SCORED)
    times = _tell.Times()
    known: Source | _known.Saved
    atom_thresholds: dict[float, float] = {}  # of a saved reference, by their rates of false alarms
    if any(map(_known.is_saved, references)):
        reference = _known.open_reference(references, options, times=times)
        options = with_stores(options | reference.parameters | {"agreed_with": references[0]}, files)
        elements = None if reference.species == "none" else _elements_of(files, options)
        atom_thresholds = {rate: value for (rate, of), value in reference._thresholds.items() if of == "atom"}
        known = _known.Saved(reference, elements or (), options["precision"])
        h, origin = reference.bandwidth, "of the reference"
        elements = None if elements is None else known.elements
    else:
        options = with_stores(options, (*references, *files))
        # both need the same columns
        elements = None if options["species"] == "none" else _elements_of((*files, *references), options)
        known = _open(references, options | {"select": None, "elements": elements, "output": None}, times)
        h, origin = _one_bandwidth(known)
        if origin.startswith("auto"):  # what is asked about may be anything
            origin += " of the reference"
    source = _open(files, options | {"elements": elements}, times, volumes=False)
    y_labels = None if known.centres is None else source.centres
    precision = options["precision"]
    with (
        kept(source.quiet) as keeper,
        backend.workers(times, keeper) as workers,
        progress_bar("kernel sums", "pair", total=len(source.x) * len(known.x), quiet=source.quiet) as advance,
    ):
        found = times.step(
            "sums",
            lambda: room.approx_delta_entropy(
                source.x, known.x, h, estimator=options["estimator"], y_labels=y_labels, x_labels=known.centres,
                random_state=options["seed"], precision=precision, workers=workers, progress=advance,
            ),
        )  # fmt: skip
        values = found.values
        novel = values >= options["eps"]
        if found.estimator == "exact":
            novel = room.is_novel(
                source.x, known.x, h, eps=options["eps"], y_labels=y_labels, x_labels=known.centres,
                precision=precision, workers=workers, dh=values,
            )  # fmt: skip
    if options["plot_file"] and not np.isfinite(values).any():
        raise DataError(
            f"{', '.join(files)}: dH is infinite everywhere (the reference has none of the elements): no plot"
        )
    scope = "the reference: " + ", ".join(references)
    if options["output"]:
        times.step("writing", lambda: source.write_scored(values, found.standard_error, h, scope))
    frames, owner = np.unique(source.owner, return_inverse=True)
    sizes = np.bincount(owner)
    mean = np.bincount(owner, values) / sizes
    largest = np.maximum.reduceat(values, np.flatnonzero(np.diff(owner, prepend=-1)))
    share = np.bincount(owner, novel) / sizes
    if options["plot_file"]:
        finite = values[np.isfinite(values)]
        x = plots.Curve("frame", frames.astype(float))
        plots.plot_scores(
            options["plot_file"], x=x, mean=mean, largest=largest, values=finite, eps=options["eps"],
            title=f"{', '.join(map(stem, files[:3]))} given {', '.join(map(stem, references[:3]))}",
            overwrite=options["overwrite"],
        )  # fmt: skip
    shares = (0.05, 0.5, 0.95, 1.0)
    quantiles = np.quantile(values, shares, method="lower")  # interpolation would fail between infinities
    document = {
        "bandwidth": h,
        "bandwidth_source": origin,
        "references": list(references),
        "n_reference": len(known.x),
        "reference_elements": known.parameters()["elements"],
        "scope": {"dH": scope},
        "mean_dh": values.mean(),
        "quantiles": dict(zip(map(str, shares), quantiles, strict=True)),
        "eps": options["eps"],
        "novelty": novel.mean(),
        "novelty_by_threshold": [
            {"of": "atom", "false_alarm": rate, "threshold": limit, "novelty": (values >= limit).mean()}
            for rate, limit in sorted(atom_thresholds.items())
        ],
        "overlap": 1.0 - novel.mean(),
        "estimator": found.estimator,
        "rms_error": found.rms_error,
    }
    if options["per_frame"]:
        document["frames"] = [
            {
                "index": int(f), "label": source.labels[f], "mean_dh": m, "max_dh": top, "novelty": s,
                "n_environments": int(n),
            }
            for f, m, top, s, n in zip(frames, mean, largest, share, sizes, strict=True)
        ]  # fmt: skip
    low, middle, high, top = quantiles
    rows = [
        ("reference", f"{len(known.x):,} environments ({', '.join(references)})"),
        _bandwidth_row(h, origin),
        ("mean dH", f"{values.mean():.4f} nats" + (", an upper bound" if found.estimator == "knn" else "")),
        ("dH", f"5% below {low:.4f}, half below {middle:.4f}, 95% below {high:.4f}, largest {top:.4f} nats"),
        ("novel", f"{novel.mean():.2%} of the environments (dH >= {options['eps']:g} nats)"),
    ]
    rows += [
        (
            "",
            f"{(values >= limit).mean():.2%} of the environments (dH >= {limit:.4g} nats, which {rate:.3g} of the "
            "reference's own atoms reach)",
        )
        for rate, limit in sorted(atom_thresholds.items())
    ]
    if found.estimator != "exact":
        rows.append(
            ("estimator", f"{found.estimator}; single dH are off by {found.rms_error:.2g} nats (rms, measured)")
        )
    if not _finish("dh", source, options, document, times, rows, backend):
        return
    if options["per_frame"]:
        click.echo(f"\n{'frame':>8}{'envs':>9}{'mean dH':>11}{'largest':>11}{'novel':>9}")
        for f, n, m, t, s in zip(frames, sizes, mean, largest, share, strict=True):
            click.echo(f"{f:8d}{n:9d}{m:11.4f}{t:11.4f}{s:9.1%}")
    source.warn()
    unseen = sorted(set(source.parameters()["elements"]) - set(known.parameters()["elements"]))
    if unseen:
        told = "their dH is infinite" if y_labels is not None else "--species blocks makes them novel"
        warn(f"the reference has never seen {' '.join(unseen)}: {told}")


def _elements_of(files: tuple[str, ...], options: dict[str, Any]) -> list[str]:
    """Elements of all files, so that the same columns mean the same."""
    from ase.data import chemical_symbols

    numbers: set[int] = set()
    for spec in files:
        if is_store(split_index(spec)[0]):
            numbers |= {*open_store(split_index(spec)[0]).present}
            continue
        for _, atoms in read_atoms(spec, options["type_map"]):
            numbers |= set(atoms.numbers.tolist())
    return [chemical_symbols[z] for z in sorted(numbers) if z < len(chemical_symbols)]  # the others are refused later


# ---------------------------------------------------------------------- overlap


def overlap(files: tuple[str, ...], options: dict[str, Any]) -> None:
    """Parts of the data, compared with each other."""
    check_outputs(files, options)
    times = _tell.Times()
    source = _open(files, options, times)
    h, origin = _one_bandwidth(source)
    codes, names = source.groups()
    pairs = len(source.x) * (len(source.x) + 1) // 2
    with progress_bar("kernel sums", "pair", total=pairs, quiet=source.quiet) as advance:
        found = times.step(
            "sums",
            lambda: room.group_matrix(
                source.x, h, groups=codes, labels=source.centres, eps=options["eps"], precision=options["precision"],
                jobs=source.jobs, progress=advance,
            ),
        )  # fmt: skip
    by = options["by"]
    short = short_names(by, names)
    if options["plot_file"]:
        plots.plot_matrices(
            options["plot_file"],
            names=short,
            matrices=[("overlap", found.overlap), ("mean dH (nats)", found.mean_dh)],
            overwrite=options["overwrite"],
        )
    document = {"bandwidth": h, "bandwidth_source": origin, "by": by, "eps": options["eps"]} | group_document(
        found, names
    )
    if _finish("overlap", source, options, document, times, [_bandwidth_row(h, origin)]):
        print_groups(found, by, names)
        if len(short) <= MOST_COLUMNS:
            click.echo(f"\noverlap: share of the row that the column knows (dH < {options['eps']:g} nats)")
            _tell.matrix(short, found.overlap, ".1%")
        if len(short) < 2:
            warn(f"there is only one {by}: nothing to compare it with")
        source.warn()


# ---------------------------------------------------------------------- compare


def compare(first: str, second: str, options: dict[str, Any]) -> None:
    """Entropy difference of two trajectories."""
    check_outputs((first, second), options)
    backend = Backend(options)
    times = _tell.Times()
    options = with_stores(options, (first, second))
    elements = _elements_of((first, second), options) if options["species"] != "none" else None
    sources = [_open((spec,), options | {"elements": elements}, times) for spec in (first, second)]
    (h, origin), (other, _) = (_one_bandwidth(source) for source in sources)
    if h != other:
        h, origin = 0.5 * (h + other), "auto: mean of both files"
    sizes = [np.unique(np.bincount(source.owner, minlength=len(source.lengths))) for source in sources]
    if any(len(size) > 1 for size in sizes) or sizes[0][0] != sizes[1][0]:
        told = " and ".join(" to ".join(map(str, np.unique(size[[0, -1]]))) for size in sizes)
        raise DataError(
            f"{first}, {second}: frames hold {told} atoms; H depends on the number of environments, so that only "
            "frames of one size can be compared (--select takes a part of each)"
        )
    frames = min(len(source.lengths) for source in sources)
    if frames < options["blocks"]:
        raise DataError(
            f"{first}, {second}: {frames} frames cannot be cut into {options['blocks']} blocks; give fewer --blocks"
        )
    states = []
    with (
        kept(options["quiet"]) as keeper,
        backend.workers(times, keeper) as workers,
        progress_bar("kernel sums", "pair", quiet=options["quiet"]) as advance,
    ):
        for source in sources:
            states.append(
                times.step("sums", lambda: _evenly_spaced(source, frames, h, options, workers, advance))  # noqa: B023
            )
    results = [_told(*state) for state in states]
    a, b = results
    difference, gas = b["entropy"] - a["entropy"], room.GAS_CONSTANT
    error = math.hypot(a["error"], b["error"])
    document = {
        "bandwidth": h, "bandwidth_source": origin, "n_frames_each": frames, "a": a, "b": b,
        "delta_entropy": difference, "delta_error": error, "delta_J_per_mol_K": difference * gas,
        "delta_error_J_per_mol_K": error * gas, "blocks": options["blocks"],
    }  # fmt: skip
    if options["plot_file"]:
        plots.plot_lines(
            options["plot_file"],
            [
                (f"{letter} {stem(spec)}", np.arange(frames), state.frame_dh, None)
                for letter, spec, (_, state) in zip("AB", (first, second), states, strict=True)
            ],
            x_label="frame", y_label="mean dH of the frame among all of its file (nats)",
            overwrite=options["overwrite"],
        )  # fmt: skip
    _options.Interrupts.raise_if_pending()
    both = [source.parameters() for source in sources]
    flagged = {name: both[0][name] + both[1][name] for name in ("n_tied", "n_incomplete")}
    elements = sorted({*both[0]["elements"], *both[1]["elements"]})
    found = (
        document | both[0] | flagged | {"elements": elements, "n_environments": a["n_environments"], "n_frames": frames}
    )
    _tell.write_document("compare", (first, second), options, found, times, backend.n_workers)
    if options["quiet"]:
        return
    _tell.rows([sources[0].rows()[2], sources[0].rows()[3], _bandwidth_row(h, origin)])
    names = [f"{letter} {stem(spec)}" for letter, spec in zip("AB", (first, second), strict=True)]
    width = max(14, *(len(name) + 2 for name in names))
    click.echo(f"\n{'':{width}}{'frames':>8}{'envs':>10}{'H':>10}{'error':>9}{'ln N':>9}{'autocorrelation':>17}")
    for name, r in zip(names, results, strict=True):
        click.echo(
            f"{name:<{width}}{frames:8d}{r['n_environments']:10d}{r['entropy']:10.4f}{r['error']:9.4f}"
            f"{math.log(r['n_environments']):9.4f}{r['autocorrelation_time']:10.1f} frames"
        )
    click.echo(f"\nH(B) - H(A)   {difference:.4f} ± {error:.4f} nats = k_B per atom")
    joule = f"{difference * gas:.3f} ± {error * gas:.3f} J/(mol K)"
    click.echo(f"{'':14}{joule}; both depend on h: a stand-in for the configurational entropy")
    _tell.rows([times.row(backend.told)])
    for name, r in zip((first, second), results, strict=True):
        warn_of_blocks(f"{name}: ", r["autocorrelation_time"], frames, options["blocks"])
        if math.log(r["n_environments"]) - r["entropy"] < 0.01 * math.log(r["n_environments"]):
            warn(
                f"{name}: H is within 1% of ln N, and tells no states apart; a wider --bandwidth (try {2 * h:.3g}) can"
            )
    for name, source in zip((first, second), sources, strict=True):
        source.warn(f"{name}: ")
    lengths = [len(source.lengths) for source in sources]
    if lengths[0] != lengths[1]:
        warn(f"{frames} frames of each were used, evenly spaced; the files hold {lengths[0]} and {lengths[1]}")


def _evenly_spaced(
    source: Source, frames: int, h: float, options: dict[str, Any], workers: Workers, advance: Any
) -> tuple[int, room.TrajectoryEntropy]:
    """The entropy of so many evenly spaced frames, and the number of their environments."""
    n = len(source.lengths)
    place = np.full(n, -1)
    place[np.arange(frames) * n // frames] = np.arange(frames)
    keep = place[source.owner] >= 0
    found = room.trajectory_entropy(
        source.x[keep], h, frames=place[source.owner[keep]], blocks=options["blocks"],
        labels=None if source.centres is None else source.centres[keep], estimator=options["estimator"],
        tolerance=options["tolerance"], random_state=options["seed"], precision=options["precision"], workers=workers,
        progress=advance,
    )  # fmt: skip
    return int(keep.sum()), found


def _told(n: int, found: room.TrajectoryEntropy) -> dict[str, Any]:
    """One trajectory, for the document."""
    return {
        "n_environments": n,
        "entropy": found.estimate.value,
        "estimator": found.estimate.estimator,
        "standard_error": found.estimate.standard_error,
        "block_error": found.block_error,
        "error": found.error,
        "autocorrelation_time": found.autocorrelation_time,
        "block_length": found.block_length,
    }


# ---------------------------------------------------------------------- learning-curve


def learning_curve(files: tuple[str, ...], options: dict[str, Any]) -> None:
    """Entropy against the number of environments."""
    check_outputs(files, options)
    times = _tell.Times()
    sizes = None
    if options["sizes"] is not None:
        sizes = [whole_number(part, "a size", 1) for part in _numbers(options["sizes"], "--sizes")]
    source = _open(files, options, times)
    h, origin = _one_bandwidth(source)
    with progress_bar("kernel sums", "pair", quiet=source.quiet) as advance:
        curve = times.step(
            "sums",
            lambda: room.learning_curve(
                source.x, h, sizes, repeats=options["repeats"], groups=source.groups()[0] if options["by"] else None,
                labels=source.centres, random_state=options["seed"], precision=options["precision"], jobs=source.jobs,
                progress=advance,
            ),
        )  # fmt: skip
    try:
        gap = room.information_gap(curve)
    except ValueError:  # too few sizes
        gap = None
    counts = curve.counts.mean(axis=1)
    if options["plot_file"]:
        lines = [("mean of the parts", counts, curve.mean, curve.std), ("ln n", counts, np.log(counts), None)]
        if gap is not None and not gap.reason:
            wide = np.geomspace(counts[0], counts[-1] * 100, 200)
            lines.append(("fit a - b exp(-c ln² n)", wide, gap.predict(wide), None))
        plots.plot_lines(
            options["plot_file"], lines, x_label="environments n", y_label="entropy H (nats)", log_x=True,
            title=", ".join(map(stem, files[:3])), overwrite=options["overwrite"],
        )  # fmt: skip
    document: dict[str, Any] = {
        "bandwidth": h, "bandwidth_source": origin, "by": options["by"], "repeats": options["repeats"],
        "sizes": curve.sizes, "counts": counts, "mean": curve.mean, "std": curve.std, "values": curve.values,
        "information_gap": None,
    }  # fmt: skip
    rows = [_bandwidth_row(h, origin)]
    if gap is not None:
        document["information_gap"] = {
            "gap": gap.gap, "standard_error": gap.standard_error, "limit": gap.limit, "coefficients": gap.coefficients,
            "reason": gap.reason,
        }  # fmt: skip
        told = f"{gap.gap:.3f} ± {gap.standard_error:.3f} nats (H at 1e12 environments: {gap.limit:.3f})"
        if gap.reason:
            told = gap.reason
        elif gap.standard_error > 1.0:
            told = f"not told by these data ({gap.gap:.1f} ± {gap.standard_error:.1f} nats)"
        rows.append(("missing", told))
    else:
        rows.append(("missing", "not told: that takes a curve of at least 4 different sizes"))
    if _finish("learning-curve", source, options, document, times, rows):
        click.echo(f"\n{'n':>10}{'H':>10}{'spread':>9}{'ln n':>10}{'redundancy':>12}")
        for n, value, spread, redundancy in zip(counts, curve.mean, curve.std, curve.redundancy, strict=True):
            click.echo(f"{n:10.0f}{value:10.4f}{spread:9.4f}{math.log(n):10.4f}{redundancy:12.4f}")
        source.warn()


# ---------------------------------------------------------------------- bandwidth


def bandwidth(files: tuple[str, ...], options: dict[str, Any]) -> None:
    """Bandwidth by the likelihood of groups left out."""
    check_outputs(files, options)
    grid = None
    if options["grid"] is not None:
        parts = options["grid"].split(":")
        if len(parts) != 3:
            raise DataError(f"--grid must be of the form 0.003:0.3:15, got {options['grid']!r}")
        low, high = bandwidth_list(parts[:2])
        count = whole_number(_numbers(parts[2], "--grid", 1)[0], "the number of bandwidths of --grid", 2)
        if count > 1000:
            raise DataError(f"--grid may hold 1000 bandwidths at most, got {count}")
        if not low < high:
            raise DataError(f"--grid must ascend, got {options['grid']!r}")
        grid = np.geomspace(low, high, count)
    times = _tell.Times()
    source = _open(files, options, times, volumes=True)
    groups, names = source.groups()
    if len(names) < 2:
        raise DataError(
            f"{', '.join(files)}: all environments belong to one {options['by']}, and none can be left out; "
            "more frames, or another --by"
        )
    with progress_bar("kernel sums", "pair", quiet=source.quiet) as advance:
        found = times.step(
            "sums",
            lambda: room.select_bandwidth(
                source.x, grid, groups, dimension=options["dimension"],
                precision=options["precision"], jobs=source.jobs, progress=advance,
            ),
        )  # fmt: skip
    rule = None
    if not source.without_volume:
        rule = room.get_bandwidth(float(np.average(source.volumes, weights=source.lengths)))
    if options["plot_file"]:
        plots.plot_bandwidths(
            options["plot_file"], found.bandwidths, found.score, found.entropy, best=found.best, rule=rule,
            limit=math.log(found.distinct), title=", ".join(map(stem, files[:3])), overwrite=options["overwrite"],
        )  # fmt: skip
    document = {
        "best": found.best, "at_edge": found.at_edge, "dimension": found.dimension, "n_distinct": found.distinct,
        "by": options["by"], "bandwidths": found.bandwidths, "score": found.score, "entropy": found.entropy,
        "volume_rule": rule,
    }  # fmt: skip
    rows = [
        ("distinct", f"{found.distinct:,} environments; copies within 1e-4 1/Å are dropped"),
        ("dimension", f"{found.dimension:.1f}" + (" (given)" if options["dimension"] else " (intrinsic, TwoNN)")),
        ("best h", f"{found.best:.4g} 1/Å, by the likelihood of each {options['by']} left out"),
        ("volume rule", "no volume per atom" if rule is None else f"{rule:.4g} 1/Å"),
    ]
    if _finish("bandwidth", source, options, document, times, rows):
        click.echo(f"\n{'h (1/Å)':>10}{'H distinct':>12}{'redundancy':>12}{'log likelihood':>16}")
        for h, value, score in zip(found.bandwidths, found.entropy, found.score, strict=True):
            mark = "  <- best of the grid" if score == found.score.max() else ""
            click.echo(f"{h:10.4g}{value:12.4f}{math.log(found.distinct) - value:12.4f}{score:16.4f}{mark}")
        if found.at_edge:
            warn("the best bandwidth is at the edge of the grid: a better one may lie outside; see --grid")
        source.warn()


def _numbers(text: str, name: str, most: int = 1000) -> list[int]:
    """Whole numbers separated by commas."""
    try:
        numbers = [int(part) for part in text.split(",")]
        if len(numbers) > most:
            raise ValueError
        return numbers
    except ValueError:
        raise DataError(f"{name} must be whole numbers separated by commas, got {text!r}") from None
