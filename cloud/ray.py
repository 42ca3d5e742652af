"""The endpoint on a Ray cluster: `EDGE_CLOUD_MODELS=garden.edge:yolox.edge serve run cloud.ray:app`.

EDGE_CLOUD_MODELS names bundles, separated like a PATH, or one folder of them, on a path that every node has;
EDGE_CLOUD_TOKEN is the bearer token. Both are read where `serve run` is started. Each replica serves all models on one
core, behind Ray's own proxy; a configuration file of `serve build` changes replicas, cores and the route.
"""

from __future__ import annotations

import os
from pathlib import Path

from ray import serve

from cloud.app import Endpoint
from cloud.auth import VARIABLE, read_tokens
from cloud.settings import Settings, open_state
from edge.bundle import CARD_FILE
from edge.commands import speaker
from edge.packaged import DEFAULT_BUNDLE

MODELS = "EDGE_CLOUD_MODELS"
ONGOING = 64
"""Requests that Ray hands to a replica at once; the replica's own admission refuses what would wait too long."""
BUSY = 8
"""Requests under way in each replica that autoscaling aims for."""


def endpoint() -> Endpoint:
    """A replica's application, its models loaded and checked. Raises EdgeError."""
    places = tuple(Path(place) for place in os.environ.get(MODELS, "").split(os.pathsep) if place)
    folder = places[0] if len(places) == 1 and places[0].is_dir() and not (places[0] / CARD_FILE).exists() else None
    bundles = () if folder else places or (DEFAULT_BUNDLE,)
    return Endpoint(open_state(Settings(bundles, folder), read_tokens(None), speaker("edge-cloud")))


@serve.deployment(
    max_ongoing_requests=ONGOING,
    autoscaling_config={"min_replicas": 1, "max_replicas": 8, "target_ongoing_requests": BUSY},
    ray_actor_options={
        "num_cpus": 1,
        "runtime_env": {"env_vars": {name: os.environ[name] for name in (MODELS, VARIABLE) if name in os.environ}},
    },
)
@serve.ingress(endpoint)
class EdgeCloud:
    """One replica, ready once its models are: the same application as edge-cloud's."""


app = EdgeCloud.bind()  # type: ignore[attr-defined]
