"""A signal is never lost, wherever in its waiting it meets the main thread."""

import subprocess
import sys

ROUNDS = 100
PROGRAM = f"""
import os, signal, time
from kit.signals import stop_event

asked, answer = os.pipe()
parent = os.getpid()
if os.fork() == 0:
    # Another process: a thread of this one would only run while the main thread does not.
    for number in range({ROUNDS}):
        os.read(asked, 1)
        time.sleep(number / 100_000)
        os.kill(parent, signal.SIGTERM)
    os._exit(0)
for number in range({ROUNDS}):
    event = stop_event()
    os.write(answer, b"1")
    while not event.is_set():
        event.wait(0)
print("stopped every time")
"""


def test_a_signal_that_meets_a_beginning_or_ending_wait_is_heard() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False, timeout=600)
    assert done.stdout == "stopped every time\n", done.stderr


def test_an_endless_wait_ends() -> None:
    program = "from kit.signals import stop_event; event = stop_event(); print('waits', flush=True); event.wait()"
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "waits\n"
        process.terminate()
        assert process.wait(600) == 0


def test_a_second_signal_ends_the_process_at_once() -> None:
    program = """
import os, signal
from kit.signals import stop_event

event = stop_event()
os.kill(os.getpid(), signal.SIGTERM)
event.wait()
os.kill(os.getpid(), signal.SIGINT)
event.clear()
event.wait()
"""
    done = subprocess.run([sys.executable, "-c", program], check=False, timeout=600)
    assert done.returncode == 128 + 2
