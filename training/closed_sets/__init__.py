"""Training of closed-set segmenters, by mmengine's runner."""
