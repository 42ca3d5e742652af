"""The packages that matter beside the engines, by what is installed; none is imported."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib import metadata

from edge.doctor.check import Check
from edge.doctor.known_bad import KNOWN_BAD, Here, known_bad, last_words
from edge.doctor.probe import Probe, ending
from edge.extras import DISTRIBUTIONS

OPENCV = ("opencv-python-headless", "opencv-python", "opencv-contrib-python-headless", "opencv-contrib-python")
ENGINES = {name for names in DISTRIBUTIONS.values() for name in names}
NAMES = tuple(sorted({"numpy", *OPENCV, *ENGINES, *(row.package for row in KNOWN_BAD)}))


def installed_versions(names: Iterable[str] = NAMES) -> dict[str, str]:
    """Distribution → version, of those that are there."""
    versions = {}
    for name in names:
        try:
            version = metadata.version(name)
        except Exception:  # absent, or its metadata is damaged
            continue
        if version:
            versions[name] = version
    return versions


def packages_check(versions: Mapping[str, str], here: Here, told: Probe | None) -> Check:
    """NumPy and OpenCV; a child process has imported them, which alone knows the versions of some of apt's packages."""
    steps = {} if told is None else {step["step"]: step for step in told.steps}
    loaded = steps.get("packaged", {})
    shown = [f"NumPy {loaded.get('numpy') or versions.get('numpy', 'unknown')}"]
    shown += [f"{name} {versions[name]}" for name in OPENCV if name in versions]
    if len(shown) == 1:
        shown.append(f"OpenCV {loaded.get('cv2', 'unknown')}")
    text = ", ".join(shown)
    rows = [row for name in OPENCV for row in known_bad(name, here)]
    if told is not None and not loaded:
        said = last_words(told.output)
        mend = rows[0].mend if rows else said.mend if said else "pip install --force-reinstall numpy opencv-python-headless"
        return Check("packages", "fail", f"{text}: importing them {ending(told)}", mend)
    if rows:
        return Check("packages", "warn", f"{text}: {rows[0].package} {rows[0].problem} ({rows[0].source})", rows[0].mend)
    return Check("packages", "ok", text)
