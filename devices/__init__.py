"""Boards as data, and which one this is."""

from devices.board import Board, detect

__all__ = ["Board", "detect"]
