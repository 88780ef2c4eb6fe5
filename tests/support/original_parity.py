"""Two back ends beside each other: what each scores, and how far they are apart."""

import numpy as np

from models.labelling.captions import Captions


def captions_of(detector, phrases):
    writer = Captions(detector._backend.tokenizer, detector._backend.max_tokens)
    return [next(writer.of(index, own)) for index, own in enumerate(phrases)]


def scores_of(detector, images, phrases):
    backend = detector._backend
    return backend.score(backend.encode(images), captions_of(detector, phrases))


def worst(first, second, captions):
    """Largest difference of a token's score, and of a relative box."""
    widths = [len(caption.token_ids) for caption in captions]
    rows = list(zip(first, second, widths, strict=True))
    return (
        max(np.abs(a.scores[:, :n] - b.scores[:, :n]).max() for a, b, n in rows),
        max(np.abs(a.boxes - b.boxes).max() for a, b, _ in rows),
    )
