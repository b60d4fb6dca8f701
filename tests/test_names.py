"""Names and docstrings of the package can be read by somebody who does not know it."""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "harness"
EMPTY = frozenset(
    [
        "found",
        "each",
        "made",
        "told",
        "seen",
        "held",
        "kept",
        "known",
        "given",
        "said",
        "shown",
        "left",
        "place",
        "places",
        "kind",
        "named",
        "wanted",
        "asked",
        "lost",
        "few",
        "whole",
        "one",
        "other",
        "others",
        "more",
        "piece",
    ]
)
QUESTIONS = frozenset(["what", "whether", "how", "where", "of", "which", "when", "as", "who"])
MODULES = sorted(PACKAGE.rglob("*.py"))
PATHS = {
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): path for path in MODULES
}


def empty_names(source: str) -> list[str]:
    """The assignments of a module to a name that says nothing, as `line: name`."""
    tree = ast.parse(source)
    fields = {  # a field is an attribute, which its object explains
        id(statement.target)
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
        for statement in node.body
        if isinstance(statement, ast.AnnAssign)
    }
    nodes = (node for node in ast.walk(tree) if isinstance(node, ast.Name) and id(node) not in fields)
    return [f"{node.lineno}: {node.id}" for node in nodes if isinstance(node.ctx, ast.Store) and node.id in EMPTY]


def question_docstrings(source: str) -> list[str]:
    """The docstrings of a module that open with a question word."""
    documented = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Module)
    texts = [ast.get_docstring(node) for node in ast.walk(ast.parse(source)) if isinstance(node, documented)]
    return [text for text in texts if text and text.split()[0].strip(",.:").lower() in QUESTIONS]


def test_the_checks_fire():
    assert empty_names("found = [each for each in range(3)]") == ["1: found", "1: each"]
    assert question_docstrings('def f():\n    """What it is."""') == ["What it is."]


def test_a_variable_is_named_after_what_it_is():
    assert {str(path): names for path in MODULES if (names := empty_names(path.read_text()))} == {}


def test_a_docstring_opens_with_an_imperative_or_a_noun_phrase():
    assert {str(path): texts for path in MODULES if (texts := question_docstrings(path.read_text()))} == {}


def imports(path: Path) -> set[str]:
    """The modules of the package that a module imports, at its head, in a function or for its types alone."""
    statements = (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom))
    return {
        f"{node.module}.{alias.name}" if f"{node.module}.{alias.name}" in PATHS else str(node.module)
        for node in statements
        if node.module and node.module.startswith("harness")
        for alias in node.names
    }


def test_no_module_imports_itself_through_others():
    # a package's __init__ loads its modules when their names are first used
    graph = {module: imports(path) & set(PATHS) for module, path in PATHS.items() if path.stem != "__init__"}
    tuple(TopologicalSorter(graph).static_order())  # raises CycleError, which shows the circle


def test_a_circle_is_seen():
    with pytest.raises(CycleError):
        tuple(TopologicalSorter({"a": {"b"}, "b": {"a"}}).static_order())
