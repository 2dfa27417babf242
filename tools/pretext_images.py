"""Pictures without people that the built-in backbone learns from: fractals, textures, shapes.

Categories of fractals as in formula-driven supervised learning [1]_: each category is one
iterated function system, each picture of it another weighting, turn, colour and place. Textures
and heaps of shapes follow [2]_.

References
----------
.. [1] Kataoka et al., "Pre-training without Natural Images", ACCV 2020 (FractalDB).
.. [2] Baradad et al., "Learning to See by Looking at Noise", NeurIPS 2021.
"""

from __future__ import annotations

import numpy as np

from features.records import FloatArray, FrameArray
from features.video.frames import import_cv2
from pipeline.demo.drawing.brush import random_colour
from pipeline.demo.drawing.scenery import draw_background, draw_gradient, draw_leaves, draw_noise

_N_POINTS = 6_000
_N_CHAINS = 200


def draw_system(category: int, seed: int) -> FloatArray:
    """Choose the iterated function system of a fractal category.

    Parameters
    ----------
    category, seed : int

    Returns
    -------
    ndarray of float64, shape (n_maps, 2, 3)
        Contracting affine maps whose attractor fills a fair part of its frame.
    """
    generator = np.random.default_rng([seed, category])
    while True:
        n_maps = int(generator.integers(2, 6))
        maps = np.empty((n_maps, 2, 3))
        for each in maps:
            first, second = generator.uniform(0, 2 * np.pi, 2)
            sizes = np.diag(generator.uniform(0.2, 0.9, 2) * generator.choice([-1, 1], 2))
            each[:, :2] = _turn(first) @ sizes @ _turn(second)
            each[:, 2] = generator.uniform(-1, 1, 2)
        points = _iterate(maps, np.random.default_rng(0))
        cells, _, _ = np.histogram2d(points[:, 0], points[:, 1], bins=24)
        if (cells > 0).mean() > 0.15:
            return maps


def draw_fractal(generator: np.random.Generator, maps: FloatArray, size_px: int) -> FrameArray:
    """Draw one instance of a fractal category on some background.

    Parameters
    ----------
    generator : numpy.random.Generator
    maps : ndarray of float64, shape (n_maps, 2, 3)
        From `draw_system`.
    size_px : int

    Returns
    -------
    ndarray of uint8, shape (size_px, size_px, 3)
        Blue, green, red.
    """
    cv2 = import_cv2()
    weighted = maps * generator.uniform(0.88, 1.08, maps.shape)
    points = _iterate(weighted, generator)
    low, high = np.quantile(points, [0.01, 0.99], axis=0)
    points = (points - (low + high) / 2) / max(float((high - low).max()), 1e-6)
    points = points @ _turn(generator.uniform(-0.6, 0.6)).T * generator.uniform(0.6, 1.2)
    if generator.random() < 0.5:
        points[:, 0] *= -1
    places = ((points + 0.5 + generator.uniform(-0.15, 0.15, 2)) * size_px).astype(np.int64)
    inside = ((places >= 0) & (places < size_px)).all(axis=1)
    flat = places[inside] @ [1, size_px]
    density = np.bincount(flat, minlength=size_px**2).reshape(size_px, size_px)
    patch = cv2.GaussianBlur(density.astype(np.float32), (0, 0), generator.uniform(0.5, 1.1))
    cover = np.minimum(patch * generator.uniform(0.8, 2.5), 1.0)[..., None]
    ink = draw_gradient(generator, size_px, size_px)
    paper = draw_texture(generator, size_px)
    fractal: FrameArray = (paper * (1 - cover) + ink * cover).astype(np.uint8)
    return fractal


def draw_texture(generator: np.random.Generator, size_px: int) -> FrameArray:
    """Draw a gradient, a texture, clouds, a heap of textured shapes, or a place."""
    kind = generator.integers(6)
    if kind == 0:
        return draw_gradient(generator, size_px, size_px)
    if kind == 1:
        return draw_noise(generator, size_px, size_px)
    if kind == 2:
        horizon_px = size_px * generator.uniform(0.3, 0.9)
        return draw_background(generator, size_px, size_px, horizon_px)
    if kind == 3:
        return _draw_clouds(generator, size_px)
    return _draw_collage(generator, size_px)


def _draw_clouds(generator: np.random.Generator, size_px: int) -> FrameArray:
    """Mix three fields whose spectra fall as those of photographs do, each with its colour."""
    cv2 = import_cv2()
    frequency = np.hypot(np.fft.fftfreq(size_px)[:, None], np.fft.rfftfreq(size_px)[None, :])
    frequency[0, 0] = 1 / size_px
    fields = [
        np.fft.irfft2(
            np.fft.rfft2(generator.standard_normal((size_px, size_px)))
            / frequency ** generator.uniform(0.7, 1.8),
            s=(size_px, size_px),
        )
        for _ in range(3)
    ]
    clouds = np.stack([field / field.std() for field in fields], axis=2)
    # One field carries the light, the others what little of colour photographs have.
    mixing = generator.normal(0, 1, (3, 3)) * [[1.0], [0.3], [0.15]]
    mixing[0] = 1 + 0.15 * mixing[0]
    picture = generator.uniform(60, 200) + generator.uniform(15, 60) * clouds @ mixing
    whole: FrameArray = picture.clip(0, 255).astype(np.uint8)
    return cv2.medianBlur(whole, 5) if generator.random() < 0.3 else whole


def _draw_collage(generator: np.random.Generator, size_px: int) -> FrameArray:
    """Heap up shapes and fill some of the heap's colours with textures of their own."""
    canvas = draw_noise(generator, size_px, size_px)
    for _ in range(generator.integers(2, 7)):
        mask = np.zeros((size_px, size_px, 3), np.uint8)
        draw_leaves(generator, mask, n_shapes=int(generator.integers(1, 5)))
        if generator.random() < 0.6:
            filling = draw_noise(generator, size_px, size_px)
        else:
            filling = np.full_like(canvas, random_colour(generator))
        drawn = mask.any(axis=2)
        canvas[drawn] = filling[drawn]
    return canvas


def _iterate(maps: FloatArray, generator: np.random.Generator) -> FloatArray:
    """Play the chaos game with many points side by side."""
    chances = np.abs(np.linalg.det(maps[:, :, :2])) + 0.02
    steps = _N_POINTS // _N_CHAINS + 12
    chosen = generator.choice(len(maps), (steps, _N_CHAINS), p=chances / chances.sum())
    points = np.zeros((_N_CHAINS, 2))
    path = []
    for row in chosen:
        step = maps[row]
        points = np.einsum("nij,nj->ni", step[:, :, :2], points) + step[:, :, 2]
        points = points.clip(-1e3, 1e3)
        path.append(points)
    orbit: FloatArray = np.concatenate(path[12:])
    return orbit


def _turn(angle: float) -> FloatArray:
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
