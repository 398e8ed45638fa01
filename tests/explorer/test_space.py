"""Directions and units against the generating distribution and against SVD."""

import numpy as np
import pytest

from vaegan_jax.explorer import space


def data(n=500, size=6):
    rng = np.random.default_rng(0)
    scales = np.array([0.5, 3.0, 1.0, 0.1, 2.0, 0.7])
    return (rng.normal(size=(n, size)) * scales @ np.linalg.qr(rng.normal(size=(size, size)))[0]
            + rng.normal(size=size)).astype(np.float32)  # fmt: skip


def test_directions_are_principal_components():
    means = data()
    result = space.measure(means)
    centred = means.astype(np.float64) - means.astype(np.float64).mean(axis=0)
    _, singular, vectors = np.linalg.svd(centred, full_matrices=False)
    np.testing.assert_allclose(result.spreads, singular / np.sqrt(len(means)), rtol=1e-6)
    np.testing.assert_allclose(np.abs((result.directions * vectors).sum(axis=1)), 1, rtol=1e-6)
    largest = np.abs(result.directions).argmax(axis=1)
    assert (np.take_along_axis(result.directions, largest[:, None], axis=1) > 0).all()
    assert result.measured


def test_units_are_sorted_by_deviation():
    means = data() * 0 + np.random.default_rng(1).normal(size=(500, 6)) * [1, 5, 2, 0, 4, 3]
    result = space.measure(means)
    assert result.units.tolist() == [1, 4, 5, 2, 0, 3]
    assert result.deviations[0] == pytest.approx(5, rel=0.1)
    assert result.deviations[-1] == 1  # constant


def test_map_points_are_whitened():
    means = data()
    points = space.project(means, space.measure(means))
    np.testing.assert_allclose(np.cov(points[:2], bias=True), np.eye(2), atol=1e-5)
    np.testing.assert_allclose(points[2:].std(axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(points.mean(axis=1), 0, atol=1e-5)


def test_map_of_one_dimension():
    means = data()[:, :1]
    points = space.project(means, space.measure(means))
    assert points.shape == (4, 500)
    assert not points[[1, 3]].any()


def test_unmeasured_axes_are_the_coordinates():
    result = space.unmeasured(5)
    np.testing.assert_array_equal(result.directions, np.eye(5)[result.units])
    assert not result.measured


def test_number_of_axes_is_limited():
    result = space.measure(np.random.default_rng(3).normal(size=(50, 70)))
    assert result.directions.shape == (space.MAX_AXES, 70)
    assert len(result.units) == len(result.deviations) == space.MAX_AXES
