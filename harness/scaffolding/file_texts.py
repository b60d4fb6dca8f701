"""Text of a case file and of an experiment file for a model file."""

from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from harness.capture.outputs import comparable
from harness.errors import HarnessError
from harness.scaffolding.model_file import ModelFacts, inspect_model_file

REMEDIES = ("{batchnorm: on}", "{bias_init: zero}", "{activation: leaky_relu}", "{dropout: 0.2}")
SEEDS = 8


@dataclass(frozen=True)
class Scaffold:
    """The files that were written for a model.

    Args:
        case: path of the case file. experiment: path of the experiment file.
        facts: of the model.
        placeholder: True where the rows are random numbers, to be replaced.
    """

    case: Path
    experiment: Path
    facts: ModelFacts
    placeholder: bool


def scaffold(path: Path, model: str | None = None, bottleneck: str | None = None, force: bool = False) -> Scaffold:
    """Write a case file and an experiment file beside a model file.

    Args:
        path: a Python file with a torch model.
        model: name of the class or function that builds it; None if there is one.
        bottleneck: dotted name of the layer; None chooses the narrowest.
        force: overwrite files of these names.

    Raises:
        HarnessError: if the file has no such model, or the files exist.
    """
    if not path.stem.isidentifier():
        raise HarnessError(f"{path}: expected a name that can be imported, such as model.py")
    facts = inspect_model_file(path, model, bottleneck)
    case, experiment = path.with_name(f"{path.stem}_case.py"), path.with_name(f"{path.stem}.yaml")
    for file in (case, experiment):
        if file.exists() and not force:
            raise HarnessError(f"{file}: exists already; --force overwrites it")
    case.write_text(case_text(facts))
    experiment.write_text(experiment_text(facts, case.name, REMEDIES))
    try:
        refused = _refused(experiment)
    except HarnessError:
        case.unlink()
        experiment.unlink()
        raise
    remedies = tuple(remedy for remedy in REMEDIES if remedy not in refused)
    experiment.write_text(experiment_text(facts, case.name, remedies))
    return Scaffold(case, experiment, facts, facts.data is None)


def case_text(facts: ModelFacts) -> str:
    """Return the text of the case file."""
    names = ", ".join(dict.fromkeys([facts.factory, *([facts.data] if facts.data else [])]))
    listed = "\n".join(
        f"#   {layer.name}: {layer.kind}, {layer.values} values per row, activation {layer.activation}"
        for layer in facts.layers
    )
    reconstruction = next(_reconstructions(facts), None)
    losses = _own_losses(facts, reconstruction) if reconstruction else _supervised_losses(facts)
    arguments = [f"model={facts.factory}", f"data={facts.data or 'data'}", "losses=losses"]
    arguments += [f'bottleneck="{facts.bottleneck}"'] + ([] if reconstruction else ['objective="supervised"'])
    arguments += [f'posterior="{facts.log_variance}"'] if facts.log_variance else []
    return CASE.format(
        file=facts.path.name,
        stem=facts.path.stem,
        names=names,
        torch="" if facts.data else "import torch\n",
        layers=listed,
        data="" if facts.data else _placeholder(facts, supervised=not reconstruction),
        losses=losses,
        arguments=",\n    ".join(arguments),
    )


def experiment_text(facts: ModelFacts, case: str, remedies: tuple[str, ...]) -> str:
    """Return the text of the experiment file."""
    listed = "\n".join(f"  - {remedy}" for remedy in remedies)
    return EXPERIMENT.format(name=facts.path.stem, case=case, remedies=listed, seeds=SEEDS)


def _refused(experiment: Path) -> set[str]:
    """Return the remedies that cannot be applied to the case, as the experiment file writes them."""
    from harness.grid import load_experiment
    from harness.planning.plan import plan

    refused = {entry.levels.split(":")[0] for entry in plan(load_experiment(experiment)).not_applicable}
    return {remedy for remedy in REMEDIES if remedy.strip("{}").split(":")[0] in refused}


def _reconstructions(facts: ModelFacts) -> Iterator[str]:
    """Yield expressions of the outputs that are shaped like the rows."""
    if facts.rows.is_floating_point():
        for expression, values in expressions(facts.output):
            if comparable(values, facts.rows):
                yield expression


def expressions(output: Any, text: str = "output") -> Iterator[tuple[str, Tensor]]:
    """Yield each tensor of a model's output with an expression for it.

    >>> import torch
    >>> [name for name, _ in expressions((torch.zeros(1), {"code": torch.zeros(1)}))]
    ['output[0]', "output['code']"]
    """
    if isinstance(output, Tensor):
        yield text, output
    elif isinstance(output, dict):
        for key, value in output.items():
            yield from expressions(value, f"output[{key!r}]")
    elif isinstance(output, tuple | list):
        for index, value in enumerate(output):
            yield from expressions(value, f"output[{index}]")
    elif is_dataclass(output):
        for entry in fields(output):
            yield from expressions(getattr(output, entry.name), f"output.{entry.name}")


def _own_losses(facts: ModelFacts, reconstruction: str) -> str:
    target = "batch"
    terms = f'"reconstruction": F.mse_loss({reconstruction}, {target})'
    mean, log_variance = _expression(facts, facts.bottleneck), _expression(facts, facts.log_variance)
    if mean and log_variance:
        kl = f"-0.5 * (1 + {log_variance} - {mean}.pow(2) - {log_variance}.exp()).flatten(1).sum(1).mean()"
        terms += f', "kl": {kl}'
    return f"def losses(model, batch):\n    output = model(batch)\n    return {{{terms}}}"


def _supervised_losses(facts: ModelFacts) -> str:
    expression = next(name for name, _ in expressions(facts.output))
    return (
        "def losses(model, batch, target):\n    output = model(batch)\n"
        f'    return {{"supervised": F.cross_entropy({expression}, target)}}'
    )


def _expression(facts: ModelFacts, layer: str | None) -> str | None:
    """Return the expression of the output that a layer made; None if the model does not return it."""
    values = facts.tensors.get(layer or "")
    if values is None:
        return None
    return next(
        (
            name
            for name, output in expressions(facts.output)
            if output.shape == values.shape and bool((output == values).all())
        ),
        None,
    )


def _placeholder(facts: ModelFacts, supervised: bool) -> str:
    shape = ", ".join(["1000", *map(str, facts.rows.shape[1:])])
    if facts.rows.is_floating_point():
        rows = f"torch.randn({shape}, generator=generator)"
    else:
        rows = f"torch.randint({int(facts.rows.max()) + 1}, ({shape}), generator=generator)"
    values = next(values for _, values in expressions(facts.output))
    classes = int(values.shape[1]) if values.ndim > 1 else 2
    target = f", torch.randint({classes}, (1000,), generator=generator)" if supervised else ""
    return PLACEHOLDER.format(rows=rows, target=target)


PLACEHOLDER = '''
def data():
    """Placeholder: random rows of the right shape. Return your own rows here."""
    generator = torch.Generator().manual_seed(0)
    return {rows}{target}

'''

CASE = '''"""Case for {file}, written by `harness init`."""

{torch}import torch.nn.functional as F
from {stem} import {names}

import harness

# Layers with weights, in the order of their calls:
{layers}

{data}
{losses}


case = harness.Case(
    {arguments},
    train={{"epochs": 30, "batch_size": 64, "learning_rate": 0.001}},  # write those of your own loop; Adam is used
)
'''

EXPERIMENT = """# Which change helps? Each is compared with the model as it is, on the same seeds. Written by `harness init`.
name: {name}
case: {case}
remedies:
{remedies}
seeds: {seeds}
"""
