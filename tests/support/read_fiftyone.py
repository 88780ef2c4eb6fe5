"""Reads an export by FiftyOne's own importer, in an environment of its own; prints JSON.

    python read_fiftyone.py FOLDER

MongoDB's server is taken from FIFTYONE_DATABASE_URI. Where that is not set, mongomock keeps the
documents in memory, so that the importer can be tried where no server can be had.
"""

import hashlib
import json
import os
import sys
from pathlib import Path


def use_memory():
    """Put mongomock in the place of a server."""
    os.environ.update(
        FIFTYONE_DATABASE_URI="mongodb://localhost:1",
        FIFTYONE_DATABASE_VALIDATION="false",
        FIFTYONE_DATABASE_ADMIN="false",
    )
    import mongoengine
    import mongomock
    import pymongo

    client = mongomock.MongoClient("mongodb://localhost:1")
    mongomock.MongoClient._closed = False
    connect = mongoengine.connect
    pymongo.MongoClient = lambda *_, **__: client
    mongoengine.connect = lambda name, **_: connect(name, mongo_client_class=pymongo.MongoClient)


def main(folder):
    os.environ["FIFTYONE_DO_NOT_TRACK"] = "true"
    if "FIFTYONE_DATABASE_URI" not in os.environ:
        use_memory()
    import fiftyone as fo

    dataset = fo.Dataset.from_dir(folder, dataset_type=fo.types.FiftyOneDataset, progress=False)
    samples = [
        {
            "id": sample.id,
            "key": sample.key,
            "text": sample.text,
            "there": Path(sample.filepath).is_file() and Path(sample.counterfactual).is_file(),
            "objects": [
                {
                    "id": each.id,
                    "label": each.label,
                    "score": each.confidence,
                    "mask": mask_digest(each, sample.metadata),
                }
                for each in sample.masks.detections
            ],
        }
        for sample in dataset
    ]
    found = {"samples": samples, "classes": dataset.classes, "info": dataset.info}
    sys.stdout.write(json.dumps(found | {"media": list(dataset.app_config.media_fields)}) + "\n")


def mask_digest(detection, metadata):
    """Of the whole mask as FiftyOne draws it, a byte a pixel."""
    size = (metadata.width, metadata.height)
    drawn = detection.to_segmentation(frame_size=size, target=1).mask
    return hashlib.sha256((drawn > 0).tobytes()).hexdigest()


if __name__ == "__main__":
    main(sys.argv[1])
