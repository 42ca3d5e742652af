"""edge-cloud: bundles behind the Open Inference Protocol v2."""

from __future__ import annotations

import os
import shlex
import stat
from importlib.util import find_spec
from pathlib import Path

import click

from cloud.auth import check_exposure, read_tokens
from cloud.settings import Settings
from edge.card import is_name
from edge.commands import SETTINGS, OneLineCommand, speaker, version_option
from edge.errors import EdgeError, UsageError
from edge.packaged import DEFAULT_BUNDLE

NAME = "edge-cloud"
KEEP_MB = 1024
say = speaker(NAME)


@click.command(NAME, cls=OneLineCommand, context_settings=SETTINGS)
@click.option(
    "--model",
    "bundles",
    metavar="BUNDLE",
    type=Path,
    multiple=True,
    help="Bundle folder or .edge file; may be given several times.  [default: the ImageNet classifier in the package]",
)
@click.option("--models", metavar="DIR", type=Path, help="Serve every bundle in DIR, and keep up with what changes there.")
@click.option("--name", metavar="NAME", help="Serve the one --model under this name.  [default: the name in its card]")
@click.option("--variant", metavar="NAME", help="Serve this variant.  [default: the one that suits this machine]")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on; 0.0.0.0 for every one.")
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0 takes a free one.")
@click.option("--grpc-port", type=click.IntRange(0, 65535), help="Also serve gRPC there; 0 takes a free one.  [default: no]")
@click.option("--workers", type=click.IntRange(1, 64), default=1, show_default=True, help="Processes that share the port.")
@click.option(
    "--threads",
    type=click.IntRange(1, 64),
    default=1,
    show_default=True,
    help="Engine threads of one inference; as many inferences run at once as the cores allow.",
)
@click.option(
    "--batch-wait-ms",
    type=click.FloatRange(0, 1000),
    default=2.0,
    show_default=True,
    help="How long a picture waits for others, where the model takes several at once.",
)
@click.option(
    "--max-wait",
    "max_wait_s",
    metavar="S",
    type=click.FloatRange(0.01, 600),
    default=1.0,
    show_default=True,
    help="Refuse a request (429) that would wait longer for its turn.",
)
@click.option(
    "--max-request-mb", type=click.IntRange(1, 1024), default=16, show_default=True, help="Refuse larger requests, in MiB."
)
@click.option("--token-file", metavar="FILE", type=Path, help="Bearer tokens, one a line; EDGE_CLOUD_TOKEN holds another.")
@click.option("--tls-cert", metavar="FILE", type=Path, help="Certificate chain, PEM; serves https.")
@click.option("--tls-key", metavar="FILE", type=Path, help="Its private key, PEM.")
@click.option("--tls-client-ca", metavar="FILE", type=Path, help="Clients must show a certificate that one of these signed.")
@click.option("--insecure", is_flag=True, help="Listen beyond loopback although nobody needs a token.")
@click.option(
    "--drain-s",
    type=click.IntRange(0, 3600),
    default=10,
    show_default=True,
    help="Time to finish accepted requests at the end.",
)
@click.option("--keep", metavar="DIR", type=Path, help="Keep the pictures asked about, with both opinions, as a dataset.")
@click.option("--keep-mb", type=click.IntRange(1), help="At most so much of them, in MiB.  [default: 1024]")
@version_option
def main(
    bundles: tuple[Path, ...],
    models: Path | None,
    name: str | None,
    host: str,
    port: int,
    workers: int,
    grpc_port: int | None,
    token_file: Path | None,
    tls_cert: Path | None,
    tls_key: Path | None,
    tls_client_ca: Path | None,
    insecure: bool,
    keep_mb: int | None,
    max_request_mb: int,
    batch_wait_ms: float,
    **rest: object,
) -> None:
    """Serve bundles by the Open Inference Protocol v2 (REST), until Ctrl-C or SIGTERM.

    POST /v2/models/NAME/infer takes `image`, BYTES [n] of one encoded JPEG or PNG each, or `tensor`, UINT8 [n, height,
    width, 3] as the device prepares it; a classifier gives `logits`, `labels` and calibrated `scores`, a detector `boxes`,
    `labels`, `scores` and `count`. GET /metrics is for Prometheus.
    """
    for package in ("starlette", "uvicorn"):
        if find_spec(package) is None:
            raise EdgeError(f"{package} is not installed; pip install 'edge-run[cloud]'")
    from cloud.server import Tls, resolve, tls_context
    from cloud.workers import run

    if grpc_port is not None and not _is_installed("grpc", "google", "google.protobuf"):
        raise EdgeError("gRPC is not installed; pip install 'edge-run[cloud,grpc]'")
    if grpc_port == 0 and workers > 1:
        raise UsageError("--grpc-port 0: several --workers share one port; name it")
    _check(name, bundles, models, tls_cert, tls_key, tls_client_ca)
    if keep_mb is not None and rest["keep"] is None:
        raise UsageError("--keep-mb limits what --keep DIR keeps; give that, too, or leave it out")
    tokens = read_tokens(token_file)
    if token_file is not None and token_file.stat().st_mode & stat.S_IROTH:
        say(
            f"--token-file {token_file}: every user of this machine can read it; chmod 600 {shlex.quote(str(token_file))}",
            level="warning",
        )
    tls = None if tls_cert is None or tls_key is None else Tls(tls_cert, tls_key, tls_client_ca)
    if tls is not None:
        tls_context(tls)
    check_exposure(resolve(host)[4][0], guarded=bool(tokens) or tls_client_ca is not None, insecure=insecure)
    settings = Settings(
        bundles=bundles or (() if models is not None else (DEFAULT_BUNDLE,)),
        models=models,
        name=name,
        request_bytes=max_request_mb << 20,
        batch_wait_s=batch_wait_ms / 1000,
        keep_bytes=(keep_mb or KEEP_MB) << 20,
        lanes=max(1, len(os.sched_getaffinity(0)) // int(str(rest["threads"])) // workers),
        tls=tls,
        grpc_port=grpc_port,
        **rest,  # type: ignore[arg-type]
    )
    run(settings, host, port, workers, tokens, say)


def _check(
    name: str | None, bundles: tuple[Path, ...], models: Path | None, cert: Path | None, key: Path | None, ca: Path | None
) -> None:
    if name is not None and not is_name(name):
        raise UsageError(f"--name {name}: expected up to 100 letters, digits, dots, dashes and underscores")
    if name is not None and (len(bundles) > 1 or models is not None):
        raise UsageError("--name names one --model; leave it out, or serve the others from another edge-cloud")
    if (cert is None) != (key is None):
        raise UsageError("--tls-cert and --tls-key go together; give both")
    if ca is not None and cert is None:
        raise UsageError("--tls-client-ca needs --tls-cert and --tls-key")


def _is_installed(*packages: str) -> bool:
    """Whether all are; each stands behind the one that it is in."""
    return all(find_spec(package) is not None for package in packages)


if __name__ == "__main__":
    main()
