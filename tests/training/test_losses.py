import math

import pytest
import torch
from torch.nn import functional as F

from training.losses import (
    _CHUNK_VALUES,
    LossConfig,
    counterfactual_loss,
    mask_losses,
    presence,
    weighted_sum,
)
from training.sampling import BACKGROUND, IGNORE

RELEASED = LossConfig(ignored_pixels="negative")
PAPER = LossConfig(normalisation="paper", ignored_pixels="negative")


def losses_of(logits, label, config=RELEASED):
    """The losses for labels as the authors' code has them: 255 is a negative for every query."""
    return mask_losses(logits, torch.where(label == 255, BACKGROUND, label), config)


def plain_squared_dice(logits, targets, valid=None, active=None):
    """The printed dice loss on full-size maps, as one expression."""
    full = F.interpolate(logits, size=targets.shape[1:], mode="bilinear", align_corners=False)
    truth = (targets[:, None] == torch.arange(full.shape[1])[:, None, None]).float()
    probability = full.sigmoid() if valid is None else full.sigmoid() * valid[:, None]
    overlap = (probability * truth).sum(dim=(2, 3))
    size = (probability.square() + truth).sum(dim=(2, 3))
    losses = 1 - (2 * overlap + 1) / (size + 1)
    return (losses if active is None else losses * active).mean()


def plain_released(logits, label, valid=None, active=None):
    """The released losses, one image and one query at a time on full-size maps."""
    full = F.interpolate(logits, size=label.shape[1:], mode="bilinear", align_corners=False)
    mask = dice = torch.zeros(())
    present = 0
    for i in range(len(full)):
        keep = torch.ones_like(label[i], dtype=torch.bool) if valid is None else valid[i]
        for q in range(full.shape[1]):
            z, y = full[i, q][keep], (label[i] == q)[keep].float()
            s = z.sigmoid()
            entropy = F.binary_cross_entropy_with_logits(z, y, reduction="none")
            p_t = s * y + (1 - s) * (1 - y)
            balance = 0.25 * y + 0.75 * (1 - y)
            if active is None or active[i, q]:
                mask = mask + (balance * entropy * (1 - p_t) ** 2).mean()
            if y.sum():
                present += 1
                dice = dice + 1 - (2 * (s * y).sum() + 1) / (s.sum() + y.sum() + 1)
    return {"mask": mask / max(present, 1), "dice": dice / max(present, 1)}


def random_case(size=24, queries=7):
    torch.manual_seed(0)
    logits = torch.randn(3, queries, 6, 6, requires_grad=True)
    label = torch.randint(0, 3, (3, size, size))
    label[torch.rand(label.shape) < 0.4] = 255
    return logits, label


def test_two_pixels_give_the_values_computed_by_hand():
    logits = torch.tensor([[[[0.0, math.log(3.0)]]]])  # probabilities 1/2 and 3/4
    label = torch.tensor([[[0, 255]]])
    losses = losses_of(logits, label)
    positive = 0.25 * -math.log(0.5) * 0.5**2
    negative = 0.75 * -math.log(0.25) * 0.75**2
    assert losses["mask"].item() == pytest.approx((positive + negative) / 2, rel=1e-6)
    assert losses["dice"].item() == pytest.approx(1 - (2 * 0.5 + 1) / (1.25 + 1 + 1), rel=1e-6)


def test_the_paper_means_over_queries_and_squares_the_denominator():
    logits = torch.tensor([[[[0.0, math.log(3.0)]], [[0.0, 0.0]]]])
    label = torch.tensor([[[0, 255]]])
    losses = losses_of(logits, label, PAPER)
    quarter = -math.log(0.5) * 0.25
    focal = (quarter + -math.log(0.25) * 0.75**2 + 2 * quarter) / 4
    present = 1 - (2 * 0.5 + 1) / (0.25 + 0.5625 + 1 + 1)
    absent = 1 - 1 / (0.25 + 0.25 + 1)
    assert losses["mask"].item() == pytest.approx(focal, rel=1e-6)
    assert losses["dice"].item() == pytest.approx((present + absent) / 2, rel=1e-6)


