"""The loop an engineer would write in one page: OpenCV reads and resizes, ONNX Runtime infers, a JSON line a frame.

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
parser.add_argument("model", help="an .onnx file: uint8 NHWC RGB in, logits out")
parser.add_argument("video")
parser.add_argument("labels", help="a text file, one class a line")
parser.add_argument("--threads", type=int, default=1)
parser.add_argument("--spin", action="store_true")
parser.add_argument("--exact", action="store_true", help="integer products that do not saturate")
parser.add_argument("--crop", type=float, default=1.0, help="the share of the largest centred square that is seen")
parser.add_argument("--interpolation", default="linear", choices=["nearest", "linear", "cubic", "area"])
parser.add_argument("--frames", type=int, default=0, help="stop after this many")
args = parser.parse_args()

options = ort.SessionOptions()
options.intra_op_num_threads = args.threads
options.inter_op_num_threads = 1
options.add_session_config_entry("session.intra_op.allow_spinning", "1" if args.spin else "0")
options.add_session_config_entry("session.force_spinning_stop", "1")
options.add_session_config_entry("session.x64quantprecision", "1" if args.exact else "0")
session = ort.InferenceSession(args.model, options, providers=["CPUExecutionProvider"])
model_input = session.get_inputs()[0]
side = model_input.shape[1]
interpolation = getattr(cv2, f"INTER_{args.interpolation.upper()}")
with open(args.labels) as file:
    labels = file.read().splitlines()

capture = cv2.VideoCapture(args.video)
if not capture.isOpened():
    sys.exit(f"cannot open {args.video}")
began = time.monotonic()
count = 0
while not args.frames or count < args.frames:
    there, frame = capture.read()
    if not there:
        break
    height, width = frame.shape[:2]
    crop = round(side * (args.crop * min(width / side, height / side)))
    top, left = (height - crop) // 2, (width - crop) // 2
    picture = cv2.resize(frame[top : top + crop, left : left + crop], (side, side), interpolation=interpolation)
    picture = cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)
    logits = session.run(None, {model_input.name: picture[np.newaxis]})[0][0]
    scores = np.exp(logits - logits.max())
    scores /= scores.sum()
    best = np.argsort(-scores)[:5]
    line = {"seq": count, "classes": [{"label": labels[i], "score": float(scores[i])} for i in best]}
    print(json.dumps(line), flush=True)
    count += 1
seconds = time.monotonic() - began
print(f"{count} frames in {seconds:.1f} s, {count / max(seconds, 1e-9):.1f} frames/s", file=sys.stderr)
