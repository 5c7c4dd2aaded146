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


def test_the_only_gpu_has_room_for_one_that_trains_beside_one_that_draws() -> None:
    where = place([HEAD, GPU], gpus_expected=True)
    assert where.trainer["GPU"] + where.drawer["num_gpus"] == 1.0
    assert (where.drawers, where.overlaps, where.shares_gpu) == (1, True, True)


def test_gpus_are_not_halved_where_two_halves_could_meet_on_one() -> None:
    several = place([HEAD, {"CPU": 8.0, "GPU": 2.0}], gpus_expected=True)
    crowded = place([HEAD, GPU], gpus_expected=True, workers=2)
    for where in (several, crowded):
        assert where.trainer == {"GPU": 1.0} and where.drawer["num_gpus"] == 1
        assert not where.overlaps and not where.shares_gpu


def test_workers_start_ahead_on_cpus_only_where_who_draws_and_writes_still_finds_room() -> None:
    assert place([{"CPU": 4.0}], gpus_expected=False).overlaps
    assert not place([{"CPU": 4.0}], gpus_expected=False, workers=2).overlaps
    assert not place([{"CPU": 3.0}], gpus_expected=False).overlaps
    # Which machine a worker is put on is Ray's to say.
    assert not place([HEAD, {"CPU": 16.0}], gpus_expected=False).overlaps


def test_machines_that_only_draw_leave_those_that_train_free_from_the_beginning() -> None:
    draws = {"CPU": 4.0, "GPU": 1.0, DRAWING: 1.0}
    where = place([HEAD, GPU | {TRAINING: 1.0}, draws], gpus_expected=True)
    assert where.overlaps and not where.shares_gpu
