"""Commands that lse-dec adds to `lse`."""
