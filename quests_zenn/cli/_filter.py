"""The course of ``quests-zenn filter``. Imported only when it really runs."""

from __future__ import annotations

import gzip
import hashlib
import math
import os
import re
import signal
import sys
import threading
import time
import zlib
from array import array
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from io import StringIO
from typing import Any

import click
import numpy as np
from ase.data import atomic_numbers

from quests_zenn._core.checks import DataError
from quests_zenn._core.parallel import Workers, resolve_jobs
from quests_zenn._core.progress import note_if_slow, progress_bar
from quests_zenn.cli import _known, _options, _tell
from quests_zenn.cli._source import SCORED, check_outputs, needs_frames
from quests_zenn.cli._tell import warn
from quests_zenn.cli.filter import FOUND
from quests_zenn.descriptors import element_symbols
from quests_zenn.io import plots_novel
from quests_zenn.io.follow import Follower, Place, hash_of
from quests_zenn.io.frames import as_frame, holds_bare_types, read_atoms, selected_atoms, split_index, stem
from quests_zenn.io.journal import Journal, journal_of
from quests_zenn.io.outputs import check_output, make_writable
from quests_zenn.io.plots import check_plot
from quests_zenn.io.store_form import is_store
from quests_zenn.uq.filter import FrameFilter, Verdict
from quests_zenn.uq.reference import Reference

#: Seconds between two notes of how far a run has come, while nothing is flagged.
NOTE_EVERY = 1.0

#: Bytes at the beginning of a file by which it is known again at once, before its frames are compared.
HEAD = 512

#: Flagged frames that a table lists; the JSON document has all.
MOST_LISTED = 20

#: Frames that are larger than the largest of the reference by more than this factor may have more false alarms.
LARGER = 2.0


@dataclass
class Item:
    """A frame, the number of its file, its number among the frames read of that file, and for a Follower its place.

    `digest` is that of all that was read of the file so far.
    """

    label: str
    atoms: Any
    file: int
    count: int
    begin: Place
    end: Place
    digest: str = ""


class ChangedError(DataError):
    """An input is not what an earlier run read."""


