"""The embedded data set: 8,300 drawn comic faces, 64x64."""
