"""The miniature SAM: boxes in, masks out."""
