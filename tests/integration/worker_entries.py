"""What test workers do instead of training: each is named as an entry, such as HERE + ":crash"."""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import subprocess
import sys
import threading
from pathlib import Path

from easyml_server.domain.algorithms import Task
from easyml_server.domain.datasets import StorageType
from easyml_server.domain.events import FoldCompleted, IterationCompleted, LogLevel, LogLine, StageStarted
from easyml_server.domain.experiments import Metric, MetricValue, Partition, TrainingStage
from easyml_server.domain.models import ModelManifest, Parity, Signature
from easyml_server.domain.results import ModelResults
from easyml_server.domain.training import SplitMade, TrainingSucceeded
from easyml_server.trainers import codec
from easyml_server.trainers.channel import Channel

HERE = "tests.integration.worker_entries"


def succeed(channel: Channel) -> None:
    codec.decode_job(_first(channel))
    _tell(channel, StageStarted(TrainingStage.LOADING))
    _tell(channel, SplitMade(8, 2, "ab"))
    for fold in (1, 2, 3):
        _tell(channel, FoldCompleted(fold, 3, (MetricValue(Metric.ACCURACY, Partition.VALIDATION, 0.5),)))
    _tell(channel, a_success())


def train_and_tell_imports(channel: Channel) -> None:
    """Train for real, and leave beside the model what was imported meanwhile."""
    job = codec.decode_job(_first(channel))
    before = set(sys.modules)
    from easyml_server.ml.training import train

    outcome = train(job, lambda _: None)
    (Path(job.output_path) / "imported").write_text("\n".join(sorted(set(sys.modules) - before)))
    _tell(channel, outcome)


def flood(channel: Channel) -> None:
    codec.decode_job(_first(channel))
    _tell(channel, StageStarted(TrainingStage.FITTING))
    for iteration in range(1, 10_001):
        _tell(channel, IterationCompleted(iteration, 10_000, {"loss": 1 / iteration}))
    _tell(channel, LogLine(LogLevel.INFO, "done"))
    _tell(channel, a_success())


def crash(channel: Channel) -> None:
    _first(channel)
    _tell(channel, StageStarted(TrainingStage.FITTING))
    ctypes.string_at(0)


def leave(channel: Channel) -> None:
    _first(channel)
    os._exit(7)


def babble(channel: Channel) -> None:
    _first(channel)
    channel.send(b'{"type": "nonsense"}')
    threading.Event().wait()


def allocate(channel: Channel) -> None:
    """Take memory until somebody objects; stops by itself at 1.5 GB."""
    _first(channel)
    _tell(channel, StageStarted(TrainingStage.FITTING))
    kept = []
    for _ in range(48):
        kept.append(bytearray(b"\1") * (32 << 20))
    _tell(channel, a_success())


def stubborn(channel: Channel) -> None:
    """Ignore everything that can be ignored."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    _first(channel)
    _tell(channel, StageStarted(TrainingStage.FITTING))
    threading.Event().wait()


def deaf(channel: Channel) -> None:
    """Hear no question, but die of SIGTERM."""
    _first(channel)
    _tell(channel, StageStarted(TrainingStage.FITTING))
    threading.Event().wait()


def obedient(channel: Channel) -> None:
    """End when asked, and leave a note that it was that."""
    job = codec.decode_job(_first(channel))
    asked = threading.Event()
    channel.watch(lambda _: asked.set())
    _tell(channel, StageStarted(TrainingStage.FITTING))
    asked.wait()
    (Path(job.output_path) / "asked").touch()


def announce(channel: Channel) -> None:
    """Leave the process id in the folder, and run until killed."""
    job = codec.decode_job(_first(channel))
    (Path(job.output_path) / "process").write_text(str(os.getpid()))
    _tell(channel, StageStarted(TrainingStage.FITTING))
    threading.Event().wait()


def tell_surroundings(channel: Channel) -> None:
    _first(channel)
    channel.send(
        json.dumps(
            {
                "modules": sorted(sys.modules),
                "environment": dict(os.environ),
                "initial": Path("/proc/self/environ").read_text() if sys.platform == "linux" else "",
                "folder": str(Path.cwd()),
                "interrupt_ignored": signal.getsignal(signal.SIGINT) is signal.SIG_IGN,
                "threads": threading.active_count(),
                "address_space": resource.getrlimit(resource.RLIMIT_AS)[0],
                "core": resource.getrlimit(resource.RLIMIT_CORE)[0],
            }
        ).encode()
    )


def spin(channel: Channel) -> None:
    """Use processor time without end."""
    _first(channel)
    while True:
        pass


def announce_and_spin(channel: Channel) -> None:
    """Write to the conversion's target, a pipe, and then use time without end."""
    conversion = codec.decode_conversion(_first(channel))
    Path(conversion.target).write_text("here")
    while True:
        pass


def fill_memory(channel: Channel) -> None:
    _first(channel)
    bytearray(8 << 30)


def with_grandchild(channel: Channel) -> None:
    """Start a process that would live on, and tell its id."""
    _first(channel)
    child = subprocess.Popen(["sleep", "1000"])
    channel.send(str(child.pid).encode())
    threading.Event().wait()


def a_success() -> TrainingSucceeded:
    manifest = ModelManifest(
        task=Task.CLASSIFICATION,
        algorithm="logistic_regression",
        target="y",
        signature=Signature((), "y", StorageType.STRING),
        artifacts=(),
        parity=Parity(proved=False, cause="none"),
        library_versions={},
    )
    return TrainingSucceeded((MetricValue(Metric.ACCURACY, Partition.TEST, 0.5),), (), ModelResults(0), manifest)


def _first(channel: Channel) -> bytes:
    message = channel.receive()
    assert message is not None
    return message


def _tell(channel: Channel, message: codec.TrainingMessage) -> None:
    channel.send(codec.encode_training(message))
