"""What the built-in backbone learns: one linear layer and one loss a task."""

from __future__ import annotations

from typing import Any

from pretext_descriptors import WIDTHS, DescriptorLoss
from pretext_pool import N_CATEGORIES, N_MOMENTS

from pipeline.demo.drawing.skeleton import JOINTS

# Layers of MobileNetV2 (alpha 0.35) in front of its strides 16 and 32, and their channels.
TAPS = {"block_6_expand_relu": 96, "block_13_expand_relu": 192}
_TEMPERATURE = 0.2


class Tasks:
    """The layers that turn embeddings into answers, and how wrong the answers are.

    Parameters
    ----------
    keras : module
        Its seed decides what the layers begin with.
    descriptors : DescriptorLoss
    """

    names = ("fine", "coarse", "pose", "place", "moment", "category", "descriptor", "views")

    def __init__(self, keras: Any, descriptors: DescriptorLoss) -> None:
        self._descriptors = descriptors
        n = 2 * len(JOINTS)
        self._maps = [keras.layers.Dense(len(JOINTS)) for _ in TAPS]
        for layer, width in zip(self._maps, TAPS.values(), strict=True):
            layer.build((None, None, None, width))
        self._pose = keras.layers.Dense(n + 2)
        self._place = keras.layers.Dense(n)
        self._moment = keras.layers.Dense(N_MOMENTS)
        self._category = keras.layers.Dense(N_CATEGORIES)
        self._told = [keras.layers.Dense(width) for width in WIDTHS.values()]
        self._project = keras.Sequential(
            [keras.layers.Dense(512, activation="relu"), keras.layers.Dense(128)]
        )
        layers = (self._pose, self._place, self._moment, self._category, *self._told)
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

        n = tf.shape(frames)[0] // 2
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
            # One view of each picture: descriptors cost as much as a third of the network.
            2.0 * self._descriptors([layer(vectors[:n]) for layer in self._told], frames[:n]),
            0.1 * _agreement(self._project(vectors)),
        ]


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
