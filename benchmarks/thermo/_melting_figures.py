"""The figure of the benchmark of melting."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

HOT, COLD, GREY, DARK = "#d1495b", "#0b5fa5", "#8a8a8a", "#222222"

#: What is drawn of the nucleus: score, title, label of the colour bar.
SCORES = (
    (
        "difference, twice",
        "The first crystal in the liquid, by dH",
        "dH given liquid - dH given crystal / nats",
    ),
    ("bond order", "The same atoms by bond order", "averaged bond order q6"),
)


def figures(results: dict[str, Any], folder: Path) -> None:
    """The figure, if what it shows is there."""
    if not all(results.get(name) for name in ("two_phase", "ramps", "nucleus")):
        return
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    folder.mkdir(parents=True, exist_ok=True)
    figure = plt.figure(figsize=(13.0, 4.7))
    loop = figure.add_axes((0.055, 0.125, 0.345, 0.79))
    height, bottom = 0.74, 0.175
    width = height * 4.7 / 13.0
    axes = [loop, *(figure.add_axes((left, bottom, width, height)) for left in (0.43, 0.722))]
    _loop(axes[0], results)
    for axis, (name, title, label) in zip(axes[1:], SCORES, strict=True):
        _atoms(figure, axis, results["nucleus"], name, title, label)
    path = folder / "melting.png"
    figure.savefig(path, dpi=150)
    plt.close(figure)
    print(f"wrote {path}")


def _loop(axis: Any, results: dict[str, Any]) -> None:
    """H of each frame against temperature, up and down."""
    ramps = results["ramps"]
    key = f"H, h = {ramps['h']:g}"
    for name, colour, label, side in (("heating", HOT, "melts", 1.0), ("cooling", COLD, "freezes", -1.0)):
        part = ramps[name]
        t, h = np.array(part["temperature"]), np.array(part["series"][key])
        axis.plot(t, h, "-", color=colour, linewidth=0.8, alpha=0.35)
        axis.plot(t, h, "o", color=colour, markersize=3.2, markeredgewidth=0, alpha=0.85)
        change = part["changes"][key]
        middle = float(np.mean([h[t < change["at"] - 20][-8:].mean(), h[t > change["at"] + 20][:8].mean()]))
        if name == "cooling":
            middle = float(np.mean([h[t > change["at"] + 40][-8:].mean(), h[-8:].mean()]))
        axis.annotate(
            f"{label} at\n{change['at']:.0f} ± {change['error']:.0f} K",
            (change["at"] - side * 28.0, middle),
            color=colour,
            ha="right" if side > 0 else "left",
            va="center",
            fontsize=11,
            fontweight="bold",
        )
    row = next(row for row in results["two_phase"] if row["pressure"] == 0.0)
    axis.axvspan(
        row["temperature"] - row["temperature_error"],
        row["temperature"] + row["temperature_error"],
        color=DARK,
        alpha=0.35,
        linewidth=0,
    )
    low, high = axis.get_ylim()
    axis.text(
        row["temperature"] + 14,
        low + 0.03 * (high - low),
        f"two phases in one cell:\n$T_m$ = {row['temperature']:.0f} ± {row['temperature_error']:.0f} K",
        ha="left",
        va="bottom",
        fontsize=10,
        color=DARK,
    )
    axis.set_ylim(low, high)
    axis.set(xlabel="temperature / K", ylabel="H of a frame / nats")
    axis.set_title("Entropy H of each frame: copper melts and freezes", fontsize=11.5, loc="left")
    axis.spines[["top", "right"]].set_visible(False)


def _atoms(figure: Any, axis: Any, part: dict[str, Any], name: str, title: str, label: str) -> None:
    """A slab through the nucleus."""
    from matplotlib.colors import LinearSegmentedColormap

    picture = part["picture"]
    x, values = np.array(picture["positions"]), np.array(picture["values"][name])
    solid = np.array(picture["label"])
    low, high = float(np.median(values[~solid])), float(np.median(values[solid]))
    colours = LinearSegmentedColormap.from_list("ice", ["#e9edf2", "#c3d3e6", "#6ea3d1", "#0b5fa5", "#06294d"])
    width = picture["lengths"][0]
    order = np.argsort(x[:, 2])
    axis.set(xlim=(0, width), ylim=(0, picture["lengths"][1]), xticks=[], yticks=[], aspect="equal")
    figure.canvas.draw()
    points = axis.get_window_extent().width * 72.0 / figure.dpi
    drawn = axis.scatter(
        x[order, 0],
        x[order, 1],
        c=values[order],
        s=(2.3 / width * points) ** 2,
        cmap=colours,
        vmin=low - 0.1 * (high - low),
        vmax=high + 0.25 * (high - low),
        edgecolors="#4a5866",
        linewidths=0.35,
    )
    box = axis.get_position()
    place = figure.add_axes((box.x0 + 0.03, box.y0 - 0.05, box.width - 0.06, 0.025))
    bar = figure.colorbar(drawn, cax=place, orientation="horizontal")
    bar.set_label(label, fontsize=9.5)
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=8.5)
    axis.set_title(title, fontsize=11.5, loc="left")
    for spine in axis.spines.values():
        spine.set_color(GREY)
