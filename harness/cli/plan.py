"""`harness plan FILE`: members, cost and detectable effects of an experiment."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.cli.output import Json, print_json, stdout_to_stderr

if TYPE_CHECKING:
    from harness.planning.plan import Plan

SHOWN = 24  # lines of a long list


def plan(
    file: Annotated[Path, typer.Argument(help="An experiment: a YAML file.")],
    json: Json = False,
) -> None:
    """Show what an experiment would run, what it costs and what it can detect. Nothing is trained or written."""
    from harness.experiment import plan as plan_experiment
    from harness.grid.loader import load_experiment

    with stdout_to_stderr(json):
        experiment = load_experiment(file)
        _one_thread()
        result = plan_experiment(experiment)
    if json:
        print_json(result.to_dict())
        return
    typer.echo("\n".join(_lines(result)))


def _one_thread() -> None:
    """Use one thread: a plan computes a few rows at a time, and on a busy machine threads wait for each other."""
    import torch

    torch.set_num_threads(1)


def _lines(plan: "Plan") -> list[str]:
    """Format the plan as sentences and short tables."""
    data = plan.data or "its own data"
    return [
        f"{plan.experiment}: case {plan.case} on {data} ({plan.rows['train']} rows to train, "
        f"{plan.rows['evaluation']} held out)",
        f"  {plan.members} models: {len(plan.variants)} variants x {plan.seeds} seeds{_splits(plan)}, trained in {len(plan.stacks)} stacks",
        f"  {plan.member_steps:,} member-steps ({plan.steps_per_epoch} steps per epoch), about {_time(plan.minutes)}",
        f"  about {plan.metric_rows:,} metric rows, {plan.megabytes:.0f} MB",
        *_section("factors (baseline *)", [_factor(plan, name) for name in plan.factors]),
        *_section(
            "pre-registered comparisons", [*map(" x ".join, plan.interactions), *map(" against ".join, plan.contrasts)]
        ),
        *_section(
            "probability that a remedy which cures every failure is confirmed",
            [f"{entry.probability:.2f}  if {entry.failed:.0%} of the baseline's seeds fail" for entry in plan.power],
        ),
        *_section("smallest effect detected in 4 of 5 repetitions", [_effect(entry) for entry in plan.detectable]),
        *_section(
            "beta that `matched` stands for", [f"{beta:.3g}  {name}" for name, beta in plan.matched_beta.items()]
        ),
        *_section(
            "cannot be applied",
            [f"{entry.levels} ({entry.members} members): {entry.reason}" for entry in plan.not_applicable],
        ),
        *_section("train one by one", _alone(plan)),
        *_section(
            "stacks (one per combination of structural factors)",
            [f"{entry.members:3d}  {entry.why}" for entry in plan.stacks],
        ),
        *_section("notes", plan.notes),
    ]


def _splits(plan: "Plan") -> str:
    return f" x {plan.splits} splits of the rows" if plan.splits > 1 else ""


def _section(title: str, lines: list[str]) -> list[str]:
    rest = [f"    ... and {len(lines) - SHOWN} more (--json shows all)"] if len(lines) > SHOWN else []
    return [f"  {title}:", *(f"    {line}" for line in lines[:SHOWN]), *rest] if lines else []


def _factor(plan: "Plan", name: str) -> str:
    levels = [f"{level}*" if level == plan.baseline[name] else str(level) for level in plan.factors[name]]
    return f"{name}: {', '.join(levels)}"


def _effect(detectable: Any) -> str:
    effect = "none (one seed has no spread)" if detectable.effect is None else f"{detectable.effect:.3f}"
    return f"{effect}  if per-seed differences have a standard deviation of {detectable.deviation:.3g} ({detectable.source})"


def _alone(plan: "Plan") -> list[str]:
    reasons: dict[str, int] = {}
    for stack in plan.stacks:
        if stack.alone is not None:
            reasons[stack.alone] = reasons.get(stack.alone, 0) + stack.members
    return [f"{members} members: {reason}" for reason, members in reasons.items()]


def _time(minutes: float) -> str:
    return f"{minutes * 60:.0f} seconds" if minutes < 2 else f"{minutes:.0f} minutes"
