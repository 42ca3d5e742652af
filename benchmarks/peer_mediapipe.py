"""The loop of MediaPipe's ObjectDetector over a video, a JSON line a frame; needs `pip install mediapipe`.

The model is a TFLite detector with MediaPipe's metadata; peer_models.py makes one of a bundle. Its number of threads
cannot be set from Python: on Linux's x86 it infers on one.
"""

import argparse
import json
import sys
from importlib.metadata import version

import cv2
import mediapipe as mp

parser = argparse.ArgumentParser()
parser.add_argument("model", help="a .tflite detector with metadata, such as MediaPipe's efficientdet_lite0.tflite")
parser.add_argument("video")
parser.add_argument("--threads", type=int, default=1, help="not used: MediaPipe chooses")
parser.add_argument("--score", type=float, default=0.25)
parser.add_argument("--iou", type=float, help="not used: the suppression is in the model")
parser.add_argument("--frames", type=int, default=0, help="stop after this many")
args = parser.parse_args()

print(json.dumps({"kind": "about", "loop": f"mediapipe {version('mediapipe')}"}), flush=True)
options = mp.tasks.vision.ObjectDetectorOptions(
    base_options=mp.tasks.BaseOptions(model_asset_path=args.model),
    running_mode=mp.tasks.vision.RunningMode.VIDEO,
    score_threshold=args.score,
)
capture = cv2.VideoCapture(args.video)
if not capture.isOpened():
    sys.exit(f"cannot open {args.video}")
interval_ms = 1000 / (capture.get(cv2.CAP_PROP_FPS) or 25)
with mp.tasks.vision.ObjectDetector.create_from_options(options) as detector:
    count = 0
    while not args.frames or count < args.frames:
        there, frame = capture.read()
        if not there:
            break
        image = mp.Image(image_format=mp.ImageFormat.SRGB, data=cv2.cvtColor(frame, cv2.COLOR_BGR2RGB))
        result = detector.detect_for_video(image, int(count * interval_ms))
        objects = []
        for found in result.detections:
            box, best = found.bounding_box, found.categories[0]
            box_xyxy = [box.origin_x, box.origin_y, box.origin_x + box.width, box.origin_y + box.height]
            objects.append({"label": best.category_name, "score": best.score, "box_xyxy": box_xyxy})
        print(json.dumps({"seq": count, "objects": objects}), flush=True)
        count += 1
