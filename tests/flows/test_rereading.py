"""Paid answers are read again without paying."""

import json

import pytest

from flows.rereading import reread
from models.protocols import TextRequest
from models.writing.chat import ChatWriter
from models.writing.chat_config import ChatWriterConfig
from storage.ledger import Ledger
from storage.store import Store
from storage.vocabulary import load_vocabulary

CAT = load_vocabulary("lvis1205").by_name("cat")


def test_answers_that_an_earlier_reader_could_not_read_give_their_texts_for_nothing(
    chat_server, tmp_path, capsys, monkeypatch
):
    store = Store.create(str(tmp_path / "d"), {"plan": {"vocabulary": "lvis1205"}})
    ledger = Ledger(store.objects)
    config = ChatWriterConfig(model="m", base_url=chat_server.url, api_key_env=None)
    requests = [TextRequest((CAT,), 2, seed) for seed in range(3)]
    ChatWriter(config, ledger).write(requests)
    for number, file in enumerate(sorted((tmp_path / "d/.engine/ledger/answers").iterdir())):
        answer = json.loads(file.read_text())
        answer["reading"] = {"reader": "1", "form": "nothing", "texts": 0}
        if number == 0:
            answer["reading"] = None  # from before readings were kept
        file.write_text(json.dumps(answer))

    found = reread(str(tmp_path / "d"))
    assert (found.answers, found.texts, found.forms) == (3, 6, {"json": 3})
    assert (found.better, found.more_texts) == (2, 4)

    from flows.__main__ import main

    monkeypatch.setattr("sys.argv", ["magicseg", "ledger", "reread", str(tmp_path / "d")])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "2 of them 4 more than when they came: run the same 'magicseg generate' again" in said

    sent = len(chat_server.requests)
    answers = ChatWriter(config, Ledger(store.objects)).write(requests)
    assert all(len(answer.texts) == 2 for answer in answers)
    assert len(chat_server.requests) == sent
