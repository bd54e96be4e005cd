"""The course of ``quests-zenn compress``. Imported only when it really runs."""

from __future__ import annotations

import math
import time
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import click
import numpy as np

from quests_zenn._core.checks import DataError
from quests_zenn._core.progress import note_if_slow, progress_bar
from quests_zenn.cli import _known, _options, _tell
from quests_zenn.cli._backend import Backend
from quests_zenn.cli._source import SCORED, Source, check_outputs, warn_of_environments
from quests_zenn.cli._structures import Data, Structures, load_environments
from quests_zenn.cli._tell import warn
from quests_zenn.compression import ORDERED, Curve, DatasetCompressor, Selection, Size
from quests_zenn.compression.compressor import EXACT_UP_TO
from quests_zenn.descriptors import describe, element_symbols
from quests_zenn.descriptors._layout import relayout
from quests_zenn.entropy import is_novel
from quests_zenn.io.frames import Frame, read_atoms, split_index, stem
from quests_zenn.io.outputs import check_output, write_chosen
from quests_zenn.io.plots_compress import plot_compression
from quests_zenn.io.store_form import ENDING, is_store

#: Endings of what `quests-zenn descriptors` writes, with all that is known of the environments.
STORED = (".npz", ENDING)

#: Groups that the table lists.
MOST_LISTED = 20

#: Environments on which the time of a run is measured.
MEASURED = 16_384

#: Frames whose environments are computed once more, where they come from a file.
COMPARED = 22

#: Share of the environments from which on a reference is said to cover them.
WELL_KNOWN = 0.99

#: 1/Å by which environments of the same frame may differ from those in a file, which may be in single precision.
_SAME = 1e-4


