"""Stored results of members, from which MLflow runs and the report are made. pyarrow loads with the store.

Names load when first used.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
