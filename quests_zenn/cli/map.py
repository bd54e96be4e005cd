"""``quests-zenn map``: a map of environments, for chemiscope and for tables."""

from __future__ import annotations

from typing import Any

import click

from quests_zenn.cli import _options
from quests_zenn.cli.reference import one_bandwidth


@click.command("map", context_settings={"help_option_names": ["-h", "--help"]}, short_help="A map of environments.")
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option(
    "-o", "--output", metavar="FILE", type=click.Path(), required=True,
    help="Where to write: .json or .json.gz for chemiscope, .csv or .csv.gz for tables.",
)  # fmt: skip
@click.option(
    "--reference",
    multiple=True,
    metavar="FILE",
    help="dH given these: frames, which may be given several times, or a reference that `reference` made "
    "[default: given all environments of the run].",
)
@click.option(
    "--method", type=click.Choice(["pca", "tsne"]), default="pca", show_default=True,
    help="Coordinates: principal axes of all environments, or t-SNE of those in the map.",
)  # fmt: skip
@click.option("--dimensions", type=click.IntRange(2, 3), default=2, show_default=True, help="Coordinates of the map.")
@click.option(
    "--frames", type=click.IntRange(min=1), metavar="N",
    help="Frames in the map at most: a tenth with the largest dH, the others evenly spaced "
    "[default: for .json 500, or fewer of large frames; for .csv all].",
)  # fmt: skip
@click.option(
    "--environments", type=click.IntRange(min=1), metavar="N",
    help="Environments of these frames at most: a tenth with the largest dH, the others drawn at random "
    "[default: 10000; for .csv all].",
)  # fmt: skip
@one_bandwidth
@_options.energy_option
@_options.estimator_option
@_options.output_options
@_options.descriptor_options
@_options.frame_options
@_options.run_options
@_options.ends_well
def map_(files: tuple[str, ...], **options: Any) -> None:
    """A map in which environments that resemble each other lie close together, coloured by dH.

    The file opens at chemiscope.org, where a click on a point shows the atom in its structure. Environments carry dH,
    element and frame; frames carry their mean and largest dH, own entropy, and what the file says of them.

    \b
    Examples:
      quests-zenn map data.xyz -o map.json.gz --plot map.png
      quests-zenn map md.xyz --reference train.qref --environments 2000 -o map.json.gz
      quests-zenn map data.xyz -o environments.csv.gz
    """
    from quests_zenn.cli._map import draw_map

    draw_map(files, options)
