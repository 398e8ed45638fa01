"""Finished runs held against each other: what two share, and what many say together."""
