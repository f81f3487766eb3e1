"""Commands that lse-data adds to `lse`."""
