"""The model of comic faces that comes with the package; its card says how it was made."""
