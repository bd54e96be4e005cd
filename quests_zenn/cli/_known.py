"""What ``--reference`` names: a reference that was saved, or frames that become one."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import click
import numpy as np

from quests_zenn._core.checks import DataError
from quests_zenn.cli import _options, _tell
from quests_zenn.cli._source import Source, was_given
from quests_zenn.descriptors._layout import relayout
from quests_zenn.io.frames import split_index
from quests_zenn.uq import Reference

#: Ending of a saved reference.
QREF = ".qref"

#: Parameters that a saved reference has: names of the options, and of its attributes.
_FIXED = {"k": "k", "cutoff": "cutoff", "species": "species", "bandwidths": "bandwidth"}


@dataclass
class Known:
    """A reference, and what a command tells of it.

    Attributes
    ----------
    reference : Reference
    names : tuple of str
        As they were given.
    bandwidth_source : str
        Where the bandwidth comes from: ``default``, ``given``, ``auto: ...`` or ``of the reference``.
    source : Source or None
        The frames, where it was made from frames.
    """

    reference: Reference
    names: tuple[str, ...]
    bandwidth_source: str
    source: Source | None

    @property
    def scope(self) -> str:
        """What a dH given this reference refers to."""
        named = [os.fsencode(name).decode("utf-8", "replace") for name in self.names]
        return "the reference: " + ", ".join(named)

    def rows(self) -> list[tuple[str, str]]:
        """What every table says of its reference."""
        reference, h = self.reference, self.reference.bandwidth
        return [
            ("reference", f"{len(reference):,} environments ({', '.join(self.names)})"),
            ("descriptor", f"k = {reference.k}, cutoff {reference.cutoff:g} Å, species {reference.species}"),
            ("bandwidth", f"{h:.5g} 1/Å ({self.bandwidth_source})"),
        ]

    def parameters(self) -> dict[str, Any]:
        """What every document says of its reference."""
        reference = self.reference
        return {
            **reference.parameters,
            "bandwidth_source": self.bandwidth_source,
            "references": list(self.names),
            "n_reference": len(reference),
            "reference_elements": list(reference.elements),
        }

    def warn(self) -> None:
        """What one should know of the frames that became the reference."""
        if self.source is not None:
            self.source.warn("reference: ")


class Saved:
    """A saved reference in the place of a `Source`: its environments, in columns that hold more elements."""

    def __init__(self, reference: Reference, elements: Sequence[str], precision: str) -> None:
        self.elements = sorted({*reference.elements, *elements})
        self.x = relayout(reference.x, reference.elements, self.elements, reference.species, reference.k)
        if precision == "float32":
            self.x = self.x.astype(np.float32, copy=False)
        self.centres = reference.numbers if reference.tells_centres else None
        self._own = list(reference.elements)

    def parameters(self) -> dict[str, Any]:
        """What is told of the reference."""
        return {"elements": self._own}


def is_saved(name: str) -> bool:
    """Whether a name is that of a saved reference: by its ending, or because the file is a zip archive."""
    if name.endswith(QREF):
        return True
    if not os.path.isfile(split_index(name)[0]):
        return False  # whoever reads it says why; opening a pipe would wait for ever
    try:
        with open(split_index(name)[0], "rb") as stream:
            return stream.read(4) == b"PK\x03\x04"
    except OSError:
        return False  # whoever reads it says why


def open_reference(
    names: Sequence[str],
    options: dict[str, Any],
    ctx: click.Context | None = None,
    *,
    by: str | None = None,
    times: _tell.Times | None = None,
) -> Reference:
    """The reference that a command names. See `open_known`."""
    return open_known(names, options, ctx, by=by, times=times).reference


def open_known(
    names: Sequence[str],
    options: dict[str, Any],
    ctx: click.Context | None = None,
    *,
    by: str | None = None,
    times: _tell.Times | None = None,
) -> Known:
    """The reference that a command names, and what is to be told of it.

    Parameters
    ----------
    names : names of files
        One saved reference; or frames, each with an ASE index or without.
    options : those of the command
        Of a saved reference only ``quiet`` counts. Frames become a reference with ``k``, ``cutoff``, ``species``,
        ``bandwidths``, ``type_map``, ``jobs`` and ``precision``; what is missing has its default.
    ctx : click.Context or None
        Of the command, to tell what the user gave; None for the present one.
    by : str or None
        Frames with the same value of this key make one group; None: each is a group of its own.
    times : Times or None
        Where seconds are noted down.

    Raises
    ------
    DataError
        If a saved reference has other parameters than the user asks for, or is not the only one; whatever else may be
        wrong with the files.
    """
    times = _tell.Times() if times is None else times
    saved = [name for name in names if is_saved(name)]
    if saved:
        if len(names) > 1:
            raise DataError(
                f"{saved[0]}: a saved reference stands alone, got {len(names)} files; "
                "quests-zenn reference --extend adds frames to it"
            )
        reference = times.step("reading", lambda: Reference.load(saved[0]))
        _agree(reference, saved[0], options, ctx)
        if by is not None:
            raise DataError(f"{saved[0]}: its groups were chosen when it was made; leave out --by, or make it again")
        return Known(reference, tuple(names), "of the reference", None)
    return _from_frames(tuple(names), options, by, times)


def _agree(reference: Reference, name: str, options: dict[str, Any], ctx: click.Context | None) -> None:
    """Refuse parameters that the user gave and the reference does not have."""
    for option, attribute in _FIXED.items():
        if not was_given(option, ctx):
            continue
        own = getattr(reference, attribute)
        given: Any = options[option]
        if option == "bandwidths":
            flat = list(dict.fromkeys(value for group in given for value in group))
            given = flat[0] if len(flat) == 1 else ",".join(map(str, flat))
        if given != own:
            told = f"{own:g}" if isinstance(own, float) else own
            raise DataError(
                f"{name}: was made with {attribute} {told}, and --{attribute} {given} asks for another; "
                "leave the option out, or make the reference again"
            )


def _from_frames(names: tuple[str, ...], options: dict[str, Any], by: str | None, times: _tell.Times) -> Known:
    missing = {"k": 32, "cutoff": 5.0, "species": "none", "bandwidths": (), "type_map": None, "jobs": None}
    source = Source(names, missing | options | {"by": by, "select": None, "output": None, "elements": None})
    if len(source.requested) > 1:
        raise DataError("this command takes one --bandwidth, got several")
    source.warm_up()
    env = source.describe()
    for name, seconds in source.seconds.items():
        times.seconds[name] = times.seconds.get(name, 0.0) + seconds
    _options.Interrupts.raise_if_pending()
    (h,), (origin,) = source.bandwidths()
    if origin.startswith("auto"):  # what is asked about may be anything
        origin += " of the reference"
    groups = None if by is None else source.frame_groups()[0]
    reference = Reference.from_environments(env, h, groups, source.provenance())
    return Known(reference, names, origin, source)


def frame_names(reference: Reference) -> list[str]:
    """Where each frame of a reference came from: ``train.xyz, frame 30``, or ``train.xyz@-5:, frame 0 of these``."""
    names: list[str] = []
    for part in reference.sources:
        name, index = os.fspath(part["name"]), part.get("index", ":")
        steps = [int(step or default) for step, default in zip((index + "::").split(":"), (0, 0, 1), strict=False)]
        if ":" not in index:
            steps[2] = 1
        plain = steps[0] >= 0 and steps[2] > 0 and "only_new" not in part
        for number in range(part["n_frames"]):
            if plain:
                names.append(f"{name}, frame {steps[0] + number * steps[2]}")
            else:
                names.append(f"{name}@{index}, frame {number} of these")
    return names
