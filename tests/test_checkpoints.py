import shutil

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from tests.conftest import assert_trees_equal
from vaegan_jax import vae
from vaegan_jax.checkpoints import Checkpoints, latest, load, read, require_equal_leaves, steps
from vaegan_jax.errors import UserError

SHAPE = (16, 32, 3)
TEMPLATE = {"a": jax.ShapeDtypeStruct((50,), jnp.int32)}
A = {("a",): TEMPLATE["a"]}


@pytest.fixture
def state(config):
    return jax.jit(lambda: vae.init(config, SHAPE))()


def save(checkpoints, step, state=None, progress=None):
    """Saves a state, or one that holds the step."""
    state = {"a": jnp.full((50,), step)} if state is None else state
    checkpoints.save(step, state, progress or {"step": step})


def saved(directory, steps=(1, 2), keep=9):
    checkpoints = Checkpoints(directory, keep)
    for step in steps:
        save(checkpoints, step)
    return checkpoints


def restored_step(checkpoints, step):
    state, progress = checkpoints.restore(step, TEMPLATE)
    assert (state["a"] == progress["step"]).all()
    return progress["step"]


def files(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def largest_file(folder):
    return max(files(folder), key=lambda path: path.stat().st_size)


def flip(path):
    data = bytearray(path.read_bytes())
    if data:
        data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data) or b"x")


def failing(*_, **__):
    raise OSError(5, "Input/output error")


def test_round_trip_is_bit_identical(tmp_path, state):
    checkpoints = Checkpoints(tmp_path, 9)
    assert checkpoints.latest() is None
    progress = {"seconds": 0.1 + 0.2, "window": {"count": 3, "sums": {"loss": 1 / 3}}}
    save(checkpoints, 5, state, progress)
    again = Checkpoints(tmp_path, 9)
    assert again.latest() == 5
    restored, restored_progress = again.restore(5, jax.eval_shape(lambda: state))
    assert_trees_equal(restored, state)
    assert restored_progress == progress


def test_newest_checkpoints_are_kept(tmp_path):
    assert latest(tmp_path / "none") is None
    assert steps(tmp_path / "none") == []
    assert not (tmp_path / "none").exists()
    saved(tmp_path, (), keep=2)
    assert latest(tmp_path) is None
    saved(tmp_path, (1, 2, 9, 10), keep=2)
    assert latest(tmp_path) == 10
    assert steps(tmp_path) == [9, 10]
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.isdigit()) == ["10", "9"]


def test_load_without_template(tmp_path):
    step, half = jnp.int32(6), jnp.ones(2, jnp.float16)
    save(Checkpoints(tmp_path, 9), 3, {"step": step, "optimizer": (half, {"kernel": half[:1]})})
    (tmp_path / "11.orbax-checkpoint-tmp-1").mkdir()
    assert steps(tmp_path) == [3]
    expected = {"optimizer.0": half, "optimizer.1.kernel": half[:1], "step": step}
    found = load(tmp_path, 3)
    assert_trees_equal(found, expected)
    assert [leaf.dtype for leaf in found.values()] == [np.float16, np.float16, np.int32]


def test_different_network_is_refused(tmp_path, state, config):
    checkpoints = Checkpoints(tmp_path, 9)
    save(checkpoints, 1, state)
    config.model.latent_size += 1
    other = jax.eval_shape(lambda: vae.init(config, SHAPE))
    with pytest.raises(UserError, match=r"decoder\.dense\.kernel is saved as float32\[5,256\]"):
        checkpoints.restore(1, other)


def test_require_equal_leaves_lists_all_differences():
    one = np.zeros(1, np.int32)
    saved = {"a": one, "b": jnp.zeros(3), "c": np.int32(0), "d": one}
    wanted = {"a": one, "b": jnp.zeros(4), "c": np.float32(0), "e": one}
    with pytest.raises(UserError, match=r"the file does not fit .*\((.*)\)") as caught:
        require_equal_leaves(saved, wanted, "the file")
    assert str(caught.value).partition("(")[2].partition(")")[0].split("; ") == [
        "b is saved as float32[3] and expected as float32[4]",
        "c is saved as int32[] and expected as float32[]",
        "d is saved as int32[1] and expected as nothing",
        "e is saved as nothing and expected as int32[1]",
    ]
    require_equal_leaves(saved, dict(saved), "the file")


def test_flipped_bit_in_any_file_is_found(tmp_path):
    saved(tmp_path)
    paths = files(tmp_path / "2")
    assert len(paths) > 5
    for path in paths:
        content = path.read_bytes()
        flip(path)
        assert latest(tmp_path) == 1
        path.write_bytes(content)
    assert latest(tmp_path) == 2