class CompressRun:
    """One run, from the names of files to what is kept of them."""

    def __init__(self, files: tuple[str, ...], options: dict[str, Any]) -> None:
        self.files, self.options = files, options
        self.backend = Backend(options)
        self.jobs = self.backend.jobs
        self.quiet: bool = options["quiet"]
        self.times = _tell.Times()
        self.method: str = options["method"] or ("msc_conditional" if options["reference"] else "msc")
        self.size = _size(options)
        self._check_usage()
        self.environments = self._file_of_environments()  # name of a .npz file, or None
        more = (self.environments,) if self.environments and not self.bare else ()
        inputs = (*files, *options["reference"], *more)
        output: str | None = options["output"]
        if output and not output.removesuffix(".gz").endswith(SCORED):
            raise DataError(
                f"{output}: the structures chosen are written as extended XYZ; its name must end in .xyz, .extxyz or "
                ".xyz.gz"
            )
        check_outputs(inputs, options, output=SCORED)
        keeper = output or options["json_file"]
        self.state = None if keeper is None else Path(f"{keeper}.progress.npz")
        self._check_state(inputs)
        self.written = False

    # --- before the work ----------------------------------------------------------------------------------------------

    def _check_usage(self) -> None:
        options, kind, method = self.options, self.size.kind, self.method
        for name, needed in (("balance", "by"), ("plot_seeds", "plot_file"), ("sort", "output")):
            if _known.was_given(name) and options[needed] is None:
                told = {"plot_file": "plot"}.get(needed, needed)
                raise click.UsageError(f"--{name.replace('_', '-')} belongs to --{told}")
        if method not in ORDERED:
            if kind in ("auto", "overlap", "max_loss"):
                raise click.UsageError(
                    f"--method {method} puts structures in no order, which --{_option_of(self.size)} needs; give a "
                    "number"
                )
            if options["weight"] is not None:
                raise click.UsageError(f"--method {method} knows no weights; leave out --weight")
        if options["reference"] and not method.startswith("msc"):
            raise click.UsageError(f"--method {method} knows no reference; msc_conditional does")
        if method == "msc_conditional" and not options["reference"]:
            raise click.UsageError("--method msc_conditional needs a --reference")
        if kind == "cost" and options["cost"] is None:
            raise click.UsageError(f"--size {self.size} is a budget, which needs --cost atoms, electrons, or a key")
        if options["chunk"] is not None and kind in ("auto", "overlap", "max_loss"):
            raise click.UsageError(f"--chunk does not go with --{_option_of(self.size)}; give a number")
        if self.backend.name != "threads" and options["chunk"] is None:
            option = "--scheduler" if options["scheduler"] else "--backend dask"
            raise click.UsageError(
                f"{option} is for --chunk: without it, each structure that is chosen depends on those before, and one "
                "process is faster"
            )
        if options["dry_run"] and options["reference"]:
            raise click.UsageError("--dry-run knows no --reference; leave it out for a first idea")
        if options["by"] == "frame":
            raise click.UsageError("--by frame would make each structure a group of its own")
        if len({value for group in options["bandwidths"] for value in group}) > 1:
            raise DataError("this command takes one --bandwidth, got several")

    def _check_state(self, inputs: Sequence[str]) -> None:
        """Refuse a place for the state that something else has."""
        if self.state is None:
            return
        place = check_output(self.state, overwrite=True).resolve()
        others = [self.options[name] for name in ("output", "json_file", "plot_file") if self.options[name]]
        for name in (*others, *(split_index(spec)[0] for spec in inputs)):
            if Path(name).resolve() == place:
                raise DataError(f"{name}: is where this run notes down how far it has come; choose another name")

    @property
    def bare(self) -> bool:
        """Whether there are environments and no frames."""
        return any(name.endswith((*STORED, ".npy")) for name in self.files)

    def _file_of_environments(self) -> str | None:
        options = self.options
        if not self.bare:
            return options["descriptors"]  # type: ignore[no-any-return]
        name = next(name for name in self.files if name.endswith((*STORED, ".npy")))
        if len(self.files) > 1:
            raise DataError(f"{name}: a file of environments stands alone, got {len(self.files)} files")
        if options["descriptors"] is not None:
            raise DataError(f"{name}: is a file of environments already; leave out --descriptors, or name the frames")
        needs = [option for option in ("output", "keep", "by", "weight", "type_map") if options[option]]
        if options["cost"] not in (None, "atoms", "electrons"):
            needs.append("cost")
        if needs:
            told = needs[0].replace("_", "-")
            raise DataError(
                f"{name}: holds environments and no frames, which --{told} needs; name the frames, and this file with "
                "--descriptors"
            )
        auto = any(value == "auto" for group in options["bandwidths"] for value in group)
        if auto and not options["reference"] and not is_store(name):
            raise DataError(f"{name}: holds environments and no volumes, which --bandwidth auto needs; give a number")
        return name

    # --- the data -----------------------------------------------------------------------------------------------------

    def _open(self) -> None:
        """Read and describe everything: `data`, `reference` with `reference_x`, and `bandwidth`."""
        options, times = self.options, self.times
        stored, name = None, self.environments
        if name is not None:
            stored = times.step("reading", lambda: load_environments(name))
            options = options | self._agreed(stored)
        self.reference = None
        if options["reference"]:
            self.reference = _known.open_known(options["reference"], options, times=times)
            made = self.reference.reference.parameters
            if stored is not None:
                for key in ("k", "cutoff", "species"):
                    if made[key] != getattr(stored, key):
                        raise DataError(
                            f"{name}: was made with {key} {getattr(stored, key)}, and the reference with {made[key]}; "
                            "both need the same"
                        )
            options = options | {key: made[key] for key in ("k", "cutoff", "species")}
        self.data = self._data(stored, options)
        if self.reference is not None:
            self.bandwidth, self.bandwidth_source = self.reference.reference.bandwidth, self.reference.bandwidth_source
        elif self.data.source is not None:
            (self.bandwidth,), (self.bandwidth_source,) = self.data.source.bandwidths()
        else:
            source = Source(self.files, options)
            source.open_rows()  # a store knows volumes
            (self.bandwidth,), (self.bandwidth_source,) = source.bandwidths()
        self._share_layout()

    def _agreed(self, stored: Data) -> dict[str, Any]:
        """k, cutoff and species of a file; refused where the user gave others."""
        for name in ("k", "cutoff", "species"):
            if _known.was_given(name) and self.options[name] != getattr(stored, name):
                raise DataError(
                    f"{self.environments}: was made with {name} {getattr(stored, name)}, and --{name} "
                    f"{self.options[name]} asks for another; leave the option out, or make the file again"
                )
        return {name: getattr(stored, name) for name in ("k", "cutoff", "species")}

    def _data(self, stored: Data | None, options: dict[str, Any]) -> Data:
        if self.bare:
            assert stored is not None
            return stored
        # a bandwidth of the reference needs no volumes of these frames
        source = Structures(self.files, options, volumes=False if self.reference is not None else None)
        if stored is None:
            source.warm_up()
            env = source.describe()
            data = Data(
                env.x, env.frame_offsets, env.numbers, source.labels, env.elements, env.k, env.cutoff, env.species,
                source,
            )  # fmt: skip
        else:
            self._compare(stored, source)
            data = stored
            data.source, data.labels = source, source.labels
        for name, seconds in source.seconds.items():
            self.times.seconds[name] = self.times.seconds.get(name, 0.0) + seconds
        _options.Interrupts.raise_if_pending()
        return data

    def _compare(self, stored: Data, source: Source) -> None:
        """Refuse environments that are not those of the frames: by all atoms, and by computing some anew."""
        name, there, here = self.environments, stored.sizes.tolist(), source.lengths
        starts = stored.offsets.tolist()
        some = set(np.linspace(0, len(there) - 1, COMPARED).astype(int).tolist())  # with the first and the last
        unlike: Frame | None = None
        kept: list[tuple[int, Frame]] = []
        for number, frame in enumerate(source.stream()):
            if number >= len(there) or unlike is not None:
                continue  # all are counted, for a clear word about their number
            if len(frame) == there[number]:
                if not np.array_equal(frame.numbers, stored.numbers[starts[number] : starts[number + 1]]):
                    unlike = frame
                elif number in some:
                    kept.append((number, frame))
        if len(there) != len(here):
            raise DataError(f"{name}: holds {len(there):,} frames, and {_names(self.files)} {len(here):,}")
        for number, label in enumerate(source.labels):
            if there[number] != here[number]:
                raise DataError(
                    f"{label}: has {here[number]} atoms, and {name} {there[number]} environments of it; all atoms of "
                    "the same frames are needed"
                )
        elements = stored.elements if stored.species != "none" else None
        for number, frame in kept if unlike is None else ():
            _options.Interrupts.raise_if_pending()
            env = describe([frame], stored.k, stored.cutoff, stored.species, elements=elements, jobs=1)
            rows = stored.x[starts[number] : starts[number + 1]]
            if env.x.shape != rows.shape or not np.abs(env.x - rows).max() < _SAME:
                unlike = frame
                break
        if unlike is not None:
            raise DataError(f"{name}: its environments are not those of {unlike.label}; make the file again")

    def _share_layout(self) -> None:
        """The same columns for the data set and the reference."""
        data = self.data
        self.centres = None if data.species == "none" else data.numbers
        self.reference_x = None
        if self.reference is None:
            return
        given = self.reference.reference
        if not given.tells_centres:
            self.centres = None
        if data.species == "none":
            self.reference_x = given.x
            return
        elements = sorted({*data.elements, *given.elements})
        data.x = relayout(data.x, data.elements, elements, data.species, data.k)
        self.reference_x = relayout(given.x, given.elements, elements, data.species, data.k)
        data.elements = tuple(elements)

    def _compressor(self, data: Data, members: slice = slice(None)) -> DatasetCompressor:
        """The data set, or its first structures, with what they weigh and cost."""
        weights: Any = None
        costs: Any = None
        if data.source is not None:
            weights, costs = data.source.weights or None, data.source.costs or None
        elif self.options["cost"] == "atoms":
            costs = data.sizes
        elif self.options["cost"] == "electrons":
            costs = np.add.reduceat(data.numbers, data.offsets[:-1])
        sizes = data.sizes[members]
        rows = slice(0, int(sizes.sum()))
        return DatasetCompressor.from_environments(
            data.x[rows], np.concatenate([[0], np.cumsum(sizes)]), self.bandwidth,
            labels=None if self.centres is None else self.centres[rows],
            weights=None if weights is None else weights[members], costs=None if costs is None else costs[members],
            jobs=self.jobs,
        )  # fmt: skip

    def _warm_up(self) -> None:
        """Load the compiled kernels of selections."""
        with note_if_slow("compiling kernels (first run on this machine only) ...", 2.0, self.quiet):
            tiny = DatasetCompressor.from_environments(np.array([[0.0], [1.0], [3.0]]), [0, 1, 2, 3], jobs=1)
            tiny.get_curve(tiny.get_indices("fps" if self.method == "fps" else "msc", 1.0))

    # --- the work -----------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Choose, write, tell."""
        options, times = self.options, self.times
        with self._can_go_on():
            self._open()
            times.step("loading", self._warm_up)
            self.compressor = self._compressor(self.data)
            source = self.data.source
            self.pinned = np.empty(0, np.int64) if source is None else source.pinned()
            self.groups: np.ndarray | None = None
            if options["by"] is not None:
                assert source is not None
                self.groups, self.group_names = source.frame_groups()
            self.found = times.step("selection", self._select)
            if not len(self.found) and self.size.kind in ("structures", "environments", "cost"):
                raise self._nothing_fits()
            if options["output"] and len(self.found):
                times.step("writing", self._write)
                self.written = True
            times.step("curve", self._measure)
            _options.Interrupts.raise_if_pending()
            _tell.write_document("compress", self.files, options, self._document(), times, self.backend.n_workers)
            if options["plot_file"] and len(self.found):
                self._plot()
            if self.state is not None:
                self.state.unlink(missing_ok=True)
        if not self.quiet:
            self._table()
            self._warn()

    @contextmanager
    def _can_go_on(self) -> Iterator[None]:
        """Say after Ctrl-C what is finished, or whether the same command goes on where it was."""
        try:
            yield
        except BaseException as error:
            interrupted = _options.Interrupts.pending or isinstance(error, KeyboardInterrupt)
            if self.written and self.state is not None:
                self.state.unlink(missing_ok=True)  # what it was kept for is there
                if interrupted:
                    _options.stop_for_now(f"{self.options['output']} is written, the curve was not finished")
                raise
            if not interrupted or self.state is None or not self.state.exists():
                raise
            _options.stop_for_now()

    def _nothing_fits(self) -> DataError:
        """Why nothing was chosen, for want of a structure that is small enough."""
        compressor, cost = self.compressor, self.options["cost"]
        if self.state is not None:
            self.state.unlink(missing_ok=True)
        if self.size.kind == "cost" and compressor.costs is not None:
            unit = f" {cost}" if cost in ("atoms", "electrons") else f" ({cost})"
            least = f"the cheapest costs {_amount(float(compressor.costs.min()))}{unit}"
        else:
            least = f"the smallest has {_count(int(compressor.sizes.min()), 'environment')}"
        return DataError(f"--size {self.size} is too little for any structure: {least}")

    def _options(self, random: bool = False) -> dict[str, Any]:
        """What a selection, or the random one beside it, is asked for."""
        asked: dict[str, Any] = {
            "keep": self.pinned, "by": self.groups, "balance": self.options["balance"],
        }  # fmt: skip
        if not random and self.reference is not None:
            asked |= self._known()
        return asked

    def _known(self) -> dict[str, Any]:
        """The reference, as the library takes it."""
        if self.reference is None:
            return {}
        return {"reference": self.reference_x, "reference_labels": self.reference.reference.numbers}

    def _select(self) -> Selection:
        before = "" if self.state is None else _left(self.state)
        total = None
        if self.size.kind == "structures" and self.options["chunk"] is None:  # chunks hand on more than that
            total = int(self.size.of(len(self.data.labels)))
        with progress_bar("selection", "structure", total=total, quiet=self.quiet) as advance:

            def announce() -> None:
                nonlocal before
                if before and not self.quiet:
                    click.echo(f"going on after {before}", err=True)
                before = ""

            def progress(done: int) -> None:
                _options.Interrupts.raise_if_pending()
                announce()
                advance(done)

            with self.backend.workers(self.times) as workers:
                found = self.compressor.select(
                    self.method, self.size, random_state=self.options["seed"], chunk=self.options["chunk"],
                    checkpoint=self.state, keep_checkpoint=True, progress=progress, remote=workers.remote,
                    **self._options(),
                )  # fmt: skip
            announce()
        _options.Interrupts.raise_if_pending()
        return found

    def _measure(self) -> None:
        """What the selection holds, and random ones beside it: `metrics`, `curve` and `random`."""
        options, compressor, found, data = self.options, self.compressor, self.found, self.data
        whole = compressor.whole
        self.reference_overlap = None
        if self.reference is not None and self.reference_x is not None:
            novel = is_novel(
                data.x, self.reference_x, self.bandwidth, y_labels=self.centres,
                x_labels=None if self.centres is None else self.reference.reference.numbers, jobs=self.jobs,
            )  # fmt: skip
            self.reference_overlap = 1.0 - float(novel.mean())
        self.curve: Curve | None = None
        self.random: list[tuple[int, Curve]] = []
        n_chosen = int(compressor.sizes[found.indices].sum())
        wanted = options["json_file"] or options["plot_file"]
        with progress_bar("curves", "pair", quiet=self.quiet) as advance:

            def progress(done: int) -> None:
                _options.Interrupts.raise_if_pending()
                advance(done)

            if len(found):
                # without an order, beginnings mean nothing
                sizes = None if wanted and self.method in ORDERED else [len(found)]
                self.curve = compressor.get_curve(found.indices, sizes, progress=progress, **self._known())
            if options["plot_file"] and len(found):
                for seed in range(options["seed"] + 1, options["seed"] + 1 + options["plot_seeds"]):
                    order = compressor.get_indices(
                        "random", Size("environments", n_chosen), random_state=seed, **self._options(random=True)
                    )
                    curve = compressor.get_curve(order, progress=progress, **self._known())
                    self.random.append((seed, curve))
        last = self.curve
        self.metrics: dict[str, Any] = {
            "entropy": None if last is None else float(last.entropy[-1]),
            "diversity": None if last is None else float(last.diversity[-1]),
            "overlap": (self.reference_overlap or 0.0) if last is None else float(last.overlap[-1]),
            "loss": None if last is None else float(whole.diversity) - float(last.diversity[-1]),
            "loss_error": float(whole.diversity_error),
            "original_entropy": float(whole.value),
            "original_diversity": float(whole.diversity),
            "original_size": len(data.labels),
            "compressed_size": len(found),
            "original_envs": len(data.x),
            "compressed_envs": n_chosen,
        }

    # --- after the work -----------------------------------------------------------------------------------------------

    def _write(self) -> None:
        """The frames that were chosen, read once more, with all that they carry."""
        options, source, found = self.options, self.data.source, self.found
        assert source is not None
        notes: dict[int, dict[str, Any]] = {}
        for order, (index, score) in enumerate(zip(found.indices.tolist(), found.scores.tolist(), strict=True)):
            notes[index] = {
                "selection_order": order,
                "selection_score": score if math.isfinite(score) else None,
                "selection_index": index,
                "selection_source": source.labels[index].rpartition("/")[2],
                "selection_method": self.method,
            }
        frames = (item for spec in self.files for item in read_atoms(spec, options["type_map"]))
        write_chosen(
            options["output"], frames, notes, source.marks, options["overwrite"],
            in_order=options["sort"] == "selection",
        )  # fmt: skip

    def _plot(self) -> None:
        assert self.curve is not None
        title = _titles(self.files)
        if self.reference is not None:
            title += f" given {_titles(self.reference.names)}"
        plot_compression(
            self.options["plot_file"], curve=_columns(self.curve), method=self.method,
            random=[_columns(curve) for _, curve in self.random], entropy=self.metrics["original_entropy"],
            diversity=self.metrics["original_diversity"], by_structures=len(set(self.data.sizes.tolist())) == 1,
            title=title, overwrite=self.options["overwrite"],
        )  # fmt: skip

    def _counts(self) -> dict[str, Any] | None:
        """Structures and environments of each group, and how many were chosen."""
        if self.groups is None:
            return None
        chosen, sizes, n = self.found.indices, self.data.sizes, len(self.group_names)
        return {
            "names": self.group_names,
            "n_frames": np.bincount(self.groups, minlength=n),
            "n_frames_chosen": np.bincount(self.groups[chosen], minlength=n),
            "n_environments": np.bincount(self.groups, sizes, n).astype(int),
            "n_environments_chosen": np.bincount(self.groups[chosen], sizes[chosen], n).astype(int),
        }

    def _document(self) -> dict[str, Any]:
        options, found = self.options, self.found
        costs = self.compressor.costs
        return {
            **(self.reference.parameters() if self.reference is not None else {}),
            **self.data.parameters(),
            "bandwidth": self.bandwidth, "bandwidth_source": self.bandwidth_source,
            "method": self.method, "size": str(self.size), "size_kind": self.size.kind,
            "keep": [f"{key}={value}" for key, value in options["keep"]], "by": options["by"],
            "balance": options["balance"] if options["by"] else None, "weight": options["weight"],
            "cost": options["cost"], "chunk": options["chunk"], "descriptors": options["descriptors"],
            "reference_overlap": self.reference_overlap,
            "scope": {"scores": "the structures chosen before" + (" and the reference" if self.reference else "")},
            "indices": found.indices, "labels": [self.data.labels[index] for index in found.indices],
            "scores": found.scores, "n_kept": found.n_kept, "n_candidates": found.n_candidates, "stop": found.stop,
            "total_cost": None if costs is None else costs[found.indices].sum(),
            "metrics": self.metrics,
            "curve": None if self.curve is None else _columns(self.curve),
            "random": [{"seed": seed, **_columns(curve)} for seed, curve in self.random],
            "groups": self._counts(),
            "output": options["output"] if len(found) else None,
        }  # fmt: skip

    def _table(self) -> None:
        options, found, data, metrics = self.options, self.found, self.data, self.metrics
        n, m, whole = len(found), metrics["compressed_envs"], self.compressor.whole
        several = f" in {len(self.files)} files" if len(self.files) > 1 else ""
        asked = {
            "overlap": f"as few as cover {self.size.value:g} of all environments",
            "max_loss": f"as few as lose {self.size.value:g} nats of D",
        }.get(self.size.kind, f"size {self.size}" + ("" if _known.was_given("size") else " (default)"))
        chunks = f", in chunks of {options['chunk']:,}" if options["chunk"] else ""
        rows = [
            ("structures", f"{len(data.labels):,}{several}"),
            ("environments", f"{len(data.x):,}" + (f" ({self.environments})" if self.environments else "")),
            ("elements", " ".join(element_symbols(data.numbers))),
            ("descriptor", f"k = {data.k}, cutoff {data.cutoff:g} Å, species {data.species}"),
        ]
        if self.reference is not None:
            rows.append(self.reference.rows()[0])
        rows += [
            ("bandwidth", f"{self.bandwidth:.5g} 1/Å ({self.bandwidth_source})"),
            ("method", f"{self.method}, {asked}{chunks}"),
        ]
        if found.n_candidates is not None:
            rows.append(("candidates", f"{found.n_candidates:,} structures, handed on by the chunks"))
        rows.append(("ended", found.stop))
        told = f"{_count(n, 'structure')} ({n / len(data.labels):.1%}), {_count(m, 'environment')}"
        kept = f"; {found.n_kept:,} of them by --keep" if found.n_kept else ""
        rows.append(("chosen", f"{told} ({m / len(data.x):.1%}){kept}"))
        costs = self.compressor.costs
        if costs is not None:
            unit = {"atoms": " atoms", "electrons": " electrons"}.get(options["cost"], f" ({options['cost']})")
            rows.append(("cost", f"{_amount(costs[found.indices].sum())} of {_amount(costs.sum())}{unit}"))
        error = float(whole.diversity_error)
        if n:
            rows += [
                ("entropy H", f"{metrics['entropy']:.4f} nats; whole set "
                              f"{_tell.with_error(metrics['original_entropy'], float(whole.standard_error))}"),
                ("diversity D", f"{metrics['diversity']:.4f} nats; whole set "
                                f"{_tell.with_error(metrics['original_diversity'], error)}; "
                                f"loss {_tell.with_error(metrics['loss'], error)}"),
            ]  # fmt: skip
        covered = f"{metrics['overlap']:.2%} of all environments are covered"
        if self.reference_overlap is not None:
            covered += f"; {self.reference_overlap:.2%} by the reference alone"
        rows.append(("overlap", covered))
        if options["output"]:
            nothing = "nothing" if options["json_file"] is None else f"{options['json_file']} only"
            rows.append(("written", f"{options['output']}: {_count(n, 'structure')}" if n else nothing))
        told = _count(self.jobs, "thread") if self.backend.name == "threads" else self.backend.told
        _tell.rows([*rows, self.times.row(told)])
        self._list_groups()

    def _list_groups(self) -> None:
        counts = self._counts()
        if counts is None:
            return
        by = self.options["by"]
        names = [stem(name) for name in counts["names"]] if by == "file" else counts["names"]
        width = max(10, len(by), *map(len, names[:MOST_LISTED])) + 2
        click.echo(f"\n{by:<{width}}{'structures':>12}{'chosen':>9}{'envs':>11}{'chosen':>11}")
        lists = [counts[name].tolist() for name in counts if name != "names"]
        for name, *numbers in islice(zip(names, *lists, strict=True), MOST_LISTED):
            click.echo(f"{name:<{width}}{numbers[0]:12,}{numbers[1]:9,}{numbers[2]:11,}{numbers[3]:11,}")
        if len(names) > MOST_LISTED:
            click.echo(f"... and {len(names) - MOST_LISTED:,} more: see --json")

    def _warn(self) -> None:
        found, size, compressor = self.found, self.size, self.compressor
        if self.reference is not None:
            self.reference.warn()
        if self.data.source is not None and hasattr(self.data.source, "environments"):
            self.data.source.warn()
        elif self.data.flagged is not None:
            incomplete, tied = self.data.flagged
            warn_of_environments("", len(self.data.x), tied, incomplete, self.data.k, self.data.cutoff)
        totals: dict[str, float] = {"structures": len(self.data.labels), "environments": len(self.data.x)}
        if compressor.costs is not None:
            totals["cost"] = float(compressor.costs.sum())
        if size.kind in totals and not size.share and size.value > totals[size.kind]:
            warn(f"--size {size} is more than there is ({_amount(totals[size.kind])}): all structures are kept")
        if self.reference is not None and self.reference_overlap is not None:
            unseen = sorted({*element_symbols(self.data.numbers)} - {*self.reference.reference.elements})
            if unseen:
                blind = "; species none does not tell elements apart" if self.data.species == "none" else ""
                warn(f"the reference has never seen {' '.join(unseen)}{blind}")
            if len(found) and self.reference_overlap >= WELL_KNOWN:
                warn(
                    f"the reference covers {self.reference_overlap:.2%} of the environments already: what is chosen "
                    "adds little"
                )
        if not len(found):
            said = [name for name in (self.options["output"], self.options["plot_file"]) if name]
            nothing = f"; {' and '.join(said)} {'is' if len(said) == 1 else 'are'} not written" if said else ""
            warn(f"nothing was chosen: {found.stop}{nothing}")
        unlike = int(np.count_nonzero(np.isinf(found.scores[1 if self.reference is None else 0 :])))
        if unlike:
            told = "structure has an infinite score" if unlike == 1 else "structures have infinite scores"
            warn(f"{unlike:,} {told}: each holds an element that nothing known before it held, and came first for that")

    # --- instead of the work ------------------------------------------------------------------------------------------

    def predict(self) -> None:
        """Time and memory of the run, from counting atoms and measuring a small part of the work."""
        options, times = self.options, self.times
        self.centres = None
        stored = None if self.environments is None else load_environments(self.environments)
        agreed = {} if stored is None else self._agreed(stored)
        reading = per_environment = 0.0
        if self.bare:
            assert stored is not None
            sample, sizes, source = stored, stored.sizes, Source(self.files, options)
            source.open_rows()
        else:
            source = Structures(self.files, options | agreed)
            source.warm_up()
            stream = source.stream()
            first = list(islice(stream, 1))
            while sum(map(len, first)) < MEASURED and (frame := next(stream, None)) is not None:
                first.append(frame)
            before = time.perf_counter()
            env = describe(first, options["k"], options["cutoff"], options["species"], jobs=self.jobs)
            per_environment = 0.0 if stored is not None else (time.perf_counter() - before) / len(env)
            for _ in stream:
                pass
            reading, sizes = source.seconds["reading"] * (2 if options["output"] else 1), np.array(source.lengths)
            sample = Data(
                env.x, env.frame_offsets, env.numbers, source.labels[: len(first)], env.elements, env.k, env.cutoff,
                env.species, source,
            )  # fmt: skip
        times.step("loading", self._warm_up)
        n, share = int(sizes.sum()), self._share(sizes, sample)
        members = slice(0, int(np.searchsorted(np.cumsum(sample.sizes), MEASURED)) + 1)
        if sample.species != "none":
            self.centres = sample.numbers
        (self.bandwidth,), _ = source.bandwidths()
        part = self._compressor(sample, members)
        method = "msc" if self.method.startswith("msc") else self.method
        before = time.perf_counter()
        chosen = part.get_indices(method, Size("structures", share, share=True))
        select = time.perf_counter() - before
        before = time.perf_counter()
        part.get_curve(chosen, [len(chosen)])
        curve = time.perf_counter() - before
        before = time.perf_counter()
        assert part.whole
        whole = time.perf_counter() - before
        # pairs: of all with the chosen; within the set
        grown = (n / len(part.x)) ** 2
        within = grown if n <= EXACT_UP_TO else min(grown, 3_000 * n / len(part.x) ** 2)
        in_stages = 1.0
        if options["chunk"] is not None and options["chunk"] < len(sizes):
            in_stages = min(1.0, 2.0 * options["chunk"] / len(sizes) + 2.0 * share)
        curves = 1 + (options["plot_seeds"] if options["plot_file"] else 0)
        # decisions about all, and pairs of a part of them
        seconds = reading + per_environment * n + select * in_stages * grown + curve * curves * grown**0.6
        seconds += whole * within
        d = part.x.shape[1]
        memory = (2 * n * d + 2 * share * n * d + 12 * n + 32 * share * n) * 8 + 250_000_000
        most = "at most " if self.size.kind in ("auto", "overlap", "max_loss") else "about "
        click.echo(
            f"{_count(len(sizes), 'structure')}, {_count(n, 'environment')}: {most}{_tell.duration(seconds)} on "
            f"{_count(self.jobs, 'thread')}, {_tell.size(memory)} of memory"
        )

    def _share(self, sizes: np.ndarray, sample: Data) -> float:
        """The share of the set that is chosen, or may be."""
        kind = self.size.kind
        if kind == "structures":
            return min(1.0, self.size.of(len(sizes)) / len(sizes))
        if kind == "environments":
            return min(1.0, self.size.of(sizes.sum()) / float(sizes.sum()))
        if kind == "cost" and sample.source is not None:
            total = float(sum(sample.source.costs))
            return min(1.0, self.size.of(total) / total)
        if kind == "cost":
            total = float(sizes.sum() if self.options["cost"] == "atoms" else sample.numbers.sum())
            return min(1.0, self.size.of(total) / total)
        return 1.0


