"""Frames from the files of a command line to environments, with what later steps need of each frame."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from quests_zenn._core.checks import DataError
from quests_zenn._core.parallel import resolve_jobs
from quests_zenn._core.progress import note_if_slow, progress_bar
from quests_zenn.cli import _options
from quests_zenn.cli._tell import warn
from quests_zenn.descriptors import Environments, describe, element_symbols, volume_per_atom
from quests_zenn.entropy import DEFAULT_BANDWIDTH, get_all_metrics, get_bandwidth
from quests_zenn.io.frames import Frame, holds_bare_types, read_atoms, read_frames, selected_atoms, split_index
from quests_zenn.io.outputs import check_output, make_writable, write_scored
from quests_zenn.io.plots import check_plot

#: Endings of frames with scores, and of environments alone.
SCORED = (".xyz", ".extxyz")
MATRIX = (".npz", ".npy")

#: Share of environments with fewer than k neighbours from which on the user is told.
MANY_INCOMPLETE = 0.1


class Source:
    """Some files, read and described once.

    Parameters
    ----------
    files : names, each with an ASE index or without
    options : those of the command; missing ones have their default
    volumes : whether the volume per atom of each frame is wanted; by default where a bandwidth comes from it
    """

    def __init__(self, files: tuple[str, ...], options: dict[str, Any], volumes: bool | None = None) -> None:
        self.files, self.options = files, options
        self.jobs = resolve_jobs(options["jobs"])
        self.quiet: bool = options["quiet"]
        self.select: str | None = options.get("select")
        self.by: str | None = options.get("by")
        self.scores = bool(options.get("output")) and not options["output"].endswith(MATRIX)
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

    def stream(self) -> Iterator[Frame]:
        """Frames from the files; what later steps need of each is noted down in passing."""
        source = itertools.chain.from_iterable(self._frames_of(spec) for spec in self.files)
        while True:
            _options.Interrupts.raise_if_pending()
            before = time.perf_counter()
            frame = next(source, None)
            self.seconds["reading"] += time.perf_counter() - before
            if frame is None:
                return
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

    def _frames_of(self, spec: str) -> Iterator[Frame]:
        self.spec = spec
        return read_frames(
            [spec],
            type_map=self.options.get("type_map"),
            energy_key=self.options.get("energy_key"),
            on_atoms=self._note,
        )

    def _note(self, label: str, atoms: Any) -> None:
        if self.scores:
            make_writable(atoms, label)  # now, not after all the work
        if self.select is not None:
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

    def describe(self) -> Environments:
        """Read everything; the environments asked about are `x`, of the frames `owner`."""
        before = time.perf_counter()
        with progress_bar("descriptors", "env", quiet=self.quiet) as advance:
            options = self.options
            env = describe(
                self.stream(),
                options["k"],
                options["cutoff"],
                options["species"],
                self.dtype,
                elements=options.get("elements"),
                jobs=self.jobs,
                progress=advance,
            )
        self.seconds["descriptors"] = time.perf_counter() - before - self.seconds["reading"]
        self.environments = env
        self.x, self.numbers = env.x, env.numbers
        self.owner = np.repeat(np.arange(len(self.lengths)), self.lengths)
        if self.select is not None:
            self.chosen = np.concatenate(
                [rows + start for rows, start in zip(self.selection, env.frame_offsets[:-1], strict=True)]
            )
            if len(self.chosen) == 0:
                raise DataError(f"the selection {self.select!r} names no atom in any frame")
            self.x, self.numbers = self.x[self.chosen], self.numbers[self.chosen]
            self.owner = self.owner[self.chosen]
        return env

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
            ("descriptor", f"k = {env.k}, cutoff {env.cutoff:g} Å, species {env.species}"),
        ]

    def warn(self, prefix: str = "") -> None:
        """What one should know of these environments."""
        env, n = self.environments, len(self.x)
        incomplete, tied = self.flagged()
        if incomplete > MANY_INCOMPLETE * n:
            warn(
                f"{prefix}{incomplete / n:.0%} of the atoms asked about have fewer than k = {env.k} neighbours within "
                f"{env.cutoff:g} Å (missing places count as zero); a larger --cutoff or a smaller --k resolves more"
            )
        if tied:
            warn(
                f"{prefix}{tied} of {n} environments have equal distances across place k = {env.k} "
                "(perfect crystals): their X2 depends on the orientation of the cell"
            )
        elements = element_symbols(env.numbers)
        looks_like_types = elements == element_symbols(np.arange(1, len(elements) + 1))
        if looks_like_types and not self.options.get("type_map") and any(map(holds_bare_types, self.files)):
            told = f"atom types were read as elements ({' '.join(elements)})"
            warn(f"{prefix}{told}; --type-map 1=Cu,... names the real ones")
        if "auto" in self.requested and self.volumes and max(self.volumes) > 1.1 * min(self.volumes):
            warn(
                f"{prefix}volumes per atom range from {min(self.volumes):.1f} to {max(self.volumes):.1f} Å3; "
                "--bandwidth auto took their mean"
            )


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
    MATRIX: "environments are written as .npz (with all that is known of them) or .npy (the matrix alone)",
}
