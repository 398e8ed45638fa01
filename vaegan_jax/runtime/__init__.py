"""The machine: devices and processes, compiled programs, profiles, environment, signals, files."""
