"""`harness plan FILE`: what would run, what it can detect, what it costs."""

import json as json_format
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.cli.output import Json, stdout_to_stderr

if TYPE_CHECKING:
    from harness.planning.plan import Plan

SHOWN = 24  # lines of a long list


def plan(
    file: Annotated[Path, typer.Argument(help="An experiment: a YAML file.")],
    json: Json = False,
) -> None:
    """What an experiment would run, what it can detect and what it costs. Trains and writes nothing."""
    from harness.cli.earlier_results import deviations, earlier_records, rate
    from harness.grid.loader import load_experiment
    from harness.planning.plan import plan as plan_of

    with stdout_to_stderr(json):
        experiment = load_experiment(file)
        _one_thread()
        records = earlier_records(experiment, Path("mlruns"))
        found = plan_of(experiment, deviations(experiment, records), rate(records))
    if json:
        typer.echo(json_format.dumps(found.to_dict(), indent=2))
        return
    typer.echo("\n".join(_lines(found)))


def _one_thread() -> None:
    """A plan computes a few rows at a time: on a busy machine several threads wait for each other, for seconds."""
    import torch

    torch.set_num_threads(1)


def _lines(found: "Plan") -> list[str]:
    """The plan in sentences and short tables."""
    data = found.data or "its own data"
    return [
        f"{found.experiment}: case {found.case} on {data} ({found.rows['train']} rows to train, "
        f"{found.rows['evaluation']} held out)",
        f"  {len(found.variants)} variants x {found.seeds} seeds = {found.members} members, {len(found.stacks)} stacks",
        f"  {found.member_steps:,} member-steps ({found.steps_per_epoch} steps an epoch), about {_time(found.minutes)}",
        f"  about {found.metric_rows:,} metric rows, {found.megabytes:.0f} MB",
        *_section("factors (baseline *)", [_factor(found, name) for name in found.factors]),
        *_section(
            "declared beforehand", [*map(" x ".join, found.interactions), *map(" against ".join, found.contrasts)]
        ),
        *_section("smallest effect found in 4 of 5 repetitions", [_effect(each) for each in found.detectable]),
        *_section(
            "beta that `matched` stands for", [f"{beta:.3g}  {name}" for name, beta in found.matched_beta.items()]
        ),
        *_section(
            "cannot be applied",
            [f"{each.levels} ({each.members} members): {each.reason}" for each in found.not_applicable],
        ),
        *_section("train one by one", _alone(found)),
        *_section("stacks, and what splits them", [f"{each.members:3d}  {each.why}" for each in found.stacks]),
        *_section("notes", found.notes),
    ]


def _section(title: str, lines: list[str]) -> list[str]:
    left = [f"    ... and {len(lines) - SHOWN} more (--json shows all)"] if len(lines) > SHOWN else []
    return [f"  {title}:", *(f"    {line}" for line in lines[:SHOWN]), *left] if lines else []


def _factor(found: "Plan", name: str) -> str:
    levels = [f"{level}*" if level == found.baseline[name] else str(level) for level in found.factors[name]]
    return f"{name}: {', '.join(levels)}"


def _effect(each: Any) -> str:
    shown = "none: one seed has no spread" if each.effect is None else f"{each.effect:.3f}"
    return f"{shown}  if per-seed differences have a standard deviation of {each.deviation:.3g} ({each.source})"


def _alone(found: "Plan") -> list[str]:
    reasons: dict[str, int] = {}
    for each in found.stacks:
        if each.alone is not None:
            reasons[each.alone] = reasons.get(each.alone, 0) + each.members
    return [f"{members} members: {reason}" for reason, members in reasons.items()]


def _time(minutes: float) -> str:
    return f"{minutes * 60:.0f} seconds" if minutes < 2 else f"{minutes:.0f} minutes"
