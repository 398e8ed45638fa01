import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.conftest import assert_trees_equal
from vaegan_jax import vae
from vaegan_jax.checkpoints import (
    Checkpoints,
    latest,
    leaves,
    load,
    require_equal_leaves,
    restore_part,
    steps,
)
from vaegan_jax.errors import UserError

SHAPE = (16, 32, 3)


@pytest.fixture
def state(config):
    return jax.jit(lambda: vae.init(config, SHAPE))()


def template(state):
    return jax.eval_shape(lambda: state)


def test_what_is_saved_is_restored_bit_for_bit(tmp_path, state):
    checkpoints = Checkpoints(tmp_path, 3)
    assert checkpoints.latest() is None
    progress = {"seconds": 0.1 + 0.2, "window": {"count": 3, "sums": {"loss": 1 / 3}}}
    checkpoints.save(5, state, progress)
    checkpoints.finish()
    checkpoints.close()
    again = Checkpoints(tmp_path, 3)
    assert again.latest() == 5
    restored, restored_progress = again.restore(5, template(state))
    assert_trees_equal(restored, state)
    assert restored_progress == progress
    again.close()


def test_the_newest_step_is_found_without_making_a_folder(tmp_path, state):
    assert latest(tmp_path / "none") is None
    assert not (tmp_path / "none").exists()
    checkpoints = Checkpoints(tmp_path / "some", 3)
    assert latest(tmp_path / "some") is None
    for step in (9, 10):
        checkpoints.save(step, state, {})
    checkpoints.finish()
    checkpoints.close()
    assert latest(tmp_path / "some") == 10


def test_a_saved_state_is_loaded_without_a_template(tmp_path):
    tree = {
        "step": np.int32(6),
        "params": {"kernel": np.arange(6, dtype=np.float32).reshape(2, 3)},
        "optimizer": (np.zeros(2, np.float16), {}),
    }
    checkpoints = Checkpoints(tmp_path, 3)
    checkpoints.save(3, jax.tree.map(jnp.asarray, tree), {})
    checkpoints.finish()
    checkpoints.close()
    (tmp_path / "11.orbax-checkpoint-tmp-1").mkdir()
    assert steps(tmp_path) == [3]
    assert steps(tmp_path / "none") == []
    found = load(tmp_path, 3)
    expected = {
        "step": tree["step"],
        "params.kernel": tree["params"]["kernel"],
        "optimizer.0": tree["optimizer"][0],
    }
    assert found.keys() == expected.keys()
    for name, leaf in expected.items():
        assert (found[name].dtype, found[name].shape) == (leaf.dtype, leaf.shape)
        np.testing.assert_array_equal(found[name], leaf)


def test_a_donated_state_is_saved_as_it_was(tmp_path, state):
    expected = jax.tree.map(np.array, state)
    checkpoints = Checkpoints(tmp_path, 3)
    scramble = jax.jit(lambda s: jax.tree.map(lambda x: x * 0 - 1, s), donate_argnums=0)
    checkpoints.save(1, state, {})
    for _ in range(3):
        state = scramble(state)
    jax.block_until_ready(state)
    checkpoints.finish()
    restored, _ = checkpoints.restore(1, template(state))
    assert_trees_equal(restored, expected)
    checkpoints.close()


def test_the_last_few_are_kept(tmp_path):
    checkpoints = Checkpoints(tmp_path, 2)
    for step in (1, 2, 3, 4):
        checkpoints.save(step, {"a": jnp.full((2,), step)}, {})
        checkpoints.finish()
    checkpoints.close()
    assert sorted(int(path.name) for path in tmp_path.iterdir() if path.name.isdigit()) == [3, 4]


def test_another_network_is_refused_with_both_sides(tmp_path, state, config):
    checkpoints = Checkpoints(tmp_path, 2)
    checkpoints.save(1, state, {})
    checkpoints.finish()
    config.model.latent_size += 1
    other = jax.eval_shape(lambda: vae.init(config, SHAPE))
    with pytest.raises(UserError) as caught:
        checkpoints.restore(1, other)
    message = str(caught.value)
    assert (
        "params.decoder.dense.kernel is saved as float32[5,64] and wanted as float32[6,64]"
        in message
    )
    assert "\n" not in message
    checkpoints.close()


def test_every_way_to_differ_is_listed():
    saved = {
        "a": ((2,), "float32"),
        "b": ((3,), "float32"),
        "c": ((), "int32"),
        "d": ((1,), "int32"),
    }
    wanted = {
        "a": ((2,), "float32"),
        "b": ((4,), "float32"),
        "c": ((), "float32"),
        "e": ((), "int32"),
    }
    with pytest.raises(UserError) as caught:
        require_equal_leaves(saved, wanted, "the file", "the network")
    message = str(caught.value)
    for phrase in (
        "the file does not fit the network",
        "only saved: d int32[1]",
        "only wanted: e int32[]",
        "b is saved as float32[3] and wanted as float32[4]",
        "c is saved as int32[] and wanted as float32[]",
    ):
        assert phrase in message
    assert " a " not in message.partition("(")[2]
    require_equal_leaves(saved, dict(saved), "the file", "the network")


def test_leaves_are_named_by_their_path(state):
    described = leaves(state)
    assert described["step"] == ((), "int32")
    assert described["params.encoder.trunk.down_0.kernel"] == ((4, 4, 3, 4), "float32")
    assert "optimizer.0.mu.decoder.dense.kernel" in described


