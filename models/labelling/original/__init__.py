"""The packages of the papers, `groundingdino-py` and `segment-anything`, as back ends."""
