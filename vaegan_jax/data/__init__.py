"""Where images come from, and the one way that they are prepared."""
