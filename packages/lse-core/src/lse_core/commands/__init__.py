"""Subcommands of `lse` that lse-core provides, one a file."""
