"""Modulators: what moves a control by itself, around the value that its fader has."""
