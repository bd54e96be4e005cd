#!/usr/bin/env python
"""A data set, compressed: fewer structures with as many different environments as possible.

    python scripts/compress_dataset.py dataset.xyz --size 0.1

A complete example to copy and change. It writes the structures that msc chooses (small.xyz), as many random ones to
compare with (random.xyz), and a figure of what both hold (small.png); files that exist are left alone unless
--overwrite is given.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from ase.io import read, write

from quests_zenn.compression import DatasetCompressor, Size
from quests_zenn.descriptors import get_descriptors
from quests_zenn.entropy import select_bandwidth

SEEDS = range(5)
OUTPUTS = ("small.xyz", "random.xyz", "small.png")
QUANTITIES = {"entropy": "entropy H (nats)", "diversity": "diversity D (nats)", "overlap": "environments covered (%)"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", help="any file that ASE reads; an index may follow: data.xyz@::10")
    parser.add_argument("--size", default="0.1", help="share or number of structures, 5000env, auto, ...")
    parser.add_argument("--bandwidth", type=float, help="1/Å; found from the data by default")
    parser.add_argument("--overwrite", action="store_true", help="replace files that exist")
    options = parser.parse_args()
    try:
        size = Size.parse(options.size)
    except ValueError as error:
        parser.error(str(error))
    if size.kind == "cost":
        parser.error("a size in cost needs costs, which this example has none of")
    if options.bandwidth is not None and not 0.0 < options.bandwidth < float("inf"):
        parser.error(f"--bandwidth must be positive, got {options.bandwidth}")
    there = [name for name in OUTPUTS if Path(name).exists()]
    if there and not options.overwrite:
        parser.error(f"{', '.join(there)}: there already; move it away, or say --overwrite")

    name, _, index = options.data.partition("@")
    frames = read(name, index or ":")

    # bandwidth: how far apart two environments may be and still resemble each other; from some of the frames
    h = options.bandwidth
    if h is None:
        some = frames[:: max(1, len(frames) // 50)]
        groups = np.repeat(np.arange(len(some)), [len(atoms) for atoms in some])
        h = select_bandwidth(get_descriptors(some), groups=groups).best
    data = DatasetCompressor(frames, bandwidth=h)
    print(f"{len(frames)} structures, {len(data.x)} environments, bandwidth {h:.3g} 1/Å")

    # the selection, and random ones of as many environments: equal numbers of structures would favour large ones
    chosen = data.select("msc", size).indices
    if len(chosen) == 0:
        parser.error(f"--size {size} is too little for any structure; the smallest has {data.sizes.min()} environments")
    n_environments = int(data.sizes[chosen].sum())
    random = [data.get_indices("random", f"{n_environments}env", random_state=seed) for seed in SEEDS]
    for label, indices in (("msc", chosen), ("random", random[0])):
        held = data.get_summary(indices)
        print(
            f"{label:7} {len(indices)} structures: H {held['entropy']:.3f}, D {held['diversity']:.3f} nats, "
            f"{held['overlap']:.1%} of all environments covered"
        )
    write("small.xyz", [frames[i] for i in chosen])
    write("random.xyz", [frames[i] for i in random[0]])

    figure, panels = plt.subplots(1, 3, figsize=(12.0, 4.0), layout="constrained")
    for number, indices in enumerate([*random, chosen]):
        curve = data.get_curve(indices)
        style = {"color": "C0", "marker": "o", "ms": 3} if number == len(random) else {"color": "0.7"}
        label = {0: f"random ({len(random)})", len(random): "msc"}.get(number)
        for axes, (quantity, told) in zip(panels, QUANTITIES.items(), strict=True):
            unit = 100.0 if quantity == "overlap" else 1.0
            axes.plot(curve.n_environments, unit * getattr(curve, quantity), label=label, **style)
            axes.set(xlabel="environments", ylabel=told)
    whole = data.whole
    for axes, value in zip(panels, (whole.value, whole.diversity, 100.0), strict=True):
        axes.axhline(value, color="k", ls="--", lw=1.0, label="whole set")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    figure.savefig("small.png", dpi=150)


if __name__ == "__main__":
    main()
