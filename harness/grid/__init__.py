"""From a YAML file to an experiment, its variants, its members and its stacks, without torch.

Names load when first used.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