def truncate(folder):
    largest = largest_file(folder / "state")
    largest.write_bytes(largest.read_bytes()[:-1])


DAMAGE = {
    "truncated file": truncate,
    "missing file": lambda folder: largest_file(folder / "state").unlink(),
    "invalid metadata": lambda folder: (folder / "state" / "_METADATA").write_text("{"),
    "missing state": lambda folder: shutil.rmtree(folder / "state"),
    "missing manifest": lambda folder: (folder / "checksums.json").unlink(),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_checkpoint_is_refused_and_moved_aside(tmp_path, damage, capsys):
    checkpoints = saved(tmp_path)
    for name in ("2", "2.1"):  # a damaged step can be saved again, and damaged again
        DAMAGE[damage](tmp_path / "2")
        with pytest.raises(UserError, match=r"checkpoint .*/2 cannot be read"):
            checkpoints.restore(2, TEMPLATE)
        assert latest(tmp_path) == 1
        assert "using that of step 1" in capsys.readouterr().err
        assert (tmp_path / "2").exists()
        assert checkpoints.latest() == 1
        assert str(tmp_path / "damaged" / name) in checkpoints.warnings[-1]
        assert (tmp_path / "damaged" / name).exists()
        assert restored_step(checkpoints, 1) == 1
        save(checkpoints, 2)


def test_foreign_files_are_ignored(tmp_path):
    saved(tmp_path)
    for place in (".", "2", "2/state", "2/progress"):
        (tmp_path / place / "Thumbs.db").write_bytes(b"other")
    (tmp_path / "2" / "@eaDir").mkdir()
    (tmp_path / "2" / "@eaDir" / "x").write_bytes(b"other")
    assert read(tmp_path, 2, A)["a",][0] == 2
    checkpoints = Checkpoints(tmp_path, 9)
    assert checkpoints.latest() == latest(tmp_path) == 2
    assert not checkpoints.warnings


def test_all_damaged_is_an_error_and_moves_nothing(tmp_path):
    checkpoints = saved(tmp_path)
    for step in (1, 2):
        flip(tmp_path / str(step) / "checksums.json")
    before = files(tmp_path)
    for newest in (checkpoints.latest, lambda: latest(tmp_path)):
        with pytest.raises(UserError, match="workdir"):
            newest()
    assert files(tmp_path) == before


@pytest.mark.parametrize("name", ["[a]", "a\\b", "*", "what?", "[!x]{y}", "~ $HOME %41"])
def test_wildcards_in_path(tmp_path, name):
    directory = tmp_path / name / "x"
    (tmp_path / "a" / "x" / "1").mkdir(parents=True)  # which a pattern would find
    saved(directory)
    assert latest(directory) == 2
    assert read(directory, 2, A)["a",][0] == 2
    assert load(directory, 1)["a"].tolist() == [1] * 50
    assert restored_step(Checkpoints(directory, 9), 2) == 2


def damaged_save(self, path, **options):
    SAVE(self, path, **options)
    largest_file(path / "state").write_bytes(b"")


SAVE = ocp.Checkpointer.save
SAVING = {
    "Orbax": ("orbax.checkpoint.Checkpointer.save", failing, "Input/output error"),
    "read back": ("orbax.checkpoint.Checkpointer.save", damaged_save, "could not be written"),
    "manifest": ("vaegan_jax.runtime.manifest.write", failing, "Input/output error"),
}


@pytest.mark.parametrize("failure", SAVING)
def test_old_checkpoint_is_kept_until_new_one_is_complete(tmp_path, monkeypatch, failure):
    checkpoints = saved(tmp_path, (1,), keep=1)
    name, fails, message = SAVING[failure]
    with monkeypatch.context() as patch:
        patch.setattr(name, fails)
        with pytest.raises(UserError, match=message):
            save(checkpoints, 2)
    assert latest(tmp_path) == 1
    assert restored_step(checkpoints, 1) == 1
    saved(tmp_path, (2,), keep=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["2", "format.json"]


def test_unreadable_checkpoint_is_not_moved(tmp_path, monkeypatch):
    checkpoints = saved(tmp_path)
    before = files(tmp_path)
    monkeypatch.setattr("vaegan_jax.runtime.manifest._sha256", failing)
    for newest in (checkpoints.latest, lambda: latest(tmp_path)):
        with pytest.raises(OSError, match="Input/output error"):
            newest()
    assert files(tmp_path) == before


def test_other_format_is_refused(tmp_path):
    saved(tmp_path, (1,))
    (tmp_path / "format.json").write_text('{"format": 99}')
    for use in (latest, lambda path: Checkpoints(path, 1)):
        with pytest.raises(UserError, match=r"99.* reads .*3"):
            use(tmp_path)
