"""Pages on verdicts and rules, from `harness.rulebook`, with an example of each that was judged."""

import inspect
from pathlib import Path
from textwrap import dedent, indent

import torch
from audit_examples import AUDIT_EXAMPLES, AuditExample, Autoencoder
from diagnosis_examples import EXAMPLES, Example
from svg import curve, heat_map
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import harness
from harness.diagnosis import Finding
from harness.rulebook import RulePage, explain, names
from harness.rulebook.pages import KINDS

MADE = "<!-- made by `python docs/generate`; the text is the table of harness/rulebook -->\n"
SELF_EXPLAINED = ("healthy", "alive")


def write_rules(docs: Path, with_examples: bool = True) -> None:
    """Write one page for each verdict and rule, their pictures, and the index."""
    pictures = docs / "images" / "rules"
    pictures.mkdir(parents=True, exist_ok=True)
    (docs / "rules").mkdir(exist_ok=True)
    (docs / "rules" / "README.md").write_text(index())
    for name in names():
        file = docs / "rules" / f"{name}.md"
        example = new_example(name, pictures) if with_examples else stored_example(file)
        file.write_text(page_text(explain(name), example))


def page_text(rule: RulePage, example: str) -> str:
    """Return a page in Markdown."""
    parts = [MADE, f"# `{rule.name}`", f"{harness_kind(rule)}, severity **{rule.severity}**."]
    for heading, text in rule.sections():
        parts.append(f"## {heading}\n\n{linked(text, rule.name)}")
        if heading == "How it is decided" and example:
            parts.append(f"{EXAMPLE}\n\n{example}\n{END}")
    parts.append(f"The same text, without the site: `harness explain {rule.name}`.")
    return "\n\n".join(parts).replace("-->\n\n\n", "-->\n\n") + "\n"


EXAMPLE, END = "## An example", "<!-- end of the example -->"


def harness_kind(rule: RulePage) -> str:
    """Return the kind with a capital letter, a link to the reference and no article."""
    reference = "audit" if rule.kind.startswith("rule") else "diagnosis"
    return f"[{rule.kind[0].upper()}{rule.kind[1:]}](../reference/{reference}.md)"


def linked(text: str, own_name: str) -> str:
    """Return a text with a link for each name of another page."""
    for name in names():
        if name != own_name:
            text = text.replace(f"`{name}`", f"[`{name}`]({name}.md)")
    return text


def index() -> str:
    """Return the index of the pages, by kind."""
    lines = [MADE, "# Verdicts and rules", "", INTRODUCTION]
    for kind, entries in KINDS.items():
        lines += ["", f"## {HEADINGS[kind]}", "", "| name | severity | what it says |", "|---|---|---|"]
        lines += [f"| [`{name}`]({name}.md) | {explain(name).severity} | {explain(name).says} |" for name in entries]
    return "\n".join(lines) + "\n"


HEADINGS = {
    "verdict or flag of a unit": "Units",
    "verdict or flag of a layer": "Layers",
    "verdict on the output": "Outputs",
    "rule of the audit on a loss term": "Loss terms",
    "rule of the audit on the model": "Models and training",
}
INTRODUCTION = """A *finding* of a diagnosis or an audit carries the name of its rule, such as `dead`. Each name has a page here, and
`harness explain NAME` prints it without the site.

- A **fault** means that the layer, the loss term or the model does not work; a **risk** is harmful for some data or numbers; a
  **note** needs no action.
- A unit, a layer and an output have one *verdict* each: the first in the order below that holds. *Flags* add to it."""


def new_example(name: str, pictures: Path) -> str:
    """Judge the example of a rule, draw its picture, and return both as Markdown."""
    if name in EXAMPLES:
        return diagnosed(name, EXAMPLES[name](), pictures)
    if name in AUDIT_EXAMPLES:
        return audited(name, AUDIT_EXAMPLES[name], pictures)
    return watched(name)


def stored_example(file: Path) -> str:
    """Return the example that stands on a page."""
    text = file.read_text() if file.is_file() else ""
    return text.split(f"{EXAMPLE}\n\n")[1].split(f"\n{END}")[0] if EXAMPLE in text else ""


