"""Bad input to every public method, made from the descriptors: none may answer INTERNAL, UNKNOWN, or an error without
its details. What is asserted of single mistakes (which code, which field) stands in the tests of the services."""

import concurrent.futures
import importlib
import pathlib
import re
import unittest
import uuid

import grpc
from google.api import field_behavior_pb2, resource_pb2
from google.longrunning import operations_pb2, operations_pb2_grpc
from google.protobuf import descriptor_pool, duration_pb2, message_factory, struct_pb2
from google.protobuf.descriptor import FieldDescriptor
from google.rpc import error_details_pb2, status_pb2
from pavior.platform.v1 import platform_service_pb2, platform_service_pb2_grpc
from pavior.provisioning.v1 import project_service_pb2_grpc
from pavior.type.v1 import error_reason_pb2

import test_main_job
from harness import System

ACME = "organizations/acme"
# Every service that is published; whatever an installation does not serve is refused like anything that does not exist.
SERVICES = [
    service.full_name
    for module in sorted(pathlib.Path(platform_service_pb2.__file__).parents[2].glob("*/v1/*_service_pb2.py"))
    for service in importlib.import_module(f"pavior.{module.parts[-3]}.v1.{module.stem}").DESCRIPTOR.services_by_name.values()
    if module.parts[-3] != "driver"
] + ["google.longrunning.Operations"]
# Creations that go through to the database; everything else is only checked, so that one bad request does not stand
# in the way of the next ones.
WRITTEN = "Create(Group|User|Kind|Entity|Template|ResourceType|Role|Policy)"
THREADS = 8
SYSTEM = None


def setUpModule():
    global SYSTEM
    SYSTEM = System()


def tearDownModule():
    SYSTEM.stop()


def message_class(descriptor):
    return message_factory.GetMessageClass(descriptor)


def option(descriptor, extension):
    """An option of a descriptor; None when it has none."""
    options = descriptor.GetOptions()
    return options.Extensions[extension] if options.HasExtension(extension) else None


def is_map(field):
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def varint(number):
    encoded = b""
    while number > 127:
        encoded += bytes([number & 127 | 128])
        number >>= 7
    return encoded + bytes([number])


def framed(number, value):
    """A length-delimited field as it is on the wire."""
    return varint(number << 3 | 2) + varint(len(value)) + value


def deep_struct(levels):
    """A `google.protobuf.Struct` that libraries refuse to build."""
    value = b"\x1a\x01x"
    for _ in range(levels):
        value = framed(6, framed(1, value))
    return framed(1, framed(1, b"k") + framed(2, value))


def texts(field, present):
    """What no text field may fall over."""
    yield from ["", "x" * 20_000, "a\0b", "\u202eü😀", "${{ 1 }}", "../..", "-"]
    if present.startswith("organizations/"):
        head, last = present.rsplit("/", 1)
        yield from [f"{present}/", present.replace("/", "//", 1), f"{head}/-", f"{head}/*", f"{head}/../{last}"]
        yield from [present.replace("acme", "other", 1), "organizations/-", f"{ACME}/nonsense/x", f"{present}\n"]
    elif field.name == "filter":
        yield from ["(" * 1_000, "NOT " * 500 + "a", "a = ", '"', "labels.x:*", "x" * 3_000, "create_time > 5"]
    elif field.name == "order_by":
        yield from ["nope", "name desc desc", "," * 5_000, "name, name"]
    elif field.name.endswith("_token"):
        yield from ["AAAA", "A" * 5_000]
    elif field.name == "request_id":
        yield from ["nonsense", "00000000-0000-0000-0000-000000000000"]
    elif field.name in ("document", "content"):
        bomb = "".join(f"{b}: &{b} [{','.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi"))
        yield from ["[" * 10_000, "a: &a [x]\n" + bomb, "a: &a [*a]", "a: 1\n---\nb: 2", "\t"]
    elif field.name == "source":
        forbid = "forbid(principal, action, resource)"
        yield from [f"{forbid} when {{ {'(' * 300}true{')' * 300} }};", "!" * 9_000, f"{forbid};" * 300]


