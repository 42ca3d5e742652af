"""edge-cloud: a bundle behind the Open Inference Protocol v2."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import click

from edge.bundle import open_bundle
from edge.card import is_name
from edge.commands import SETTINGS, OneLineCommand, bundle_option, speaker, threads_option, version_option
from edge.errors import EdgeError, UsageError
from edge.model import open_model

NAME = "edge-cloud"
say = speaker(NAME)


@click.command(NAME, cls=OneLineCommand, context_settings=SETTINGS)
@bundle_option
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on; 0.0.0.0 for every one.")
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0 takes a free one.")
@click.option("--variant", metavar="NAME", help="Serve this variant.  [default: the one that suits this machine]")
@threads_option
@click.option(
    "--max-request-mb", type=click.IntRange(1, 1024), default=16, show_default=True, help="Refuse larger requests, in MiB."
)
@click.option("--name", metavar="NAME", help="Serve the model under this name.  [default: the name in its card]")
@version_option
def main(
    model_path: Path, host: str, port: int, variant: str | None, threads: int | None, max_request_mb: int, name: str | None
) -> None:
    """Serve a bundle by the Open Inference Protocol v2 (REST), until Ctrl-C or SIGTERM.

    POST /v2/models/NAME/infer takes `image`, BYTES [n] of one encoded JPEG or PNG each, or `tensor`, UINT8 [n, height,
    width, 3] as the device prepares it; it gives `logits`, `labels` and calibrated `scores`.
    """
    _check_name(name)
    for package in ("starlette", "uvicorn"):
        if find_spec(package) is None:
            raise EdgeError(f"{package} is not installed; pip install 'edge-run[cloud]'")
    from cloud.served import Served
    from cloud.server import listen, serve

    bundle = open_bundle(model_path)
    with listen(host, port) as listener:
        model = open_model(bundle, variant=variant, threads=threads, say=say)
        serve(Served(model, bundle.card, name=name), listener, limit_bytes=max_request_mb << 20, say=say)


def _check_name(name: str | None) -> None:
    if name is not None and not is_name(name):
        raise UsageError(f"--name {name}: expected up to 100 letters, digits, dots, dashes and underscores")


if __name__ == "__main__":
    main()
