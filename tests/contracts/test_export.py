"""What every export target promises; a target of few lines walks through the gate in tests/export/test_targets.py."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
import torch
from torch import nn

from adapt import plug
from adapt.contracts import Artifact, Deployable, Runner, TargetConfig
from adapt.export import gate

SAMPLES = (np.random.default_rng(0).random((4, 3, 16, 16)) * 255).astype(np.float32)


@pytest.mark.parametrize("name", plug.names("export"))
def test_a_target_says_what_the_contract_asks(name):
    config, module = plug.schema("export", name), plug.load("export", name)
    assert issubclass(config, TargetConfig) and config.runtime
    assert issubclass(module.Runner, Runner)
    wanted = ["config", "deployable", "samples", "folder", "metadata", "validation"]
    assert list(inspect.signature(module.convert).parameters) == wanted


@pytest.mark.parametrize("name", plug.names("export"))
def test_what_is_written_runs_equals_torch_and_is_weighed_whole(name, tmp_path):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)).eval()
    target = plug.load("export", name)
    config = target.Config(name=name)
    artifacts = gate.export(target, config, Deployable(net), SAMPLES, tmp_path, {"classes": list("abcde")}, SAMPLES)
    assert all(isinstance(one, Artifact) for one in artifacts) and artifacts[0].precision == "fp32"
    for one in artifacts:
        assert one.path == one.files[0] and one.bytes == sum(file.stat().st_size for file in one.files)
        answers = target.Runner(one.path)(SAMPLES)
        assert answers.shape == (4, 5) and np.isfinite(answers).all()
    with torch.no_grad():
        np.testing.assert_allclose(target.Runner(artifacts[0].path)(SAMPLES), net(torch.from_numpy(SAMPLES)).numpy(), atol=1e-4)
