"""SHA-256 digests of the source files that a user's functions depend on."""

import ast
import contextlib
import functools
import hashlib
import importlib
import importlib.util
import pathlib
import sys
from importlib.machinery import ModuleSpec


@functools.cache  # a file may be edited while this process still runs what it imported
def digests(module: str) -> dict[str, str]:
    """Imports a user's module; returns the SHA-256 of its source and of the modules it imports.

    Import statements are followed recursively. The standard library, installed packages and this
    package are left out, since `run.json` records their versions; so are modules without a file.

    Returns:
      Module -> SHA-256; empty if the module cannot be imported.
    """
    try:
        importlib.import_module(module)
    except (Exception, SystemExit):  # a user's module may raise anything
        return {}
    package = module.partition(".")[0]
    result: dict[str, str] = {}
    pending = [module]
    while pending:
        name = pending.pop()
        top = name.partition(".")[0]
        if name in result or (top != package and _is_installed(top)) or top == "vaegan_jax":
            continue
        spec = _spec(name)
        if spec is None:
            continue
        pending += [name.rpartition(".")[0]] if "." in name else []
        if spec.origin is not None and spec.has_location:
            source = pathlib.Path(spec.origin).read_bytes()
            result[name] = hashlib.sha256(source).hexdigest()
            pending += _imports(source, spec.parent or "") if spec.origin.endswith(".py") else []
    return dict(sorted(result.items()))


def _spec(name: str) -> ModuleSpec | None:
    try:
        return importlib.util.find_spec(name)
    except (Exception, SystemExit):  # it imports the parent packages
        return None


def _is_installed(package: str) -> bool:
    spec = _spec(package)
    places = [] if spec is None else [spec.origin or "", *(spec.submodule_search_locations or ())]
    parts = {part for place in places for part in pathlib.Path(place).parts}
    installed = bool(parts & {"site-packages", "dist-packages"})
    return installed or package in sys.stdlib_module_names


def _imports(source: bytes, package: str) -> list[str]:
    """Returns the absolute names that a file imports: modules, and attributes of modules."""
    names: list[str] = []
    with contextlib.suppress(SyntaxError, ValueError, ImportError):  # importing it fails as well
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Import):
                names += [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                relative = "." * node.level + (node.module or "")
                base = importlib.util.resolve_name(relative, package)
                names += [base, *(f"{base}.{alias.name}" for alias in node.names)]
    return names
