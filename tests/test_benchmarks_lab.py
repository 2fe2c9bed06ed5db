"""What benchmarks/lab.py makes of what it has seen; the measuring itself needs a browser and minutes."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def bench():
    """benchmarks/lab.py, which is no package of the distribution."""
    spec = importlib.util.spec_from_file_location("benchmark_lab", ROOT / "benchmarks" / "lab.py")
    module = sys.modules["benchmark_lab"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    del sys.modules["benchmark_lab"]


def test_the_way_of_one_move_adds_up(bench):
    move = {"start": 1000.0, "last": {"mask": 30.0, "cloud": 400.0}}
    events = [["change", 900.0, 5.0, 0, 5.0],  # of the move before
              ["change", 1010.0, 8.0, 0, 8.0], ["send", 1012.0, 1.0, 70, 1.0],
              ["model", 1020.0, 60.0, 0, 50.0], ["opponents", 1082.0, 90.0, 0, 80.0], ["predict", 1020.0, 155.0, 0, 140.0],
              ["both_clouds", 1180.0, 10.0, 0, 9.0], ["set_pane", 1191.0, 20.0, 0, 20.0], ["send", 1195.0, 4.0, 1000, 4.0],
              ["show", 1178.0, 40.0, 0, 38.0]]
    found = bench.stages(move, events)
    ways = ("to kernel", "follow", "wait", "predict", "hand over", "show", "to page")
    assert sum(found[way] for way in ways) == pytest.approx(move["last"]["cloud"]), found
    assert found["wait"] == 2 and found["model"] == 60 and found["opponents"] == 90 and found["set_pane"] == 20
    assert found["bytes"] == 1070 and found["send"] == 4 and found["cpu"] == 8 + 140 + 38 and found["predictions"] == 1


def test_a_move_that_the_kernel_never_heard_of_has_no_stages(bench):
    assert bench.stages({"start": 1000.0, "last": {"mask": 30.0}}, [["change", 1200.0, 8.0, 0, 8.0]]) == {}


def test_spread_is_the_middle_and_a_value_that_nine_of_ten_stay_below(bench):
    assert bench.spread([float(v) for v in range(10, 0, -1)]) == {"median": 5.5, "p90": 9.0}
    assert bench.spread([7.0]) == {"median": 7.0, "p90": 7.0}


def test_the_table_says_how_yardsticks_stand_to_ours_at_the_same_number_of_points(bench):
    row = lambda cloud: {"ms": {"cloud": {"median": cloud, "p90": 2 * cloud}}, "orbit_pictures_per_second": 10.0}  # noqa: E731
    said = bench.summary_of({"explore_depth, 76,800 points": row(100.0), "explore_depth, 307,200 points": row(1.0),
                             "k3d, 76,800 points": row(250.0), "plotly, 76,800 points": {"left_out": "not installed"}})
    assert said["k3d, 76,800 points"] == "cloud 250 (500) ms, orbit 10.0/s, cloud 2.5 x ours"
    assert said["plotly, 76,800 points"] == "left out: not installed"


def test_the_runner_knows_it_and_what_it_needs():
    sys.path.insert(0, str(ROOT))
    try:
        from benchmarks.__main__ import BENCHMARKS
    finally:
        sys.path.remove(str(ROOT))
    assert "playwright" in BENCHMARKS["lab"].needs and BENCHMARKS["lab"].quick == ("--quick",)


def test_the_record_holds_what_it_says():
    path = ROOT / "results" / "lab_cpu.json"
    if not path.is_file():
        pytest.skip("not recorded yet: python -m benchmarks lab")
    record = json.loads(path.read_text())
    assert set(record["summary"]) == set(record["rows"])
    for label, row in record["rows"].items():
        assert "left_out" in row or all(row["first_change_ms"][place]["median"] <= row["ms"][place]["median"]
                                        for place in row["ms"]), label
