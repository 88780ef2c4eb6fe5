import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from storage.class_sets import annotation_ids, load_benchmark
from storage.errors import InputError
from storage.slices import resolve_slice
from storage.tables import read_table
from storage.vocabulary import (
    TEMPLATE_SETS,
    VOCABULARIES,
    Vocabulary,
    load_vocabulary,
    text_templates,
)

COLLIDING = ["bow", "fish", "octopus", "pan", "salmon"]


@pytest.fixture
def lvis():
    return load_vocabulary("lvis1205")


@pytest.mark.parametrize(("name", "size"), [("lvis1205", 1205), ("miniature", 14)])
def test_a_class_id_is_a_position_and_a_name_is_unique(name, size):
    vocabulary = load_vocabulary(name)
    assert len(vocabulary) == len(list(vocabulary)) == size
    assert [record.class_id for record in vocabulary] == list(range(size))
    assert len({record.name.casefold() for record in vocabulary}) == size
    assert vocabulary[5] is vocabulary.classes[5]


@pytest.mark.parametrize("name", VOCABULARIES)
def test_no_phrase_of_any_class_holds_a_qualifier_or_a_stray_blank(name):
    for record in load_vocabulary(name):
        for phrase in (*record.forms, record.detector_phrase, *record.embedding_phrases):
            assert not re.search(r"[()_.;,/]|^\s|\s$|\s\s", phrase), record
        assert record.detector_phrase == record.detector_phrase.lower()
        assert record.detector_phrase == record.forms[0].lower()
        assert len({form.casefold() for form in record.forms}) == len(record.forms)


def test_lvis_categories_keep_their_order_and_frequencies(lvis):
    counts = [sum(record.frequency == f for record in lvis) for f in "rcf"]
    assert counts == [337, 461, 405]
    assert (lvis[0].name, lvis[1202].name) == ("aerosol can", "zucchini")
    assert [(c.name, c.frequency) for c in lvis.classes[1203:]] == [
        ("potted plant", ""),
        ("tv monitor", ""),
    ]


@pytest.mark.parametrize(
    ("name", "forms"),
    [
        ("knife", ("knife", "knives")),
        ("ski", ("ski", "skis")),
        ("scissors", ("scissors",)),
        ("sheep", ("sheep",)),
        ("bow-tie", ("bow-tie", "bow-ties", "bow tie", "bow ties", "bowtie", "bowties")),
        ("bow (weapon)", ("bow", "bows")),
        ("sofa", ("sofa", "sofas", "couch", "couches", "lounge", "lounges")),
        ("cab (taxi)", ("cab", "cabs", "taxi", "taxis", "taxicab", "taxicabs")),
        ("ax", ("ax", "axes", "axe")),
        ("wineglass", ("wineglass", "wineglasses", "wine glass", "wine glasses")),
        ("mouse (computer equipment)", ("computer mouse", "computer mice", "mouse", "mice")),
        ("brussels sprouts", ("brussels sprout", "brussels sprouts")),
    ],
)
def test_forms_are_singular_plural_then_synonyms_and_theirs(lvis, name, forms):
    assert lvis.by_name(name).forms == forms


def test_the_plural_follows_the_preferred_singular(lvis):
    person = lvis.by_name("person")
    assert person.forms[:2] == ("person", "people")
    assert {"man", "men", "woman", "women", "child", "children"} < set(person.forms)


def test_the_lvis_name_with_text_after_its_qualifier_is_read_right(lvis):
    monitor = lvis[697]
    assert monitor.name == "monitor (computer equipment) computer monitor"
    assert monitor.forms == ("computer monitor", "computer monitors", "monitor", "monitors")
    assert monitor.detector_phrase == "computer monitor"
    assert monitor.embedding_phrases == ("computer monitor",)
    assert monitor.qualifier == "computer equipment"
    assert lvis.by_name("monitor") is lvis.by_name("computer monitor") is monitor


@pytest.mark.parametrize("name", COLLIDING)
def test_classes_that_differ_by_qualifier_alone_have_embeddings_of_their_own(lvis, name):
    one, other = [r for r in lvis if re.sub(r" \(.*", "", r.name) == name]
    assert not set(one.embedding_phrases) & set(other.embedding_phrases)
    assert name in one.forms
    assert name in other.forms


def test_the_two_bows(lvis):
    weapon, ribbons = lvis.by_name("bow (weapon)"), lvis.by_name("bow_(decorative_ribbons)")
    assert (weapon.qualifier, ribbons.qualifier) == ("weapon", "decorative ribbons")
    assert weapon.detector_phrase == ribbons.detector_phrase == "bow"
    assert weapon.embedding_phrases[0] == "bow weapon"


