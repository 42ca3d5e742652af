"""An ONNX file read and checked: one image in, float32 throughout, every size fixed; anything else is refused in one line."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnx.inliner
import onnx.version_converter
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from edge.errors import InputError
from quantize.check import blamed
from quantize.quiet import quiet

OLDEST_OPSET = 7
"""What ONNX Runtime and our operators understand as it is; older files are raised to NEWER_OPSET first."""
NEWER_OPSET = 17

MAGIC = {
    b"PK\x03\x04": "a zip archive, such as torch.save writes; give it as .pt",
    b"\x89HDF": "an HDF5 file, such as Keras writes; convert it with tf2onnx",
    b"\x1f\x8b": "gzip; unpack it",
    b"version https://git-lfs": "a pointer of Git LFS; fetch the file itself with git lfs pull",
    b"<": "a web page or XML; download the model itself",
}
QUANTIZED = ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "ConvInteger", "MatMulInteger")
FLOATS = (TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE)
MOVES = ("Transpose", "Identity", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Slice", "Gather", "Split", "Concat")
WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul", "BatchNormalization")


@dataclass(frozen=True, slots=True, eq=False)
class OnnxFile:
    """`given` is the file's own graph with its sizes fixed; `model` the same on float32 [1, 3, h, w]."""

    given: ModelProto
    model: ModelProto
    input_name: str
    input_dtype: str
    size_wh: tuple[int, int]
    channels_last: bool


def read_onnx(path: Path, size_wh: tuple[int, int] | None) -> OnnxFile:
    """The file at `path`, its free height and width set to `size_wh`. Raises InputError for what cannot be imported."""
    model = _parse(path)
    _load_external_data(model, path)
    _check_operator_set(model, path)
    if model.functions:
        with blamed(f"{path}: its local functions cannot be inlined"):
            model = onnx.inliner.inline_local_functions(model)
    if _operator_set(model) < OLDEST_OPSET:
        with (
            blamed(f"{path}: its opset {_operator_set(model)} cannot be raised", f"; export it with opset {NEWER_OPSET}"),
            quiet(),
        ):
            model = onnx.version_converter.convert_version(model, NEWER_OPSET)
    _check_is_for_inference(model, path)
    _to_float32(model)
    _name_apart(model)
    _check_weights(model, path)
    image = _only_input(model, path)
    channels_last, size_wh = _fix_shape(model, image, size_wh, path)
    given = ModelProto()
    given.CopyFrom(model)
    dtype = _take_float32(model, image, path)
    _check_is_not_quantized(model, path)
    if channels_last:
        _take_channels_first(model, image, size_wh)
    return OnnxFile(given, model, image.name, dtype, size_wh, channels_last)


def nodes(graph: GraphProto) -> Iterator[NodeProto]:
    """Every node, those of the branches and bodies of control flow included."""
    for inner in _graphs(graph):
        yield from inner.node


def _graphs(graph: GraphProto) -> Iterator[GraphProto]:
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == AttributeProto.GRAPH:
                yield from _graphs(attribute.g)


def _parse(path: Path) -> ModelProto:
    try:
        data = path.read_bytes()
    except IsADirectoryError:
        raise InputError(f"{path}: a folder; give the .onnx file in it") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    if not data:
        raise InputError(f"{path}: empty; export or download it again")
    for magic, what in MAGIC.items():
        if data.startswith(magic):
            raise InputError(f"{path}: not an ONNX file but {what}")
    if data[4:8] == b"TFL3":
        raise InputError(f"{path}: not an ONNX file but a TensorFlow Lite model; name it .tflite")
    model = ModelProto()
    try:
        model.ParseFromString(data)
    except Exception:  # google.protobuf.message.DecodeError, which needs protobuf's own import
        model.Clear()
    if model.graph.node:
        return model
    if data[0] == 0x08 and len(data) > 1 and 0 < data[1] < 32:  # field 1, ir_version, which every exporter writes first
        raise InputError(f"{path}: a damaged ONNX file, cut short at {len(data)} bytes or changed; export or download it again")
    if _bits_per_byte(data) > 7.5:
        raise InputError(f"{path}: not an ONNX file, or encrypted; give the plain .onnx file")
    raise InputError(f"{path}: not an ONNX file; give one that torch.onnx, tf2onnx or paddle2onnx wrote")


