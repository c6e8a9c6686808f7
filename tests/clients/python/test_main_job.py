"""The main job, done with a client that was generated from the protos."""

import shutil
import subprocess
import unittest
import urllib.request

import grpc
from google.longrunning import operations_pb2, operations_pb2_grpc
from google.protobuf import duration_pb2
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from pavior.platform.v1 import platform_service_pb2, platform_service_pb2_grpc
from pavior.provisioning.v1 import (
    deployment_pb2,
    deployment_service_pb2,
    deployment_service_pb2_grpc,
    operation_pb2,
    operation_service_pb2,
    operation_service_pb2_grpc,
    pipeline_pb2,
    pipeline_service_pb2,
    pipeline_service_pb2_grpc,
    project_pb2,
    project_service_pb2,
    project_service_pb2_grpc,
)
from pavior.type.v1 import stream_pb2

from harness import System, request_id

ACME = "organizations/acme"
SYSTEM = None


def setUpModule():
    global SYSTEM
    SYSTEM = System()


def tearDownModule():
    SYSTEM.stop()


def details(error, kind):
    """The detail of a kind in an error; None when it has none."""
    for any_detail in rpc_status.from_call(error).details:
        message = kind()
        if any_detail.Unpack(message):
            return message
    return None


def reason(error):
    """The reason that an error's ErrorInfo gives."""
    return details(error, error_details_pb2.ErrorInfo).reason


def project(project_id, **changes):
    """A request for a project in Python."""
    request = project_service_pb2.CreateProjectRequest(
        parent=ACME,
        project_id=project_id,
        project=project_pb2.Project(
            owner=f"{ACME}/groups/storefront",
            template_version=f"{ACME}/templates/web-service/versions/stable",
        ),
        request_id=request_id(),
    )
    request.project.parameters.update({"language": "python", **changes})
    return request


class Person:
    """The services, as one person calls them."""

    def __init__(self, name=None):
        channel = SYSTEM.channel(name)
        self.projects = project_service_pb2_grpc.ProjectServiceStub(channel)
        self.pipelines = pipeline_service_pb2_grpc.PipelineServiceStub(channel)
        self.deployments = deployment_service_pb2_grpc.DeploymentServiceStub(channel)
        self.operation_service = operation_service_pb2_grpc.OperationServiceStub(channel)
        self.platform = platform_service_pb2_grpc.PlatformServiceStub(channel)
        self.operations = operations_pb2_grpc.OperationsStub(channel)

    def finish(self, operation):
        """Waits until an operation is done, and returns it. One that is stuck waits for an operator."""
        while not operation.done:
            metadata = operation_pb2.OperationMetadata()
            operation.metadata.Unpack(metadata)
            if metadata.state == operation_pb2.OperationMetadata.STATE_STUCK:
                raise RuntimeError(metadata.error.message)
            operation = self.operations.WaitOperation(
                operations_pb2.WaitOperationRequest(name=operation.name, timeout=duration_pb2.Duration(seconds=20)),
                timeout=60,
            )
        return operation


class MainJob(unittest.TestCase):
    def test_a_developer_asks_and_gets_it_running(self):
        alice = Person("alice")
        plan = project("python-job")
        plan.validate_only = True
        metadata = operation_pb2.OperationMetadata()
        self.assertTrue(alice.projects.CreateProject(plan, timeout=30).metadata.Unpack(metadata))
        self.assertTrue(metadata.validated_plan.digest)
        self.assertIn("repository", [change.step_id for change in metadata.validated_plan.changes])

        operation = alice.finish(alice.projects.CreateProject(project("python-job"), timeout=30))
        self.assertEqual(operation.WhichOneof("result"), "response", operation.error.message)
        name = f"{ACME}/projects/python-job"
        environment = alice.projects.GetEnvironment(
            project_service_pb2.GetEnvironmentRequest(name=f"{name}/environments/development"), timeout=10
        )
        with urllib.request.urlopen(environment.endpoints[0].url, timeout=10) as answer:
            page = answer.read().decode()
        self.assertIn("name: python-job", page)
        self.assertIn("visits: 1", page)

        run = alice.finish(
            alice.pipelines.RunPipeline(
                pipeline_service_pb2.RunPipelineRequest(
                    name=f"{name}/pipelines/pipeline", request_id=request_id()
                ),
                timeout=30,
            )
        )
        made = pipeline_pb2.Run()
        self.assertTrue(run.response.Unpack(made))
        self.assertEqual(made.state, pipeline_pb2.Run.STATE_SUCCEEDED)
        deployed = alice.finish(
            alice.deployments.CreateDeployment(
                deployment_service_pb2.CreateDeploymentRequest(
                    parent=environment.name,
                    deployment=deployment_pb2.Deployment(source_run=made.name),
                    request_id=request_id(),
                ),
                timeout=30,
            )
        )
        self.assertEqual(deployed.WhichOneof("result"), "response", deployed.error.message)
        overview = alice.platform.GetProjectOverview(
            platform_service_pb2.GetProjectOverviewRequest(name=f"{name}/overview"), timeout=10
        )
        self.assertEqual([e.name for e in overview.environments], [environment.name])
        self.assertFalse(overview.HasField("unavailable_fields"))

    def test_a_watch_resumes_where_it_broke_off(self):
        alice = Person("alice")
        operation = alice.projects.CreateProject(project("python-watch"), timeout=30)
        alice.finish(operation)

        def watch(token=""):
            start = stream_pb2.StreamStart(resume_token=token) if token else None
            request = operation_service_pb2.WatchOperationRequest(name=operation.name, start=start)
            return [r for r in alice.operation_service.WatchOperation(request, timeout=30) if not r.HasField("bookmark")]

        whole = watch()
        self.assertGreater(len(whole), 10)
        # The last one has what came of the operation.
        self.assertEqual(whole[-1].operation.WhichOneof("result"), "response")
        middle = len(whole) // 2
        rest = watch(whole[middle].resume_token)
        self.assertEqual([r.resume_token for r in rest], [r.resume_token for r in whole[middle + 1 :]])


