"""Commands of lse-measure."""
