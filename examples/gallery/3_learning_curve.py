"""
Would more data add anything?
=============================

H of random parts of a data set grows with their size until the parts hold all there is to see. The *learning curve*
shows how far that has come, and its extrapolation to very large sets is the *information gap*.
"""

# %%
# The crystal of the first 40 frames, and the liquid of the last 40.

try:
    import matplotlib.pyplot as plt
except ImportError:
    raise SystemExit("this example draws, which takes the extra plot: pip install quests_zenn[plot]") from None

import numpy as np

from quests_zenn.descriptors import describe
from quests_zenn.entropy import information_gap, learning_curve
from quests_zenn.io import read_frames

sets = {
    "crystal": describe(read_frames("../copper_melting.xyz@:40")).x,
    "liquid": describe(read_frames("../copper_melting.xyz@-40:")).x,
}

# %%
# Ten random parts of each size, drawn without replacement. The gap is told with an error, and not at all where the
# curve still rises as steeply as ever.

found = {}
for name, x in sets.items():
    for h in (0.015, 0.03):
        curve = learning_curve(x, h, random_state=0)
        gap = information_gap(curve)
        found[name, h] = curve, gap
        told = f"{gap.gap:.3f} ± {gap.standard_error:.3f} nats" if np.isfinite(gap.standard_error) else gap.reason
        print(f"{name}, h = {h}: H = {curve.mean[-1]:.3f}, missing {told}")

# %%
# At the wider bandwidth, 10,000 environments say all there is to say. At the narrow one the liquid follows ln n, the
# dotted line: hardly any two of its environments resemble each other yet. The gap is about more data *of the same
# kind*: it knows nothing of states that were never visited.

figure, panels = plt.subplots(1, 2, figsize=(9.0, 3.8), layout="constrained", sharey=True)
many = np.geomspace(100, 1e6, 200)
for axes, h in zip(panels, (0.015, 0.03), strict=True):
    for colour, name in (("C0", "crystal"), ("C3", "liquid")):
        curve, gap = found[name, h]
        axes.errorbar(curve.sizes, curve.mean, curve.std, color=colour, fmt="o", ms=4, label=name)
        if np.isfinite(gap.standard_error):
            axes.plot(many, gap.predict(many), color=colour, lw=1.0)
    axes.plot(many, np.log(many), color="k", ls=":", lw=1.0, label="ln n")
    axes.set(xscale="log", xlabel="environments n", ylim=(0.0, 12.0), title=f"h = {h} 1/Å")
panels[0].set_ylabel("H (nats)")
panels[0].legend(frameon=False)