NUMBERS = {
    FieldDescriptor.TYPE_INT32: [-1, -(2**31), 2**31 - 1],
    FieldDescriptor.TYPE_INT64: [-1, -(2**63), 2**63 - 1],
    FieldDescriptor.TYPE_ENUM: [99, -1],
    FieldDescriptor.TYPE_BOOL: [True],
}


def messages(field):
    """Bad values of a message field, encoded."""
    kind = field.message_type.full_name
    yield b""
    if kind == "google.protobuf.FieldMask":
        # The mask of an update stands beside what it updates, in a request of its own or in the intent of a plan; that of
        # a read stands alone, and all that can be read in part has a name.
        beside = (one for one in field.containing_type.fields if one.message_type and one is not field)
        first = next((one.message_type.fields[0].name for one in beside), "name").encode()
        for paths in ([b"nope"] * 2_000, [b"*", b"*"], [first, first], [b"a..b", b"`", b""], [b"x" * 100_000]):
            yield b"".join(framed(1, path) for path in paths)
    elif kind == "google.protobuf.Struct":
        yield from [deep_struct(40), deep_struct(10_000)]
        for key, value in [(b"\xff", b""), (b"k", b""), (b"k" * 100_000, framed(3, b"x")), (b"a\0", framed(3, b"\0"))]:
            yield framed(1, framed(1, key) + framed(2, value))
        strange = struct_pb2.Struct()
        strange.update({"": {}, "$ref": "#", "type": 7, "pattern": "(", "nan": float("nan"), "path": "${{ (((" * 999})
        yield strange.SerializeToString()
    elif kind in ("google.protobuf.Timestamp", "google.protobuf.Duration"):
        for seconds, nanos in [(-(2**63), 0), (2**63 - 1, 2**31 - 1), (0, -1), (-1, 0), (253402300800, 0)]:
            yield duration_pb2.Duration(seconds=seconds, nanos=nanos).SerializeToString()


def mutations(message, depth=0):
    """Pairs of what is wrong and the encoded message with one bad field."""
    for field in message.DESCRIPTOR.fields:
        behavior = field.GetOptions().Extensions[field_behavior_pb2.field_behavior]
        if field_behavior_pb2.OUTPUT_ONLY in behavior:
            continue
        rest = message_class(message.DESCRIPTOR)()
        rest.CopyFrom(message)
        rest.ClearField(field.name)
        rest = rest.SerializeToString()
        for label, encoded in values(field, message, depth):
            yield f"{field.name} {label}", rest + encoded


def values(field, message, depth):
    """Pairs of what is wrong and the encoded bad field."""
    present = getattr(message, field.name)
    if is_map(field):
        if field.message_type.fields_by_name["value"].type == FieldDescriptor.TYPE_STRING:
            for label, key, value in [("NUL", b"a\0", b"\0"), ("long key", b"k" * 100_000, b"v"), ("no key", b"", b"")]:
                yield label, framed(field.number, framed(1, key) + framed(2, value))
            yield "too many", b"".join(framed(field.number, framed(1, b"k%d" % n)) for n in range(10_001))
    elif field.type == FieldDescriptor.TYPE_STRING:
        one = (present[0] if present else "") if field.is_repeated else present
        for text in texts(field, one):
            yield f"= {text[:30]!r}", framed(field.number, text.encode())
        yield "not UTF-8", framed(field.number, b"\xff")
        yield "as a number", varint(field.number << 3) + b"\x01"
        if field.is_repeated:
            yield "too many", framed(field.number, b"x") * 10_001
            yield "twice", framed(field.number, one.encode()) * 2
    elif field.type in NUMBERS and not field.is_repeated:
        for number in NUMBERS[field.type]:
            yield f"= {number}", varint(field.number << 3) + varint(number & (2**64 - 1))
    elif field.type == FieldDescriptor.TYPE_MESSAGE:
        for count, encoded in enumerate(messages(field)):
            yield f"bad {count}", framed(field.number, encoded)
        if field.is_repeated:
            yield "too many", framed(field.number, b"") * 10_001
        if depth < 3 and not field.message_type.full_name.startswith("google."):
            inner = (present[0] if present else message_class(field.message_type)()) if field.is_repeated else present
            for label, encoded in mutations(inner, depth + 1):
                yield label, framed(field.number, encoded)


