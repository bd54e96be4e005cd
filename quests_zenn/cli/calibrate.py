"""``quests-zenn calibrate``: from dH to a bound of the error."""

from __future__ import annotations

from typing import Any

import click

from quests_zenn.cli import _options


class Share(click.ParamType):
    """A number between 0 and 1, both excluded."""

    name = "share"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = 0.0
        if not 0.0 < number < 1.0:
            self.fail(f"{value!r} is not a number between 0 and 1", param, ctx)
        return number


@click.command(
    context_settings={"help_option_names": ["-h", "--help"]}, short_help="From dH to a bound of the error of forces."
)
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option(
    "--reference", multiple=True, required=True, metavar="FILE",
    help="What the potential knows: a .qref, or frames (several times). It must not hold the frames of FILE.",
)  # fmt: skip
@click.option("--forces-key", metavar="KEY", help="Where frames keep their true forces [default: forces].")
@click.option("--predicted-key", metavar="KEY", help="Where frames keep the predicted forces (MACE_forces, ...).")
@click.option("--energy-key", metavar="KEY", help="Where frames keep their true energy [default: energy].")
@click.option(
    "--predicted-energy-key", metavar="KEY",
    help="Where frames keep the predicted energy, in place of forces: errors per atom, one for each frame.",
)  # fmt: skip
@click.option(
    "--frame-dh", type=click.Choice(["mean", "max"]), default="mean", show_default=True,
    help="For energies: the dH of a frame, from those of its atoms.",
)  # fmt: skip
@click.option(
    "--level", "levels", type=Share(), multiple=True, metavar="SHARE",
    help="Coverage asked for; may be given several times [default: 0.9 and 0.95].",
)  # fmt: skip
@click.option(
    "--coverage", type=click.Choice(["atom", "frame"]), default="atom", show_default=True,
    help="What the level refers to: a random atom of a new structure, or all atoms of a new frame at once.",
)  # fmt: skip
@click.option(
    "--by", metavar="KEY",
    help="Frames that are no independent draws make one group: those with the same value of this key of their info, or "
    "of one file [default: each frame, copies by symmetry merged; frame does not merge].",
)  # fmt: skip
@click.option(
    "--splits", type=click.IntRange(1, 100_000), default=200, show_default=True,
    help="Random splits of the groups over which coverage is measured.",
)  # fmt: skip
@click.option(
    "--test-share", type=Share(), default=0.25, show_default=True, metavar="SHARE",
    help="Share of the groups that each split holds out.",
)  # fmt: skip
@click.option(
    "--train-share", type=Share(), default=0.25, show_default=True, metavar="SHARE",
    help="Share of the other groups that teaches how errors grow with dH; the rest calibrates.",
)  # fmt: skip
@click.option(
    "--load",
    metavar="BOUND",
    type=click.Path(),
    help="Use a bound that was saved: no errors are needed, nothing is fitted.",
)
@click.option(
    "-o", "--output", metavar="FILE", type=click.Path(),
    help="Where to write the bound (.json); with --load, the frames (.xyz) with dH and bound per atom, which is inf "
    "beyond all dH that calibrated it.",
)  # fmt: skip
@click.option(
    "--bandwidth", "bandwidths", type=_options.Bandwidths(), multiple=True, metavar="NUMBER|auto",
    help="Bandwidth in 1/Å [default: 0.015, or that of the .qref]; auto takes it from the volume per atom.",
)  # fmt: skip
@_options.output_options
@_options.descriptor_options
@_options.frame_options
@click.option("--jobs", type=click.IntRange(min=1), help="Threads [default: all cores].")
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the splits, and of the bound itself."
)
@click.option("--quiet", is_flag=True, help="Print no table, no progress and no warnings.")
@_options.ends_well
def calibrate(files: tuple[str, ...], **options: Any) -> None:
    """An upper bound of the error of forces (or energies) as a function of dH, with a stated coverage.

    FILE holds frames with true and predicted forces that neither the potential nor the reference has seen. Some groups
    of frames teach how the error grows with dH, others calibrate, others again are held out and tell whether the bound
    holds; many random splits are drawn. The bound that is written uses all groups.

    \b
    Examples:
      quests-zenn calibrate test.xyz --reference train.qref --predicted-key MACE_forces -o bound.json --plot bound.png
      quests-zenn calibrate --load bound.json md.xyz --reference train.qref -o bounded.xyz
    """
    _check_usage(options)
    from quests_zenn.cli import _calibrate

    _calibrate.calibrate(files, options)


def _check_usage(options: dict[str, Any]) -> None:
    forces = options["predicted_key"] is not None
    energies = options["predicted_energy_key"] is not None
    if forces and energies:
        raise click.UsageError(
            "either --predicted-key (forces) or --predicted-energy-key, not both: one bound at a time"
        )
    if not (forces or energies or options["load"]):
        raise click.UsageError(
            "say where frames keep what was predicted: --predicted-key for forces, or --predicted-energy-key"
        )
    for what, true, predicted in (
        ("forces", options["forces_key"] or "forces", options["predicted_key"]),
        ("energies", options["energy_key"] or "energy", options["predicted_energy_key"]),
    ):
        if true == predicted:
            raise click.UsageError(
                f"true and predicted {what} have the same key, {true!r}, so that all errors would be zero; "
                f"--{'forces' if what == 'forces' else 'energy'}-key names the true ones"
            )
    if options["forces_key"] is not None and not forces:
        raise click.UsageError("--forces-key goes with --predicted-key")
    if options["energy_key"] is not None and not energies:
        raise click.UsageError("--energy-key goes with --predicted-energy-key")
