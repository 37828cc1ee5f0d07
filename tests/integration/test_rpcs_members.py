"""Who belongs to a project, and what that lets them do."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import uuid4

import pytest

from easyml.v1 import auth_service_pb2, project_pb2
from easyml.v1 import project_service_pb2 as pb
from tests.builders import register
from tests.marks import answers, refuses
from tests.servers import Client, refusal

ROLES = project_pb2.Role


@pytest.fixture
def account(anonymous: Client) -> auth_service_pb2.RegisterResponse:
    return register(anonymous)


@pytest.fixture
def member(anonymous: Client, account: auth_service_pb2.RegisterResponse) -> Iterator[Client]:
    with Client(anonymous.address, account.session.access_token) as client:
        yield client


def members(client: Client, project_id: str, **page: object) -> list[project_pb2.ProjectMember]:
    return list(client.projects.ListMembers(pb.ListMembersRequest(project_id=project_id, **page)).members)  # type: ignore[arg-type]  # fields of a page


@answers("ProjectService/SetMember", "ProjectService/ListMembers", "ProjectService/RemoveMember")
def test_a_member_may_do_what_the_role_says_as_long_as_it_lasts(
    owner: Client, member: Client, account: auth_service_pb2.RegisterResponse, project_id: str
) -> None:
    user = account.user
    get = pb.GetProjectRequest(project_id=project_id)
    assert refusal(member.projects.GetProject, get).short == ("NOT_FOUND", "NOT_FOUND")
    for role in (ROLES.ROLE_VIEWER, ROLES.ROLE_OWNER, ROLES.ROLE_EDITOR):
        request = pb.SetMemberRequest(project_id=project_id, email=user.email.upper(), role=role)
        said = owner.projects.SetMember(request).member
        assert (said.user_id, said.email, said.role) == (user.id, user.email, role)
        assert said.display_name == user.display_name
        assert member.projects.GetProject(get).project.role == role
        first, second = members(owner, project_id)
        assert (first.role, second) == (ROLES.ROLE_OWNER, said)
    owner.projects.RemoveMember(pb.RemoveMemberRequest(project_id=project_id, user_id=user.id))
    assert len(members(owner, project_id)) == 1
    assert refusal(member.projects.GetProject, get).short == ("NOT_FOUND", "NOT_FOUND")


def test_an_owner_may_leave_when_another_is_there(
    owner: Client, member: Client, account: auth_service_pb2.RegisterResponse, project_id: str
) -> None:
    me = owner.auth.GetCurrentUser(auth_service_pb2.GetCurrentUserRequest()).user
    to_owner = pb.SetMemberRequest(project_id=project_id, email=account.user.email, role=ROLES.ROLE_OWNER)
    owner.projects.SetMember(to_owner)
    member.projects.RemoveMember(pb.RemoveMemberRequest(project_id=project_id, user_id=me.id))
    assert [each.user_id for each in members(member, project_id)] == [account.user.id]
    leave = pb.RemoveMemberRequest(project_id=project_id, user_id=account.user.id)
    assert refusal(member.projects.RemoveMember, leave).short == ("FAILED_PRECONDITION", "LAST_OWNER")


@refuses("ProjectService/SetMember", "ProjectService/RemoveMember")
def test_who_has_no_account_is_no_member(owner: Client, project_id: str) -> None:
    email = f"{uuid4()}@example.org"
    said = refusal(
        owner.projects.SetMember,
        pb.SetMemberRequest(project_id=project_id, email=email, role=ROLES.ROLE_VIEWER),
    )
    assert said.short == ("NOT_FOUND", "NOT_FOUND")
    resource = said.details["ResourceInfo"]
    assert (resource.resource_type, resource.resource_name) == ("user", email)
    said = refusal(owner.projects.RemoveMember, pb.RemoveMemberRequest(project_id=project_id, user_id=str(uuid4())))
    assert (said.short, said.details["ResourceInfo"].resource_type) == (("NOT_FOUND", "NOT_FOUND"), "member")


@pytest.mark.parametrize("role", [0, 4, -1])
def test_a_role_that_is_none_is_named(owner: Client, project_id: str, role: int) -> None:
    request = pb.SetMemberRequest(project_id=project_id, email="a@example.org", role=role)  # type: ignore[arg-type]  # on purpose
    said = refusal(owner.projects.SetMember, request)
    assert (said.short, said.fields) == (("INVALID_ARGUMENT", "INVALID_FIELD"), ["role"])


@refuses("ProjectService/ListMembers")
def test_members_come_oldest_first_in_pages(owner: Client, anonymous: Client, project_id: str) -> None:
    emails = [register(anonymous).user.email for _ in range(3)]
    for email in emails:
        owner.projects.SetMember(pb.SetMemberRequest(project_id=project_id, email=email, role=ROLES.ROLE_VIEWER))
    request, pages = pb.ListMembersRequest(project_id=project_id, page_size=2), []
    while True:
        page = owner.projects.ListMembers(request)
        pages.append(list(page.members))
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token
    assert [len(page) for page in pages] == [2, 2]
    assert [each.email for page in pages for each in page][1:] == emails
    request.page_token += "x"
    said = refusal(owner.projects.ListMembers, request)
    assert (said.short, said.fields) == (("INVALID_ARGUMENT", "INVALID_PAGE_TOKEN"), ["page_token"])
