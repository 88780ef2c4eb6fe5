"""Writing: scene texts, and where the classes stand in them."""
