"""The versions of a model: chosen, retired and deleted, and what becomes of tasks, deployments and zips.

On PostgreSQL and on SQLite.
"""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from sqlalchemy import select, text, update

from contract.access import ANONYMOUS, Caller, Scope
from contract.errors import (
    IdempotencyConflict,
    InferenceError,
    ModelExists,
    ModelInUse,
    ModelNotFound,
    ModelRetired,
)
from contract.model_versions import ModelChange, ModelVersionView, VersionChange, VersionListQuery
from contract.overview import TaskListQuery
from contract.queries import ModelRegistration
from contract.schemas import ModelView
from contract.statuses import Status
from private_api.loops.janitor import Janitor
from private_api.loops.orphans import ORPHAN_AGE_S
from private_api.model_versions import change_model, change_version, delete_model, delete_version, list_versions
from private_api.models import list_models, register_model, show_model
from private_api.placement.outlook import find_output, show_task
from private_api.tables import ArchiveRow, ModelVersionRow
from private_api.tasks.cancel import cancel_task
from private_api.tasks.listing import list_tasks
from private_api.tasks.submit import check_submission
from tests.integration.deployment_harness import DeploymentHarness
from tests.integration.task_harness import Harness
from tests.waiting import wait_until
from tests.zips import make_zip

OPERATOR = Caller("carol", frozenset({Scope.OPERATE}))


def register(harness: Harness, name: str = "seg", data: bytes | None = None, *, replace: bool = True) -> ModelView:
    registration = ModelRegistration(
        human_readable_id=name, container_tag="seg:1", model_available=data is not None, replace=replace
    )
    if data is None:
        return register_model(harness.database, harness.store, registration, None, ANONYMOUS)
    upload = harness.store.open_upload(None)
    upload.write(data)
    return register_model(harness.database, harness.store, registration, upload, ANONYMOUS)


def versions(harness: Harness, name: str = "seg", limit: int = 100, after: int | None = None) -> list[ModelVersionView]:
    return list_versions(harness.database, name, VersionListQuery(limit=limit, after=after))


def change(harness: Harness, **fields: int | str | bool) -> ModelView:
    return change_model(harness.database, "seg", ModelChange.model_validate(fields), ANONYMOUS)


def retire(harness: Harness, number: int, *, retired: bool = True) -> ModelVersionView:
    return change_version(harness.database, "seg", number, VersionChange(retired=retired), ANONYMOUS)


def version_of(harness: Harness, uid: str) -> int:
    return show_task(harness.database, harness.logs, uid, ANONYMOUS).model_version


def clean(harness: Harness) -> int:
    return Janitor(harness.database, harness.store, harness.logs, keep_finished_for=timedelta(days=30)).step()


def zips(harness: Harness) -> set[str]:
    """The keys of the stored zips of models, however young."""
    return {key for key in harness.store.kept_keys(-ORPHAN_AGE_S) if key.startswith("models/")}


def finish(harness: Harness, uid: str) -> None:
    held = harness.claim(uid=uid)
    harness.beat(held)
    harness.commit(held)


@pytest.fixture
def three(harness: Harness) -> Harness:
    """With a model `seg` of three versions."""
    for _ in range(3):
        register(harness)
    return harness


def test_a_plain_id_means_the_default_version_and_a_pinned_one_its_version(three: Harness) -> None:
    assert [version_of(three, three.submit(name)) for name in ("seg", "seg@1", "seg@3")] == [3, 1, 3]
    assert change(three, default_version=2).version == 2
    assert [version_of(three, three.submit(name)) for name in ("seg", "seg@3")] == [2, 3]
    assert show_model(three.database, "seg", ANONYMOUS).version == 2
    assert show_model(three.database, "seg@3", ANONYMOUS).version == 3
    assert [
        (model.human_readable_id, model.version)
        for model in list_models(three.database, ANONYMOUS, limit=9, after=None)
    ] == [
        ("echo", 1),
        ("seg", 2),
    ]
    # A new version is the default, as before there were others.
    assert register(three).version == 4
    assert version_of(three, three.submit("seg")) == 4


