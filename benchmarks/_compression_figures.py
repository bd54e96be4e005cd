"""The figures of the benchmark of subsets."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

OURS, OTHER, GREY = "#0b5fa5", "#d1495b", "#8a8a8a"
ORANGE, GREEN, VIOLET = "#e08e1b", "#3a8f5c", "#7b4fa3"

#: Colour, marker and line of each method.
STYLES = {
    "msc": (OURS, "o", "-"),
    "msc_sum": (VIOLET, "P", "-"),
    "fps": (OTHER, "s", "-"),
    "mean_fps": (OTHER, "D", ":"),
    "k_means": (GREEN, "^", ":"),
    "direct": (ORANGE, "v", "-"),
    "random": (GREY, "x", "--"),
}

Row = dict[str, Any]
Value = Callable[[Row], float]


def figures(results: Row, folder: Path) -> None:
    """Those whose parts are there."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    folder.mkdir(parents=True, exist_ok=True)
    of_models = ((draw, "models", "errors") for draw in (draw_forces, draw_energies, draw_contents))
    for draw, part, rows in (*of_models, (draw_time, "time", "rows")):
        if results.get(part, {}).get(rows):
            figure = draw(plt, results[part])
            path = folder / f"compression_{draw.__name__.removeprefix('draw_')}.png"
            figure.savefig(path, dpi=150)
            plt.close(figure)
            print(f"wrote {path}")


def curves(axis: Any, rows: list[Row], value: Value, spread: Value | None = None) -> None:
    """A curve for each method against the share of the atoms."""
    for method, (colour, marker, line) in STYLES.items():
        mine = [row for row in rows if row["method"] == method]
        shares, values = [100 * row["share"] for row in mine], [value(row) for row in mine]
        axis.plot(shares, values, color=colour, marker=marker, linestyle=line, markersize=4, label=method)
        if spread is not None and any(row["seeds"] > 1 for row in mine):
            low, high = ([value(row) + sign * spread(row) for row in mine] for sign in (-1.0, 1.0))
            axis.fill_between(shares, low, high, color=colour, alpha=0.12, linewidth=0.0)
    axis.set_xscale("log")
    axis.set_xticks([5, 10, 25, 50], ["5", "10", "25", "50"])
    axis.minorticks_off()
    axis.grid(linewidth=0.4, alpha=0.4)


def panels(plt: Any, part: Row, quantity: str) -> Any:
    """Errors relative to those with all structures: a row of panels for each model, a column for each test."""
    tests = [test for test in dict.fromkeys((row["set"], row["test"]) for row in part["errors"]) if test[1] != "all"]
    models = list(dict.fromkeys(row["model"] for row in part["errors"]))
    figure, axes = plt.subplots(
        len(models), len(tests), figsize=(2.5 * len(tests), 2.7 * len(models) + 0.5), sharex=True, squeeze=False
    )
    for line, model in zip(axes, models, strict=True):
        for axis, (name, test) in zip(line, tests, strict=True):
            rows = [row for row in part["errors"] if (row["set"], row["test"], row["model"]) == (name, test, model)]

            def ratio(row: Row) -> float:
                return float(row[f"{quantity}_ratio"])

            curves(axis, rows, ratio, lambda row: row[f"{quantity}_sd"] * ratio(row) / row[quantity])
            axis.axhline(1.0, color="black", linewidth=0.8)
            axis.axhline(1.05, color="black", linewidth=0.8, linestyle=":")
            plain(axis)
            axis.set_title(f"{name}, {test}, {model}", fontsize=9)
            axis.tick_params(labelsize=8)
        line[0].set_ylabel(f"{quantity} error / that with all", fontsize=9)
    for axis in axes[-1]:
        axis.set_xlabel("atoms / %", fontsize=9)
    legend(figure, axes[0, 0])
    return figure


def plain(axis: Any) -> None:
    """A logarithmic scale of ratios with few and plain ticks."""
    low, high = axis.get_ylim()
    axis.set_yscale("log")
    axis.set_ylim(max(low, 0.7), high)
    fine = (0.9, 0.95, 1.0, 1.05, 1.1, 1.15, 1.2, 1.25, 1.3)
    middle = (0.7, 0.8, 0.9, 1.0, 1.2, 1.5, 2.0, 3.0, 5.0)
    coarse = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0)
    wanted = fine if high < 1.32 else middle if high < 6.0 else coarse
    ticks = [tick for tick in wanted if max(low, 0.7) <= tick <= high]
    axis.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    axis.minorticks_off()


def legend(figure: Any, axis: Any) -> None:
    """One for all panels, above them."""
    handles, labels = axis.get_legend_handles_labels()
    figure.tight_layout(rect=(0.0, 0.0, 1.0, 1.0 - 0.35 / figure.get_figheight()))
    figure.legend(handles, labels, loc="upper center", ncol=len(labels), fontsize=9, frameon=False)


def draw_forces(plt: Any, part: Row) -> Any:
    """Errors of forces."""
    return panels(plt, part, "force")


def draw_energies(plt: Any, part: Row) -> Any:
    """Errors of energies."""
    return panels(plt, part, "energy")


def draw_contents(plt: Any, part: Row) -> Any:
    """What subsets hold."""
    names = list(dict.fromkeys(row["set"] for row in part["contents"]))
    figure, axes = plt.subplots(2, len(names), figsize=(2.9 * len(names), 5.6), sharex=True, squeeze=False)
    for column, name in enumerate(names):
        rows = [row for row in part["contents"] if row["set"] == name]
        whole = next(row for row in rows if row["method"] == "all")
        for axis, key in zip(axes[:, column], ("diversity", "overlap"), strict=True):
            curves(axis, rows, lambda row, key=key: row[key])
            axis.axhline(whole[key], color="black", linewidth=0.8)
            axis.tick_params(labelsize=8)
        axes[0, column].set_title(name, fontsize=10)
        axes[1, column].set_xlabel("atoms / %", fontsize=9)
    axes[0, 0].set_ylabel("diversity D / nats", fontsize=9)
    axes[1, 0].set_ylabel("overlap", fontsize=9)
    legend(figure, axes[0, 0])
    return figure


def draw_time(plt: Any, part: Row) -> Any:
    """From frames to indices, against the number of structures."""
    figure, axis = plt.subplots(figsize=(5.2, 4.0))
    for share, line in ((0.5, "-"), (0.1, "--")):
        rows = [row for row in part["rows"] if row["set"] == "rattled" and row["share"] == share]
        for who, colour, marker in (("ours", OURS, "o"), ("quests", OTHER, "s")):
            mine = [row for row in rows if who in row]
            label = f"{who}, to {100 * share:.0f} %"
            axis.plot(
                [row["structures"] for row in mine], [row[who] for row in mine], color=colour, marker=marker,
                linestyle=line, markersize=5, linewidth=1.3, label=label,
            )  # fmt: skip
    axis.set(xscale="log", yscale="log", xlabel="structures of 15 atoms", ylabel="wall time / s")
    sizes = sorted({row["structures"] for row in part["rows"] if row["set"] == "rattled"})
    axis.set_xticks(sizes, [f"{n:,}" for n in sizes])
    axis.set_xticks([], minor=True)
    axis.grid(which="major", linewidth=0.4, alpha=0.5)
    axis.legend(fontsize=9, frameon=False)
    figure.tight_layout()
    return figure