def _size(options: dict[str, Any]) -> Size:
    """How much to keep."""
    given = [name for name in ("size", "overlap", "max_loss") if options[name] is not None]
    if len(given) > 1:
        raise click.UsageError("--size, --overlap and --max-loss exclude one another")
    if options["overlap"] is not None:
        return Size("overlap", options["overlap"])
    if options["max_loss"] is not None:
        return Size("max_loss", options["max_loss"])
    size = options["size"]
    return size if size is not None else Size.parse(0.1)


def _option_of(size: Size) -> str:
    return {"auto": "size auto", "max_loss": "max-loss"}.get(size.kind, size.kind)


def _names(files: Sequence[str]) -> str:
    return ", ".join(files[:3]) + (" ..." if len(files) > 3 else "")


def _titles(files: Sequence[str]) -> str:
    return ", ".join(map(stem, files[:3])) + (f" and {len(files) - 3} more" if len(files) > 3 else "")


def _count(n: int, what: str) -> str:
    return f"{n:,} {what}" + ("" if n == 1 else "s")


def _amount(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) else f"{value:,.6g}"


def _columns(curve: Curve) -> dict[str, np.ndarray]:
    """A curve as named columns."""
    return {
        "sizes": curve.sizes, "n_environments": curve.n_environments, "entropy": curve.entropy,
        "diversity": curve.diversity, "overlap": curve.overlap,
    }  # fmt: skip


def _left(path: Path) -> str:
    """What an earlier run had come to; whether it was the same one, the library judges."""
    try:
        with np.load(path, allow_pickle=False) as content:
            if "chosen" in content.files:
                return _count(len(content["chosen"]), "structure")
            if "done" in content.files:
                return _count(int(content["done"]), "chunk")
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        pass
    return ""
