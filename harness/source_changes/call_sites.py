"""Places in the user's code at which a model's activations are applied: an activation module, or a call in a file."""

import ast
import linecache
import sys
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch
import torch.nn.functional
from torch import Tensor, nn

from harness.capture import BottleneckTap, Edit, eval_mode

HIDDEN = (str(Path(torch.__file__).parent), str(Path(__file__).parents[1] / "capture"), __file__)
ACTIVATION_MODULES = "torch.nn.modules.activation"


@dataclass(frozen=True)
class CallSite:
    """Place of one activation.

    Args:
        module: dotted name of the activation's module; empty for a call in the code.
        file, function: of the call.
        start, end: (line, column) of the call, lines from 1 and columns from 0.
        argument: (start, end) of its argument.
        name: (start, end) of the name of the called function.
        text: source of the call.
        functional: how the file calls torch.nn.functional.
    """

    module: str = ""
    file: str = ""
    function: str = ""
    start: tuple[int, int] = (0, 0)
    end: tuple[int, int] = (0, 0)
    argument: tuple[tuple[int, int], tuple[int, int]] = ((0, 0), (0, 0))
    name: tuple[tuple[int, int], tuple[int, int]] = ((0, 0), (0, 0))
    text: str = ""
    functional: str = "torch.nn.functional"


def call_sites(model: nn.Module, batch: Tensor, bottleneck: str, count: int) -> dict[int, CallSite]:
    """Return the places of the first `count` activations of a forward pass; those that are not found are left out."""
    sites: dict[int, CallSite] = {}
    open_modules: list[str] = []
    handles = [
        handle
        for name, module in model.named_modules()
        if type(module).__module__ == ACTIVATION_MODULES
        for handle in (
            module.register_forward_pre_hook(lambda *_, name=name: open_modules.append(name)),
            module.register_forward_hook(lambda *_: open_modules.pop() and None),
        )
    ]

    def recorder(position: int) -> Any:
        def record(values: Tensor) -> Tensor:
            site = CallSite(open_modules[-1]) if open_modules else _call_in(_user_frame())
            if site is not None:
                sites[position] = site
            return values

        return record

    edits = {position: Edit(before=recorder(position)) for position in range(count)}
    try:
        with torch.no_grad(), eval_mode(model), torch.random.fork_rng(), BottleneckTap(model, bottleneck, edits):
            model(batch)
    finally:
        for handle in handles:
            handle.remove()
    return sites


def _user_frame() -> FrameType | None:
    """Return the innermost frame of code that belongs neither to torch nor to this package's capture."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename.startswith(HIDDEN):
        frame = frame.f_back
    return frame


def _call_in(frame: FrameType | None) -> CallSite | None:
    """Return the call that a frame is executing; None where its source is not known."""
    if frame is None:
        return None
    first, last, column, end_column = list(frame.f_code.co_positions())[frame.f_lasti // 2]
    lines = linecache.getlines(frame.f_code.co_filename, frame.f_globals)
    if first is None or last is None or column is None or end_column is None or len(lines) < last:
        return None
    start, end = (first, _characters(lines[first - 1], column)), (last, _characters(lines[last - 1], end_column))
    text = between(lines, start, end)
    try:
        call = ast.parse(f"({text})", mode="eval").body
    except SyntaxError:
        return None
    if not isinstance(call, ast.Call) or len(call.args) != 1 or isinstance(call.args[0], ast.Starred):
        return None
    return CallSite(
        file=frame.f_code.co_filename,
        function=frame.f_code.co_qualname,
        start=start,
        end=end,
        argument=_extent(call.args[0], start, text),
        name=_extent(call.func, start, text),
        text=text,
        functional=next(
            (name for name, value in frame.f_globals.items() if value is torch.nn.functional), "torch.nn.functional"
        ),
    )


def between(lines: list[str], start: tuple[int, int], end: tuple[int, int]) -> str:
    """Return the text between two places, (line, column) each.

    >>> between(["ab\\n", "cd\\n"], (1, 1), (2, 1))
    'b\\nc'
    """
    chosen = lines[start[0] - 1 : end[0]]
    chosen[-1] = chosen[-1][: end[1]]
    chosen[0] = chosen[0][start[1] :]
    return "".join(chosen)


def _extent(node: ast.expr, start: tuple[int, int], text: str) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return the places of a node of the text, which was parsed behind one parenthesis and begins at `start`."""
    lines = [f"({text})".splitlines(keepends=True)[0], *text.splitlines(keepends=True)[1:]]

    def place(line: int, column: int) -> tuple[int, int]:
        characters = _characters(lines[line - 1], column)
        return (start[0], start[1] + characters - 1) if line == 1 else (start[0] + line - 1, characters)

    assert node.end_lineno is not None
    assert node.end_col_offset is not None
    return place(node.lineno, node.col_offset), place(node.end_lineno, node.end_col_offset)


def _characters(line: str, column: int) -> int:
    """Convert a column in bytes to one in characters."""
    return len(line.encode()[:column].decode(errors="ignore"))
