"""Asking the cloud about uncertain frames, on threads of its own, over the Open Inference Protocol v2.

The loop only ever appends to a short queue and picks up what has arrived; whatever the network does, it does here.

client ─► waiting (which frames go first), spool (what could not be delivered)
   └────► endpoint ─► forms, tensors, pictures (what is sent of a frame), transport, credentials (how)
             └──────► breaker (when it is left in peace), uplink (how large a picture may be)
"""

from __future__ import annotations

from edge.offload.client import Offloader
from edge.offload.endpoint import Answer

__all__ = ["Answer", "Offloader"]
