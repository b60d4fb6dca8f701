"""Answers of the tools: one small adapter each, on the same training and the same weights."""

import contextlib
import io
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any

import torch
from stranger import Symptom, Watcher, inputs_and_targets, trained
from torch import Tensor, nn

import harness
from harness import Case

OUTPUTS = {"mean_output": "mean", "constant_output": "constant", "invalid_output": "invalid"}
UNREACHED = ("cut_encoder", "unreached_parameter", "no_gradient", "zero_gradient", "optimizer_misses_parameters")


@dataclass(frozen=True)
class Answer:
    """What a tool says of one case.

    Args:
        symptom: the state of the layer; None where the tool cannot be asked for it.
        causes: names of causes at the severity of a fault. maybe: of a risk.
        complains: True if the tool says that anything is wrong.
        words: its words in short.
    """

    symptom: Symptom | None
    causes: tuple[str, ...] = ()
    maybe: tuple[str, ...] = ()
    complains: bool = False
    words: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        symptom = None if self.symptom is None else self.symptom.to_dict()
        return {**vars(self), "symptom": symptom, "causes": list(self.causes), "maybe": list(self.maybe)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Answer":
        """Return the answer of these plain values."""
        symptom = None if values["symptom"] is None else Symptom.from_dict(values["symptom"])
        return cls(**{**values, "symptom": symptom, "causes": tuple(values["causes"]), "maybe": tuple(values["maybe"])})


@dataclass
class Tool:
    """A tool: its name, the distribution that holds it, and how it is asked."""

    name: str
    package: str
    ask: Callable[[Case, int], Answer]
    notes: str = ""
    version: str = field(init=False)

    def __post_init__(self) -> None:
        """Look for the installed version."""
        try:
            self.version = metadata.version(self.package)
        except metadata.PackageNotFoundError:
            self.version = ""


# --- this project ----------------------------------------------------------------------------------------------------


def ask_harness(case: Case, seed: int, model: nn.Module | None = None) -> Answer:
    """Audit the case, and diagnose its trained model."""
    model = trained(case, seed) if model is None else model
    inputs, targets = inputs_and_targets(case.evaluation())  # type: ignore[misc]
    diagnosis = harness.diagnose_model(
        model, inputs, case.bottleneck, posterior=case.posterior, reconstruction=case.reconstruction
    )
    lost = frozenset(unit.index for unit in diagnosis.units if not unit.live)
    output = _output_verdict(model, diagnosis, inputs, targets)
    audit = harness.audit(case, seeds=1)
    causes = tuple(dict.fromkeys(finding.rule for finding in audit.faults))
    maybe = tuple(dict.fromkeys(finding.rule for finding in audit.risks))
    verdict = str(diagnosis.verdict) if diagnosis.output is None else f"{diagnosis.verdict}, {diagnosis.output.verdict}"
    return Answer(
        Symptom(lost, len(diagnosis.units), output),
        causes,
        maybe,
        bool(causes or maybe) or str(diagnosis.verdict) != "healthy" or output not in ("good", ""),
        verdict,
    )


def _output_verdict(model: nn.Module, diagnosis: Any, inputs: Tensor, targets: Tensor | None) -> str:
    if targets is not None:
        torch.manual_seed(0)
        with torch.no_grad():
            observed = model.observe(inputs)  # type: ignore[operator]
        diagnosis = harness.diagnose(
            observed.code,
            reconstruction=observed.output.reshape(len(inputs), -1),
            expected_output=targets.reshape(len(inputs), -1),
        )
    if diagnosis.output is None:
        return ""
    return OUTPUTS.get(str(diagnosis.output.verdict), "good")


# --- other tools ------------------------------------------------------------------------------------------------------


def quiet(function: Callable[[], Any]) -> Any:
    """Call a function that prints."""
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return function()


class LastGradients(Watcher):
    """Keeps the model of a training, whose last gradients are still there."""

    def start(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Keep the model."""
        self.model = model


def ask_torchdiag(case: Case, seed: int) -> Answer:
    """Ask for dead neurons of the trained model, and for the gradients of the last step."""
    import torchdiag

    watcher = LastGradients()
    model = trained(case, seed, watcher)
    inputs = inputs_and_targets(case.evaluation())[0]  # type: ignore[misc]
    gradients = quiet(lambda: torchdiag.check_gradients(model))
    dead = quiet(lambda: torchdiag.check_dead_neurons(model, inputs))
    states = sorted({str(values["status"]) for values in gradients.values()} - {"OK"})
    counts = {name: values for name, values in dead.items() if _dead_count(values)}
    causes = UNREACHED if "no_grad" in states else ()
    return Answer(None, causes, (), bool(states or counts), "; ".join([*states, *map(str, counts)]))


def _dead_count(values: Any) -> int:
    if isinstance(values, dict):
        return int(values.get("dead", values.get("dead_count", values.get("dead_neurons", 0))))
    return int(values)


class Autopsied(Watcher):
    """Calls torchmortem at every step."""

    def start(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Attach the autopsy."""
        from torchmortem import Autopsy

        self.autopsy = quiet(lambda: Autopsy(model, optimizer=optimizer).__enter__())

    def step(self, loss: Tensor) -> None:
        """Record the loss."""
        self.autopsy.step(loss=float(loss))


def ask_torchmortem(case: Case, seed: int) -> Answer:
    """Analyze a watched training."""
    watcher = Autopsied()
    trained(case, seed, watcher)
    findings = quiet(lambda: _autopsy_findings(watcher.autopsy))
    serious = [finding for finding in findings if "info" not in str(finding.severity).lower()]
    words = sorted({str(finding.category) for finding in serious})
    return Answer(None, (), (), bool(serious), "; ".join(words))


def _autopsy_findings(autopsy: Any) -> list[Any]:
    autopsy.__exit__(None, None, None)
    report = autopsy.get_report()
    return [] if report is None else list(report.findings)


class Debugged(Watcher):
    """Calls NeuralDBG at every step."""

    def start(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Attach the debugger."""
        from neuraldbg import NeuralDbg

        self.debugger = quiet(lambda: NeuralDbg(model).__enter__())

    def backward(self, loss: Tensor, batch: Tensor) -> None:
        """Record the loss."""
        quiet(lambda: self.debugger.record_loss(float(loss)))


def ask_neuraldbg(case: Case, seed: int) -> Answer:
    """Ask for the causes of failures in a watched training."""
    watcher = Debugged()
    trained(case, seed, watcher)
    quiet(lambda: watcher.debugger.__exit__(None, None, None))
    words = [str(hypothesis)[:60] for hypothesis in quiet(watcher.debugger.get_causal_hypotheses)]
    return Answer(None, (), (), bool(words), "; ".join(words[:2]))


class Gradients(Watcher):
    """Calls traintools' monitor of gradients at every step."""

    def start(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Make the monitor."""
        from traintools import GradientHealthMonitor

        self.monitor, self.model, self.count = GradientHealthMonitor(), model, 0
        self.rate = float(optimizer.param_groups[0]["lr"])
        self.complaints: list[str] = []

    def backward(self, loss: Tensor, batch: Tensor) -> None:
        """Inspect the gradients."""
        report = quiet(lambda: self.monitor.inspect(self.model, step=self.count, lr=self.rate))
        self.count += 1
        if not report.ok:
            self.complaints.append(str(getattr(report, "issues", report))[:80])


def ask_traintools(case: Case, seed: int) -> Answer:
    """Inspect the gradients of every step; a complaint in more than a tenth of the steps counts."""
    watcher = Gradients()
    trained(case, seed, watcher)
    often = len(watcher.complaints) > 0.1 * max(watcher.count, 1)
    return Answer(None, (), (), often, watcher.complaints[-1] if often else "")


TOOLS = (
    Tool("harness", "collapse-harness", ask_harness, "audit of the case, diagnosis of the trained model"),
    Tool("torchdiag", "torchdiag", ask_torchdiag, "dead neurons of the trained model, gradients of the last step"),
    Tool("torchmortem", "torchmortem", ask_torchmortem, "watches every step; findings above `info`"),
    Tool("neuraldbg", "neuraldbg", ask_neuraldbg, "watches every step; causal hypotheses of a failure"),
    Tool("traintools", "traintools", ask_traintools, "gradient health at every step"),
)
NOT_ASKED = {"monitorch": "installs (0.1.0.7) and draws figures; it gives no verdict that could be scored"}
