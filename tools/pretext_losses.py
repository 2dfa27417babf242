"""What the built-in backbone learns: one linear layer and one loss a task."""

from __future__ import annotations

from typing import Any

from pretext_pool import N_CATEGORIES, N_MOMENTS

from features.drawing.skeleton import JOINTS

# Layers of MobileNetV2 (alpha 0.35) in front of its strides 16 and 32, and their channels.
TAPS = {"block_6_expand_relu": 96, "block_13_expand_relu": 192}
_TEMPERATURE = 0.2
_N_BINS = 4
_N_DIRECTIONS = 8


class Tasks:
    """The layers that turn embeddings into answers, and how wrong the answers are.

    Parameters
    ----------
    keras : module
    seed : int
    """

    names = ("fine", "coarse", "pose", "place", "moment", "category", "descriptor", "views")

    def __init__(self, keras: Any, seed: int) -> None:
        del seed  # Keras' own seed was set; layers draw from it in this order
        n = 2 * len(JOINTS)
        self._maps = [keras.layers.Dense(len(JOINTS)) for _ in TAPS]
        for layer, width in zip(self._maps, TAPS.values(), strict=True):
            layer.build((None, None, None, width))
        self._pose = keras.layers.Dense(n + 2)
        self._place = keras.layers.Dense(n)
        self._moment = keras.layers.Dense(N_MOMENTS)
        self._category = keras.layers.Dense(N_CATEGORIES)
        self._descriptor = keras.layers.Dense(descriptor_width())
        self._project = keras.Sequential(
            [keras.layers.Dense(512, activation="relu"), keras.layers.Dense(128)]
        )
        layers = (self._pose, self._place, self._moment, self._category, self._descriptor)
        for layer in (*layers, self._project):
            layer.build((None, 1280))
        layers = (*self._maps, *layers, self._project)
        self.variables = [v for layer in layers for v in layer.trainable_variables]

    def losses(
        self,
        frames: Any,
        taps: list[Any],
        vectors: Any,
        joints: Any,
        heading: Any,
        moments: Any,
        categories: Any,
    ) -> list[Any]:
        """Return the weighted loss of each task.

        Parameters
        ----------
        frames : tensor of float32, shape (2 n, size_px, size_px, 3)
            Within [-1, 1]; row i and row i + n are views of one picture.
        taps : list of tensor of float32, shape (2 n, cells, cells, channels)
            What the layers `TAPS` give.
        vectors : tensor of float32, shape (2 n, 1280)
        joints, heading, moments, categories
            As in `pretext_pool.Pictures`.

        Returns
        -------
        list of scalar tensor
            In the order of `names`.
        """
        import tensorflow as tf

        joints = tf.cast(joints, tf.float32)
        heading = tf.cast(heading, tf.float32)
        has_figure = tf.cast(moments >= 0, tf.float32)
        height = tf.maximum(
            tf.reduce_max(joints[:, :, 1], 1) - tf.reduce_min(joints[:, :, 1], 1), 0.05
        )
        relative = (joints - joints[:, :1]) / height[:, None, None]
        pose = tf.concat([4.0 * tf.reshape(relative, (tf.shape(joints)[0], -1)), 1.5 * heading], 1)
        place = 5.0 * tf.reshape(joints - 0.5, (tf.shape(joints)[0], -1))
        maps = [
            0.5 * _masked(_finding(layer(tap), joints), has_figure)
            for layer, tap in zip(self._maps, taps, strict=True)
        ]
        return [
            *maps,
            5.0 * _masked(tf.reduce_mean(_huber(self._pose(vectors) - pose), 1), has_figure),
            1.0 * _masked(tf.reduce_mean(_huber(self._place(vectors) - place), 1), has_figure),
            1.0 * _classification(self._moment(vectors), moments),
            0.2 * _classification(self._category(vectors), categories),
            1.0 * self._description_loss(frames, vectors),
            0.3 * _agreement(self._project(vectors)),
        ]

    def _description_loss(self, frames: Any, vectors: Any) -> Any:
        import tensorflow as tf

        described = describe(frames)
        mean, variance = tf.nn.moments(described, 0)
        target = (described - mean) * tf.math.rsqrt(variance + 1e-4)
        return tf.reduce_mean(_huber(self._descriptor(vectors) - target))


def descriptor_width() -> int:
    """Return how many numbers `describe` gives for one picture."""
    return 27 + 3 + _N_BINS**3 + 2 * 5 * _N_DIRECTIONS


