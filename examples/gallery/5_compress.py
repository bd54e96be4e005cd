"""
Fewer structures with the same information
==========================================

Frames of a trajectory repeat each other. Compression chooses those that hold as many different environments as
possible, so that fewer of them need labels.
"""

# %%
# Every second frame, 80, each with its 256 environments. ``msc`` takes again and again the frame with the environment
# that is newest to those chosen; the order of 24 frames holds all smaller selections.

try:
    import matplotlib.pyplot as plt
except ImportError:
    raise SystemExit("this example draws, which takes the extra plot: pip install quests_zenn[plot]") from None

import numpy as np
from ase.io import read

from quests_zenn.compression import DatasetCompressor

frames = read("../copper_melting.xyz", "::2")
data = DatasetCompressor(frames, bandwidth=0.03)
chosen = data.get_indices("msc", 24)
random = [data.get_indices("random", 24, random_state=seed) for seed in range(3)]
time = np.array([atoms.info["time_ps"] for atoms in frames])
print("the first five were taken at", ", ".join(f"{t:.0f}" for t in time[chosen[:5]]), "ps")

# %%
# What do they hold? H is free of repetitions the nearer it comes to ln n, e\ :sup:`D` counts different environments,
# and the overlap is the share of *all* environments that something chosen resembles.

for name, indices in (("msc", chosen[:8]), ("random", random[0][:8])):
    told = data.get_summary(indices)
    print(f"{name:6} 8 frames: H {told['entropy']:.2f}, D {told['diversity']:.2f} nats, {told['overlap']:.1%} covered")

# %%
# One crystal is much like the next, so that msc takes mostly liquid. Random frames repeat themselves; their coverage is
# a matter of luck: one draw missed the liquid for long, and one frame of msc, the rarest, covers less than a random
# one. If coverage is what you want, ask for it (``Size("overlap", 0.99)``).

figure, panels = plt.subplots(1, 3, figsize=(10.0, 3.5), layout="constrained")
steps = np.array([1, 2, 3, 4, 6, 8, 12, 16, 24])
for number, indices in enumerate([*random, chosen]):
    curve = data.get_curve(indices, steps)
    style = {"color": "C0", "marker": "o", "ms": 3} if number == 3 else {"color": "0.65", "lw": 1.0}
    label = {0: "random, 3 seeds", 3: "msc"}.get(number)
    panels[0].plot(steps, curve.diversity, label=label, **style)
    panels[1].plot(steps, 100 * curve.overlap, **style)
panels[0].axhline(data.whole.diversity, color="k", ls="--", lw=1.0, label="all 80")
panels[0].set(xlabel="frames", ylabel="diversity D (nats)")
panels[0].legend(frameon=False)
panels[1].set(xlabel="frames", ylabel="environments covered (%)")
panels[2].hist([time[chosen[:12]]], bins=np.linspace(0, 154, 15), color="C0")
panels[2].set(xlabel="time (ps)", ylabel="of the first 12 that msc chose")
