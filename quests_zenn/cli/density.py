"""Commands about densities: what people ask of a set beyond its entropy."""

from __future__ import annotations

from typing import Any

import click

from quests_zenn.cli import _options

_HELP = {"help_option_names": ["-h", "--help"]}

_files = click.argument("files", nargs=-1, required=True, metavar="FILE...")

_one_bandwidth = click.option(
    "--bandwidth", "bandwidths", type=_options.Bandwidths(), multiple=True, metavar="NUMBER|auto",
    help="Bandwidth in 1/Å [default: 0.015]; auto takes it from the volume per atom.",
)  # fmt: skip

_eps = click.option(
    "--eps", type=float, default=1e-5, show_default=True, help="dH from which on an environment counts as novel, nats."
)


@click.command(context_settings=_HELP, short_help="Write environments to a store or a file for NumPy.")
@_files
@click.option(
    "-o", "--output", metavar="FILE", type=click.Path(), required=True,
    help="Where to write: .zarr, a store that may be larger than memory; .npz with all that is known of the "
    "environments; or .npy with the matrix alone.",
)  # fmt: skip
@click.option("--overwrite", is_flag=True, help="Replace a file that exists.")
@_options.descriptor_options
@_options.frame_options
@click.option(
    "--precision", type=click.Choice(["float64", "float32"]), default="float64", show_default=True,
    help="Arithmetic and storage.",
)  # fmt: skip
@_options.memory_option
@_options.backend_options
@click.option("--jobs", type=click.IntRange(min=1), help="Threads [default: all cores].")
@click.option("--quiet", is_flag=True, help="Print no table, no progress and no warnings.")
@_options.ends_well
def descriptors(files: tuple[str, ...], **options: Any) -> None:
    """Write the environments of all atoms to a store, or to a file that NumPy reads.

    A store is a folder in the format Zarr, written in pieces: other commands take it in place of frames, whatever its
    size. If the run is stopped or killed, the same command goes on where it was; --overwrite replaces a store that is
    complete. A .npz file holds x, frame_offsets, numbers, labels, k, cutoff and species.

    \b
    Examples:
      quests-zenn descriptors huge.lammpstrj --type-map 1=Cu -o store.zarr --memory 2GB
      quests-entropy store.zarr
    """
    from quests_zenn.cli import _descriptors

    _descriptors.descriptors(files, options)


@click.command(context_settings=_HELP, short_help="How new atoms are to a reference.")
@_files
@click.option(
    "--reference",
    multiple=True,
    required=True,
    metavar="FILE",
    help="What is known: frames, which may be given several times, or a reference that `reference` made.",
)
@_one_bandwidth
@_eps
@click.option("--per-frame", is_flag=True, help="Also mean and largest dH of each frame, and its novel share.")
@click.option(
    "-o", "--output", metavar="FILE", type=click.Path(), help="Write the frames as extended XYZ with dH per atom."
)
@_options.estimator_option
@_options.output_options
@_options.descriptor_options
@_options.frame_options
@_options.run_options
@_options.backend_options
@_options.ends_well
def dh(files: tuple[str, ...], **options: Any) -> None:
    """How surprising each atom of FILE is to a reference: dH = -ln p, in nats.

    Negative where the reference holds similar environments (-ln of their number), positive where it holds none.

    \b
    Examples:
      quests-zenn dh md.xyz --reference train.xyz
      quests-zenn dh md.xyz --reference train.qref
      quests-zenn dh md.xyz@::10 --reference train.xyz -o scored.xyz --per-frame --plot dh.png
    """
    from quests_zenn.cli import _density

    _density.dh(files, options)


@click.command(context_settings=_HELP, short_help="What parts of the data know of each other.")
@_files
@click.option(
    "--by", default="file", show_default=True, metavar="KEY",
    help="What parts to compare: files, or frames with different values of this key of their info (config_type, ...).",
)  # fmt: skip
@_one_bandwidth
@_eps
@_options.output_options
@_options.descriptor_options
@_options.frame_options
@_options.run_options
@_options.ends_well
def overlap(files: tuple[str, ...], **options: Any) -> None:
    """Which share of each part of the data the other parts know, and the mean dH between them.

    \b
    Examples:
      quests-zenn overlap train.xyz test.xyz
      quests-zenn overlap dataset.xyz --by config_type --plot overlap.png
    """
    from quests_zenn.cli import _density

    _density.overlap(files, options)


@click.command(context_settings=_HELP, short_help="Entropy difference of two trajectories.")
@click.argument("first", metavar="A")
@click.argument("second", metavar="B")
@_one_bandwidth
@click.option(
    "--blocks", type=click.IntRange(2, 1000), default=10, show_default=True, metavar="NUMBER",
    help="Blocks of frames, one of which is left out at a time, for the errors.",
)  # fmt: skip
@_options.estimator_options
@_options.output_options
@_options.descriptor_options
@_options.frame_options
@_options.run_options
@_options.backend_options
@_options.ends_well
def compare(first: str, second: str, **options: Any) -> None:
    """Entropy difference H(B) - H(A) of two trajectories, with its error.

    Both are cut to the same number of frames of the same size, because H grows with the number of environments. Errors
    come from leaving out one block of frames at a time, and hold if a block is longer than the autocorrelation time.

    \b
    Example:
      quests-zenn compare solid.xyz liquid.xyz --bandwidth 0.03
    """
    from quests_zenn.cli import _density

    _density.compare(first, second, options)


@click.command("learning-curve", context_settings=_HELP, short_help="Entropy against the amount of data.")
@_files
@_one_bandwidth
@click.option(
    "--by", metavar="KEY",
    help="Draw whole groups of frames in place of environments: frame, file, or a key of their info.",
)  # fmt: skip
@click.option("--sizes", metavar="N,N,...", help="Environments of each part [default: ten, up to all].")
@click.option("--repeats", type=click.IntRange(1, 1000), default=10, show_default=True, help="Random parts per size.")
@_options.output_options
@_options.descriptor_options
@_options.frame_options
@_options.run_options
@_options.ends_well
def learning_curve(files: tuple[str, ...], **options: Any) -> None:
    """Entropy of random parts of the data against their size, and the information that is still missing.

    \b
    Example:
      quests-zenn learning-curve dataset.xyz --by frame --plot curve.png
    """
    from quests_zenn.cli import _density

    _density.learning_curve(files, options)


@click.command(context_settings=_HELP, short_help="Which bandwidth the data support.")
@_files
@click.option(
    "--by", default="frame", show_default=True, metavar="KEY",
    help="Groups that are left out as a whole: frame, file, or a key of their info.",
)  # fmt: skip
@click.option("--grid", metavar="LOW:HIGH:NUMBER", help="Bandwidths, geometric [default: 0.003:0.3:15].")
@click.option("--dimension", type=_options.PositiveFloat(), help="Intrinsic dimension [default: estimated].")
@_options.output_options
@_options.descriptor_options
@_options.frame_options
@_options.run_options
@_options.ends_well
def bandwidth(files: tuple[str, ...], **options: Any) -> None:
    """Which bandwidth fits the data: by the likelihood of groups left out, beside the rule from the volume per atom.

    \b
    Example:
      quests-zenn bandwidth dataset.xyz --by config_type --plot bandwidth.png
    """
    from quests_zenn.cli import _density

    _density.bandwidth(files, options)
