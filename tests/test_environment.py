import json
import os
import pathlib
import sys

import jax

from vaegan_jax import environment


def test_the_facts_are_the_same_after_json():
    facts = environment.facts()
    assert json.loads(json.dumps(facts, allow_nan=False)) == facts


def test_the_facts_name_what_jax_names():
    facts = environment.facts()
    assert facts["packages"]["jax"] == jax.__version__
    assert facts["packages"]["jaxlib"] == jax.lib.__version__
    assert facts["device"] == jax.devices()[0].device_kind
    assert facts["devices"] == jax.device_count()


def test_the_facts_name_the_interpreter_and_the_machine():
    facts = environment.facts()
    assert facts["python"] == ".".join(map(str, sys.version_info[:3]))
    assert facts["cores"] == os.cpu_count()
    assert os.uname().release in facts["platform"]
    assert facts["cpu"].strip()


def test_a_package_that_is_not_there_has_no_version(monkeypatch):
    monkeypatch.setattr(environment, "_PACKAGES", ("numpy", "no-package-has-this-name"))
    versions = environment.facts()["packages"]
    assert versions["no-package-has-this-name"] is None
    assert versions["numpy"] == sys.modules["numpy"].__version__


def test_the_processor_is_told_as_linux_tells_it(monkeypatch):
    table = "processor\t: 0\nmodel name\t: Some Processor @ 2.00GHz\nmodel name\t: Another\n"
    monkeypatch.setattr(pathlib.Path, "read_text", instead(table))
    assert environment.facts()["cpu"] == "Some Processor @ 2.00GHz"


def test_the_processor_has_a_name_where_linux_does_not_tell(monkeypatch):
    for told in (None, "processor\t: 0\nBogoMIPS\t: 100.00\n"):
        monkeypatch.setattr(pathlib.Path, "read_text", instead(told))
        assert environment.facts()["cpu"].strip()


def instead(told):
    """Returns a `Path.read_text` for which /proc/cpuinfo holds a text, or is not there."""
    read = pathlib.Path.read_text

    def read_text(path, *args, **kwargs):
        if str(path) != "/proc/cpuinfo":
            return read(path, *args, **kwargs)
        if told is None:
            raise FileNotFoundError(path)
        return told

    return read_text
