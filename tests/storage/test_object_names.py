import pytest

from storage.errors import DataError
from storage.objects import open_objects

OUTSIDE = [
    "../x",
    "a/../../x",
    "/etc/passwd",
    "a//b",
    "a/",
    "./a",
    "a/.",
    "..",
    "",
    "a\\..\\b",
    "a\0b",
    "a\nb",
    "a\x7f",
]


@pytest.mark.parametrize("path", OUTSIDE)
def test_a_path_that_is_none_below_the_root_is_refused_by_every_method(root, path):
    objects = open_objects(root)
    objects.write_new("x", b"it")
    for method, *arguments in [
        (objects.read, path),
        (objects.read_range, path, 0, 1),
        (objects.open, path),
        (objects.size, path),
        (objects.write_new, path, b""),
        (objects.replace, path, b""),
        (objects.move, path, "y"),
        (objects.move, "x", path),
        (objects.delete, path),
        (lambda name: list(objects.read_many([name])), path),
        *([(objects.paths, path)] if path else []),
    ]:
        with pytest.raises(DataError, match="names nothing inside a dataset") as caught:
            method(*arguments)
        assert "\n" not in str(caught.value)
    assert objects.paths("") == ["x"]


def test_odd_but_harmless_names_are_names(root):
    objects = open_objects(root)
    for path in ("a b/..c", "\u00e9\u4e2d", "#?%2e%2e", ".engine/x"):
        assert objects.write_new(path, path.encode())
        assert objects.read(path) == path.encode()
