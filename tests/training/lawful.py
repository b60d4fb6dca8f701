"""The third law, checked bit for bit: what a member's record is made of does not depend on who shares its stack.

A stack of copies of one member must show the same numbers at every place, and the same in stacks of every size. Run as
a script, it prints as JSON what breaks the law, and the instruction set that torch uses:

    python tests/training/lawful.py [--sizes 8,24] [NAME ...]
"""

import argparse
import json
from collections.abc import Iterator, Sequence

import torch
from structures import STRUCTURES
from torch import Tensor

from harness.case import Case
from harness.training import check_vmap_support
from harness.training.program import BottleneckView
from harness.training.stacked import StackedEngine

# which between them have what looks at places: odd layers, scalars, normalisation, convolutions, what is shared, LAPACK
ESSENTIAL = ("sigmoid 3", "elu 20", "batch norm", "variational", "convolutional", "shared factors", "decorrelated")
SIZES = (8, 24)
STEPS = 5
ROWS_OBSERVED = (1, 33, 150)


def shown(case: Case, inputs: Tensor, size: int) -> Iterator[tuple[str, Tensor]]:
    """Everything that a stack of copies of one member shows, `[member, ...]` each."""
    stacking = check_vmap_support(case, inputs)
    assert stacking.rule is not None, stacking.reason
    stack = StackedEngine([case] * size, [5] * size, stacking.rule, inputs, stacking.fixed)
    count = case.training()["batch_size"]
    for step in range(STEPS):
        rows = inputs[torch.randperm(len(inputs), generator=torch.Generator().manual_seed(step))[:count]]
        totals, terms = stack.step(rows.expand(size, *rows.shape))
        yield f"total of step {step}", totals
        yield from ((f"{name} of step {step}", value) for name, value in terms.items())
    for name in stack.state_of(0):
        yield name, torch.stack([stack.state_of(member)[name] for member in range(size)])
    batch = inputs[:count].expand(size, *inputs[:count].shape)
    yield from ((f"evaluated {name}", value) for name, value in stack.losses(batch).items())
    yield from ((f"gradient of {name}", value) for name, value in stack.gradients(batch).items())
    for rows in ROWS_OBSERVED:
        seen = [stack.observe(inputs[:rows]) for _ in range(3)][-1]  # as a function, noted, and compared
        yield from ((f"{name} of {rows} rows", value) for name, value in tensors(seen))
        fixed = torch.where(torch.arange(seen.code.shape[-1]) == 0, 0.5, torch.nan).to(seen.code)
        held = stack.observe(inputs[:rows], clamp=fixed.expand(size, -1))
        yield from ((f"{name} of {rows} rows with a unit held", value) for name, value in tensors(held))


def tensors(seen: BottleneckView) -> Iterator[tuple[str, Tensor]]:
    """What was seen, by name."""
    for name in ("code", "preactivation", "raw", "reconstruction", "scale"):
        if getattr(seen, name) is not None:
            yield name, getattr(seen, name)


def violations(case: Case, inputs: Tensor, sizes: Sequence[int] = SIZES) -> list[str]:
    """What differs between the places of a stack, or from the smallest stack in which such a member is trained."""
    expected = {name: value[:1] for name, value in shown(case, inputs, check_vmap_support(case, inputs).filled(1))}
    differences = []
    for size in sizes:
        for name, value in shown(case, inputs, size):
            equal = torch.isclose(value, expected[name], rtol=0, atol=0, equal_nan=True)
            if not equal.all():
                differences.append(f"{name}: {int((~equal).sum())} of {equal.numel()} numbers in a stack of {size}")
    return differences


def main() -> None:
    """Check the cases that are named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", default=",".join(map(str, SIZES)))
    parser.add_argument("names", nargs="*", default=ESSENTIAL)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    sizes = [int(size) for size in asked.sizes.split(",")]
    differences = {name: violations(*STRUCTURES[name](), sizes) for name in asked.names}
    print(json.dumps({"capability": torch.backends.cpu.get_cpu_capability(), "violations": differences}))


if __name__ == "__main__":
    main()
