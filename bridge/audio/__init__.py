"""Sound that is heard: its sources, what is read out of it, and the tempo that it proposes."""
