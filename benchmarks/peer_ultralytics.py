"""The loop of Ultralytics over a video, a JSON line a frame; needs an environment with `ultralytics` and `onnxruntime`.

Ultralytics is AGPL-3.0: nothing of it is shipped here, and this is only run where you installed it (loop.py says when
it cannot be). The model is a detector that `yolo export format=onnx` made, or one that peer_models.py made to look so.
"""

import argparse
import json
import os
from importlib.metadata import version

os.environ.setdefault("YOLO_VERBOSE", "false")  # its own words go to standard output, too
os.environ.setdefault("YOLO_OFFLINE", "true")  # no look at the network at every start
os.environ.setdefault("YOLO_AUTOINSTALL", "false")  # it would call pip for what it misses

import onnxruntime as ort
from ultralytics import YOLO

parser = argparse.ArgumentParser()
parser.add_argument("model", help="an .onnx file")
parser.add_argument("video")
parser.add_argument("--threads", type=int, default=1, help="of ONNX Runtime; Ultralytics sets those of torch itself")
parser.add_argument("--spin", action="store_true")
parser.add_argument("--score", type=float, default=0.25)
parser.add_argument("--iou", type=float, default=0.65)
parser.add_argument("--frames", type=int, default=0, help="stop after this many")
args = parser.parse_args()

open_session = ort.InferenceSession


def open_with_threads(path, options=None, **more):
    """Ultralytics gives no options, which is all cores, spinning; predict has no argument for them."""
    options = options or ort.SessionOptions()
    options.intra_op_num_threads = args.threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "1" if args.spin else "0")
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return open_session(path, options, **more)


ort.InferenceSession = open_with_threads
packages = {name: version(name) for name in ("ultralytics", "onnxruntime", "torch")}
print(json.dumps({"kind": "about", "loop": ", ".join(" ".join(one) for one in packages.items())}), flush=True)
model = YOLO(args.model, task="detect")
results = model.predict(args.video, stream=True, conf=args.score, iou=args.iou, device="cpu", verbose=False)
for count, result in enumerate(results):
    boxes = result.boxes
    found = zip(boxes.cls.tolist(), boxes.conf.tolist(), boxes.xyxy.tolist(), strict=True)
    objects = [{"label": result.names[int(i)], "score": score, "box_xyxy": box} for i, score, box in found]
    print(json.dumps({"seq": count, "objects": objects}), flush=True)
    if count + 1 == args.frames:
        break
