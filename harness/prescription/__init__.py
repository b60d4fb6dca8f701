"""Prescriptions: the remedy that works on a given model, found within a budget and proved on fresh seeds.

Names load when first used.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
