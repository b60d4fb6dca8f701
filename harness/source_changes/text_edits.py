"""Edits of a Python source at positions of its syntax tree."""

import ast
import difflib
import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ALIASED = {"torch.nn.functional": "F", "torch.nn": "nn", "torch": "torch"}


class NotEditable(Exception):
    """The place of a change in the source is not known."""


@dataclass
class SourceFile:
    """The text of a file, its syntax tree, and the edits so far.

    Args:
        path: the file.
        edits: (start, end, order, text) in bytes of the text; edits at one start are applied by order.
    """

    path: Path
    edits: list[tuple[int, int, int, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.text = self.path.read_text(encoding="utf-8")
        self.content = self.text.encode()
        self.tree = ast.parse(self.text)
        starts = [0]
        for line in self.content.splitlines(keepends=True):
            starts.append(starts[-1] + len(line))
        self.starts = starts
        self.names: dict[str, str] = _aliases(self.tree)

    def start(self, node: Any) -> int:
        """Offset of the start of a node."""
        return int(self.starts[node.lineno - 1] + node.col_offset)

    def end(self, node: Any) -> int:
        """Offset of the end of a node."""
        return int(self.starts[node.end_lineno - 1] + node.end_col_offset)

    def source(self, node: Any) -> str:
        """Text of a node, without its edits."""
        return self.content[self.start(node) : self.end(node)].decode()

    def replace(self, start: int, end: int, text: str) -> None:
        """Replace a span."""
        edit = (start, end, 0, text)
        if edit not in self.edits:
            self.edits.append(edit)

    def before(self, node: Any, text: str) -> None:
        """Insert text before a node, outside the text before its parts."""
        self._insert(self.start(node), -self.end(node) + self.start(node), text)

    def after(self, node: Any, text: str) -> None:
        """Insert text after a node, outside the text after its parts."""
        self._insert(self.end(node), -(10**9) + self.end(node) - self.start(node), text)

    def _insert(self, offset: int, order: int, text: str) -> None:
        edit = (offset, offset, order, text)
        if edit not in self.edits:
            self.edits.append(edit)

    def name(self, module: str) -> str:
        """Return the expression for a module of torch in this file, which may need an import."""
        parts = module.split(".")
        for length in range(len(parts), 0, -1):
            alias = self.names.get(".".join(parts[:length]))
            if alias:
                return ".".join([alias, *parts[length:]])
        alias = ALIASED[module]
        if any(isinstance(node, ast.Name) and node.id == alias for node in ast.walk(self.tree)):
            raise NotEditable(f"{alias} has another meaning")
        self.names[module] = alias
        line = "import torch" if module == "torch" else f"import {module} as {alias}"
        self._insert(self._import_offset(), 0, f"{line}\n")
        return alias

    def _import_offset(self) -> int:
        for statement in self.tree.body:
            docstring = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
            future = isinstance(statement, ast.ImportFrom) and statement.module == "__future__"
            if not docstring and not future:
                return self.starts[statement.lineno - 1]
        raise NotEditable("the file has no statement")

    def result(self) -> str:
        """Text with all edits."""
        parts, position = [], 0
        for start, end, _, text in sorted(self.edits, key=lambda edit: (edit[0], edit[2] if edit[0] == edit[1] else 1)):
            if start < position:
                raise NotEditable("two changes overlap")
            parts += [self.content[position:start], text.encode()]
            position = end
        return b"".join([*parts, self.content[position:]]).decode()

    def diff(self, name: str) -> str:
        """Unified diff, for `patch -p0`."""
        before, after = self.text.splitlines(keepends=True), self.result().splitlines(keepends=True)
        lines = [
            line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n"
            for line in difflib.unified_diff(before, after, name, name)
        ]
        return "".join(lines)

    def call_ending(self, line: int, column: int) -> ast.Call:
        """Return the call that ends at a position.

        Raises:
            NotEditable: when no call ends there.
        """
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Call) and (node.end_lineno, node.end_col_offset) == (line, column):
                return node
        raise NotEditable(f"{self.path.name}:{line}: no call ends here")

    def definition(self, code: Any) -> Any:
        """Return the definition of a class or function of this file.

        Raises:
            NotEditable: when it is not defined here.
        """
        try:
            line = inspect.getsourcelines(code)[1]
        except (OSError, TypeError) as error:
            raise NotEditable(f"the source of {code} is not known") from error
        for node in ast.walk(self.tree):
            if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == code.__name__:
                first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
                if line in (first, node.lineno):
                    return node
        raise NotEditable(f"{code.__name__} is not defined in {self.path.name}")

    def append_to(self, function: ast.FunctionDef, block: str, inline: str) -> None:
        """Add lines at the end of a function; `inline` is one expression for a body on one line."""
        last = function.body[-1]
        if last.lineno == function.lineno or (len(function.body) > 1 and function.body[-2].end_lineno == last.lineno):
            self._insert(self.end(last), 10**9, f"; {inline}")
            return
        indent = " " * last.col_offset
        lines = "".join(f"\n{indent}{line}" for line in block.splitlines())
        self._insert(self.end(last), 10**9, lines)


def _aliases(tree: ast.Module) -> dict[str, str]:
    """Return the name of each module of torch that the file imports: `{"torch.nn": "nn"}`."""
    names: dict[str, str] = {}
    for node in tree.body:
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.asname:
                    names[alias.name] = alias.asname
                elif alias.name.split(".")[0] == "torch":
                    names["torch"] = "torch"
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                names[f"{node.module}.{alias.name}"] = alias.asname or alias.name
    return {name: alias for name, alias in names.items() if name in ALIASED}


def set_keyword(source: SourceFile, keyword: str, text: str) -> None:
    """Set a keyword of the file's `Case(...)`.

    Raises:
        NotEditable: when the file has no such call.
    """
    call = _case_call(source)
    entry = next((item.value for item in call.keywords if item.arg == keyword), None)
    if entry is not None:
        source.replace(source.start(entry), source.end(entry), text)
        return
    last = max([*call.args, *(item.value for item in call.keywords)], key=source.end)
    source.after(last, f", {keyword}={text}")


def set_number(source: SourceFile, keyword: str, values: Mapping[str, Any]) -> None:
    """Set entries of the dict that the file's `Case(...)` gets as `keyword`.

    Raises:
        NotEditable: when the file has no such call, or the dict is not written out.
    """
    call = _case_call(source)
    entry = next((item.value for item in call.keywords if item.arg == keyword), None)
    if entry is None:
        set_keyword(
            source, keyword, f"{{{', '.join(f'{_quoted(name)}: {value!r}' for name, value in values.items())}}}"
        )
        return
    if not isinstance(entry, ast.Dict):
        raise NotEditable(f"Case.{keyword} is not written out as a dict")
    pairs = zip(entry.keys, entry.values, strict=True)
    keys = {key.value: value for key, value in pairs if isinstance(key, ast.Constant)}
    for name, value in values.items():
        if name in keys:
            source.replace(source.start(keys[name]), source.end(keys[name]), repr(value))
        elif entry.values:
            source.after(entry.values[-1], f", {_quoted(name)}: {value!r}")
        else:
            source.replace(source.start(entry), source.end(entry), f"{{{_quoted(name)}: {value!r}}}")


def _case_call(source: SourceFile) -> ast.Call:
    calls = [node for node in ast.walk(source.tree) if isinstance(node, ast.Call) and _ends_in(node.func, "Case")]
    if len(calls) != 1:
        raise NotEditable(f"expected one call of Case, got {len(calls)}")
    return calls[0]


def _quoted(name: str) -> str:
    return f'"{name}"'


def _ends_in(function: ast.expr, name: str) -> bool:
    return (isinstance(function, ast.Name) and function.id == name) or (
        isinstance(function, ast.Attribute) and function.attr == name
    )
