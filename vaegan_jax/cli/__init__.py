"""launch.py and the command `vaegan`."""
