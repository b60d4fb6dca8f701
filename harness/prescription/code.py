"""Remedies as lines of Python, written with the names of the model at hand."""

from collections.abc import Mapping

from harness.case import Case
from harness.factors import Level


def code_for(remedy: Mapping[str, Level], case: Case) -> str:
    """Return the lines to write for a remedy, one block per changed factor.

    >>> from torch import nn
    >>> case = Case(nn.Identity, lambda: None, lambda model, batch: {}, "enc3")
    >>> print(code_for({"activation": "leaky_relu"}, case))
    # the activation behind `enc3`
    code = F.leaky_relu(self.enc3(x))  # instead of F.relu
    """
    return "\n".join(_lines(name, level, case) for name, level in remedy.items())


def _lines(name: str, level: Level, case: Case) -> str:
    layer = case.bottleneck
    if name == "batchnorm":
        return (
            f"# normalize between `{layer}` and its activation\n"
            f"self.norm = nn.BatchNorm1d(self.{layer}.out_features, affine=False)  # in __init__\n"
            f"code = F.relu(self.norm(self.{layer}(x)))  # in forward; not where the loss calls `{layer}` by itself"
        )
    if name == "activation":
        return f"# the activation behind `{layer}`\ncode = {_call(str(level))}(self.{layer}(x))  # instead of F.relu"
    if name == "bias_init":
        return (
            "# after the model is built: biases start at zero, weights as before\n"
            "for name, parameter in model.named_parameters():\n"
            '    if name.endswith("bias"):\n'
            "        nn.init.zeros_(parameter)"
        )
    if name == "dropout":
        return f"# behind each hidden activation of the encoder, never on the code\nx = F.dropout(x, {level:g}, self.training)"
    if name == "output_activation":
        return f"# the output of the decoder\nreturn {OUTPUTS[str(level)]}"
    if name == "inputs":
        return (
            "# subtract the mean of the training rows from every row, also in evaluation\n"
            "mean = train_rows.mean(0)\nbatch = batch - mean"
        )
    if name == "penalty":
        return PENALTIES.get(str(level), f"# penalty: {level}")
    if name in ("learning_rate", "batch_size", "epochs"):
        return f"# training\n{name} = {level}"
    return (
        f"# a number of the loss\n{name} = {level:g}"
        if isinstance(level, float)
        else f"# a number of the case\n{name} = {level}"
    )


def _call(activation: str) -> str:
    return f"torch.{activation}" if activation == "tanh" else f"F.{activation}"


OUTPUTS = {
    "linear": "self.decoder_output(x)  # without an activation",
    "relu": "F.relu(x)",
    "sigmoid": "torch.sigmoid(x)",
}
PENALTIES = {
    "none": "# leave the penalty out\nloss = reconstruction",
    "none_sigmoid_bottleneck": "# a sigmoid code, without the penalty\ncode = torch.sigmoid(self.{layer}(x))",
    "kl_sigmoid_bottleneck": (
        "# a sigmoid code, and the KL of its mean over the batch\n"
        "from harness.penalties import bernoulli_kl_of_logits\n"
        "logits = self.bottleneck(x)\ncode = torch.sigmoid(logits)\n"
        "penalty = bernoulli_kl_of_logits(rho, logits)"
    ),
    "l1": "# the mean absolute code instead of the KL\npenalty = code.abs().mean(0).sum()",
}
