"""GETs one path over and over and prints the figures as JSON. `benchmarks.front` starts it as a process."""

import argparse
import http.client
import json
import ssl
import time
from concurrent.futures import ThreadPoolExecutor

DOMAIN = "localhost"


def main() -> None:
    """Measure requests per second of `concurrency` callers, each with a connection of its own, for `seconds`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--target", required=True, help="ADDRESS:PORT; asked for the name localhost")
    parser.add_argument("--certificate", required=True)
    parser.add_argument("--path", default="/healthz")
    parser.add_argument("--concurrency", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=2)
    arguments = parser.parse_args()
    address, _, port = arguments.target.partition(":")
    assert address == "127.0.0.1", "the name must lead there"
    context = ssl.create_default_context(cafile=arguments.certificate)

    def repeat(ends_at: float) -> int:
        connection, count = http.client.HTTPSConnection(DOMAIN, int(port), context=context, timeout=30), 0
        while time.perf_counter() < ends_at:
            connection.request("GET", arguments.path)
            answer = connection.getresponse()
            answer.read()
            assert answer.status == http.client.OK
            count += 1
        connection.close()
        return count

    began = time.perf_counter()
    with ThreadPoolExecutor(arguments.concurrency) as pool:
        calls = sum(pool.map(repeat, [began + arguments.seconds] * arguments.concurrency))
    print(json.dumps({"calls": calls, "rate": calls / (time.perf_counter() - began)}))


if __name__ == "__main__":
    main()