@pytest.mark.parametrize("reference", ["seg@4", "seg@0", "seg@", "seg@x", "seg@1@2", "seg@-1", "seg@1234567890", "@1"])
def test_what_names_no_version_is_no_model(three: Harness, reference: str) -> None:
    with pytest.raises(ModelNotFound):
        three.submit(reference)
    with pytest.raises(ModelNotFound):
        check_submission(three.database, reference, idempotency_key=None, caller=ANONYMOUS)


def test_versions_are_listed_newest_first_with_what_uses_them(three: Harness, plane: DeploymentHarness) -> None:
    with_zip = register(three, data=make_zip())
    held = three.claim(uid=three.submit("seg@2"))
    for name in ("seg@2", "seg@2", "seg@4"):
        three.submit(name)
    finish(three, three.submit("seg@1"))
    plane.deploy("seg@3")
    change(three, default_version=2)
    retire(three, 1)
    listed = versions(three)
    assert [(view.version, view.default, view.retired, view.deployed, view.queued, view.held) for view in listed] == [
        (4, False, False, False, 1, 0),
        (3, False, False, True, 0, 0),
        (2, True, False, False, 2, 1),
        (1, False, True, False, 0, 0),
    ]
    assert listed[0].archive == with_zip.archive is not None
    assert listed[1].archive is None
    assert [view.version for view in versions(three, limit=2)] == [4, 3]
    assert [view.version for view in versions(three, limit=2, after=3)] == [2, 1]
    assert three.row(held.uid).status == Status.LEASED
    with pytest.raises(ModelNotFound):
        versions(three, "nobody")


def test_the_description_is_changed_in_the_version_that_is_meant(three: Harness) -> None:
    assert change(three, description="Segments").description == "Segments"
    assert change(three, default_version=1, description="Segmented").version == 1
    change_version(three.database, "seg", 2, VersionChange(description="Broken"), ANONYMOUS)
    assert [view.description for view in versions(three)] == ["Segments", "Broken", "Segmented"]


def test_a_retired_model_takes_no_new_task_and_those_it_has_go_on(three: Harness) -> None:
    running, queued = three.claim(uid=three.submit("seg")), three.submit("seg@1")
    assert change(three, retired=True).retired
    for name in ("seg", "seg@1"):
        with pytest.raises(ModelRetired, match="the model 'seg' is retired"):
            three.submit(name)
        with pytest.raises(ModelRetired):
            check_submission(three.database, name, idempotency_key=None, caller=ANONYMOUS)
    three.beat(running)
    three.commit(running)
    finish(three, queued)
    # A new version does not bring it back by itself.
    assert register(three).retired
    assert not change(three, retired=False).retired
    assert version_of(three, three.submit("seg")) == 4


def test_a_retired_version_takes_no_new_task_and_is_not_the_default(three: Harness) -> None:
    queued = three.submit("seg@1")
    assert retire(three, 1).retired
    with pytest.raises(ModelRetired, match="version 1 of 'seg' is retired"):
        three.submit("seg@1")
    assert show_model(three.database, "seg@1", ANONYMOUS).retired
    assert not show_model(three.database, "seg", ANONYMOUS).retired
    finish(three, queued)
    three.submit("seg")
    with pytest.raises(ModelRetired, match="bring it back"):
        change(three, default_version=1)
    with pytest.raises(ModelInUse, match="is the default"):
        retire(three, 3)
    retire(three, 1, retired=False)
    assert version_of(three, three.submit("seg@1")) == 1


def test_a_retired_model_or_version_is_not_deployed_anew_and_its_deployment_goes_on(
    plane: DeploymentHarness, three: Harness
) -> None:
    plane.deploy("seg@1", replicas_min=1)
    plane.scale()
    held = plane.claim()
    plane.beat(held)
    retire(three, 1)
    plane.scale()
    assert plane.statuses("seg") == ["ready"]
    with pytest.raises(ModelRetired):
        plane.deploy("seg@1")
    change(three, retired=True)
    with pytest.raises(ModelRetired):
        plane.deploy("seg")
    assert plane.show("seg").model_version == 1