def test_streaming_equals_the_plain_form_in_value_and_gradient():
    logits, label = random_case()
    streamed = losses_of(logits, label)
    plain = plain_released(logits, label)
    for name in ("mask", "dice"):
        assert streamed[name].item() == pytest.approx(plain[name].item(), rel=1e-6)
        got = torch.autograd.grad(streamed[name], logits, retain_graph=True)[0]
        expected = torch.autograd.grad(plain[name], logits, retain_graph=True)[0]
        assert (got - expected).norm() / expected.norm() < 1e-5


def test_autocast_around_the_losses_changes_nothing():
    logits, label = random_case()
    expected = losses_of(logits, label)["mask"]
    with torch.autocast("cpu", torch.bfloat16):
        found = losses_of(logits, label)["mask"]
    found.backward()
    assert found.item() == expected.item()
    assert logits.grad.dtype == torch.float32


def test_a_class_on_every_pixel_has_the_gradient_of_the_plain_form():
    logits, _ = random_case(queries=4)
    label = torch.full((3, 24, 24), 2)
    got = torch.autograd.grad(losses_of(logits, label)["mask"], logits)[0]
    expected = torch.autograd.grad(plain_released(logits, label)["mask"], logits)[0]
    assert (got - expected).norm() / expected.norm() < 1e-5


def test_chunks_of_queries_give_the_same_loss(monkeypatch):
    logits, label = random_case(queries=5)
    whole = losses_of(logits, label)["mask"]
    monkeypatch.setitem(_CHUNK_VALUES, "cpu", 2 * label[0].numel())
    assert losses_of(logits, label)["mask"].item() == pytest.approx(whole.item(), rel=1e-6)


def test_raising_logits_on_ignored_pixels_costs_only_where_they_are_negatives():
    targets = torch.full((1, 8, 8), IGNORE)
    targets[:, :4] = 0
    low, high = torch.zeros(1, 2, 8, 8), torch.zeros(1, 2, 8, 8)
    high[:, :, 4:] = 3.0
    masked, negative = (LossConfig(ignored_pixels=rule) for rule in ("mask", "negative"))
    for name in ("mask", "dice"):
        assert mask_losses(high, targets, masked)[name] == mask_losses(low, targets, masked)[name]
        assert (
            mask_losses(high, targets, negative)[name] > mask_losses(low, targets, negative)[name]
        )


def test_masked_pixels_and_inactive_queries_equal_the_plain_form():
    logits, label = random_case()
    valid = torch.rand(label.shape) < 0.7
    active = torch.rand(logits.shape[:2]) < 0.6
    targets = torch.where(label == 255, BACKGROUND, label)
    targets[~valid] = IGNORE
    found = mask_losses(logits, targets, LossConfig(), active=active)
    # The plain form resizes first and masks afterwards, as the streamed one does.
    plain = plain_released(logits, targets, valid, active)
    for name in ("mask", "dice"):
        assert found[name].item() == pytest.approx(plain[name].item(), rel=1e-5)


@pytest.mark.parametrize("normalisation", ["released", "paper"])
def test_inactive_queries_give_no_loss_and_no_gradient(normalisation):
    logits, label = random_case(queries=6)
    targets = torch.where(label == 255, BACKGROUND, label)
    active = torch.ones(3, 6, dtype=torch.bool)
    active[:, 3] = active[0, 4:] = False
    config = LossConfig(normalisation=normalisation)
    terms = mask_losses(logits, targets, config, active=active)
    weighted_sum(terms, config).backward()
    assert (logits.grad[~active] == 0).all()
    assert (logits.grad[active].abs().amax(dim=(-1, -2)) > 0).all()
    other = logits.detach().clone()
    other[~active] = 9.0
    again = mask_losses(other, targets, config, active=active)
    assert {n: t.item() for n, t in terms.items()} == {n: t.item() for n, t in again.items()}


