"""An example of a plugin: a solver, a canonicalizer, and the backbone of a small network."""
