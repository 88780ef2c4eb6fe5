"""The shipped painter paints what it was shipped for, with every version of the libraries.

A checkpoint may load in silence and paint noise, when a library reads its names otherwise than the
release that wrote it. So the pictures are held against small ones that are stored here.
"""

import io
from pathlib import Path

import numpy as np
from PIL import Image

from models.painting.painters import DiffusionPairPainter
from models.profiles import load_profile
from models.protocols import PairRequest

# 16 x 16 pixels each: positive and counterfactual of two pairs, side by side. Painted with torch
# 2.13, diffusers 0.42.1 and transformers 5.23; brought up to date by writing `row` to this file.
STORED = Path(__file__).parents[2] / "data" / "shipped-pictures.png"
SIDE = 16
REQUESTS = [
    PairRequest("a red bus on the beach", "a red nothing on the beach", 1),
    PairRequest("a cat in the snow", "a nothing in the snow", 2),
]


def paint_row():
    config = load_profile("miniature").painter
    config = config.model_copy(update={"device": "cpu", "batch_size": 2})
    pairs = DiffusionPairPainter(config).paint(REQUESTS)
    images = [image for pair in pairs for image in (pair.image, pair.counterfactual)]
    small = [
        np.asarray(Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.BOX))
        for image in images
    ]
    return np.concatenate(small, axis=1)


def test_the_shipped_painter_paints_its_pictures():
    row = paint_row().astype(int)
    stored = np.asarray(Image.open(io.BytesIO(STORED.read_bytes()))).astype(int)
    differences = np.abs(row - stored)
    assert differences.mean() < 1.0
    assert differences.max() < 16
