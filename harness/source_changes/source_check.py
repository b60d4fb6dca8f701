"""Comparison of a changed source with the treated case, bit for bit."""

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._pytree import tree_flatten

from harness.case import CASES_FOLDER, Case
from harness.data.rows import Split
from harness.loss_terms import bind_losses, loss_terms
from harness.models import build_model
from harness.sibling_imports import own_name, sibling_imports
from harness.training.schedules import learning_rates
from harness.user_code import guarded

SEEDS = (0, 1)
SCHEDULED_STEPS = 50


def same_numbers(case: Case, texts: Mapping[Path, str], treated: Case, split: Split) -> bool:
    """Return True if the changed source makes the treated case's initial weights, outputs, loss terms and buffers.

    Dropout draws the masks of the treated model here; in the user's program it draws its own.
    """
    with _drawn_as_treated():
        changed = changed_case(case, texts)
        if changed is None or not _same_numbers(changed, treated):
            return False
        try:
            return all(_same_member(changed, treated, split, seed) for seed in SEEDS)
        except Exception:  # the changed model may fail in any way
            return False


def changed_case(case: Case, texts: Mapping[Path, str]) -> Case | None:
    """Execute the changed source, and return its case; None where it fails or has no case.

    Args:
        case: a case that was loaded from a file.
        texts: new text of each changed file; the case's file is executed in any case.
    """
    assert case.source is not None
    path = case.source
    name = f"harness.cases.{path.stem}" if path.parent == CASES_FOLDER else own_name(path)
    modules = dict(sys.modules)
    try:
        with guarded(), sibling_imports(path.parent):
            for file, text in texts.items():
                if file != path:
                    _execute(_module_name(file), file, text)
            module = _execute(name, path, texts.get(path) or path.read_text(encoding="utf-8"))
    except Exception:  # the changed source may fail in any way: then it is not offered
        return None
    finally:
        for imported in set(sys.modules) - set(modules):
            if getattr(sys.modules[imported], "__changed__", False):
                del sys.modules[imported]
        sys.modules.update({key: value for key, value in modules.items() if sys.modules.get(key) is not value})
    result = getattr(module, "case", None)
    return replace(result, name=case.name, source=case.source) if isinstance(result, Case) else None


def _execute(name: str, path: Path, text: str) -> ModuleType:
    module = ModuleType(name)
    module.__file__ = str(path)
    vars(module)["__changed__"] = True
    sys.modules[name] = module
    exec(compile(text, str(path), "exec"), vars(module))
    return module


def _module_name(path: Path) -> str:
    return next(
        (name for name, module in list(sys.modules.items()) if getattr(module, "__file__", None) == str(path)),
        path.stem,
    )


def _same_numbers(changed: Case, treated: Case) -> bool:
    """Return True if both train by the same numbers and their losses get the same ones."""
    names = changed.loss_keywords()
    if changed.clip != treated.clip or _rates(changed) != _rates(treated):
        return False
    return changed.training() == treated.training() and all(
        name in treated.numbers and float(changed.numbers[name]) == float(treated.numbers[name]) for name in names
    )


def _rates(case: Case) -> list[float] | None:
    return learning_rates(case, float(case.training()["learning_rate"]), SCHEDULED_STEPS)


def _same_member(changed: Case, treated: Case, split: Split, seed: int) -> bool:
    rows = split.train.inputs[:16]
    return _same(_values(changed, split, rows, seed), _values(treated, split, rows, seed))


def _values(case: Case, split: Split, rows: Tensor, seed: int) -> list[Tensor]:
    """Initial weights, outputs in evaluation and training, loss terms, gradients and buffers of one member."""
    model = build_model(case, seed, rows)
    values = [parameter.detach().clone() for parameter in model.parameters()]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model.eval()
        with torch.no_grad():
            values += _tensors(model(rows))
        model.train()
        bound = bind_losses(case, split.train.targets)
        if case.has_losses:
            terms = loss_terms(bound, model, rows)
            total = case.total(terms, case.numbers)
            values += [torch.as_tensor(value).detach() for value in (*terms.values(), total)]
            if isinstance(total, Tensor) and total.requires_grad:
                total.backward()
                values += [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]
        else:
            values += _tensors(model(rows))
    # a normalization without a counter of its batches has the same statistics
    return [*values, *(buffer.detach().clone() for buffer in model.buffers() if buffer.is_floating_point())]


def _tensors(output: object) -> list[Tensor]:
    return [leaf.detach().clone() for leaf in tree_flatten(output)[0] if isinstance(leaf, Tensor)]


def _same(first: list[Tensor], second: list[Tensor]) -> bool:
    return len(first) == len(second) and all(
        a.shape == b.shape and torch.equal(a.nan_to_num(), b.nan_to_num()) for a, b in zip(first, second, strict=True)
    )


@contextmanager
def _drawn_as_treated() -> Iterator[None]:
    """Let dropout draw its masks as the treated model does."""
    original = F.dropout

    def dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
        return input * (torch.rand_like(input) >= p) / (1 - p) if training else input

    F.dropout = dropout
    try:
        yield
    finally:
        F.dropout = original
