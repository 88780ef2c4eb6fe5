import pytest

from storage.errors import (
    AwaitedError,
    BudgetError,
    DataError,
    EngineError,
    IncompleteError,
    InputError,
    LeaseHeldError,
    TransientError,
)
from storage.exit_codes import error_line, exit_code, read_error

CODES = {
    InputError: 2,
    IncompleteError: 3,
    DataError: 3,
    LeaseHeldError: 3,
    TransientError: 3,
    EngineError: 3,
    BudgetError: 4,
    AwaitedError: 5,
}


@pytest.mark.parametrize(("kind", "code"), CODES.items())
def test_code_and_line_together_are_the_error(kind, code):
    error = kind("a: b: c")
    assert exit_code(error) == code
    again = read_error(code, ["before", error_line(error), "after"])
    assert (type(again), str(again)) == (kind, "a: b: c")


def test_every_kind_of_error_has_a_code():
    def kinds(kind):
        return {kind}.union(*map(kinds, kind.__subclasses__()))

    own = {kind for kind in kinds(EngineError) if kind.__module__ == "storage.errors"}
    assert own == set(CODES)


def test_an_error_of_a_kind_below_is_told_as_the_nearest_one_above():
    class CutError(DataError):
        pass

    assert error_line(CutError("cut")) == "error: DataError: cut"
    assert exit_code(CutError("cut")) == 3


def test_what_is_no_error_of_ours_is_none():
    assert read_error(1, ["error: InputError: a"]) is None
    assert read_error(2, ["error: ValueError: a"]) is None
    assert read_error(2, []) is None
