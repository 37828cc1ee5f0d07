"""ProjectService as callers see it, and what all lists and updates have in common."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from easyml.v1 import auth_service_pb2, dataset_service_pb2, project_pb2
from easyml.v1 import project_service_pb2 as pb
from tests.builders import a_project_of, register
from tests.conftest import World
from tests.marks import answers, refuses
from tests.servers import Client, refusal, refusal_of

DESCRIPTION = FieldMask(paths=["description"])


@refuses("ProjectService/CreateProject")
def test_a_name_that_is_taken_is_refused(owner: Client) -> None:
    name = f"project-{uuid4()}"
    a_project_of(owner, name)
    said = refusal(owner.projects.CreateProject, pb.CreateProjectRequest(name=name))
    assert (said.short, said.metadata) == (("ALREADY_EXISTS", "NAME_TAKEN"), {"name": name})


@answers("ProjectService/CreateProject")
def test_a_request_id_makes_one_project_and_serves_no_other_request(owner: Client) -> None:
    request = pb.CreateProjectRequest(request_id=str(uuid4()), name=f"project-{uuid4()}")
    with ThreadPoolExecutor(8) as pool:
        made = {answer.project.id for answer in pool.map(owner.projects.CreateProject, [request] * 8)}
    assert len(made) == 1
    request.description = "another"
    assert refusal(owner.projects.CreateProject, request).short == ("ALREADY_EXISTS", "REQUEST_ID_REUSED")


@pytest.mark.parametrize("paths", [[], ["etag"], ["description", "id"]])
@refuses("ProjectService/UpdateProject")
def test_a_mask_of_what_cannot_be_updated_is_refused(owner: Client, project_id: str, paths: list[str]) -> None:
    request = pb.UpdateProjectRequest(project_id=project_id, update_mask=FieldMask(paths=paths))
    said = refusal(owner.projects.UpdateProject, request)
    assert (said.short, said.fields) == (("INVALID_ARGUMENT", "INVALID_UPDATE_MASK"), ["update_mask"])


def test_only_what_the_mask_names_changes(owner: Client, project_id: str) -> None:
    old = owner.projects.GetProject(pb.GetProjectRequest(project_id=project_id)).project
    request = pb.UpdateProjectRequest(
        project_id=project_id,
        name="  renamed  ",
        description="not this",
        labels={"team": "birds"},
        update_mask=FieldMask(paths=["labels"]),
    )
    labelled = owner.projects.UpdateProject(request).project
    assert (labelled.name, labelled.description, dict(labelled.labels)) == (old.name, "", {"team": "birds"})
    request.update_mask.paths[:] = ["name"]
    request.labels.clear()
    request.name += str(uuid4())
    renamed = owner.projects.UpdateProject(request).project
    assert (renamed.name, dict(renamed.labels)) == (request.name.strip(), {"team": "birds"})
    assert (renamed.id, renamed.create_time) == (old.id, old.create_time)
    assert len({old.etag, labelled.etag, renamed.etag}) == 3


@pytest.mark.parametrize("name", [" ", "a\nb", "a\0b", "a\u202eb"])
def test_a_name_that_cannot_be_read_is_refused(owner: Client, project_id: str, name: str) -> None:
    update = pb.UpdateProjectRequest(project_id=project_id, name=name, update_mask=FieldMask(paths=["name"]))
    for call, request in (
        (owner.projects.UpdateProject, update),
        (owner.projects.CreateProject, pb.CreateProjectRequest(name=name)),
    ):
        said = refusal(call, request)
        assert (said.short, said.fields) == (("INVALID_ARGUMENT", "INVALID_FIELD"), ["name"])


@answers("ProjectService/UpdateProject", "ProjectService/GetProject")
def test_of_two_updates_with_one_etag_one_wins(owner: Client, project_id: str) -> None:
    etag = owner.projects.GetProject(pb.GetProjectRequest(project_id=project_id)).project.etag
    calls = [
        owner.projects.UpdateProject.future(
            pb.UpdateProjectRequest(project_id=project_id, description=text, update_mask=DESCRIPTION, etag=etag)
        )
        for text in ("one", "other")
    ]
    codes = sorted(call.code().name for call in calls)
    assert codes == ["ABORTED", "OK"]
    lost = next(call for call in calls if call.code() is grpc.StatusCode.ABORTED)
    assert refusal_of(lost.exception()).reason == "STALE_ETAG"
    won = next(call.result().project for call in calls if call.code() is grpc.StatusCode.OK)
    assert owner.projects.GetProject(pb.GetProjectRequest(project_id=project_id)).project == won


@answers("ProjectService/ListProjects")
def test_pages_are_stable_while_projects_are_made(owner: Client) -> None:
    prefix = str(uuid4())
    made = [a_project_of(owner, f"{prefix}-{number}") for number in range(5)]
    request, seen = pb.ListProjectsRequest(page_size=2, name_prefix=prefix), []
    while True:
        page = owner.projects.ListProjects(request)
        seen += [project.id for project in page.projects]
        a_project_of(owner, f"{prefix}-later-{len(seen)}")
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token
    assert seen == made[::-1]


@pytest.mark.parametrize("label", ["team", "a.b", 'a"b', "$[0]", "größe", "it's"])
def test_projects_are_listed_by_name_and_label_in_any_order(owner: Client, label: str) -> None:
    prefix = f"%_{uuid4()}"
    for name, value in (("b", "x"), ("a", "x"), ("c", "y")):
        owner.projects.CreateProject(pb.CreateProjectRequest(name=f"{prefix}{name}", labels={label: value}))

    def names(**filters: Any) -> str:
        found = owner.projects.ListProjects(pb.ListProjectsRequest(name_prefix=prefix, **filters)).projects
        return "".join(project.name.removeprefix(prefix) for project in found)

    assert names() == "cab"
    assert names(order_by=pb.PROJECT_ORDER_CREATE_TIME_ASC) == "bac"
    assert names(order_by=pb.PROJECT_ORDER_NAME_ASC) == "abc"
    assert names(labels={label: "x"}) == "ab"
    assert names(labels={label: "x", "other": "z"}) == ""


@answers("ProjectService/DeleteProject")
@refuses("ProjectService/GetProject")
def test_an_empty_project_goes_when_it_is_meant(owner: Client, project_id: str) -> None:
    get = pb.GetProjectRequest(project_id=project_id)
    request = pb.DeleteProjectRequest(project_id=project_id, etag="another", validate_only=True)
    for request.validate_only in (True, False):
        assert refusal(owner.projects.DeleteProject, request).short == ("ABORTED", "STALE_ETAG")
    request.etag = owner.projects.GetProject(get).project.etag
    for request.validate_only in (True, False):
        assert owner.projects.GetProject(get).project.id == project_id
        assert owner.projects.DeleteProject(request).deleted == project_pb2.DeletedResources(projects=1)
    said = refusal(owner.projects.GetProject, get)
    assert (said.short, said.details["ResourceInfo"].resource_name) == (("NOT_FOUND", "NOT_FOUND"), project_id)


@pytest.mark.parametrize("broken", ["rubbish", "W10=", "other caller", "other filter"])
@refuses("ProjectService/ListProjects")
def test_a_page_token_of_elsewhere_is_refused(owner: Client, other: Client, broken: str) -> None:
    prefix = str(uuid4())
    for number in range(2):
        a_project_of(owner, f"{prefix}-{number}")
    request = pb.ListProjectsRequest(page_size=1, name_prefix=prefix)
    token = owner.projects.ListProjects(request).next_page_token
    request.page_token = token if broken.startswith("other") else broken
    if broken == "other filter":
        request.name_prefix = "another"
    caller = other if broken == "other caller" else owner
    said = refusal(caller.projects.ListProjects, request)
    assert (said.short, said.fields) == (("INVALID_ARGUMENT", "INVALID_PAGE_TOKEN"), ["page_token"])


@pytest.mark.parametrize("size", [-1, 1001])
def test_a_page_size_beyond_the_limits_is_named(owner: Client, size: int) -> None:
    said = refusal(owner.projects.ListProjects, pb.ListProjectsRequest(page_size=size))
    assert (said.short, said.fields) == (("INVALID_ARGUMENT", "INVALID_FIELD"), ["page_size"])


@refuses("ProjectService/SetMember", "ProjectService/RemoveMember")
def test_the_last_owner_stays(owner: Client, project_id: str) -> None:
    me = owner.auth.GetCurrentUser(auth_service_pb2.GetCurrentUserRequest()).user
    less = pb.SetMemberRequest(project_id=project_id, email=me.email, role=project_pb2.ROLE_EDITOR)
    gone = pb.RemoveMemberRequest(project_id=project_id, user_id=me.id)
    for call, request in ((owner.projects.SetMember, less), (owner.projects.RemoveMember, gone)):
        assert refusal(call, request).short == ("FAILED_PRECONDITION", "LAST_OWNER")


@refuses("ProjectService/DeleteProject")
def test_a_project_that_holds_something_is_deleted_with_force_only(owner: Client, world: World) -> None:
    request = pb.DeleteProjectRequest(project_id=world.project_id, validate_only=True)
    listed = owner.datasets.ListDatasets(dataset_service_pb2.ListDatasetsRequest(project_id=world.project_id))
    datasets = len(listed.datasets)
    said = refusal(owner.projects.DeleteProject, request)
    assert (said.short, said.metadata["datasets"]) == (("FAILED_PRECONDITION", "IN_USE"), str(datasets))
    request.force = True
    deleted = owner.projects.DeleteProject(request).deleted
    assert (deleted.projects, deleted.datasets, deleted.model_versions) == (1, datasets, 1)
    assert deleted.bytes_freed > 0
    assert owner.projects.GetProject(pb.GetProjectRequest(project_id=world.project_id)).project.id == world.project_id


def test_an_internal_project_is_read_by_everybody_and_changed_by_its_members(
    owner: Client, anonymous: Client, project_id: str
) -> None:
    config = project_pb2.ProjectConfig(project_id=project_id, visibility=project_pb2.PROJECT_VISIBILITY_INTERNAL)
    mask = FieldMask(paths=["visibility"])
    owner.projects.UpdateProjectConfig(pb.UpdateProjectConfigRequest(config=config, update_mask=mask))
    with Client(anonymous.address, register(anonymous).session.access_token) as reader:
        assert reader.projects.GetProject(pb.GetProjectRequest(project_id=project_id)).project.id == project_id
        update = pb.UpdateProjectRequest(project_id=project_id, update_mask=DESCRIPTION)
        assert refusal(reader.projects.UpdateProject, update).short == ("PERMISSION_DENIED", "ROLE_TOO_LOW")


def test_a_call_id_comes_back(owner: Client) -> None:
    metadata = (("x-request-id", "mine-1"),)
    _, call = owner.projects.ListProjects.with_call(pb.ListProjectsRequest(), metadata=metadata)
    assert ("x-request-id", "mine-1") in [tuple(pair) for pair in call.initial_metadata()]
    said = refusal(owner.projects.GetProject, pb.GetProjectRequest(project_id="none"), metadata=metadata)
    assert said.call_id == "mine-1"


def test_a_method_that_does_not_exist_is_said(owner: Client) -> None:
    said = refusal(owner.raw("/easyml.v1.ProjectService/Nothing"), b"")
    assert said.short == ("UNIMPLEMENTED", "UNKNOWN_METHOD")


def test_a_message_cut_anywhere_is_refused_and_tells_nothing_of_the_inside(owner: Client) -> None:
    whole = pb.CreateProjectRequest(name="x" * 255, labels={"a": "b"}, request_id="none").SerializeToString()
    call = owner.raw("/easyml.v1.ProjectService/CreateProject")
    for end in (*range(12), *range(len(whole) - 12, len(whole))):
        said = refusal(call, whole[:end])
        assert said.short in (("INVALID_ARGUMENT", "MALFORMED_MESSAGE"), ("INVALID_ARGUMENT", "INVALID_FIELD"))
