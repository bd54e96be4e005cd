"""The course of ``quests-zenn descriptors``. Imported only when it really runs."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np

from quests_zenn._core.checks import DataError
from quests_zenn._core.progress import progress_bar
from quests_zenn._core.remote import Remote
from quests_zenn.cli import _options, _tell
from quests_zenn.cli._backend import Backend
from quests_zenn.cli._density import _elements_of, _open
from quests_zenn.cli._ranges import How, described_elsewhere, facts_of, record_of
from quests_zenn.cli._source import (
    MATRIX,
    Source,
    check_outputs,
    descriptor_told,
    warn_of_environments,
    warn_of_types,
)
from quests_zenn.cli._tell import warn
from quests_zenn.descriptors import Environments, describe, element_symbols
from quests_zenn.descriptors._layout import block_names
from quests_zenn.descriptors.environments import BATCH_ATOMS
from quests_zenn.io.ahead import ahead
from quests_zenn.io.frames import Frame, frame_slice, read_pairs, selected_atoms, split_index
from quests_zenn.io.index import frame_index
from quests_zenn.io.outputs import write_matrix
from quests_zenn.io.store_form import ENDING, FrameRecord, StoreParameters, chunk_rows, require_zarr
from quests_zenn.io.store_writer import StoreWriter, check_store_output

#: Chunks that are in memory while one is filled and another is written: those two, and copies on the way to the disk.
CHUNKS = 5

#: Bytes per atom of a batch beside its rows: two batches of frames, and what is known of atoms on the way.
PER_ATOM = 800

#: Atoms of a batch below which threads have nothing to do.
FEWEST_ATOMS = 4_096

#: Bytes that a process takes for itself while it works.
SPARE = 64 * 2**20


def descriptors(files: tuple[str, ...], options: dict[str, Any]) -> None:
    """Write environments to a file or a store."""
    if options["output"].rstrip("/").endswith(ENDING):
        _ToStore(files, options | {"output": options["output"].rstrip("/")}).run()
        return
    asked = [name for name in ("memory", "backend", "scheduler") if options.get(name) is not None]
    if asked:
        raise DataError(
            f"{options['output']}: is written at once, from memory; --{asked[0]} is for stores, whose names end in "
            f"{ENDING}"
        )
    check_outputs(files, options, output=MATRIX)
    times = _tell.Times()
    source = _open(files, options, times)
    env = source.environments
    counts = np.bincount(source.owner, minlength=len(source.lengths))
    content = {
        "x": source.x,
        "frame_offsets": np.concatenate([[0], np.cumsum(counts)]),
        "numbers": source.numbers,
        "labels": np.array(source.labels),
        "k": np.array(env.k),
        "cutoff": np.array(env.cutoff),
        "species": np.array(env.species),
        "elements": np.array(env.elements),
    }
    times.step("writing", lambda: write_matrix(options["output"], content, options["overwrite"]))
    if not options["quiet"]:
        shape = " x ".join(f"{n:,}" for n in source.x.shape)
        _tell.rows(
            [*source.rows(), ("written", f"{options['output']}: {shape}, {source.x.dtype}"), times.row(source.jobs)]
        )
        source.warn()


@dataclass(frozen=True)
class _Read:
    """A frame, which file it came from, the atoms asked about, and what a store keeps of its info."""

    frame: Frame
    file: int
    chosen: np.ndarray | None
    facts: dict[str, Any]

    @property
    def record(self) -> FrameRecord:
        """What a store keeps of it."""
        return record_of(
            self.frame, len(self.frame) if self.chosen is None else len(self.chosen), self.file, self.facts
        )


class _ToStore:
    """Environments in pieces, from frames that are read in pieces."""

    def __init__(self, files: tuple[str, ...], options: dict[str, Any]) -> None:
        self.files, self.options, self.output = files, options, options["output"]
        target = check_store_output(self.output, options["overwrite"])
        for spec in files:
            if Path(split_index(spec)[0]).resolve() == target:
                raise DataError(f"{self.output}: is an input, and would be replaced by the output")
        require_zarr()  # now, not after all the work
        self.times = _tell.Times()
        self.source = Source(files, options | {"output": None})
        if self.source.stores:
            raise DataError(f"{next(iter(self.source.stores))}: is a store already; name frames")
        self.jobs, self.dtype = self.source.jobs, self.source.dtype
        self.elements: tuple[str, ...] = ()
        self.backend = Backend(options)

    def run(self) -> None:
        """Read, describe, write; tell."""
        options, times = self.options, self.times
        inputs = [_known_again(spec) for spec in self.files]
        inodes = [_inode(spec) for spec in self.files]
        times.step("loading", self.source.warm_up)
        if options["species"] != "none":  # columns depend on all of them
            self.elements = tuple(sorted(times.step("reading", lambda: _elements_of(self.files, options))))
        parameters = StoreParameters(options["k"], options["cutoff"], options["species"], self.elements, self.dtype)
        key = {"inputs": inputs, "type_map": options["type_map"], "select": options["select"]}
        batch = self._batch_atoms()
        writer = StoreWriter(self.output, parameters, key, options["overwrite"])
        try:
            with writer, self.backend.workers(times) as workers:
                self._tell_of_what_is_there(writer)
                self._write(writer, batch, workers.remote)
                for spec, known, inode in zip(self.files, inputs, inodes, strict=True):
                    _require_same(spec, known, inode, options["quiet"])
                writer.finish(self._provenance(writer, inputs))
        except KeyboardInterrupt:
            if writer.n_kept:  # also what was on its way to the disk
                _options.stop_for_now(
                    f"{writer.n_kept:,} environments are kept, and the same command goes on from there"
                )
            raise
        self._tell(writer)

    def _write(self, writer: StoreWriter, batch_atoms: int, remote: Remote | None) -> None:
        with progress_bar("descriptors", "env", total=self._total(), quiet=self.options["quiet"]) as advance:
            advance(writer.n_rows)
            for file, spec in enumerate(self.files):
                skip = writer.counts.get(file, (0, 0))[0]
                parts = None
                if remote is not None and self.options["select"] is None:
                    parts = self._elsewhere(remote, file, spec, skip, batch_atoms)
                for env, records in parts or self._here(file, spec, skip, batch_atoms):
                    _options.Interrupts.raise_if_pending()
                    self.times.step("writing", lambda: self._append(writer, env, records))  # noqa: B023
                    advance(len(env))

    def _here(
        self, file: int, spec: str, skip: int, batch_atoms: int
    ) -> Iterator[tuple[Environments, list[FrameRecord]]]:
        """Environments of a file, read and described by this process."""
        reads = ahead(self._reads(file, spec, skip), lambda read: len(read.frame), batch_atoms)
        with contextlib.closing(reads):
            while batch := self.times.step("reading", lambda: _batch(reads, batch_atoms)):
                frames = [read.frame for read in batch]
                env = self.times.step("descriptors", lambda: self._described(frames))  # noqa: B023
                if self.options["select"] is not None:
                    starts = env.frame_offsets[:-1]
                    rows = [s + read.chosen for s, read in zip(starts, batch, strict=True) if read.chosen is not None]
                    env = env.of_rows(np.concatenate(rows))
                yield env, [read.record for read in batch]

    def _elsewhere(
        self, remote: Remote, file: int, spec: str, skip: int, batch_atoms: int
    ) -> Iterator[tuple[Environments, list[FrameRecord]]] | None:
        """The same by other processes, which read the file by themselves; None where it cannot be cut."""
        elements = self.elements if self.options["species"] != "none" else None
        how = How(self.options["k"], self.options["cutoff"], self.options["species"], elements, self.dtype)
        found = described_elsewhere(
            remote, spec, how, batch_atoms, file=file, type_map=self.options["type_map"], skip=skip
        )
        name, index = split_index(spec)
        if found is None and (index != ":" or frame_index(name) is None):
            warn(f"{spec}: is read by this process: others read whole files in extended XYZ or LAMMPS format")
        return found

    def _reads(self, file: int, spec: str, skip: int) -> Iterator[_Read]:
        """Frames of a file, without those that are there already."""
        select = self.options["select"]
        for frame, atoms in read_pairs(spec, type_map=self.options["type_map"], skip=skip):
            chosen = None if select is None else selected_atoms(atoms, select, frame.label)
            yield _Read(frame, file, chosen, facts_of(atoms))

    def _total(self) -> int | None:
        """Atoms of all files, where that is quick to tell."""
        if self.options["quiet"] or not sys.stderr.isatty() or self.options["select"] is not None:
            return None
        total = 0
        for spec in self.files:
            index = frame_index(split_index(spec)[0])
            if index is None:
                return None
            total += int(index.atoms[frame_slice(spec)].sum())
        return total

    def _described(self, frames: list[Frame]) -> Environments:
        options, limit, n = self.options, self.backend.memory, sum(map(len, frames))
        if limit is not None and n > 1.5 * self.most_atoms and n * self.per_atom > limit - self.taken:
            largest = max(frames, key=len)
            needs = 1.05 * (self.taken + n * self.per_atom)
            raise DataError(
                f"{largest.label}: a frame of {len(largest):,} atoms needs {_tell.size(needs)}, more than --memory "
                f"{_tell.size(limit)}; frames are described as a whole"
            )
        elements = self.elements if options["species"] != "none" else None
        return describe(
            frames, options["k"], options["cutoff"], options["species"], self.dtype, elements=elements, jobs=self.jobs
        )

    def _append(self, writer: StoreWriter, env: Environments, records: list[FrameRecord]) -> None:
        writer.append(env.x, env.numbers, env.tied, env.incomplete, records)

    def _batch_atoms(self) -> int:
        """Atoms of a batch, as many as memory allows."""
        limit = self.backend.memory
        width = len(block_names(self.elements, self.options["species"])) * (2 * self.options["k"] - 1)
        row = width * np.dtype(self.dtype).itemsize
        if limit is None:
            return max(1, min(BATCH_ATOMS, 4 * chunk_rows(width)))
        self.per_atom = row + PER_ATOM
        self.taken = _tell.resident() + SPARE + CHUNKS * chunk_rows(width) * row
        fit = (limit - self.taken) // self.per_atom
        if fit < FEWEST_ATOMS:
            least = self.taken + FEWEST_ATOMS * self.per_atom
            raise DataError(
                f"--memory {_tell.size(limit)} is too little: rows of {width:,} numbers need at least "
                f"{_tell.size(1.05 * least)}"
            )
        self.most_atoms = int(min(BATCH_ATOMS, fit))
        return self.most_atoms

    # --- the telling ---

    def _tell_of_what_is_there(self, writer: StoreWriter) -> None:
        if self.options["quiet"]:
            return
        if writer.began_anew:
            warn(f"{self.output}: begins anew, since {writer.began_anew}")
        elif writer.n_kept:
            click.echo(f"{self.output}: goes on after {writer.n_kept:,} environments that are there already", err=True)

    def _provenance(self, writer: StoreWriter, inputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        found = []
        for number, known in enumerate(inputs):
            frames, rows = writer.counts.get(number, (0, 0))
            name = Path(known["path"]).name
            kept = {key: known[key] for key in ("index", "size", "mtime_ns")}
            found.append({"name": name, **kept, "n_frames": frames, "n_environments": rows})
        return found

    def _tell(self, writer: StoreWriter) -> None:
        if self.options["quiet"]:
            return
        n, d = writer.shape
        tied, incomplete = writer.flagged
        n_frames = sum(frames for frames, _ in writer.counts.values())
        elements = element_symbols(np.array(writer.present))
        select = f" ({self.options['select']})" if self.options["select"] else ""
        _tell.rows(
            [
                ("frames", f"{n_frames:,}" + (f" in {len(self.files)} files" if len(self.files) > 1 else "")),
                ("environments", f"{n:,}{select}"),
                ("elements", " ".join(elements)),
                ("descriptor", descriptor_told(self.options["k"], self.options["cutoff"], self.options["species"])),
                ("written", f"{self.output}: {n:,} x {d:,}, {self.dtype}"),
                self.times.row(self.backend.told),
            ]
        )
        warn_of_environments("", n, tied, incomplete, self.options["k"], self.options["cutoff"])
        warn_of_types("", self.files, elements, self.options["type_map"])


def _batch(reads: Iterator[_Read], atoms: int) -> list[_Read]:
    """The next frames, of about so many atoms; none at the end."""
    batch: list[_Read] = []
    total = 0
    for read in reads:
        batch.append(read)
        total += len(read.frame)
        if total >= atoms:
            break
    return batch


def _known_again(spec: str) -> dict[str, Any]:
    """By what a file is known to be the same as before."""
    name, index = split_index(spec)
    path = os.path.realpath(name)
    try:
        found = os.stat(path)
    except OSError:
        return {"path": path, "index": index, "size": None, "mtime_ns": None}  # whoever reads it says why
    return {"path": path, "index": index, "size": found.st_size, "mtime_ns": found.st_mtime_ns}


def _inode(spec: str) -> int | None:
    """Number of the file itself, which another one of that name does not have."""
    try:
        return os.stat(split_index(spec)[0]).st_ino
    except OSError:
        return None


def _require_same(spec: str, known: dict[str, Any], inode: int | None, quiet: bool) -> None:
    """Refuse a file that was written to while it was read; one that has only grown is told."""
    now = _known_again(spec)
    if now == known or now["size"] is None or not os.path.isfile(now["path"]):
        return
    name = split_index(spec)[0]
    if known["size"] is None or now["size"] <= known["size"] or _inode(spec) != inode:
        raise DataError(f"{name}: was changed while it was read; repeat the command")
    if not quiet:
        warn(f"{name}: has grown while it was read, so there may be frames that are not in the store")
