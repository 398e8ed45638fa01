"""Finished runs compared: bit for bit, and as a table of means over seeds."""
