"""Configs in mmengine's Python style: a model by method, for the data that `lse data make-objects` writes."""
