"""The flags of launch.py and the command vaegan."""