def test_a_deployment_stays_at_its_version_until_the_model_is_deployed_again(
    plane: DeploymentHarness, three: Harness
) -> None:
    plane.deploy("seg")
    change(three, default_version=2)
    assert plane.show("seg").model_version == 3
    plane.deploy("seg")
    assert plane.show("seg").model_version == 2
    plane.deploy("seg@1")
    assert plane.show("seg").model_version == 1
    assert (plane.show("seg").human_readable_id, plane.show("seg").serving.application) == ("seg", None)


def test_what_is_in_use_is_not_deleted_and_the_refusal_says_by_what(three: Harness, plane: DeploymentHarness) -> None:
    queued = three.submit("seg@1")
    with pytest.raises(ModelInUse, match=r"version 1 of 'seg' is in use \(tasks that have not ended: 1\)"):
        delete_version(three.database, "seg", 1, ANONYMOUS)
    with pytest.raises(ModelInUse, match="version 3 is the default"):
        delete_version(three.database, "seg", 3, ANONYMOUS)
    plane.deploy("seg@2", replicas_min=1)
    plane.scale()
    with pytest.raises(ModelInUse, match=r"\(deployments: 1; replicas that have not ended: 1\)"):
        delete_version(three.database, "seg", 2, ANONYMOUS)
    with pytest.raises(ModelInUse, match=r"the model 'seg' is in use \(tasks .* deployments: 1; replicas"):
        delete_model(three.database, "seg", ANONYMOUS)
    cancel_task(three.database, queued, ANONYMOUS)
    delete_version(three.database, "seg", 1, ANONYMOUS)
    # The replica of a deployment that moved on still runs the version.
    held = plane.claim()
    plane.beat(held)
    plane.deploy("seg@3")
    with pytest.raises(ModelInUse, match=r"\(replicas that have not ended: 1\)"):
        delete_version(three.database, "seg", 2, ANONYMOUS)
    plane.end_uid(held.uid)
    delete_version(three.database, "seg", 2, ANONYMOUS)
    assert [view.version for view in versions(three)] == [3]
    for number in (1, 2):
        delete_version(three.database, "seg", number, ANONYMOUS)
    with pytest.raises(ModelNotFound):
        delete_version(three.database, "seg", 4, ANONYMOUS)


def test_a_deleted_version_is_gone_but_for_its_tasks_and_its_number_is_not_given_again(three: Harness) -> None:
    uid = three.submit("seg")
    finish(three, uid)
    change(three, default_version=2)
    delete_version(three.database, "seg", 3, ANONYMOUS)
    with pytest.raises(ModelNotFound, match="the model 'seg' has no version 3"):
        three.submit("seg@3")
    with pytest.raises(ModelNotFound):
        change(three, default_version=3)
    assert [view.version for view in versions(three)] == [2, 1]
    assert version_of(three, uid) == 3
    assert register(three).version == 4


def test_tasks_of_a_deleted_model_answer_as_before_and_a_new_model_of_its_name_begins_anew(three: Harness) -> None:
    done, failed = three.submit("seg", key="k"), three.submit("seg@2")
    finish(three, done)
    three.fail(three.claim(uid=failed))

    def answers() -> list[object]:
        tasks = [show_task(three.database, three.logs, uid, ANONYMOUS) for uid in (done, failed)]
        listed = list_tasks(three.database, OPERATOR, TaskListQuery(model="seg"))
        output = find_output(three.database, three.store, three.logs, done, ANONYMOUS)
        with pytest.raises(InferenceError) as refused:
            find_output(three.database, three.store, three.logs, failed, ANONYMOUS)
        return [*tasks, *listed, output, refused.value.to_body()]

    before = answers()
    change(three, retired=True)
    delete_model(three.database, "seg", ANONYMOUS)
    delete_model(three.database, "seg", ANONYMOUS)
    clean(three)
    assert answers() == before
    for refused in (
        lambda: three.submit("seg"),
        lambda: versions(three),
        lambda: show_model(three.database, "seg", ANONYMOUS),
    ):
        with pytest.raises(ModelNotFound, match="no model has the human_readable_id 'seg'"):
            refused()
    with pytest.raises(ModelNotFound):
        change(three, retired=False)
    assert [model.human_readable_id for model in list_models(three.database, ANONYMOUS, limit=9, after=None)] == [
        "echo"
    ]
    with pytest.raises(ModelNotFound):
        delete_model(three.database, "nobody", ANONYMOUS)
    # Whoever lost the answer to the submission still gets the uid.
    check_submission(three.database, "seg", idempotency_key="k", caller=ANONYMOUS)
    assert three.submit("seg", key="k") == done

    new = register(three, replace=False)
    assert (new.version, new.retired) == (4, False)
    with pytest.raises(ModelExists):
        register(three, replace=False)
    assert [view.version for view in versions(three)] == [4]
    assert version_of(three, three.submit("seg")) == 4
    assert answers()[:2] == before[:2]


