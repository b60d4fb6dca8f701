"""Reports: one page that a stranger understands in a minute, and the files beside it. The only place that draws.

Names load when first used. The package is callable: `harness.report("forum")` writes the report of stored results.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import Any

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


class _ReportPackage(ModuleType):
    """This package, which is also a verb: `harness.report("forum")`."""

    def __call__(self, *experiments: Any, **options: Any) -> Any:
        """Write the report of an experiment from its stored results, or compare two; see `harness.experiment.report`."""
        # `harness.experiment` stands above this package, so it is looked up when it is needed
        return import_module("harness.experiment").report(*experiments, **options)


sys.modules[__name__].__class__ = _ReportPackage
