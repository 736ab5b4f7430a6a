"""Refusals before anything is loaded: free memory, settings that would fit, and the report."""

import logging
import stat
from pathlib import Path

import pytest

from schemas.errors import TrainingError
from schemas.training import TrainSpec
from tasks.train.memory import GIB, Workload, check_memory, forecast, free_bytes, free_card_bytes, predict_parts
from tasks.train.model_shapes import known_dims

SMALL = Workload(known_dims("smollm2-135m"), stored=538_000_000, max_tokens=512)
LARGE = Workload(known_dims("llama-3.1-70b"), stored=141_000_000_000, max_tokens=512)


def _machine(root: Path, *, available_mib: int, groups: dict[str, tuple[str, int, int]], own: str) -> Path:
    """Write a fake file system with /proc and control groups: folder -> (memory.max, memory.current, inactive_file)."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/meminfo").write_text(f"MemTotal: 99999999 kB\nMemAvailable: {available_mib * 1024} kB\n")
    (root / "proc/self/cgroup").write_text(f"4:memory:/old\n0::{own}\n")
    for name, (limit, current, inactive) in groups.items():
        folder = root / "sys/fs/cgroup" / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "memory.max").write_text(f"{limit}\n")
        (folder / "memory.current").write_text(f"{current}\n")
        (folder / "memory.stat").write_text(f"anon 5\ninactive_file {inactive}\n")
    return root


def test_the_tightest_parent_control_group_is_the_limit(tmp_path: Path) -> None:
    mib = 2**20
    groups = {
        "": ("max", 0, 0),
        "pod": (str(4096 * mib), 3000 * mib, 500 * mib),
        "pod/job": (str(8192 * mib), 100 * mib, 0),
        "pod/job/inner": ("max", 90 * mib, 0),
        "other": (str(mib), 0, 0),
    }
    root = _machine(tmp_path, available_mib=16_000, groups=groups, own="/pod/job/inner")
    assert free_bytes(root) == (4096 - 3000 + 500) * mib


def test_without_a_limit_the_kernels_available_memory_counts(tmp_path: Path) -> None:
    assert free_bytes(_machine(tmp_path / "none", available_mib=900, groups={}, own="/gone")) == 900 * 2**20
    over = _machine(tmp_path / "over", available_mib=900, groups={"x": ("5", 9, 0)}, own="/x")
    assert free_bytes(over) == 0


def test_in_a_container_with_a_host_path_the_mounted_group_counts(tmp_path: Path) -> None:
    root = _machine(tmp_path, available_mib=900, groups={"": (str(7 * 2**20), 2**20, 0)}, own="/host/docker/abc")
    assert free_bytes(root) == 6 * 2**20


def _nvidia_smi(folder: Path, monkeypatch: pytest.MonkeyPatch, answer: str) -> None:
    program = folder / "nvidia-smi"
    program.write_text(f'#!/bin/sh\necho "$@" > {folder}/asked\nprintf "{answer}"\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


def test_the_fullest_card_in_use_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _nvidia_smi(tmp_path, monkeypatch, "40000\\n24000\\n")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,3")
    monkeypatch.setattr("importlib.metadata.version", lambda _name: "2.9.0+cu128")
    assert free_card_bytes() == 24_000 * 2**20
    assert (tmp_path / "asked").read_text().startswith("-i 1,3 ")
    found = forecast(LARGE, TrainSpec(base_model="x", method="qlora", batch_size=1, gradient_checkpointing=True))
    assert (found.device, found.fits, found.remedy) == ("cuda", False, None)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert free_card_bytes() is None


def test_the_smallest_change_that_fits_is_named_and_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.train.memory.free_card_bytes", lambda: None)

    def remedy(gib: float, spec: TrainSpec) -> str | None:
        monkeypatch.setattr("tasks.train.memory.free_bytes", lambda: round(gib * GIB))
        return forecast(SMALL, spec).remedy

    wide = TrainSpec(base_model="x", batch_size=32, gradient_accumulation_steps=2, dtype="float32")
    deep = wide.model_copy(update={"gradient_checkpointing": True})
    assert str(remedy(4.0, wide)).startswith("train.gradient_checkpointing: true (")
    assert str(remedy(2.8, deep)).startswith("train.batch_size: 16, train.gradient_accumulation_steps: 4 (")
    full = TrainSpec(
        base_model="x", method="full", learning_rate=1e-5, batch_size=1, gradient_checkpointing=True, dtype="float32"
    )
    assert str(remedy(2.5, full)).startswith("train.method: lora (")
    assert remedy(0.5, full) is None
    two = wide.model_copy(update={"batch_size": 1, "processes": 2, "gradient_checkpointing": True})
    assert str(remedy(2.6, two)).startswith("train.processes: 1 (")


def test_a_training_is_refused_warned_about_or_allowed(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("tasks.train.memory.free_card_bytes", lambda: None)
    spec = TrainSpec(base_model="x", method="qlora", batch_size=1, gradient_checkpointing=True)
    with pytest.raises(TrainingError, match="does not fit") as caught:
        check_memory(LARGE, spec)
    assert "smaller base model" in str(caught.value.hint)
    with caplog.at_level(logging.WARNING, "tunegate.train"):
        check_memory(LARGE, spec.model_copy(update={"memory_check": "warn"}))
    assert "TG0405" in caplog.text
    caplog.clear()
    check_memory(LARGE, spec.model_copy(update={"memory_check": "off"}))
    check_memory(None, spec)
    assert not caplog.text


def test_sharding_divides_the_memory_of_each_process() -> None:
    alone = TrainSpec(base_model="x", method="full", learning_rate=1e-5, processes=4)
    cut = alone.model_copy(update={"sharding": "full"})
    for device in ("cpu", "cuda"):
        whole, part = (predict_parts(SMALL, spec, device=device) for spec in (alone, cut))  # type: ignore[arg-type]
        assert part["optimizer"] == whole["optimizer"] // 4
        assert part["total"] < whole["total"]
