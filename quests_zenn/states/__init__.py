"""Trajectories to thermodynamic states to a fitted free energy, weighted by what their structures say."""

from quests_zenn.states.coexistence import Coexistence, coexistence
from quests_zenn.states.entropies import StateEntropies, state_entropies
from quests_zenn.states.fitting import EntropyLink, StatesFit, fit_states, link_entropy
from quests_zenn.states.grouping import State, group_states, single_states
from quests_zenn.states.phases import Phases, find_phases, phase_shares, phases_told
from quests_zenn.states.proposing import propose_states
from quests_zenn.states.samples import Samples, iterate_samples, read_samples
from quests_zenn.states.weighting import state_scores, state_weights, structure_weights

__all__ = [
    "Coexistence",
    "EntropyLink",
    "Phases",
    "Samples",
    "State",
    "StateEntropies",
    "StatesFit",
    "coexistence",
    "find_phases",
    "fit_states",
    "group_states",
    "iterate_samples",
    "link_entropy",
    "phase_shares",
    "phases_told",
    "propose_states",
    "read_samples",
    "single_states",
    "state_entropies",
    "state_scores",
    "state_weights",
    "structure_weights",
]