def diagnosed(name: str, example: Example, pictures: Path) -> str:
    """Diagnose an example of activations."""
    diagnosis = harness.diagnose(example.activations, **{"activation": "auto", **example.arguments})
    shown = example.activations if example.picture is None else example.picture
    columns = "unit" if example.picture is None else "output feature"
    (pictures / f"{name}.svg").write_text(heat_map(shown, f"{name}: {example.caption}", columns))
    findings = [finding for finding in diagnosis.findings if finding.rule == name]
    lines = [
        f"![{example.caption}](../images/rules/{name}.svg)",
        "",
        f"{example.caption}. `harness.diagnose` says:",
        "",
    ]
    text = str(findings[0]) if findings else str(diagnosis).splitlines()[0]
    return "\n".join([*lines, "```text", text, "```"])


def audited(name: str, example: AuditExample, pictures: Path) -> str:
    """Audit an example of a loss or a model."""
    audit = harness.audit(example.case(), during_training=example.training)
    finding = next(finding for finding in audit.findings if finding.rule == name)
    lines = ["```python", dedent(inspect.getsource(example.shown)).rstrip(), "```", ""]
    picture = (
        penalty_curve(name, example.penalty, pictures) if example.penalty else code_picture(name, example, pictures)
    )
    return "\n".join([*lines, picture, "", "`harness.audit` says:", "", "```text", short(finding), "```"])


def short(finding: Finding) -> str:
    """Return a finding without the lines of source that only the example's own file has."""
    text = str(finding).replace(f", line {finding.line}", "") if finding.line else str(finding)
    return (
        text.split(" (audit_examples.py")[0] + "\n" + "\n".join(text.splitlines()[1:])
        if "(audit_examples.py" in text
        else text
    )


def penalty_curve(name: str, penalty: object, pictures: Path) -> str:
    """Draw the penalty over one activation that every unit has on every row."""
    xs = torch.linspace(0.01, 0.99, 99) if name not in RELU else torch.linspace(0.0, 6.0, 121)
    ys = [float(penalty(torch.full((64, 4), float(x)))) for x in xs]  # type: ignore[operator]
    (pictures / f"{name}.svg").write_text(curve(xs.tolist(), ys, "activation of every unit", f"{name}: the penalty"))
    return f"![The penalty over the activation](../images/rules/{name}.svg)\n\nThe penalty, where every unit has one activation on every row."


RELU = ("unreachable_target", "pushes_active_units_down", "escape", "unbounded", "outside_domain")


def code_picture(name: str, example: AuditExample, pictures: Path) -> str:
    """Draw the code of the example's model on its own rows, before training."""
    torch.manual_seed(0)
    case = example.case()
    model: nn.Module = case.model()
    data: Tensor = case.data()
    with torch.no_grad():
        code = model(data)[0]
    (pictures / f"{name}.svg").write_text(heat_map(code, f"{name}: the code before training"))
    return f"![The code before training](../images/rules/{name}.svg)\n\nThe code of this model before training."


def watched(name: str) -> str:
    """Return the example of a rule that only a monitor, or a finished model, can show."""
    torch.manual_seed(0)
    if name == "unit_axis":
        model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU())
        findings = harness.diagnose_model(model, torch.rand(20, 1, 6, 6), "0").findings
    elif name == "never_called":
        autoencoder = Autoencoder()
        with harness.watch(autoencoder, "hidden", callback=lambda text: None) as monitor:
            for batch in torch.randn(4, 32, 12):
                autoencoder.encode(batch)
        findings = monitor.diagnosis().findings
    elif name == "units_sampled":
        findings = harness.diagnose_model(
            nn.Sequential(nn.Linear(2, 10_000), nn.ReLU()), torch.rand(500, 2), "0"
        ).findings
    elif name == "training_rows":
        loader = DataLoader(TensorDataset(torch.randn(500, 12)), 100, shuffle=True)
        findings = harness.diagnose_model(Autoencoder(), loader, "hidden").findings
    elif name == "revived":
        layer = nn.Sequential(nn.Linear(1, 2), nn.ReLU())
        with harness.watch(layer, "0", steps_per_epoch=2, callback=lambda text: None) as monitor:
            for bias in (1.0, -9.0, 1.0):
                nn.init.constant_(layer[0].bias, bias)
                for _ in range(10):
                    layer(torch.rand(200, 1))
        findings = monitor.diagnosis().findings
    else:
        return ""
    return "\n".join(["```text", next(str(finding) for finding in findings if finding.rule == name), "```"])


def example_of_case() -> str:
    """Return the model that every example of the audit starts from."""
    return indent(inspect.getsource(Autoencoder), "")
