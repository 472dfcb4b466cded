"""A family of models of somebody else's: a network of two causal convolutions. Nothing in the engine knows it."""
