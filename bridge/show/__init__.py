"""A show in one file: snapshots, MIDI bindings and the values of the live controls."""
