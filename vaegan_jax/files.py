"""Files that are whole or not there."""

import os
import pathlib


def write_whole(path: pathlib.Path, text: str) -> None:
    """Writes a file so that a reader sees the old text or the new one, never a part."""
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
