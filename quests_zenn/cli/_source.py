"""Frames from the files of a command line to environments, with what later steps need of each frame."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np
from click.core import ParameterSource

from quests_zenn._core.checks import DataError
from quests_zenn._core.parallel import resolve_jobs
from quests_zenn._core.progress import note_if_slow, progress_bar
from quests_zenn._core.remote import Remote
from quests_zenn._core.rows import Rows, SomeRows
from quests_zenn.cli import _options
from quests_zenn.cli._ranges import How, described_elsewhere
from quests_zenn.cli._tell import warn
from quests_zenn.descriptors import Environments, describe, element_symbols, volume_per_atom
from quests_zenn.descriptors._layout import block_names, relayout
from quests_zenn.descriptors.environments import BATCH_ATOMS
from quests_zenn.entropy import DEFAULT_BANDWIDTH, get_all_metrics, get_bandwidth
from quests_zenn.io.ahead import ahead
from quests_zenn.io.frames import (
    Facts,
    Frame,
    frame_slice,
    holds_bare_types,
    read_atoms,
    read_pairs,
    selected_atoms,
    selected_numbers,
    split_index,
)
from quests_zenn.io.outputs import check_output, make_writable, write_scored
from quests_zenn.io.plots import check_plot
from quests_zenn.io.store import Store, open_store
from quests_zenn.io.store_form import FrameRecord, is_store

#: Endings of frames with scores, and of environments alone.
SCORED = (".xyz", ".extxyz")
MATRIX = (".npz", ".npy")

#: Parameters that a store fixes.
FIXED = ("k", "cutoff", "species")

#: Bytes of files from which on they are read in a second thread.
READ_AHEAD = 2**23

#: Share of environments with fewer than k neighbours from which on the user is told.
MANY_INCOMPLETE = 0.1


class Source:
    """Some files, read and described once.

    Parameters
    ----------
    files : names, each with an ASE index or without
        Of frames, or of stores of environments, which fix the parameters for all.
    options : those of the command; missing ones have their default
    volumes : whether the volume per atom of each frame is wanted; by default where a bandwidth comes from it
    """

    def __init__(self, files: tuple[str, ...], options: dict[str, Any], volumes: bool | None = None) -> None:
        self.stores = {spec: open_store(split_index(spec)[0]) for spec in files if is_store(split_index(spec)[0])}
        options = with_stores(options, files, stores=self.stores)
        self.files, self.options = files, options
        self.jobs = resolve_jobs(options["jobs"])
        self.quiet: bool = options["quiet"]
        self.select: str | None = options.get("select")
        self.by: str | None = options.get("by")
        self.scores = bool(options.get("output")) and not options["output"].endswith(MATRIX)
        if self.stores and self.scores:
            needs_frames(next(iter(self.stores)), "-o")
        self.dtype = "float32" if options.get("precision") == "float32" else "float64"
        # filled while frames stream through
        self.lengths: list[int] = []
        self.labels: list[str] = []
        self.specs: list[str] = []
        self.keys: list[Any] = []
        self.without_key: list[str] = []
        self.properties: list[dict[str, float]] = []
        self.selection: list[np.ndarray] = []
        self.volumes: list[float] = []
        self.without_volume: list[str] = []
        self.wants_volumes = "auto" in self.requested if volumes is None else volumes
        self.seconds: dict[str, float] = {"reading": 0.0}
        self.chosen: np.ndarray | None = None
        #: told how many environments there are, how wide they are, and the bytes of a number, before there are more
        self.watch: Callable[[int, int, int], None] | None = None
        self.n_described, self.present = 0, set[int]()

    def stream(self, files: Sequence[str] | None = None) -> Iterator[Frame]:
        """Frames from the files, all or some; what later steps need of each is noted down in passing."""
        source = self._reads(files or self.files)
        try:
            while True:
                _options.Interrupts.raise_if_pending()
                before = time.perf_counter()
                self.spec, frame, atoms = next(source, ("", None, None))
                self.seconds["reading"] += time.perf_counter() - before
                if frame is None:
                    return
                self._note(frame.label, atoms)
                if self.watch is not None:
                    self.present.update(np.unique(frame.numbers).tolist())
                self.lengths.append(len(frame))
                self.labels.append(frame.label)
                self.specs.append(self.spec)
                self.properties.append(dict(frame.properties))
                if self.wants_volumes:
                    try:
                        self.volumes.append(volume_per_atom(frame))
                    except DataError as error:
                        self.without_volume.append(str(error))
                yield frame
        finally:
            source.close()

    def _reads(self, files: Sequence[str]) -> Generator[tuple[str, Frame, Any], None, None]:
        """Frames with the files that they come from; large ones are read ahead."""
        type_map, energy_key = self.options.get("type_map"), self.options.get("energy_key")
        reads = (
            (spec, frame, atoms)
            for spec in files
            for frame, atoms in read_pairs(spec, type_map=type_map, energy_key=energy_key)
        )
        if sum(map(file_bytes, files)) >= READ_AHEAD:
            yield from ahead(reads, lambda read: len(read[1]), 2 * BATCH_ATOMS)
        else:
            yield from reads

    def _note(self, label: str, atoms: Any) -> None:
        if self.scores:
            make_writable(atoms, label)  # now, not after all the work
        if self.select is not None and not isinstance(atoms, Facts):
            self.selection.append(selected_atoms(atoms, self.select, label))
        if self.by is not None:
            self.keys.append(self._key(label, atoms))

    def _key(self, label: str, atoms: Any) -> Any:
        """What --by says of a frame; None where the frame does not carry the key."""
        if self.by == "file":
            return self.spec
        if self.by == "frame":
            return len(self.keys)
        value = atoms.info.get(self.by)
        if value is None:
            self.without_key.append(f"{label}: no key {self.by!r} to group frames by (its info holds {known(atoms)})")
        if isinstance(value, np.ndarray | list | tuple | dict):
            raise DataError(
                f"{label}: the key {self.by!r} holds an array; frames are grouped by text or single numbers"
            )
        return value.item() if isinstance(value, np.generic) else value

    def describe(self, remote: Remote | None = None) -> Environments:
        """Read everything; the environments asked about are `x`, of the frames `owner`.

        Other processes read and describe files for themselves, where these can be cut and nothing is asked of
        single atoms.
        """
        before = time.perf_counter()
        with progress_bar("descriptors", "env", quiet=self.quiet) as advance:
            parts = []
            for stored, specs in itertools.groupby(self.files, lambda spec: spec in self.stores):
                if stored:
                    parts += [self._load(spec, advance) for spec in specs]
                elif remote is None:
                    parts.append(self._describe(list(specs), advance))
                else:
                    parts += [
                        self._describe_elsewhere(remote, spec, advance) or self._describe([spec], advance)
                        for spec in specs
                    ]
            env = _joined(parts)
        self.seconds["descriptors"] = time.perf_counter() - before - self.seconds["reading"]
        self._ask(env)
        return env

    def _describe(self, files: Sequence[str], advance: Any) -> Environments:
        """Environments of files of frames."""
        options, count = self.options, self._counted(advance)
        return describe(
            self.stream(files),
            options["k"],
            options["cutoff"],
            options["species"],
            self.dtype,
            elements=options.get("elements"),
            jobs=self.jobs,
            progress=count,
        )

    def _counted(self, advance: Any) -> Callable[[int], None]:
        """`advance`, which also tells whoever watches."""

        def count(more: int) -> None:
            self.n_described += more
            advance(more)
            if self.watch is not None:
                elements = element_symbols(np.array(sorted(self.present), np.int64))
                width = len(block_names(elements, self.options["species"])) * (2 * self.options["k"] - 1)
                self.watch(self.n_described, width, np.dtype(self.dtype).itemsize)

        return count

    def _describe_elsewhere(self, remote: Remote, spec: str, advance: Any) -> Environments | None:
        """Environments of a file from other processes; None where they cannot do it."""
        options = self.options
        elements = None if options["species"] == "none" else tuple(options.get("elements") or ())
        if self.scores or self.select is not None or elements == ():
            return None
        how = How(options["k"], options["cutoff"], options["species"], elements, self.dtype)
        found = described_elsewhere(
            remote, spec, how, BATCH_ATOMS, type_map=options.get("type_map"), energy_key=options.get("energy_key")
        )
        if found is None:
            return None
        parts, count = [], self._counted(advance)
        for env, records in found:
            _options.Interrupts.raise_if_pending()
            for record in records:
                self._note_record(spec, record)
            parts.append(env)
            count(len(env))
        return _joined(parts)

    def _load(self, spec: str, advance: Any) -> Environments:
        """Environments of a store, in memory."""
        store = self.stores[spec]
        members, lengths = self.note_store(spec)
        if self.watch is not None:
            self.watch(int(lengths.sum()), store.shape[1], store.dtype.itemsize)
        before = time.perf_counter()
        x = store.read(0, len(store)) if isinstance(members, slice) else store.take(members)
        if self.options.get("precision") == "float32":
            x = x.astype(np.float32, copy=False)
        env = Environments(
            x, np.concatenate([[0], np.cumsum(lengths)]), store.numbers[members].astype(np.int64), store.k,
            store.cutoff, store.species, store.elements, store.tied[members], store.incomplete[members],
        )  # fmt: skip
        elements = self.options.get("elements")
        if elements is not None and store.species != "none":
            wider = tuple(sorted({*elements, *store.elements}))
            env = replace(env, x=relayout(x, store.elements, wider, store.species, store.k), elements=wider)
        advance(len(x))
        self.seconds["reading"] += time.perf_counter() - before
        return env

    def note_store(self, spec: str) -> tuple[np.ndarray | slice, np.ndarray]:
        """Note down what a store says of its frames; returns the rows that are asked for, and rows of each frame."""
        store = self.stores[spec]
        offsets = store.frame_offsets
        frames = np.arange(store.n_frames)[frame_slice(spec)]
        if len(frames) == 0:
            raise DataError(
                f"{spec}: no frame is selected; the store has {store.n_frames:,}, fewer than the index asks for"
            )
        wanted: dict[int, FrameRecord] = {}
        chosen = np.zeros(store.n_frames, bool)
        chosen[frames] = True
        in_order = bool((np.diff(frames) > 0).all())
        for number, record in enumerate(store.records()):
            if not chosen[number]:
                continue
            if in_order:
                self._note_record(spec, record)
            else:
                wanted[number] = record
        for number in frames.tolist() if not in_order else ():
            self._note_record(spec, wanted[number])
        lengths = np.diff(offsets)[frames]
        members: np.ndarray | slice = slice(None)
        if not (in_order and len(frames) == store.n_frames):
            starts = np.repeat(offsets[frames] - np.concatenate([[0], np.cumsum(lengths)[:-1]]), lengths)
            members = starts + np.arange(int(lengths.sum()))
        if self.select is not None:
            numbers = store.numbers
            for frame in frames.tolist():
                own = numbers[offsets[frame] : offsets[frame + 1]]
                told = f"{spec}, frame {frame}"
                wrong = "no elements and no indices, and that is all that a store knows of its atoms"
                self.selection.append(selected_numbers(own, self.select, told, wrong))
        return members, lengths

    def _note_record(self, spec: str, record: FrameRecord) -> None:
        """What `stream` and `_note` say of a frame, of a record: of a store, or of a file that others have read."""
        store, energy_key = self.stores.get(spec), self.options.get("energy_key")
        self.lengths.append(record.n)
        self.labels.append(record.label)
        self.specs.append(spec)
        arrays = {key: np.empty(0) for key in record.arrays}
        facts = Facts({**record.info, **arrays}, dict(record.results))
        properties = dict(record.properties)
        if energy_key is not None and store is not None:
            properties.pop("energy", None)
            value = record.info.get(energy_key, record.results.get(energy_key))
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise DataError(
                    f"{record.label}: no energy under the key {energy_key!r} (its info holds {known(facts)})"
                )
            properties["energy"] = float(value)
        self.properties.append(properties)
        if self.wants_volumes:
            if record.volume is not None:
                self.volumes.append(record.volume)
            else:
                self.without_volume.append(record.without_volume or f"{record.label}: the volume per atom is not known")
        self.spec = spec
        if store is not None and len(store.provenance) > 1:  # files stay apart in a store
            origin = store.provenance[record.file]
            self.spec = f"{spec}: {origin.get('name')}@{origin.get('index', ':')}".removesuffix("@:")
        self._note(record.label, facts)

    def open_rows(self) -> Rows | None:
        """The environments of one store, not in memory: they take the place of `x`, and of what `describe` finds.

        None where it takes more than that: several files, frames, or an index that does not ascend.
        """
        if len(self.files) != 1 or not self.stores or self.options.get("elements") is not None:
            return None
        (spec,) = self.files
        store = self.stores[spec]
        index = frame_slice(spec)
        if (index.step or 1) < 0 or (self.options.get("precision") == "float32" and store.dtype != np.float32):
            return None
        before = time.perf_counter()
        members, lengths = self.note_store(spec)
        x: Any = store if isinstance(members, slice) else SomeRows(store, members)
        numbers: Any = store.numbers[members]  # not converted: there may be many
        self._ask(
            Environments(
                x, np.concatenate([[0], np.cumsum(lengths)]), numbers, store.k, store.cutoff, store.species,
                store.elements, store.tied[members], store.incomplete[members],
            )
        )  # fmt: skip
        self.seconds["reading"] += time.perf_counter() - before
        rows: Any = self.x
        return rows  # type: ignore[no-any-return]

    def _ask(self, env: Environments) -> None:
        """Take environments, all or those that were selected, for those that are asked about."""
        self.environments = env
        self.x, self.numbers = env.x, env.numbers
        self.owner = np.repeat(np.arange(len(self.lengths)), self.lengths)
        if self.select is not None:
            self.chosen = np.concatenate(
                [rows + start for rows, start in zip(self.selection, env.frame_offsets[:-1], strict=True)]
            )
            if len(self.chosen) == 0:
                raise DataError(f"the selection {self.select!r} names no atom in any frame")
            x: Any = self.x
            if isinstance(x, SomeRows):
                x = SomeRows(x.whole, x.members[self.chosen])
            else:
                x = x[self.chosen] if isinstance(x, np.ndarray) else SomeRows(x, self.chosen)
            self.x, self.numbers, self.owner = x, self.numbers[self.chosen], self.owner[self.chosen]

    @property
    def centres(self) -> np.ndarray | None:
        """Labels of environments that do not see each other: centre elements, where the descriptor tells them apart."""
        return None if self.environments.species == "none" else self.numbers

    def groups(self) -> tuple[np.ndarray, list[str]]:
        """Group of every environment by --by (or by frame), and the names of the groups.

        Numbers are in ascending order, all else in order of appearance; frames without the key come last.
        """
        of_frames, names = self.frame_groups()
        present, codes = np.unique(of_frames[self.owner], return_inverse=True)  # a selection may leave some out
        return codes, [names[number] for number in present]

    def frame_groups(self) -> tuple[np.ndarray, list[str]]:
        """The same for every frame that was read."""
        keys = self.keys if self.by is not None else list(range(len(self.lengths)))
        if self.without_key and len(self.without_key) == len(keys):
            raise DataError(f"{self.without_key[0]}; nor has any other frame (--by file and --by frame work always)")
        distinct = list(dict.fromkeys(str(key) for key in keys if key is not None))
        if all(isinstance(key, int | float) and not isinstance(key, bool) for key in keys if key is not None):
            distinct.sort(key=float)
        place = {name: number for number, name in enumerate(distinct)}
        codes = np.array([len(distinct) if key is None else place[str(key)] for key in keys])
        return codes, [*distinct, "(none)"] if self.without_key else distinct

    def warm_up(self) -> None:
        """Load the compiled kernels; on the first run on a machine they are compiled, which takes a while."""
        started = time.perf_counter()
        with note_if_slow("compiling kernels (first run on this machine only) ...", 2.0, self.quiet):
            _options.Interrupts.raise_if_pending()
            tiny = (np.array([[0.0, 0.0, 0.0], [0.0, 0.0, 2.0]]), None, False, np.array([1, 1]))
            x = describe([tiny], dtype=self.dtype, jobs=1).x
            precision = self.options.get("precision", "auto")
            for kind in ("float64", "float32") if precision == "auto" else (precision,):
                get_all_metrics(x, precision=kind, jobs=1)
        _options.Interrupts.raise_if_pending()
        self.seconds["loading"] = time.perf_counter() - started

    def bandwidths(self) -> tuple[list[float], list[str]]:
        """Bandwidths asked for, and where each comes from."""
        found, sources = [], []
        for value in self.requested:
            if value == "auto":
                self.require_volumes()
                volume = float(np.average(self.volumes, weights=self.lengths))
                found.append(get_bandwidth(volume))
                sources.append(f"auto: volume rule at {volume:.3f} Å3 per atom")
            else:
                found.append(float(value))
                sources.append("given" if self.options["bandwidths"] else "default")
        return found, sources

    @property
    def requested(self) -> list[float | str]:
        """Bandwidths as they were asked for, each once."""
        given = [value for group in self.options.get("bandwidths", ()) for value in group]
        return list(dict.fromkeys(given)) or [DEFAULT_BANDWIDTH]

    def require_volumes(self) -> None:
        """Refuse the volume rule where some frames have no volume per atom."""
        if self.without_volume:
            raise DataError(
                f"{self.without_volume[0]}; so it is in {len(self.without_volume)} of {len(self.lengths)} frames, and "
                "--bandwidth auto needs all: leave them out, or give a number"
            )

    def flagged(self) -> tuple[int, int]:
        """Environments asked about that have fewer than k neighbours, and that have a tie at place k."""
        env, asked = self.environments, slice(None) if self.chosen is None else self.chosen
        return int(np.count_nonzero(env.incomplete[asked])), int(np.count_nonzero(env.tied[asked]))

    def of_all_atoms(self, values: np.ndarray) -> np.ndarray:
        """Values of the environments asked about for every atom of the input; NaN for the others."""
        if self.chosen is None:
            return values
        scores = np.full(sum(self.lengths), np.nan)
        scores[self.chosen] = values
        return scores

    def write_scored(self, dh: np.ndarray, errors: np.ndarray | None, h: float, scope: str) -> None:
        """The frames, read once more, with dH per atom, and its standard error where it has one."""
        options = self.options
        atoms = (item for spec in self.files for item in read_atoms(spec, options["type_map"]))
        notes = {"dH_scope": scope, "dH_bandwidth": h}
        notes |= {f"dH_{name}": options[name] for name in ("k", "cutoff", "species")}
        write_scored(
            options["output"],
            atoms,
            self.of_all_atoms(dh),
            options["overwrite"],
            notes=notes,
            errors=None if errors is None or not errors.any() else self.of_all_atoms(errors),
        )

    def parameters(self) -> dict[str, Any]:
        """What every document says of its input."""
        env = self.environments
        incomplete, tied = self.flagged()
        return {
            "n_environments": len(self.x),
            "n_frames": len(self.lengths),
            "elements": element_symbols(env.numbers),
            "k": env.k,
            "cutoff": env.cutoff,
            "species": env.species,
            "select": self.select,
            "n_tied": tied,
            "n_incomplete": incomplete,
        }

    def provenance(self) -> list[dict[str, Any]]:
        """What was read from which file, for the document of a reference."""
        found, first = [], 0
        for spec, frames in itertools.groupby(self.specs):
            name, index = split_index(spec)
            n = len(list(frames))
            n_environments = sum(self.lengths[first : first + n])
            found.append({"name": Path(name).name, "index": index, "n_frames": n, "n_environments": n_environments})
            first += n
        return found

    def rows(self) -> list[tuple[str, str]]:
        """What every table says of its input."""
        env = self.environments
        n_files = f" in {len(self.files)} files" if len(self.files) > 1 else ""
        return [
            ("frames", f"{len(self.lengths):,}{n_files}"),
            ("environments", f"{len(self.x):,}" + (f" ({self.select})" if self.select else "")),
            ("elements", " ".join(element_symbols(env.numbers))),
            ("descriptor", descriptor_told(env.k, env.cutoff, env.species)),
        ]

    def warn(self, prefix: str = "") -> None:
        """What one should know of these environments."""
        env, (incomplete, tied) = self.environments, self.flagged()
        warn_of_environments(prefix, len(self.x), tied, incomplete, env.k, env.cutoff)
        warn_of_types(prefix, self.files, element_symbols(env.numbers), self.options.get("type_map"))
        if "auto" in self.requested and self.volumes and max(self.volumes) > 1.1 * min(self.volumes):
            warn(
                f"{prefix}volumes per atom range from {min(self.volumes):.1f} to {max(self.volumes):.1f} Å3; "
                "--bandwidth auto took their mean"
            )


def descriptor_told(k: int, cutoff: float, species: str) -> str:
    """Parameters of the descriptor, for tables."""
    return f"k = {k}, cutoff {cutoff:g} Å, species {species}"


def warn_of_environments(prefix: str, n: int, tied: int, incomplete: int, k: int, cutoff: float) -> None:
    """Say which of some environments are not as they should be."""
    if incomplete > MANY_INCOMPLETE * n:
        warn(
            f"{prefix}{incomplete / n:.0%} of the atoms asked about have fewer than k = {k} neighbours within "
            f"{cutoff:g} Å (missing places count as zero); a larger --cutoff or a smaller --k resolves more"
        )
    if tied:
        warn(
            f"{prefix}{tied} of {n} environments have equal distances across place k = {k} "
            "(perfect crystals): their X2 depends on the orientation of the cell"
        )


def warn_of_types(prefix: str, files: Sequence[str], elements: list[str], type_map: Any) -> None:
    """Say where types of atoms were taken for elements."""
    looks_like_types = elements == element_symbols(np.arange(1, len(elements) + 1))
    if looks_like_types and not type_map and any(map(holds_bare_types, files)):
        told = f"atom types were read as elements ({' '.join(elements)})"
        warn(f"{prefix}{told}; --type-map 1=Cu,... names the real ones")


def _joined(parts: Sequence[Environments]) -> Environments:
    """Environments of several sources as one, in columns that hold the elements of all."""
    if len(parts) == 1:
        return parts[0]
    first = parts[0]
    elements = tuple(sorted({symbol for part in parts for symbol in part.elements}))
    return replace(
        first,
        x=np.concatenate([relayout(part.x, part.elements, elements, part.species, part.k) for part in parts]),
        frame_offsets=np.concatenate([[0], np.cumsum(np.concatenate([np.diff(part.frame_offsets) for part in parts]))]),
        numbers=np.concatenate([part.numbers for part in parts]),
        elements=elements,
        tied=np.concatenate([part.tied for part in parts]),
        incomplete=np.concatenate([part.incomplete for part in parts]),
    )


def was_given(name: str, ctx: click.Context | None = None) -> bool:
    """Whether the user gave this option of the command, by its name in Python."""
    ctx = ctx or click.get_current_context(silent=True)
    source = None if ctx is None else ctx.get_parameter_source(name)
    return source not in (None, ParameterSource.DEFAULT, ParameterSource.DEFAULT_MAP)


def with_stores(
    options: dict[str, Any],
    files: Sequence[str],
    ctx: click.Context | None = None,
    stores: dict[str, Store] | None = None,
) -> dict[str, Any]:
    """Options of a command with the parameters of the stores among its files.

    An option ``agreed_with`` names what fixed the parameters before: a saved reference, or another store.

    Raises
    ------
    DataError
        If the user gave others, or stores differ.
    """
    if stores is None:
        stores = {spec: open_store(split_index(spec)[0]) for spec in files if is_store(split_index(spec)[0])}
    for spec, store in stores.items():
        for name in FIXED:
            own, other = getattr(store, name), options.get(name)
            told, asked = (f"{value:g}" if isinstance(value, float) else str(value) for value in (own, other))
            if own == other:
                continue
            if options.get("agreed_with"):
                before = options["agreed_with"]
                raise DataError(f"{spec}: was made with {name} {told}, and {before} with {asked}; both need the same")
            if was_given(name, ctx):
                raise DataError(
                    f"{spec}: was made with {name} {told}, and --{name} {asked} asks for another; leave the option "
                    "out, or make the store again"
                )
        options = {**options, **{name: getattr(store, name) for name in FIXED}, "agreed_with": spec}
    return options


def needs_frames(spec: str, option: str) -> None:
    """Refuse a store where its frames are needed.

    Raises
    ------
    DataError
        Always.
    """
    raise DataError(f"{spec}: is a store, of environments and not of frames, which {option} needs; name the frames")


def file_bytes(spec: str) -> int:
    """Size of a file of frames; 0 where it has none."""
    try:
        return os.path.getsize(split_index(spec)[0])
    except OSError:
        return 0  # whoever reads it says why


def known(atoms: Any) -> str:
    """Keys of the info of a frame."""
    return ", ".join(sorted(map(str, atoms.info))) or "nothing"


def check_outputs(files: tuple[str, ...], options: dict[str, Any], **kinds: tuple[str, ...]) -> None:
    """Judge the outputs before any work is done.

    `kinds` gives endings for options whose files must have one.

    Raises
    ------
    DataError
        If one exists already, is an input, is named twice, or has no known ending.
    """
    overwrite = options["overwrite"]
    outputs = [options[name] for name in ("output", "json_file", "plot_file") if options.get(name) is not None]
    targets = [check_output(path, overwrite).resolve() for path in outputs]
    if len(set(targets)) < len(targets):
        raise DataError("two outputs have the same name")
    for spec in files:
        if Path(split_index(spec)[0]).resolve() in targets:
            raise DataError(f"{split_index(spec)[0]}: is an input, and would be replaced by an output")
    output = options.get("output")
    if output and "output" in kinds:
        name = output.removesuffix(".gz") if kinds["output"] == SCORED else output
        if not name.endswith(kinds["output"]):
            raise DataError(f"{output}: {_WHAT[kinds['output']]}")
    if options.get("plot_file"):
        check_plot(options["plot_file"], overwrite)


_WHAT: dict[tuple[str, ...], str] = {
    SCORED: "scored frames are extended XYZ; its name must end in .xyz or .xyz.gz",
    MATRIX: "environments are written as .zarr (a store, larger than memory), as .npz (with all that is known of "
    "them), or as .npy (the matrix alone)",
}