class Known:
    """What there is, by resource type, found by listing."""

    def __init__(self, call, operation):
        self.objects = {}
        self.operation = operation
        lists = {}
        for service, method in methods():
            parent = method.input_type.fields_by_name.get("parent")
            reference = parent and option(parent, resource_pb2.resource_reference)
            if method.name.startswith("List") and reference and reference.child_type:
                lists[reference.child_type] = (f"/{service}/{method.name}", method)
        parents = {ACME, f"{ACME}/projects/hello", f"{ACME}/kinds/component", f"{ACME}/templates/web-service"}
        parents |= {f"{ACME}/projects/hello/environments/development", f"{ACME}/projects/hello/pipelines/pipeline"}
        for kind, (path, method) in lists.items():
            for parent in sorted(parents):
                code, _, answer = call(path, message_class(method.input_type)(parent=parent).SerializeToString())
                listed = message_class(method.output_type).FromString(answer) if code == "OK" else None
                found = getattr(listed, method.output_type.fields[0].name) if listed else []
                if len(found) > 0:
                    self.objects.setdefault(kind, found[0])

    def request(self, method):
        """A request of the method that is good, or nearly so."""
        request = message_class(method.input_type)()
        for field in method.input_type.fields:
            reference = option(field, resource_pb2.resource_reference)
            resource = field.message_type and option(field.message_type, resource_pb2.resource)
            if resource and resource.type in self.objects and not field.is_repeated:
                getattr(request, field.name).CopyFrom(self.objects[resource.type])
            elif field.type != FieldDescriptor.TYPE_STRING or field.is_repeated:
                continue
            elif reference and reference.type in self.objects:
                setattr(request, field.name, self.objects[reference.type].name)
            elif reference and reference.child_type in self.objects:
                setattr(request, field.name, self.objects[reference.child_type].name.rsplit("/", 2)[0])
            elif field.name == "name" and "Operation" in method.name:
                request.name = ACME if method.name == "ListOperations" else self.operation
            elif field.name in ("parent", "name", "resource"):
                setattr(request, field.name, ACME if field.name == "parent" else f"{ACME}/projects/hello")
            elif field.name == "document":
                request.document = self.objects["catalog.pavior.dev/TemplateVersion"].document
        if "validate_only" in method.input_type.fields_by_name:
            request.validate_only = re.fullmatch(WRITTEN, method.name) is None
        return request


def methods():
    """Every method that might be public."""
    pool = descriptor_pool.Default()
    for service in SERVICES:
        for method in pool.FindServiceByName(service).methods:
            yield service, method


def codes():
    """The code of each reason, as the API documents it."""
    proto = pathlib.Path(__file__).parents[3] / "proto/pavior/type/v1/error_reason.proto"
    pattern = r"// ([A-Z_]+): (?:(?!ERROR_REASON_).)*ERROR_REASON_([A-Z_]+) ="
    return {reason: code for code, reason in re.findall(pattern, proto.read_text(encoding="utf-8"), re.DOTALL)}


