"""The course of ``quests-zenn map``. Imported only when it really runs."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from quests_zenn import entropy as room
from quests_zenn._core.checks import DataError
from quests_zenn._core.parallel import Workers
from quests_zenn._core.progress import progress_bar
from quests_zenn.cli import _known, _options, _tell
from quests_zenn.cli._density import _bandwidth_row, _elements_of, _finish, _one_bandwidth
from quests_zenn.cli._run import SCOPE_RUN
from quests_zenn.cli._source import Source, check_outputs, needs_frames, with_stores
from quests_zenn.cli._tell import warn
from quests_zenn.descriptors import element_symbols
from quests_zenn.entropy.coordinates import MapCoordinates, map_coordinates
from quests_zenn.io import chemiscope
from quests_zenn.io.frames import Facts, read_atoms, stem
from quests_zenn.io.outputs import check_output, frame_mark
from quests_zenn.io.plots_map import plot_map
from quests_zenn.io.tables import write_table

#: Endings of data sets of chemiscope, and of tables.
DATASET = (".json", ".json.gz")
TABLE = (".csv", ".csv.gz")

#: What a map shows where nothing else is asked for; a viewer in a browser is quick with so much. The atoms are those of
#: all frames in the map together.
MOST_FRAMES, MOST_ATOMS, MOST_ENVIRONMENTS = 500, 200_000, 10_000

#: Share of frames and environments in the map that are those with the largest dH, where not all are in it.
RARE_SHARE = 0.1

#: Structures of up to so many atoms are shown with their neighbour cells, so that environments are whole.
SMALL = 100

#: What is taken over from a frame: so many properties, and letters of a text.
MOST_PROPERTIES, MOST_LETTERS = 20, 100

#: Quantiles of dH between which colours change, where dH ranges far.
COLOURS = (0.01, 0.99)

AXES = {"pca": "PCA", "tsne": "tSNE"}


class _MapSource(Source):
    """A source that knows its frames again when they are read once more."""

    def __init__(self, files: tuple[str, ...], options: dict[str, Any]) -> None:
        super().__init__(files, options | {"output": None}, False if options["reference"] else None)
        if self.stores and options["output"].endswith(DATASET):
            needs_frames(next(iter(self.stores)), "a data set for chemiscope")
        self.marks: list[int] = []
        self.kinds: list[Any] = []

    def _note(self, label: str, atoms: Any) -> None:
        super()._note(label, atoms)
        if not isinstance(atoms, Facts):
            self.marks.append(frame_mark(atoms))
        self.kinds.append(atoms.info.get("config_type"))

    def atom_numbers(self) -> np.ndarray:
        """Number of each environment asked about within its frame."""
        rows = np.arange(len(self.x)) if self.chosen is None else self.chosen
        return rows - self.environments.frame_offsets[self.owner]


@dataclass
class _Drawn:
    """What is in the map."""

    frames: np.ndarray  # numbers of frames, ascending
    rows: np.ndarray  # environments, ascending
    rare_frames: int  # so many of them for their dH
    is_rare: np.ndarray  # of the environments
    limited: list[str] = field(default_factory=list)  # what the rule left out


def draw_map(files: tuple[str, ...], options: dict[str, Any]) -> None:
    """Coordinates and dH of environments, for viewers and tables."""
    references: tuple[str, ...] = options["reference"]
    check_outputs((*files, *references), options)
    output: str = options["output"]
    if not output.endswith(DATASET + TABLE):
        raise DataError(
            f"{output}: a map is written for chemiscope as .json or .json.gz, or as a table, .csv or .csv.gz; "
            "its name must end in one of them"
        )
    if output.endswith(DATASET):
        chemiscope.check_chemiscope()  # now, not after all the work
    times = _tell.Times()
    known, elements, options = _reference(files, references, options, times)
    source = _MapSource(files, options | {"elements": elements})
    if len(source.requested) > 1:
        raise DataError("this command takes one --bandwidth, got several")
    source.warm_up()
    source.describe()
    for step, seconds in source.seconds.items():
        times.seconds[step] = times.seconds.get(step, 0.0) + seconds
    _options.Interrupts.raise_if_pending()
    h, origin = _bandwidth(known, source)
    found = _dh(source, known, h, options, times)
    scope = SCOPE_RUN if known is None else "the reference: " + ", ".join(references)
    drawn = _draw(source, found.values, options)
    if options["plot_file"] and not np.isfinite(found.values[drawn.rows]).any():
        raise DataError(
            f"{', '.join(files)}: dH is infinite everywhere (the reference has none of the elements): no plot"
        )
    coordinates = times.step(
        "coordinates",
        lambda: map_coordinates(
            source.x, drawn.rows, method=options["method"], n_coordinates=options["dimensions"],
            random_state=options["seed"],
        ),
    )  # fmt: skip
    course = _Map(files, options, source, h, scope, found, drawn, coordinates)
    course.frame_entropies()
    check_output(output, options["overwrite"])
    times.step("writing", course.write)
    course.plot()
    _told(course, known, references, origin, times)


def _reference(
    files: tuple[str, ...], references: tuple[str, ...], options: dict[str, Any], times: _tell.Times
) -> tuple[Source | _known.Saved | None, list[str] | None, dict[str, Any]]:
    """What dH is given, the elements whose columns are wanted, and the options that the reference fixes."""
    if not references:
        return None, None, options
    if any(map(_known.is_saved, references)):
        reference = _known.open_reference(references, options, times=times)
        options = with_stores(options | reference.parameters | {"agreed_with": references[0]}, files)
        asked = () if reference.species == "none" else _elements_of(files, options)
        saved = _known.Saved(reference, asked, options["precision"])
        saved_elements = None if reference.species == "none" else saved.elements
        return saved, saved_elements, options | {"saved_bandwidth": reference.bandwidth}
    options = with_stores(options, (*references, *files))
    elements = None if options["species"] == "none" else _elements_of((*files, *references), options)
    known = Source(references, options | {"select": None, "elements": elements, "output": None, "energy_key": None})
    if len(known.requested) > 1:
        raise DataError("this command takes one --bandwidth, got several")
    known.warm_up()
    known.describe()
    for step, seconds in known.seconds.items():
        times.seconds[step] = times.seconds.get(step, 0.0) + seconds
    return known, elements, options


def _bandwidth(known: Source | _known.Saved | None, source: Source) -> tuple[float, str]:
    if isinstance(known, _known.Saved):
        return source.options["saved_bandwidth"], "of the reference"
    h, origin = _one_bandwidth(source if known is None else known)
    if known is not None and origin.startswith("auto"):  # what is asked about may be anything
        origin += " of the reference"
    return h, origin


def _dh(
    source: Source, known: Source | _known.Saved | None, h: float, options: dict[str, Any], times: _tell.Times
) -> room.DeltaEntropyEstimate:
    """dH of all environments asked about, given the reference or all of the run."""
    x = None if known is None else known.x
    # the reference decides whether elements are told apart
    labels = source.centres if known is None or known.centres is not None else None
    with (
        Workers(source.jobs) as workers,
        progress_bar("kernel sums", "pair", quiet=source.quiet) as advance,
    ):
        return times.step(  # type: ignore[no-any-return]
            "sums",
            lambda: room.approx_delta_entropy(
                source.x, x, h, estimator=options["estimator"], y_labels=labels,
                x_labels=None if known is None else known.centres, random_state=options["seed"],
                precision=options["precision"], workers=workers, progress=advance,
            ),
        )  # fmt: skip


def _draw(source: Source, dh: np.ndarray, options: dict[str, Any]) -> _Drawn:
    """Frames and environments of the map: a few with the largest dH, the others evenly spaced, or at random."""
    viewer = options["output"].endswith(DATASET)
    frames, owner, sizes = np.unique(
        source.owner, return_inverse=True, return_counts=True
    )  # others hold none asked for
    most_frames = options["frames"]
    if most_frames is None and viewer:
        mean_atoms = np.asarray(source.lengths)[frames].mean()
        most_frames = max(1, min(MOST_FRAMES, int(MOST_ATOMS / mean_atoms)))
    limited, rare_frames = [], 0
    chosen = np.arange(len(frames))
    if most_frames is not None and len(frames) > most_frames:
        largest = np.maximum.reduceat(dh, np.concatenate([[0], np.cumsum(sizes)[:-1]]))
        rare_frames = int(RARE_SHARE * most_frames)
        rare = np.argsort(-largest, kind="stable")[:rare_frames]
        others = np.setdiff1d(chosen, rare)
        spaced = others[np.arange(most_frames - rare_frames) * len(others) // (most_frames - rare_frames)]
        chosen = np.sort(np.concatenate([rare, spaced]))
        limited.append("frames")
    rows = np.flatnonzero(np.isin(owner, chosen))
    most = options["environments"]
    if most is None and (viewer or options["method"] == "tsne"):
        most = MOST_ENVIRONMENTS
    is_rare = np.zeros(len(rows), bool)
    if most is not None and len(rows) > most:
        n_rare = int(RARE_SHARE * most)
        rare = rows[np.argsort(-dh[rows], kind="stable")[:n_rare]]
        others = np.setdiff1d(rows, rare)
        drawn = np.random.default_rng(options["seed"]).choice(others, most - n_rare, replace=False)
        rows = np.sort(np.concatenate([rare, drawn]))
        is_rare = np.isin(rows, rare)
        limited.append("environments")
    present = np.unique(source.owner[rows])  # frames of which nothing was drawn are left out
    return _Drawn(present, rows, rare_frames, is_rare, limited)


class _Map:
    """One map: what is known of its environments and frames, and how it is written."""

    def __init__(
        self, files: tuple[str, ...], options: dict[str, Any], source: _MapSource, h: float, scope: str,
        found: room.DeltaEntropyEstimate, drawn: _Drawn, coordinates: MapCoordinates,
    ) -> None:  # fmt: skip
        self.files, self.options, self.source, self.h, self.scope = files, options, source, h, scope
        self.found, self.drawn, self.coordinates = found, drawn, coordinates
        self.dh = found.values[drawn.rows]
        self.owner = source.owner[drawn.rows]
        self.atoms = source.atom_numbers()[drawn.rows]
        self.elements = _symbols(source.numbers[drawn.rows])
        self.axes = [f"{AXES[coordinates.method]}_{i + 1}" for i in range(options["dimensions"])]
        finite = found.values[np.isfinite(found.values)]
        #: what stands for an infinite dH in the map: more than any other
        self.stand_in = max(0.0, float(finite.max(initial=0.0))) + 10.0
        self.n_infinite = int(np.count_nonzero(np.isinf(found.values)))
        in_map = source.owner[np.isin(source.owner, drawn.frames)]
        values = found.values[np.isin(source.owner, drawn.frames)]
        starts = np.flatnonzero(np.diff(in_map, prepend=-1))
        self.sizes = np.diff(np.append(starts, len(in_map)))
        self.mean_dh = np.add.reduceat(values, starts) / self.sizes
        self.max_dh = np.maximum.reduceat(values, starts)
        self.infos: dict[str, list[Any]] = {}

    def frame_entropies(self) -> None:
        """Own entropy of the frames in the map, of their environments that were asked about."""
        source, options = self.source, self.options
        asked = np.flatnonzero(np.isin(source.owner, self.drawn.frames))
        if room.is_exact("auto", int(self.sizes.max())):
            labels = None if source.centres is None else source.centres[asked]
            found = room.group_metrics(
                source.x[asked], self.h, source.owner[asked], labels=labels, precision=options["precision"],
                jobs=source.jobs,
            )  # fmt: skip
            self.entropy = np.asarray(found.entropy).reshape(-1)  # one bandwidth
            return
        rng = np.random.default_rng(options["seed"])
        values = []
        for rows in np.split(asked, np.cumsum(self.sizes)[:-1]):
            labels = None if source.centres is None else source.centres[rows]
            values.append(
                room.estimate_entropy(
                    source.x[rows], self.h, labels=labels, random_state=rng, precision=options["precision"],
                    jobs=source.jobs,
                ).value
            )  # fmt: skip
        self.entropy = np.asarray(values, np.float64)

    # ------------------------------------------------------------------ files

    def write(self) -> None:
        if self.options["output"].endswith(TABLE):
            self._write_table()
        else:
            self._write_dataset()

    def _write_table(self) -> None:
        source = self.source
        columns: dict[str, Any] = {
            "file": [stem(source.specs[f]) for f in self.owner],
            "frame": self.owner,
            "atom": self.atoms,
            "element": self.elements,
            "dH": self.dh,
        }
        errors = self.found.standard_error[self.drawn.rows]
        if errors.any():
            columns["dH_error"] = errors
        columns |= dict(zip(self.axes, self.coordinates.values.T, strict=True))
        write_table(self.options["output"], columns, self.options["overwrite"])

    def _write_dataset(self) -> None:
        source, options, drawn = self.source, self.options, self.drawn
        structures, kept = self._read_again()
        place = np.searchsorted(drawn.frames, self.owner)
        finite = np.where(np.isfinite(self.dh), self.dh, self.stand_in)
        infinite = f"; {self.stand_in:.7g} stands for infinity (element unknown to the reference)"
        infinite = infinite if self.n_infinite else ""
        properties: dict[str, dict[str, Any]] = {}

        def add(name: str, target: str, values: Any, description: str, units: str = "") -> None:
            if name in properties:
                name = f"{name} of the file"
            properties[name] = {"target": target, "values": values, "description": description}
            if units:
                properties[name]["units"] = units

        for i, name in enumerate(self.axes):
            told = "t-SNE of the environments in this map; distances mean nothing"
            if self.coordinates.explained is not None:
                share = self.coordinates.explained[i]
                told = f"principal axis {i + 1} of all environments: {share:.1%} of their variance"
            add(name, "atom", self.coordinates.values[:, i], told, "1/Å" if options["method"] == "pca" else "")
        add("dH", "atom", finite, f"dH given {self.scope}{infinite}", "nats")
        if self.n_infinite:
            add("dH_is", "atom", np.where(np.isfinite(self.dh), "finite", "infinite").tolist(), "whether dH is finite")
        add("element", "atom", self.elements, "element of the atom")
        add("frame", "atom", self.owner.astype(float), "number of the frame within the run, from 0")
        if drawn.is_rare.any():
            told = "why the environment is in the map"
            add("drawn", "atom", np.where(drawn.is_rare, "largest dH", "at random").tolist(), told)
        for name, values, told in (
            ("mean_dH", self.mean_dh, f"mean dH of the frame given {self.scope}{infinite}"),
            ("max_dH", self.max_dh, f"largest dH of the frame given {self.scope}{infinite}"),
            ("H", self.entropy, "entropy of the frame alone"),
        ):
            add(name, "structure", np.where(np.isfinite(values), values, self.stand_in), told, "nats")
        add("frame_number", "structure", drawn.frames.astype(float), "number of the frame within the run, from 0")
        for name, (frame_values, told, units) in self._frame_properties().items():
            add(name, "structure", frame_values, told, units)
            # the map of environments can be coloured by properties of environments only
            add(f"frame.{name}", "atom", [frame_values[p] for p in place], told, units)
        for name, atom_values in kept.items():
            add(name, "atom", atom_values, "from the file")
        chemiscope.write_dataset(
            options["output"],
            name=", ".join(map(stem, self.files[:3])) + (" ..." if len(self.files) > 3 else ""),
            description=self._description(),
            structures=structures,
            environments=[(int(p), int(a), source.environments.cutoff) for p, a in zip(place, self.atoms, strict=True)],
            properties=properties,
            settings=self._settings(finite, structures),
            overwrite=options["overwrite"],
        )

    def _read_again(self) -> tuple[list[dict[str, Any]], dict[str, np.ndarray]]:
        """Structures of the map, and numbers that all of them carry for each atom; their infos are noted down."""
        source, drawn = self.source, self.drawn
        wanted = set(drawn.frames.tolist())
        structures: list[dict[str, Any]] = []
        arrays: list[dict[str, np.ndarray]] = []
        infos: list[dict[str, Any]] = []
        for number, (label, atoms) in enumerate(self._atoms(int(drawn.frames[-1]))):
            if number >= len(source.marks) or frame_mark(atoms) != source.marks[number]:
                raise DataError(f"{label}: the input changed while it was in use")
            if number not in wanted:
                continue
            symbols = _symbols(atoms.numbers)
            structures.append(chemiscope.as_structure(symbols, atoms.positions, atoms.cell.array, atoms.pbc))
            own = self.atoms[self.owner == number]
            arrays.append({name: values[own] for name, values in _numbers_of(atoms).items()})
            infos.append(_told_by(atoms))
        if len(structures) != len(drawn.frames):
            raise DataError(f"{', '.join(self.files)}: the input changed while it was in use")
        self.infos = _common(infos)
        return structures, {
            name: np.concatenate([values[name] for values in arrays])
            for name in arrays[0]
            if all(name in values for values in arrays)
            and _varies([value for values in arrays for value in values[name].tolist()])
        }

    def _atoms(self, last: int) -> Iterator[tuple[str, Any]]:
        chain = itertools.chain.from_iterable(read_atoms(spec, self.options["type_map"]) for spec in self.files)
        for item in itertools.islice(chain, last + 1):
            _options.Interrupts.raise_if_pending()
            yield item

    def _frame_properties(self) -> dict[str, tuple[list[Any], str, str]]:
        """What frames say of themselves: values, description, units."""
        source, frames = self.source, self.drawn.frames.tolist()
        found: dict[str, tuple[list[Any], str, str]] = {}
        if len(set(source.specs)) > 1:
            found["file"] = ([stem(source.specs[f]) for f in frames], "file of the frame", "")
        units = {"energy": "eV", "temperature": "K", "time": "ps"}
        for name in units:
            values = [source.properties[f].get(name) for f in frames]
            if any(value is None for value in values):
                continue
            if name == "energy":
                per_atom = [value / source.lengths[f] for f, value in zip(frames, values, strict=True)]  # type: ignore[operator]
                found["energy_per_atom"] = (per_atom, "energy of the frame per atom", "eV")
            elif _varies(values):
                found[name] = (values, f"{name} of the frame", units[name])
        for name, values in self.infos.items():
            if name not in found and name not in ("energy", "time_ps"):
                found[name] = (values, "from the comment line or info of the frame", "")
        return found

    def _description(self) -> str:
        source, drawn, env = self.source, self.drawn, self.source.environments
        lines = [
            f"dH of environments given {self.scope}, bandwidth {self.h:.6g} 1/Å.",
            f"Descriptor: k = {env.k}, cutoff {env.cutoff:g} Å, species {env.species}.",
            f"{len(drawn.rows)} of {len(source.x)} environments in {len(drawn.frames)} of {len(source.lengths)} frames"
            + (f", {self.rule()}" if drawn.limited else "")
            + ".",
        ]
        if self.n_infinite:
            lines.append(f"A dH of {self.stand_in:.7g} stands for infinity: the reference does not know the element.")
        return " ".join([*lines, "Made by quests_zenn."])

    def rule(self) -> str:
        """How frames and environments were chosen, where not all are in the map."""
        parts = []
        if "frames" in self.drawn.limited:
            n = self.drawn.rare_frames
            rare = f"{n} frame{'s' * (n != 1)} with the largest dH and others evenly spaced"
            parts.append(rare if n else "frames evenly spaced")
        if "environments" in self.drawn.limited:
            n = int(self.drawn.is_rare.sum())
            rare = f"{n:,} environment{'s' * (n != 1)} with the largest dH and others at random"
            parts.append((rare if n else "environments at random") + f" (seed {self.options['seed']})")
        return "; ".join(parts)

    def colour_range(self) -> tuple[float, float]:
        """dH between which colours change: all of it, unless a few rare environments would take all the colours."""
        finite = self.dh[np.isfinite(self.dh)]
        if len(finite) == 0:
            return 0.0, 1.0
        low, high = float(finite.min()), float(finite.max())
        most = np.quantile(finite, COLOURS)
        if high - low > 2.0 * (most[1] - most[0]) > 0.0:
            low, high = most.tolist()
        return (low, high) if high > low else (low - 0.5, high + 0.5)

    def _settings(self, dh: np.ndarray, structures: list[dict[str, Any]]) -> dict[str, Any]:
        low, high = self.colour_range()
        colour = {"property": "dH", "palette": "viridis", "min": low, "max": high}
        periodic = any("cell" in structure for structure in structures)
        small = periodic and max(structure["size"] for structure in structures) <= SMALL
        shown: dict[str, Any] = {name: {"property": axis} for name, axis in zip("xyz", self.axes, strict=False)}
        shown["color"] = colour
        if len(set(self.elements)) > 1:
            shown["symbol"] = "element"
        return {
            "target": "atom",
            "map": shown,
            "structure": [{"unitCell": periodic, "supercell": [3, 3, 3] if small else [1, 1, 1]}],
        }

    def plot(self) -> None:
        if not self.options["plot_file"]:
            return
        labels = [name.replace("_", " ").replace("tSNE", "t-SNE") for name in self.axes[:2]]
        if self.coordinates.explained is not None:
            shares = self.coordinates.explained
            labels = [f"{name}, 1/Å ({share:.0%} of the variance)" for name, share in zip(labels, shares, strict=False)]
        what, classes, names = self._classes()
        short = "the reference" if self.options["reference"] else "all of the run"
        plot_map(
            self.options["plot_file"], coordinates=self.coordinates.values, labels=labels, dh=self.dh,
            colour_range=self.colour_range(), colour_label=f"dH given {short} (nats)", classes=classes, names=names,
            what=what, title=", ".join(map(stem, self.files[:3])), overwrite=self.options["overwrite"],
        )  # fmt: skip

    def _classes(self) -> tuple[str, np.ndarray | None, list[str]]:
        """By what the second panel is coloured: what frames call themselves, elements, or files."""
        place = np.searchsorted(self.drawn.frames, self.owner)
        kinds = ["(none)" if kind is None else str(kind) for kind in (self.source.kinds[f] for f in self.drawn.frames)]
        if 1 < len(set(kinds)) <= len(kinds) / 2:
            names = list(dict.fromkeys(kinds))
            return "config_type", np.array([names.index(kinds[p]) for p in place]), names
        if len(set(self.elements)) > 1:
            names = sorted(set(self.elements))
            return "element", np.array([names.index(element) for element in self.elements]), names
        files = [stem(self.source.specs[f]) for f in self.owner]
        if len(set(files)) > 1:
            names = list(dict.fromkeys(files))
            return "file", np.array([names.index(name) for name in files]), names
        return "", None, []


def _symbols(numbers: np.ndarray) -> list[str]:
    """Symbol of the element of each atom."""
    present, codes = np.unique(numbers, return_inverse=True)
    names = [element_symbols(present[i : i + 1])[0] for i in range(len(present))]
    return [names[code] for code in codes.tolist()]


def _numbers_of(atoms: Any) -> dict[str, np.ndarray]:
    """Finite numbers that a frame carries for each atom, and sizes of its forces."""
    found: dict[str, np.ndarray] = {}
    for name, values in itertools.chain(atoms.arrays.items(), getattr(atoms.calc, "results", {}).items()):
        array = np.asarray(values)
        if name in ("positions", "numbers") or array.dtype.kind not in "fiub" or array.shape[:1] != (len(atoms),):
            continue
        if array.ndim == 2 and array.shape[1] == 3 and "force" in name:
            name, array = f"|{name}|", np.linalg.norm(array, axis=1)
        if array.ndim == 1 and np.isfinite(array).all():
            found[str(name)] = array.astype(float)
    return found


def _told_by(atoms: Any) -> dict[str, Any]:
    """Numbers and words in the info of a frame."""
    found: dict[str, Any] = {}
    for key, value in atoms.info.items():
        if isinstance(value, np.generic):
            value = value.item()
        if isinstance(value, bool):
            value = str(value)
        if isinstance(value, str):
            value = os.fsencode(" ".join(value.split())).decode("utf-8", "replace")[:MOST_LETTERS]
        if isinstance(value, str) or (isinstance(value, int | float) and np.isfinite(value)):
            found[str(key)] = value
    return found


def _common(infos: list[dict[str, Any]]) -> dict[str, list[Any]]:
    """Keys of all frames whose values differ, as numbers or as words; words that are missing are ``(none)``."""
    found: dict[str, list[Any]] = {}
    for key in dict.fromkeys(key for info in infos for key in info):
        values = [info.get(key) for info in infos]
        words = any(isinstance(value, str) for value in values)
        if not words and None in values:
            continue
        column = [("(none)" if value is None else str(value)) if words else float(value) for value in values]  # type: ignore[arg-type]
        if _varies(column) and len(found) < MOST_PROPERTIES:
            found[key] = column
    return found


def _varies(values: list[Any]) -> bool:
    return any(value != values[0] for value in values)


def _told(
    course: _Map, known: Source | _known.Saved | None, references: tuple[str, ...], origin: str, times: _tell.Times
) -> None:
    """The document, the table, and warnings."""
    source, options, drawn, found = course.source, course.options, course.drawn, course.found
    values, explained = found.values, course.coordinates.explained
    quantiles = np.quantile(values, (0.05, 0.5, 0.95, 1.0), method="lower")  # interpolation would fail at infinity
    document: dict[str, Any] = {
        "bandwidth": course.h,
        "bandwidth_source": origin,
        "references": list(references),
        "scope": {"dH": course.scope, "frames.mean_dh": course.scope, "frames.max_dh": course.scope},
        "output": options["output"],
        "method": options["method"],
        "explained_variance": explained,
        "n_shown": len(drawn.rows),
        "n_frames_shown": len(drawn.frames),
        "rule": course.rule() or None,
        "mean_dh": values.mean(),
        "quantiles": dict(zip(("0.05", "0.5", "0.95", "1.0"), quantiles, strict=True)),
        "n_infinite": course.n_infinite,
        "infinite_as": course.stand_in if course.n_infinite else None,
        "estimator": found.estimator,
        "rms_error": found.rms_error,
        "frames": [
            {"index": int(f), "label": source.labels[f], "mean_dh": m, "max_dh": top, "entropy": own,
             "n_environments": int(n)}
            for f, m, top, own, n in zip(
                drawn.frames, course.mean_dh, course.max_dh, course.entropy, course.sizes, strict=True
            )
        ],
    }  # fmt: skip
    if known is not None:
        document |= {"n_reference": len(known.x), "reference_elements": known.parameters()["elements"]}
    low, middle, high, top = quantiles
    rows = [] if known is None else [("reference", f"{len(known.x):,} environments ({', '.join(references)})")]
    rows += [
        _bandwidth_row(course.h, origin),
        ("dH", f"5% below {low:.4f}, half below {middle:.4f}, 95% below {high:.4f}, largest {top:.4f} nats"),
        ("map", f"{len(drawn.rows):,} environments of {len(drawn.frames):,} frames"),
    ]
    rows += [("", f"not all: {course.rule()}")] if drawn.limited else []
    if explained is not None:
        shares = ", ".join(f"{name} {share:.1%}" for name, share in zip(course.axes, explained, strict=True))
        rows.append(("axes", f"{shares} of the variance"))
    if found.estimator != "exact":
        rows.append(
            ("estimator", f"{found.estimator}; single dH are off by {found.rms_error:.2g} nats (rms, measured)")
        )
    rows.append(("written", options["output"]))
    if not _finish("map", source, options, document, times, rows):
        return
    source.warn()
    if course.n_infinite:
        written = "inf" if options["output"].endswith(TABLE) else f"{course.stand_in:.7g}"
        n = f"{course.n_infinite:,} environment{'s' * (course.n_infinite != 1)}"
        warn(f"dH of {n} is infinite (the reference has never seen the element); it is written as {written}")
    if not np.ptp(course.coordinates.values, axis=0).any():
        warn("all environments in the map are alike, and lie on one point")
