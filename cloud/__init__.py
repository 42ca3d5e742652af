"""The endpoint: the Open Inference Protocol v2 over a bundle."""
