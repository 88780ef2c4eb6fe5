import pytest

from storage.tables import read_table
from storage.vocabulary import VOCABULARIES, load_vocabulary
from training.config import NegativesConfig
from training.negatives import Exclusions, related_classes


@pytest.fixture
def vocabulary():
    return load_vocabulary("lvis1205")


def kept_out(vocabulary, name, text="", **kinds):
    exclusions = Exclusions(vocabulary, NegativesConfig(**kinds))
    found = exclusions.of((vocabulary.by_name(name).class_id,), text)
    return {vocabulary[i].name for i in found}


def test_by_default_nothing_is_kept_out(vocabulary):
    assert kept_out(vocabulary, "school bus", "a bus and a dog") == set()


def test_a_shared_name_is_a_synonym(vocabulary):
    assert kept_out(vocabulary, "octopus (food)", synonyms=True) == {"octopus (animal)"}
    assert kept_out(vocabulary, "school bus", synonyms=True) == set()


def test_names_within_names_are_found_both_ways(vocabulary):
    assert "school bus" in kept_out(vocabulary, "bus", contained_names=True)
    assert "bus (vehicle)" in kept_out(vocabulary, "school bus", contained_names=True)
    assert "dog collar" in kept_out(vocabulary, "dog", contained_names=True)
    assert "bus (vehicle)" not in kept_out(vocabulary, "cat", contained_names=True)


def test_broader_names_are_true_of_the_object_at_any_remove(vocabulary):
    assert kept_out(vocabulary, "school bus", broader=True) == {"bus (vehicle)", "motor vehicle"}
    assert kept_out(vocabulary, "mallard", broader=True) == {"duck", "bird"}
    assert kept_out(vocabulary, "bird", broader=True) == set()


def test_narrower_is_the_other_way_round(vocabulary):
    broader = related_classes(vocabulary, NegativesConfig(broader=True))
    narrower = related_classes(vocabulary, NegativesConfig(narrower=True))
    up = {(i, j) for i, own in enumerate(broader) for j in own}
    down = {(j, i) for i, own in enumerate(narrower) for j in own}
    assert up == down
    assert {"school bus", "ambulance"} <= kept_out(vocabulary, "motor vehicle", narrower=True)


def test_what_the_text_names_is_possibly_present(vocabulary):
    text = "A dog on two red Sofas, by the school-bus of Zo\u00eb's child."
    found = kept_out(vocabulary, "dog", text, mentioned=True)
    assert {"dog", "sofa", "school bus", "bus (vehicle)", "person"} <= found
    assert "cat" not in found
    assert kept_out(vocabulary, "dog", "scattered catkins", mentioned=True) == set()


def test_kinds_add_up(vocabulary):
    both = kept_out(vocabulary, "mallard", "on a boat", broader=True, mentioned=True)
    assert both == {"duck", "bird", "boat"}


def test_no_class_is_its_own_relative(vocabulary):
    every = NegativesConfig(synonyms=True, contained_names=True, broader=True, narrower=True)
    assert all(i not in own for i, own in enumerate(related_classes(vocabulary, every)))


def test_the_table_of_hypernyms_names_known_classes_and_has_no_circle():
    for name in VOCABULARIES:
        vocabulary = load_vocabulary(name)
        rows = [row for row in read_table("hypernyms.csv") if row["vocabulary"] == name]
        named = {
            vocabulary.by_name(n).name for r in rows for n in (r["class"], *r["broader"].split(";"))
        }
        written = {n for r in rows for n in (r["class"], *r["broader"].split(";"))}
        assert named == written
        related = related_classes(vocabulary, NegativesConfig(broader=True))
        assert not [(i, j) for i, own in enumerate(related) for j in own if i in related[j]]
