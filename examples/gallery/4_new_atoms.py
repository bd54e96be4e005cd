"""
Which atoms are new?
====================

A potential can be trusted where it was trained. Its training set becomes a *reference*, and every atom of a new frame
gets dH: negative where the reference knows many environments like it, positive where it knows none.
"""

# %%
# The reference is the crystal of the first 100 frames. Successive frames resemble each other, so that ten of them make
# one group: groups are left out together when a threshold is sought.

try:
    import matplotlib.pyplot as plt
except ImportError:
    raise SystemExit("this example draws, which takes the extra plot: pip install quests_zenn[plot]") from None

import numpy as np
from ase.io import read

from quests_zenn.uq import Reference

frames = read("../copper_melting.xyz", ":")
known, later = frames[:100], frames[100:]
reference = Reference.fit(known, bandwidth=0.03, groups=np.arange(100) // 10)

# %%
# The threshold is the largest dH that a tenth of the reference's own frames reach when their group is left out: so many
# frames of the same crystal would hold an atom that is called new.

threshold = reference.threshold(0.1, of="max")
scores = reference.score_frames(later, threshold)
print(f"an atom is new from dH = {threshold:.2f} nats on")
print(
    f"new atoms: first ten frames {scores.novel_share[:10].mean():.1%}, last ten {scores.novel_share[-10:].mean():.1%}"
)

# %%
# Frames one by one, and the atoms of the first frame of which a tenth is new. Do new atoms lie together? Each one's
# three nearest new atoms, against as many atoms drawn at random.

time = np.array([atoms.info["time_ps"] for atoms in later])
which = int(np.argmax(scores.novel_share > 0.1))
atoms = later[which]
dh = scores.dh[scores.frame_offsets[which] : scores.frame_offsets[which + 1]]
x, y = atoms.get_positions(wrap=True)[:, :2].T
distances = atoms.get_all_distances(mic=True)


def nearness(members):
    """Mean distance of some atoms to the three nearest others of them, Å."""
    return np.sort(distances[np.ix_(members, members)], axis=1)[:, 1:4].mean()


new = np.flatnonzero(dh >= threshold)
rng = np.random.default_rng(0)
drawn = [nearness(rng.choice(len(atoms), len(new), replace=False)) for _ in range(200)]
print(f"at {time[which]:.1f} ps {len(new)} atoms are new: {nearness(new):.2f} Å apart, drawn at random "
      f"{np.mean(drawn):.2f} ± {np.std(drawn):.2f} Å")  # fmt: skip

# %%
# The cell is small, and melting takes a few picoseconds, but the liquid does not begin everywhere at once. In OVITO,
# colour the atoms of a file that ``quests-zenn dh -o scored.xyz`` wrote by ``dH``; below, new atoms have a black rim.

figure, (left, right) = plt.subplots(1, 2, figsize=(9.5, 4.0), layout="constrained", width_ratios=[1.3, 1.0])
left.plot(time, 100 * scores.novel_share, color="C3")
left.axvline(time[which], color="k", ls=":", lw=1.0)
left.set(xlabel="time (ps)", ylabel="new atoms (%)")
rims = np.where(dh >= threshold, "k", "none")
dots = right.scatter(x, y, c=dh, s=70, cmap="coolwarm", vmin=-8, vmax=8, edgecolors=rims, linewidths=1.2)
right.set(xlabel="x (Å)", ylabel="y (Å)", aspect="equal", title=f"{time[which]:.1f} ps")
figure.colorbar(dots, ax=right, label="dH (nats)")
