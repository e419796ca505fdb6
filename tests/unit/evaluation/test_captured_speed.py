"""The measurement of recorded steps, with a recorder that takes the step each time."""

import json

from everview.evaluation.captured_speed import measure_captured


def test_both_streams_are_measured_on_the_same_frames(tiny):
    recorded = []

    def record(step):
        answer = step()
        recorded.append(answer)
        return lambda: None, answer  # a replay that does nothing: its answers must differ

    result = measure_captured(
        tiny, (28, 42), policy="late_merge:bits=8,recent=0.2", frames=4, record=record
    )
    json.dumps(result)
    assert len(recorded) == 1
    assert result["policy"] == "late_merge:bits=8,recent=0.2,frames=8,camera=8"
    assert result["speed_up"] > 1.5
    assert result["largest_difference"] > 0
    seconds = result["seconds"]
    assert 0 < seconds["replayed"] < seconds["taken"]
