"""The subcommands of `vaegan`: what was trained, used from the command line."""
