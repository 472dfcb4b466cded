"""The exact version and hash of every library, for all systems; `python -m bridge.pins` writes them anew."""
