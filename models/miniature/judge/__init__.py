"""An independent judge of generated pictures."""
