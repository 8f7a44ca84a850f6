"""Which test runs the commands of which page, and which commands no test here can run, with the reason.

A section is named by its heading, or `*` for all sections of a page. What needs more than this machine has is listed
once, in `NOT_RUN`; everything else in `RUN_BY`, and the test that is named there mentions the page.
"""

_WALKS = "tests/e2e/test_page_commands.py"
_WEEK = "tests/e2e/test_admin_week.py"
_README = "tests/e2e/test_readme.py"

RUN_BY: dict[tuple[str, str], str] = {
    ("README.md", "The first result"): _WALKS,
    ("README.md", "Run it for real"): _README,
    ("docs/client.md", "Batches"): _WALKS,
    ("docs/client.md", "What `submit` sends"): _WALKS,
    ("docs/client.md", "`call`"): _WALKS,
    ("docs/client.md", "`deploy`"): _WALKS,
    ("docs/client.md", "`init`, `check`, `build`"): _WALKS,
    ("docs/client.md", "`list`"): _WALKS,
    ("docs/client.md", "`models add`"): _WALKS,
    ("docs/deployments.md", "Deployments"): _WALKS,
    ("docs/grpc/README.md", "The first call"): _README,
    ("docs/grpc/ray.md", "A service"): _WALKS,
    ("docs/grpc/ray.md", "One deployment calls another"): _WALKS,
    ("docs/grpc/tensorflow.md", "TensorFlow Serving"): _WALKS,
    ("docs/how-to/behind-nginx.md", "*"): "tests/e2e/test_behind_nginx.py",
    ("docs/how-to/give-access.md", "*"): _WEEK,
    ("docs/how-to/many-cases.md", "*"): _WALKS,
    ("docs/how-to/monitor.md", "Is it up?"): _WALKS,
    ("docs/how-to/monitor.md", "Does work move?"): _WALKS,
    ("docs/how-to/monitor.md", "Is the host well?"): _WEEK,
    ("docs/how-to/monitor.md", "What happened?"): _WEEK,
    ("docs/how-to/no-dns.md", "By its address"): "tests/e2e/test_by_address.py",
    ("docs/how-to/no-dns.md", "One command, without touching the client"): _WEEK,
    ("docs/how-to/no-dns.md", "Standalone, by its address"): _WALKS,
    ("docs/how-to/private-registry.md", "*"): "tests/e2e/test_private_registry.py",
    ("docs/how-to/without-a-client.md", "With Python"): _README,
    ("docs/how-to/without-a-client.md", "With curl"): _WALKS,
    ("docs/http-api.md", "Generated clients"): "tests/e2e/test_generated_clients.py",
    ("docs/http-api.md", "*"): _WALKS,
    ("docs/operations/access.md", "*"): _WEEK,
    ("docs/operations/audit.md", "*"): "tests/e2e/test_stack_audit.py",
    ("docs/operations/backup.md", "Back up"): _WEEK,
    ("docs/operations/backup.md", "Standalone"): _WALKS,
    ("docs/operations/backup.md", "Try it"): _WEEK,
    ("docs/operations/backup.md", "With your database's own tools"): _WEEK,
    ("docs/operations/gpu-hosts.md", "Reboot a host"): _WALKS,
    ("docs/operations/install.md", "Two doors side by side"): "tests/e2e/test_two_doors.py",
    ("docs/operations/install.md", "Resets"): "tests/e2e/test_first_minute.py",
    ("docs/operations/tls.md", "Self-signed, to begin with"): _WALKS,
    ("docs/operations/troubleshooting.md", "Troubleshooting"): _WEEK,
    ("docs/scale.md", "Try it"): "tests/unit/test_benchmark_scale.py",
    ("docs/reliability.md", "Before your server goes live"): "tests/e2e/test_stack.py",
    ("docs/tutorials/first-segmentation.md", "*"): "tests/e2e/test_tutorials.py",
    ("docs/tutorials/own-model.md", "*"): "tests/e2e/test_tutorials.py",
    ("docs/tutorials/week-as-admin.md", "*"): _WEEK,
    ("docs/writing-a-model.md", "Limits"): _WALKS,
    ("docs/writing-a-model.md", "The model's zip"): _WALKS,
    ("docs/writing-a-model.md", "Trying an image without the server"): _WALKS,
    ("docs/writing-a-model.md", "Without Docker"): _WALKS,
    ("examples/README.md", "echo"): _WALKS,
    ("examples/README.md", "ocr"): _WALKS,
    ("examples/README.md", "segment"): _WALKS,
    ("examples/README.md", "wordcount"): _WALKS,
    ("examples/grpc/half_plus_two/README.md", "*"): _WALKS,
    ("examples/grpc/image_classifier/README.md", "*"): _WALKS,
    ("examples/grpc/kernel/README.md", "*"): _WALKS,
    ("examples/grpc/kserve_model/README.md", "*"): _WALKS,
    ("examples/grpc/ray_serve/README.md", "*"): _WALKS,
    ("examples/grpc/tensorflow_model/README.md", "*"): _WALKS,
    ("examples/grpc/triton/README.md", "*"): _WALKS,
    ("examples/grpc/user_service/README.md", "*"): _WALKS,
    ("runtimes/redhare/README.md", "The redhare runtime"): _WALKS,
}