def _bits_per_byte(data: bytes) -> float:
    """The entropy of the bytes (Shannon, 1948): 8 for noise, under 7 for most files that are neither packed nor encrypted."""
    counts = np.bincount(np.frombuffer(data[:1_000_000], np.uint8), minlength=256)
    share = counts[counts > 0] / counts.sum()
    return float(-(share * np.log2(share)).sum())


def _tensors(graph: GraphProto) -> Iterator[TensorProto]:
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            yield from (
                (attribute.t, *attribute.tensors) if attribute.type in (AttributeProto.TENSOR, AttributeProto.TENSORS) else ()
            )
            for inner in (attribute.g, *attribute.graphs):
                yield from _tensors(inner)


def _load_external_data(model: ModelProto, path: Path) -> None:
    outside = [tensor for tensor in _tensors(model.graph) if tensor.data_location == TensorProto.EXTERNAL]
    if not outside:
        return
    for tensor in outside:
        location = next((entry.value for entry in tensor.external_data if entry.key == "location"), "")
        if not location or not (path.parent / location).is_file():
            raise InputError(f"{path}: its weights are in the file {location!r}, which is not beside it; put it there")
    with blamed(f"{path}: its external weights cannot be read", "; export or download the file and its weights again"):
        onnx.external_data_helper.load_external_data_for_model(model, str(path.parent))


