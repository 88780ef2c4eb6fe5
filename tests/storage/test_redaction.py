import pytest

from storage.redaction import redacted


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("s3://key:word@bucket/x", "s3://***@bucket/x"),
        ("s3://key@bucket/x", "s3://***@bucket/x"),
        ("GET https://a.b/c?sig=word failed", "GET https://a.b/c?*** failed"),
        ("abfs://container@account.net/x", "abfs://container@account.net/x"),
        ("abfs://c:word@account.net/x", "abfs://***@account.net/x"),
        ("s3://bucket/a@b", "s3://bucket/a@b"),
        ("a word, no more?", "a word, no more?"),
    ],
)
def test_addresses_are_shown_without_what_opens_them(text, shown):
    assert redacted(text) == shown


def test_values_of_the_environment_are_hidden(monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wJalrVerySecret")
    monkeypatch.setenv("AZURE_STORAGE_SAS_TOKEN", "sv=1&sig=abcdef")
    assert redacted("with wJalrVerySecret and sv=1&sig=abcdef") == "with *** and ***"
