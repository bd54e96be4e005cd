"""What a configuration is made of: equation of state, vibrations, electrons, networks; all of them at once.

Free parameters are standardised: a parameter is ``mean + scale * z``, and z has a normal prior of unit width, or of the
width that training learns for its block. Layouts: z (M, P), M members; jets (C, M, K, R), K configurations, R rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from quests_zenn._core.checks import finite, one_of, positive, whole_number
from quests_zenn.zenn import _jets
from quests_zenn.zenn._jets import Orders
from quests_zenn.zenn._polynomials import Polynomials

if TYPE_CHECKING:
    import torch

#: k_B, eV/K (exact in the SI of 2019).
BOLTZMANN = 8.617333262145179e-5

#: GPa per eV/Å3.
GPA = 160.2176634

#: Configurations on the lowest rung.
ON_THE_GROUND = 2

#: Width of the prior of what data cannot tell.
FIXED = 1e-6

#: K, where anharmonicity is the share of k_B per atom that heat capacities gain.
WARM = 1000.0

ENERGIES = ("network", "birch-murnaghan", "vinet")
THERMALS = ("none", "einstein", "debye", "classical")


@dataclass(frozen=True)
class Block:
    """A stretch of z that belongs together: one kind of parameter of all configurations.

    `shape` is (K,) for scalars, (G, in, out) for weights, (G, out) for biases; `learned` says whether the width of its
    prior is learned (`by_input`, `by_group`: a width for each input of a layer, for each group), `step` by how much the
    mean rises from one configuration to the next, and `taper` how much narrower the prior is off the ground.
    """

    name: str
    shape: tuple[int, ...]
    mean: float
    scale: float
    learned: bool = True
    spread: float = 0.5
    step: float = 0.0
    taper: float = 1.0
    by_input: bool = False
    by_group: bool = False
    first: int = 0

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def stop(self) -> int:
        return self.first + self.size

    def stretches(self) -> list[npt.NDArray[np.int64]]:
        """Indices of parameters that share the width of a prior."""
        every = np.arange(self.first, self.stop).reshape(self.shape)
        groups = list(every) if self.by_group else [every]
        if not self.by_input:
            return [group.reshape(-1) for group in groups]
        # the axis of the inputs is the last but one
        return [group[..., i, :].reshape(-1) for group in groups for i in range(self.shape[1])]

    def scales(self) -> float | torch.Tensor:
        """Of all parameters, or (K,) of each configuration."""
        import torch

        if self.taper == 1.0:
            return self.scale
        return self.scale * torch.where(rungs(self.size) > 0.0, self.taper, 1.0)


def stretches(blocks: list[Block]) -> dict[str, tuple[Block, npt.NDArray[np.int64]]]:
    """By name, parameters that share the width of their prior; numbered where a block has several such stretches."""
    found = {}
    for block in blocks:
        parts = block.stretches()
        for i, which in enumerate(parts):
            found[block.name if len(parts) == 1 else f"{block.name}[{i}]"] = block, which
    return found


@dataclass(frozen=True)
class Design:
    """All that fixes the form of a model, apart from its parameters. Plain numbers and strings: it is kept as JSON.

    Attributes
    ----------
    n_configurations, n_inputs : int
        K, and q, the components of x.
    coordinate, energy, thermal : str
        See `ZENN`.
    hidden : tuple of int
        Widths of the hidden layers of the networks; empty for none.
    explicit_temperature : bool
        Whether the networks see T.
    split : bool
        Whether a configuration has an energy and an intrinsic entropy (else one network is its free energy).
    convex : bool
        Whether energies are convex in x by construction.
    n_atoms, coherence, gamma, boltzmann : float
        Atoms of a unit, units that mix coherently, bound of the fluctuation of entropy, k_B.
    x_centre, x_scale : tuple of float
    inputs : dict or None
        Polynomials of x that networks see in its place, as `Polynomials.to_dict` gives them; with their own units:
    input_centre, input_scale : tuple of float
    gains : tuple of float
        Where F depends on some of its arguments far less than on others, there are two networks. The first sees these
        arguments times their gains, at most 1 (empty: there is one network); what the second adds is smaller by
    fine : float
    T_centre, T_scale : float
        Units inside of the networks.
    energy_scale : float
        eV, width of the prior of energies, and unit of the penalty on what is not convex.
    centres, widths : dict
        Prior of physical parameters, by name, where it differs from the general one.
    correction : float
        eV, what networks add to energies when they put out 1.
    entropy_correction : float
        What networks add to the roots of entropies when they put out 1.
    ladder : float
        eV, by how much the prior of the energy rises from one configuration to the next: those that data do not ask for
        stay out of the mixture.
    taper : float
        How much narrower priors of vibrations and electrons are off the ground: with wide ones a configuration that
        data leave free may come with the entropy of a gas, and rule beyond the data.
    """

    n_configurations: int
    n_inputs: int = 1
    coordinate: str = "volume"
    energy: str = "birch-murnaghan"
    thermal: str = "debye"
    hidden: tuple[int, ...] = (8,)
    explicit_temperature: bool = False
    split: bool = True
    convex: bool = False
    n_atoms: float = 1.0
    coherence: float = 1.0
    gamma: float = math.inf
    boltzmann: float = BOLTZMANN
    x_centre: tuple[float, ...] = (0.0,)
    x_scale: tuple[float, ...] = (1.0,)
    T_centre: float = 0.0
    T_scale: float = 1.0
    energy_scale: float = 1.0
    correction: float = 1.0
    entropy_correction: float = 1.0
    ladder: float = 0.0
    taper: float = 1.0
    centres: dict[str, float] = field(default_factory=dict)
    widths: dict[str, float] = field(default_factory=dict)
    inputs: dict[str, Any] | None = None
    input_centre: tuple[float, ...] = ()
    input_scale: tuple[float, ...] = ()
    gains: tuple[float, ...] = ()
    fine: float = 1.0

    def __post_init__(self) -> None:
        for name in ("n_configurations", "n_inputs"):
            whole_number(getattr(self, name), name, 1)
        for name in (
            "n_atoms",
            "coherence",
            "boltzmann",
            "T_scale",
            "energy_scale",
            "correction",
            "entropy_correction",
            "taper",
        ):
            positive(getattr(self, name), name)
        if not self.gamma > 0.0:
            raise ValueError(f"gamma must be positive, got {self.gamma!r}")
        finite(self.T_centre, "T_centre")
        finite(self.ladder, "ladder")
        one_of(self.coordinate, "coordinate", ("volume", "order"))
        one_of(self.energy, "energy", ENERGIES)
        one_of(self.thermal, "thermal", THERMALS)
        if len(self.x_centre) != self.n_inputs or len(self.x_scale) != self.n_inputs:
            raise ValueError("centres and scales must be as many as the components of x")
        for width in self.hidden:
            whole_number(width, "a width of hidden", 1)
        for value in self.x_centre:
            finite(value, "x_centre")
        for value in self.x_scale:
            positive(value, "x_scale")
        for values in (self.centres, self.widths):
            for name, value in values.items():
                finite(value, name)
        for name in ("explicit_temperature", "split", "convex"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} must be true or false")
        self._check_inputs()

    def _check_inputs(self) -> None:
        count = 0
        if self.inputs is not None:
            polynomials = Polynomials.from_dict(self.inputs)
            if self.coordinate != "order" or self.convex:
                raise ValueError("polynomials of x need coordinate='order', and networks that need not be convex in x")
            if polynomials.n_inputs != self.n_inputs:
                raise ValueError(f"x has {self.n_inputs} components, but the polynomials {polynomials.n_inputs}")
            count = polynomials.n_outputs
        if len(self.input_centre) != count or len(self.input_scale) != count:
            raise ValueError("centres and scales must be as many as the polynomials")
        for value in self.input_centre:
            finite(value, "input_centre")
        for value in self.input_scale:
            positive(value, "input_scale")
        positive(self.fine, "fine")
        for value in self.gains:
            positive(value, "gains")
        if self.gains and (self.split or self.convex or len(self.gains) != self.n_fed):
            raise ValueError("gains must be as many as the inputs, and need a single free energy")

    def blocks(self) -> list[Block]:
        """The blocks of z, in order."""
        k = self.n_configurations
        made: list[Block] = []

        def add(name: str, shape: tuple[int, ...], mean: float, scale: float, **more: Any) -> None:
            first = made[-1].stop if made else 0
            mean, scale = self.centres.get(name, mean), self.widths.get(name, scale)
            if scale == FIXED:  # data say nothing of it: nor do they of its width
                more["learned"] = False
            made.append(Block(name, shape, mean, scale, first=first, **more))

        if self.energy != "network":
            add("energy", (k,), 0.0, self.energy_scale, step=self.ladder)
            add("log_volume", (k,), math.log(self.x_centre[0]), 0.03)
            add("log_bulk_modulus", (k,), math.log(100.0 / GPA), 0.3)
            add("bulk_modulus_slope", (k,), 4.5, 1.5)
        if self.split:
            add("entropy_root", (k,), 1.0, 0.7)
        if self.thermal != "none":
            add("log_temperature", (k,), math.log(300.0), 0.3, taper=self.taper)
            add("grueneisen", (k,), 2.0, 1.0, taper=self.taper)
            add("grueneisen_slope", (k,), 0.0, 1.0, taper=self.taper)
            if self.thermal == "classical":
                add("anharmonicity", (k,), 0.0, 0.1, taper=self.taper)
                add("anharmonicity_slope", (k,), 0.0, 1.0, taper=self.taper)
            else:
                add("log_electronic", (k,), math.log(5e-8 * self.n_atoms), 1.0, taper=self.taper)
        if self.hidden and self.convex:
            self._convex_blocks(add)
            if self.split and self.explicit_temperature:
                self._plain_blocks(add, "entropy_", k, 1)
        elif self.hidden:
            self._plain_blocks(
                add, "", k * (2 if self.split or self.gains else 1), self.n_fed + self.explicit_temperature
            )
        return made

    def _plain_blocks(self, add: Callable[..., None], names: str, groups: int, width: int) -> None:
        for layer, out in enumerate(self.hidden):
            gain = 1.5 / math.sqrt(width)
            # how much each input matters is learned where they differ by nature (MacKay 1992; Neal 1996)
            relevant = layer == 0 and bool(self.inputs is not None or self.gains)
            add(
                f"{names}weights_{layer}",
                (groups, width, out),
                0.0,
                gain,
                learned=relevant,
                spread=1.0,
                by_input=relevant,
                by_group=relevant and bool(self.gains),
            )
            add(f"{names}biases_{layer}", (groups, out), 0.0, 1.0, learned=False, spread=1.0)
            width = out
        add(f"{names}weights_out", (groups, width, 1), 0.0, 1.0 / math.sqrt(width), by_group=bool(self.gains))
        add(f"{names}biases_out", (groups, 1), 0.0, 1.0, learned=False, spread=0.1)

    def _convex_blocks(self, add: Callable[..., None]) -> None:
        """Networks convex in x for any dependence on T: Amos, Xu and Kolter, ICML 2017 (partially input-convex)."""
        k, q, seen = self.n_configurations, self.n_inputs, self.hidden[0]
        if self.explicit_temperature:
            add("gate_weights", (k, 1, seen), 0.0, 1.5, learned=False, spread=1.0)
            add("gate_biases", (k, seen), 0.0, 1.0, learned=False, spread=1.0)
        width = 0
        for layer, out in enumerate((*self.hidden, 1)):
            tag = "out" if layer == len(self.hidden) else str(layer)
            add(f"convex_x_{tag}", (k, q, out), 0.0, 2.0 / math.sqrt(q), learned=False, spread=1.0)
            add(f"convex_biases_{tag}", (k, out), 0.0, 1.0, learned=False, spread=1.0)
            if self.explicit_temperature:
                add(f"convex_T_{tag}", (k, seen, out), 0.0, 1.0 / math.sqrt(seen), learned=False, spread=1.0)
                add(f"convex_xT_{tag}", (k, seen, q * out), 0.0, 1.0 / math.sqrt(seen), learned=False, spread=0.3)
            if width:
                # through softplus: positive, of size about 1 / width
                mean = math.log(math.expm1(1.0 / width))
                add(f"convex_positive_{tag}", (k, width, out), mean, 1.0, learned=False)
            width = out

    @property
    def n_fed(self) -> int:
        """What networks see of x: its components, or polynomials of them."""
        return self.n_inputs if self.inputs is None else len(self.input_centre)

    @property
    def n_parameters(self) -> int:
        """Parameters of one member."""
        return self.blocks()[-1].stop


def rungs(count: int) -> torch.Tensor:
    """On which rung of the ladder each configuration has its prior: a few share the lowest one."""
    import torch

    return torch.clamp(torch.arange(count, dtype=torch.float64) - (ON_THE_GROUND - 1), min=0.0)


class View:
    """Parameters of all members as a model sees them; with `taps`, what derivatives by row need.

    Derivatives of every row in every parameter come from one backward pass through values by row: scalars are spread
    over the rows, and the weights of a layer get theirs from what goes in and what comes back.
    """

    def __init__(self, blocks: list[Block], z: torch.Tensor, rows: int, taps: bool = False) -> None:
        self.z, self.rows, self.taps = z, rows, taps
        self.members = z.shape[0]
        self.blocks = {block.name: block for block in blocks}
        self.leaves: list[torch.Tensor] = []
        self._of: list[tuple[str, Any]] = []

    def block(self, name: str) -> torch.Tensor:
        """(M, ...) parameters of a block."""

        block = self.blocks[name]
        part = self.z[:, block.first : block.stop] * block.scales() + block.mean
        if block.step:
            part = part + block.step * rungs(block.size)
        return part.reshape(self.members, *block.shape)

    def scalar(self, name: str) -> torch.Tensor:
        """(M, K, 1), or (M, K, R) with taps."""
        value = self.block(name)[..., None]
        if not self.taps:
            return value
        leaf = value.detach().expand(-1, -1, self.rows).clone().requires_grad_()
        self.leaves.append(leaf)
        self._of.append((name, None))
        return leaf

    def linear(self, h: torch.Tensor, weights: str, biases: str | None = None, positive: bool = False) -> torch.Tensor:
        """h (C, M, G, R, in) through a layer: (C, M, G, R, out)."""
        import torch

        w = self.block(weights)
        slope = None
        if positive:
            slope = torch.sigmoid(w)
            w = torch.nn.functional.softplus(w)
        out = torch.matmul(h, w)
        if biases is not None:
            b = self.block(biases)[:, :, None, :]
            out = torch.cat([out[:1] + b, out[1:]])
        if self.taps:
            leaf = torch.zeros_like(out).requires_grad_()
            out = out.detach() + leaf if not out.requires_grad else out + leaf
            self.leaves.append(leaf)
            self._of.append((weights, (h.detach(), slope, biases)))
        return out

    def jacobian(self, output: torch.Tensor) -> torch.Tensor:
        """(M, R, P) derivatives of `output` (M, R), whose rows depend each on itself alone, with respect to z."""
        import torch

        size = max(block.stop for block in self.blocks.values())
        result = self.z.new_zeros((self.members, self.rows, size))
        grads = torch.autograd.grad(output.sum(), self.leaves, retain_graph=True, allow_unused=True)
        for (name, more), grad in zip(self._of, grads, strict=True):
            if grad is None:
                continue
            block = self.blocks[name]
            part = result[:, :, block.first : block.stop]
            if more is None:
                part += grad.transpose(1, 2) * block.scales()
                continue
            h, slope, biases = more
            # h may be shared by members or groups: the product spreads it
            c, m, g, r, _ = grad.shape
            h = h.expand(c, m, g, r, h.shape[-1])
            flow = torch.einsum("cmgri,cmgro->mrgio", h, grad)
            if slope is not None:
                flow = flow * slope[:, None]
            part += flow.reshape(m, r, -1) * block.scale
            if biases is not None:
                block = self.blocks[biases]
                result[:, :, block.first : block.stop] += grad[0].permute(0, 2, 1, 3).reshape(m, r, -1) * block.scale
        return result


class Parts:
    """Free energies of the configurations, as jets."""

    def __init__(self, design: Design) -> None:
        self.design = design
        self.blocks = design.blocks()
        self.polynomials = None if design.inputs is None else Polynomials.from_dict(design.inputs)

    def free_energies(
        self, view: View, orders: Orders, x: torch.Tensor, T: torch.Tensor, entropies: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """F_k, and S_k where asked.

        Parameters
        ----------
        view : View
        orders : Orders
        x : (C, R, q) jets
        T : (C, R) jet
        entropies : bool

        Returns
        -------
        (C, M, K, R) jets of F_k, and of the intrinsic entropies S_k or None
        """
        import torch

        d = self.design
        temperature = T[:, None, None, :]
        # what depends on x alone is worked out without the derivatives in T, and embedded
        still = orders.without_last()
        still_x = x[orders.inner]
        volume = still_x[..., 0][:, None, None, :]
        free: list[torch.Tensor] = []
        intrinsic: list[torch.Tensor] = []
        if d.energy != "network":
            free.append(orders.embed(self._equation_of_state(view, still, volume)))
        if d.hidden:
            if d.explicit_temperature:
                energy, root = self._networks(view, orders, x, T)
            else:
                energy, root = self._networks(view, still, still_x, T[orders.inner])
                energy, root = orders.embed(energy), None if root is None else orders.embed(root)
            free.append(energy * d.correction)
        else:
            root = None
        if d.split:
            base = orders.constant(view.scalar("entropy_root"))
            root = base if root is None else base + d.entropy_correction * root
            entropy = orders.compose(_jets.square, root) * d.boltzmann
            free.append(-orders.multiply(temperature, entropy))
            intrinsic.append(entropy)
        if d.thermal != "none":
            vibrations, heat = self._vibrations(view, orders, still, volume, temperature, entropies)
            free.append(vibrations)
            intrinsic.extend(heat)
        total = free[0]
        for part in free[1:]:
            total = total + part
        if not entropies:
            return total, None
        if not intrinsic:
            return total, torch.zeros_like(total)
        entropy = intrinsic[0]
        for part in intrinsic[1:]:
            entropy = entropy + part
        return total, entropy.expand_as(total)

    def _equation_of_state(self, view: View, orders: Orders, volume: torch.Tensor) -> torch.Tensor:
        energy, log_volume = view.scalar("energy"), view.scalar("log_volume")
        stiffness = (view.scalar("log_bulk_modulus") + log_volume).exp()
        slope = view.scalar("bulk_modulus_slope")
        if self.design.energy == "birch-murnaghan":
            # Birch, Phys. Rev. 71, 809 (1947), third order
            strain = orders.compose(_jets.power(-2.0 / 3.0), volume) * (2.0 / 3.0 * log_volume).exp()
            strain = _shifted(strain, -1.0)
            squared = orders.multiply(strain, strain)
            cubed = orders.multiply(squared, strain)
            result = (9.0 / 16.0) * stiffness * ((slope - 4.0) * cubed + 2.0 * squared)
        else:
            # Vinet, Ferrante, Rose and Smith, J. Geophys. Res. 92, 9319 (1987)
            length = _shifted(orders.compose(_jets.power(1.0 / 3.0), volume) * (-log_volume / 3.0).exp(), -1.0)
            eta = 1.5 * (slope - 1.0)
            decay = orders.compose(_jets.exp, -eta * length)
            # E = 4 V0 B0 / (B' - 1)^2 (1 - (1 + eta l) exp(-eta l)), l = (V / V0)^(1/3) - 1
            product = orders.multiply(_shifted(eta * length, 1.0), decay)
            result = 4.0 * stiffness / (slope - 1.0) ** 2 * _shifted(-product, 1.0)
        return _shifted(result, energy)

    def _vibrations(
        self,
        view: View,
        orders: Orders,
        still: Orders,
        volume: torch.Tensor,
        temperature: torch.Tensor,
        entropies: bool,
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Vibrations of a solid whose temperature follows the volume, and what F has beside them in the order T^2.

        That is electrons of a metal, -g T^2 / 2. Classical dynamics has neither quanta nor electrons, but shows the
        anharmonicity of the atoms' motion, whose leading term is of the same order, of either sign, and depends on the
        volume: -n k_B (a + b ln(V / V_c)) T^2 / (2 * 1000 K). See Wallace, Thermodynamics of Crystals (1972).
        """
        d = self.design
        strain = _shifted(still.compose(_jets.log, volume), -math.log(d.x_centre[0]))
        curved = still.multiply(strain, strain)
        exponent = -view.scalar("grueneisen") * strain - view.scalar("grueneisen_slope") * curved
        theta = orders.embed(still.compose(_jets.exp, _shifted(exponent, view.scalar("log_temperature"))))
        ratio = orders.multiply(theta, orders.compose(_jets.power(-1.0), temperature))
        series = {"debye": _jets.debye, "einstein": _jets.einstein, "classical": _jets.classical}[d.thermal]
        amount = d.n_atoms * d.boltzmann
        result = amount * orders.multiply(temperature, orders.compose(series, ratio))
        if d.thermal == "classical":
            share = _shifted(view.scalar("anharmonicity_slope") * strain, view.scalar("anharmonicity"))
            gain = (amount / WARM) * orders.multiply(orders.embed(share), temperature)
            result = result - 0.5 * orders.multiply(gain, temperature)
            return result, [amount * orders.compose(_jets.entropy_of(series), ratio), gain] if entropies else []
        electrons = view.scalar("log_electronic").exp()
        result = result - 0.5 * electrons * orders.multiply(temperature, temperature)
        if not entropies:
            return result, []
        return result, [amount * orders.compose(_jets.entropy_of(series), ratio), electrons * temperature]

    def _networks(
        self, view: View, orders: Orders, x: torch.Tensor, T: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """What networks add to the energies, and the roots of what they add to the entropies."""
        import torch

        d = self.design
        k = d.n_configurations
        if self.polynomials is None:
            seen, centre, scale = x, d.x_centre, d.x_scale
        else:
            seen, centre, scale = self.polynomials.jets(orders, x), d.input_centre, d.input_scale
        scaled = torch.stack([_shifted(seen[..., i], -centre[i]) / scale[i] for i in range(d.n_fed)], dim=-1)
        heat = (_shifted(T, -d.T_centre) / d.T_scale)[..., None]
        if d.convex:
            energy = self._convex(view, orders, scaled, heat)
            if not d.split:
                return energy, None
            fed = heat
            if not d.explicit_temperature:
                return energy, None
            return energy, self._plain(view, orders, fed, "entropy_")
        fed = torch.cat([scaled, heat], dim=-1) if d.explicit_temperature else scaled
        out = self._plain(view, orders, fed, "")
        if d.gains:
            return out[:, :, :k] + d.fine * out[:, :, k:], None
        return (out[:, :, :k], out[:, :, k:]) if d.split else (out, None)

    def _plain(self, view: View, orders: Orders, fed: torch.Tensor, names: str) -> torch.Tensor:
        h = fed[:, None, None]
        if self.design.gains:
            factors = fed.new_ones((2 * self.design.n_configurations, 1, fed.shape[-1]))
            factors[: self.design.n_configurations, 0, : self.design.n_fed] = fed.new_tensor(self.design.gains)
            h = h * factors
        for layer in range(len(self.design.hidden)):
            h = view.linear(h, f"{names}weights_{layer}", f"{names}biases_{layer}")
            h = orders.compose(_jets.tanh, h)
        return view.linear(h, f"{names}weights_out", f"{names}biases_out")[..., 0]

    def _convex(self, view: View, orders: Orders, x: torch.Tensor, T: torch.Tensor) -> torch.Tensor:
        import torch

        d = self.design
        seen = None
        if d.explicit_temperature:
            seen = orders.compose(_jets.tanh, view.linear(T[:, None, None], "gate_weights", "gate_biases"))
        h = None
        for layer, out in enumerate((*d.hidden, 1)):
            tag = "out" if layer == len(d.hidden) else str(layer)
            total = view.linear(x[:, None, None], f"convex_x_{tag}", f"convex_biases_{tag}")
            if seen is not None:
                slopes = view.linear(seen, f"convex_xT_{tag}")
                slopes = slopes.reshape(*slopes.shape[:-1], d.n_inputs, out)
                total = total + orders.multiply(x[:, None, None][..., None], slopes).sum(-2)
                total = total + view.linear(seen, f"convex_T_{tag}")
            if h is not None:
                total = total + view.linear(h, f"convex_positive_{tag}", positive=True)
            h = total if tag == "out" else orders.compose(_jets.softplus, total)
        assert h is not None
        return torch.squeeze(h, -1)


def _shifted(jet: torch.Tensor, amount: Any) -> torch.Tensor:
    """A jet plus what depends on no variable."""
    import torch

    value = jet[:1] + amount
    return torch.cat([value, jet[1:].expand(-1, *value.shape[1:])])
