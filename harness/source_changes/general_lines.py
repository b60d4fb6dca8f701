"""General lines of Python for a remedy: for a model whose source is not known, and for what no line of it holds."""

from collections.abc import Mapping

from harness.factors import Level


def remedy_code(remedy: Mapping[str, Level], bottleneck: str = "bottleneck") -> str:
    """General lines of Python for a remedy, one block per changed factor.

    Args:
        remedy: factor -> level. bottleneck: dotted name of its module, or an output such as "out:0".

    >>> print(remedy_code({"dropout": 0.2}, "enc3"))
    # in forward, after every hidden activation of the encoder, never on the code
    x = F.dropout(F.relu(x), p=0.2, training=self.training)
    """
    layer = attribute_path(bottleneck)
    return "\n\n".join(_block(factor, level, layer) for factor, level in remedy.items())


def attribute_path(module: str) -> str:
    """Expression for a module inside its model.

    >>> attribute_path("enc3"), attribute_path("encoder.3"), attribute_path("out:0")
    ('self.enc3', 'self.encoder[3]', 'self.bottleneck')
    """
    parts = module.split(".")
    if not all(part.isidentifier() or part.isdigit() for part in parts) or parts[0].isdigit():
        return "self.bottleneck"
    return "self" + "".join(f"[{part}]" if part.isdigit() else f".{part}" for part in parts)


def _block(factor: str, level: Level, layer: str) -> str:
    template = SNIPPETS.get((factor, str(level))) or SNIPPETS.get((factor, "")) or NUMBER
    is_function = "{function}" in template
    if not str(level).isidentifier() and (is_function or isinstance(level, str)):
        template = NUMBER
    function = OUTPUTS.get(str(level), f"F.{level}")
    name = factor if factor.isidentifier() else f"# {' '.join(factor.split())}\nnumber"
    return template.format(layer=layer, level=level, value=repr(level), function=function, name=name)


