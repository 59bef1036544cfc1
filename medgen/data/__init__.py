"""Images and image-text tables in, datasets out."""
