"""What a service charges for tokens."""

from pydantic import Field

from storage.records import Record


class Prices(Record, frozen=True):
    """What a service charges, in USD for a million tokens."""

    prompt: float = Field(ge=0)
    """For tokens that it reads."""
    completion: float = Field(ge=0)
    """For tokens that it writes."""

    def times(self, share: float) -> "Prices":
        """The same prices, all lower or higher by a factor."""
        return Prices(prompt=self.prompt * share, completion=self.completion * share)

    def cost(self, prompt_tokens: int, completion_tokens: int) -> float:
        """Price of a call in USD."""
        return (self.prompt * prompt_tokens + self.completion * completion_tokens) / 1e6
