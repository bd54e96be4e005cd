"""
Active learning in one dimension
================================

A free energy g(x) is known only by its slope µ = dg/dx, and each value of µ costs a simulation. A committee of small
networks is trained on what was measured, and the next points are bought where it is unsure. It takes the
extra ``zenn``.
"""

# %%
# Here the simulation is a formula with noise of 10 meV, so that we can compare: a double well between x = 0 and 1.

try:
    import matplotlib.pyplot as plt
except ImportError:
    raise SystemExit("this example draws, which takes the extra plot: pip install quests_zenn[plot]") from None

import numpy as np

from quests_zenn.sampling import ActiveLearning, FunctionOracle, Polytope
from quests_zenn.zenn import IDNN

DEPTH = 4.0  # eV


def energy(x):
    """g(x), eV: wells at 0.2 and 0.7."""
    return DEPTH * (x - 0.2) ** 2 * (x - 0.7) ** 2


def slope(x, T):
    """What is measured, eV."""
    u, v = x - 0.2, x - 0.7
    return 2.0 * DEPTH * u * v * (u + v)


# %%
# Eight points that fill the domain, then two rounds of eight.

run = ActiveLearning(
    Polytope.box([0.0], [1.0]),
    FunctionOracle(slope, 1, noise=0.01),
    IDNN(hidden=(8,), n_members=3, random_state=0, verbose=False),
    criteria={"committee": 2, "expected-error": 1, "vertices": 1},
    initial=8,
    per_round=8,
    stop=24,
    n_candidates=400,
    random_state=0,
).run()
print(run.stopped_)

# %%
# g follows from its slope up to a constant, so that only differences mean something: here, from the lowest point.

rows = run.rows_
x = np.linspace(rows.x.min(), rows.x.max(), 201)
mu, std = run.model_.chemical_potential(x[:, None], 300.0, std=True)
members = run.model_.derivatives(x[:, None], 300.0, [(0, 0)], members=True)[0, 0]
g = members - members[:, [np.argmin(energy(x))]]
print(f"barrier between the wells: {1e3 * g.mean(axis=0)[(x > 0.2) & (x < 0.7)].max():.1f} meV, "
      f"truth {1e3 * energy(0.45):.1f}")  # fmt: skip

# %%
# Left: what was measured, by the round that bought it, and the slope of the model with its band. Right: g.

figure, (left, right) = plt.subplots(1, 2, figsize=(9.0, 3.8), layout="constrained")
left.plot(x, slope(x, 300.0), color="k", ls="--", lw=1.0, label="truth")
left.plot(x, mu, color="C0", label="model")
left.fill_between(x, mu - std, mu + std, color="C0", alpha=0.3, lw=0)
dots = left.scatter(rows.x[:, 0], rows.mu[:, 0], c=rows.round, cmap="viridis", zorder=3)
figure.colorbar(dots, ax=left, label="round", ticks=range(3))
left.set(xlabel="x", ylabel="µ = dg/dx (eV)")
left.legend(frameon=False)
right.plot(x, 1e3 * energy(x), color="k", ls="--", lw=1.0, label="truth")
right.plot(x, 1e3 * g.mean(axis=0), color="C0", label="model")
right.fill_between(x, *(1e3 * (g.mean(axis=0) + sign * g.std(axis=0, ddof=1)) for sign in (-1, 1)),
                   color="C0", alpha=0.3, lw=0)  # fmt: skip
right.set(xlabel="x", ylabel="g - g of the lowest point (meV)", ylim=(-10, 90))
right.legend(frameon=False)
