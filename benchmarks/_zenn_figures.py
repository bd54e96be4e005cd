"""The figures of the benchmark of free energies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

OURS, OTHER, GREY = "#0b5fa5", "#d1495b", "#8a8a8a"

#: Which of the models a landscape is drawn for.
DRAWN = (("ZENN, K = 4", OURS, "-"), ("DNN", OTHER, "--"))


def figures(results: dict[str, Any], folder: Path) -> None:
    """Those whose parts are there."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    folder.mkdir(parents=True, exist_ok=True)
    for draw, needed in ((draw_fe3pt, "noise"), (draw_landscapes, "landscapes")):
        if results.get(needed, {}).get("rows"):
            figure = draw(plt, results[needed])
            if figure is None:
                continue
            path = folder / f"zenn_{draw.__name__.removeprefix('draw_')}.png"
            figure.savefig(path, dpi=150)
            plt.close(figure)
            print(f"wrote {path}")


def numbers(values: list[Any]) -> np.ndarray:
    """An array, NaN where there is none."""
    return np.array([np.nan if value is None else value for value in values], np.float64)


def draw_fe3pt(plt: Any, content: dict[str, Any]) -> Any:
    """One noisy draw: isotherms, phase diagram, and where configurations rule."""
    rows = content["rows"]
    if "d|ZENN|0" not in rows or "shown" not in content:
        return None
    ours, truth = rows["d|ZENN|0"]["shown"], content["shown"]
    other = rows.get("d|DNN|0", {}).get("shown")
    maps = ours["probabilities"]
    figure = plt.figure(figsize=(11.5, 9.0))
    grid = figure.add_gridspec(3, 12, height_ratios=(1.0, 1.25, 1.0), hspace=0.42, wspace=1.4, top=0.9, bottom=0.07)

    for i, curve in enumerate(truth["isotherms"]["curves"]):
        axis = figure.add_subplot(grid[0, 3 * i : 3 * i + 3])
        isotherm(axis, truth, ours, other, i)
        axis.set_title(f"{curve['T']:g} K", fontsize=10)
        axis.set_xlabel("volume / Å³")
        if i == 0:
            axis.set_ylabel("pressure / GPa")
            axis.legend(fontsize=7.5, frameon=False, loc="lower left")

    middle = grid[1, :].subgridspec(1, 2, wspace=0.22)
    diagram(figure.add_subplot(middle[0]), content, rows)
    gaps(figure.add_subplot(middle[1]), truth, ours, other)

    image = None
    count = len(maps["k"])
    for i, (k, p) in enumerate(zip(maps["k"], maps["p"], strict=True)):
        axis = figure.add_subplot(grid[2, 3 * i : 3 * i + 3])
        image = axis.pcolormesh(
            maps["v"], maps["t"], np.array(p).T, vmin=0.0, vmax=1.0, cmap="Blues", shading="gouraud"
        )
        axis.plot(ours["points"]["v"], ours["points"]["t"], "k.", markersize=2, alpha=0.6)
        axis.set_title(f"$p_{{{k}}}$", fontsize=10)
        axis.set_xlabel("volume / Å³")
        axis.set(xlim=(maps["v"][0], maps["v"][-1]), ylim=(maps["t"][0], maps["t"][-1]))
        if i == 0:
            axis.set_ylabel("temperature / K")
        else:
            axis.tick_params(labelleft=False)
    if image is not None and count:
        figure.colorbar(image, ax=figure.axes[-count:], fraction=0.015, pad=0.015, label="probability")
    figure.suptitle("Fe₃Pt from 80 points with 1 meV of noise (dots below), one draw", fontsize=11, y=0.965)
    return figure


def isotherm(axis: Any, truth: Any, ours: Any, other: Any, i: int) -> None:
    """P(V) at one temperature where it is flat."""
    v = np.array(truth["isotherms"]["v"])
    true = np.array(truth["isotherms"]["curves"][i]["p"])
    seen = (v > 149.3) & (v < 155.5)
    axis.plot(v[seen], true[seen], color="black", linewidth=2.2, alpha=0.75, label="table")
    for shown, colour, style, label in ((other, OTHER, "--", "DNN"), (ours, OURS, "-", "ZENN")):
        if shown is None:
            continue
        curve = shown["isotherms"]["curves"][i]
        p, std = np.array(curve["p"])[seen], np.array(curve["std"])[seen]
        axis.fill_between(v[seen], p - 2.0 * std, p + 2.0 * std, color=colour, alpha=0.16, linewidth=0.0)
        axis.plot(v[seen], p, color=colour, linestyle=style, linewidth=1.3, label=label)
    span = true[seen].max() - true[seen].min()
    axis.set(xlim=(149.3, 155.5), ylim=(true[seen].min() - 0.1 * span, true[seen].max() + 0.1 * span))
    axis.tick_params(labelsize=8)


