"""What ten GPUs, a hundred, a thousand, and a million tasks a day ask of a server, computed from measured costs.

    .venv/bin/python -m benchmarks.scale [--page docs/scale.md]
    .venv/bin/python -m benchmarks.scale --check [--tasks 40]

The first computes with the costs that docs/benchmarks/results.json has, else with those below, and writes the tables
into the page if one is named. The second measures the costs of this machine with services as processes over PostgreSQL
and RabbitMQ, one consumer and tasks of a second. Then it predicts what two consumers do with tasks of two seconds, runs
that, and prints both; it ends with the tables of the costs that it measured. What is predicted is linear in the number
of tasks, and so is the model.
"""

import argparse
from dataclasses import asdict
from pathlib import Path

from benchmarks import figures, results, scale_costs
from benchmarks.figures import Figure
from benchmarks.scale_costs import Spent
from benchmarks.scale_model import COSTS, Costs, tables

RECORDED = Path(__file__).parents[1] / "docs/benchmarks"
FORGETS_S = 144.0
"""2000 tasks in 13.9 s, the slower of two runs of `benchmarks.janitor`: docs/benchmarks.md."""
BEGIN, END = "<!-- computed by benchmarks.scale -->", "<!-- end -->"
_PREFIX = "cost: "
_CALIBRATED_S, _PREDICTED_S = 1.0, 2.0
_CONSUMERS = 2


def main() -> None:
    """Compute, or measure and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="measure costs here, and compare the model with a run")
    parser.add_argument("--tasks", type=int, default=40)
    parser.add_argument("--page", type=Path, help="write the tables into this page")
    figures.add_option(parser)
    arguments = parser.parse_args()
    costs = check(arguments.tasks, arguments.json) if arguments.check else recorded(RECORDED)
    print(tables(costs))
    if arguments.page:
        page = arguments.page.read_text(encoding="utf-8")
        arguments.page.write_text(with_tables(page, costs), encoding="utf-8")


def recorded(folder: Path) -> Costs:
    """The costs that the results of a folder have. Raises `KeyError` if one is missing."""
    found = results.read(folder)["scale"].figures
    values = {figure.name.removeprefix(_PREFIX): figure.value for figure in found}
    return Costs(**{name: values[name] for name in COSTS})


def with_tables(page: str, costs: Costs) -> str:
    """The page with the tables between its two marks. Raises `ValueError` without them."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page lacks {BEGIN} and {END}")
    return f"{before}{begin}\n\n{tables(costs)}\n\n{end}{after}"


def check(tasks: int, path: Path | None) -> Costs:
    """Measure the costs, predict another run, and print how far that is from what happens."""
    rows_kib = scale_costs.row_costs()
    with scale_costs.measured_system() as place:
        idle = scale_costs.idle_costs(place)
        one = scale_costs.run_tasks(place, tasks, _CALIBRATED_S, 1)
        spent = one.spent.beyond(idle)
        per_task = {name: cpu_s / one.tasks for name, cpu_s in spent.cpu_s.items()}
        calls = scale_costs.call_costs(place, idle)
        private_mib_s, public_mib_s = scale_costs.byte_costs(place, per_task, idle)
        sync_s, copy_mib_s = scale_costs.disk_costs(place)
        costs = Costs(
            private_task_s=per_task["private_api"],
            public_task_s=per_task["public_api"],
            database_task_s=per_task["postgres"],
            commits_per_task=spent.commits / one.tasks,
            rows_per_task_kib=rows_kib,
            private_idle_cores=idle.cpu_s["private_api"] / idle.seconds,
            database_idle_cores=idle.cpu_s["postgres"] / idle.seconds,
            private_call_s=calls["private_api"],
            public_call_s=calls["public_api"],
            database_call_s=calls["postgres"],
            private_mib_s=private_mib_s,
            public_mib_s=public_mib_s,
            gap_s=max(0.0, 1 / one.rate - _CALIBRATED_S),
            sync_s=sync_s,
            copy_mib_s=copy_mib_s,
            forgets_s=FORGETS_S,
        )
        for name, value in asdict(costs).items():
            print(f"{name:22} {value:12.5f}")
            figures.record(path, Figure(f"{_PREFIX}{name}", value, ""))
        two = scale_costs.run_tasks(place, tasks, _PREDICTED_S, _CONSUMERS)
    compare(costs, two.rate, two.spent, tasks, path)
    return costs


def compare(costs: Costs, rate: float, spent: Spent, tasks: int, path: Path | None) -> None:
    """Print and record what the model says of the second run beside what happened."""
    idle_s = costs.private_idle_cores * spent.seconds
    rows = {
        "tasks": ("/s", _CONSUMERS / (_PREDICTED_S + costs.gap_s), rate),
        "CPU of the private API": ("s", idle_s + tasks * costs.private_task_s, spent.cpu_s["private_api"]),
        "CPU of the public API": ("s", tasks * costs.public_task_s, spent.cpu_s["public_api"]),
        "CPU of PostgreSQL": (
            "s",
            costs.database_idle_cores * spent.seconds + tasks * costs.database_task_s,
            spent.cpu_s["postgres"],
        ),
    }
    print(f"\n{_CONSUMERS} consumers, {tasks} tasks of {_PREDICTED_S:g} s   predicted    measured   ratio")
    for name, (unit, predicted, measured) in rows.items():
        figure = figures.compared(f"{name}, to what the model says", measured, unit, predicted)
        print(f"{name:32} {predicted:9.3f}   {measured:9.3f}   {figure.ratio or 0:5.2f}")
        figures.record(path, figure)
    print()


if __name__ == "__main__":
    main()
