"""The beat: where it comes from, its position at any time, and changes that wait for it."""
