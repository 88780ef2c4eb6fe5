"""Self-training: the student itself names what nobody has marked.

In ZegCLIP's transductive setting (arXiv 2212.03588, section 4.2) the unseen names are known in the
second half of the training, but not their masks. A pixel that no seen class is marked on gets the
unseen name of the largest sigmoid score, by the network as it is at that update.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from training.sampling import BACKGROUND, IGNORE


def own_labels(
    logits: Float[Tensor, "batch m h w"],
    targets: Int[Tensor, "batch height width"],
    unseen: Bool[Tensor, "batch m"],
    least_score: float,
) -> Int[Tensor, "batch height width"]:
    """Name the background of each image.

    Padding and pixels of unknown class stay what they are.

    Args:
        logits: Mask logits at the patch grid.
        targets: Positions in the image's names, or a negative number.
        unseen: Which of the names have no masks; as many in each image. On the CPU, so that nobody
            waits for a GPU.
        least_score: Sigmoid score in [0, 1) that the best of them must have; where it has less, the
            class is unknown. Background would be wrong there: it is a negative for the very names
            whose objects it may show.
    """
    labelled = targets.clone()
    for image, (low, own) in enumerate(zip(logits, unseen, strict=True)):
        places = own.nonzero()[:, 0].to(logits.device)  # (U,)
        # One image at a time: (U, H, W) for a whole batch would be large.
        large = F.interpolate(
            low[places][None].float(), size=targets.shape[1:], mode="bilinear", align_corners=False
        )[0]
        best, which = large.max(dim=0)  # (U, H, W) -> (H, W) each
        unmarked = targets[image] == BACKGROUND
        names = torch.where(best.sigmoid() >= least_score, places[which], IGNORE)
        labelled[image] = torch.where(unmarked, names.to(targets.dtype), targets[image])
    return labelled
