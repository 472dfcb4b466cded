"""A model family as an extension would add it: a network of two causal convolutions, unknown to the engine."""
