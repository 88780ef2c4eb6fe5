import pytest

from models.writing.addresses import ServiceAddress, advised_address, proxy_words


@pytest.mark.parametrize(
    "group",
    [
        (
            "http://host:8000/v1",
            "http://host:8000/v1/",
            "http://host:8000",
            "http://HOST:8000/",
            "http://host:8000/v1/chat/completions",
        ),
        ("https://api.openai.com/v1", "https://api.openai.com:443/v1"),
        ("http://host/v1", "http://host:80/v1"),
        (
            "https://me.openai.azure.com/openai/deployments/m?api-version=2024-10-21",
            "https://me.openai.azure.com/openai/deployments/m/?api-version=2025-01-01",
            "https://me.openai.azure.com/openai/deployments/m/chat/completions?api-version=x",
        ),
    ],
)
def test_addresses_of_one_service_are_one(group):
    assert len({ServiceAddress.of(text).identity for text in group}) == 1


def test_the_identity_of_a_plain_address_is_the_address_itself():
    for text in ("https://api.openai.com/v1", "http://127.0.0.1:8000/v1", "https://h/api/v1"):
        assert ServiceAddress.of(text).identity == text


def test_other_hosts_ports_paths_and_schemes_are_others():
    texts = ["http://a/v1", "https://a/v1", "http://b/v1", "http://a:81/v1", "http://a/x/v1"]
    assert len({ServiceAddress.of(text).identity for text in texts}) == len(texts)


def test_a_query_goes_with_every_request():
    address = ServiceAddress.of("https://me.openai.azure.com/openai/deployments/m?api-version=2")
    assert address.url == "https://me.openai.azure.com/openai/deployments/m"
    assert address.query == {"api-version": "2"}
    assert address.is_azure


def test_the_address_that_was_meant_is_named():
    assert "http://host:11434/v1" in advised_address("http://host:11434")
    assert "api-version" in advised_address("https://me.openai.azure.com/openai?api-version=1")


def test_a_proxy_of_the_environment_is_named_without_its_password(monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "http://me:secret@proxy.example:3128")
    monkeypatch.setenv("NO_PROXY", "inside.example")
    words = proxy_words("https://api.example/v1")
    assert "proxy.example:3128" in words
    assert "secret" not in words
    assert proxy_words("https://inside.example/v1") == ""
