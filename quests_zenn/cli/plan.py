"""``quests-zenn plan FILE...``: what a run will cost, on one machine and on many."""

from __future__ import annotations

from typing import Any

import click

from quests_zenn.cli import _options


@click.command(
    context_settings={"help_option_names": ["-h", "--help"]},
    short_help="Time, memory and traffic of a run on many workers.",
)
@click.argument("files", nargs=-1, metavar="[FILE...]")
@click.option(
    "--workers", type=click.IntRange(1, 1_000_000), default=2, show_default=True, metavar="NUMBER",
    help="Processes that share the sums.",
)  # fmt: skip
@click.option(
    "--threads-per-worker", type=click.IntRange(1, 4096), default=1, show_default=True, metavar="NUMBER",
    help="Threads of each of them.",
)  # fmt: skip
@click.option(
    "--environments", type=_options.Count(), metavar="NUMBER",
    help="So many environments of the kind of the files (1e9, say), in place of as many as there are; without FILE, of "
    "a made-up crystal.",
)  # fmt: skip
@click.option("--store", is_flag=True, help="Write environments of frames to a store first, and take them from there.")
@click.option("--memory", type=_options.Memory(), metavar="4GB", help="Memory of each worker (4GB, 500MB, 2GiB).")
@_options.bandwidth_option
@click.option(
    "--estimator", type=click.Choice(["auto", "exact", "sampled"]), default="auto", show_default=True,
    help="How sums are done; see quests-entropy.",
)  # fmt: skip
@_options.tolerance_option
@click.option("--json", "json_file", metavar="FILE", type=click.Path(), help="Write one JSON document.")
@click.option("--overwrite", is_flag=True, help="Replace files that exist.")
@_options.descriptor_options
@_options.frame_options
@_options.precision_option
@click.option("--jobs", type=click.IntRange(min=1), help="Threads of the command itself [default: all cores].")
@click.option("--quiet", is_flag=True, help="Print no table, no progress and no warnings.")
@_options.ends_well
def plan(files: tuple[str, ...], **options: Any) -> None:
    """Predict what quests-entropy will cost with some workers: time, memory and traffic of each stage.

    A small part of the work is measured here; the rest is computed. It also says from how many workers on communication
    or work that cannot be shared takes half of the time, and which number of workers is best.

    \b
    Examples:
      quests-zenn plan huge.xyz --workers 64
      quests-zenn plan store.zarr --workers 1000 --estimator exact
      quests-zenn plan sample.xyz --environments 1e9 --store --workers 1000 --json plan.json
    """
    if not files and options["environments"] is None:
        raise click.UsageError("name files, or a number of --environments")
    from quests_zenn.cli._plan import PlanRun

    run = PlanRun(files, options)
    run.compute()
    run.report()
