"""`harness merge FOLDER...`: copy the results of other folders into this one."""

from pathlib import Path
from typing import Annotated

import typer


def merge(
    folders: Annotated[list[Path], typer.Argument(help="Folders that contain mlruns/, such as those of shards.")],
) -> None:
    """Copy the results of other folders into this one, such as those of `--shard` on machines without a shared disk.

    Then `harness sync FILE.yaml` writes report and MLflow store. Members that are here already are kept.
    """
    from harness.experiment import merge as merge_results

    for merged in merge_results(folders):
        for note in merged.notes:
            print(f"Note: {note}")
        print(f"{merged.name}: {merged.members} members, {merged.added} of them new")
    print(
        "`harness sync FILE.yaml` writes report and MLflow store, `harness run FILE.yaml` also trains what is missing"
    )
