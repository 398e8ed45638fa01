import gzip
import json

import jax
import jax.numpy as jnp
import numpy as np

from vaegan_jax.runtime import profiling


def test_traced_calls_return_the_same_result(tmp_path):
    @jax.jit
    def call(x):
        return jnp.sin(x) @ x

    wrapped = profiling.traced(call, tmp_path / "profile")
    x = jnp.eye(50)
    np.testing.assert_array_equal(wrapped(x), call(x))
    assert not (tmp_path / "profile").exists()
    np.testing.assert_array_equal(wrapped(x), call(x))
    planes = list((tmp_path / "profile").rglob("*.xplane.pb"))
    assert planes
    assert planes[0].stat().st_size > 1000
    assert b"/host:CPU" in planes[0].read_bytes()
    (trace,) = (tmp_path / "profile").rglob("perfetto_trace.json.gz")
    events = json.loads(gzip.decompress(trace.read_bytes()))["traceEvents"]
    assert any(event.get("name", "") == "PjitFunction(call)" for event in events)