def test_a_qualifier_helps_the_text_encoder(lvis):
    assert lvis.by_name("bat (animal)").embedding_phrases == ("bat", "bat animal")
    assert lvis.by_name("patty (food)").embedding_phrases == ("patty", "patty as food")
    assert lvis.by_name("cat").embedding_phrases == ("cat",)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("bus", "bus (vehicle)"),
        ("Bus (Vehicle)", "bus (vehicle)"),
        ("christmas_tree", "Christmas tree"),
        (" potted  plant ", "potted plant"),
        ("fish", "fish"),
    ],
)
def test_a_name_is_found_without_case_underscores_or_qualifier(lvis, text, name):
    assert lvis.by_name(text).name == name


def test_an_ambiguous_name_is_refused_with_its_candidates(lvis):
    with pytest.raises(InputError, match="ambiguous") as error:
        lvis.by_name("bow")
    assert '"bow (weapon)", "bow (decorative ribbons)"' in str(error.value)


@pytest.mark.parametrize(
    ("wrong", "near"), [("girafe", "giraffe"), ("couch", "sofa"), ("buss", "bus (vehicle)")]
)
def test_an_unknown_name_is_refused_with_the_nearest_and_where_all_stand(lvis, wrong, near):
    with pytest.raises(InputError, match=f'"{wrong}" is not in vocabulary lvis1205') as error:
        lvis.by_name(wrong)
    assert f'nearest are "{near}"' in str(error.value)
    listed = str(error.value).rsplit("all names are in ", 1)[1]
    assert near in Path(listed).read_text(encoding="utf-8")


def test_a_name_that_nothing_comes_near_is_refused_all_the_same(lvis):
    with pytest.raises(InputError, match="nothing comes near"):
        lvis.by_name("qqqqqqqq")


def test_the_miniature_world_has_its_classes_in_order():
    names = "balloon bus cat mushroom fish star umbrella house boat tree apple cactus cup rocket"
    vocabulary = load_vocabulary("miniature")
    assert [record.name for record in vocabulary] == names.split()
    assert [record.forms[0] for record in vocabulary] == names.split()


def test_the_digest_is_of_the_contents(lvis):
    twin = Vocabulary("twin", lvis.classes)
    assert re.fullmatch("[0-9a-f]{64}", lvis.digest)
    assert twin.digest == lvis.digest
    changed = lvis[3].model_copy(update={"forms": ("alarm",)})
    other = Vocabulary("lvis1205", (*lvis.classes[:3], changed, *lvis.classes[4:]))
    assert other.digest != lvis.digest


def test_an_unknown_vocabulary_is_refused_with_the_known_ones():
    with pytest.raises(InputError, match='"lvis" does not exist, expected one of lvis1205, mini'):
        load_vocabulary("lvis")


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("all", 1205),
        ("lvis-r", 337),
        ("lvis-c", 461),
        ("lvis-f", 405),
        ("voc20", 20),
        ("context59", 30),
        ("coco80", 79),
        ("0:100", 100),
        ("1204:1205", 1),
        ("cat,dog,bus (vehicle)", 3),
    ],
)
def test_a_slice_can_be_named_in_many_ways(lvis, text, count):
    found = resolve_slice(lvis, text)
    assert len(found.class_ids) == count
    assert list(found.class_ids) == sorted(set(found.class_ids))
    assert found.label == text


def test_a_slice_is_known_by_its_classes_not_by_its_text(lvis):
    ranged = resolve_slice(lvis, "0:3")
    listed = resolve_slice(lvis, " airplane, air conditioner,aerosol_can ")
    assert ranged.class_ids == listed.class_ids
    assert ranged.slice_id == listed.slice_id
    assert ranged.slice_id != resolve_slice(lvis, "0:4").slice_id
    assert ranged.slice_id != resolve_slice(load_vocabulary("miniature"), "0:3").slice_id


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0:1206", "out of bounds or empty: .* <= 1205"),
        ("3:3", "out of bounds or empty"),
        ("5:2", "out of bounds or empty"),
        ("", "empty class name: write all"),
        ("cat,,dog", "empty class name"),
        ("cat,dog,cat", "names a class twice: cat"),
        ("bus,bus (vehicle)", r"names a class twice: bus \(vehicle\)"),
        ("cat,unicorn", '"unicorn" is not in'),
        ("cat,bow", "ambiguous"),
        ("lvis-x", '"lvis-x" is not in'),
    ],
)
def test_a_slice_that_means_no_proper_classes_is_refused(lvis, text, message):
    with pytest.raises(InputError, match=message):
        resolve_slice(lvis, text)


@pytest.mark.parametrize("text", ["voc20", "lvis-r"])
def test_a_slice_of_another_vocabulary_is_refused(text):
    with pytest.raises(InputError, match=f'"{text}" holds no class of miniature: write all'):
        resolve_slice(load_vocabulary("miniature"), text)


