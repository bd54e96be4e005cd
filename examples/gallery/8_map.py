"""
A map of environments
=====================

Environments have 63 numbers, but most of what they differ by lies in a few directions. Two of them make a map, on which
crystal and liquid can be seen, and what is rare.
"""

# %%
# Every eighth frame of copper that is heated until it melts.

try:
    import matplotlib.pyplot as plt
except ImportError:
    raise SystemExit("this example draws, which takes the extra plot: pip install quests_zenn[plot]") from None

import numpy as np
from ase.io import read
from sklearn.decomposition import PCA

from quests_zenn.descriptors import describe
from quests_zenn.entropy import get_all_metrics, intrinsic_dimension

frames = read("../copper_melting.xyz", "::8")
env = describe(frames)
kelvin = np.repeat([atoms.info["target_temperature"] for atoms in frames], np.diff(env.frame_offsets))

# %%
# The two directions in which environments differ most.

pca = PCA(2, svd_solver="full").fit(env.x)
first, second = pca.transform(env.x).T
print(f"{pca.explained_variance_ratio_.sum():.0%} of the variance in two directions of {env.x.shape[1]}")
print(f"the data vary in about {intrinsic_dimension(env.x):.0f} directions")

# %%
# dH within the set: -ln N where all environments are alike, 0 for one that has none like it.

H, D, dh = get_all_metrics(env.x, 0.03)
print(f"H = {H:.2f} nats; the rarest hundred have dH of {np.sort(dh)[-100:].mean():.2f} on average")

# %%
# The crystal fills a small region densely, the liquid a large one thinly. Distances on the map are not those that H is
# made of: these are taken in all 63 numbers.

figure, (left, right) = plt.subplots(1, 2, figsize=(9.5, 4.0), layout="constrained", sharex=True, sharey=True)
for axes, colour, cmap, name in (
    (left, kelvin, "inferno", "temperature of the thermostat (K)"),
    (right, dh, "viridis", "dH (nats)"),
):
    dots = axes.scatter(first, second, c=colour, s=4, cmap=cmap, linewidths=0)
    figure.colorbar(dots, ax=axes, label=name)
    axes.set(xlabel="first component (1/Å)", ylabel="second component (1/Å)")
