"""Where all samples are excluded: what is said, and what following it comes to."""

import pytest

from evaluation.reports.sheets import write_sheet
from flows.command_line import run_command
from labelled_datasets import commit_samples
from recorded import generated
from storage.errors import InputError
from storage.exclusions import written_keys
from storage.store import Store
from tasks.affinities import AffinityJob, RecordedSeeds

UNDO = r"take samples back in with 'magicseg exclusions undo'"


def exclusions(action, root, keys):
    assert run_command(["exclusions", action, str(root), *sorted(keys), "--why", "to see"]) == 0


def test_a_sheet_of_nothing_names_a_way_out_that_helps(tmp_path):
    store = commit_samples(tmp_path / "d", 2)
    exclusions("add", tmp_path / "d", written_keys(store))
    with pytest.raises(InputError, match=UNDO):
        write_sheet(tmp_path / "d", tmp_path / "sheet.png")
    exclusions("undo", tmp_path / "d", written_keys(store))
    assert write_sheet(tmp_path / "d", tmp_path / "sheet.png").stat().st_size


def test_a_training_of_affinities_on_nothing_does_too(tmp_path):
    root = tmp_path / "d"
    samples, _ = generated(root, pairs={"record": {"cross": [8], "cells": None}})
    own = {"dataset": str(root), "out": str(tmp_path / "out"), "cross_resolutions": {8: 1.0}}
    job = AffinityJob.model_validate(own)
    exclusions("add", root, written_keys(Store.open(root)))
    with pytest.raises(InputError, match=UNDO):
        RecordedSeeds(job)
    exclusions("undo", root, written_keys(Store.open(root)))
    assert len(RecordedSeeds(job)) == len(samples)
