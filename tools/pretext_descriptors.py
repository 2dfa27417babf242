"""Classical descriptors of pictures, which the built-in backbone learns to tell.

They say about any picture what hand-made vision said before networks were trained: which colours
it has and where, and what its surfaces and edges are like. A network that can tell them from
pictures drawn at random can tell them from photographs.

References
----------
.. [1] Ojala et al., "Multiresolution Gray-Scale and Rotation Invariant Texture Classification
   with Local Binary Patterns", TPAMI 2002.
.. [2] Oliva and Torralba, "Modeling the Shape of the Scene", IJCV 2001 (GIST).
.. [3] Dalal and Triggs, "Histograms of Oriented Gradients for Human Detection", CVPR 2005.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

# Bins of brightness, and of each of two differences between colours.
_BINS = (6, 10, 10)
_PATTERN_STEPS_PX = (1, 2, 4)
_N_DIRECTIONS = 8
_FILTER_PX = 9
_GRID = 4
_HOG_CELLS = 6

WIDTHS = {
    "colour grid": 3 * _GRID**2 + 3,
    "colour histogram": int(np.prod(_BINS)),
    "local binary patterns": 256 * len(_PATTERN_STEPS_PX),
    "gist": 3 * _N_DIRECTIONS * _GRID**2,
    "oriented gradients": _N_DIRECTIONS * _HOG_CELLS**2,
}


def describe(frames: Any) -> list[Any]:
    """Compute the descriptors of pictures.

    Parameters
    ----------
    frames : tensor of float32, shape (n, size_px, size_px, 3)
        RGB within [-1, 1]; size_px is 64 or 96.

    Returns
    -------
    list of tensor of float32, shape (n, width)
        One a kind, in the order of `WIDTHS`.
    """
    grey = tf.reduce_mean(frames, axis=-1)
    described = [
        _colour_grid(frames),
        _colour_histogram(frames),
        tf.concat([_local_binary_patterns(grey, step) for step in _PATTERN_STEPS_PX], axis=1),
        _gist(grey),
        _oriented_gradients(grey),
    ]
    return [tf.stop_gradient(part) for part in described]


class DescriptorLoss:
    """How badly descriptors are told, each kind counted alike.

    Parameters
    ----------
    samples : list of list of ndarray of float32, shape (n, width)
        What `describe` gave for batches of pictures: it scales the errors.
    """

    def __init__(self, samples: list[list[Any]]) -> None:
        self._means, self._scales = [], []
        for parts in zip(*samples, strict=True):
            values = np.concatenate([np.asarray(part) for part in parts])
            spread = values.std(axis=0)
            self._means.append(tf.constant(values.mean(axis=0)))
            # What hardly varies counts less, or rare patterns would drown the others.
            self._scales.append(tf.constant(spread + spread.mean()))

    def __call__(self, told: list[Any], frames: Any) -> Any:
        """Return the mean squared error as a share of the variance, summed over the kinds."""
        total = tf.constant(0.0)
        for guess, actual, mean, scale in zip(
            told, describe(frames), self._means, self._scales, strict=True
        ):
            wanted = (actual - mean) / scale
            variance = tf.math.reduce_mean(tf.math.reduce_variance(wanted, axis=0)) + 1e-3
            total += tf.reduce_mean((guess - wanted) ** 2) / variance
        return total


def _colour_grid(frames: Any) -> Any:
    n, size_px = tf.shape(frames)[0], frames.shape[1]
    cells = tf.nn.avg_pool2d(frames, size_px // _GRID, size_px // _GRID, "VALID")
    spread = tf.math.reduce_std(frames, axis=(1, 2))
    return tf.concat([tf.reshape(cells, (n, 3 * _GRID**2)), spread], axis=1)


def _colour_histogram(frames: Any) -> Any:
    small = tf.nn.avg_pool2d(frames, 2, 2, "VALID")
    red, green, blue = tf.unstack(small, axis=-1)
    axes = ((red + green + blue) / 3, (red - green) / 0.8, (blue - (red + green) / 2) / 0.8)
    bins = tf.zeros_like(red, tf.int32)
    for values, n_bins in zip(axes, _BINS, strict=True):
        place = tf.cast((values + 1.0) * (n_bins / 2), tf.int32)
        bins = bins * n_bins + tf.clip_by_value(place, 0, n_bins - 1)
    return _histogram(bins, int(np.prod(_BINS)))


def _local_binary_patterns(grey: Any, step_px: int) -> Any:
    """Histogram which of eight neighbours each pixel is darker than [1]_."""
    size_px = grey.shape[1]
    inner = size_px - 2 * step_px
    middle = grey[:, step_px:-step_px, step_px:-step_px] + 0.02
    code = tf.zeros_like(middle, tf.int32)
    ring = ((0, 0), (0, 1), (0, 2), (1, 2), (2, 2), (2, 1), (2, 0), (1, 0))
    for bit, (down, right) in enumerate(ring):
        top, left = down * step_px, right * step_px
        neighbour = grey[:, top : top + inner, left : left + inner]
        code += tf.cast(neighbour > middle, tf.int32) * 2**bit
    return _histogram(code, 256)


def _gist(grey: Any) -> Any:
    """Average the answers of oriented filters at three scales over a grid [2]_."""
    picture = tf.nn.avg_pool2d(grey[..., None], 2, 2, "VALID")
    local = _blur(picture)
    level = (picture - local) / (tf.sqrt(_blur((picture - local) ** 2)) + 0.15)
    answers = []
    for _ in range(3):
        energy = tf.abs(tf.nn.conv2d(level, tf.constant(_filters()), 1, "SAME"))
        cell_px = level.shape[1] // _GRID
        cells = tf.nn.avg_pool2d(energy, cell_px, cell_px, "VALID")
        answers.append(tf.reshape(cells, (tf.shape(grey)[0], _N_DIRECTIONS * _GRID**2)))
        level = tf.nn.avg_pool2d(level, 2, 2, "VALID")
    return tf.concat(answers, axis=1)


def _blur(picture: Any) -> Any:
    coarse = tf.nn.avg_pool2d(picture, 8, 8, "VALID")
    return tf.image.resize(coarse, picture.shape[1:3])


def _filters() -> Any:
    """Return one Gabor filter a direction, of mean 0, shape (px, px, 1, directions)."""
    reach = np.arange(_FILTER_PX) - _FILTER_PX // 2
    down, right = np.meshgrid(reach, reach, indexing="ij")
    filters = []
    for angle in np.arange(_N_DIRECTIONS) * np.pi / _N_DIRECTIONS:
        along = right * np.cos(angle) + down * np.sin(angle)
        wave = np.cos(2 * np.pi * along / 4.5) * np.exp(-(down**2 + right**2) / (2 * 1.9**2))
        filters.append(wave - wave.mean())
    return np.stack(filters, axis=-1)[:, :, None].astype(np.float32)


def _oriented_gradients(grey: Any) -> Any:
    """Histogram the directions of edges in each cell, strong and weak ones alike [3]_."""
    down = grey[:, 2:, 1:-1] - grey[:, :-2, 1:-1]
    right = grey[:, 1:-1, 2:] - grey[:, 1:-1, :-2]
    strength = tf.sqrt(down**2 + right**2 + 1e-8)
    angle = tf.math.floormod(tf.atan2(down, right), np.pi)
    direction = tf.cast(angle * (_N_DIRECTIONS / 3.1416), tf.int32)
    votes = strength[..., None] * tf.one_hot(direction, _N_DIRECTIONS)
    cell_px = votes.shape[1] // _HOG_CELLS
    cells = tf.nn.avg_pool2d(votes, cell_px, cell_px, "VALID")[:, :_HOG_CELLS, :_HOG_CELLS]
    length = tf.sqrt(tf.reduce_sum(cells**2, axis=-1, keepdims=True))
    return tf.reshape(cells / (length + 0.05), (tf.shape(grey)[0], _N_DIRECTIONS * _HOG_CELLS**2))


def _histogram(bins: Any, n_bins: int) -> Any:
    """Return the square roots of the shares of each bin, of integers shaped (n, ...)."""
    n = tf.shape(bins)[0]
    flat = tf.reshape(bins, (n, -1))
    offset = flat + n_bins * tf.range(n)[:, None]
    counts = tf.math.unsorted_segment_sum(tf.ones_like(offset, tf.float32), offset, n * n_bins)
    return tf.sqrt(tf.reshape(counts, (n, n_bins)) / tf.cast(tf.shape(flat)[1], tf.float32))