def _operator_set(model: ModelProto) -> int:
    return max((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=0)


def _check_operator_set(model: ModelProto, path: Path) -> None:
    version, newest = _operator_set(model), onnx.defs.onnx_opset_version()
    if not 0 < version <= newest:
        raise InputError(f"{path}: opset {version}, known are 1 to {newest}; export it with opset {NEWER_OPSET}")


def _check_is_for_inference(model: ModelProto, path: Path) -> None:
    if model.training_info or any(_is_training(node, model.graph) for node in nodes(model.graph)):
        raise InputError(f"{path}: a graph for training; export it for inference, after network.eval()")
    foreign = [node for node in nodes(model.graph) if node.domain not in ("", "ai.onnx", "com.microsoft")]
    if foreign:
        raise unsupported([(node.op_type, node.name or node.output[0], node.domain) for node in foreign], path)


def _is_training(node: NodeProto, graph: GraphProto) -> bool:
    if node.op_type == "Dropout" and len(node.input) > 2:
        return any(numpy_helper.to_array(tensor).any() for tensor in graph.initializer if tensor.name == node.input[2])
    is_set = any(attribute.name == "training_mode" and attribute.i for attribute in node.attribute)
    return is_set or node.op_type.endswith("Grad")


def unsupported(found: Sequence[tuple[str, str, str]], path: Path) -> InputError:
    """The refusal of operators that have no counterpart in torch here, given as (operator, node, domain)."""
    op, name, domain = found[0]
    others = Counter(other for other, *_ in found)
    del others[op]
    more = f", nor {', '.join(sorted(others))}" if others else ""
    hints = "export the network without its post-processing (NMS, decoding), as plain operators, or give package.module:factory"
    if op in ("If", "Loop", "Scan"):
        hints = "export it with fixed sizes and without branches that depend on the picture, or give package.module:factory"
    of = f" of domain {domain!r}" if domain not in ("", "ai.onnx") else ""
    return InputError(f"{path}: operator {op}{of} (node {name!r}, {len(found)} such in all) cannot be imported{more}; {hints}")


def _check_is_not_quantized(model: ModelProto, path: Path) -> None:
    for node in nodes(model.graph):
        if node.op_type in QUANTIZED or node.op_type.startswith(("QLinear", "QGemm", "QAttention")):
            where = f"{node.op_type}, node {node.name or node.output[0]!r}"
            raise InputError(f"{path}: already quantized ({where}); give the float model that it was made of")


def _check_weights(model: ModelProto, path: Path) -> None:
    readers = {name: node for node in nodes(model.graph) if node.op_type in WEIGHTED for name in node.input}
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT and tensor.name in readers:
            bad = int((~np.isfinite(numpy_helper.to_array(tensor))).sum())
            if bad:
                raise InputError(
                    f"{path}: the weights {tensor.name!r} hold {bad} that are not finite; train or export it again"
                )


def _to_float32(model: ModelProto) -> None:
    """Half, bfloat16 and double as float32: weights, constants, casts, inputs and outputs."""
    for tensor in _tensors(model.graph):
        if tensor.data_type in FLOATS:
            array = numpy_helper.to_array(tensor).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    for node in nodes(model.graph):
        for attribute in node.attribute:
            if attribute.name in ("to", "dtype") and attribute.i in FLOATS:
                attribute.i = TensorProto.FLOAT
    for value in (*model.graph.input, *model.graph.output):
        if value.type.tensor_type.elem_type in FLOATS:
            value.type.tensor_type.elem_type = TensorProto.FLOAT
    for graph in _graphs(model.graph):
        del graph.value_info[:]


def _name_apart(model: ModelProto) -> None:
    """Give each node a name of its own: ONNX Runtime refuses a name that two have."""
    seen: set[str] = set()
    for node in nodes(model.graph):
        stem, number = node.name, 1
        while node.name and node.name in seen:
            node.name, number = f"{stem}_{number}", number + 1
        seen.add(node.name)


def _only_input(model: ModelProto, path: Path) -> onnx.ValueInfoProto:
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in constants]
    if len(inputs) != 1:
        names = ", ".join(value.name for value in inputs) or "none"
        raise InputError(f"{path}: {len(inputs)} inputs ({names}), expected one image; export it with the others as constants")
    kept = inputs[0]
    del model.graph.input[:]
    image: onnx.ValueInfoProto = model.graph.input.add()
    image.CopyFrom(kept)
    return image


def _fix_shape(
    model: ModelProto, image: onnx.ValueInfoProto, size_wh: tuple[int, int] | None, path: Path
) -> tuple[bool, tuple[int, int]]:
    """Set the input's shape, drop all shapes that follow from it, and say whether the channels come last."""
    dims = image.type.tensor_type.shape.dim
    sizes = [dim.dim_value if dim.dim_value > 0 else None for dim in dims]
    shown = "[" + ", ".join(str(size or dim.dim_param or "?") for size, dim in zip(sizes, dims, strict=True)) + "]"
    what = f"{path}: its input {image.name!r} is {shown}"
    expected = "expected one RGB or BGR image, [1, 3, height, width] or [1, height, width, 3]"
    if len(sizes) != 4:
        raise InputError(f"{what}, {expected}")
    is_last = sizes[3] == 3 if 3 in (sizes[1], sizes[3]) else _begins_with_channels_last(model, image.name)
    if sizes[1] == sizes[3] == 3:
        is_last = _begins_with_channels_last(model, image.name)
    batch, channels, (height, width) = sizes[0], sizes[3 if is_last else 1], sizes[1:3] if is_last else sizes[2:4]
    if channels not in (3, None):
        raise InputError(f"{what}, {expected}")
    if batch not in (1, None):
        raise InputError(f"{what}, a batch of {batch}; export it with a batch of 1")
    if (height is None or width is None) and size_wh is None:
        raise InputError(f"{what}, whose height and width are free; fix them with --size WIDTHxHEIGHT")
    width_, height_ = size_wh or (width or 0, height or 0)
    if height not in (height_, None) or width not in (width_, None):
        raise InputError(f"{what}, which --size {width_}x{height_} cannot change; leave --size out or export it anew")
    fixed = [1, height_, width_, 3] if is_last else [1, 3, height_, width_]
    for dim, size in zip(dims, fixed, strict=True):
        dim.dim_value = size
    for value in model.graph.output:
        value.type.tensor_type.ClearField("shape")
    del model.graph.value_info[:]
    return is_last, (width_, height_)


