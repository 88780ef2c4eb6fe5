"""The miniature Grounding DINO: class names in, boxes out."""