@pytest.mark.parametrize(
    ("name", "count", "covered"),
    [
        ("voc20", 20, 20),
        ("context59", 59, 30),
        ("coco80", 80, 79),
        ("coco_stuff", 171, 89),
        ("cityscapes", 19, 10),
        ("lvis1203", 1203, 1203),
        ("miniature", 14, 14),
    ],
)
def test_a_benchmark_names_its_classes_and_their_place_in_the_vocabulary(name, count, covered):
    benchmark = load_benchmark(name)
    assert len(benchmark.names) == len(benchmark.phrases) == len(benchmark.class_ids) == count
    known = [class_id for class_id in benchmark.class_ids if class_id is not None]
    assert len(known) == len(set(known)) == covered
    assert max(known) < len(load_vocabulary(benchmark.vocabulary))


def test_a_slice_says_which_classes_of_its_benchmark_it_leaves_out(lvis):
    assert resolve_slice(lvis, "coco80").absent == ("hot dog",)
    assert resolve_slice(lvis, "voc20").absent == resolve_slice(lvis, "cat").absent == ()
    assert len(resolve_slice(lvis, "context59").absent) == 29


def test_what_a_benchmark_calls_a_class_is_a_form_of_that_class(lvis):
    spelled_apart = {"diningtable", "pottedplant", "tvmonitor"}
    for name in ("voc20", "context59", "coco80"):
        benchmark = load_benchmark(name)
        for official, class_id in zip(benchmark.names, benchmark.class_ids, strict=True):
            if class_id is not None and official not in spelled_apart:
                assert official in {form.lower() for form in lvis[class_id].forms}


def test_the_background_is_scored_in_the_larger_class_set_of_a_pair():
    pairs = {
        "voc20": "voc21",
        "context59": "context60",
        "coco80": "coco_object",
        "lvis1203": "lvis",
    }
    for foreground, both in pairs.items():
        assert not load_benchmark(foreground).background
        assert load_benchmark(both).background
        assert load_benchmark(foreground).names == load_benchmark(both).names


def test_no_two_lvis_classes_share_the_preferred_phrase():
    phrases = dict(zip(load_benchmark("lvis").names, load_benchmark("lvis").phrases, strict=True))
    assert len({preferred for preferred, *_ in phrases.values()}) == 1203
    assert phrases["bow (weapon)"][0] != phrases["bow (decorative ribbons)"][0]
    assert phrases["airplane"] == ("airplane", "aeroplane")
    assert all(len(names) == len(set(names)) for names in phrases.values())


def test_annotation_files_number_the_classes_in_their_own_way():
    def numbers(benchmark):
        names = load_benchmark(benchmark).names
        return dict(zip(names, annotation_ids(benchmark), strict=True))

    assert numbers("coco80")["person"] == 1
    assert numbers("coco_object")["toothbrush"] == 90
    assert numbers("coco80")["stop sign"] == 13
    assert numbers("context59")["aeroplane"] == 2
    assert numbers("context60")["tvmonitor"] == 427
    assert numbers("lvis")["Christmas tree"] == 255
    assert numbers("lvis")["zucchini"] == 1203
    assert numbers("voc21")["tvmonitor"] == 20
    for benchmark in ("voc20", "context59", "coco80", "lvis1203", "miniature"):
        ids = annotation_ids(benchmark)
        assert len(ids) == len(set(ids)) == len(load_benchmark(benchmark).names)


def test_a_text_encoder_reads_proper_words_for_a_benchmark_class():
    voc = load_benchmark("voc20")
    phrases = dict(zip(voc.names, voc.phrases, strict=True))
    assert phrases["diningtable"][0] == "dining table"
    assert phrases["tvmonitor"][:3] == ("tv monitor", "tvmonitor", "monitor")
    assert phrases["cat"] == ("cat",)


def test_an_unknown_benchmark_is_refused_with_the_known_ones():
    with pytest.raises(InputError, match="expected one of voc20, voc21"):
        load_benchmark("ade150")


@pytest.mark.parametrize(
    ("name", "count"), list(zip(TEMPLATE_SETS, [1, 1, 15, 80, 9], strict=True))
)
def test_every_template_has_one_place_for_the_class(name, count):
    templates = text_templates(name)
    assert len(templates) == len(set(templates)) == count
    assert all(template.count("{}") == 1 for template in templates)
    firsts = {"a photo of a cat.", "a photo of a cat", "a bad photo of a cat.", "itap of a cat."}
    assert templates[0].format("cat") in firsts


def test_an_unknown_template_set_is_refused():
    with pytest.raises(InputError, match='template set "many" does not exist'):
        text_templates("many")


def test_published_numbers_are_numbers_or_not_reported():
    rows = read_table("published_results.csv")
    assert len(rows) == 124
    assert all(row["value"] == "" or 0 < float(row["value"]) < 100 for row in rows)
    ours = [r for r in rows if (r["table"], r["method"], r["dataset"]) == ("I", "MagicSeg", "LVIS")]
    assert [row["value"] for row in ours] == ["4.9"]


def test_records_are_frozen_and_strict(lvis):
    with pytest.raises(ValidationError):
        lvis[0].name = "other"
    with pytest.raises(ValidationError):
        type(lvis[0]).model_validate({**lvis[0].model_dump(), "colour": "red"})
