"""Self-supervised models: public faults and their corrected twins."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from stranger import Observed, Stranger, case, linear
from torch import Tensor, nn

from harness import Case


class Siamese(nn.Module):
    """Encoder, embedding and predictor; returns embedding and prediction."""

    def __init__(self) -> None:
        super().__init__()
        self.enc, self.head = nn.Linear(24, 48), nn.Linear(48, 8)
        self.pred = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 8))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return embedding and prediction."""
        z = self.head(F.relu(self.enc(x)))
        return z, self.pred(z)

    def observe(self, x: Tensor) -> Observed:
        """Return what the truth needs."""
        return Observed(self.head(F.relu(self.enc(x))))


def views(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return two noisy copies."""
    return x + 0.3 * torch.randn_like(x), x + 0.3 * torch.randn_like(x)


def negative_cosine(first: Tensor, second: Tensor) -> Tensor:
    """Return minus the mean cosine of pairs."""
    return -F.cosine_similarity(first, second, dim=1).mean() / 2


def simsiam(stopped: bool) -> Callable[..., Any]:
    """Return the loss with or without the gradient of the target."""

    def losses(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
        (z1, p1), (z2, p2) = (model(view) for view in views(x))
        if stopped:
            z1, z2 = z1.detach(), z2.detach()
        return {"similarity": negative_cosine(p1, z2) + negative_cosine(p2, z1)}

    return losses


def nt_xent(normalize: Callable[[Tensor], Tensor], axis: int = 1) -> Callable[..., Any]:
    """Return InfoNCE over the pairs of a batch."""

    def losses(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
        z1, z2 = (normalize(model(view)[0]) for view in views(x))
        scores = z1 @ z2.T / 0.2
        return {"similarity": -scores.log_softmax(axis).diagonal().mean()}

    return losses


def vicreg(axis: int) -> Callable[..., Any]:
    """Return invariance, and the hinge on the deviation over rows (0) or over units (1)."""

    def losses(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
        z1, z2 = (model(view)[0] for view in views(x))
        deviations = [(z.var(axis) + 1e-4).sqrt() for z in (z1, z2)]
        centered = [z - z.mean(0) for z in (z1, z2)]
        products = [(z.T @ z / (len(z) - 1)).square() for z in centered]
        return {
            "similarity": F.mse_loss(z1, z2),
            "variance": torch.stack([F.relu(1 - deviation).mean() for deviation in deviations]).sum(),
            "covariance": 0.04 * torch.stack([(p.sum() - p.diagonal().sum()) / 8 for p in products]).sum(),
        }

    return losses


def siamese(losses: Callable[..., Any], **more: Any) -> Case:
    """Return a case of a siamese model."""
    return case(Siamese, losses, linear, "head", objective="similarity", **more)


def target_is_trained(case: Case, model: nn.Module, rows: Tensor) -> bool:
    """Return True if the gradient is another one than with detached targets."""
    torch.manual_seed(0)
    fresh = case.model()
    parameters = list(fresh.head.parameters())  # type: ignore[union-attr, operator]
    slopes = []
    for losses in (case.losses, simsiam(True)):
        torch.manual_seed(0)
        slopes.append(torch.autograd.grad(losses(fresh, rows[:64])["similarity"], parameters))
    del model
    return any(not torch.allclose(left, right) for left, right in zip(*slopes, strict=True))


def deviation_ignores_rows(case: Case, model: nn.Module, rows: Tensor) -> bool:
    """Return True if the variance term is 0 at an embedding that is the same for every row."""

    class Constant(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            z = torch.linspace(-3, 3, 8).expand(len(x), 8)
            return z, z

    del model
    return float(case.losses(Constant(), rows[:64])["variance"]) < 0.1


STRANGERS = (
    Stranger(
        "simsiam without stop-gradient",
        "contrastive",
        "lightly-ai/lightly#559",
        "the targets are not detached: both sides move to one constant embedding",
        lambda: siamese(simsiam(False)),
        lambda: siamese(simsiam(True)),
        causes=("collapse_optimum",),
        lost="any",
        output="",
        fact=target_is_trained,
    ),
    Stranger(
        "contrastive loss normalized over the batch",
        "contrastive",
        "tensorflow/similarity#237",
        "embeddings are divided by the norm of the whole batch: the scores are near 0 and hardly depend on the pairs",
        lambda: siamese(nt_xent(lambda z: z / z.norm())),
        lambda: siamese(nt_xent(lambda z: F.normalize(z, dim=1))),
        lost="any",
        output="",
    ),
    Stranger(
        "contrastive softmax over the other axis",
        "contrastive",
        "YuanGongND/ssast#13",
        "the softmax runs over the other axis of the score matrix: another anchor, and no other effect",
        lambda: siamese(nt_xent(lambda z: F.normalize(z, dim=1), axis=0)),
        lambda: siamese(nt_xent(lambda z: F.normalize(z, dim=1))),
        lost="any",
        output="",
        harmless=True,
    ),
    Stranger(
        "hinge on the deviation over units",
        "contrastive",
        "facebookresearch/vicreg#8",
        "a variant of the thread's term: the deviation is taken over units, so a constant embedding satisfies it",
        lambda: siamese(vicreg(1)),
        lambda: siamese(vicreg(0)),
        causes=("wrong_axis", "collapse_optimum"),
        lost="any",
        output="",
        fact=deviation_ignores_rows,
    ),
)
