"""A show in one file: snapshots, MIDI bindings, cues and the values of the live controls."""
