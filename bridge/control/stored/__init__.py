"""What a stored snapshot holds, the file that keeps it, its picture, and the glide of a recall."""
