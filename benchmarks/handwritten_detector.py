"""The detector loop an engineer would write in one page: YOLOX, OpenCV and ONNX Runtime, a JSON line a frame.

What `edge-run` is measured against (loop.py beside this). It does what the model needs and nothing else: no live
source, no hashes, no golden check, no calibration, no policy, no clean end on a signal. It imports nothing of ours.
"""

import argparse
import json
import sys
import time

import cv2
import numpy as np
import onnxruntime as ort

parser = argparse.ArgumentParser()
parser.add_argument("model", help="a YOLOX .onnx file: float32 NCHW BGR in, raw grid predictions [1, cells, 5 + classes] out")
parser.add_argument("video")
parser.add_argument("labels", help="a text file, one class a line")
parser.add_argument("--threads", type=int, default=1)
parser.add_argument("--spin", action="store_true")
parser.add_argument("--score", type=float, default=0.25, help="leave out what scores less")
parser.add_argument("--iou", type=float, default=0.65, help="of two boxes of a class that overlap more, the better stays")
parser.add_argument("--frames", type=int, default=0, help="stop after this many")
args = parser.parse_args()

options = ort.SessionOptions()
options.intra_op_num_threads = args.threads
options.inter_op_num_threads = 1
options.add_session_config_entry("session.intra_op.allow_spinning", "1" if args.spin else "0")
options.add_session_config_entry("session.force_spinning_stop", "1")
session = ort.InferenceSession(args.model, options, providers=["CPUExecutionProvider"])
model_input = session.get_inputs()[0]
input_h, input_w = model_input.shape[2:]
with open(args.labels) as file:
    labels = file.read().splitlines()

cells, strides = [], []
for stride in (8, 16, 32):
    x, y = np.meshgrid(np.arange(input_w // stride), np.arange(input_h // stride))
    cells.append(np.stack((x.ravel(), y.ravel()), axis=1))
    strides.append(np.full((x.size, 1), stride))
cells = np.concatenate(cells).astype(np.float32)
strides = np.concatenate(strides).astype(np.float32)

capture = cv2.VideoCapture(args.video)
if not capture.isOpened():
    sys.exit(f"cannot open {args.video}")
canvas = np.full((input_h, input_w, 3), 114, np.uint8)
began = time.monotonic()
count = 0
while not args.frames or count < args.frames:
    there, frame = capture.read()
    if not there:
        break
    height, width = frame.shape[:2]
    ratio = min(input_w / width, input_h / height)
    new_w, new_h = round(width * ratio), round(height * ratio)
    canvas[:new_h, :new_w] = cv2.resize(frame, (new_w, new_h), interpolation=cv2.INTER_LINEAR)
    blob = np.ascontiguousarray(canvas.transpose(2, 0, 1)[np.newaxis], dtype=np.float32)

    predictions = session.run(None, {model_input.name: blob})[0][0]
    likely = predictions[:, 4] >= args.score  # the score is this times a probability
    found = predictions[likely]
    class_ids = found[:, 5:].argmax(axis=1)
    scores = found[:, 4] * found[np.arange(len(found)), 5 + class_ids]
    centres = (found[:, :2] + cells[likely]) * strides[likely]
    sizes = np.exp(found[:, 2:4]) * strides[likely]
    boxes_xywh = np.concatenate((centres - sizes / 2, sizes), axis=1) / ratio

    objects = []
    for i in cv2.dnn.NMSBoxesBatched(boxes_xywh, scores, class_ids, args.score, args.iou):
        left, top, box_w, box_h = boxes_xywh[i].tolist()
        box_xyxy = [max(left, 0), max(top, 0), min(left + box_w, width), min(top + box_h, height)]
        objects.append(
            {"label": labels[class_ids[i]], "score": round(float(scores[i]), 4), "box_xyxy": [round(x, 1) for x in box_xyxy]}
        )
    print(json.dumps({"seq": count, "objects": objects}), flush=True)
    count += 1
seconds = time.monotonic() - began
print(f"{count} frames in {seconds:.1f} s, {count / max(seconds, 1e-9):.1f} frames/s", file=sys.stderr)
