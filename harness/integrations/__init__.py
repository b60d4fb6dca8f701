"""Callbacks of training libraries that watch layers. Each file needs its library; the rest of the package needs none."""
