"""Weights of a case's model from the usual forms of checkpoints. No pickle is loaded."""

import pickle
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from harness.errors import HarnessError

HOMES = ("state_dict", "model_state_dict", "model", "net", "network", "module", "weights", "params")
MOST_NAMES = 6


def load_weights(model: Any, path: Path) -> str:
    """Load a file into a model, and return where in the file the weights were.

    The file is a state dict, or a dict with one under any key (`model`, `state_dict`, `model_state_dict`, `net`, ...).
    Prefixes of DistributedDataParallel, torch.compile and of the attribute of a LightningModule are removed.

    Raises:
        HarnessError: for a file without weights of this model, and for a pickle of a whole model.
    """
    if not path.is_file():
        raise HarnessError(f"{path}: no such file")
    content = _read(path)
    expected = model.state_dict()
    candidates = list(_state_dicts(content, ""))
    for home, state in candidates:
        fitting = _fitting(state, list(expected))
        if fitting is not None:
            try:
                model.load_state_dict(fitting)
            except Exception as error:
                reason = " ".join(str(error).split()).partition(". ")[0][:300]
                raise HarnessError(f"{path}: expected a state dict of this case's model: {reason}") from error
            return home
    raise HarnessError(
        f"{path}: expected a state dict of this case's model ({_listed(expected)}), got {_kind(content)}"
    )


def _read(path: Path) -> Any:
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        try:
            return load_file(path)
        except Exception as error:
            raise HarnessError(f"{path}: expected a safetensors file: {error}") from error
    import torch

    try:
        # pickles can run code when loaded: tensors, numbers and text only
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise HarnessError(_pickle_advice(path, str(error))) from error
    except Exception as error:
        reason = " ".join(str(error).split()).partition(". ")[0][:300] or type(error).__name__
        raise HarnessError(f"{path}: expected a state dict of this case's model: {reason}") from error


def _pickle_advice(path: Path, message: str) -> str:
    _, _, rest = message.partition("GLOBAL ")
    name = rest.split()[0] if rest else "an object"
    return f"""{path}: expected weights alone, got a pickle with {name}, which may run code when it is loaded. These two lines save the weights, if the file is your own:

    model = torch.load({str(path)!r}, weights_only=False)  # of a checkpoint: [...]["model"]
    torch.save(model.state_dict(), "weights.pt")"""


def _state_dicts(content: Any, home: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield key path and state dict of each mapping from names to tensors, the usual keys first."""
    import torch

    if not isinstance(content, Mapping):
        return
    tensors = {name: value for name, value in content.items() if isinstance(value, torch.Tensor)}
    if tensors:
        yield home, tensors
    keys = sorted(content, key=lambda key: HOMES.index(key) if key in HOMES else len(HOMES))
    for key in keys:
        yield from _state_dicts(content[key], f"{home}.{key}" if home else str(key))


def _fitting(state: Mapping[str, Any], expected: list[str]) -> dict[str, Any] | None:
    """Return the weights under the model's own names; None if some are missing.

    >>> _fitting({"module.fc.weight": 1, "module.fc.bias": 2, "loss.scale": 3}, ["fc.weight", "fc.bias"])
    {'fc.weight': 1, 'fc.bias': 2}
    """
    plain = {str(name).replace("_orig_mod.", ""): value for name, value in state.items()}
    if not expected:
        return None
    prefixes = [name.removesuffix(expected[0]) for name in plain if name.endswith(expected[0])]
    for prefix in sorted(prefixes, key=len):
        if (not prefix or prefix.endswith(".")) and all(prefix + name in plain for name in expected):
            extra = [name for name in plain if name.startswith(prefix) and name.removeprefix(prefix) not in expected]
            if not extra or prefix:
                return {name: plain[prefix + name] for name in expected}
    return None


def _kind(content: Any) -> str:
    if not isinstance(content, Mapping):
        return f"a {type(content).__name__}"
    states = list(_state_dicts(content, ""))
    if not states:
        return f"a dict without tensors ({_listed(content)})"
    return " and ".join(f"{_listed(state)}" + (f" under {home!r}" if home else "") for home, state in states[:2])


def _listed(names: Any) -> str:
    names = list(map(str, names))
    return ", ".join(names[:MOST_NAMES]) + (f", ... {len(names)} in all" if len(names) > MOST_NAMES else "")
