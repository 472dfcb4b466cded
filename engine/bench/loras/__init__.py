"""Benchmarks of LoRAs on faders: a stream whose faders move, and the merge at true sizes."""
