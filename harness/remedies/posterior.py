"""Log-variances of a latent: recorded during a forward pass, and their KL divergence from the prior per unit."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from harness.capture import flatten_units
from harness.capture.outputs import first_tensor, output_named
from harness.case import Case
from harness.errors import HarnessError, did_you_mean


@contextmanager
def log_variance(case: Case, model: nn.Module) -> Iterator[list[Tensor]]:
    """Record the output of the module that `Case.posterior` names, one tensor per call inside the block.

    The list stays empty for a case without a posterior and for one whose posterior is an output of the model.
    """
    log_variances: list[Tensor] = []
    if case.posterior is None or case.posterior.startswith("out:"):
        yield log_variances
        return

    def record(module: nn.Module, args: Any, output: Any) -> None:
        value = first_tensor(output)
        log_variances.extend([] if value is None else [value])

    modules = dict(model.named_modules())
    if case.posterior not in modules:
        unknown = did_you_mean("module", case.posterior, [name for name in modules if name])
        raise HarnessError(f"{case.name}: posterior: {unknown}")
    handle = modules[case.posterior].register_forward_hook(record)
    try:
        yield log_variances
    finally:
        handle.remove()


def posterior_of(case: Case, outputs: tuple[Any, ...], log_variances: list[Tensor], code: Tensor) -> Tensor:
    """Return the log-variances beside a code, `[sample, unit]`.

    Args:
        case: a case with a posterior.
        outputs: outputs of the model.
        log_variances: what `log_variance` recorded.
        code: the means, `[sample, unit]`.

    Raises:
        HarnessError: when the module did not run, the output does not exist, or its shape is not that of the code.
    """
    where = f"{case.name}: posterior"
    assert case.posterior is not None
    if case.posterior.startswith("out:"):
        try:
            value = output_named(outputs, case.posterior)
        except HarnessError as error:
            raise HarnessError(f"{where}: {error}") from error
    elif log_variances:
        value = log_variances[0]
    else:
        raise HarnessError(f"{where}: {case.posterior!r} did not run in a forward pass of the model")
    value = flatten_units(value)
    if value.shape != code.shape:
        raise HarnessError(
            f"{where}: expected one log-variance per unit of the bottleneck, shape {list(code.shape)},"
            f" got {list(value.shape)}"
        )
    return value


def kl_per_unit(mean: Tensor, log_variances: Tensor) -> Tensor:
    """KL divergence of N(mean, exp(log-variance)) from N(0, 1), averaged over the rows.

    Returns:
        Nats, `[unit]`, from 0 (the unit ignores its input) without an upper bound.

    Source: Kingma & Welling 2014, appendix B.

    >>> import torch
    >>> kl_per_unit(torch.tensor([[1.0], [-1.0]]), torch.zeros(2, 1))
    tensor([0.5000])
    """
    return 0.5 * (mean.pow(2) + log_variances.exp() - log_variances - 1).mean(dim=-2)
