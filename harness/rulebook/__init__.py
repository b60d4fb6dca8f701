"""One page for each verdict and rule; `harness explain NAME` prints it, and the site shows it."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