def test_a_folder_that_refuses_a_save_is_named_and_keeps_the_earlier_ones(tmp_path, monkeypatch):
    checkpoints = Checkpoints(tmp_path, 2)
    checkpoints.save(1, {"a": jnp.ones(2)}, {})
    checkpoints.finish()

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints._manager, "save", full)
        with pytest.raises(UserError, match=r"No space left on device.*make room"):
            checkpoints.save(2, {"a": jnp.ones(2)}, {})
    restored, _ = checkpoints.restore(1, jax.eval_shape(lambda: {"a": jnp.ones(2)}))
    np.testing.assert_array_equal(restored["a"], np.ones(2))
    checkpoints.close()


def saved(directory, steps, keep=9):
    checkpoints = Checkpoints(directory, keep)
    for step in steps:
        checkpoints.save(step, {"a": jnp.full((50,), step)}, {"step": step})
    checkpoints.finish()
    checkpoints.close()


def files(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def flip(path):
    data = bytearray(path.read_bytes())
    if data:
        data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data) or b"x")


def test_a_flipped_bit_in_any_file_is_found_and_the_checkpoint_before_counts(tmp_path):
    saved(tmp_path / "sound", (1, 2))
    names = [path.relative_to(tmp_path / "sound") for path in files(tmp_path / "sound" / "2")]
    assert len(names) > 5
    for i, name in enumerate(names):
        folder = tmp_path / str(i)
        shutil.copytree(tmp_path / "sound", folder)
        flip(folder / name)
        assert latest(folder) == 1
        with pytest.raises(UserError, match="cannot be read"):
            restore_part(folder, 2, ("a",), jax.ShapeDtypeStruct((50,), jnp.int32))
        checkpoints = Checkpoints(folder, 9)
        assert checkpoints.latest() == 1
        (warning,) = checkpoints.warnings
        assert "The checkpoint of step 2 is damaged" in warning
        assert (folder / "damaged" / "2").exists()
        restored, progress = checkpoints.restore(1, {"a": jax.ShapeDtypeStruct((50,), jnp.int32)})
        assert (int(restored["a"][0]), progress) == (1, {"step": 1})
        # And what was damaged can be saved again.
        checkpoints.save(2, restored, {})
        checkpoints.finish()
        assert checkpoints.latest() == 2
        checkpoints.close()


@pytest.mark.parametrize("damage", ["truncated", "missing", "added"])
def test_other_damage_is_found_as_well(tmp_path, damage):
    saved(tmp_path, (1, 2))
    victim = max(files(tmp_path / "2" / "state"), key=lambda path: path.stat().st_size)
    if damage == "truncated":
        victim.write_bytes(victim.read_bytes()[:-1])
    elif damage == "missing":
        victim.unlink()
    else:
        victim.with_name("more").write_bytes(b"")
    assert latest(tmp_path) == 1


def test_where_all_are_damaged_there_is_none(tmp_path):
    saved(tmp_path, (1, 2))
    for step in (1, 2):
        flip(tmp_path / str(step) / "seal.json")
    checkpoints = Checkpoints(tmp_path, 9)
    assert checkpoints.latest() is None
    assert len(checkpoints.warnings) == 2
    checkpoints.close()


def test_what_was_never_sealed_was_never_saved(tmp_path):
    saved(tmp_path, (1, 2))
    (tmp_path / "2" / "seal.json").unlink()  # killed just before
    assert latest(tmp_path) == 1
    assert (tmp_path / "2").exists()
    checkpoints = Checkpoints(tmp_path, 9)
    assert checkpoints.latest() == 1
    assert not checkpoints.warnings
    assert not (tmp_path / "2").exists()
    checkpoints.close()


def test_an_old_one_goes_only_when_the_new_one_is_sealed(tmp_path, monkeypatch):
    saved(tmp_path, (1,), keep=1)
    checkpoints = Checkpoints(tmp_path, 1)

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("vaegan_jax.checkpoints._seal", full)
        checkpoints.save(2, {"a": jnp.zeros((50,), jnp.int32)}, {})
        with pytest.raises(UserError, match="No space left on device"):
            checkpoints.finish()
    assert latest(tmp_path) == 1
    checkpoints.close()
    saved(tmp_path, (2,), keep=1)
    assert latest(tmp_path) == 2
    assert not (tmp_path / "1").exists()


def test_checkpoints_of_another_format_are_refused_by_name(tmp_path):
    saved(tmp_path, (1,))
    (tmp_path / "format.json").write_text('{"format": 99}')
    for use in (latest, lambda path: Checkpoints(path, 1)):
        with pytest.raises(UserError, match=r"are of format 99, and .* reads format 2"):
            use(tmp_path)
    (tmp_path / "format.json").unlink()  # as versions did that knew no format
    with pytest.raises(UserError, match="are of format 1, and"):
        Checkpoints(tmp_path, 1)
    assert (tmp_path / "1").exists()


@pytest.mark.parametrize("damage", ["metadata", "gone"])
def test_a_damaged_checkpoint_is_named(tmp_path, state, damage):
    checkpoints = Checkpoints(tmp_path, 2)
    checkpoints.save(1, state, {})
    checkpoints.finish()
    folder = tmp_path / "1" / "state"
    if damage == "metadata":
        (folder / "_METADATA").write_text("{")
    else:
        shutil.rmtree(folder)
    with pytest.raises(UserError, match=r"checkpoint .*/1 cannot be read .* delete that folder"):
        checkpoints.restore(1, template(state))
    checkpoints.close()
