"""Real processes change a bank while it is read; benchmarks/torture/races.py does it for longer."""

from benchmarks.torture import races


def test_no_load_fails_and_no_expert_is_lost():
    found = races.run(9)
    assert found["messages"] == [] and found["false_messages"] == found["lost_experts"] == 0
    assert found["loads"] == 9 and found["changes"] > 9
