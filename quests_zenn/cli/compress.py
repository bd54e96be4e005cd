"""``quests-zenn compress``: fewer structures, as different as they can be."""

from __future__ import annotations

from typing import Any

import click

from quests_zenn.cli import _options
from quests_zenn.cli.reference import one_bandwidth, type_map_option

#: As in `quests_zenn.compression`, which takes its time to import.
METHODS = ("msc", "msc_conditional", "msc_sum", "fps", "mean_fps", "random", "k_means", "direct")


class SizeText(click.ParamType):
    """How much to keep: see `quests_zenn.compression.Size.parse`."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        from quests_zenn.compression.size import Size

        try:
            return Size.parse(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class KeyValue(click.ParamType):
    """``KEY=VALUE``, or several values separated by commas."""

    name = "KEY=VALUE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        if isinstance(value, tuple):
            return value
        key, equals, wanted = str(value).partition("=")
        if not (key.strip() and equals and wanted.strip()):
            self.fail(f"{value!r} is not of the form KEY=VALUE", param, ctx)
        return key.strip(), wanted.strip()


@click.command(
    context_settings={"help_option_names": ["-h", "--help"]},
    short_help="Fewer structures with as many different environments as possible.",
)
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option(
    "--size", type=SizeText(), metavar="SIZE",
    help="How much to keep: a share of the structures (0.1; 1.0 = all), a number of structures (100), of environments "
    "(5000env; 0.1env is a share), a budget of --cost (3e5cost, 0.1cost), or auto, the largest H D [default: 0.1].",
)  # fmt: skip
@click.option(
    "--overlap", type=_options.Share(), metavar="SHARE",
    help="In place of --size: as few as cover this share of all environments.",
)  # fmt: skip
@click.option(
    "--max-loss", type=_options.NotNegative(), metavar="NATS",
    help="In place of --size: as few as lose no more diversity than this (0: none).",
)  # fmt: skip
@click.option(
    "--method", type=click.Choice(METHODS),
    help="How structures are chosen [default: msc; with --reference msc_conditional].",
)  # fmt: skip
@click.option(
    "--reference", multiple=True, metavar="FILE",
    help="What is known already: frames, which may be given several times, or a reference that `reference` made.",
)  # fmt: skip
@click.option(
    "--keep", type=KeyValue(), multiple=True, metavar="KEY=VALUE",
    help="Choose structures first whose info has this value (config_type=surface, or several: config_type=a,b).",
)  # fmt: skip
@click.option(
    "--by", metavar="KEY", help="Balance groups of structures: those with the same value of this key of their info, "
    "or file.",
)  # fmt: skip
@click.option(
    "--balance", type=click.Choice(["equal", "proportional"]), default="equal", show_default=True,
    help="With --by: whether groups get the same, or their share of the set.",
)  # fmt: skip
@click.option(
    "--weight", metavar="KEY", help="Where structures say how much they are wanted: a positive number in their info."
)
@click.option(
    "--cost", metavar="atoms|electrons|KEY",
    help="What a structure costs: its atoms, its electrons, or a positive number in its info. Novelty per cost is "
    "then what counts.",
)  # fmt: skip
@click.option(
    "-o", "--output", metavar="FILE", type=click.Path(),
    help="Write the structures chosen as extended XYZ, with all that they carry.",
)  # fmt: skip
@click.option(
    "--sort", type=click.Choice(["selection", "input"]), default="selection", show_default=True,
    help="Order of the output. By selection, its beginning is a smaller selection; by input, it needs no memory.",
)  # fmt: skip
@click.option(
    "--plot-seeds", type=click.IntRange(min=0), default=5, show_default=True, metavar="NUMBER",
    help="Random selections that --plot shows beside this one.",
)  # fmt: skip
@click.option(
    "--descriptors", metavar="FILE.npz",
    help="Environments of FILE that `descriptors` wrote, in place of computing them. FILE itself may be such a file.",
)  # fmt: skip
@click.option(
    "--chunk", type=click.IntRange(min=2), metavar="NUMBER",
    help="For very large sets: two stages, the first on chunks of so many structures. Not the same selection. Chunks "
    "may be shared among workers of --backend dask.",
)  # fmt: skip
@one_bandwidth
@_options.output_options
@_options.descriptor_options
@type_map_option
@click.option("--jobs", type=click.IntRange(min=1), help="Threads [default: all cores].")
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of random, k_means, and of --plot."
)
@click.option("--quiet", is_flag=True, help="Print no table, no progress and no warnings.")
@_options.backend_options
@_options.dry_run_option
@_options.ends_well
def compress(files: tuple[str, ...], **options: Any) -> None:
    """Choose structures of FILE that hold as many different environments as possible, what is rarest first.

    msc, the default, again and again takes the structure with the environment that is newest to those chosen. At small
    sizes that may cover less than random structures: if coverage is what you want, ask for --overlap. A run that was
    killed goes on where it was when the same command is given again.

    \b
    Examples:
      quests-zenn compress dataset.xyz --size 0.1 -o small.xyz
      quests-zenn compress dataset.xyz --overlap 0.95 -o small.xyz --json small.json --plot small.png
      quests-zenn compress pool.xyz --reference train.qref --size 100 -o to_label.xyz
      quests-zenn compress dataset.xyz --by config_type --keep config_type=isolated_atom --size 5000env -o small.xyz
      quests-zenn compress pool.xyz --cost electrons --size 3e5cost -o to_label.xyz
    """
    from quests_zenn.cli._compress import CompressRun

    run = CompressRun(files, options)
    if options["dry_run"]:
        run.predict()
    else:
        run.run()
