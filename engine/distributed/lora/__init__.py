"""LoRAs of a network whose blocks are on several ranks."""
