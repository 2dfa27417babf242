"""The backbone in 8-bit integers, quantised here and written as a LiteRT file.

Every sum here is exact in double precision: what is added up are integers, or multiples of a
power of two. So every machine writes the same bytes, and a run predicts on another machine than
its store was made on. (TensorFlow's converter gives another file on another processor, and knows
no bias correction.) The network is calibrated on pictures that are computed from a seed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from features.records import FloatArray, FrameArray

_N_PICTURES = 8
_SEED = 0
_N_SQUARES = 400
_MOST_GRAIN = 8
# What the exact path keeps of a number: activations are multiples of the first, kernels have
# that many bits. Sums of many of their products, each below 2^13, still fit into 53 bits.
_ACTIVATION_STEP = 2.0**-12
_KERNEL_BITS = 16
_MOST_BIAS = 2.0**29


@dataclass(frozen=True, slots=True, eq=False)
class _Convolution:
    """A convolution with its batch norm folded in, in real numbers or in integers.

    The kernel is (height, width, inputs, outputs), a depthwise one (height, width, channels, 1).
    """

    kernel: FloatArray
    bias: FloatArray
    stride: int
    is_depthwise: bool
    has_relu6: bool = False

    @property
    def n_outputs(self) -> int:
        return len(self.bias)


@dataclass(frozen=True, slots=True)
class _Scale:
    """What an 8-bit integer stands for: scale * (value - zero)."""

    scale: float
    zero: int


@dataclass(frozen=True, slots=True, eq=False)
class _Step:
    """An operation in integers; without a convolution it adds the input of its block."""

    convolution: _Convolution | None
    output: _Scale
    shape: tuple[int, ...]  # height, width, channels
    kernel_scales: FloatArray
    bias_scales: FloatArray


_PIXELS = _Scale(float(np.float32(1 / 127.5)), 0)


def quantise_backbone(model: Any, *, size_px: int) -> bytes:
    """Return what `build_backbone` built as a LiteRT file: uint8 in, float32 out, int8 between."""
    (network,) = (layer for layer in model.layers if hasattr(layer, "layers"))
    pictures = draw_pictures(_N_PICTURES, size_px, seed=_SEED)
    steps, pooled = _quantise(_read_layers(network), pictures)
    return _write_model(steps, pooled, size_px)


def draw_pictures(n_pictures: int, size_px: int, *, seed: int) -> FrameArray:
    """Draw pictures that are to a network as photographs are: squares over squares, and grain."""
    source = np.random.PCG64(seed)  # what it gives raw never changes with NumPy's version
    pictures = np.zeros((n_pictures, size_px, size_px, 3), np.int64)
    for picture in pictures:
        chances = (source.random_raw(_N_SQUARES * 7) >> np.uint64(16)).astype(np.int64)
        for size, row, column, grey, *colour in chances.reshape(-1, 7).tolist():
            # As in nature, things half as large are four times as many.
            radius = max(1, size_px * 8 // (16 + size % (size_px * 2)))
            row, column = row % size_px, column % size_px
            picture[
                max(row - radius, 0) : row + radius, max(column - radius, 0) : column + radius
            ] = [(3 * (grey % 256) + part % 256) // 4 for part in colour]
    grain = source.random_raw(pictures[..., 0].size) % (2 * _MOST_GRAIN + 1)
    pictures += grain.astype(np.int64).reshape(*pictures.shape[:3], 1) - _MOST_GRAIN
    return np.clip(pictures, 0, 255).astype(np.uint8)


def _read_layers(network: Any) -> list[_Convolution | None]:
    """List the convolutions of MobileNetV2 in their order, None for an addition."""
    layers: list[_Convolution | None] = []
    kernel, stride = np.empty(0), 1
    for layer in network.layers:
        kind = type(layer).__name__
        if kind in ("Conv2D", "DepthwiseConv2D"):
            kernel, stride = np.asarray(layer.kernel, np.float64), layer.strides[0]
            is_depthwise = kind == "DepthwiseConv2D"
        elif kind == "BatchNormalization":
            gamma, beta, mean, variance = (np.asarray(w, np.float64) for w in layer.get_weights())
            factor = gamma / np.sqrt(variance + layer.epsilon)
            folded = kernel * (factor[:, None] if is_depthwise else factor)
            layers.append(_Convolution(folded, beta - mean * factor, stride, is_depthwise))
        elif kind == "ReLU":
            last = layers[-1]
            layers[-1] = replace(last, has_relu6=True) if last else None
        elif kind == "Add":
            layers.append(None)
    return layers


def _quantise(
    layers: Sequence[_Convolution | None], pictures: FrameArray
) -> tuple[list[_Step], _Scale]:
    """Quantise layer by layer, running the exact network and that in integers side by side."""
    # Exactly, 127.5 is the middle of the grey levels; correcting the first bias makes up for it.
    exact = deque([_round(pictures / 127.5 - 1, _ACTIVATION_STEP)], maxlen=4)
    rough = deque([(pictures.astype(np.float64) - 128) * _PIXELS.scale], maxlen=4)
    steps: list[_Step] = []
    given = _PIXELS
    for layer in layers:
        if layer is None:
            # An addition ends a block of three convolutions, and adds what went into it.
            exact.append(exact[-1] + exact[0])
            rough.append(rough[-1] + rough[0])
            output = _choose_scale(exact[-1])
            step = _Step(None, output, exact[-1].shape[1:], np.empty(0), np.empty(0))
        else:
            largest = float(np.abs(layer.kernel).max())
            kernel = _round(layer.kernel, 2.0 ** (np.frexp(largest)[1] - _KERNEL_BITS))
            layer = replace(layer, kernel=kernel)
            wanted = _round(_convolve(exact[-1], layer) + layer.bias, _ACTIVATION_STEP)
            exact.append(np.clip(wanted, 0, 6) if layer.has_relu6 else wanted)
            output = _choose_scale(exact[-1])
            step, real = _quantise_convolution(layer, given, output, rough[-1], wanted)
            rough.append(np.clip(real, 0, 6) if layer.has_relu6 else real)
        values = np.clip(np.rint(rough[-1] / output.scale) + output.zero, -128, 127)
        rough[-1] = (values - output.zero) * output.scale
        given = output
        steps.append(step)
    pooled = exact[-1].sum(axis=(1, 2)) / np.prod(exact[-1].shape[1:3])
    return steps, _choose_scale(pooled)


def _quantise_convolution(
    layer: _Convolution, given: _Scale, output: _Scale, rough: FloatArray, wanted: FloatArray
) -> tuple[_Step, FloatArray]:
    """Round the kernel channel by channel, and choose the bias so that no mean is shifted."""
    flat = np.abs(layer.kernel.reshape(-1, layer.n_outputs))
    # A channel of nearly no kernel must not ask for a bias beyond 32 bits.
    least = np.abs(layer.bias) / given.scale / _MOST_BIAS + np.finfo(np.float32).tiny
    scales = np.maximum(flat.max(axis=0) / 127, least).astype(np.float32).astype(np.float64)
    kernel = np.rint(layer.kernel / (scales[:, None] if layer.is_depthwise else scales))
    sums = _convolve(np.rint(rough / given.scale), replace(layer, kernel=kernel))
    units = given.scale * scales
    n = sums.size // layer.n_outputs
    shift = wanted.sum(axis=(0, 1, 2)) - sums.sum(axis=(0, 1, 2)) * units
    bias = np.rint(shift / n / units)
    step = _Step(replace(layer, kernel=kernel, bias=bias), output, sums.shape[1:], scales, units)
    return step, (sums + bias) * units


def _convolve(pictures: FloatArray, layer: _Convolution) -> FloatArray:
    """Convolve with zeros around, so that strides begin as in TensorFlow's "same"."""
    height, width = layer.kernel.shape[:2]
    _, rows, columns, _ = pictures.shape
    out_rows, out_columns = -(-rows // layer.stride), -(-columns // layer.stride)
    above = max((out_rows - 1) * layer.stride + height - rows, 0)
    left = max((out_columns - 1) * layer.stride + width - columns, 0)
    pads = ((above // 2, above - above // 2), (left // 2, left - left // 2), (0, 0))
    convolved = []
    for picture in pictures:
        padded = np.pad(picture, pads)
        total = np.zeros((out_rows, out_columns, layer.n_outputs))
        for y, x in np.ndindex(height, width):
            rows_seen = slice(y, y + (out_rows - 1) * layer.stride + 1, layer.stride)
            columns_seen = slice(x, x + (out_columns - 1) * layer.stride + 1, layer.stride)
            seen, weights = padded[rows_seen, columns_seen], layer.kernel[y, x]
            total += seen * weights[:, 0] if layer.is_depthwise else seen @ weights
        convolved.append(total)
    return np.stack(convolved)


def _choose_scale(real: FloatArray) -> _Scale:
    """Choose scale and zero so that 8 bits reach from the least to the largest number."""
    low, high = min(float(real.min()), 0.0), max(float(real.max()), 1e-6)
    scale = float(np.float32((high - low) / 255))
    return _Scale(scale, round(-128 - low / scale))


def _round(real: FloatArray, step: float) -> FloatArray:
    rounded: FloatArray = np.rint(real / step) * step
    return rounded


def _write_model(steps: Sequence[_Step], pooled: _Scale, size_px: int) -> bytes:
    writer = _ModelWriter()
    schema = writer.schema
    shape = (1, size_px, size_px, 3)
    frames = writer.add_tensor(shape, "UINT8", _PIXELS.scale, _PIXELS.zero + 128)
    places = deque([writer.add_tensor(shape, "INT8", _PIXELS.scale, _PIXELS.zero)], maxlen=4)
    writer.add_operator("QUANTIZE", 1, [frames], places[-1], schema.QuantizeOptionsT())
    for step in steps:
        place = writer.add_tensor((1, *step.shape), "INT8", step.output.scale, step.output.zero)
        layer = step.convolution
        if layer is None:
            options = schema.AddOptionsT()
            writer.add_operator("ADD", 2, [places[-1], places[0]], place, options)
        else:
            kernel = layer.kernel.transpose(3, 0, 1, 2).astype(np.int8)
            bias = layer.bias.astype(np.int32)
            axis = 3 if layer.is_depthwise else 0
            inputs = [
                places[-1],
                writer.add_tensor(
                    kernel.shape, "INT8", step.kernel_scales, axis=axis, content=kernel
                ),
                writer.add_tensor(bias.shape, "INT32", step.bias_scales, content=bias),
            ]
            if layer.is_depthwise:
                options = schema.DepthwiseConv2DOptionsT(depthMultiplier=1)
            else:
                options = schema.Conv2DOptionsT()
            options.strideH = options.strideW = layer.stride
            options.padding = schema.Padding.SAME
            if layer.has_relu6:
                options.fusedActivationFunction = schema.ActivationFunctionType.RELU6
            code = "DEPTHWISE_CONV_2D" if layer.is_depthwise else "CONV_2D"
            writer.add_operator(code, 3, inputs, place, options)
        places.append(place)
    n_channels = steps[-1].shape[-1]
    means = writer.add_tensor((1, n_channels), "INT8", pooled.scale, pooled.zero)
    vectors = writer.add_tensor((1, n_channels), "FLOAT32")
    axes = writer.add_tensor((2,), "INT32", content=np.array([1, 2], np.int32))
    writer.add_operator("MEAN", 2, [places[-1], axes], means, schema.ReducerOptionsT())
    writer.add_operator("DEQUANTIZE", 2, [means], vectors, schema.DequantizeOptionsT())
    return writer.finish(frames, vectors)


class _ModelWriter:
    """Lays a network out as LiteRT reads it."""

    def __init__(self) -> None:
        from ai_edge_litert import schema_py_generated

        self.schema: Any = schema_py_generated
        self._graph = self.schema.SubGraphT()
        self._graph.tensors, self._graph.operators = [], []
        self._model = self.schema.ModelT()
        self._model.version, self._model.description = 3, "framehead"
        self._model.subgraphs, self._model.operatorCodes = [self._graph], []
        self._model.buffers = [self.schema.BufferT()]  # the first is that of no content
        self._codes: dict[str, int] = {}

    def add_tensor(
        self,
        shape: tuple[int, ...],
        kind: str,
        scales: FloatArray | float | None = None,
        zero: int = 0,
        *,
        axis: int = 0,
        content: npt.NDArray[Any] | None = None,
    ) -> int:
        tensor = self.schema.TensorT()
        tensor.shape = np.array(shape, np.int32)
        tensor.type = getattr(self.schema.TensorType, kind)
        tensor.name = f"{len(self._graph.tensors)}"
        tensor.buffer = 0
        if scales is not None:
            tensor.quantization = self.schema.QuantizationParametersT()
            tensor.quantization.scale = np.atleast_1d(scales).astype(np.float32)
            tensor.quantization.zeroPoint = np.full(np.size(scales), zero, np.int64)
            tensor.quantization.quantizedDimension = axis
        if content is not None:
            buffer = self.schema.BufferT()
            buffer.data = np.frombuffer(content.tobytes(), np.uint8)
            tensor.buffer = len(self._model.buffers)
            self._model.buffers.append(buffer)
        self._graph.tensors.append(tensor)
        return len(self._graph.tensors) - 1

    def add_operator(
        self, code: str, version: int, inputs: list[int], output: int, options: Any
    ) -> None:
        if code not in self._codes:
            entry = self.schema.OperatorCodeT()
            number = getattr(self.schema.BuiltinOperator, code)
            entry.builtinCode = entry.deprecatedBuiltinCode = number
            entry.version = version
            self._codes[code] = len(self._model.operatorCodes)
            self._model.operatorCodes.append(entry)
        operator = self.schema.OperatorT()
        operator.opcodeIndex = self._codes[code]
        operator.inputs, operator.outputs = np.array(inputs, np.int32), np.array([output], np.int32)
        name = type(options).__name__[:-1]
        operator.builtinOptionsType = getattr(self.schema.BuiltinOptions, name)
        operator.builtinOptions = options
        self._graph.operators.append(operator)

    def finish(self, input_tensor: int, output_tensor: int) -> bytes:
        import flatbuffers

        self._graph.inputs = np.array([input_tensor], np.int32)
        self._graph.outputs = np.array([output_tensor], np.int32)
        builder = flatbuffers.Builder(1 << 20)
        builder.Finish(self._model.Pack(builder), file_identifier=b"TFL3")
        return bytes(builder.Output())
