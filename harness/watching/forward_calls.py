"""Functions around a module's forward pass, at a tenth of the cost of torch's hooks."""

from collections.abc import Callable
from types import MethodType
from typing import Any

from torch import nn
from torch.compiler import is_compiling

Before = Callable[[tuple[Any, ...], dict[str, Any]], None]
After = Callable[[Any], None]


class ForwardCalls:
    """Calls functions before and after each forward pass of a module, until it is removed.

    It stands in the place of the module's `forward`, because a module with any hook runs torch's slow path, some 10
    microseconds a call. A copy of the module, by `copy.deepcopy` or pickle, has its class's own `forward`.

    Args:
        module: the module.
        before: called with the arguments.
        after: called with the output, but not if the pass raises.
        failed: called if the pass raises.

    >>> layer, seen = nn.Identity(), []
    >>> calls = ForwardCalls(layer, after=seen.append)
    >>> layer(3), seen
    (3, [3])
    >>> calls.remove()
    >>> "forward" in vars(layer)
    False
    """

    def __init__(
        self,
        module: nn.Module,
        before: Before | None = None,
        after: After | None = None,
        failed: Callable[[], None] | None = None,
    ) -> None:
        self.module, self.before, self.after, self.failed = module, before, after, failed
        self.earlier = vars(module).get("forward")  # set by another library
        self.original = module.forward
        vars(module)["forward"] = self

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the forward pass; while torch.compile reads the module, without the functions."""
        if is_compiling():
            return self.original(*args, **kwargs)
        if self.before is not None:
            self.before(args, kwargs)
        if self.failed is None:
            output = self.original(*args, **kwargs)
        else:
            try:
                output = self.original(*args, **kwargs)
            except BaseException:
                self.failed()
                raise
        if self.after is not None:
            self.after(output)
        return output

    def remove(self) -> None:
        """Give the module its own forward pass back."""
        self.before = self.after = self.failed = None
        outer = vars(self.module).get("forward")
        if outer is not self:
            while isinstance(outer, ForwardCalls) and outer.earlier is not self:
                outer = outer.earlier
            if isinstance(outer, ForwardCalls):
                outer.earlier, outer.original = self.earlier, self.original
            return  # in the wrapper of another library, calls pass through
        if self.earlier is None:
            del vars(self.module)["forward"]
        else:
            vars(self.module)["forward"] = self.earlier

    @property
    def __wrapped__(self) -> Any:  # for inspect.signature
        return self.original

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        copy = memo.get(id(self.module), self.module)
        return MethodType(type(copy).forward, copy)

    def __reduce__(self) -> Any:
        return getattr, (self.module, "forward")


class StepCalls(ForwardCalls):
    """Calls functions around the passes of a model for which `before` returns True; another pass costs some microseconds.

    A pass inside of a pass, of a model that calls itself, is a part of it.

    Args:
        module, before, after, failed: as in `ForwardCalls`; only `before` sees every pass.
    """

    def __init__(
        self,
        module: nn.Module,
        before: Callable[[tuple[Any, ...], dict[str, Any]], bool],
        after: After,
        failed: Callable[[], None],
    ) -> None:
        super().__init__(module, after=after, failed=failed)
        self.inside, self.chosen = False, before

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the forward pass; while torch.compile reads the model, without the functions."""
        if self.inside or self.after is None or is_compiling():
            return self.original(*args, **kwargs)
        self.inside = True
        try:
            if self.chosen(args, kwargs):
                return super().__call__(*args, **kwargs)
            return self.original(*args, **kwargs)
        finally:
            self.inside = False
