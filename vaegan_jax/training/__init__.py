"""The training loop of both stages, its log, and the detection of common failures."""
