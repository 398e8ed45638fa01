"""Files that are complete or absent, and paths that other libraries read literally."""

import functools
import os
import pathlib
import tempfile


def write_atomic(path: pathlib.Path, text: str) -> None:
    """Writes a UTF-8 file so that a reader sees either the old text or the new one."""
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def without_wildcards(path: pathlib.Path) -> pathlib.Path:
    """Returns a path to the same folder that contains no glob pattern.

    Orbax globs for the files of a checkpoint by their full path, so it finds none if the name of
    any parent folder contains brackets. Such a path is replaced by a symbolic link in a temporary
    folder, which is removed when the process ends.
    """
    return path if not set("*?[]\\") & set(str(path)) else pathlib.Path(_link(path).name, "link")


@functools.cache
def _link(path: pathlib.Path) -> tempfile.TemporaryDirectory[str]:
    folder = tempfile.TemporaryDirectory(prefix="vaegan-")
    pathlib.Path(folder.name, "link").symlink_to(path, target_is_directory=True)
    return folder
