"""The miniature Stable Diffusion: captions in, pictures out."""
