"""Running experiments: from a YAML file to results, MLflow runs and a report.

Names load when first used.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
