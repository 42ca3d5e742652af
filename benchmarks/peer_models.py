"""The model files of other projects' loops, made of the files that our bundles are made of, so that the weights are one.

    .venv/bin/python benchmarks/peer_models.py yolov8 yolox_nano_416.onnx coco_labels.txt FILE.onnx
    PEER/bin/python benchmarks/peer_models.py mediapipe BUNDLE.edge FILE.tflite

The first gives a YOLOX the input, the output and the metadata of a YOLOv8 that Ultralytics exported: nothing of Ultralytics
is in it, its loop runs it, and `edge-quantize --head yolov8` makes a bundle of it. The second takes the TFLite file out of a
bundle and adds the labels as MediaPipe wants them; it needs MediaPipe's interpreter, and of ours nothing.
"""

import argparse
import json
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType


def yolov8(original: str, labels: str, out: str) -> None:
    """RGB from 0 to 1 in, boxes and class scores [1, 4 + classes, cells] out, of YOLOX's BGR from 0 to 255 and raw grid."""
    import numpy as np
    import onnx
    from onnx import helper, numpy_helper

    model = onnx.load(original)
    graph = model.graph
    height, width = (d.dim_value for d in graph.input[0].type.tensor_type.shape.dim[2:])
    raw, cells = graph.output[0].name, graph.output[0].type.tensor_type.shape.dim[1].dim_value
    names = Path(labels).read_text().splitlines()

    # YOLOX first puts four pixels of three channels each into twelve channels: their order and scale go into the weights
    first = next(node for node in graph.node if node.op_type == "Conv")
    weights = next(tensor for tensor in graph.initializer if tensor.name == first.input[1])
    values = numpy_helper.to_array(weights)
    outs, _, *kernel = values.shape
    values = values.reshape(outs, 4, 3, *kernel)[:, :, ::-1].reshape(outs, 12, *kernel) * np.float32(255)
    weights.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(values), weights.name))

    grids = []
    for stride in (8, 16, 32):
        x, y = np.meshgrid(np.arange(width // stride), np.arange(height // stride))
        grids.append(np.stack((x.ravel(), y.ravel(), np.full(x.size, stride)), axis=1))
    grid = np.concatenate(grids).astype(np.float32)[np.newaxis]
    constants = {"cells": grid[..., :2], "strides": grid[..., 2:], "parts": np.array([2, 2, 1, len(names)])}
    graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    opset = next(entry.version for entry in model.opset_import if not entry.domain)
    if opset < 13:
        model = onnx.version_converter.convert_version(model, 13)
        graph = model.graph
    graph.node.extend(
        [
            helper.make_node("Split", [raw, "parts"], ["xy", "wh", "objectness", "classes"], axis=2),
            helper.make_node("Add", ["xy", "cells"], ["in_cells"]),
            helper.make_node("Mul", ["in_cells", "strides"], ["centres"]),
            helper.make_node("Exp", ["wh"], ["in_strides"]),
            helper.make_node("Mul", ["in_strides", "strides"], ["sizes"]),
            helper.make_node("Mul", ["objectness", "classes"], ["scores"]),
            helper.make_node("Concat", ["centres", "sizes", "scores"], ["rows"], axis=2),
            helper.make_node("Transpose", ["rows"], ["output0"], perm=[0, 2, 1]),
        ]
    )
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info("output0", onnx.TensorProto.FLOAT, [1, 4 + len(names), cells]))
    about = {
        "stride": 32,
        "task": "detect",
        "batch": 1,
        "imgsz": [height, width],
        "names": dict(enumerate(names)),
        "channels": 3,
    }
    helper.set_model_props(model, {key: str(value) for key, value in about.items()})
    onnx.checker.check_model(model)
    onnx.save(model, out)


def mediapipe(bundle: str, out: str) -> None:
    """A bundle's uint8 TFLite detector with its labels as metadata."""
    with zipfile.ZipFile(bundle) as archive:
        card = json.loads(archive.read("card.json"))
        variant = next((v for v in card["variants"] if v["engine"] == "tflite" and v["input"]["dtype"] == "uint8"), None)
        if card["head"] != "ssd" or variant is None:
            sys.exit(f"{bundle}: no uint8 TFLite variant of a detector with its post-processing inside (head ssd)")
        content = archive.read(variant["file"])
    if find_spec("mediapipe.tasks.cc") is None:  # of what some wheels lack only the metadata's least parser version is asked
        lacking = ["mediapipe.tasks.cc", "mediapipe.tasks.cc.metadata", "mediapipe.tasks.cc.metadata.python"]
        sys.modules.update({name: ModuleType(name) for name in lacking})
        parser_version = ModuleType("_pywrap_metadata_version")
        parser_version.GetMinimumMetadataParserVersion = lambda _: "1.0.0"
        sys.modules[lacking[-1]]._pywrap_metadata_version = parser_version
    from mediapipe.tasks.python.metadata.metadata_writers import metadata_writer, object_detector

    labels = metadata_writer.Labels().add([label["name"] for label in card["labels"]])
    create = object_detector.MetadataWriter.create_for_models_with_nms
    Path(out).write_bytes(create(bytearray(content), [0], [1], labels).populate()[0])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    peers = parser.add_subparsers(required=True)
    for make, arguments in ((yolov8, ("original", "labels", "out")), (mediapipe, ("bundle", "out"))):
        peer = peers.add_parser(make.__name__, description=(make.__doc__ or "").split("\n")[0])
        for argument in arguments:
            peer.add_argument(argument)
        peer.set_defaults(make=make)
    options = vars(parser.parse_args())
    options.pop("make")(**options)
