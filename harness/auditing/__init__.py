"""Audit of a case's loss and model: probes that show what each term does, without reading its source.

Names load when first used.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
