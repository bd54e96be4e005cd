#!/usr/bin/env python
"""A data set, compressed: fewer structures that hold most of its information.

    python scripts/compress_dataset.py dataset.xyz --size 0.1

A complete example to copy and change. It writes the structures that msc chooses (small.xyz), as many random ones to
compare with (random.xyz), and a figure of what both hold (small.png).
"""

from __future__ import annotations

import argparse

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from ase.io import read, write

from quests_zenn.compression import DatasetCompressor
from quests_zenn.descriptors import get_descriptors
from quests_zenn.entropy import select_bandwidth

SEEDS = range(5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", help="any file that ASE reads; an index may follow: data.xyz@::10")
    parser.add_argument("--size", default="0.1", help="share or number of structures, 5000env, auto, ...")
    parser.add_argument("--bandwidth", type=float, help="1/Å; found from the data by default")
    options = parser.parse_args()

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
    chosen = data.select("msc", options.size).indices
    n_environments = int(data.sizes[chosen].sum())
    random = [data.get_indices("random", f"{n_environments}env", random_state=seed) for seed in SEEDS]
    for label, indices in (("msc", chosen), ("random", random[0])):
        held = data.get_summary(indices)
        print(
            f"{label:7} {len(indices)} structures: H {held['entropy']:.3f}, D {held['diversity']:.3f} nats, "
            f"{held['overlap']:.1%} of all environments known"
        )
    write("small.xyz", [frames[i] for i in chosen])
    write("random.xyz", [frames[i] for i in random[0]])

    figure, panels = plt.subplots(1, 3, figsize=(12.0, 4.0), layout="constrained")
    for number, indices in enumerate([*random, chosen]):
        curve = data.get_curve(indices)
        style = {"color": "C0", "marker": "o", "ms": 3} if number == len(random) else {"color": "0.7"}
        for axes, quantity in zip(panels, ("entropy", "diversity", "overlap"), strict=True):
            axes.plot(curve.n_environments, getattr(curve, quantity), **style)
            axes.set(xlabel="environments", ylabel=quantity)
    figure.suptitle("msc (blue) and random")
    figure.savefig("small.png", dpi=150)


if __name__ == "__main__":
    main()
