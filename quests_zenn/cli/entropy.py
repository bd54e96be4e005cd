"""``quests-entropy FILE...``: the main job."""

from __future__ import annotations

from typing import Any

import click

from quests_zenn.cli import _options


@click.command(
    context_settings={"help_option_names": ["-h", "--help"]},
    short_help="Entropy of trajectories and data sets.",
)
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@_options.bandwidth_option
@click.option("--per-frame", is_flag=True, help="Also the entropy of each frame, and its mean dH within the frame.")
@click.option(
    "-o", "--output", metavar="FILE", type=click.Path(),
    help="Write the frames as extended XYZ with dH per atom (scope: all environments of the run).",
)  # fmt: skip
@_options.by_option
@click.option(
    "--blocks", type=click.IntRange(2, 1000), metavar="NUMBER",
    help="Also the error of H that remains from the correlation of frames: leaves out one block of them at a time.",
)  # fmt: skip
@_options.estimator_options
@_options.output_options
@_options.descriptor_options
@_options.frame_options
@_options.energy_option
@_options.run_options
@_options.backend_options
@_options.memory_option
@_options.dry_run_option
@_options.version_option
@_options.ends_well
def entropy(files: tuple[str, ...], **options: Any) -> None:
    """Information entropy of trajectories and data sets.

    FILE is anything that ASE reads (extended XYZ, .xyz.gz, LAMMPS dump, .traj, POSCAR, XDATCAR, vasprun, CIF, ...),
    with an ASE index where only some frames are wanted: traj.xyz@::10. Several files make one data set. A long run that
    was stopped goes on where it was when the same command is given again.

    \b
    Examples:
      quests-entropy traj.xyz
      quests-entropy traj.xyz@::10 --bandwidth 0.015,0.03,0.06
      quests-entropy run.lammpstrj --type-map 1=Cu,2=Zr --species blocks
      quests-entropy traj.xyz --per-frame --plot entropy.png -o scored.xyz
      quests-entropy dataset.xyz --by config_type
      quests-entropy million_atoms.xyz --tolerance 0.005
      quests-entropy huge.xyz --backend dask
    """
    from quests_zenn.cli._run import EntropyRun

    run = EntropyRun(files, options)
    if options["dry_run"]:
        run.predict()
    else:
        run.run()
