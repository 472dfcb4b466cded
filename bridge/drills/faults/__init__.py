"""The fault drill: breaks everything that can break on stage, and measures what the audience would see."""