_SECOND_HOST = "needs further hosts; tests/e2e/test_swarm.py does these steps where TEST_SECOND_HOST_COMMAND is set"
_SAME_BY_HAND = "no test reads it; tests/grpc builds the same images and runs the examples against them"
_PUBLIC_CLIENTS = "installs into the reader's environment; tests/grpc runs the page's scripts in .venv-grpc"
_FIRST_MINUTE = "tests/e2e/test_first_minute.py and tests/e2e/test_stack.py do the same in words of their own"

NOT_RUN: dict[tuple[str, str], str] = {
    (
        "docs/writing-a-model.md",
        "A runtime",
    ): "the Engine has no runsc here; tests/e2e/test_runtimes.py asks for another",
    ("CONTRIBUTING.md", "Set up"): "is how the environment of the tests was made",
    (
        "docs/benchmarks.md",
        "Run them",
    ): "measures for minutes; tests/unit/test_benchmark_results.py runs what is around",
    ("docs/client.md", "`infer`"): "asks a person at a terminal; tests/integration/test_infer_login.py is one",
    ("docs/client.md", "Where the server is"): "tests/integration/test_infer_login.py gives a key on stdin",
    ("docs/decisions/0019-swagger-ui.md", "Decision"): "renews files of this repository from npm's registry",
    ("docs/grpc/kserve.md", "*"): _PUBLIC_CLIENTS,
    ("docs/grpc/ray.md", "Clients"): _PUBLIC_CLIENTS,
    ("docs/grpc/redhare.md", "*"): _PUBLIC_CLIENTS,
    ("docs/grpc/tensorflow.md", "Clients"): _PUBLIC_CLIENTS,
    ("docs/how-to/no-dns.md", "A name that only these machines know"): "needs another machine with a hosts file",
    ("docs/operations/backup.md", "Restore"): "the same commands are in the week as the admin, where they are run",
    ("docs/operations/install.md", "Data"): "moves the volumes of a server that is in use",
    ("docs/operations/install.md", "Run it for real"): _FIRST_MINUTE,
    ("docs/operations/kubernetes.md", "*"): "needs a cluster; tests/unit/test_kubernetes.py checks manifests and names",
    ("docs/operations/multi-host.md", "*"): _SECOND_HOST,
    ("docs/operations/upgrade.md", "Images of others"): "images that came from no registry have no digest; "
    "tests/unit/test_base_images.py pins them",
    ("docs/operations/upgrade.md", "Upgrade"): "needs a newer release; the week as the admin does it with this one",
    (
        "inference_client/README.md",
        "*",
    ): "installs from a package index; tests/e2e/test_client_distribution.py from a wheel",
    ("runtimes/redhare/README.md", "Who may stream"): _SAME_BY_HAND,
}
