"""When the record is told: a schedule on a clock that the test turns."""

from dreambooth.drive.pace import Pace


def test_the_first_record_is_told_at_once() -> None:
    assert Pace(10.0, now=100.0).wait(100.0) == 0.0


def test_progress_waits_for_the_interval_and_news_that_matter_do_not() -> None:
    pace = Pace(10.0, now=0.0)
    pace.told(0.0)
    pace.news(3.0, urgent=False)
    assert pace.wait(3.0) == 7.0
    pace.news(4.0, urgent=True)
    assert pace.wait(4.0) == 0.0


def test_progress_after_a_quiet_while_is_told_at_once() -> None:
    pace = Pace(10.0, now=0.0)
    pace.told(0.0)
    pace.news(25.0, urgent=False)
    assert pace.wait(25.0) == 0.0


def test_without_news_there_is_a_sign_of_life_every_three_intervals() -> None:
    pace = Pace(10.0, now=0.0)
    pace.told(0.0)
    assert pace.wait(0.0) == 30.0
    pace.told(30.0)
    assert pace.wait(31.0) == 29.0


def test_failures_wait_longer_and_longer_but_never_longer_than_the_heartbeat() -> None:
    pace, now, waits = Pace(10.0, now=0.0), 0.0, []
    for _ in range(8):
        pace.failed(now)
        waits.append(pace.wait(now))
        now += waits[-1]
    assert waits == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]


def test_news_do_not_hurry_a_server_that_is_down() -> None:
    pace = Pace(10.0, now=0.0)
    for _ in range(4):
        pace.failed(0.0)
    pace.news(1.0, urgent=True)
    assert pace.wait(1.0) == 7.0


def test_after_an_outage_the_usual_interval_holds_again() -> None:
    pace = Pace(10.0, now=0.0)
    pace.failed(0.0)
    pace.told(5.0)
    pace.news(6.0, urgent=False)
    assert pace.wait(6.0) == 9.0
