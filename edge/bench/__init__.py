"""Measuring a bundle on this board: every variant, engine and number of threads, each in a process of its own."""
