"""``quests-zenn generate``: new structures on purpose."""

from __future__ import annotations

from typing import Any

import click

from quests_zenn.cli import _options
from quests_zenn.cli.filter import Share
from quests_zenn.cli.reference import Finite, jobs_option, one_bandwidth, quiet_option, type_map_option


class NotNegative(Finite):
    """A number of at least 0."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number = super().convert(value, param, ctx)
        if number < 0.0:
            self.fail(f"{value!r} is negative", param, ctx)
        return number


class MinDistance(click.ParamType):
    """Å, ``reference:FACTOR``, ``covalent:FACTOR``, or ``A-B=Å,...``."""

    name = "distance"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        from quests_zenn.uq._guards import parse_min_distance

        try:
            parse_min_distance(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)
        return value


class Volumes(click.ParamType):
    """``LOW:HIGH``."""

    name = "low:high"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, float]:
        from quests_zenn.uq._guards import volume_range

        try:
            return volume_range(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


@click.command(
    context_settings={"help_option_names": ["-h", "--help"]},
    short_help="New structures that a reference does not know.",
)
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option(
    "--reference", multiple=True, required=True, metavar="FILE",
    help="What is known: one that `reference` made, or frames. Files of frames may be several.",
)  # fmt: skip
@click.option(
    "-o", "--output", metavar="FILE", type=click.Path(), required=True,
    help="Write the structures as extended XYZ with dH per atom.",
)  # fmt: skip
@click.option("--target", type=Finite(), default=20.0, show_default=True, help="dH to seek, nats.")
@click.option(
    "--width", type=_options.PositiveFloat(), default=2.0, show_default=True,
    help="How close to the target is near, nats.",
)  # fmt: skip
@click.option(
    "--statistic", type=click.Choice(["max", "mean", "quantile"]), default="max", show_default=True,
    help="What of the dH of a structure is compared with the target.",
)  # fmt: skip
@click.option(
    "--quantile", type=Share(), default=0.9, show_default=True,
    help="With --statistic quantile: share of the atoms below it.",
)  # fmt: skip
@click.option(
    "--number", type=click.IntRange(min=1), help="Walks of each generation [default: one per starting frame]."
)
@click.option(
    "--generations", type=click.IntRange(min=1), default=1, show_default=True,
    help="What one generation found is known to the next, which starts from it.",
)  # fmt: skip
@click.option("--steps", type=click.IntRange(min=1), help="Most moves of a walk [default: ten per atom].")
@click.option(
    "--linger", type=click.IntRange(min=0), default=0, show_default=True,
    help="Moves for which a walk goes on once it is near the target.",
)  # fmt: skip
@click.option("--burn-in", type=click.IntRange(min=0), help="Moves that adapt step sizes [default: half of --steps].")
@click.option(
    "--temperature", type=NotNegative(), default=0.1, show_default=True,
    help="Of the Metropolis rule, for the energy ((dH - target) / width)^2.",
)  # fmt: skip
@click.option(
    "--step-size", type=_options.PositiveFloat(), default=0.1, show_default=True,
    help="Displacement of an atom along each axis, Å (standard deviation).",
)  # fmt: skip
@click.option(
    "--atoms-per-move", type=click.IntRange(min=1), default=1, show_default=True, help="Atoms displaced together."
)
@click.option(
    "--acceptance", type=Share(), default=0.3, show_default=True, help="Share of accepted moves that steps adapt to."
)
@click.option(
    "--swaps", type=Share(), default=0.0, show_default=True,
    help="Share of moves that exchange two atoms of different elements.",
)  # fmt: skip
@click.option(
    "--volume-moves", type=Share(), default=0.0, show_default=True, help="Share of moves that scale the cell."
)
@click.option(
    "--shear-moves", type=Share(), default=0.0, show_default=True,
    help="Share of moves that change the shape of the cell.",
)  # fmt: skip
@click.option(
    "--strain", type=_options.PositiveFloat(), default=0.01, show_default=True,
    help="Strain of a move of the cell (standard deviation).",
)  # fmt: skip
@click.option(
    "--min-distance", type=MinDistance(), default="reference:0.9", show_default=True, metavar="DISTANCE",
    help="Smallest distance of two atoms: in Å; reference:FACTOR or covalent:FACTOR, of the smallest one seen or of "
    "the sum of radii; or for pairs, Cu-O=1.7,O-O=2.1.",
)  # fmt: skip
@click.option(
    "--volume", type=Volumes(), metavar="LOW:HIGH",
    help="Limits of the volume, Å3 per atom [default with --volume-moves: 0.8 to 1.25 times that of the start].",
)  # fmt: skip
@click.option(
    "--ceiling", type=Finite(), help="Largest dH that a move may give an atom, nats [default: target + 10 width]."
)
@click.option(
    "--apart", type=Finite(),
    help="dH that structures of one generation must have given each other, nats [default: half of the target].",
)  # fmt: skip
@click.option(
    "--select", metavar="WHAT",
    help="Atoms that move, and whose dH counts: elements (C,O), indices (0,5,10:20), or an array of the frames.",
)  # fmt: skip
@click.option("--keep-all", is_flag=True, help="Also write structures that missed the target or repeat others.")
@one_bandwidth
@_options.output_options
@_options.descriptor_options
@type_map_option
@jobs_option
@_options.seed_option
@quiet_option
@_options.ends_well
def generate(files: tuple[str, ...], **options: Any) -> None:
    """Make new structures from those of FILE: near a target dH, beyond what the reference knows but not absurd.

    Walks of Monte Carlo moves start from the frames and end once they are near the target. No energy is computed;
    guards on distances and volumes are all that keeps structures sane. A run that was interrupted goes on where it was
    when the same command is given again.

    \b
    Examples:
      quests-zenn generate start.xyz --reference train.qref -o new.xyz
      quests-zenn generate start.xyz --reference train.xyz --statistic mean --target 10 --generations 3 -o new.xyz
    """
    from quests_zenn.cli import _generate

    _generate.generate(files, options)
