"""Data sets, readers of the user's own files, and the split into training and held-out rows.

Names load when first used.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
