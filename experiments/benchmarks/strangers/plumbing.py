"""Rows, optimizers, outputs, and cut encoders: public faults and their corrected twins."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from stranger import Observed, Stranger, binary, case, gradients, linear, terms_of, waves
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from harness import Case


class Plain(nn.Module):
    """Features-32-6-32-features with a tanh code; its parts are replaced by the variants."""

    def __init__(self, features: int = 24, finish: Callable[[Tensor], Tensor] | None = None) -> None:
        super().__init__()
        finish = finish or nn.Identity()
        self.body, self.enc = nn.Linear(features, 32), nn.Linear(32, 6)
        self.grow, self.out, self.finish = nn.Linear(6, 32), nn.Linear(32, features), finish

    def encode(self, x: Tensor) -> Tensor:
        """Return the code."""
        return torch.tanh(self.enc(F.relu(self.body(x))))

    def decode(self, z: Tensor) -> Tensor:
        """Return the reconstruction."""
        return self.finish(self.out(F.relu(self.grow(z))))

    def forward(self, x: Tensor) -> Tensor:
        """Return the reconstruction."""
        return self.decode(self.encode(x))

    def observe(self, x: Tensor) -> Observed:
        """Return what the truth needs."""
        code = self.encode(x)
        return Observed(code, self(x))


def squared_error(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """Return the mean squared error."""
    return {"reconstruction": F.mse_loss(model(x), x)}


def plain(model: Callable[[], nn.Module] = Plain, rows: Callable[[bool], Any] = linear, **more: Any) -> Case:
    """Return a case of the plain model."""
    return case(model, more.pop("losses", squared_error), rows, "enc", **more)


# --- encoders that get no gradient ----------------------------------------------------------------------------------


class NoGrad(Plain):
    """Encodes without a graph."""

    def encode(self, x: Tensor) -> Tensor:
        """Return the code."""
        with torch.no_grad():
            return super().encode(x)


class Extracted(Plain):
    """Keeps the code through a hook that stores a detached copy."""

    def __init__(self, detached: bool) -> None:
        super().__init__()
        self.kept: list[Tensor] = []
        self.enc.register_forward_hook(
            lambda module, args, output: self.kept.append(output.clone().detach() if detached else output.clone())
        )

    def encode(self, x: Tensor) -> Tensor:
        """Return the code from the hook's store."""
        self.enc(F.relu(self.body(x)))
        return torch.tanh(self.kept.pop())


def encoder_untouched(case: Case, model: nn.Module, rows: Tensor) -> bool:
    """Return True if the error has no gradient at the encoder."""
    del model, rows
    return gradients(case, "reconstruction")["enc.weight"] <= 0


# --- optimizers and layers ------------------------------------------------------------------------------------------


class Unregistered(Plain):
    """Keeps the layers of the decoder in a plain list."""

    def __init__(self, listed: bool) -> None:
        super().__init__()
        layers = [nn.Linear(6, 32), nn.Linear(32, 24)]
        self.layers = layers if listed else nn.ModuleList(layers)
        del self.grow, self.out

    def decode(self, z: Tensor) -> Tensor:
        """Return the reconstruction."""
        return self.layers[1](F.relu(self.layers[0](z)))


def layers_untrained(case: Case, model: nn.Module, rows: Tensor) -> bool:
    """Return True if the decoder's layers are not among the parameters."""
    del case, rows
    return not any(name.startswith("layers") for name, _ in model.named_parameters())


def encoder_only(parameters: Any) -> torch.optim.Optimizer:
    """Return an optimizer of the first four parameters."""
    return torch.optim.Adam(list(parameters)[:4], 3e-3)


def optimizer_is_partial(case: Case, model: nn.Module, rows: Tensor) -> bool:
    """Return True if the optimizer has fewer parameters than the model."""
    del rows
    parameters = list(model.parameters())
    return case.optimizer is not None and len(case.optimizer(parameters).param_groups[0]["params"]) < len(parameters)


def constant_weights(spread: bool) -> Plain:
    """Return a model whose encoder starts from one constant, or from random weights."""
    model = Plain()
    if not spread:
        for layer in (model.body, model.enc, model.grow):
            nn.init.constant_(layer.weight, 0.1)
            nn.init.zeros_(layer.bias)
    return model


def units_equal(case: Case, model: nn.Module, rows: Tensor) -> bool:
    """Return True if all units of the trained code are equal."""
    del case
    code = model.observe(rows[:200]).code  # type: ignore[operator]
    return bool(torch.allclose(code, code[:, :1].expand_as(code), atol=1e-5))


# --- rows -------------------------------------------------------------------------------------------------------------


