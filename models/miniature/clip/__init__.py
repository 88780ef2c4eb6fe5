"""The miniature CLIP: pictures and captions side by side."""
