"""The C++ tests of the session core, plain and under sanitizers, and the machine time of push and pull."""

import os
import subprocess

import native_lanes as native
import pytest

pytestmark = pytest.mark.alone


@pytest.fixture(scope="module")
def lanes():
    """Each lane's tests, all running at once: most of their time they wait for clocks. Maps a lane to (exit status, output)."""
    programs = {lane: native.core_tests(lane) for lane in native.LANES}
    running = {lane: subprocess.Popen([program], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
               for lane, program in programs.items()}
    return {lane: (process.communicate()[0], process.returncode) for lane, process in running.items()}


@pytest.mark.parametrize("lane", native.LANES)
def test_core(lanes, lane):
    output, status = lanes[lane]
    names = native.run(native.core_tests(lane), "--list").split()
    assert status == 0 and len(names) > 20, output
    assert [line.split()[1] for line in output.splitlines() if line.startswith("ok ")] == names


def test_ten_thousand_ticks_neither_allocate_nor_take_long():
    program = native.linked("plain", "ticks", native.CORE + [native.NATIVE / "ticks.cpp"])
    output = native.run(program)
    print(output)
    first, *rows = output.splitlines()
    counts = dict(pair.split("=") for pair in first.split())
    assert counts["allocations"] == "0" and int(counts["plans"]) > 3
    times = {(mode, what): {k: float(v) for k, v in (pair.split("=") for pair in pairs)}
             for mode, what, *pairs in (row.split() for row in rows)}
    assert times["hot", "push+pull"]["p50_us"] <= 1, output
    # How cold the caches are is up to whatever else runs; the tail under load is the scheduler's.
    assert times["loaded", "push+pull"]["p50_us"] <= 4, output
    if os.getloadavg()[0] < os.cpu_count():
        assert times["loaded", "push+pull"]["p99_us"] <= 10, output


def test_push_and_pull_make_no_system_call():
    output = native.run(native.linked("plain", "silent", native.CORE + [native.NATIVE / "silent.cpp"]))
    if "skipped" in output:
        pytest.skip("needs Linux with seccomp filters")
    counts = dict(pair.split("=") for pair in output.split())
    assert int(counts["ticks"]) > 50 and int(counts["plans"]) > 2, output


def test_hostile_bytes():
    """Under the sanitizers, for a bounded time; RTI_FUZZ_SECONDS makes it longer."""
    program = native.linked("address", "fuzz", native.CORE + [native.NATIVE / "fuzz.cpp"])
    output = native.run(program, os.environ.get("RTI_FUZZ_SECONDS", "3"))
    assert int(output.split("=")[1]) > 50
