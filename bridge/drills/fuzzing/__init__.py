"""The parts of `tidecast bench fuzz`."""
