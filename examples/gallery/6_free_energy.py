"""
A free energy from a table
==========================

Free energies at many volumes and temperatures become one smooth F(V, T), and from that follow isobars, a transition
and a critical point, with errors. The material is made up: it can be one of two solids, so that we know what should
come out. It takes the extra ``zenn``.
"""

# %%
# Every second row of the table: 176 free energies with random errors of 0.5 meV, of a cell of four atoms.

try:
    import matplotlib.pyplot as plt
except ImportError:
    raise SystemExit("this example draws, which takes the extra plot: pip install quests_zenn[plot]") from None

import numpy as np

from quests_zenn.zenn import ZENN, thermo

table = np.genfromtxt("../two_solids.csv", delimiter=",", names=True)[::2]
V, T, F = table["volume_A3"], table["T_K"], table["free_energy_eV"]

# %%
# A mixture of two configurations, each with an equation of state and vibrations. Three members see the data with
# different draws of the noise; their spread is the error. (Take twelve configurations, the default, and more members
# for data of your own.)

model = ZENN(2, n_atoms=4, n_members=3, random_state=0, verbose=False).fit(V, T, F=F)
print(f"rms {1e3 * model.report_['targets']['F']['rms']:.2f} meV")

# %%
# The truth is 126.5 K and 3.30 GPa.

point = thermo.critical_point(model)
print(f"critical point {point.temperature:.0f} ± {point.temperature_std:.0f} K, "
      f"{point.pressure:.2f} ± {point.pressure_std:.2f} GPa")  # fmt: skip

# %%
# Isobars. The second solid is smaller and has more entropy, so that the crystal *shrinks* when it is heated through the
# transition; below the critical point it jumps.

temperatures = np.linspace(50.0, 500.0, 91)
pressures = np.array([0.0, 2.0, 4.0])
states = thermo.equilibrium(model, pressures[:, None], temperatures)

figure, (left, right) = plt.subplots(1, 2, figsize=(9.0, 3.8), layout="constrained")
for number, (pressure, v, std) in enumerate(zip(pressures, states.volume, states.volume_std, strict=True)):
    left.plot(temperatures, v, color=f"C{number}", label=f"{pressure:g} GPa")
    left.fill_between(temperatures, v - std, v + std, color=f"C{number}", alpha=0.3, lw=0)
left.set(xlabel="T (K)", ylabel="volume of the cell (Å3)")
left.legend(frameon=False)
volumes = np.linspace(44.5, 50.5, 121)
for number, temperature in enumerate((60.0, 126.5, 300.0)):
    p, std = model.pressure(volumes, temperature, std=True)
    right.plot(volumes, p, color=f"C{number}", label=f"{temperature:g} K")
    right.fill_between(volumes, p - std, p + std, color=f"C{number}", alpha=0.3, lw=0)
right.set(xlabel="volume of the cell (Å3)", ylabel="P (GPa)")
right.legend(frameon=False)
