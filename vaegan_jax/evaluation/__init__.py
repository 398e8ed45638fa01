"""How good what came out is: distances, bounds and checks, each a pure function."""
