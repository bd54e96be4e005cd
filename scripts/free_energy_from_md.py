#!/usr/bin/env python
"""From dynamics at several volumes and temperatures to a free energy F(V, T).

    python scripts/free_energy_from_md.py examples/copper_states.xyz

A complete example to copy and change. Frames need energy, stress, a cell and info['temperature'].
"""

from __future__ import annotations

import argparse

import numpy as np

from quests_zenn.states import (
    find_phases,
    fit_states,
    group_states,
    iterate_samples,
    propose_states,
    state_entropies,
    state_weights,
)

K_B = 8.617333262145179e-05  # eV/K

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("files", nargs="+", help="frames, of any format that ASE reads")
parser.add_argument("--weights", default="uniform", help="of states: uniform, density or novelty")
parser.add_argument("--output", default="free_energy", help="the folder of the model, which must not be there yet")
options = parser.parse_args()

samples = list(iterate_samples(options.files))
phases = find_phases(samples, group_states(samples))
states = group_states(samples, phases=phases.labels)
print(f"{sum(map(len, samples))} frames: {len(states)} states, {phases.n} phase(s)")

entropies = state_entropies(states)
weights = state_weights(entropies, options.weights)
fit = fit_states(states, entropies=entropies, weights=weights)
fit.model.save(options.output)
for state, H, weight in zip(states, entropies.H, fit.weights, strict=True):
    print(f"V = {state.volume:.2f} Å3, T = {state.temperature:.0f} K: H = {H:.3f} nats, weight {weight:.2f}")
print(f"S/k_B = {fit.link.c:.2f} H + 3/2 ln T + s0, off by {fit.link.rms:.2f} in the mean; {fit.model.relative_to_}")

for T in np.linspace(*fit.model.T_range_, 4):
    V = float(np.mean(fit.model.x_range_))
    told = [getattr(fit.model, name)(V, T, std=True) for name in ("free_energy", "pressure", "entropy")]
    (F, dF), (P, dP), (S, dS) = told
    print(f"V = {V:.2f}, T = {T:.0f}: F = {F:.4f} ± {dF:.4f} eV, P = {P:.2f} ± {dP:.2f} GPa, S = {S / K_B:.2f} k_B")
for entry in propose_states(fit, states):
    print(f"simulate next: V = {entry['volume']:.2f} Å3 per atom, T = {entry['temperature']:.0f} K")
