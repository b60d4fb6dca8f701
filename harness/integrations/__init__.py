"""Callbacks of training libraries that watch layers. Each file needs its library, and nothing else does."""
