"""Changes of activations as text: a module that takes another's place, and source lines with another call."""

import linecache
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.source_changes.call_sites import CallSite

Place = tuple[int, int]


class NotPrintable(Exception):
    """A change that cannot be written as lines for a model; the message is the reason."""


@dataclass(frozen=True)
class Change:
    """Change of one activation.

    Args:
        activation: name of the replacing one; empty for none.
        dropout: rate of a dropout behind it; 0 for none.
        top_k: number of units that are kept behind it; 0 for all.
        before: layer through which its input goes: an expression of a module; empty for none.
    """

    activation: str = ""
    dropout: float = 0.0
    top_k: int = 0
    before: str = ""


def changed_module(path: str, change: Change, activation: str) -> str:
    """Return the assignment that puts a change in the place of an activation's module.

    Args:
        path: expression of the module.
        change: the change.
        activation: name of the module's activation; empty for a layer to which the change is added.

    >>> changed_module("model[1]", Change("leaky_relu"), "relu")
    'model[1] = nn.LeakyReLU()'
    """
    if change.top_k:
        keep = f"harness.penalties.keep_largest(output, {change.top_k})"
        rest = Change(change.activation, change.dropout, 0, change.before)
        first = [] if rest == Change() else [changed_module(path, rest, activation)]
        return "\n".join([*first, f"{path}.register_forward_hook(lambda module, inputs, output: {keep})"])
    own = f"nn.{CLASSES[change.activation]}()" if change.activation else path
    layers = [change.before, *([path] if change.activation and not activation else []), own]
    layers.append(f"nn.Dropout({change.dropout:g})" if change.dropout else "")
    layers = [layer for layer in layers if layer]
    return f"{path} = {layers[0]}" if len(layers) == 1 else f"{path} = nn.Sequential({', '.join(layers)})"


def changed_lines(changes: Mapping[CallSite, Change]) -> list[str]:
    """Return the changed source lines, each statement behind a comment with its place.

    Raises:
        NotPrintable: for a call that has no counterpart, such as `F.gelu` with `inplace`.
    """
    statements: dict[tuple[str, int, int], list[tuple[Place, int, Place, str]]] = {}
    names: dict[tuple[str, int, int], str] = {}
    for order, (site, change) in enumerate(changes.items()):
        key = next(  # a statement that spans the call
            (
                span
                for span in statements
                if span[0] == site.file and span[1] <= site.end[0] and site.start[0] <= span[2]
            ),
            (site.file, site.start[0], site.end[0]),
        )
        wider = (site.file, min(key[1], site.start[0]), max(key[2], site.end[0]))
        statements[wider] = [*statements.pop(key, []), *_replacements(site, change, order)]
        names[wider] = site.function
    lines = []
    for (file, first, last), replacements in sorted(statements.items()):
        where = f"line {first}" if first == last else f"lines {first} to {last}"
        lines.append(f"# {Path(file).name}, {where}, in {names[file, first, last]}")
        lines += _rewritten(file, first, last, replacements)
    return lines


def _replacements(site: CallSite, change: Change, order: int) -> list[tuple[Place, int, Place, str]]:
    """Return replacements (start, order among equals, end, text) of a call."""
    (begin, finish), (name_begin, name_end) = site.argument, site.name
    opening, closing, replacements = "", "", []
    if change.top_k:
        opening, closing = "harness.penalties.keep_largest(", f", {change.top_k})"
    if change.dropout:
        opening, closing = f"{site.functional}.dropout(", f", p={change.dropout:g}, training=self.training)"
    # the call that runs later encloses the earlier one, so at an equal place its text comes first
    if change.activation == "none":
        replacements += [(site.start, -order, begin, opening), (finish, order, site.end, closing)]
    else:
        replacements += [(site.start, -order, site.start, opening), (site.end, order, site.end, closing)]
        if change.activation:
            if "inplace" in site.text and change.activation not in TAKING_INPLACE:
                raise NotPrintable(f"{site.text}: {change.activation} has no inplace form")
            name = FUNCTIONS[change.activation].format(functional=site.functional)
            replacements.append((name_begin, -order, name_end, name))
    if change.before:
        replacements += [(begin, -order, begin, f"{change.before}("), (finish, order, finish, ")")]
    return [replacement for replacement in replacements if replacement[3] or replacement[0] != replacement[2]]


def _rewritten(file: str, first: int, last: int, replacements: list[tuple[Place, int, Place, str]]) -> list[str]:
    lines = linecache.getlines(file)
    text = "".join(lines[first - 1 : last])
    starts = [0]
    for line in lines[first - 1 : last]:
        starts.append(starts[-1] + len(line))

    def offset(place: Place) -> int:
        return starts[place[0] - first] + place[1]

    result, at = "", 0
    for start, _, end, new in sorted(replacements, key=lambda replacement: (offset(replacement[0]), replacement[1])):
        if offset(start) < at:
            raise NotPrintable("the calls of one line overlap")
        result += text[at : offset(start)] + new
        at = offset(end)
    result += text[at:]
    indent = min(len(line) - len(line.lstrip()) for line in result.splitlines() if line.strip())
    return [line[indent:].rstrip() for line in result.splitlines()]


TAKING_INPLACE = ("leaky_relu", "elu", "silu")
FUNCTIONS = {
    **{name: f"{{functional}}.{name}" for name in ("relu", "leaky_relu", "elu", "gelu", "silu", "softplus")},
    "sigmoid": "torch.sigmoid",
    "tanh": "torch.tanh",
}
CLASSES = {
    "relu": "ReLU",
    "leaky_relu": "LeakyReLU",
    "elu": "ELU",
    "gelu": "GELU",
    "silu": "SiLU",
    "softplus": "Softplus",
    "sigmoid": "Sigmoid",
    "tanh": "Tanh",
    "none": "Identity",
}
