import json

import pytest

from storage.connections import PATIENCE_VARIABLE, connect, read_patience
from storage.errors import InputError
from storage.objects import open_objects

SECRET = "TopSecretOfSomebody"  # noqa: S105


@pytest.mark.parametrize(
    "url",
    [
        f"s3://key:{SECRET}@bucket/x",
        f"s3://{SECRET}@bucket/x",
        f"s3://bucket/x?X-Amz-Signature={SECRET}",
        f"s3://bucket/x#{SECRET}",
        f"az://container/x?sv=2020&sig={SECRET}",
        f"abfs://container:{SECRET}@account.dfs.core.windows.net/x",
        f"gs://bucket/x?token={SECRET}",
        f"https://account.blob.core.windows.net/container?sig={SECRET}",
        f"http://user:{SECRET}@127.0.0.1:9000/bucket",
    ],
)
def test_a_url_with_a_credential_is_refused_and_not_repeated(url, caplog):
    caplog.set_level(0)
    with pytest.raises(InputError) as caught:
        open_objects(url)
    assert SECRET not in str(caught.value)
    assert SECRET not in caplog.text


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("ftp://host/x", "use a path, or s3://, gs:// or az://"),
        ("https://host/bucket", "a server of your own is named by AWS_ENDPOINT_URL"),
        ("s3://", "names no bucket"),
        ("s3:///x", "names no bucket"),
        ("s3://bu cket/x", "'bu cket' is no name of a bucket"),
        ("s3://bucket//x", "its path has a part ''"),
        ("s3://bucket/a/../../other", "its path has a part '..'"),
        ("s3://bucket/./x", "its path has a part '.'"),
        ("s3://bucket/a\nb", "printable characters"),
        ("s3://bucket/a\\b", "backslash"),
        ("s3://[bucket/x", "use a path, or s3://"),
        ("memory://a/b", "use a path, or s3://"),
        ("memory://", "use a path, or s3://"),
        ("file://host", "expected file:///folder"),
        ("file:///", "expected file:///folder"),
        ("", "expected a path"),
        ("a\0b", "without the character NUL"),
        ("~no.such.user/x", "no home folder of ~no.such.user"),
    ],
)
def test_what_names_no_place_is_refused_in_words(url, words):
    with pytest.raises(InputError, match=words) as caught:
        open_objects(url)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"AWS_ENDPOINT_URL": "http://minio:9000"}, "give an https address, or set AWS_ALLOW_HTTP"),
        ({"AWS_ENDPOINT_URL": "localhost:9000"}, "expected an address like https://host:9000"),
        ({"AWS_ENDPOINT_URL": "no url"}, "expected an address like https://host:9000"),
        ({"AWS_ENDPOINT_URL": "https://a b"}, "expected an address like https://host:9000"),
        ({"AWS_ENDPOINT_URL": "https://host:port"}, "expected an address like"),
        ({"AWS_ENDPOINT_URL_S3": f"https://me:{SECRET}@host"}, "holds a user, a password"),
        ({"AWS_ENDPOINT": f"https://host/?key={SECRET}"}, "holds a user, a password"),
        ({"AWS_ENDPOINT_URL": "http://x", "AWS_ALLOW_HTTP": "maybe"}, "expected true or false"),
        ({"AWS_REGION": "us east"}, "AWS_REGION has a space"),
        ({"AWS_SECRET_ACCESS_KEY": f"{SECRET}\n"}, "AWS_SECRET_ACCESS_KEY has a space, a line"),
        ({"AWS_SESSION_TOKEN": f"{SECRET}\u00e9"}, "AWS_SESSION_TOKEN has a space, a line"),
        ({"AWS_DEFAULT_REGION": "us east"}, "AWS_DEFAULT_REGION has a space"),
        ({"AWS_ENDPOINT_URL": ""}, "AWS_ENDPOINT_URL is set, but empty"),
        ({"AWS_ACCESS_KEY_ID": ""}, "AWS_ACCESS_KEY_ID is set, but empty"),
        ({PATIENCE_VARIABLE: "long"}, "expected seconds between"),
        ({PATIENCE_VARIABLE: "nan"}, "expected seconds between"),
        ({PATIENCE_VARIABLE: "-1"}, "expected seconds between"),
    ],
)
def test_settings_that_cannot_be_used_are_told_before_any_request(monkeypatch, environment, words):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=words) as caught:
        open_objects("s3://bucket/x")
    assert SECRET not in str(caught.value)


def test_the_way_out_of_plain_http_is_one(monkeypatch, bucket):
    monkeypatch.delenv("AWS_ALLOW_HTTP")
    with pytest.raises(InputError, match="or set AWS_ALLOW_HTTP=true"):
        open_objects(bucket.root)
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
    assert open_objects(bucket.root).paths("") == []


def test_azure_and_google_are_asked_for_what_they_need(monkeypatch, tmp_path):
    with pytest.raises(InputError, match="AZURE_STORAGE_ACCOUNT_NAME and"):
        open_objects("az://container/x")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "account")
    monkeypatch.setenv("AZURE_STORAGE_ENDPOINT", "http://127.0.0.1:1")
    with pytest.raises(InputError, match="set AZURE_ALLOW_HTTP=true"):
        open_objects("az://container/x")
    monkeypatch.setenv("GOOGLE_SERVICE_ACCOUNT", str(tmp_path / "none.json"))
    with pytest.raises(InputError, match="GOOGLE_APPLICATION_CREDENTIALS"):
        open_objects("gs://bucket/x")
    key = {"type": "service_account", "private_key": SECRET, "client_email": "a"}
    key |= {"private_key_id": "b"}
    monkeypatch.setenv("GOOGLE_SERVICE_ACCOUNT_KEY", json.dumps(key))
    monkeypatch.delenv("GOOGLE_SERVICE_ACCOUNT")
    with pytest.raises(InputError) as caught:
        open_objects("gs://bucket/x")
    assert SECRET not in str(caught.value)


def test_a_url_of_a_container_names_no_user(monkeypatch):
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", "c2VjcmV0c2VjcmV0")
    url = "abfs://container@account.dfs.core.windows.net/x"
    assert open_objects(f"{url}/").url == url


def test_the_patience_is_a_setting():
    assert read_patience({}) == 90
    assert read_patience({PATIENCE_VARIABLE: "7.5"}) == 7.5


def test_the_server_is_named_as_messages_do(monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "https://host:9000/")
    assert connect("s3://bucket").endpoint == "https://host:9000"
