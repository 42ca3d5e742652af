"""Reading live sources in processes of their own, which can be killed when a driver or a decoder hangs, dies or leaks."""
