"""Rate and time to go, as people read them."""

from dreambooth.pipeline.announcer import StageAnnouncer
from dreambooth.pipeline.progress import Event, StageName


class Watched:
    """An announcer with a clock that the test moves."""

    def __init__(self) -> None:
        self.now = 100.0
        self.events: list[Event] = []
        self.report = StageAnnouncer(StageName.TRAIN, [self.events.append], lambda: self.now)

    def batch(self, first: int, size: int, total: int) -> None:
        """Reports `size` items one by one, a moment apart, as finished batches are."""
        for done in range(first, first + size):
            self.report(done, total, "images")
            self.now += 0.001

    @property
    def last(self) -> Event:
        return self.events[-1]


def test_nothing_is_promised_before_two_batches_are_complete() -> None:
    watched = Watched()
    watched.report(0, 40, "images")
    watched.now += 20
    watched.batch(1, 8, 40)
    watched.now += 10
    watched.batch(9, 8, 40)
    assert {event.rate for event in watched.events} == {None}
    assert {event.eta_seconds for event in watched.events} == {None}


def test_the_rate_is_that_of_whole_batches_without_the_time_of_loading() -> None:
    watched = Watched()
    watched.report(0, 40, "images")
    watched.now += 200
    for number in range(4):
        watched.batch(8 * number + 1, 8, 40)
        watched.now += 10
    assert watched.last.rate is not None and watched.last.eta_seconds is not None
    assert abs(watched.last.rate - 0.8) < 0.01
    assert abs(watched.last.eta_seconds - 10) < 0.1


def test_a_burst_of_reports_does_not_raise_the_rate() -> None:
    watched = Watched()
    for number in range(5):
        watched.batch(8 * number + 1, 8, 400)
        watched.now += 4
    rates = {round(event.rate, 2) for event in watched.events if event.rate is not None}
    assert rates == {2.0}


def test_steps_that_were_done_before_a_resume_are_no_work_of_this_run() -> None:
    watched = Watched()
    watched.report(0, 1000, "steps")
    watched.now += 15
    watched.report(900, 1000, "steps", message="going on from step 900")
    for done in (901, 902, 903, 904):
        watched.now += 1
        watched.report(done, 1000, "steps")
    assert watched.last.rate is not None
    assert abs(watched.last.rate - 1.0) < 0.01


def test_going_back_to_a_checkpoint_keeps_the_rate_sane() -> None:
    watched = Watched()
    for done in (10, 11, 12, 13, 5, 6, 7, 8):
        watched.now += 1
        watched.report(done, 20, "steps")
    assert all(event.rate is None or abs(event.rate - 1) < 0.01 for event in watched.events)
    assert watched.last.eta_seconds is not None and abs(watched.last.eta_seconds - 12) < 0.2


def test_what_was_reported_is_passed_on() -> None:
    watched = Watched()
    watched.report(3, 7, "steps", step=3, loss=0.5, message="m")
    event = watched.last
    assert (event.stage, event.done, event.total, event.unit) == (StageName.TRAIN, 3, 7, "steps")
    assert (event.step, event.loss, event.message) == (3, 0.5, "m")
