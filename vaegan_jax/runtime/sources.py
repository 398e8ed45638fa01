"""SHA-256 digests of the source files that a user's functions depend on."""

import ast
import functools
import hashlib
import importlib
import importlib.util
import pathlib
import sys
from importlib.machinery import ModuleSpec


def digests(module: str) -> dict[str, str]:
    """Returns the SHA-256 of the source of a user's module and of the modules that it imports.

    Import statements are followed recursively. The standard library, installed packages and this
    package are left out, since `run.json` records their versions; so are modules without a file.

    Returns:
      Module -> SHA-256; empty if the module cannot be imported.
    """
    try:
        importlib.import_module(module)
    except (Exception, SystemExit):  # a user's module may raise anything
        return {}
    return _digests(module)


@functools.cache  # a file may be edited while this process still runs what it imported
def _digests(module: str) -> dict[str, str]:
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
    if package in sys.stdlib_module_names:
        return True
    spec = _spec(package)
    places = [] if spec is None else [spec.origin or "", *(spec.submodule_search_locations or ())]
    parts = {part for place in places for part in pathlib.Path(place).parts}
    return not parts.isdisjoint({"site-packages", "dist-packages"})


def _imports(source: bytes, package: str) -> list[str]:
    """Returns the absolute names that a file imports: modules, and attributes of modules."""
    try:
        nodes = list(ast.walk(ast.parse(source)))
    except (SyntaxError, ValueError):
        return []
    names: list[str] = []
    for node in nodes:
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                outer = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join(filter(None, [*outer, base]))
            names += [base, *(f"{base}.{alias.name}" for alias in node.names)]
    return names