NUMBER = "{name} = {value}"
SIGMOID_CODE = "# in forward: a sigmoid in place of the ReLU\ncode = torch.sigmoid({layer}(x))"
KL = """# the penalty, with a mean over the batch (dim 0) per unit
rho_hat = {tensor}.mean(0)
penalty = (rho * torch.log(rho / rho_hat) + (1 - rho) * torch.log((1 - rho) / (1 - rho_hat))).sum()"""
OUTPUTS = {"sigmoid": "torch.sigmoid", "tanh": "torch.tanh", "relu": "F.relu", "linear": ""}
INITIALIZERS = {"kaiming": "kaiming_normal_", "xavier": "xavier_normal_", "orthogonal": "orthogonal_"}
SNIPPETS = {
    ("batchnorm", "on"): (
        "# in __init__\nself.code_norm = nn.BatchNorm1d({layer}.out_features, affine=False)\n"
        "# in forward, before the activation\ncode = F.relu(self.code_norm({layer}(x)))"
    ),
    ("bias_init", "zero"): (
        "# once, before training\nfor name, parameter in model.named_parameters():\n"
        '    if name.endswith("bias") and parameter.requires_grad:\n        nn.init.zeros_(parameter)'
    ),
    ("activation", ""): ("# in forward: the same for every ReLU of the encoder\ncode = {function}({layer}(x))"),
    ("dropout", ""): (
        "# in forward, after every hidden activation of the encoder, never on the code\n"
        "x = F.dropout(F.relu(x), p={level}, training=self.training)"
    ),
    (
        "output_activation",
        "linear",
    ): "# in forward: no activation after the last layer\nreconstruction = self.last_layer(x)",
    ("output_activation", ""): "# in forward\nreconstruction = {function}(self.last_layer(x))",
    **{
        ("weight_init", name): (
            "# once, before training\nfor name, parameter in model.named_parameters():\n"
            f'    if name.endswith("weight") and parameter.dim() > 1 and parameter.requires_grad:\n        nn.init.{function}(parameter)'
        )
        for name, function in INITIALIZERS.items()
    },
    ("resample", ""): (
        "# after optimizer.step(), {value} times at equal parts of training apart\nwith torch.no_grad():\n"
        "    size = code.abs().mean(0)\n    dormant = size <= 0.025 * size.mean()\n"
        "    fresh = nn.Linear({layer}.in_features, {layer}.out_features)\n"
        "    {layer}.weight[dormant] = fresh.weight[dormant]\n    {layer}.bias[dormant] = 0.0\n"
        "    self.decoder.weight[:, dormant] = 0.0  # decoder: the layer that reads the code"
    ),
    ("neuron_resampling", ""): (
        "# after optimizer.step(), {value} times at equal parts of training apart; rows, code, error: of many rows\n"
        "with torch.no_grad():\n"
        "    dead = ~(code > 0).any(0)\n"
        "    drawn = torch.multinomial(error.square().sum(1) ** 2, len(dead), replacement=True)\n"
        "    direction = F.normalize(rows[drawn], dim=1)\n"
        "    length = 0.2 * {layer}.weight[~dead].norm(dim=1).mean()\n"
        "    {layer}.weight[dead], {layer}.bias[dead] = (length * direction)[dead], 0.0\n"
        "    self.decoder.weight[:, dead] = direction.T[:, dead]  # decoder: the layer that reads the code"
    ),
    ("codebook_restart", ""): (
        "# after optimizer.step(), {value} times at equal parts of training apart; code: of many rows, before it is quantized\n"
        "with torch.no_grad():\n"
        "    used = torch.cdist(code, codebook.weight).argmin(1).unique()\n"
        "    unused = torch.ones(len(codebook.weight), dtype=torch.bool).index_fill(0, used, False)\n"
        "    codebook.weight[unused] = code[torch.randint(len(code), (int(unused.sum()),))]"
    ),
    ("auxk", ""): (
        "# in the loss; before: what {layer} returns, code: behind the activation\n"
        "dead = (code <= 0).all(0)\n"
        "chosen = before.masked_fill(~dead, -torch.inf).topk(min(before.shape[1], batch.shape[1] // 2))\n"
        "values = chosen.values.masked_fill(chosen.values.isinf(), 0.0)\n"
        "sparse = torch.zeros_like(before).scatter(1, chosen.indices, values)\n"
        "error = (batch - reconstruction).detach()\n"
        "loss = loss + {value} * F.mse_loss(sparse @ self.decoder.weight.T, error) * dead.any()"
    ),
    ("gradient_clip", ""): "# after loss.backward()\nnn.utils.clip_grad_norm_(model.parameters(), {value})",
    ("rate_warmup", ""): (
        "# call scheduler.step() after every optimizer.step(); `steps` is their number\n"
        "scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / ({value} * steps)))"
    ),
    ("warmup", ""): "# at `step` of `steps`\npenalty = min(1.0, step / ({value} * steps)) * penalty",
    ("warmup_cycles", ""): "# the rise of the warm-up starts again in each part\nprogress = {value} * step / steps % 1",
    (
        "free_bits",
        "",
    ): "# kl: the divergence of each unit, averaged over the batch\npenalty = kl.clamp(min={value}).sum()",
    ("inputs", "centred"): "# once, before training\nrows = rows - rows.mean(0)",
    ("units", ""): "model = Model(units={level})",
    ("penalty", "none"): 'loss = terms["reconstruction"]  # without the penalty',
    ("penalty", "none_sigmoid_bottleneck"): SIGMOID_CODE + '\nloss = terms["reconstruction"]  # without the penalty',
    ("penalty", "kl_sigmoid_bottleneck"): SIGMOID_CODE + "\n" + KL.format(tensor="code"),
    ("penalty", "kl_sigmoid_of_relu"): KL.format(tensor="torch.sigmoid(F.relu({layer}(x)))"),
    ("penalty", "kl_sigmoid_of_preactivation"): KL.format(tensor="torch.sigmoid({layer}(x))"),
    ("penalty", "l1"): "penalty = code.abs().mean(0).sum()",
    ("penalty", "topk"): "code = harness.penalties.keep_largest(code, count)",
}
