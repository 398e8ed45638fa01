"""Data sets: sources of images, their preparation and the batches of train steps."""
