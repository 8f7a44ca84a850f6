"""One consumer per name and per GPU on a host."""

from pathlib import Path

import pytest

from job_consumer.locks import LockTaken, hold_locks

GPU = "GPU-8a2f1c3d-5b6e-4f70-9182-a3b4c5d6e7f8"


def test_a_second_consumer_on_a_gpu_is_told_who_holds_it(tmp_path: Path) -> None:
    with hold_locks(tmp_path, "one", GPU), pytest.raises(LockTaken) as caught, hold_locks(tmp_path, "two", GPU):
        pass
    assert str(caught.value).startswith(f"GPU {GPU} is held by consumer one, pid ")
    assert "GPU_UUID" in str(caught.value)


def test_a_second_consumer_of_a_name_is_refused_without_a_gpu_too(tmp_path: Path) -> None:
    with hold_locks(tmp_path, "one", None), pytest.raises(LockTaken) as caught, hold_locks(tmp_path, "one", None):
        pass
    assert str(caught.value).startswith("the name one is held by consumer one, pid ")
    assert "CONSUMER_NAME" in str(caught.value)


def test_the_refused_one_leaves_the_name_it_had_taken_free(tmp_path: Path) -> None:
    with hold_locks(tmp_path, "one", GPU):
        for _ in range(2):
            with pytest.raises(LockTaken, match=f"GPU {GPU}"), hold_locks(tmp_path, "two", GPU):
                pass


def test_a_place_is_free_after_its_holder(tmp_path: Path) -> None:
    for _ in range(2):
        with hold_locks(tmp_path / "work", "one", GPU):
            (line,) = (tmp_path / "work/gpu-8a2f1c3d-5b6e-4f70-9182-a3b4c5d6e7f8.lock").read_text().splitlines()
            assert line.startswith("consumer one, pid ")


@pytest.mark.parametrize("uuid", ["GPU-other", "MIG-1d8b2f0c-7a63-5e2d-b1f4-0c9e8d7a6b50", f"MIG-{GPU}/7/0"])
def test_consumers_of_different_gpus_live_side_by_side(tmp_path: Path, uuid: str) -> None:
    with hold_locks(tmp_path, "one", GPU), hold_locks(tmp_path, "two", uuid), hold_locks(tmp_path, "three", None):
        assert len(list(tmp_path.glob("*.lock"))) == 5