def test_a_repeated_submission_names_the_same_version(three: Harness) -> None:
    uid = three.submit("seg@3", key="k")
    assert three.submit("seg", key="k") == uid
    change(three, default_version=1)
    assert three.submit("seg", key="k") == uid
    with pytest.raises(IdempotencyConflict):
        three.submit("seg@1", key="k")


def test_tasks_are_listed_by_version(three: Harness) -> None:
    old, new = three.submit("seg@1"), three.submit("seg")

    def listed(model: str) -> list[str]:
        return [task.uid for task in list_tasks(three.database, OPERATOR, TaskListQuery(model=model))]

    assert (listed("seg"), listed("SEG@1"), listed("seg@3")) == ([new, old], [old], [new])
    assert listed("seg@2") == listed("seg@") == listed("seg@x") == []


def test_the_zip_of_a_deleted_version_goes_and_those_that_another_version_needs_stay(harness: Harness) -> None:
    for data in (make_zip({"w": b"1"}), make_zip({"w": b"2"}), make_zip({"w": b"1"})):
        register(harness, data=data)
    register(harness, "other", make_zip({"w": b"2"}))
    assert len(zips(harness)) == 2
    for number in (1, 2):
        delete_version(harness.database, "seg", number, ANONYMOUS)
    clean(harness)
    assert len(zips(harness)) == 2
    delete_model(harness.database, "other", ANONYMOUS)
    assert clean(harness) == 1
    (left,) = zips(harness)
    assert harness.store.path(left).read_bytes() == make_zip({"w": b"1"})
    held = harness.claim(uid=harness.submit("seg"))
    assert held.model_archive is not None
    assert left.startswith(f"models/{held.model_archive.sha256}")
    assert clean(harness) == 0


def test_a_zip_that_was_removed_is_stored_again_when_it_is_registered_again(harness: Harness) -> None:
    data = make_zip({"w": b"1"})
    register(harness, data=data)
    delete_model(harness.database, "seg", ANONYMOUS)
    assert clean(harness) == 1
    assert zips(harness) == set()
    again = register(harness, data=data, replace=False)
    assert again.archive is not None
    clean(harness)
    (kept,) = zips(harness)
    assert harness.store.path(kept).read_bytes() == data


@pytest.mark.parametrize("database_url", ["postgres"], indirect=True)
def test_a_submission_waits_for_the_deletion_of_its_version_and_is_refused(three: Harness) -> None:
    number = ModelVersionRow.number == 1
    with ThreadPoolExecutor(1) as pool:
        with three.database.write() as deletion:
            deletion.scalars(select(ModelVersionRow).where(number).with_for_update(of=ModelVersionRow)).all()
            submission = pool.submit(three.submit, "seg@1")

            def is_held_up() -> bool:
                waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
                with three.database.read() as session:
                    return bool(session.scalar(text(f"{waiting} AND wait_event_type = 'Lock'")))

            wait_until(is_held_up, "the submission did not wait")
            deletion.execute(update(ModelVersionRow).where(number).values(deleted_at=three.database.now(deletion)))
        with pytest.raises(ModelNotFound):
            submission.result()


@pytest.mark.parametrize("database_url", ["postgres"], indirect=True)
def test_a_zip_that_a_registration_is_about_to_share_is_not_removed(harness: Harness) -> None:
    register(harness, data=make_zip())
    delete_model(harness.database, "seg", ANONYMOUS)
    with harness.database.write() as registration:
        archive = select(ArchiveRow).where(ArchiveRow.key.startswith("models/"))
        registration.scalars(archive.with_for_update(read=True)).all()
        assert clean(harness) == 0
    assert len(zips(harness)) == 1
    assert clean(harness) == 1
