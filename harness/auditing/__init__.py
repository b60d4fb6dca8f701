"""Does this penalty do what its author thinks? A case's loss and model, probed, never read.

Names load when first used.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
