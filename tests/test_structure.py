"""The order of packages: each imports only from those below it."""

import ast

import pytest

from tests.conftest import ROOT

PACKAGE = ROOT / "vaegan_jax"
ORDER = (
    "cli > explorer > experiments > pipeline > report > export > trained > workdir > training > "
    "transfer > evaluation > vae, gan > networks > layers, losses > layers_cpu > checkpoints > "
    "data > config > registry > randomness, runtime > errors"
)
RANK = {name: -i for i, names in enumerate(ORDER.split(" > ")) for name in names.split(", ")}


def imports():
    """The packages that each package imports, functions included: {(importer, imported)}."""
    found = set()
    for path in PACKAGE.rglob("*.py"):
        unit = path.relative_to(PACKAGE).with_suffix("").parts[0]
        if unit == "__init__":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("vaegan_jax"):
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            elif isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            else:
                continue
            parts = [name.split(".") for name in names]
            found |= {(unit, part[1]) for part in parts if part[0] == "vaegan_jax" and part[1:]}
    return {(importer, imported) for importer, imported in found if importer != imported}


def test_every_module_has_a_place_in_the_order():
    units = {
        path.stem
        for path in PACKAGE.iterdir()
        if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    assert units - {"__init__"} == RANK.keys()


def test_imports_point_down():
    upward = {(a, b) for a, b in imports() if b in RANK and RANK[a] <= RANK[b]}
    assert not upward


@pytest.mark.parametrize(("a", "b"), [("vae", "gan"), ("gan", "vae")])
def test_the_models_do_not_know_each_other(a, b):
    assert (a, b) not in imports()