class FilterRun:
    """One run, from the names of files to the exit status."""

    def __init__(self, files: tuple[str, ...], options: dict[str, Any]) -> None:
        self.files, self.options = files, options
        self.follow: bool = options["follow"]
        self.quiet: bool = options["quiet"]
        self.output: str | None = options["output"]
        self.jobs = resolve_jobs(options["jobs"])
        self.times = _tell.Times()
        self._begin()
        self.left = ""
        self.stopping = False  # Ctrl-C while a file is followed: the run ends well
        self.resumed = False  # whether it is known what an earlier run left

    def _begin(self) -> None:
        """Nothing is judged yet."""
        self.flagged: list[dict[str, Any]] = []
        self.n_frames = self.n_atoms = self.largest = 0
        self.state: dict[str, Any] = {"file": 0, "count": 0, "last": 0, "number": 0, "offset": 0}
        self.state |= {"heads": {}, "read": {}}
        self.hashed: Any = None  # of what an earlier run read of a file that is followed
        # of every frame judged: its file, its number there, and its novel share
        self.judged: tuple[Any, Any, Any] = (array("q"), array("q"), array("d"))
        self.noted = 0  # how many of these the journal knows

    # --- before the work ----------------------------------------------------------------------------------------------

    def _check(self) -> None:
        if self.follow and split_index(self.files[0])[1] != ":":
            raise DataError(f"{self.files[0]}: a file that grows has no index; --every takes a part of its frames")
        options = dict(self.options)
        if self.output and journal_of(self.output).exists():
            # a run that goes on writes where the one before it wrote: `_resume` judges that
            options |= {"overwrite": True, "json_file": None, "plot_file": None}
        check_outputs((*self.files, *self.options["reference"]), options, output=SCORED)
        if not self.follow:
            for spec in self.files:
                path = split_index(spec)[0]
                if not os.path.exists(path):
                    raise DataError(f"{path}: no such file")
                if is_store(path):
                    needs_frames(spec, "a filter")

    def _run_header(self, known: _known.Known) -> dict[str, Any]:
        """What makes another run the same one."""
        options = self.options
        names = ("min_atoms", "min_share", "every", "keep_all", "select", "type_map", "follow")
        return {
            "command": "filter",
            "inputs": list(self.files),
            **{name: options[name] for name in names},  # first: they also change the threshold
            "reference": fingerprint(known.reference),
            "threshold": self.filter.threshold,
        }

    # --- the work -----------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Judge all frames; ends the process with status 3 if one was flagged."""
        self._check()
        options = self.options
        known = _known.open_known(options["reference"], options, by=options["by"], times=self.times)
        self.known = known
        with Workers(self.jobs) as workers, self._ends_on_interrupt():
            self.filter = self.times.step("sums", lambda: self._filter(known, workers))
            _options.Interrupts.raise_if_pending()
            journal: AbstractContextManager[Journal | None] = nullcontext()
            if self.output:
                journal = Journal(
                    self.output, self._run_header(known), overwrite=options["overwrite"], in_place=self.follow
                )
            with journal as self.journal:
                try:
                    self._resume()
                    self.resumed = True
                    try:
                        self._judge_all()
                    except ChangedError:
                        if self.journal is None or not options["overwrite"]:
                            raise
                        self.journal.restart()
                        self.filter.forget()
                        self._begin()
                        self._judge_all()
                    if self.journal is not None:
                        self.journal.add(b"", {**self._state(), "ended": True})
                    self._write_documents()
                    if self.journal is not None:
                        self.journal.finish()
                except BaseException as error:
                    self._stopped(error)
        if not self.quiet:
            self._table()
            self._warn()
        if self.flagged:
            sys.exit(FOUND)

    @contextmanager
    def _ends_on_interrupt(self) -> Iterator[None]:
        """While a file is followed, the first Ctrl-C ends the reading, and all that was found is told."""
        if not self.follow or threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.getsignal(signal.SIGINT)

        def stop(signum: int, frame: Any) -> None:
            self.stopping = True
            signal.signal(signal.SIGINT, before)  # the second one ends it at once

        signal.signal(signal.SIGINT, stop)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    def _filter(self, known: _known.Known, workers: Workers) -> FrameFilter:
        options = self.options
        auto = options["threshold"] == "auto"
        elements = None
        if auto and options["select"] is not None:
            elements = [part.strip() for part in options["select"].split(",")]
            if not all(part in atomic_numbers for part in elements):
                raise DataError(
                    f"--select {options['select']} does not tell which atoms of the reference a threshold is to be "
                    "found from, as elements would; give --threshold a number"
                )
        try:
            return FrameFilter(
                known.reference, options["threshold"], false_alarm=options["false_alarm"],
                of=options["false_alarm_of"], min_atoms=options["min_atoms"], min_share=options["min_share"],
                elements=elements, workers=workers, jobs=self.jobs,
            )  # fmt: skip
        except DataError as error:
            if not auto:
                raise
            other = "; or count atoms (--false-alarm-of atom)" if options["false_alarm_of"] == "frame" else ""
            raise DataError(f"{error}; give another --false-alarm, or --threshold a number in nats{other}") from error

    def _stopped(self, error: BaseException) -> None:
        """Leave behind what another run can go on from, if anything was noted down."""
        interrupted = _options.Interrupts.pending or isinstance(error, KeyboardInterrupt)
        if self.journal is None:
            raise error
        if not interrupted:
            if not self.resumed or isinstance(error, ChangedError):
                raise error
            if not self.journal.state.get("n_atoms"):
                self.journal.discard()
                raise error
            if not isinstance(error, ValueError | OSError):
                raise error
            target = self.journal.target
            kept = f"what was flagged before is in {target}" if target.exists() else "what was judged before is noted"
            raise DataError(f"{error}; {kept}, and the same command goes on from there") from error
        _options.stop_for_now()

    def _resume(self) -> None:
        """Take up what an earlier run noted down."""
        if self.journal is None or not self.journal.resumed:
            return
        told = self.journal.state
        for kind in ("json_file", "plot_file"):
            path = self.options[kind]
            if path:
                may = self._may_replace(kind)
                (check_plot if kind == "plot_file" else check_output)(path, may)
        for number, head in told.get("heads", {}).items():
            path = split_index(self.files[int(number)])[0]
            other = ""
            if not os.path.isfile(path):
                other = "no such file; it was read before, and --overwrite begins anew"
            else:
                size, self.hashed = hash_of(path, head[0])
                if size < head[0]:
                    other = (
                        "is shorter than what was read of it before; was it truncated, or written anew? --overwrite "
                        "begins anew"
                    )
                elif self.hashed.hexdigest() != head[1]:
                    other = "is not the file that was read before; --overwrite begins anew"
            if other and self.options["overwrite"]:
                self.journal.restart()
                self._begin()
                return
            if other:
                raise ChangedError(f"{path}: {other}")
        self.state = {name: told.get(name, value) for name, value in self.state.items()}
        self.n_frames, self.n_atoms, self.largest = (told.get(name, 0) for name in ("n_frames", "n_atoms", "largest"))
        self.filter.unseen |= set(told.get("unseen", ()))
        for entry in self.journal.entries():
            for values, more in zip(self.judged, entry.get("judged", ((), (), ())), strict=True):
                values.extend(more)
            if "flagged" in entry:
                self.flagged.append(entry["flagged"])
                if entry["flagged"]["written"] and self.follow and not self.options["keep_all"]:
                    self._keep_again(Place(*entry["begin"]))
        self.noted = len(self.judged[0])

    def _keep_again(self, place: Place) -> None:
        """Read a frame that was written before once more: from the input, whose numbers have all their digits."""
        again = Follower(self.files[0], place, idle=0.0, type_map=self.options["type_map"])
        item = next(iter(again), None)
        if item is None:
            raise DataError(f"{self.files[0]}: frame {place.number} is no longer there; --overwrite begins anew")
        self.filter.keep(self._judge(item[0], item[1]))

    def _items(self) -> Iterator[Item]:
        """Frames that are to be judged."""
        if self.follow:
            yield from self._followed()
            return
        written = {(entry["file"], entry["count"]) for entry in self.flagged if entry["written"]}
        done, every = (self.state["file"], self.state["count"]), self.options["every"]
        before = self.state["read"].copy()  # by the run before this one: how many frames of each file, and their hash
        for number, spec in enumerate(self.files):
            total, hashed = 0, hashlib.sha256()
            n_before, hash_before = before.get(str(number), (0, ""))
            for count, (label, atoms) in enumerate(read_atoms(spec, self.options["type_map"])):
                total += 1
                if self.journal is not None:
                    for part in (atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc):
                        hashed.update(np.ascontiguousarray(part).data)
                    if total == n_before and hashed.hexdigest() != hash_before:
                        raise ChangedError(
                            f"{spec}: its frames are not those that were judged before (it was written anew, or its "
                            "index counts from the end and it grew); --overwrite begins anew"
                        )
                if (number, count) < done:  # judged by the run before this one
                    if (number, count) in written and not self.options["keep_all"]:
                        self.filter.keep(self._judge(label, atoms))
                elif count % every == 0:
                    yield Item(label, atoms, number, count, Place(), Place(), hashed.hexdigest())
            if total < n_before or (number < done[0] and n_before and total > n_before):
                raise ChangedError(
                    f"{spec}: {_count(total, 'frame')} are there, and {n_before:,} when it was read before; "
                    "--overwrite begins anew"
                )
            self.state["read"][str(number)] = [total, hashed.hexdigest()]

    def _followed(self) -> Iterator[Item]:
        options = self.options
        path = self.files[0]

        def waiting() -> None:
            if not self.quiet:
                click.echo(f"{path} is not there yet: waiting for it", err=True)

        reader = Follower(
            path, Place(self.state["number"], self.state["offset"]), idle=options["idle"], every=options["every"],
            type_map=options["type_map"], on_wait=waiting, stop=lambda: self.stopping, hashed=self.hashed,
        )  # fmt: skip
        for label, atoms, begin, end in reader:
            yield Item(label, atoms, 0, begin.number, begin, end, reader.hashed.hexdigest())
        self.left = reader.left
        if self.n_frames == 0:
            if self.stopping:
                raise KeyboardInterrupt
            raise DataError(reader.left or f"{path}: no frame came within {options['idle']:g} seconds")

    def _judge_all(self) -> None:
        noted = time.monotonic()
        items = self._items()
        with progress_bar("frames", "frame", quiet=self.quiet) as advance:
            while True:
                _options.Interrupts.raise_if_pending()
                item = self.times.step("reading", lambda: next(items, None))
                if item is None:
                    break
                if self.n_frames == 0:
                    note = "compiling kernels (first run on this machine only) ..."
                    with note_if_slow(note, 2.0, self.quiet):
                        verdict = self.times.step("sums", lambda: self._judge(item.label, item.atoms))  # noqa: B023
                else:
                    verdict = self.times.step("sums", lambda: self._judge(item.label, item.atoms))  # noqa: B023
                self._pass(item, verdict)
                if verdict.flagged:
                    self._flag(item, verdict)
                elif self.journal is not None and time.monotonic() - noted > NOTE_EVERY:
                    self.journal.add(b"", self._state())
                    noted = time.monotonic()
                advance(1)
        if self.n_atoms == 0:
            raise DataError(f"the selection {self.options['select']!r} names no atom in any frame")

    def _judge(self, label: str, atoms: Any) -> Verdict:
        asked = None
        if self.options["select"] is not None:
            asked = selected_atoms(atoms, self.options["select"], label)
        return self.filter.judge(as_frame(atoms, label), asked)

    def _pass(self, item: Item, verdict: Verdict) -> None:
        """Count a frame, and note where the next one begins."""
        self.n_frames += 1
        self.n_atoms += verdict.n_asked
        self.largest = max(self.largest, verdict.n_asked)
        heads = self.state["heads"]
        if self.follow:
            heads["0"] = [item.end.offset, item.digest]
        else:
            path = split_index(self.files[item.file])[0]
            if str(item.file) not in heads and os.path.isfile(path):
                size, hashed = hash_of(path, HEAD)
                heads[str(item.file)] = [size, hashed.hexdigest()]
            self.state["read"][str(item.file)] = [item.count + 1, item.digest]
        self.state |= {"file": item.file, "count": item.count + 1, "last": _where(item.label, "")[1], "heads": heads}
        self.state |= {"number": item.end.number, "offset": item.end.offset}
        self.state |= {"n_frames": self.n_frames, "n_atoms": self.n_atoms, "largest": self.largest}
        self.state |= {"unseen": sorted(self.filter.unseen)}
        share = verdict.n_novel / verdict.n_asked if verdict.n_asked else 0.0
        for values, value in zip(self.judged, (item.file, self.state["last"], share), strict=True):
            values.append(value)

    def _state(self) -> dict[str, Any]:
        """What the next line of the journal says: where the run is, and which frames it has judged since the last."""
        judged = [values[self.noted :].tolist() for values in self.judged]
        self.noted = len(self.judged[0])
        return {**self.state, "judged": judged}

    def _flag(self, item: Item, verdict: Verdict) -> None:
        """Score a flagged frame; write it, and note it down."""
        dh = self.times.step("sums", lambda: self.filter.score(verdict))
        asked = np.arange(len(dh))
        if self.options["select"] is not None:
            asked = selected_atoms(item.atoms, self.options["select"], item.label)
        worst = int(asked[dh[asked].argmax()])
        write = verdict.new or self.options["keep_all"]
        name, number = _where(item.label, self.files[item.file])
        found = {
            "label": item.label, "index": number, "file": item.file, "count": item.count,
            "n_novel": verdict.n_novel, "n_environments": verdict.n_asked, "novelty": verdict.n_novel / verdict.n_asked,
            "mean_dh": float(dh[asked].mean()), "max_dh": float(dh[worst]),
            "max_scaled_dh": verdict.largest if self.filter.scaled else None,
            "worst_atom": worst, "worst_element": item.atoms.symbols[worst],
            "written": write and self.output is not None,
        }  # fmt: skip
        if write and not self.options["keep_all"]:
            self.filter.keep(verdict)
        found["new"] = verdict.new
        self.flagged.append(found)
        if self.journal is not None:
            record = b""
            if write:
                values = np.full(len(dh), np.nan)
                values[asked] = dh[asked]
                record = self._record(item, values, name, number, verdict)
            entry = {"flagged": found, "begin": [item.begin.number, item.begin.offset]}
            self.times.step("writing", lambda: self.journal.add(record, {**self._state(), **entry}))  # type: ignore[union-attr]
        if self.follow and not self.quiet:
            self._announce(found)

    def _record(self, item: Item, dh: np.ndarray, name: str, number: int, verdict: Verdict) -> bytes:
        """A frame as extended XYZ: all that it carries, dH, and where it comes from."""
        from ase.io.extxyz import write_extxyz

        atoms, reference = item.atoms, self.known.reference
        atoms.arrays["dH"] = dh
        atoms.arrays["is_novel"] = verdict.novel
        atoms.info |= {
            "dH_source": name, "dH_frame": number, "dH_novel": verdict.n_novel, "dH_threshold": self.filter.threshold,
            "dH_scaled": self.filter.scaled,
            "dH_scope": self.known.scope, "dH_bandwidth": reference.bandwidth, "dH_k": reference.k,
            "dH_cutoff": reference.cutoff, "dH_species": reference.species,
        }  # fmt: skip
        make_writable(atoms, item.label)
        stream = StringIO()
        try:
            write_extxyz(stream, [atoms])
        except (ValueError, TypeError, KeyError) as error:
            raise DataError(f"{item.label}: cannot be written as extended XYZ ({error})") from error
        text = stream.getvalue().encode("utf-8")
        assert self.output is not None
        return gzip.compress(text, mtime=0) if self.output.endswith(".gz") else text

    # --- after the work -----------------------------------------------------------------------------------------------

    def _write_documents(self) -> None:
        options, known = self.options, self.known
        if options["plot_file"]:
            self._plot(self._may_replace("plot_file"))
            self._note_written("plot_file")
        rule = {name: options[name] for name in ("min_atoms", "min_share", "every", "select")}
        auto = options["threshold"] == "auto"
        document = {
            **known.parameters(), **rule, "all": options["keep_all"], "output": self.output,
            "scope": {"dH": known.scope, "frames.mean_dh": known.scope, "frames.max_dh": known.scope},
            "threshold": self.filter.threshold, "threshold_source": self._threshold_source(),
            "scaled": self.filter.scaled,
            "false_alarm": options["false_alarm"] if auto else None,
            "false_alarm_of": options["false_alarm_of"] if auto else None,
            "n_frames": self.n_frames, "n_environments": self.n_atoms, "n_flagged": len(self.flagged),
            "n_written": sum(found["written"] for found in self.flagged),
            "unseen_elements": sorted(self.filter.unseen), "incomplete_frame": self.left or None,
            "frames": [
                {name: found[name] for name in found if name not in ("file", "count")} for found in self.flagged
            ],
        }  # fmt: skip
        shown = options | {"overwrite": self._may_replace("json_file")}
        _tell.write_document("filter", self.files, shown, document, self.times, self.jobs)
        self._note_written("json_file")

    def _may_replace(self, kind: str) -> bool:
        """Whether a document may be replaced: asked for, or because this run wrote it before it was broken off."""
        if self.journal is not None and self.journal.resumed and self.journal.state.get(kind) == self.options[kind]:
            return True
        return bool(self.options["overwrite"])

    def _note_written(self, kind: str) -> None:
        """That a document is of this run: not before it was written, for until then it may be somebody else's."""
        if self.journal is not None and self.options[kind]:
            self.journal.add(b"", {kind: self.options[kind]})

    def _threshold_source(self) -> str:
        options = self.options
        if options["threshold"] != "auto":
            return "given"
        what = "frames flagged" if options["false_alarm_of"] == "frame" else "atoms novel"
        chosen = f" ({options['select']})" if options["select"] else ""
        return (
            f"auto: {100 * options['false_alarm']:.3g}% of the {what}{chosen} when the reference judges its own "
            "left-out groups"
        )

    def _table(self) -> None:
        options, n = self.options, len(self.flagged)
        every = f", every {options['every']}th" if options["every"] > 1 else ""
        need = [f"at least {options['min_atoms']} novel atom{'s' if options['min_atoms'] > 1 else ''}"]
        if options["min_share"] > 0.0:
            need.append(f"{options['min_share']:.3g} of its atoms")
        chosen = f" ({options['select']})" if options["select"] else ""
        scaled = " of scaled dH" if self.filter.scaled else ""
        rows = [
            ("frames", f"{self.n_frames:,} judged{every}; {self.n_atoms:,} environments{chosen}"),
            *self.known.rows(),
            ("threshold", f"{self.filter.threshold:.4f} nats{scaled} ({self._threshold_source()})"),
            ("flagged", f"{_count(n, 'frame')} ({n / self.n_frames:.1%}) with {' and '.join(need)}"),
        ]
        if self.output:
            written = sum(found["written"] for found in self.flagged)
            rest = f"; {n - written:,} {'resembles' if n - written == 1 else 'resemble'} these" if n > written else ""
            rows.append(("written", f"{self.output}: {_count(written, 'frame')}{rest}" if written else "nothing"))
        _tell.rows([*rows, self.times.row(self.jobs)])
        if n and not self.follow:
            extra = f"{'scaled':>11}" if self.filter.scaled else ""
            click.echo(f"\n{'frame':>8}{'envs':>9}{'novel':>8}{'mean dH':>11}{'largest':>11}{extra}  of atom")
            for found in self.flagged[:MOST_LISTED]:
                told = f"{found['index']:8d}{found['n_environments']:9d}{found['n_novel']:8d}"
                told += f"{_number(found['mean_dh']):11.4f}{_number(found['max_dh']):11.4f}"
                if self.filter.scaled:
                    told += f"{_number(found['max_scaled_dh']):11.4f}"
                told += f"  {found['worst_element']} {found['worst_atom']}"
                several = f"  {stem(self.files[found['file']])}" if len(self.files) > 1 else ""
                click.echo(told + ("  written" if found["written"] else "") + several)
            if n > MOST_LISTED:
                click.echo(f"     ... and {n - MOST_LISTED:,} more: see --json")

    def _announce(self, found: dict[str, Any]) -> None:
        """One line at once, for a run that lasts."""
        click.echo(
            f"frame {found['index']}: {found['n_novel']} of {found['n_environments']} atoms novel, largest dH "
            f"{_number(found['max_dh']):.4g} nats ({found['worst_element']} {found['worst_atom']})"
            + (", written" if found["written"] else "")
        )

    def _warn(self) -> None:
        options, reference = self.options, self.known.reference
        self.known.warn()
        if self.left:
            warn(f"{self.left}, and was left out")
        if self.filter.unseen:
            warn(f"the reference has never seen {' '.join(sorted(self.filter.unseen))}: these atoms are novel")
        if self.flagged and options["threshold"] == "auto" and options["false_alarm_of"] == "frame":
            most = int(np.diff(reference.frame_offsets).max())
            if self.largest > LARGER * most:
                warn(
                    f"frames of up to {self.largest:,} atoms were judged, and the largest of the reference holds "
                    f"{most:,}: of such frames, more than {100 * options['false_alarm']:.3g}% may be flagged falsely "
                    "(--false-alarm-of atom does not depend on size)"
                )
        if not options["type_map"] and any(map(holds_bare_types, self.files)):
            known = element_symbols(reference.numbers)
            warn(f"atom types were read as elements (the reference holds {' '.join(known)}); --type-map 1=Cu,... helps")

    def _plot(self, overwrite: bool) -> None:
        def column(name: str) -> np.ndarray:
            return np.array([_number(found[name]) for found in self.flagged], np.float64)

        files, numbers, shares = (np.array(values) for values in self.judged)
        lasts = np.zeros(len(self.files), np.int64)  # files stand one after the other
        np.maximum.at(lasts, files, numbers + 1)
        offsets = np.concatenate([[0], np.cumsum(lasts)])
        frames = np.array([found["index"] + offsets[found["file"]] for found in self.flagged], np.int64)
        plots_novel.plot_flagged(
            self.options["plot_file"], frames=frames,
            largest=column("max_scaled_dh" if self.filter.scaled else "max_dh"), share=column("novelty"),
            kept=np.array([found["new"] or self.options["keep_all"] for found in self.flagged], bool),
            judged=numbers + offsets[files], judged_share=shares, threshold=self.filter.threshold,
            scaled=self.filter.scaled,
            title=f"{', '.join(map(stem, self.files[:3]))} given {', '.join(map(stem, self.known.names[:3]))}",
            overwrite=overwrite,
        )  # fmt: skip


def fingerprint(reference: Reference) -> str:
    """A number for the contents of a reference, and its parameters in words."""
    check = 0
    for part in (reference.x, reference.numbers, reference.frame_offsets):
        check = zlib.crc32(np.ascontiguousarray(part).view(np.uint8).data, check)
    told = ", ".join(f"{name} {value}" for name, value in reference.parameters.items())
    return f"{len(reference)} environments, {told}, crc32 {check:08x}"


def _where(label: str, spec: str) -> tuple[str, int]:
    """Name of the file without its folder, and number of a frame in it, or in what its index selects."""
    path, index = split_index(spec)
    number = int(re.findall(r", frame (\d+)", label)[-1])
    counted = label.endswith("of the selection")
    return stem(path) + (f"@{index}" if counted else ""), number


def _number(value: float | None) -> float:
    """A number from JSON, which knows no infinity."""
    return math.inf if value is None else value


def _count(n: int, what: str) -> str:
    return f"{n:,} {what}" + ("" if n == 1 else "s")
