"""Networks in whose features images are compared."""
