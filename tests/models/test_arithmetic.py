"""TF32: a switch of the process, held by whoever computes in float32 on a GPU."""

import threading

import pytest
import torch

from models.arithmetic import rounding_of, torch_dtype

CUDA, CPU = torch.device("cuda"), torch.device("cpu")


def is_rounded():
    return torch.backends.cuda.matmul.allow_tf32


@pytest.mark.parametrize(("arithmetic", "rounded"), [("float32", False), ("tf32", True)])
@pytest.mark.parametrize("before", [False, True])
def test_products_are_rounded_in_tf32_alone_whatever_the_switch_was(arithmetic, rounded, before):
    own = is_rounded()
    torch.backends.cuda.matmul.allow_tf32 = before
    try:
        with rounding_of(arithmetic, CUDA):
            assert is_rounded() is rounded
        assert is_rounded() is before
    finally:
        torch.backends.cuda.matmul.allow_tf32 = own


def test_the_switch_goes_back_after_an_error():
    with pytest.raises(KeyError), rounding_of("tf32", CUDA):
        raise KeyError
    assert not is_rounded()


def test_a_thread_that_computes_in_float32_waits_for_one_in_tf32():
    seen, asked = [], threading.Event()

    def whole():
        asked.set()
        with rounding_of("float32", CUDA):
            seen.append(is_rounded())

    other = threading.Thread(target=whole)
    with rounding_of("tf32", CUDA):
        other.start()
        asked.wait()
        other.join(0.05)
        assert not seen
        assert is_rounded()
    other.join()
    assert seen == [False]


@pytest.mark.parametrize(
    ("arithmetic", "device"), [("tf32", CPU), ("float16", CUDA), ("bfloat16", CUDA)]
)
def test_who_does_not_need_the_switch_does_not_wait_for_it(arithmetic, device):
    done = threading.Event()

    def work():
        with rounding_of(arithmetic, device):
            done.set()

    with rounding_of("float32", CUDA):
        other = threading.Thread(target=work)
        other.start()
        assert done.wait(10)
    other.join()


def test_tf32_is_stored_as_float32():
    assert torch_dtype("tf32") is torch.float32
    assert torch_dtype("bfloat16") is torch.bfloat16
