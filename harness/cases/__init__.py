"""Shipped cases: each is an ordinary file with a module-level `case`, like a user's own."""
