"""Submits tasks while parts of the server are killed and frozen at random; then lets everything heal."""

import random
import secrets
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import httpx

from tests.chaos.targets import Target
from tests.zips import make_zip

CALM_S = (0.3, 2.0)
"""Between two faults."""
DEAD_S = (0.1, 3.0)
"""How long a killed part stays away."""
FROZEN_S = (0.5, 8.0)
LONG_FREEZE_S = 75.0
"""Longer than a lease; one freeze in twenty."""
CALM_AFTER_S = {"engine": 10.0}
"""What follows a fault of a part that no run outlives: between two of them a run must be able to end."""
FEWEST_FAULTS = 10
"""A storm has at most this many faults, or one for every two tasks if that is more."""
STUCK_S = 240.0
"""After the last fault some task must end this often, or those that are left are stuck."""


@dataclass
class Storm:
    """One run. `acknowledged` maps the uid of each task to what its output must hold."""

    url: str
    model: str
    targets: Sequence[Target]
    tasks: int
    seed: int
    patient: bool = False
    """Freeze for longer than a lease, too."""
    acknowledged: dict[str, bytes] = field(default_factory=dict)
    faults: Counter[str] = field(default_factory=Counter)
    ended: set[str] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _left: int = 0

    def run(self) -> None:
        """Submit everything under faults, heal, and wait for what can still end."""
        self._left = self.tasks
        submitters = [
            threading.Thread(target=self._submit, name=f"submitter {number}", daemon=True) for number in range(3)
        ]
        for thread in submitters:
            thread.start()
        choice = random.Random(self.seed)  # noqa: S311 - no secret
        # Bounded: a storm that never ends lets nothing end.
        most = max(FEWEST_FAULTS, self.tasks // 2)
        while sum(self.faults.values()) < most and (
            any(thread.is_alive() for thread in submitters) or self._waiting() > self.tasks // 10
        ):
            time.sleep(choice.uniform(*CALM_S))
            self._break(choice)
        for thread in submitters:
            thread.join()
        self._drain()

    def _break(self, choice: random.Random) -> None:
        target = choice.choice(self.targets)
        self._strike(target, choice)
        time.sleep(CALM_AFTER_S.get(target.name, 0))

    def _strike(self, target: Target, choice: random.Random) -> None:
        if choice.random() < 0.6:
            self.faults[f"{target.name}: kill -9"] += 1
            target.kill()
            # Also for whoever interrupts the storm.
            try:
                time.sleep(choice.uniform(*DEAD_S))
            finally:
                target.start()
            return
        is_long = self.patient and choice.random() < 0.05
        self.faults[f"{target.name}: freeze"] += 1
        target.freeze()
        try:
            time.sleep(LONG_FREEZE_S if is_long else choice.uniform(*FROZEN_S))
        finally:
            target.thaw()

    def _submit(self) -> None:
        with httpx.Client(base_url=self.url, timeout=20, trust_env=False) as http:
            while True:
                with self._lock:
                    if self._left == 0:
                        return
                    self._left -= 1
                number = secrets.token_hex(8).encode()
                uid = self._post(http, number)
                with self._lock:
                    self.acknowledged[uid] = number

    def _post(self, http: httpx.Client, number: bytes) -> str:
        """Repeat one submission under its key until it is acknowledged."""
        headers = {"Content-Type": "application/zip", "Idempotency-Key": number.decode()}
        data, query = make_zip({"number": number}), {"human_readable_id": self.model}
        while True:
            try:
                answer = http.post("/api/tasks/", params=query, content=data, headers=headers)
                if answer.status_code == 200:
                    return str(answer.json())
                assert answer.status_code >= 500, answer.text
            except httpx.TransportError:
                pass
            time.sleep(0.2)

    def _waiting(self) -> int:
        """How many acknowledged tasks have not ended, as far as the door says."""
        with httpx.Client(base_url=self.url, timeout=5, trust_env=False) as http:
            for uid in set(self.acknowledged) - self.ended:
                try:
                    answer = http.get(f"/api/tasks/{uid}/status")
                except httpx.TransportError:
                    break
                if answer.status_code == 200 and answer.json()["ended_at"] is not None:
                    self.ended.add(uid)
                elif answer.status_code >= 500:
                    break
        return len(self.acknowledged) - len(self.ended)

    def _drain(self) -> None:
        left, since = self._waiting(), time.monotonic()
        while left and time.monotonic() < since + STUCK_S:
            time.sleep(0.5)
            if (now := self._waiting()) < left:
                left, since = now, time.monotonic()
