"""What the embedded platform does with processes that die."""

from loraplex.embedded.supervisor import pause_before_start


def test_the_pause_grows_while_a_process_dies_soon_and_begins_anew_after_a_life() -> None:
    pauses = [0.0]
    for lived_s in (1, 2, 3, 1, 1, 1, 1, 1, 61, 1):
        pauses.append(pause_before_start(lived_s, pauses[-1]))
    assert pauses[1:] == [0.5, 1, 2, 4, 8, 16, 30, 30, 0.5, 1]
