import gc
import weakref

from models.profiles import load_profile
from tasks import resident


def test_a_model_is_built_once_until_it_is_let_go():
    config = load_profile("miniature").segmenter
    built = resident.segmenter(config)
    assert resident.segmenter(config) is built
    alive = weakref.ref(built)
    resident.release()
    del built
    gc.collect()
    assert alive() is None
    assert resident.segmenter(config) is resident.segmenter(config)
