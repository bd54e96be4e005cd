"""
Choose a bandwidth
==================

Two environments that differ by less than the bandwidth h count as alike. Too narrow, and no two are; too wide, and all
are. In between, take one at which the states that you want to tell apart differ.
"""

# %%
# Two states of the same number of environments: the crystal at about 630 K, and the liquid at about 1900 K.

try:
    import matplotlib.pyplot as plt
except ImportError:
    raise SystemExit("this example draws, which takes the extra plot: pip install quests_zenn[plot]") from None

import numpy as np

from quests_zenn.descriptors import describe
from quests_zenn.entropy import get_all_metrics, get_bandwidth, select_bandwidth
from quests_zenn.io import read_frames

solid = describe(read_frames("../copper_melting.xyz@:10")).x
liquid = describe(read_frames("../copper_melting.xyz@-10:")).x

# %%
# All bandwidths in one pass.

h = np.geomspace(0.004, 0.2, 40)
of_solid, of_liquid = (get_all_metrics(x, h)[0] for x in (solid, liquid))
best = h[np.argmax(of_liquid - of_solid)]
print(f"the two differ most at h = {best:.3f} 1/Å, by {np.max(of_liquid - of_solid):.2f} nats")

# %%
# Two other opinions. The *volume rule* of the package quests takes h from the volume per atom. The *likelihood* asks
# which h best foretells frames that were left out, here of the liquid; it wants many environments, and finds a narrow h
# where there are many.

groups = np.repeat(np.arange(10), len(liquid) // 10)
told = select_bandwidth(liquid, groups=groups, h_grid=np.geomspace(0.01, 0.1, 10))
print(f"volume rule {get_bandwidth(13.2):.3f} 1/Å, likelihood {told.best:.3f} 1/Å")

# %%
# Near the dashed line, ln N, a state cannot go higher, and the difference shrinks from the left. Note how the
# difference itself depends on h: it is not a thermodynamic entropy.

figure, (left, right) = plt.subplots(1, 2, figsize=(9.0, 3.8), layout="constrained")
left.semilogx(h, of_solid, color="C0", label="crystal")
left.semilogx(h, of_liquid, color="C3", label="liquid")
left.axhline(np.log(len(solid)), color="k", ls="--", lw=1.0, label="ln N")
left.set(xlabel="bandwidth h (1/Å)", ylabel="H (nats)")
left.legend(frameon=False)
right.semilogx(h, of_liquid - of_solid, color="k")
marks = (("default", 0.015), ("demonstration", 0.03), ("volume rule", get_bandwidth(13.2)))
for number, (name, value) in enumerate(marks):
    right.axvline(value, color=f"C{number}", lw=1.2, ls=":", label=f"{name}, {value:.3f}")
right.set(xlabel="bandwidth h (1/Å)", ylabel="H(liquid) - H(crystal) (nats)")
right.legend(frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, fontsize=8)
