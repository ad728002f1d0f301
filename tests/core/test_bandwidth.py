"""The bandwidth is bytes over seconds."""

from lazyneuron.core import bandwidth, timing


def test_a_clock_that_ticks_known_steps_gives_the_known_bandwidth(monkeypatch):
    monkeypatch.setattr(bandwidth, "BUFFER_BYTES", 4_000_000)
    # passes of 9 (not counted), 1, 4, 2 ms: the median is 2 ms, and 4 MB in 2 ms are 2 GB/s
    readings = [reading for ms in (9, 1, 4, 2) for reading in (0.0, ms / 1e3, 1.0)]  # before, after, end of the round
    ticks = iter([0.0, *readings])
    monkeypatch.setattr(timing.time, "perf_counter", lambda: next(ticks))
    assert abs(bandwidth.read_bandwidth_gbps(rounds=3) - 2.0) < 1e-6


def test_a_real_machine_is_in_range():
    assert 0.1 < bandwidth.read_bandwidth_gbps(rounds=3) < 10_000
