"""An example of a plugin: a solver, a canonicalizer, a warp family, and the backbone of a small network."""
