"""Running means of weights."""

from torch import Tensor, nn


class WeightAverage:
    """An exponential moving average of a module's weights.

    Args:
        module: What is averaged; the average begins with its weights.
    """

    def __init__(self, module: nn.Module) -> None:
        self.weights = {k: v.detach().clone() for k, v in module.state_dict().items()}

    def update(self, module: nn.Module, decay: float) -> None:
        """Move towards the present weights."""
        for name, value in module.state_dict().items():
            if value.is_floating_point():
                self.weights[name].lerp_(value.detach(), 1 - decay)

    def state_dict(self) -> dict[str, Tensor]:
        """The averaged weights."""
        return self.weights

    def load_state_dict(self, state_dict: dict[str, Tensor]) -> None:
        """Take averaged weights over."""
        for name, value in state_dict.items():
            self.weights[name].copy_(value)
