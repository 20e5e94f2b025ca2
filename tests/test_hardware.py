"""The oneDNN guard, in child processes: bf16 and int8 run under it, whatever the processor."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

GUARDED = "from adapt import hardware; hardware.guard(); import sys; assert 'torch' not in sys.modules; "


def child(code: str, tmp_path, **environment: str) -> subprocess.CompletedProcess:
    clean = {name: value for name, value in os.environ.items() if name != "ONEDNN_MAX_CPU_ISA"}
    return subprocess.run(
        [sys.executable, "-c", code],
        env=clean | {"ADAPT_CACHE": str(tmp_path)} | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_bf16_matmul_runs_under_the_guard(tmp_path):
    code = GUARDED + "import torch; a = torch.ones(64, 64).bfloat16(); print((a @ a).float().mean().item())"
    done = child(code, tmp_path)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) == 64


def test_int8_matmul_runs_under_the_guard(tmp_path):
    code = GUARDED + (
        "import torch; from torch.ao.nn.quantized import Linear;"
        "layer = Linear(64, 8); x = torch.quantize_per_tensor(torch.ones(4, 64), 0.1, 0, torch.quint8); print(layer(x).shape)"
    )
    done = child(code, tmp_path)
    assert done.returncode == 0, done.stderr


def test_the_users_own_setting_wins(tmp_path):
    done = child(
        "from adapt import hardware; hardware.guard(); import os; print(os.environ['ONEDNN_MAX_CPU_ISA'])",
        tmp_path,
        ONEDNN_MAX_CPU_ISA="AVX2",
    )
    assert done.stdout.strip() == "AVX2"


def test_the_answer_is_kept_and_a_spoiled_one_asked_again(tmp_path):
    code = "from adapt import hardware; hardware._flags = lambda: 'flags amx_test'; print(hardware._survives())"
    first = child(code, tmp_path)
    (kept,) = tmp_path.glob("amx-*.json")
    kept.write_text("{broken")
    assert child(code, tmp_path).stdout == first.stdout
    kept.write_text('{"survives": false}')
    assert child(code, tmp_path).stdout == "False\n", "the kept answer is believed"


@pytest.mark.parametrize(("probe", "cap"), [("import os; os.abort()", "AVX512_CORE_FP16"), ("", "None")])
def test_the_guard_caps_where_the_probe_dies_and_nowhere_else(tmp_path, probe, cap):
    code = f"from adapt import hardware; hardware._flags = lambda: 'flags amx {cap}'; hardware.PROBE = {probe!r}; hardware.guard();"
    assert child(code + "import os; print(os.environ.get('ONEDNN_MAX_CPU_ISA'))", tmp_path).stdout.strip() == cap


def test_without_network_a_line_says_so_and_nobody_waits(tmp_path):
    """The name's domain never resolves (RFC 2606)."""
    code = (
        "import time; import open_clip; from adapt.cli import main\n"
        "for given in ('model.checkpoint=openai/clip-vit-base-patch32', 'model.checkpoint=open_clip:ViT-B-16/laion400m_e31',\n"
        "    'model.checkpoint=open_clip:ViT-B-16-SigLIP', 'data={source: hub, path: ethz/food101}'):\n"
        "    began = time.perf_counter()\n"
        "    assert main(['finetune', 'recipe=clip_lora', 'tracker=none', given]) == 2\n"
        "    print('seconds', time.perf_counter() - began)\n"
        "from huggingface_hub import constants; assert not constants.HF_HUB_OFFLINE, 'only for a while'"
    )
    no_proxy = {name: "" for name in os.environ if name.lower().endswith("_proxy")}
    done = child(code, tmp_path, HF_HUB_OFFLINE="", HF_ENDPOINT="http://hub.invalid", HF_HOME=str(tmp_path), **no_proxy)
    assert done.returncode == 0, done.stderr
    lines = done.stderr.splitlines()
    assert len(lines) == 4, done.stderr
    assert ["network" in line for line in lines] == [True] * 4
    seconds = [float(line.split()[1]) for line in done.stdout.splitlines() if line.startswith("seconds ")]
    assert len(seconds) == 4
    assert max(seconds) < 20, "a file that is asked for six times takes 23 s"


def test_a_hub_whose_name_resolves_is_asked(tmp_path):
    code = (
        "from adapt import hardware; from huggingface_hub import constants\n"
        "with hardware.hub(): print(constants.HF_HUB_OFFLINE)"
    )
    assert child(code, tmp_path, HF_HUB_OFFLINE="", HF_ENDPOINT="http://localhost:1").stdout == "False\n"
    behind = child(code, tmp_path, HF_HUB_OFFLINE="", HF_ENDPOINT="http://hub.invalid", HTTPS_PROXY="http://localhost:1")
    assert behind.stdout == "False\n", "a proxy resolves names itself"
