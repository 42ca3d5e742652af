"""What an endpoint's model takes and gives, by its metadata."""

from __future__ import annotations

import msgspec

from edge.errors import OffloadError

EDGE_CLOUD = "edge-cloud"


class TensorSpec(msgspec.Struct, frozen=True):
    """A tensor as the protocol describes it; -1 in `shape` is any size."""

    name: str
    datatype: str
    shape: list[int] = []


class Served(msgspec.Struct, frozen=True):
    """A model's metadata; `ours` says whether edge-cloud serves it, which takes parameters that other servers may refuse."""

    inputs: list[TensorSpec]
    outputs: list[TensorSpec]
    ours: bool = False

    def gives(self, *names: str) -> bool:
        """Whether it has outputs of all these names."""
        return set(names) <= {output.name for output in self.outputs}

    @property
    def takes_pictures(self) -> bool:
        """Whether its input `image` is encoded pictures."""
        return any(tensor.name == "image" and tensor.datatype == "BYTES" for tensor in self.inputs)


class _Server(msgspec.Struct):
    name: str


def read_served(root: str, model: bytes, server: bytes | None) -> Served:
    """From the metadata of the model and, where it gives any, of the server. Raises OffloadError naming `root`."""
    try:
        served = msgspec.json.decode(model, type=Served)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        raise OffloadError(f"{root}: does not speak the Open Inference Protocol v2; start edge-cloud there") from None
    return msgspec.structs.replace(served, ours=server is not None and _server_name(server) == EDGE_CLOUD)


def _server_name(body: bytes) -> str:
    try:
        return msgspec.json.decode(body, type=_Server).name
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return ""
