"""Where the work goes on clusters of all kinds."""

from dreambooth.pipeline.placement import DRAWING, SLIVER, TRAINING, Placement, place

HEAD = {"memory": 8e9}
GPU = {"CPU": 4.0, "GPU": 1.0}


def test_a_machine_without_gpus_trains_and_draws_on_its_cpus() -> None:
    where = place([{"CPU": 4.0}], gpus_expected=False)
    assert where.trainer == {"CPU": 1.0}
    assert (where.drawer["num_cpus"], where.drawers) == (1, 1)
    assert not where.trains_on_gpus


def test_gpus_of_all_machines_draw_and_the_head_does_nothing() -> None:
    where = place([HEAD, GPU, {"CPU": 8.0, "GPU": 4.0}], gpus_expected=True)
    assert where == Placement({"GPU": 1.0}, {"num_gpus": 1, "num_cpus": 0.5}, 5)


def test_work_waits_for_a_gpu_machine_that_is_being_replaced() -> None:
    where = place([HEAD], gpus_expected=True)
    assert where == Placement({"GPU": 1.0}, {"num_gpus": 1, "num_cpus": 0.5}, 1)


def test_machines_for_drawing_draw_and_the_others_train() -> None:
    draws = {"CPU": 4.0, "GPU": 2.0, DRAWING: 1.0}
    where = place([HEAD, GPU | {TRAINING: 1.0}, draws, draws], gpus_expected=True)
    assert where.trainer == {"GPU": 1.0, TRAINING: SLIVER}
    assert where.drawer == {"num_gpus": 1, "num_cpus": 0.5, "resources": {DRAWING: SLIVER}}
    assert where.drawers == 4


def test_machines_for_drawing_may_have_no_gpus() -> None:
    where = place([GPU | {TRAINING: 1.0}, {"CPU": 4.0, DRAWING: 1.0}], gpus_expected=True)
    assert where.trains_on_gpus
    assert "num_gpus" not in where.drawer
    assert where.drawers == 1


def test_on_a_machine_with_one_cpu_the_writers_still_find_room() -> None:
    where = place([HEAD, {"CPU": 1.0}, {"CPU": 4.0}], gpus_expected=False)
    assert where.drawer == {"num_cpus": 0.5, "scheduling_strategy": "SPREAD"}
    assert where.drawers == 2
