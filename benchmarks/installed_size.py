"""What `pip install edge-run[onnx]` puts on a disk, beside what a hand-written loop needs there.

Sums the files that the installed packages list, without compiled bytecode; our own are those that the wheel would have.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
OUR_PACKAGES = ("edge", "devices", "cloud", "train", "quantize")
HANDWRITTEN_NEEDS = ("opencv-python-headless", "numpy", "onnxruntime")


def installed_mb() -> dict[str, float]:
    """Megabytes of edge-run[onnx], of the hand-written loop's packages, and of the bundle that ours comes with."""
    ours = closure(["edge-run[onnx]"]) - {"edge-run"}
    bundle = sum(path.stat().st_size for path in (ROOT / "edge" / "data").glob("*.edge"))
    own = sum(_size(path for path in (ROOT / name).rglob("*")) for name in OUR_PACKAGES)
    sizes = {"edge-run": own + _packages(ours), "hand-written": _packages(closure(HANDWRITTEN_NEEDS)), "bundle": bundle}
    return {what: size / 1e6 for what, size in sizes.items()}


def closure(requirements: Iterable[str]) -> set[str]:
    """The names of the installed packages that `requirements` bring here, their own requirements included."""
    found: set[str] = set()
    asked: set[tuple[str, str]] = set()
    left = [Requirement(text) for text in requirements]
    while left:
        requirement = left.pop()
        name = canonicalize_name(requirement.name)
        for extra in ("", *requirement.extras):
            if (name, extra) in asked:
                continue
            asked.add((name, extra))
            found.add(name)
            try:
                needs = distribution(name).requires or []
            except PackageNotFoundError:
                raise SystemExit(f"installed_size.py: {name} is not installed here; make .venv/dev") from None
            wanted = (Requirement(text) for text in needs)
            left += [need for need in wanted if need.marker is None or need.marker.evaluate({"extra": extra})]
    return found


def _packages(names: Iterable[str]) -> int:
    return sum(_size(Path(str(file.locate())) for file in distribution(name).files or []) for name in names)


def _size(paths: Iterable[Path]) -> int:
    return sum(path.stat().st_size for path in paths if path.suffix != ".pyc" and path.is_file())
