"""Combinations that are known not to work, as data: each with where it was reported."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

Version = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Here:
    """What an installed package meets: wheels' `machine`, Python, the CPU's features, the versions of other packages."""

    machine: str
    python: Version
    features: frozenset[str]
    versions: Mapping[str, str]
    sys_mounted: bool = True


@dataclass(frozen=True, slots=True)
class KnownBad:
    """`package` is in trouble: those of its versions from `since` to before `before`, where all that is given holds.

    `machines`, `python_since` and `python_before` say where; `lacking` is a CPU feature that is not there; `beside` is
    another package, from `beside_since` on. With `absent` the row tells why the package cannot be installed.
    """

    package: str
    problem: str
    mend: str
    source: str
    since: Version = ()
    before: Version = ()
    machines: tuple[str, ...] = ()
    python_since: Version = ()
    python_before: Version = ()
    lacking: str = ""
    beside: str = ""
    beside_since: Version = ()
    absent: bool = False
    without_sys: bool = False


KNOWN_BAD = (
    KnownBad(
        "onnxruntime",
        "1.21 dies of an illegal instruction on ARMv8.0 cores such as the Cortex-A72 of a Raspberry Pi 4",
        "pip install 'onnxruntime>=1.22'",
        "https://github.com/microsoft/onnxruntime/issues/23957",
        since=(1, 21),
        before=(1, 22),
        machines=("aarch64",),
        lacking="atomics",
    ),
    KnownBad(
        "onnxruntime",
        "aborts on ARM where /sys/devices/system/cpu cannot be read, as in some containers and chroots",
        "sudo mount -t sysfs sysfs /sys",
        "https://github.com/microsoft/onnxruntime/issues/10038",
        machines=("aarch64",),
        without_sys=True,
    ),
    KnownBad(
        "onnxruntime",
        "has no wheels for 32-bit ARM",
        "pip install tflite-runtime 'numpy<2', or install a 64-bit system",
        "https://github.com/microsoft/onnxruntime/issues/8874",
        machines=("armv7l",),
        absent=True,
    ),
    KnownBad(
        "onnxruntime",
        "has no wheels for Python 3.10, that of JetPack 6, from 1.24 on",
        "pip install 'onnxruntime<1.24'",
        "https://github.com/microsoft/onnxruntime/issues/27653",
        python_before=(3, 11),
        absent=True,
    ),
    KnownBad(
        "onnxruntime-gpu",
        "has no official wheels for ARM",
        "install NVIDIA's wheel for this JetPack: https://elinux.org/Jetson_Zoo#ONNX_Runtime",
        "https://github.com/microsoft/onnxruntime/issues/20503",
        machines=("aarch64",),
        absent=True,
    ),
    KnownBad(
        "onnxruntime-gpu",
        "of JetPack 6 is built for NumPy 1 and does not load beside NumPy 2",
        "pip install 'numpy<2'",
        "https://github.com/microsoft/onnxruntime/issues/27562",
        machines=("aarch64",),
        beside="numpy",
        beside_since=(2,),
    ),
    KnownBad(
        "onnxruntime-gpu",
        "shares its files with onnxruntime, and beside it loses the GPU",
        "pip uninstall -y onnxruntime onnxruntime-gpu, then install the one for the GPU again",
        "https://github.com/microsoft/onnxruntime/issues/26996",
        beside="onnxruntime",
    ),
    KnownBad(
        "ai-edge-litert",
        "has no wheels for 32-bit ARM",
        "pip install tflite-runtime 'numpy<2'",
        "https://github.com/google-ai-edge/LiteRT/issues/6043",
        machines=("armv7l",),
        absent=True,
    ),
    KnownBad(
        "tflite-runtime",
        "is built for NumPy 1 and does not load beside NumPy 2",
        "pip install 'numpy<2'",
        "https://github.com/Nachtzuster/BirdNET-Pi/issues/314",
        before=(2, 15),
        beside="numpy",
        beside_since=(2,),
    ),
    KnownBad(
        "tflite-runtime",
        "has no wheels for Python 3.12 and later",
        "make the environment with Python 3.11, or install a 64-bit system",
        "https://github.com/dscripka/openWakeWord/pull/270",
        machines=("armv7l",),
        python_since=(3, 12),
        absent=True,
    ),
    KnownBad(
        "opencv-python",
        "shares its files with opencv-python-headless, and one overwrites the other",
        "pip uninstall -y opencv-python opencv-python-headless && pip install opencv-python-headless",
        "https://github.com/opencv/opencv-python#installation-and-usage",
        beside="opencv-python-headless",
    ),
    KnownBad(
        "opencv-contrib-python",
        "shares its files with opencv-python-headless, and one overwrites the other",
        "pip uninstall -y opencv-contrib-python opencv-python-headless && pip install opencv-python-headless",
        "https://github.com/opencv/opencv-python#installation-and-usage",
        beside="opencv-python-headless",
    ),
)
"""The one table. A row says what is known; whether it comes true here, a child process finds out."""


@dataclass(frozen=True, slots=True)
class LastWords:
    """What a library said before it failed to load, and what that means."""

    words: str
    problem: str
    mend: str
    source: str


LAST_WORDS = (
    LastWords(
        "page-aligned|Unsupported system page size",
        "is built for memory pages of 4 kB, this kernel's are larger",
        "echo kernel=kernel8.img | sudo tee -a /boot/firmware/config.txt && sudo reboot",
        "https://github.com/LORD-MicroStrain/MSCL/issues/380",
    ),
    LastWords(
        "compiled using NumPy 1.x|_ARRAY_API not found",
        "is built for NumPy 1",
        "pip install 'numpy<2'",
        "https://github.com/TexasInstruments/edgeai-tidl-tools/issues/84",
    ),
    LastWords(
        "cannot enable executable stack",
        "wants an executable stack, which this C library refuses",
        "upgrade it with pip, or set GLIBC_TUNABLES=glibc.rtld.execstack=2",
        "https://github.com/microsoft/onnxruntime/issues/24911",
    ),
    LastWords(
        "failed to parse the list of possible processors",
        "cannot read /sys/devices/system/cpu",
        "sudo mount -t sysfs sysfs /sys",
        "https://github.com/microsoft/onnxruntime/issues/10038",
    ),
    LastWords(
        r"libopenblas\.so|libf77blas\.so",
        "wants a library of the system's for linear algebra, as piwheels' NumPy does",
        "sudo apt install libopenblas0",
        "https://github.com/numpy/numpy/issues/14772",
    ),
)
"""Regular expressions for the output of a child process that failed."""


def version_of(text: str) -> Version:
    """The leading numbers of a version, (1, 26, 4) of "1.26.4rc1"."""
    found = re.match(r"\d+(?:\.\d+)*", text)
    return tuple(int(number) for number in found[0].split(".")) if found else ()


def known_bad(package: str, here: Here) -> list[KnownBad]:
    """The rows that speak of `package` as it is here, installed or not."""
    return [row for row in KNOWN_BAD if row.package == package and _applies(row, here)]


def last_words(output: str) -> LastWords | None:
    """What the output of a child process that failed means, where that is known."""
    return next((known for known in LAST_WORDS if re.search(known.words, output)), None)


def _applies(row: KnownBad, here: Here) -> bool:
    installed, beside = here.versions.get(row.package), here.versions.get(row.beside)
    if row.absent != (installed is None):
        return False
    version = version_of(installed or "")
    return (
        (not row.machines or here.machine in row.machines)
        and (not row.since or version >= row.since)
        and (not row.before or version < row.before)
        and here.python >= row.python_since
        and (not row.python_before or here.python < row.python_before)
        and (not row.lacking or row.lacking not in here.features)
        and (not row.beside or (beside is not None and version_of(beside) >= row.beside_since))
        and not (row.without_sys and here.sys_mounted)
    )
