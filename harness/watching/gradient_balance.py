"""Balance of the loss terms at a watched layer: a penalty whose gradient outweighs that of the main term."""

from collections import deque
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from harness.auditing.audit_thresholds import AUDIT_THRESHOLDS
from harness.diagnosis import Finding, Severity

RECENT_STEPS = 20  # observed steps over which a ratio is judged; fewer are the transient after initialization
LEAST_RATIOS = 3  # of them with a ratio; a layer that dies has none afterwards
MAIN_TERM = "reconstruction"  # or the first term, where none is called so


class GradientBalance:
    """Ratios of each penalty's gradient norm to that of the main term at one layer, step by step.

    Steps in which the main term has no gradient at the layer (behind a detached code, or at a dead layer) have no ratio.

    >>> balance = GradientBalance()
    >>> norms = {"reconstruction": torch.tensor([0.3, 0.4]), "kl": torch.tensor([15.0, 20.0])}
    >>> balance.add([*range(1, 22)], [norms] * 21)
    [(20, 'kl', 'the gradient of kl has had 50 times the norm of that of reconstruction (median of 20 observed steps)')]
    """

    def __init__(self) -> None:
        self._waiting: deque[tuple[int, Mapping[str, Tensor]]] = deque()  # whose terms may come later
        self._main = MAIN_TERM
        self._recent: dict[str, deque[tuple[int, float]]] = {}
        self._streak: dict[str, int] = {}
        self._first: dict[str, float] = {}
        self._least: dict[str, float] = {}
        self._steps = 0  # with terms

    def add(self, steps: Sequence[int], gradients: Sequence[Mapping[str, Tensor]]) -> list[tuple[int, str, str]]:
        """Add steps, term -> `[unit]`; return step, term and text of each ratio that was high for 20 steps in a row."""
        self._waiting.extend(zip(steps, gradients, strict=True))
        lines = []
        while len(self._waiting) > 1:
            lines += self._judge(*self._waiting.popleft())
        return lines

    def findings(self, layer: str) -> list[Finding]:
        """Return `dominates` for each penalty that outweighs the main term: by the bounds of the audit."""
        while self._waiting and self._waiting[0][1]:
            self._judge(*self._waiting.popleft())
        bounds, findings = AUDIT_THRESHOLDS, []
        for term, recent in self._recent.items():
            if self._steps < RECENT_STEPS or len(recent) < LEAST_RATIOS:
                continue
            ratio = float(np.median([value for _, value in recent]))
            if ratio <= bounds.dominates_birth and self._least[term] <= bounds.dominates_always:
                continue
            findings.append(
                Finding(
                    "dominates",
                    Severity.FAULT if ratio > bounds.dominates_fault else Severity.RISK,
                    f"the gradient norm of {term} divided by that of {self._main}, at {layer}: {ratio:.3g} (median of the observed "
                    f"steps {recent[0][0]} to {recent[-1][0]}; {self._first[term]:.3g} at the first)",
                    "at this layer the penalty's gradient dominates that of the main term",
                    f"divide the weight of {term} by about {ratio:.2g}, and look at the ratio again",
                    term=term,
                    numbers={
                        "ratio": ratio,
                        "ratio_at_first": self._first[term],
                        "least_ratio": self._least[term],
                        "step": float(recent[-1][0]),
                    },
                )
            )
        return findings

    def _judge(self, step: int, gradients: Mapping[str, Tensor]) -> list[tuple[int, str, str]]:
        if len(gradients) < 2:
            return []
        self._main = MAIN_TERM if MAIN_TERM in gradients else next(iter(gradients))
        self._steps += 1
        norms = {term: float(torch.linalg.vector_norm(norm.double())) for term, norm in gradients.items()}
        main, lines = norms.pop(self._main), []
        for term, norm in norms.items():
            recent = self._recent.setdefault(term, deque(maxlen=RECENT_STEPS))
            streak = self._streak.get(term, 0)
            if main > 0 and np.isfinite(main) and np.isfinite(norm):
                ratio = norm / main
                recent.append((step, ratio))
                self._first.setdefault(term, ratio)
                self._least[term] = min(ratio, self._least.get(term, ratio))
                self._streak[term] = streak + 1 if ratio > AUDIT_THRESHOLDS.dominates_birth else 0
            elif streak:
                self._streak[term] = streak + 1
            if self._streak.get(term) == RECENT_STEPS != streak and len(recent) >= LEAST_RATIOS:
                middle = np.median([value for _, value in recent])
                text = (
                    f"the gradient of {term} has had {middle:.3g} times the norm of that of {self._main} "
                    f"(median of {len(recent)} observed steps)"
                )
                lines.append((step, term, text))
        return lines
