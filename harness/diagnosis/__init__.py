"""Is this layer collapsed, which unit, and how: thresholds, rules, findings, and the diagnosis they lead to.

Names load when first used.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
