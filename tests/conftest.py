"""Tests run on the embedded world and tiny checkpoints: no network, no GPU."""

from __future__ import annotations

import os

from adapt import hardware

os.environ.setdefault("HF_HUB_OFFLINE", "1")
hardware.guard()

import pytest  # noqa: E402


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    """Each test works in a folder of its own, where its runs go."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def clip_tiny():
    """The embedded CLIP; do not train it: load your own."""
    from adapt.models.clip import Config, load

    return load(Config(name="clip"))


@pytest.fixture(scope="session")
def emoji():
    """The target hand's splits."""
    from adapt.data.emoji import Config, load

    return load(Config())
