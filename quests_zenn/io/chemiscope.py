"""Maps of environments for other programs: data sets of chemiscope, tables of environments, figures.

https://chemiscope.org/docs describes the format.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from quests_zenn._core.checks import DataError, MissingExtraError
from quests_zenn.io.outputs import replacing
from quests_zenn.io.plots import _figure, _save

#: Digits of numbers in a data set of chemiscope, which are there to be looked at.
DIGITS = 7

#: Groups of points that a figure tells apart by colour.
MOST_COLOURS = 10


def check_chemiscope() -> Any:
    """The module ``chemiscope.input``, which makes and judges data sets.

    Raises
    ------
    MissingExtraError
        If chemiscope is not installed.
    """
    try:
        import chemiscope.input
    except ImportError:
        raise MissingExtraError("chemiscope", "interop") from None
    return chemiscope.input


def as_structure(
    symbols: Sequence[str],
    positions: npt.NDArray[np.float64],
    cell: npt.NDArray[np.float64],
    pbc: npt.NDArray[np.bool_],
) -> dict[str, Any]:
    """One structure as chemiscope writes it down.

    The format knows no periodic axes: a structure has a cell or none. Here it has one where the frame is periodic along
    any axis and the cell has a volume.

    Parameters
    ----------
    symbols : n names of elements
    positions : (n, 3), Å
    cell : (3, 3), Å
    pbc : (3,)
    """
    x, y, z = (_rounded(positions[:, axis]) for axis in range(3))
    structure = {"size": len(symbols), "names": list(symbols), "x": x, "y": y, "z": z}
    if np.any(pbc) and abs(np.linalg.det(cell)) > 1e-6:
        structure["cell"] = _rounded(cell.ravel())
    return structure


def write_dataset(
    path: str | os.PathLike[str],
    *,
    name: str,
    description: str,
    structures: Sequence[Mapping[str, Any]],
    environments: Sequence[tuple[int, int, float]],
    properties: Mapping[str, Mapping[str, Any]],
    settings: Mapping[str, Any],
    overwrite: bool = False,
) -> None:
    """Write a data set of chemiscope: structures, environments in them, and what is known of both.

    It is made and judged by the package chemiscope, and written with seven digits; the same content gives the same
    bytes, compressed or not.

    Parameters
    ----------
    path : str or path
        Ends in .json or .json.gz.
    structures : sequence of mappings
        See `as_structure`.
    environments : sequence of (structure, atom, radius in Å)
    properties : mapping
        By name ``target`` (``atom``: one value for each environment; ``structure``), ``values``, and where there are
        any ``units`` and ``description``. Values are finite numbers or text.
    settings : mapping
        What the viewer shows at first.

    Raises
    ------
    DataError
        If chemiscope refuses it, a number is not finite, or see `quests_zenn.io.outputs.check_output`.
    MissingExtraError
        If chemiscope is not installed.
    """
    chemiscope = check_chemiscope()
    for key, entry in properties.items():
        values = np.asarray(entry["values"])
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise DataError(f"{os.fspath(path)}: the property {key!r} holds numbers that are not finite")
    try:
        data = chemiscope.create_input(
            list(structures),
            metadata={"name": name, "description": description},
            properties={key: dict(entry) for key, entry in properties.items()},
            environments=list(environments),
            settings=dict(settings),
        )
    except Exception as error:  # chemiscope raises bare exceptions
        raise DataError(f"{os.fspath(path)}: chemiscope refuses the data set ({error})") from error
    for entry in data["properties"].values():
        if not isinstance(entry["values"][0], str):
            entry["values"] = _rounded(entry["values"])
    text = json.dumps(data, separators=(",", ":"), allow_nan=False) + "\n"
    _write(path, text, overwrite)


def write_columns(
    path: str | os.PathLike[str], columns: Mapping[str, Sequence[Any] | npt.NDArray[Any]], overwrite: bool = False
) -> None:
    """Write columns of numbers or text as csv, in full precision; infinity is ``inf``, NaN an empty cell.

    Parameters
    ----------
    path : str or path
        Ends in .csv or .csv.gz.

    Raises
    ------
    DataError
        See `quests_zenn.io.outputs.check_output`.
    """
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(columns)
    lists = [np.asarray(values).tolist() for values in columns.values()]
    writer.writerows(
        ["" if isinstance(value, float) and math.isnan(value) else value for value in row]
        for row in zip(*lists, strict=True)
    )
    _write(path, stream.getvalue(), overwrite)


def _write(path: str | os.PathLike[str], text: str, overwrite: bool) -> None:
    data = text.encode("utf-8")
    with replacing(path, overwrite) as temporary:
        # no time and no name in the header, so that equal content gives equal bytes
        temporary.write_bytes(gzip.compress(data, mtime=0) if os.fspath(path).endswith(".gz") else data)


def _rounded(values: Any) -> list[float]:
    return [float(f"{value:.{DIGITS}g}") + 0.0 for value in np.asarray(values, np.float64).tolist()]


def plot_map(
    path: str | os.PathLike[str],
    *,
    coordinates: npt.NDArray[np.float64],
    labels: Sequence[str],
    dh: npt.NDArray[np.float64],
    colour_range: tuple[float, float],
    colour_label: str = "dH (nats)",
    classes: npt.NDArray[np.int64] | None = None,
    names: Sequence[str] = (),
    what: str = "",
    title: str = "",
    overwrite: bool = False,
) -> None:
    """A map of environments, coloured by dH; beside it the same, coloured by class.

    Parameters
    ----------
    path : str or path
        Ends in .png, .pdf or .svg.
    coordinates : (n, 2 or more)
        The first two are drawn.
    labels : two names of axes
    dh : (n,)
        nats; infinite ones are drawn as triangles.
    colour_range : (float, float)
        dH at both ends of the scale.
    classes : (n,) or None
        Class of each, an index into `names`.
    what : str
        What the classes are, for the legend.

    Raises
    ------
    DataError, MissingExtraError
        See `quests_zenn.io.plots.check_plot`.
    """
    beside = classes is not None
    figure = _figure(path, overwrite, (11.0, 4.8) if beside else (6.4, 4.8))
    panels = np.atleast_1d(figure.subplots(1, 2 if beside else 1, sharex=True, sharey=True))
    x, y = coordinates[:, 0], coordinates[:, 1]
    style = {"s": float(np.clip(6e4 / len(x), 4.0, 30.0)), "lw": 0, "rasterized": len(x) > 2000}
    finite = np.isfinite(dh)
    order = np.flatnonzero(finite)[np.argsort(dh[finite], kind="stable")]  # rare ones on top
    left = panels[0]
    low, high = colour_range
    image = left.scatter(x[order], y[order], c=dh[order], vmin=low, vmax=high, cmap="viridis", **style)
    below, above = (bool((dh[finite] < low).any()), bool((dh[finite] > high).any()))
    extend = {(True, True): "both", (True, False): "min", (False, True): "max"}.get((below, above), "neither")
    figure.colorbar(image, ax=left, label=colour_label, extend=extend)
    if not finite.all():
        left.scatter(x[~finite], y[~finite], marker="^", s=24, c="C3", lw=0, label="infinite: unknown element")
        left.legend(frameon=False, fontsize=8)
    left.set_title(title, fontsize=10)
    if classes is not None:
        right = panels[1]
        present, counts = np.unique(classes, return_counts=True)
        coloured = present[np.argsort(-counts, kind="stable")][:MOST_COLOURS].tolist()
        groups = [(names[c], f"C{number}", classes == c) for number, c in enumerate(coloured)]
        if len(present) > len(coloured):
            groups.insert(0, (f"{len(present) - len(coloured)} others", "0.75", ~np.isin(classes, coloured)))
        for label, colour, own in groups:
            right.scatter(x[own], y[own], color=colour, label=f"{label} ({own.sum():,})", **style)
        legend = right.legend(
            frameon=False, fontsize=8, title=what, title_fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5)
        )
        for handle in legend.legend_handles:
            handle.set_sizes([24.0])
        right.set_title(f"coloured by {what}", fontsize=10)
    for axes in panels:
        axes.set_xlabel(labels[0])
    left.set_ylabel(labels[1])
    _save(figure, path, overwrite)
