"""Tests and whole programs with Windows' own Python, under Wine on Linux: `python -m tests.windows`."""