class Recurrent(Plain):
    """A GRU over the steps of a sequence; the axes are right or not."""

    def __init__(self, batch_first: bool = True, layers: int = 1, viewed: bool = False) -> None:
        super().__init__(12)
        self.rnn = nn.GRU(1, 16, layers, batch_first=batch_first)
        self.enc, self.viewed = nn.Linear(16 * layers, 6), viewed
        del self.body

    def encode(self, x: Tensor) -> Tensor:
        """Return the code of the last state."""
        outputs, states = self.rnn(x.unsqueeze(2))
        if self.rnn.num_layers == 1:
            return torch.tanh(self.enc(outputs[:, -1]))
        states = states if self.viewed else states.transpose(0, 1).contiguous()
        return torch.tanh(self.enc(states.reshape(len(x), -1)))


def rows_mixed(case: Case, model: nn.Module, rows: Tensor) -> bool:
    """Return True if changing the first row alone moves the output of another row."""
    del case
    x = rows[:8].clone()
    with torch.no_grad():
        before = model(x)
        x[0] += 1
        moved = (model(x) - before).abs().amax(1) > 1e-5
    return bool(moved[1:].any())


def labelled(train: bool) -> TensorDataset:
    """Return rows with a number to predict, `[sample]`."""
    rows = linear(train)
    return TensorDataset(rows, torch.tanh(rows[:, :4].sum(1)))


def shares(train: bool) -> TensorDataset:
    """Return rows with a share between 0 and 1, `[sample, 1]`."""
    rows = linear(train)
    return TensorDataset(rows, torch.sigmoid(rows[:, :3].sum(1, keepdim=True)))


class Head(nn.Module):
    """A supervised net with one output."""

    def __init__(self, finish: Callable[[Tensor], Tensor] | None = None) -> None:
        super().__init__()
        finish = finish or nn.Identity()
        self.body, self.enc, self.out, self.finish = nn.Linear(24, 32), nn.Linear(32, 6), nn.Linear(6, 1), finish

    def forward(self, x: Tensor) -> Tensor:
        """Return `[sample, 1]`."""
        return self.finish(self.out(torch.tanh(self.enc(F.relu(self.body(x))))))

    def observe(self, x: Tensor) -> Observed:
        """Return what the truth needs."""
        return Observed(torch.tanh(self.enc(F.relu(self.body(x)))), self(x))


def column_against_row(model: nn.Module, x: Tensor, target: Tensor) -> dict[str, Tensor]:
    """Compare `[sample, 1]` with `[sample]`."""
    return {"error": F.mse_loss(model(x), target)}


def row_against_row(model: nn.Module, x: Tensor, target: Tensor) -> dict[str, Tensor]:
    """Compare `[sample]` with `[sample]`."""
    return {"error": F.mse_loss(model(x).flatten(), target.flatten())}


