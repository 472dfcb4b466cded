"""Live control: one store of controls, and the ways to change and read them (OSC, OSCQuery, MIDI, snapshots)."""
