"""Initial values of a model's parameters: other weights, and biases at zero."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from harness.remedies.not_applicable import RemedyNotApplicable

DEFAULT = "default"

# He et al. 2015, Delving deep into rectifiers; Glorot & Bengio 2010, Understanding the difficulty of training deep
# feedforward networks; Saxe et al. 2014, Exact solutions to the nonlinear dynamics of learning in deep linear networks
WEIGHTS: dict[str, Callable[[Tensor], Tensor]] = {
    "kaiming": nn.init.kaiming_normal_,
    "xavier": nn.init.xavier_normal_,
    "orthogonal": nn.init.orthogonal_,
}


class Factory:
    """Model factory with fixed keywords; a class, so that a treated case can be pickled."""

    def __init__(self, model: Callable[..., nn.Module], keywords: Mapping[str, int]) -> None:
        self.model, self.keywords = model, dict(keywords)
        if "features" in inspect.signature(model).parameters:
            self.__signature__ = inspect.Signature([inspect.Parameter("features", inspect.Parameter.KEYWORD_ONLY)])
        else:
            self.__signature__ = inspect.Signature([])

    def __call__(self, **keywords: Any) -> nn.Module:
        return self.model(**self.keywords, **keywords)


class InitialWeights(Factory):
    """Model factory whose weights are drawn by a function of `WEIGHTS`, in the order of the parameters."""

    def __init__(self, model: Callable[..., nn.Module], name: str) -> None:
        super().__init__(model, {})
        self.name = name

    def __call__(self, **keywords: Any) -> nn.Module:
        model = self.model(**keywords)
        weights = [value for name, value in _trainable(model) if name.endswith("weight") and value.dim() > 1]
        if not weights:
            raise RemedyNotApplicable("weight_init: the model has no weight matrix that is trained")
        for weight in weights:
            WEIGHTS[self.name](weight)
        return model


class ZeroBias(Factory):
    """Model factory whose biases start at zero and whose weights are those of the seed."""

    def __init__(self, model: Callable[..., nn.Module]) -> None:
        super().__init__(model, {})

    def __call__(self, **keywords: Any) -> nn.Module:
        model = self.model(**keywords)
        biases = [value for name, value in _trainable(model) if name.rsplit(".", 1)[-1].endswith("bias")]
        if not biases:
            raise RemedyNotApplicable("bias_init: the model has no bias that is trained")
        with torch.no_grad():
            for bias in biases:
                bias.zero_()
        return model


def _trainable(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Yield the parameters that training may change; a frozen one has the value that its author chose."""
    return ((name, value) for name, value in model.named_parameters() if value.requires_grad)
