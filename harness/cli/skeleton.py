"""Answer to a training script without a case: what to write, with the names of its modules. The script is not executed."""

import ast
from dataclasses import dataclass
from pathlib import Path

from harness.errors import HarnessError

LAYERS = ("Linear", "LazyLinear", "Conv1d", "Conv2d", "Conv3d", "LSTM", "GRU", "Embedding", "TransformerEncoder")
LISTS = ("ModuleList", "ModuleDict")  # which are never called, but their modules are


@dataclass(frozen=True)
class ModelClass:
    """A model in a script: its class, its modules (name -> class), and True if `forward` returns a tuple.

    `variable` is the name of a model that the script builds as an `nn.Sequential`, outside of any class.
    """

    name: str
    modules: dict[str, str]
    returns_tuple: bool
    variable: str = ""

    @property
    def layer(self) -> str:
        """The layer in the middle, where a bottleneck would be."""
        layers = (
            [name for name, type_name in self.modules.items() if type_name in LAYERS] or list(self.modules) or ["LAYER"]
        )
        layer = layers[(len(layers) - 1) // 2]
        return f"{layer}.*" if self.modules.get(layer) in LISTS else layer


def refuse_script(path: Path) -> None:
    """Refuse a file that defines no `case`, with a skeleton of what to write.

    Raises:
        HarnessError: for such a file. A file that may define a case passes, and so does one that cannot be parsed.
    """
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (OSError, SyntaxError, ValueError):
        return
    if not _may_define_case(tree):
        raise HarnessError(skeleton(path, model_classes(tree) or sequential_models(tree)))


def skeleton(path: Path, models: list[ModelClass]) -> str:
    """Return the text on a script without a case."""
    model = models[-1] if models else ModelClass("Model", {}, False)
    owner = f"{model.variable}, an nn.Sequential," if model.variable else f"its model {model.name}"
    modules = ", ".join(model.modules) or "none that is assigned in its class"
    output = "model(batch)[0]" if model.returns_tuple else "model(batch)"
    listed = f"{owner} has the modules {modules}" if models else "no class of it is a torch.nn.Module by name"
    return f"""{path}: expected a module-level `case`, got none. The file was not run; {listed}.

To see into its own training loop, add two lines to it (and `import harness`):

    with harness.watch({model.variable or "model"}, "{model.layer}") as monitor:  # around the loop
    print(monitor.diagnosis())  # behind it

For `harness diagnose`, `audit` and `prescribe`, write a case, and give its path. `harness init {path}` writes one, if
importing the file trains nothing:

    import harness, torch.nn.functional as F
    from {path.stem} import {model.name}, ROWS  # ROWS: your tensor [row, ...]; the script must train only under __main__
    def losses(model, batch):
        output = {output}  # the reconstruction
        return {{"reconstruction": F.mse_loss(output, batch)}}  # every other key is a penalty
    case = harness.Case(model={model.name}, data=lambda: ROWS, losses=losses, bottleneck="{model.layer}")"""


def model_classes(tree: ast.Module) -> list[ModelClass]:
    """Return the classes of a file that derive from a `Module`, in their order.

    >>> text = "class Net(nn.Module):\\n  def __init__(self):\\n    self.fc = nn.Linear(2, 1)"
    >>> model_classes(ast.parse(text))[0].modules
    {'fc': 'Linear'}
    """
    classes = [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    names = {"Module", "LightningModule"}
    models = []
    for node in classes:
        if any(_last_name(base) in names for base in node.bases):
            names.add(node.name)
            models.append(ModelClass(node.name, _modules(node), _returns_tuple(node)))
    return models


def sequential_models(tree: ast.Module) -> list[ModelClass]:
    """Return the models that a file builds as `name = nn.Sequential(...)`, in their order.

    >>> sequential_models(ast.parse("net = nn.Sequential(nn.Linear(4, 2), nn.ReLU())"))[0].modules
    {'0': 'Linear', '1': 'ReLU'}
    """
    models = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call) and isinstance(node.targets[0], ast.Name):
            modules = _sequential(node.value)
            if modules:
                models.append(ModelClass("Model", modules, False, node.targets[0].id))
    return models


def _sequential(call: ast.expr) -> dict[str, str]:
    """Return name -> class of the modules of `nn.Sequential(...)`, also behind `.to(device)`; nothing for another call."""
    while isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and isinstance(call.func.value, ast.Call):
        call = call.func.value
    if not isinstance(call, ast.Call) or _last_name(call.func) != "Sequential":
        return {}
    parts = enumerate(call.args)
    return {str(index): _last_name(part.func) for index, part in parts if isinstance(part, ast.Call)}


def _modules(node: ast.ClassDef) -> dict[str, str]:
    """Return name -> class of what `__init__` assigns to `self` by calling a class."""
    modules: dict[str, str] = {}
    for statement in ast.walk(node):
        if not isinstance(statement, ast.Assign):
            continue
        values = statement.value.elts if isinstance(statement.value, ast.Tuple) else [statement.value]
        for target in statement.targets:
            targets = target.elts if isinstance(target, ast.Tuple) else [target]
            for name, value in zip(targets, values, strict=False):
                own = isinstance(name, ast.Attribute) and isinstance(name.value, ast.Name) and name.value.id == "self"
                if own and isinstance(value, ast.Call) and _last_name(value.func)[:1].isupper():
                    modules[_last_name(name)] = _last_name(value.func)
    return modules


def _returns_tuple(node: ast.ClassDef) -> bool:
    forward = next((item for item in node.body if isinstance(item, ast.FunctionDef) and item.name == "forward"), None)
    returns = [item for item in ast.walk(forward) if isinstance(item, ast.Return)] if forward else []
    return any(isinstance(item.value, ast.Tuple) for item in returns)


def _may_define_case(tree: ast.Module) -> bool:
    """Return True if a statement outside of functions and classes may bind `case`."""
    for node in _outer(tree.body):
        imported = node.names if isinstance(node, ast.ImportFrom | ast.Import) else []
        if any(alias.name == "*" or (alias.asname or alias.name) == "case" for alias in imported):
            return True
        stored = isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and node.id == "case"
        if stored or (isinstance(node, ast.Call) and _last_name(node.func) in ("globals", "exec")):
            return True
    return False


def _outer(statements: list[ast.stmt]) -> list[ast.AST]:
    nodes: list[ast.AST] = []
    for statement in statements:
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            if statement.name == "case":
                nodes.append(ast.Name("case", ast.Store()))
            continue
        nodes += ast.walk(statement)
    return nodes


def _last_name(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
