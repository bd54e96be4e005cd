"""``quests-zenn reference``: environments that new frames are judged by."""

from __future__ import annotations

import math
from typing import Any

import click
from click.core import ParameterSource

from quests_zenn.cli import _options

one_bandwidth = click.option(
    "--bandwidth", "bandwidths", type=_options.Bandwidths(), multiple=True, metavar="NUMBER|auto",
    help="Bandwidth in 1/Å [default: 0.015]; auto takes it from the volume per atom.",
)  # fmt: skip

type_map_option = click.option(
    "--type-map", type=_options.TypeMap(), metavar="1=Cu,2=Zr", help="Elements of the atom types of the file."
)

jobs_option = click.option("--jobs", type=click.IntRange(min=1), help="Threads [default: all cores].")

quiet_option = click.option("--quiet", is_flag=True, help="Print no table, no progress and no warnings.")

json_option = click.option(
    "--json", "json_file", metavar="FILE", type=click.Path(), help="Write one JSON document."
)  # fmt: skip

overwrite_option = click.option("--overwrite", is_flag=True, help="Replace files that exist.")


class Rate(click.ParamType):
    """A share, larger than 0 and smaller than 1."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            rate = float(value)
        except (TypeError, ValueError):
            rate = math.nan
        if not 0.0 < rate < 1.0:
            self.fail(f"{value!r} is no number between 0 and 1", param, ctx)
        return rate


class Finite(click.ParamType):
    """A finite number."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        from quests_zenn._core.checks import finite

        try:
            return finite(value, "it")
        except ValueError:
            self.fail(f"{value!r} is no finite number", param, ctx)


@click.command(
    context_settings={"help_option_names": ["-h", "--help"]},
    short_help="What is known, in one file that new frames are judged by.",
)
@click.argument("files", nargs=-1, metavar="FILE...")
@click.option("-o", "--output", metavar="FILE", type=click.Path(), help="The reference; its name must end in .qref.")
@click.option("--extend", metavar="FILE", type=click.Path(), help="Add the frames to this reference.")
@click.option("--only-new", is_flag=True, help="With --extend: add only environments that are novel to it.")
@click.option(
    "--eps", type=Finite(), default=1e-5, show_default=True,
    help="With --only-new: dH from which on an environment counts as novel, nats.",
)  # fmt: skip
@click.option("--show", metavar="FILE", type=click.Path(), help="Only tell what a reference holds.")
@click.option(
    "--by", metavar="KEY",
    help="Frames with the same value of this key of their info make one group, and are left out together where "
    "thresholds are found; also file, or frame [default: frame].",
)  # fmt: skip
@click.option(
    "--false-alarm", type=Rate(), default=0.01, show_default=True,
    help="Share of what belongs to the reference that its thresholds may call novel.",
)  # fmt: skip
@click.option("--no-thresholds", is_flag=True, help="Find no thresholds now; commands that need one will.")
@one_bandwidth
@_options.descriptor_options
@type_map_option
@json_option
@overwrite_option
@jobs_option
@quiet_option
@_options.ends_well
def reference(files: tuple[str, ...], **options: Any) -> None:
    """Make a reference: the environments of all atoms of FILE, which `dh`, `filter` and others judge new frames by.

    It also holds thresholds: dH that a stated share (--false-alarm) of its own atoms, or of its frames, reaches when
    the group that they belong to is left out.

    \b
    Examples:
      quests-zenn reference train.xyz -o train.qref --by config_type
      quests-zenn reference more.xyz --extend train.qref --only-new -o larger.qref
      quests-zenn reference --show train.qref
    """
    from quests_zenn.cli import _reference

    if options["show"] is not None:
        idle = [name for name in ("output", "extend") if options[name] is not None]
        if files or idle:
            raise click.UsageError("--show takes no other files: it only tells what a reference holds")
        _reference.show(options)
        return
    if not files:
        raise click.UsageError("Missing argument 'FILE...'.")
    if options["output"] is None:
        raise click.UsageError("a reference needs a place: -o train.qref")
    if options["only_new"] and options["extend"] is None:
        raise click.UsageError("--only-new belongs to --extend")
    source = click.get_current_context().get_parameter_source("eps")
    if not options["only_new"] and source not in (None, ParameterSource.DEFAULT, ParameterSource.DEFAULT_MAP):
        raise click.UsageError("--eps belongs to --only-new")
    if options["extend"] is not None:
        _reference.extend(files, options)
    else:
        _reference.make(files, options)
