"""Remedies: named changes of a case, applicable to models that were not written for them.

Names load when first used.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
