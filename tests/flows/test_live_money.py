import pytest

from answers import answered
from flows.generation_parameters import GenerationParameters
from flows.generation_run import prepare
from flows.live_money import LiveMoney
from models.writing.chat_config import ChatWriterConfig
from storage.ledger import Ledger
from storage.prices import Prices

PRICES = Prices(prompt=1000.0, completion=2000.0)


@pytest.fixture
def run(tmp_path):
    """A run whose texts come from a paid service."""
    from contextlib import ExitStack

    with ExitStack() as stack:

        def run_(**writer):
            config = ChatWriterConfig(model="m", api_key_env=None, **writer)
            parameters = GenerationParameters(root=str(tmp_path / "d"), samples=8, writer=config)
            return stack.enter_context(prepare(parameters))

        yield run_


def pay(run, number, prices=PRICES, **changes):
    Ledger(run.store.objects).add(answered(number, prices=prices, **changes))


def test_spent_projected_and_limit_are_told(run):
    paid = run(prices=PRICES, budget_usd=20)
    pay(paid, 1)
    shares = iter([0.25, 0.5])
    money = LiveMoney(paid, lambda: next(shares))
    assert "2.00 USD spent, projected later, limit 20; 1 calls, 0 errors" in money.words()
    assert money.words() == money.words(), "not asked again at once"
    pay(paid, 2)
    # two USD more brought a quarter, so the other half will take four
    assert "4.00 USD spent, about 8.00 projected, limit 20" in money.words(now=True)


def test_without_prices_tokens_are_told_and_money_is_not_zero(run):
    paid = run(budget_tokens=10_000)
    pay(paid, 1, prices=None)
    words = LiveMoney(paid, lambda: 0.0).words()
    assert "1,500 tokens spent, limit 10,000 (money not known)" in words
    assert "USD" not in words


def test_the_price_table_stands_in_where_the_writer_has_no_prices(run, tmp_path):
    config = ChatWriterConfig(model="gpt-4o-mini", api_key_env=None)
    parameters = GenerationParameters(root=str(tmp_path / "d"), samples=8, writer=config)
    with prepare(parameters) as paid:
        pay(paid, 1, prices=None, prompt_tokens=10**6, completion_tokens=10**6)
        assert "about 0.75 USD spent" in LiveMoney(paid, lambda: 0.0).words()


def test_a_free_writer_has_nothing_to_tell(tmp_path):
    parameters = GenerationParameters(root=str(tmp_path / "d"), samples=8)
    with prepare(parameters) as free:
        assert LiveMoney(free, lambda: 0.0).words() == ""


def test_a_damaged_ledger_is_told_and_ends_nothing(run):
    paid = run(prices=PRICES)
    pay(paid, 1)
    paid.store.objects.replace(f".engine/ledger/answers/{1:064x}.json", b"{")
    assert "cannot be read" in LiveMoney(paid, lambda: 0.0).words()
