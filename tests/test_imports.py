"""What a device loads: numpy, OpenCV, msgspec and click, and neither an engine nor an HTTP client until it is asked for one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

ALLOWED = ("numpy", "cv2", "msgspec", "click")
NEEDS_HTTP = ("edge.offload", "edge.commands.run_offload", "edge.sinks.webhook")  # when --offload or --webhook is given
NEEDS_WEB = ("edge.web",)  # when --web is given
NEEDS_MQTT = ("edge.mqtt",)  # when --mqtt is given
NEEDS_GRPC = ("edge.grpc_messages", "edge.oip_grpc", "edge.offload.grpc_transport")  # when --offload is grpc://...
NEEDS_MORE = (*NEEDS_HTTP, *NEEDS_WEB, *NEEDS_MQTT, *NEEDS_GRPC)
ENGINE_MODULES = {"edge.engines.onnx", "edge.engines.tflite"}  # these import their engine, and only the factories import them
FORBIDDEN = (
    "torch",
    "onnx",
    "onnxruntime",
    "ai_edge_litert",
    "tflite_runtime",
    "starlette",
    "uvicorn",
    "jax",
    "PIL",
    "grpc",
    "google",
    "paho",
    "prometheus_client",
)

GUARD = """
import json, sys
allowed = set(sys.argv[1].split(",")) | {"edge", "devices"}

class Guard:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top not in sys.stdlib_module_names and top not in allowed and not top.startswith(("_distutils", "__editable__")):
            raise ImportError(f"{name} is not on the allowlist")

sys.meta_path.insert(0, Guard())
"""


def run(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=60, cwd=ROOT)


def modules(package: str) -> list[str]:
    found = []
    for path in sorted((ROOT / package).rglob("*.py")):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        if name not in ENGINE_MODULES:
            found.append(name)
    return found


def test_the_modules_of_the_device_are_all_found() -> None:
    assert {"edge", "edge.commands.run", "edge.sources.camera", "edge.sinks.video"} <= set(modules("edge"))
    assert {"devices", "devices.board"} <= set(modules("devices"))


def test_edge_and_devices_import_with_the_device_s_needs_only() -> None:
    names = [name for name in modules("edge") + modules("devices") if not name.startswith(NEEDS_MORE)]
    code = "import importlib\nfor name in sys.argv[2].split(','): importlib.import_module(name)\n"
    done = run(GUARD + code + "print(json.dumps(list(sys.modules)))", ",".join(ALLOWED), ",".join(names))
    assert done.returncode == 0, done.stderr
    loaded = {name.partition(".")[0] for name in json.loads(done.stdout)}
    assert set(ALLOWED) <= loaded
    assert not loaded & set(FORBIDDEN)


def test_the_guard_guards() -> None:
    done = run(GUARD + "import onnxruntime", ",".join(ALLOWED))
    assert done.returncode != 0
    assert "onnxruntime is not on the allowlist" in done.stderr


@pytest.mark.parametrize("missing", ["cv2", "msgspec"])
def test_the_allowlist_is_needed(missing: str) -> None:
    allowed = ",".join(set(ALLOWED) - {missing})
    assert f"{missing} is not on the allowlist" in run(GUARD + "import edge.commands.run_loop", allowed).stderr


def test_devices_needs_the_standard_library_only() -> None:
    done = run(GUARD + "import devices\nprint(devices.detect().name)", "")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


@pytest.mark.parametrize("module", ["edge.commands.run", "edge.commands.evaluate"])
@pytest.mark.parametrize("option", ["--help", "--version"])
def test_help_and_version_load_no_engine(module: str, option: str) -> None:
    code = f"from {module} import main\ntry:\n    main.main(['{option}'])\nfinally:\n    print(json.dumps(list(sys.modules)))"
    done = run(GUARD + code, ",".join(ALLOWED))
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    loaded = {name.partition(".")[0] for name in json.loads(done.stdout.splitlines()[-1])}
    assert not loaded & set(FORBIDDEN)


@pytest.mark.parametrize("option", ["--help", "--version", "--completion=bash", "--print-config"])
def test_what_runs_nothing_loads_no_opencv(option: str) -> None:
    code = f"import sys\nfrom edge.commands.run import main\ntry:\n    main.main(['{option}', '--source=demo'])\n"
    done = run(code + "finally:\n    print(*sys.modules)")
    assert done.returncode == 0, done.stderr
    assert not {"cv2", "numpy"} & set(done.stdout.splitlines()[-1].split())


ASK = """
from edge.errors import UsageError
from edge.offload import Offloader
try:
    Offloader(sys.argv[2], "tiny").close()
except UsageError as error:
    print(error)
print("grpc" in sys.modules or "google.protobuf" in sys.modules)
"""


def test_an_http_endpoint_needs_no_grpc() -> None:
    done = run(GUARD + ASK, ",".join((*ALLOWED, "urllib3")), "http://127.0.0.1:1")
    assert (done.returncode, done.stdout) == (0, "False\n"), done.stderr


@pytest.mark.parametrize("missing", ["grpc", "google"])
def test_a_grpc_endpoint_says_what_to_install(missing: str) -> None:
    code = f"import sys\nsys.modules[{missing!r}] = None\n{ASK}"
    done = run(code, "", "grpc://127.0.0.1:1")
    assert done.stdout.startswith("--offload grpc://127.0.0.1:1: gRPC is not installed; pip install 'edge-run[grpc]'\n"), (
        done.stderr
    )


def test_what_edge_exports_stays_small() -> None:
    """The package's face is its modules: nothing is imported by `import edge` itself."""
    done = run("import sys, edge\nprint([name for name in sys.modules if name.split('.')[0] in ('edge', 'numpy', 'cv2')])")
    assert done.stdout.strip() == "['edge']"


@pytest.mark.parametrize(
    ("missing", "options", "line"),
    [
        ("uvicorn", ("--web", "0"), "--web: starlette and uvicorn are not installed; pip install 'edge-run[web]'"),
        ("paho", ("--mqtt", "mqtt://127.0.0.1"), "--mqtt: paho-mqtt is not installed; pip install 'edge-run[mqtt]'"),
    ],
)
def test_what_is_not_installed_is_said_in_a_line(missing: str, options: tuple[str, ...], line: str) -> None:
    code = f"import sys\nsys.modules[{missing!r}] = None\nfrom edge.commands.run import main\nmain.main(sys.argv[1:])"
    done = run(code, "--source", "demo", "--max-frames", "1", *options)
    assert (done.returncode, done.stderr) == (2, f"edge-run: {line}\n")
