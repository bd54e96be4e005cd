"""``quests-zenn filter``: frames that hold something new."""

from __future__ import annotations

from typing import Any

import click
from click.core import ParameterSource

from quests_zenn.cli import _options
from quests_zenn.cli.reference import Finite, Rate, one_bandwidth

#: Exit status when something was found.
FOUND = 3


class Threshold(Finite):
    """A number, or ``auto``."""

    name = "number|auto"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return value if value == "auto" else super().convert(value, param, ctx)


class Share(Finite):
    """A number from 0 to 1."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number = super().convert(value, param, ctx)
        if not 0.0 <= number <= 1.0:
            self.fail(f"{value!r} is no number from 0 to 1", param, ctx)
        return number


@click.command(
    "filter", context_settings={"help_option_names": ["-h", "--help"]},
    short_help="Frames that hold what a reference does not know.",
)  # fmt: skip
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option(
    "--reference", multiple=True, required=True, metavar="FILE",
    help="What is known: one that `reference` made, or frames. Files of frames may be several.",
)  # fmt: skip
@click.option(
    "--threshold", type=Threshold(), default="auto", show_default=True, metavar="NUMBER|auto",
    help="dH from which on an atom is novel, nats; auto takes it from the reference and --false-alarm, and is compared "
    "with dH that is scaled down where the reference itself is sparse.",
)  # fmt: skip
@click.option(
    "--false-alarm", type=Rate(), default=0.01, show_default=True,
    help="Share of frames of the reference's own kind that --threshold auto lets pass as flagged.",
)  # fmt: skip
@click.option(
    "--false-alarm-of", type=click.Choice(["frame", "atom"]), default="frame", show_default=True,
    help="What --false-alarm counts: flagged frames, or novel atoms (whose dH is not scaled).",
)  # fmt: skip
@click.option(
    "--min-atoms", type=click.IntRange(min=1), default=1, show_default=True, help="Novel atoms that flag a frame."
)
@click.option(
    "--min-share", type=Share(), default=0.0, show_default=True, help="Share of novel atoms that flags a frame."
)
@click.option(
    "-o", "--output", metavar="FILE", type=click.Path(),
    help="Write flagged frames as extended XYZ with dH per atom: those that are unlike all written before, or have a "
    "dH 1.5 times theirs.",
)  # fmt: skip
@click.option("--all", "keep_all", is_flag=True, help="Write all flagged frames, also those that resemble each other.")
@click.option("--every", type=click.IntRange(min=1), default=1, show_default=True, help="Judge every so many frames.")
@click.option(
    "--follow",
    is_flag=True,
    help="Wait for more frames at the end of FILE (extended XYZ, or a LAMMPS dump in text form).",
)
@click.option(
    "--idle", type=_options.PositiveFloat(), metavar="SECONDS",
    help="With --follow: stop when FILE has not grown for so long [default: never; Ctrl-C ends the run].",
)  # fmt: skip
@click.option(
    "--by", metavar="KEY",
    help="Where the reference is made from frames: those with the same value of this key of their info (or file, or "
    "frame) are left out together to find --threshold auto.",
)  # fmt: skip
@one_bandwidth
@_options.output_options
@_options.descriptor_options
@_options.frame_options
@click.option("--jobs", type=click.IntRange(min=1), help="Threads [default: all cores].")
@click.option("--quiet", is_flag=True, help="Print no table, no progress and no warnings.")
@_options.ends_well
def filter_(files: tuple[str, ...], **options: Any) -> None:
    """Find frames of FILE that hold atoms which a reference does not know. Exit status 3 if there are any.

    Frames are read one at a time, so that FILE may be of any length. A run that was killed goes on where it was when
    the same command is given again.

    \b
    Examples:
      quests-zenn filter md.xyz --reference train.qref -o flagged.xyz
      quests-zenn filter md.lammpstrj --reference train.qref --follow --idle 600 -o flagged.xyz --type-map 1=Cu
      quests-zenn filter md.xyz --reference train.qref --quiet; test $? -eq 3 && echo "there is something to learn"
    """
    from quests_zenn.cli._filter import FilterRun

    if options["follow"] and len(files) > 1:
        raise click.UsageError(f"--follow takes one file, got {len(files)}")
    if options["idle"] is not None and not options["follow"]:
        raise click.UsageError("--idle belongs to --follow")
    if options["threshold"] != "auto":
        context = click.get_current_context()
        for name in ("false_alarm", "false_alarm_of"):
            if context.get_parameter_source(name) not in (None, ParameterSource.DEFAULT, ParameterSource.DEFAULT_MAP):
                raise click.UsageError(f"--{name.replace('_', '-')} belongs to --threshold auto")
    FilterRun(files, options).run()