class BadInput(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.codes = codes()
        cls.channels = {person: SYSTEM.channel(person) for person in ("alice", "pia", "operator")}
        projects = project_service_pb2_grpc.ProjectServiceStub(cls.channels["alice"])
        cls.operation = projects.CreateProject(test_main_job.project("hello"), timeout=10).name
        wait = operations_pb2.WaitOperationRequest(name=cls.operation, timeout=duration_pb2.Duration(seconds=30))
        assert operations_pb2_grpc.OperationsStub(cls.channels["alice"]).WaitOperation(wait, timeout=35).done

    def call(self, path, request, person="pia", stream=False):
        """Code, the encoded `google.rpc.Status`, and the answer or message."""
        channel, same = self.channels[person], lambda encoded: encoded
        try:
            if not stream:
                return "OK", b"", channel.unary_unary(path, same, same)(request, timeout=20)
            # One message is enough; a stream that waits for something new is well.
            answers = channel.unary_stream(path, same, same)(request, timeout=1)
            next(iter(answers), None)
            answers.cancel()
        except grpc.RpcError as error:
            if stream and error.code() == grpc.StatusCode.DEADLINE_EXCEEDED:
                return "OK", b"", b""
            details = dict(error.trailing_metadata() or []).get("grpc-status-details-bin", b"")
            return error.code().name, details, error.details()
        return "OK", b"", b""

    def complaint(self, code, details):
        """What is wrong with an answer; None when nothing is."""
        if code == "OK":
            return None
        infos, requests = [], []
        for detail in status_pb2.Status.FromString(details).details:
            for kind, found in ((error_details_pb2.ErrorInfo, infos), (error_details_pb2.BadRequest, requests)):
                if detail.Is(kind.DESCRIPTOR):
                    found.append(kind.FromString(detail.value))
        if code in ("INTERNAL", "UNKNOWN", "DATA_LOSS", "UNAVAILABLE", "DEADLINE_EXCEEDED"):
            return "is nobody's fault but ours"
        if len(infos) != 1 or infos[0].domain != "pavior.dev":
            return f"has {len(infos)} ErrorInfo"
        reason = infos[0].reason
        if f"ERROR_REASON_{reason}" not in error_reason_pb2.ErrorReason.keys():
            return f"has the unknown reason {reason}"
        if reason == "INVALID_FIELD" and not any(request.field_violations for request in requests):
            return "names no field"
        # An index past the end of a log is the one malformed field that may be good later.
        if self.codes.get(reason) != code and (code, reason) != ("OUT_OF_RANGE", "INVALID_FIELD"):
            return f"has the reason {reason}"
        return None

    def corpus(self):
        """Path, person, whether it streams, what is wrong, and the encoded request."""
        known = Known(self.call, self.operation)
        for service, method in methods():
            path = f"/{service}/{method.name}"
            person = "operator" if "Organization" in method.name else "pia"
            good = known.request(method)
            plain = [("nothing", b""), ("garbage", b"\xff\xff\xff"), ("a group", b"\x0b\x0c")]
            if "validate_only" in method.input_type.fields_by_name or method.name.startswith(("Get", "List")):
                plain.append(("an unknown field", good.SerializeToString() + framed(1_000, b"x")))
            # What is not public is refused whatever it is asked.
            public = self.call(path, b"", person, method.server_streaming)[0] != "UNIMPLEMENTED"
            bad = mutations(good) if public else []
            fresh = next((f for f in method.input_type.fields if re.fullmatch(r"(?!request).*_id", f.name)), None)
            for label, encoded in [*plain, *bad]:
                if fresh and not label.startswith(fresh.name) and label != "nothing":
                    encoded += framed(fresh.number, f"bad-{uuid.uuid4().hex[:12]}".encode())
                yield path, person, method.server_streaming, label, encoded

    def test_no_request_gets_an_error_of_ours(self):
        def one(case):
            path, person, stream, label, encoded = case
            code, details, message = self.call(path, encoded, person, stream)
            complaint = self.complaint(code, details)
            return complaint and f"{path} with {label}: {code} {complaint}: {message[:200]}"

        cases = list(self.corpus())
        self.assertGreater(len(cases), 1_000)
        with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
            complaints = [complaint for complaint in pool.map(one, cases) if complaint]
        self.assertFalse(complaints, f"{len(complaints)} of {len(cases)}, among them:\n" + "\n".join(complaints[:20]))
        stub = platform_service_pb2_grpc.PlatformServiceStub(self.channels["alice"])
        self.assertEqual(stub.WhoAmI(platform_service_pb2.WhoAmIRequest(), timeout=10).principal.subject, "alice")
