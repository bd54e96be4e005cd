"""The figures of the benchmark of uncertainty."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

OURS, OTHER, GREY = "#0b5fa5", "#d1495b", "#8a8a8a"
ORANGE, GREEN = "#e08e1b", "#3a8f5c"


def figures(results: dict[str, Any], folder: Path) -> None:
    """Those whose parts are there."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    folder.mkdir(parents=True, exist_ok=True)
    for draw, needed in ((draw_frames, "frames"), (draw_scan, "scan"), (draw_errors, "coverage")):
        if results.get(needed):
            figure = draw(plt, results)
            path = folder / f"uq_{draw.__name__.removeprefix('draw_')}.png"
            figure.savefig(path, dpi=150)
            plt.close(figure)
            print(f"wrote {path}")


def draw_frames(plt: Any, results: dict[str, Any]) -> Any:
    """Mean dH of the frames of each test set; and AUROC of every method."""
    part = results["frames"]
    figure, (left, right) = plt.subplots(1, 2, figsize=(10.5, 4.2), width_ratios=(1.25, 1.0))
    shown = {key: np.array(values) for key, values in part["shown"].items()}
    bins = np.linspace(-1.5, 8.0, 58)
    for key, colour, label in (
        ("left out", GREY, "training, left out"),
        ("300K", OURS, "300 K test"),
        ("600K", OTHER, "600 K test"),
    ):
        filled = key != "left out"
        left.hist(
            np.clip(shown[key], bins[0], bins[-1]),
            bins,
            density=True,
            histtype="stepfilled" if filled else "step",
            color=colour,
            alpha=0.45 if filled else 1.0,
            label=label,
        )
    angle, top = np.array(part["angle"]), left.get_ylim()[1]
    groups = (
        ("scan, below 30°", shown["scan"][angle < 30], GREEN),
        ("scan, 30-60°", shown["scan"][(angle > 30) & (angle < 60)], ORANGE),
        ("scan, above 60°", shown["scan"][angle > 60], "black"),
        ("H transfer", shown["path"], "#7b4fa3"),
    )
    for line, (label, values, colour) in enumerate(groups):
        height = np.full(len(values), top * (1.06 + 0.06 * line))
        left.plot(np.clip(values, bins[0], bins[-1]), height, "|", color=colour, markersize=9, label=label)
    left.set(xlabel="mean dH of the frame / nats (larger ones at the right edge)", ylabel="frames", yticks=[])
    left.legend(fontsize=8, frameon=False)
    rows = [row for row in part["rows"] if row["species"] == "none"]
    place = np.arange(len(rows))[::-1]
    for group, colour, marker in (("600 K", OTHER, "o"), ("above 60°", "black", "s"), ("30-60°", ORANGE, "D")):
        right.plot([row["auroc"]["mean"][group] for row in rows], place, marker, color=colour, label=group)
    if "hamiltonian" in results:
        best = results["hamiltonian"]["auroc"]["600 K"]
        right.axvline(best, color=OTHER, linewidth=1.0, linestyle=":", label="600 K, best possible")
    right.axvline(0.5, color=GREY, linewidth=0.8)
    right.set_yticks(place, [row["method"].replace("`", "") for row in rows], fontsize=8)
    right.set(xlabel="AUROC per frame, mean over atoms", xlim=(0.0, 1.03))
    right.grid(axis="x", linewidth=0.4, alpha=0.5)
    right.legend(fontsize=8, frameon=False, loc="lower center", bbox_to_anchor=(0.4, 1.0), ncol=4, columnspacing=1.0)
    figure.tight_layout()
    return figure


def draw_scan(plt: Any, results: dict[str, Any]) -> Any:
    """dH along both paths, and how soon turned frames are noticed."""
    part = results["scan"]
    figure, (first, second, third) = plt.subplots(1, 3, figsize=(12.0, 3.9))
    for axis, rows, x in ((first, part["rows"], "angle"), (third, part["path"], "shift")):
        for name, colour in (("mean", OURS), ("max", OTHER)):
            low, middle, high = part["usual"][name]
            axis.axhspan(low, high, color=colour, alpha=0.12, linewidth=0.0)
            axis.axhline(middle, color=colour, linewidth=0.8, linestyle=":")
            label = {"mean": "mean over atoms", "max": "largest"}[name]
            axis.plot([row[x] for row in rows], [row[name] for row in rows], ".-", color=colour, label=label)
        axis.set(ylabel="dH / nats")
        axis.legend(fontsize=8, frameon=False, loc="upper left")
    first.axvspan(0.0, part["training_angle"][2], color=GREEN, alpha=0.15, linewidth=0.0)
    first.set(xlabel="dihedral angle / °", xlim=(0.0, 90.0), ylim=(-4.5, 25.0), title="relaxed scan")
    first.annotate("training file", (1.0, -4.0), fontsize=8, color=GREEN)
    third.set(xlabel="shift of the proton / Å", title="H transfer")
    third.set_ylim(top=1.35 * max(part["usual"]["max"][2], *(row["max"] for row in part["path"])))
    angles = [row["angle"] for row in part["turned"]]
    for name, colour in (("mean", OURS), ("max", OTHER)):
        label = {"mean": "mean over atoms", "max": "largest"}[name]
        second.plot(angles, [row[name] for row in part["turned"]], ".-", color=colour, label=label)
    second.axvspan(0.0, part["training_angle"][2], color=GREEN, alpha=0.15, linewidth=0.0)
    second.axhline(0.5, color=GREY, linewidth=0.8)
    second.set(xlabel="dihedral angle / °", ylabel="AUROC", xlim=(0.0, 90.0), title="300 K frames, turned")
    second.legend(fontsize=8, frameon=False, loc="center right")
    for axis in (first, second, third):
        axis.title.set_fontsize(10)
        axis.grid(linewidth=0.4, alpha=0.4)
    figure.tight_layout()
    return figure


def draw_errors(plt: Any, results: dict[str, Any]) -> Any:
    """Force errors against dH, with the calibrated bound."""
    curves = results["coverage"]["curves"]
    figure, axes = plt.subplots(1, len(curves), figsize=(4.0 * len(curves), 3.9), squeeze=False)
    for axis, (element, curve) in zip(axes[0], curves.items(), strict=True):
        dh, error = np.array(curve["dh"]), np.array(curve["error"])
        axis.plot(dh, np.maximum(error, 1e-4), ".", color=GREY, markersize=2.5, alpha=0.6)
        order = np.linspace(dh.min(), 1.1 * np.quantile(dh, 0.99), 400)
        sigma = np.interp(order, curve["nodes"], curve["widths"])
        axis.plot(order, sigma, color=OURS, linestyle="--", label="mean error, as learnt")
        axis.plot(order, sigma * curve["factors"][0], color=OURS, label="bound, 90 % of atoms")
        axis.axhline(curve["constants"][0], color=OTHER, linewidth=1.0, linestyle=":", label="constant bound, 90 %")
        axis.set(yscale="log", xlabel="dH / nats", ylabel="force error / eV/Å", title=f"SNAP, {element}")
        axis.set_xlim(order[0] - 0.5, order[-1])
        axis.title.set_fontsize(10)
        axis.grid(linewidth=0.4, alpha=0.4)
        axis.legend(fontsize=8, frameon=False, loc="lower right")
    figure.tight_layout()
    return figure
