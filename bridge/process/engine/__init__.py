"""An engine process: what it is started with, the rings to and from it, its life from start to end."""
