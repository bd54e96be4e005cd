"""Figures of `active.py`: errors against points bought."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

Row = dict[str, Any]

COLOURS = {"random": "#8a8a8a", "default": "#0b5fa5", "expected-error": "#2a9d4a", "committee": "#e08e1b"}


def curve(axis: Any, rows: list[Row], key: str, colour: str, label: str) -> None:
    """Median over runs, and the range of their middle half."""
    points = [entry["points"] for entry in rows[0]["curve"]]
    values = np.array([[entry[key] for entry in row["curve"]] for row in rows if len(row["curve"]) == len(points)])
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75], axis=0)
    axis.plot(points, middle, color=colour, label=label, linewidth=1.6)
    axis.fill_between(points, low, high, color=colour, alpha=0.18, linewidth=0)


def figures(results: dict[str, Row], folder: Path) -> None:
    """``active.png``: real data on the left, known free energies on the right."""
    panels: list[tuple[str, list[Row], str, list[Row]]] = []
    lco = list(results.get("lco", {}).get("rows", {}).values())
    curves = [row for row in lco if row["task"] == "curve"]
    whole = [row for row in lco if row["task"] == "rows" and row["model"] == "IDNN"]
    if curves:
        panels.append(("LixCoO2, median error of µ / spread", curves, "median", whole))
        panels.append(("LixCoO2, 95 % error of µ / spread", curves, "p95", whole))
    for row in ("2-D", "4-D"):
        mine = [r for r in results.get("synthetic", {}).get("rows", {}).values() if r["task"] == row]
        if mine:
            panels.append((f"known free energy, {row}: 95 % error of µ / spread", mine, "p95", []))
    if not panels:
        return
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(panels), figsize=(4.1 * len(panels), 3.9), squeeze=False)
    for axis, (title, rows, key, fits) in zip(axes[0], panels, strict=True):
        for name, colour in COLOURS.items():
            mine = [row for row in rows if row["strategy"] == name]
            if mine:
                curve(axis, mine, key, colour, name)
        most = max((row["count"] for row in fits), default=0)
        if most:
            floor = float(np.median([row[key] for row in fits if row["count"] == most]))
            axis.axhline(floor, color="black", linestyle=":", linewidth=1, label=f"all {most} rows")
        axis.set(yscale="log", xlabel="points bought")
        axis.set_title(title, fontsize=9)
        axis.grid(True, which="both", linewidth=0.3, alpha=0.5)
        axis.legend(fontsize=8, frameon=False)
    figure.tight_layout()
    folder.mkdir(parents=True, exist_ok=True)
    figure.savefig(folder / "active.png", dpi=150)
    plt.close(figure)
    print(f"wrote {folder / 'active.png'}")
