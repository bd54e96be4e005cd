"""
See a crystal melt
==================

Copper is heated from 600 to 2000 K. The entropy of its environments tells when it melts: no order parameter, no model,
nothing that knows about crystals.
"""

# %%
# Each atom with its neighbours becomes one row of numbers, an *environment*.

try:
    import matplotlib.pyplot as plt
except ImportError:
    raise SystemExit("this example draws, which takes the extra plot: pip install quests_zenn[plot]") from None

import numpy as np
from ase.io import read

from quests_zenn.descriptors import describe
from quests_zenn.entropy import entropy, group_metrics

frames = read("../copper_melting.xyz", ":")
env = describe(frames)
print(f"{len(frames)} frames, {len(env)} environments, {env.x.shape[1]} numbers each")

# %%
# H is 0 if all environments are alike, and ln N if no two are. The bandwidth h says how close two must be to count as
# alike.

h = 0.03  # 1/Å
print(f"H = {entropy(env.x, h):.3f} nats, at most ln N = {np.log(len(env)):.3f}")

# %%
# Each frame alone: its 256 environments are compared with each other only.

frame_of_row = np.repeat(np.arange(len(frames)), np.diff(env.frame_offsets))
H = group_metrics(env.x, h, frame_of_row).entropy[0]
time, temperature = (np.array([atoms.info[key] for atoms in frames]) for key in ("time_ps", "target_temperature"))

# %%
# H rises slowly while the crystal gets hotter. The largest rise from ten frames to the next ten is the melting.

rise = np.array([H[i : i + 10].mean() - H[i - 10 : i].mean() for i in range(10, len(H) - 10)])
melted = 10 + int(np.argmax(rise))
print(f"largest rise: {rise.max():.2f} nats at {time[melted]:.0f} ps, {temperature[melted]:.0f} K")

# %%
# A perfect crystal this small, without surfaces, melts well above its melting point. H is no thermodynamic entropy, but
# it marks the step.

figure, axes = plt.subplots(figsize=(7.0, 3.8), layout="constrained")
axes.plot(time, H, color="C0", label="entropy of the frame")
axes.axvline(time[melted], color="C3", lw=1.0, ls="--", label="largest rise")
axes.set(xlabel="time (ps)", ylabel="H (nats)")
beside = axes.twinx()
beside.plot(time, temperature, color="0.7", lw=1.0)
beside.set_ylabel("temperature of the thermostat (K)", color="0.5")
axes.legend(frameon=False, loc="upper left")