def diagram(axis: Any, content: dict[str, Any], rows: dict[str, Any]) -> None:
    """Spinodal and critical point in P and T."""
    point = content["reference"]["critical"]
    for shown, colour, label in ((content["shown"], "black", "table"), (rows["d|ZENN|0"]["shown"], OURS, "ZENN")):
        phase = shown["phases"]
        t = np.array(phase["t"])
        for side in ("low", "high"):
            p, std = numbers(phase[f"pressure_{side}"]), numbers(phase[f"pressure_{side}_std"])
            if colour == OURS:
                axis.fill_between(t, p - 2.0 * std, p + 2.0 * std, color=colour, alpha=0.18, linewidth=0.0)
            axis.plot(t, p, color=colour, linewidth=1.6, label=f"spinodal, {label}" if side == "low" else None)
    axis.plot(point["temperature"], point["pressure"], "o", color="black", markersize=6, label="critical point, table")
    first = True
    for name, row in rows.items():
        if not name.startswith("d|ZENN|") or not row.get("critical"):
            continue
        found = row["critical"]
        mine = name == "d|ZENN|0"
        axis.errorbar(
            found["temperature"],
            found["pressure"],
            xerr=2.0 * (found["temperature_std"] or 0.0) if mine else None,
            yerr=2.0 * (found["pressure_std"] or 0.0) if mine else None,
            fmt="o",
            color=OURS,
            markersize=6 if mine else 4,
            markerfacecolor=OURS if mine else "none",
            linewidth=1.0,
            capsize=2,
            label="this draw" if mine else ("other draws" if first else None),
        )
        first = first and mine
    low, high = point["pressure"] - 1.2, point["pressure"] + 3.4
    axis.set(xlim=(0.0, 300.0), ylim=(low, high), xlabel="temperature / K", ylabel="pressure / GPa")
    axis.set_title("spinodal and critical point (bands and bars: two standard deviations)", fontsize=9)
    axis.legend(fontsize=7.5, frameon=False, loc="upper right")


def gaps(axis: Any, truth: Any, ours: Any, other: Any) -> None:
    """Errors of pressure over volume at the temperatures of the isotherms."""
    v = np.array(truth["isotherms"]["v"])
    for shown, colour, style, label in ((other, OTHER, "--", "DNN"), (ours, OURS, "-", "ZENN")):
        if shown is None:
            continue
        for i, true in enumerate(truth["isotherms"]["curves"]):
            curve = shown["isotherms"]["curves"][i]
            gap = np.array(curve["p"]) - np.array(true["p"])
            alpha = 1.0 - 0.2 * i
            name = f"{label}, {true['T']:g} K"
            axis.plot(v, gap, color=colour, linestyle=style, linewidth=1.2, alpha=alpha, label=name)
    axis.axhline(0.0, color="black", linewidth=0.6)
    axis.set(xlim=(v[0], v[-1]), ylim=(-0.9, 1.5), xlabel="volume / Å³", ylabel="error of pressure / GPa")
    axis.set_title("errors of the isotherms above", fontsize=9)
    axis.legend(fontsize=7, frameon=False, ncol=2, loc="upper right")


def draw_landscapes(plt: Any, content: dict[str, Any]) -> Any:
    """F and densities at temperatures that were not trained on, one below the other."""
    rows, names = content["rows"], list(content["landscapes"])
    names = [name for name in names if any(f"{name}|{model}|0" in rows for model, _, _ in DRAWN)]
    if not names:
        return None
    figure, axes = plt.subplots(2, len(names), figsize=(4.1 * len(names), 9.0), squeeze=False)
    for column, name in enumerate(names):
        top, bottom = axes[0, column], axes[1, column]
        told: set[float] = set()
        for model, colour, style in DRAWN:
            row = rows.get(f"{name}|{model}|0")
            if row is None:
                continue
            ridge(top, bottom, row["shown"], content["landscapes"][name], model, colour, style, told)
        top.set_title(name, fontsize=10)
        bottom.set_xlabel("x")
        for axis in (top, bottom):
            axis.set_yticks([])
            axis.set_xlim(row["shown"]["x"][0], row["shown"]["x"][-1])
    axes[0, 0].set_ylabel("F / k$_B$T, shifted")
    axes[1, 0].set_ylabel("density, each on its own scale, shifted")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    title = "* beyond the temperatures of training; the others lie between them"
    figure.legend(handles, labels, loc="lower center", ncol=3, fontsize=9, frameon=False, title=title, title_fontsize=9)
    figure.tight_layout(rect=(0.0, 0.055, 1.0, 1.0))
    return figure


def ridge(top: Any, bottom: Any, shown: Any, about: Any, model: str, colour: str, style: str, told: set[float]) -> None:
    """Curves of one model at all temperatures, warmer ones above."""
    x = np.array(shown["x"])
    curves = sorted(shown["curves"], key=lambda curve: curve["T"])
    for i, curve in enumerate(curves):
        f, std, truth = (np.array(curve[key]) for key in ("f", "std", "truth"))
        step, low = 8.0 * i, truth < 10.0
        density, true = (np.exp(-np.clip(values, -5.0, 700.0)) for values in (f, truth))
        density, true = density / density.sum(), true / true.sum()
        scale = 0.9 / true.max()
        if curve["T"] not in told:
            told.add(curve["T"])
            label = "truth" if len(told) == 1 else None
            top.plot(x, np.where(low, truth, np.nan) + step, color="black", linewidth=2.4, alpha=0.55, label=label)
            bottom.fill_between(x, i, scale * true + i, color="black", alpha=0.22, linewidth=0.0)
            where = f"T = {curve['T']:g}" + ("*" if curve["T"] in about["beyond"] else "")
            for axis, height in ((top, step), (bottom, i)):
                axis.annotate(
                    where, (x[-1], height), (3, 0), textcoords="offset points", fontsize=7, annotation_clip=False
                )
        seen = np.where(low, f, np.nan) + step
        top.fill_between(x, seen - 2.0 * std, seen + 2.0 * std, color=colour, alpha=0.15, linewidth=0.0)
        top.plot(x, seen, color=colour, linestyle=style, linewidth=1.2, label=model if i == 0 else None)
        bottom.plot(x, scale * density + i, color=colour, linestyle=style, linewidth=1.1)
    bottom.set_ylim(-0.1, len(curves) + 0.6)
    top.set_ylim(-1.0, 8.0 * (len(curves) - 1) + 11.0)