class Refusals(unittest.TestCase):
    def assert_refused(self, code, call):
        with self.assertRaises(grpc.RpcError) as caught:
            call()
        self.assertEqual(caught.exception.code(), code, caught.exception.details())
        return caught.exception

    def test_without_a_token_nobody_gets_in(self):
        request = project_service_pb2.ListProjectsRequest(parent=ACME)
        error = self.assert_refused(
            grpc.StatusCode.UNAUTHENTICATED, lambda: Person().projects.ListProjects(request, timeout=10)
        )
        self.assertEqual(reason(error), "UNAUTHENTICATED")

    def test_an_auditor_creates_nothing(self):
        error = self.assert_refused(
            grpc.StatusCode.PERMISSION_DENIED,
            lambda: Person("vera").projects.CreateProject(project("not-hers"), timeout=10),
        )
        info = details(error, error_details_pb2.ErrorInfo)
        self.assertEqual(info.reason, "ACCESS_DENIED")
        self.assertTrue(info.metadata["decision"])

    def test_a_wrong_parameter_is_named_by_its_path(self):
        error = self.assert_refused(
            grpc.StatusCode.INVALID_ARGUMENT,
            lambda: Person("alice").projects.CreateProject(project("wrong", language="cobol"), timeout=10),
        )
        fields = [v.field for v in details(error, error_details_pb2.BadRequest).field_violations]
        self.assertIn("project.parameters.language", fields)

    def test_a_request_id_gives_the_same_operation_and_no_other(self):
        alice = Person("alice")
        request = project("python-once")
        first = alice.projects.CreateProject(request, timeout=30)
        second = alice.projects.CreateProject(request, timeout=30)
        self.assertEqual(first.name, second.name)
        other = project("python-twice")
        other.request_id = request.request_id
        error = self.assert_refused(
            grpc.StatusCode.INVALID_ARGUMENT, lambda: alice.projects.CreateProject(other, timeout=10)
        )
        self.assertEqual(reason(error), "REQUEST_ID_REUSED")
        alice.finish(first)


class Grpcurl(unittest.TestCase):
    """What an operator does who has nothing but grpcurl."""

    def grpcurl(self, *arguments, person=None, check=True):
        headers = [] if person is None else ["-H", f"authorization: Bearer {SYSTEM.token(person)}"]
        flags = [a for a in arguments if a.startswith("-")]
        self.assertEqual(flags, [], "flags are given by this method")
        command = [shutil.which("grpcurl"), "-plaintext", *headers, SYSTEM.address, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=check)

    def test_services_are_listed_and_described(self):
        listed = self.grpcurl("list").stdout.split()
        for service in (
            "google.longrunning.Operations",
            "grpc.health.v1.Health",
            "pavior.audit.v1.AuditService",
            "pavior.catalog.v1.CatalogService",
            "pavior.platform.v1.PlatformService",
            "pavior.identity.v1.IdentityService",
            "pavior.policy.v1.ApprovalService",
            "pavior.provisioning.v1.ProjectService",
        ):
            self.assertIn(service, listed)
        self.assertFalse([service for service in listed if ".internal." in service])
        described = self.grpcurl("describe", "pavior.provisioning.v1.CreateEnvironmentRequest").stdout
        self.assertIn("validate_only", described)
        self.assertIn("// ", described, "the comments are served")

    def test_health_is_open_and_serving(self):
        self.assertIn("SERVING", self.grpcurl("grpc.health.v1.Health/Check").stdout)

    def test_a_call_needs_a_token(self):
        method = "pavior.platform.v1.PlatformService/WhoAmI"
        refused = self.grpcurl(method, check=False)
        self.assertNotEqual(refused.returncode, 0)
        self.assertIn("Unauthenticated", refused.stderr)
        self.assertIn("organizations/acme/users/alice", self.grpcurl(method, person="alice").stdout)


if __name__ == "__main__":
    unittest.main()
