"""The runs of docs/troubles.md, which are broken on purpose, as they stand there."""

import re
import shlex

import pytest

from configs import smoke
from tests.conftest import ROOT
from vaegan_jax import workdir
from vaegan_jax.config import set_field
from vaegan_jax.errors import UserError
from vaegan_jax.pipeline import run

PAGE = (ROOT / "docs" / "troubles.md").read_text()
COMMON = re.search(r"```sh\n(.*)\n```", PAGE)[1]
RUNS = re.findall(r"^\| ([^|`]+) \| `(--[^`]+)` \| (.*?) ?\|$", PAGE, re.MULTILINE)
NAMES = set(re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE))


def test_every_trouble_has_a_broken_run():
    raised = set(re.findall(r"`(\w+)`", " ".join(expected for _, _, expected in RUNS)))
    assert raised == NAMES
    assert len(NAMES) == 9
    assert [name for name, _, expected in RUNS if not expected] == ["healthy"]


@pytest.mark.parametrize(
    ("text", "expected"), [run[1:] for run in RUNS], ids=[run[0] for run in RUNS]
)
def test_broken_run_raises_its_troubles(tmp_path, text, expected, capsys):
    config = smoke.get_config()
    config.training.picture_every = config.training.checkpoint_every = 1000
    flags = [word for word in shlex.split(f"{COMMON} {text}") if word.startswith("--config.")]
    wanted = [set_field(config, flag.removeprefix("--config.")) for flag in flags]
    assert len(wanted) >= 5
    of_vae = expected.startswith("vae") and "gan" not in expected
    message = ""
    try:
        run.train_and_evaluate(config, tmp_path / "run", ("vae",) if of_vae else ("vae", "gan"))
    except UserError as error:
        message = str(error)
    with workdir.open_workdir(tmp_path / "run", config) as folder:
        troubles = folder.troubles()
        events = " ".join(event["event"] for event in folder.events())
        lines = folder.metrics()
        latent = folder.read_json(workdir.LATENT)
    raised = {(line["stage"], line["trouble"]) for line in troubles}
    expected = {tuple(pair) for pair in re.findall(r"(\w+) `(\w+)`", expected)}
    if not expected:
        assert not raised
    assert (latent is None) == (bool(message) or "transfer.generator" in wanted)
    assert raised >= expected
    assert len(troubles) == len(raised)  # each but once
    said = capsys.readouterr().out
    for line in troubles:
        assert line["text"] in events
        assert line["remedy"] in events
        assert message or line["text"] in said.rpartition("The run's folder")[2]
    assert ("not finite" in message) == (("vae", "not_finite") in expected)
    assert all("trouble" not in line for line in lines)
