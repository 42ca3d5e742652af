"""The loop of Ultralytics over a video, a JSON line a frame; needs `pip install ultralytics` and a model exported by it.

Ultralytics is AGPL-3.0: nothing of it is shipped here, and this is only run where you installed it (loop.py says when
it is not). Written from its documentation of `YOLO.predict(stream=True)` and `Results.boxes`; not run by us.
"""

import argparse
import json

import torch
from ultralytics import YOLO

parser = argparse.ArgumentParser()
parser.add_argument("model", help="an .onnx file that `yolo export format=onnx` made")
parser.add_argument("video")
parser.add_argument("--threads", type=int, default=1, help="of torch; ONNX Runtime's own are its default, all cores")
parser.add_argument("--score", type=float, default=0.25)
parser.add_argument("--iou", type=float, default=0.65)
parser.add_argument("--frames", type=int, default=0, help="stop after this many")
args = parser.parse_args()

torch.set_num_threads(args.threads)
model = YOLO(args.model, task="detect")
results = model.predict(args.video, stream=True, conf=args.score, iou=args.iou, device="cpu", verbose=False)
for count, result in enumerate(results):
    boxes = result.boxes
    found = zip(boxes.cls.tolist(), boxes.conf.tolist(), boxes.xyxy.tolist(), strict=True)
    objects = [{"label": result.names[int(i)], "score": score, "box_xyxy": box} for i, score, box in found]
    print(json.dumps({"seq": count, "objects": objects}), flush=True)
    if count + 1 == args.frames:
        break