@pytest.mark.parametrize("rule", ["mask", "negative"])
def test_the_printed_dice_equals_the_plain_form_in_value_and_gradient(rule):
    logits, label = random_case()
    valid = torch.rand(label.shape) < 0.7
    active = torch.rand(logits.shape[:2]) < 0.6
    targets = torch.where(label == 255, BACKGROUND, label)
    targets[~valid] = IGNORE
    config = LossConfig(normalisation="paper", ignored_pixels=rule)
    found = mask_losses(logits, targets, config, active=active)["dice"]
    expected = plain_squared_dice(logits, targets, valid if rule == "mask" else None, active)
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)
    got, wanted = (torch.autograd.grad(value, logits)[0] for value in (found, expected))
    assert (got - wanted).norm() / wanted.norm() < 1e-5


@pytest.mark.parametrize(("normalisation", "present"), [("paper", 3), ("released", 1)])
def test_no_map_of_all_queries_at_full_size_is_kept_for_the_gradient(normalisation, present):
    logits = torch.randn(2, 40, 4, 4, requires_grad=True)
    targets = torch.full((2, 64, 64), BACKGROUND)
    for query in range(present):
        targets[:, query] = query
    kept = []

    def note(tensor):
        kept.append(tensor.numel())
        return tensor

    config = LossConfig(normalisation=normalisation)
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        weighted_sum(mask_losses(logits, targets, config), config)
    assert kept
    assert max(kept) < 40 * 64 * 64


def test_background_only_images_give_finite_losses_and_a_gradient():
    logits = torch.zeros(2, 3, 4, 4, requires_grad=True)
    targets = torch.full((2, 8, 8), BACKGROUND)
    losses = mask_losses(logits, targets, LossConfig())
    weighted_sum(losses, LossConfig()).backward()
    assert losses["dice"].item() == 0.0
    assert (logits.grad > 0).all()


@pytest.mark.parametrize("normalisation", ["released", "paper"])
def test_it_makes_no_difference_who_looks_which_classes_are_there(normalisation):
    logits, label = random_case()
    targets = torch.where(label == 255, BACKGROUND, label)
    config = LossConfig(normalisation=normalisation)
    there = presence(targets, logits.shape[1])
    assert there.any()
    assert not there.all()
    found, given = (
        mask_losses(logits, targets, config),
        mask_losses(logits, targets, config, present=there),
    )
    assert found["mask"] == given["mask"]
    assert found["dice"] == given["dice"]


def test_parts_of_a_batch_add_up_to_the_whole():
    logits, label = random_case()
    targets = torch.where(label == 255, BACKGROUND, label)
    total = presence(targets, 7).sum()
    whole = mask_losses(logits, targets, LossConfig())
    parts = [
        mask_losses(logits[i : i + 1], targets[i : i + 1], LossConfig(), num_present=total)
        for i in range(3)
    ]
    for name in ("mask", "dice"):
        assert sum(p[name].item() for p in parts) == pytest.approx(whole[name].item(), rel=1e-6)


def test_the_counterfactual_loss_is_the_mean_of_positive_cosines():
    positive = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    counterfactual = torch.tensor([[0.6, 0.8], [-1.0, 0.0]])
    assert counterfactual_loss(positive, counterfactual).item() == pytest.approx(0.3)


def test_the_counterfactual_loss_teaches_both_images():
    pair = torch.tensor([[1.0, 0.2], [1.0, 0.1]], requires_grad=True)
    counterfactual_loss(pair[:1], pair[1:]).backward()
    assert (pair.grad.abs().sum(dim=1) > 0).all()


def test_weights_multiply_their_own_term():
    terms = {"mask": torch.tensor(1.0), "dice": torch.tensor(2.0)}
    assert weighted_sum(terms, LossConfig(dice_weight=3.0)).item() == 106.0
