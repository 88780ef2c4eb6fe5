"""From a painter's attention to masks: the annotators of DiffuMask and Dataset Diffusion."""
