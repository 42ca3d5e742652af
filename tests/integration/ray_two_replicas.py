"""Run by test_ray.py in an environment that has Ray: two replicas of cloud.ray on a local Ray answer, both of them."""

from __future__ import annotations

import json
import sys
import urllib.request
from pathlib import Path

import ray
from ray import serve

from cloud.ray import EdgeCloud
from edge.oip import NamedTensor, decode_response, encode_request


def main(model: str, picture: str, port: str) -> None:
    """Print the labels that came, how many replicas run, and how many requests the busier of them answered."""
    ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False, logging_level="error")
    try:
        serve.start(http_options={"port": int(port), "host": "127.0.0.1"}, logging_config={"log_level": "ERROR"})
        serve.run(EdgeCloud.options(num_replicas=2, autoscaling_config=None).bind())
        url = f"http://127.0.0.1:{port}"
        body, headers = encode_request([NamedTensor.of("image", [Path(picture).read_bytes()])])
        labels = set()
        for _ in range(40):
            request = urllib.request.Request(f"{url}/v2/models/{model}/infer", body, headers)
            with urllib.request.urlopen(request, timeout=30) as reply:
                answer = decode_response(reply.read(), dict(reply.headers))
                labels.add(answer.outputs["labels"].data[0].decode())
        answered = [0.0]
        for _ in range(20):
            with urllib.request.urlopen(f"{url}/metrics", timeout=30) as reply:
                lines = reply.read().decode().splitlines()
                answered += [float(line.split()[1]) for line in lines if line.startswith("edge_cloud_pictures_total")]
        replicas = serve.status().applications["default"].deployments["EdgeCloud"].replica_states
        print(json.dumps({"labels": sorted(labels), "running": replicas.get("RUNNING", 0), "busier": max(answered)}))
    finally:
        serve.shutdown()
        ray.shutdown()


if __name__ == "__main__":
    main(*sys.argv[1:])
