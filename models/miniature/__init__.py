"""The miniature world and the scripts that train the small models on it."""
