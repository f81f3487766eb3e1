"""Measuring how much any model changes its mind when objects change their size: `lse measure`."""
