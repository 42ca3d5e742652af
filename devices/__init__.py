"""Boards as data, and which one this is."""

from devices.board import Board, detect, processor

__all__ = ["Board", "detect", "processor"]