def pairs_of_rows(case: Case, model: nn.Module, rows: Tensor) -> bool:
    """Return True if the loss stays the same when the outputs change their rows."""
    target = case.data().tensors[1][:64]
    with torch.no_grad():
        made = model(rows[:64])

    class Given(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return self.made

    given, values = Given(), []
    for order in (torch.arange(64), torch.randperm(64, generator=torch.Generator().manual_seed(1))):
        given.made = made[order]
        values.append(float(case.losses(given, rows[:64], target=target)["error"]))
    return abs(values[0] - values[1]) < 1e-6 * abs(values[0])


def supervised(losses: Callable[..., Any], rows: Callable[[bool], Any], **more: Any) -> Case:
    """Return a case of the supervised net."""
    return case(
        more.pop("model", Head),
        losses,
        rows,
        "enc",
        objective="error",
        reconstruction="out:0",
        train={"epochs": 40},
        **more,
    )


class Pooling(nn.Module):
    """Softmax over one number."""

    def forward(self, x: Tensor) -> Tensor:
        """Return ones."""
        return x.softmax(1)


def labels_overwritten(inside: bool) -> Callable[..., Any]:
    """Return a loss that masks entries of the batch, in place or in a copy."""

    def losses(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
        mask = torch.zeros_like(x, dtype=torch.bool)
        mask[:, ::3] = True
        masked = x.masked_fill_(mask, 0.0) if inside else x.masked_fill(mask, 0.0)
        return {"reconstruction": F.mse_loss(model(masked), x)}

    return losses


def batch_changes(case: Case, model: nn.Module, rows: Tensor) -> bool:
    """Return True if the loss writes into its batch."""
    batch = rows[:64].clone()
    terms_of(case, model, batch, None)
    return not torch.equal(batch, rows[:64])


# --- outputs ----------------------------------------------------------------------------------------------------------


def large(train: bool) -> Tensor:
    """Return rows between 1 and 3."""
    return 1 + 2 * torch.sigmoid(linear(train) * 2)


def out_of_range(case: Case, model: nn.Module, rows: Tensor) -> bool:
    """Return True if more than 1 % of the data lie outside of what the output's activation can give."""
    del case
    with torch.no_grad():
        ends = model.finish(torch.tensor([-1e4, 1e4]))  # type: ignore[operator]
    return float(((rows < ends.min() - 1e-6) | (rows > ends.max() + 1e-6)).float().mean()) > 0.01


def logits_of_probabilities(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """Take the cross-entropy with logits."""
    return {"reconstruction": F.binary_cross_entropy_with_logits(model(x), x)}


class Logits(Plain):
    """Gives logits, which are read behind a sigmoid."""

    def observe(self, x: Tensor) -> Observed:
        """Return what the truth needs."""
        return Observed(self.encode(x), torch.sigmoid(self(x)))


def twice_squashed(case: Case, model: nn.Module, rows: Tensor) -> bool:
    """Return True if the loss stays above 0.3 at outputs that equal the rows up to any scale."""
    del model

    class Given(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return case.model().finish((2 * x - 1) * 50)  # type: ignore[union-attr, operator]

    return float(case.losses(Given(), rows[:64])["reconstruction"]) > 0.3


class Skip(Plain):
    """A connection from the first layer of the encoder to the decoder."""

    def __init__(self) -> None:
        super().__init__()
        self.out = nn.Linear(64, 24)

    def forward(self, x: Tensor) -> Tensor:
        """Return the reconstruction."""
        hidden = F.relu(self.body(x))
        return self.out(torch.cat([F.relu(self.grow(torch.tanh(self.enc(hidden)))), hidden], 1))


def reaches_around(case: Case, model: nn.Module, rows: Tensor) -> bool:
    """Return True if the output follows the input with the code's layer held."""
    del case
    handle = model.enc.register_forward_hook(lambda module, args, output: torch.zeros_like(output))  # type: ignore[union-attr, operator]
    with torch.no_grad():
        moved = not torch.allclose(model(rows[:32]), model(rows[32:64]))
    handle.remove()
    return moved


def distances(eps: float) -> Callable[..., Any]:
    """Return a loss with a root of squared distances between all codes, which are 0 for a row and itself."""

    def losses(model: Plain, x: Tensor) -> dict[str, Tensor]:
        code = model.encode(x)
        squares = (code.unsqueeze(0) - code.unsqueeze(1)).square().sum(2)
        return {"reconstruction": F.mse_loss(model.decode(code), x), "pairs": 1e-2 * (squares + eps).sqrt().mean()}

    return losses


def gradient_not_finite(case: Case, model: nn.Module, rows: Tensor) -> bool:
    """Return True if a gradient of the second term is NaN."""
    del model, rows
    return any(value != value for value in gradients(case, "pairs").values())


def initialized_twice(right: bool) -> Plain:
    """Return a model whose decoder keeps its default initialization, or gets one of its own."""
    model = Plain()
    layer = model.out if right else model.body
    nn.init.normal_(layer.weight, 0.0, 0.1)
    nn.init.zeros_(layer.bias)
    return model


STRANGERS = (
    Stranger(
        "encoder runs under no_grad",
        "encoder",
        "rll-research/cic#5",
        "observations are encoded inside torch.no_grad, so the encoder is never updated",
        lambda: plain(NoGrad),
        lambda: plain(),
        causes=("cut_encoder",),
        output="any",
        fact=encoder_untouched,
    ),
    Stranger(
        "code is kept detached by a hook",
        "encoder",
        "lucidrains/CoCa-pytorch#6",
        "the extractor returns a detached clone of the layer's output",
        lambda: plain(lambda: Extracted(True)),
        lambda: plain(lambda: Extracted(False)),
        causes=("cut_encoder",),
        output="any",
        fact=encoder_untouched,
    ),
    Stranger(
        "optimizer has the encoder only",
        "optimizer",
        "zdebruine/MMVAE#39",
        "the optimizer is given the parameters of the encoder, and the decoder stays as it was",
        lambda: plain(optimizer=encoder_only),
        lambda: plain(),
        causes=("optimizer_misses_parameters",),
        output="any",
        fact=optimizer_is_partial,
    ),
    Stranger(
        "layers in a plain list",
        "optimizer",
        "EleutherAI/gpt-neox#267",
        "layers are not registered as modules, so their parameters are in no optimizer",
        lambda: plain(lambda: Unregistered(True)),
        lambda: plain(lambda: Unregistered(False)),
        causes=("optimizer_misses_parameters",),
        output="any",
        fact=layers_untrained,
    ),
    Stranger(
        "weights start from one constant",
        "initialization",
        "davidmascharka/MyNN#70",
        "all weights of a layer start from one value, and its units stay equal for ever",
        lambda: plain(lambda: constant_weights(False)),
        lambda: plain(lambda: constant_weights(True)),
        causes=("symmetric_init",),
        output="any",
        fact=units_equal,
    ),
    Stranger(
        "decoder's initialization is applied to the encoder",
        "initialization",
        "rasbt/deeplearning-models#82",
        "the encoder's layer is initialized twice and the decoder's keeps its default: both are random",
        lambda: plain(lambda: initialized_twice(False)),
        lambda: plain(lambda: initialized_twice(True)),
        harmless=True,
    ),
    Stranger(
        "GRU without batch_first",
        "rows",
        "AndersonJo/dqn-pytorch#1",
        "the rows of a batch are taken for the steps of a sequence",
        lambda: plain(lambda: Recurrent(batch_first=False), waves),
        lambda: plain(lambda: Recurrent(), waves),
        causes=("mixed_rows",),
        output="any",
        fact=rows_mixed,
    ),
    Stranger(
        "last states viewed by rows",
        "rows",
        "timbmg/Sentence-VAE#15",
        "states [layers, rows, units] are viewed as [rows, layers x units]: a row gets states of other rows",
        lambda: plain(lambda: Recurrent(layers=2, viewed=True), waves),
        lambda: plain(lambda: Recurrent(layers=2), waves),
        causes=("mixed_rows",),
        output="any",
        fact=rows_mixed,
    ),
    Stranger(
        "column against row",
        "rows",
        "jsboige/CoursIA#926",
        "an output [rows, 1] is compared with targets [rows]: every output with every target",
        lambda: supervised(column_against_row, labelled),
        lambda: supervised(row_against_row, labelled),
        causes=("unpaired_rows",),
        output="mean",
        fact=pairs_of_rows,
        lost="any",
    ),
    Stranger(
        "batch is masked in place",
        "rows",
        "NVIDIA-NeMo/Automodel#3917",
        "the loss masks the caller's tensor in place: the target is masked as well",
        lambda: plain(losses=labels_overwritten(True)),
        lambda: plain(losses=labels_overwritten(False)),
        causes=("edits_in_place",),
        output="any",
        fact=batch_changes,
    ),
    Stranger(
        "softmax of one number",
        "output",
        "keras-team/keras#500",
        "the output is a softmax over one number: 1 for every input",
        lambda: supervised(row_against_row, shares, model=lambda: Head(Pooling())),
        lambda: supervised(row_against_row, shares, model=lambda: Head(torch.sigmoid)),
        causes=("zero_gradient", "no_gradient", "output_range"),
        output="constant",
    ),
    Stranger(
        "ReLU at the end of the decoder",
        "output",
        "carpedm20/visual-analogy-tensorflow#1",
        "data have negative values, and the last layer of the decoder is followed by a ReLU",
        lambda: plain(lambda: Plain(finish=torch.relu)),
        lambda: plain(),
        causes=("output_range",),
        output="any",
        fact=out_of_range,
    ),
    Stranger(
        "sigmoid output for data up to 3",
        "output",
        "https://stackoverflow.com/questions/44601367",
        "data lie between 1 and 3, and the output is a sigmoid",
        lambda: plain(lambda: Plain(finish=torch.sigmoid), large),
        lambda: plain(lambda: Plain(finish=torch.sigmoid), lambda train: (large(train) - 1) / 2),
        causes=("output_range",),
        output="constant",
        lost="any",
        fact=out_of_range,
    ),
    Stranger(
        "sigmoid before a loss that takes logits",
        "output",
        "itakurah/focal-loss-pytorch#5",
        "probabilities are given to a loss that applies a sigmoid: it sees 0.5 to 0.73 only",
        lambda: plain(lambda: Plain(finish=torch.sigmoid), binary, losses=logits_of_probabilities),
        lambda: plain(Logits, binary, losses=logits_of_probabilities, reconstruction="out:0"),
        causes=("output_range", "unreachable_target"),
        lost="any",
        output="any",
        fact=twice_squashed,
    ),
    Stranger(
        "skip connection around the code",
        "bypass",
        "lgvaz/faststyle#5",
        "a U-Net's connection carries the input to the decoder, and the code is not needed",
        lambda: plain(Skip),
        lambda: plain(),
        causes=("bypass",),
        fact=reaches_around,
    ),
    Stranger(
        "root of a squared distance of 0",
        "numbers",
        "adambielski/siamese-triplet#18",
        "the distance of two equal rows is 0, where the root has no finite slope: NaN",
        lambda: plain(losses=distances(0.0)),
        lambda: plain(losses=distances(1e-6)),
        causes=("diverges", "outside_domain"),
        lost="all",
        output="invalid",
        fact=gradient_not_finite,
    ),
)
