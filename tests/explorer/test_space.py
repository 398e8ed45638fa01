"""Directions and units against what the data were made with, and against SVD."""

import numpy as np
import pytest

from vaegan_jax.explorer import space


def data(n=500, size=6):
    rng = np.random.default_rng(0)
    scales = np.array([0.5, 3.0, 1.0, 0.1, 2.0, 0.7])
    return (rng.normal(size=(n, size)) * scales @ np.linalg.qr(rng.normal(size=(size, size)))[0]
            + rng.normal(size=size)).astype(np.float32)  # fmt: skip


def test_directions_are_the_principal_components_as_svd_has_them():
    means = data()
    found = space.measure(means)
    centred = means.astype(np.float64) - means.astype(np.float64).mean(axis=0)
    _, singular, vectors = np.linalg.svd(centred, full_matrices=False)
    np.testing.assert_allclose(found.spreads, singular / np.sqrt(len(means)), rtol=1e-6)
    np.testing.assert_allclose(np.abs((found.directions * vectors).sum(axis=1)), 1, rtol=1e-6)
    assert found.measured


def test_directions_point_where_their_largest_element_is_positive():
    found = space.measure(data())
    for direction in found.directions:
        assert direction[np.abs(direction).argmax()] > 0


def test_units_come_by_how_much_they_vary():
    means = data() * 0 + np.random.default_rng(1).normal(size=(500, 6)) * [1, 5, 2, 0, 4, 3]
    found = space.measure(means)
    assert found.units.tolist() == [1, 4, 5, 2, 0, 3]
    assert found.deviations[0] == pytest.approx(5, rel=0.1)
    assert found.deviations[-1] == 1  # what does not vary can still be moved along


def test_points_of_the_map_have_unit_variance_and_are_uncorrelated():
    means = data()
    points = space.project(means, space.measure(means))
    np.testing.assert_allclose(np.cov(points[:2], bias=True), np.eye(2), atol=1e-5)
    np.testing.assert_allclose(points[2:].std(axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(points.mean(axis=1), 0, atol=1e-5)


def test_one_dimension_is_a_map_too():
    means = data()[:, :1]
    points = space.project(means, space.measure(means))
    assert points.shape == (4, 500)
    assert not points[[1, 3]].any()


def test_a_probed_space_has_the_jacobians_singular_vectors():
    matrix = np.random.default_rng(2).normal(size=(4, 24)) * np.array([[1], [4], [2], [3]])
    found = space.probe(lambda z: (z @ matrix).reshape(-1, 2, 4, 3), 4)
    vectors = np.linalg.svd(matrix)[0].T
    np.testing.assert_allclose(np.abs((found.directions * vectors).sum(axis=1)), 1, rtol=1e-6)
    assert found.units.tolist() == np.argsort(-np.linalg.norm(matrix, axis=1)).tolist()
    assert not found.measured


def test_no_more_axes_than_a_page_can_hold():
    found = space.measure(np.random.default_rng(3).normal(size=(50, 70)))
    assert found.directions.shape == (space.MAX_AXES, 70)
    assert len(found.units) == len(found.deviations) == space.MAX_AXES
