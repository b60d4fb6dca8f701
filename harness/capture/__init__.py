"""Reading of the activation of any module: the values that enter the activation in use, and the values that leave it.

A forward pass is recorded as a sequence of torch calls. `F.relu`, `torch.relu`, `nn.ReLU`, `x.clamp(min=0)` and `relu_`
are treated alike, no class of the package has to be subclassed, and the same code runs under `torch.func.vmap`.
"""

from harness.capture.activation_calls import ACTIVATIONS, NORMALISATIONS, PASSED_THROUGH, activation_name
from harness.capture.dataflow import Activation, ForwardPass
from harness.capture.edits import CODE_SITE, OUTPUT_SITE, Edit
from harness.capture.observation import Observation, code_of, eval_mode, observe
from harness.capture.outputs import comparable, flatten_units, outputs_of, reconstruction_of, why_no_r2
from harness.capture.tap import NOWHERE, BottleneckTap, submodule

__all__ = [
    "ACTIVATIONS",
    "CODE_SITE",
    "NORMALISATIONS",
    "NOWHERE",
    "OUTPUT_SITE",
    "PASSED_THROUGH",
    "Activation",
    "BottleneckTap",
    "Edit",
    "ForwardPass",
    "Observation",
    "activation_name",
    "code_of",
    "comparable",
    "eval_mode",
    "flatten_units",
    "observe",
    "outputs_of",
    "reconstruction_of",
    "submodule",
    "why_no_r2",
]
