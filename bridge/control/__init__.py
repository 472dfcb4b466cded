"""Live control: one store of controls, and every way of reaching it (OSC, OSCQuery, MIDI, snapshots)."""
