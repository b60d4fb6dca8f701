"""The shipped cases: each is an ordinary file with a module-level `case`, as a stranger's is."""
