"""The style operators of the successor of the shipped model: what its words are trained to look like."""