def describe(frames: Any) -> Any:
    """Compute classical descriptors: colours on a grid, their spread and histogram, edges.

    Parameters
    ----------
    frames : tensor of float32, shape (n, size_px, size_px, 3)
        Within [-1, 1].

    Returns
    -------
    tensor of float32, shape (n, descriptor_width())
    """
    import tensorflow as tf

    n = tf.shape(frames)[0]
    small = tf.nn.avg_pool2d(frames, 4, 4, "VALID")
    cell_px = small.shape[1] // 3
    grid = tf.reshape(tf.nn.avg_pool2d(small, cell_px, cell_px, "VALID"), (n, 27))
    spread = tf.math.reduce_std(small, axis=(1, 2))
    bins = tf.cast(tf.clip_by_value((small + 1.0) * (_N_BINS / 2), 0, _N_BINS - 0.01), tf.int32)
    colour = (bins[..., 0] * _N_BINS + bins[..., 1]) * _N_BINS + bins[..., 2]
    histogram = tf.reduce_mean(tf.one_hot(tf.reshape(colour, (n, -1)), _N_BINS**3), axis=1)
    halved = tf.nn.avg_pool2d(frames, 2, 2, "VALID")
    edges = [_edges(tf.reduce_mean(picture, -1)) for picture in (small, halved)]
    return tf.stop_gradient(tf.concat([grid, spread, tf.sqrt(histogram), *edges], axis=1))


def _edges(grey: Any) -> Any:
    """Histogram the directions of edges, in each quarter and in the whole."""
    import tensorflow as tf

    n = tf.shape(grey)[0]
    down = grey[:, 2:, 1:-1] - grey[:, :-2, 1:-1]
    right = grey[:, 1:-1, 2:] - grey[:, 1:-1, :-2]
    strength = tf.sqrt(down**2 + right**2 + 1e-8)
    angle = tf.math.floormod(tf.atan2(down, right), 3.14159265)
    direction = tf.cast(angle * (_N_DIRECTIONS / 3.1416), tf.int32)
    votes = strength[..., None] * tf.one_hot(direction, _N_DIRECTIONS)
    half = grey.shape[1] // 2 - 1
    quarters = tf.reshape(tf.nn.avg_pool2d(votes, half, half, "VALID"), (n, 4, _N_DIRECTIONS))
    cells = tf.concat([quarters, tf.reduce_mean(quarters, 1, keepdims=True)], 1)
    return tf.reshape(tf.sqrt(cells), (n, 5 * _N_DIRECTIONS))


def _huber(error: Any) -> Any:
    import tensorflow as tf

    size = tf.abs(error)
    return tf.where(size < 1.0, 0.5 * size**2, size - 0.5)


def _finding(logits: Any, joints: Any) -> Any:
    """Say how badly the joints are found on a grid: cross-entropy over its cells.

    Supervision in the middle of the network teaches it where limbs are long before the
    pooled vector can tell.
    """
    import tensorflow as tf

    n, cells, _, n_joints = logits.shape
    middles = (tf.range(cells, dtype=tf.float32) + 0.5) / cells
    along = [-(((joints[..., axis : axis + 1] - middles) * cells) ** 2) for axis in (0, 1)]
    target = tf.nn.softmax(
        tf.reshape(along[1][..., :, None] + along[0][..., None, :], (n, n_joints, cells**2))
    )
    by_joint = tf.transpose(tf.reshape(logits, (n, cells**2, n_joints)), (0, 2, 1))
    entropy = tf.nn.softmax_cross_entropy_with_logits(target, by_joint)
    return tf.reduce_mean(entropy, axis=1)


def _masked(values: Any, mask: Any) -> Any:
    import tensorflow as tf

    return tf.reduce_sum(values * mask) / tf.maximum(tf.reduce_sum(mask), 1.0)


def _classification(logits: Any, classes: Any) -> Any:
    """Cross-entropy of those rows that have a class."""
    import tensorflow as tf

    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(tf.maximum(classes, 0), logits)
    return _masked(losses, tf.cast(classes >= 0, tf.float32))


def _agreement(projected: Any) -> Any:
    """Each view must find the other view of its picture among the whole batch."""
    import tensorflow as tf

    unit = tf.math.l2_normalize(projected, axis=1)
    n = tf.shape(unit)[0]
    likeness = tf.matmul(unit, unit, transpose_b=True) / _TEMPERATURE
    likeness -= 1e9 * tf.eye(n)
    other = tf.roll(tf.range(n), n // 2, axis=0)
    return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(other, likeness))
