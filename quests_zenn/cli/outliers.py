"""``quests-zenn outliers``: what stands out in a data set."""

from __future__ import annotations

from typing import Any

import click

from quests_zenn.cli import _options
from quests_zenn.cli.reference import one_bandwidth


@click.command(context_settings={"help_option_names": ["-h", "--help"]}, short_help="What stands out in a data set.")
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option(
    "--by", metavar="KEY",
    help="Frames with the same value of this key of their info are left out together; also file, or frame "
    "[default: frame].",
)  # fmt: skip
@click.option("--number", type=click.IntRange(min=1), default=20, show_default=True, help="Atoms that are listed.")
@click.option("--one-per-frame", is_flag=True, help="Of each frame, list only the atom that stands out most.")
@click.option(
    "--mark", metavar="KEY",
    help="Name the value of this key of the info (config_type, ...) of each frame, and colour the plot by it "
    "[default: the key of --by, or the element].",
)  # fmt: skip
@click.option(
    "-o", "--output", metavar="FILE", type=click.Path(), help="Write the frames as extended XYZ with dH per atom."
)
@one_bandwidth
@_options.output_options
@_options.descriptor_options
@_options.frame_options
@click.option("--jobs", type=click.IntRange(min=1), help="Threads [default: all cores].")
@click.option("--quiet", is_flag=True, help="Print no table, no progress and no warnings.")
@_options.ends_well
def outliers(files: tuple[str, ...], **options: Any) -> None:
    """Which atoms no other frame of FILE knows, and why.

    Each frame, together with its symmetric copies, is left out in turn, and its atoms are scored by all others. FILE
    may also be a reference that `quests-zenn reference` made.

    \b
    Examples:
      quests-zenn outliers dataset.xyz --mark config_type --plot outliers.png
      quests-zenn outliers dataset.xyz --by config_type --one-per-frame -o scored.xyz
    """
    from quests_zenn.cli._outliers import rank

    rank(files, options)
