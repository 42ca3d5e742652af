"""Boards as data, which one this is, and what its sensors read."""

from devices.board import Board, Cluster, EngineChoice, Thermal
from devices.detection import BOARDS, GENERIC, MACHINE_ALIASES, detect
from devices.sensors import Reading, Sensors
from devices.system import processor

__all__ = [
    "BOARDS",
    "GENERIC",
    "MACHINE_ALIASES",
    "Board",
    "Cluster",
    "EngineChoice",
    "Reading",
    "Sensors",
    "Thermal",
    "detect",
    "processor",
]
