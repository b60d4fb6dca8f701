"""The axis words of the whole package, as types.

`member` is one model of a stack, `sample` a row of data, `feature` an input column, `unit` a column of the judged
layer. Activations are `[*member, sample, unit]`; measures reduce negative axes only, so that one function serves a
stack, one model and a hooked layer.
"""

from jaxtyping import Float, Int, Num
from torch import Tensor

Activations = Num[Tensor, "*member sample unit"]
PerUnit = Num[Tensor, "*member unit"]
PerMember = Num[Tensor, "*member"]
Inputs = Float[Tensor, "sample *feature"]
Labels = Int[Tensor, "sample"]
