"""Two machines, as two network namespaces that have a cable between them and nothing else."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from first_losses import losses_of
from small_run import Inputs

ADDRESSES = ("10.213.7.1", "10.213.7.2")
CARD = "cable"
SETTINGS = {
    "model.n_ctx": 16,
    "training.batch_tokens": 64,
    "training.micro_batch": 2,
    "training.lr": 1e-3,
    "training.checkpoint_interval": 3,
    "training.validation_interval": 0,
}


@pytest.fixture
def machines() -> Iterator[list[str]]:
    """Names of two namespaces; only root may make them."""
    names = [f"gptwo-{os.getpid()}-{number}" for number in range(2)]
    commands = [f"ip netns add {name}" for name in names]
    commands += [f"ip link add {CARD} netns {names[0]} type veth peer name {CARD} netns {names[1]}"]
    for name, address in zip(names, ADDRESSES, strict=True):
        commands += [
            f"ip -n {name} addr add {address}/24 dev {CARD}",
            f"ip -n {name} link set {CARD} up",
            f"ip -n {name} link set lo up",
        ]
    try:
        for command in commands:
            if shutil.which("ip") is None or subprocess.call(
                command.split(), stderr=subprocess.DEVNULL
            ):
                pytest.skip("network namespaces cannot be made here")
        yield names
    finally:
        for name in names if shutil.which("ip") else ():
            subprocess.call(["ip", "netns", "del", name], stderr=subprocess.DEVNULL)


def launch(machines: list[str], inputs: Inputs, out: Path, steps: int) -> list[subprocess.Popen]:
    """The command of docs/05-training.md, once on each machine."""
    settings = SETTINGS | {"training.steps": steps}
    train = ["-m", "gptwo.cli", "train", str(inputs.tokens), "--tokenizer", str(inputs.tokenizer)]
    train += ["--out", str(out), "--size", "femto"]
    train += [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2"]
    torchrun += ["--nproc-per-node", "1", "--master-addr", ADDRESSES[0], "--master-port", "29400"]
    return [
        subprocess.Popen(
            ["ip", "netns", "exec", machine, *torchrun, "--node-rank", str(number), *train],
            env=os.environ | {"GLOO_SOCKET_IFNAME": CARD, "OMP_NUM_THREADS": "1"},
            stderr=subprocess.PIPE,
            text=True,
        )
        for number, machine in enumerate(machines)
    ]


@pytest.mark.slow
def test_two_machines_have_the_loss_curve_of_one(
    machines: list[str], inputs: Inputs, tmp_path: Path
) -> None:
    launched = launch(machines, inputs, tmp_path / "two", steps=6)
    said = [process.communicate(timeout=200)[1] for process in launched]
    assert [process.returncode for process in launched] == [0, 0], said
    settings = [f"--set={name}={value}" for name, value in SETTINGS.items()]
    one = ["train", inputs.tokens, "--tokenizer", inputs.tokenizer, "--out", tmp_path / "one"]
    command = [sys.executable, "-m", "gptwo.cli", *one, "--size", "femto", "--set=training.steps=6"]
    subprocess.run([*command, *settings], check=True, capture_output=True, timeout=100)
    expected = losses_of(tmp_path / "one")["loss"]
    assert losses_of(tmp_path / "two")["loss"] == pytest.approx(expected, rel=1e-6)
    assert (tmp_path / "two" / "checkpoints" / "step-00000006" / "manifest.json").exists()


@pytest.mark.slow
def test_a_machine_that_goes_takes_the_other_along(
    machines: list[str], inputs: Inputs, tmp_path: Path
) -> None:
    launched = launch(machines, inputs, tmp_path, steps=10**6)
    metrics = tmp_path / "metrics.jsonl"
    while not metrics.exists() or metrics.read_text().count("\n") < 6:
        assert [process.poll() for process in launched] == [None, None], launched[0].communicate()
        time.sleep(0.05)
    launched[1].send_signal(signal.SIGTERM)
    said = [process.communicate(timeout=100)[1] for process in launched]
    assert all(process.returncode for process in launched)
    assert "error: stopped on request" in "".join(said)
    steps = len(losses_of(tmp_path)["loss"])
    assert (tmp_path / "checkpoints" / f"step-{steps:08d}" / "manifest.json").exists()
