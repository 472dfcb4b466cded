"""The Wan2.1 family: network, video autoencoder, text encoder, checkpoints, rows of the model table."""
