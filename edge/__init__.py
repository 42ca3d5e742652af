"""An edge-device inference runtime: bundles, engines, tasks, sources, the loop, offload and sinks.

Importing this package loads none of its parts; take what you need from its modules:

    from edge.bundle import open_bundle
    from edge.model import open_model
    from edge.loop import run
    from edge.sources import open_source
"""

__version__ = "0.1.0"

__all__ = ["__version__"]
