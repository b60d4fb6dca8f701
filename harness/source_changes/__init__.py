"""Changes of a user's source that make a treatment: a checked unified diff, or lines to write.

Names load when first used.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