def _begins_with_channels_last(model: ModelProto, name: str) -> bool:
    first = next((node for node in model.graph.node if name in node.input), None)
    return first is not None and any(
        attribute.name == "perm" and list(attribute.ints) == [0, 3, 1, 2] for attribute in first.attribute
    )


def _take_float32(model: ModelProto, image: onnx.ValueInfoProto, path: Path) -> str:
    """Change a uint8 input to float32 of the same values, and the casts behind it; the file's own type."""
    kind = image.type.tensor_type.elem_type
    if kind == TensorProto.FLOAT:
        return "float32"
    if kind != TensorProto.UINT8:
        name = TensorProto.DataType.Name(kind).lower()
        raise InputError(f"{path}: its input {image.name!r} is {name}, expected float32 or uint8; export it with one of these")
    image.type.tensor_type.elem_type = TensorProto.FLOAT
    pixels = {image.name}
    changed: list[NodeProto] = []
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if not pixels.intersection(node.input):
            changed.append(node)
        elif node.op_type == "Cast" and helper.get_node_attr_value(node, "to") == TensorProto.FLOAT:
            changed.append(helper.make_node("Identity", node.input, node.output, node.name))
        elif node.op_type == "DequantizeLinear" and all(name in constants for name in node.input[1:]):
            changed.extend(_dequantize(model, node, constants))
        elif node.op_type in MOVES and all(name in pixels or name in constants for name in node.input):
            pixels.update(node.output)
            changed.append(node)
        else:
            raise InputError(
                f"{path}: its uint8 input goes into {node.op_type} (node {node.name or node.output[0]!r}) as integers; "
                "export it with a float32 input"
            )
    del model.graph.node[:]
    model.graph.node.extend(changed)
    return "uint8"


def _dequantize(model: ModelProto, node: NodeProto, constants: dict[str, TensorProto]) -> list[NodeProto]:
    """(pixel - zero point) * scale on pixels that are floats already."""
    scale = numpy_helper.to_array(constants[node.input[1]])
    zero = numpy_helper.to_array(constants[node.input[2]]) if len(node.input) > 2 else np.zeros_like(scale)
    axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 1)
    shape = [-1] + [1] * (3 - axis % 4) if scale.ndim else []
    stem = node.output[0]
    for role, array in (("zero_point", zero), ("scale", scale)):
        model.graph.initializer.append(numpy_helper.from_array(array.astype(np.float32).reshape(shape), f"{stem}.{role}"))
    return [
        helper.make_node("Sub", [node.input[0], f"{stem}.zero_point"], [f"{stem}.centred"], node.name),
        helper.make_node("Mul", [f"{stem}.centred", f"{stem}.scale"], [stem], f"{node.name}_scale"),
    ]


def _take_channels_first(model: ModelProto, image: onnx.ValueInfoProto, size_wh: tuple[int, int]) -> None:
    """Change an input [1, h, w, 3] to [1, 3, h, w], transposed behind it; ONNX Runtime moves and cancels the transposes."""
    inner = f"{image.name}.channels_last"
    for node in nodes(model.graph):
        for index, name in enumerate(node.input):
            if name == image.name:
                node.input[index] = inner
    for dim, size in zip(image.type.tensor_type.shape.dim, (1, 3, size_wh[1], size_wh[0]), strict=True):
        dim.dim_value = size
    model.graph.node.insert(0, helper.make_node("Transpose", [image.name], [inner], "to_channels_last", perm=[0, 2, 3, 1]))
