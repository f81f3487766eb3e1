"""Commands that lse-train adds to `lse`."""
