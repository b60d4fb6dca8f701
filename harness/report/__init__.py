"""Reports: one page that a stranger understands in a minute, and the files beside it. The only place that draws.

Names load when first used.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
