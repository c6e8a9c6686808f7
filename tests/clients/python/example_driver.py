"""A driver in Python: an example to start from, and the proof that the contract needs no Rust.

It serves `pavior.driver.v1.DriverService` with one resource type, `text-file`: a file with a given content below a
folder. The folder also keeps what the driver has to remember, so that it can be killed at any time and started again:
which idempotency key made what, and the highest fence seen for each resource.

    python example_driver.py --root /tmp/files [--port 7450]

needs `grpcio` and `grpcio-tools`; the stubs are generated at start from the protos of this repository. It prints
`listening on 127.0.0.1:<port>` when it is ready, and ends when its standard input is closed.
"""

import argparse
import concurrent.futures
import contextlib
import hashlib
import json
import os
import pathlib
import re
import sys
import tempfile
import threading
import uuid

import grpc
import grpc_tools.protoc

REPOSITORY = pathlib.Path(__file__).resolve().parents[3]
REVISION = 1
VERSION = "1.0.0"
RESOURCE_TYPE = "text-file"


def generate_stubs(folder):
    """Compiles the protos of the contract into `folder` and makes them importable."""
    protos = REPOSITORY / "proto"
    third_party = protos / "third_party"
    files = sorted((protos / "pavior/driver/v1").glob("*.proto"))
    files += [protos / "pavior/governance/v1/governance.proto", "google/api/http.proto"]
    well_known = pathlib.Path(grpc_tools.__file__).parent / "_proto"
    arguments = ["protoc", f"-I{protos}", f"-I{third_party}", f"-I{well_known}"]
    arguments += [f"--python_out={folder}", f"--grpc_python_out={folder}"]
    if grpc_tools.protoc.main([*arguments, *map(str, files)]) != 0:
        raise SystemExit("the protos do not compile")
    sys.path.insert(0, str(folder))


_stubs = tempfile.TemporaryDirectory()
generate_stubs(_stubs.name)

from pavior.driver.v1 import call_pb2 as call  # noqa: E402
from pavior.driver.v1 import driver_service_pb2 as api  # noqa: E402
from pavior.driver.v1 import driver_service_pb2_grpc as service  # noqa: E402
from pavior.driver.v1 import schema_pb2 as schema  # noqa: E402
from pavior.driver.v1 import value_pb2 as values  # noqa: E402


# --- Values -------------------------------------------------------------------------------------------------------


def to_python(value):
    """A value of the wire as plain Python; what is not known yet and secret references stay one-key dictionaries."""
    kind = value.WhichOneof("kind")
    if kind in (None, "null_value"):
        return None
    if kind == "list_value":
        return [to_python(item) for item in value.list_value.values]
    if kind == "map_value":
        return {member.key: to_python(member.value) for member in value.map_value.members}
    if kind == "secret_value":
        return value.secret_value.text
    if kind == "secret_reference":
        return {"$secret": value.secret_reference}
    if kind == "unknown_value":
        return {"$unknown": value.unknown_value}
    return getattr(value, kind)


def to_wire(value):
    """Plain Python as a value of the wire. There is no way to send a secret with it: those have fields of their own."""
    if value is None:
        return values.Value(null_value=0)
    if isinstance(value, bool):
        return values.Value(bool_value=value)
    if isinstance(value, int):
        return values.Value(int_value=value) if value < 2**63 else values.Value(uint_value=value)
    if isinstance(value, float):
        return values.Value(double_value=value)
    if isinstance(value, str):
        return values.Value(string_value=value)
    if isinstance(value, list):
        return values.Value(list_value=values.ListValue(values=[to_wire(item) for item in value]))
    if value.keys() == {"$unknown"}:
        return values.Value(unknown_value=value["$unknown"])
    if value.keys() == {"$secret"}:
        return values.Value(secret_reference=value["$secret"])
    members = [values.Member(key=key, value=to_wire(item)) for key, item in value.items()]
    return values.Value(map_value=values.MapValue(members=members))


def is_marker(value):
    return isinstance(value, dict) and len(value) == 1 and next(iter(value)) in ("$unknown", "$secret")


# --- The resource type --------------------------------------------------------------------------------------------

TYPE = schema.TypeSchema(
    resource_type_id=RESOURCE_TYPE,
    input_schema_json=json.dumps(
        {
            "type": "object",
            "additionalProperties": False,
            "required": ["path", "content"],
            "properties": {
                "path": {"type": "string", "description": "relative to the driver's folder"},
                "content": {"type": "string"},
                "delay_ms": {"type": "integer", "minimum": 0, "default": 0, "description": "waits before it writes"},
            },
        }
    ),
    output_schema_json=json.dumps(
        {"type": "object", "properties": {"path": {"type": "string"}, "size": {"type": "integer"}}}
    ),
    immutable_fields=["/path"],
    undo=schema.UNDO_DESTROY,
)
SCHEMA_DIGEST = "sha256:" + hashlib.sha256(TYPE.SerializeToString(deterministic=True)).hexdigest()


def check(inputs):
    """Normalised inputs, and what is wrong with them as (JSON Pointer, message)."""
    if not isinstance(inputs, dict):
        return None, [("", "inputs must be an object")]
    wrong = [(key, "is not an input") for key in inputs if key not in ("path", "content", "delay_ms")]
    for key, kind, name in (("path", str, "a text"), ("content", str, "a text"), ("delay_ms", int, "a number")):
        value = inputs.get(key, 0 if key == "delay_ms" else None)
        if value is None:
            wrong.append((key, "is missing"))
        elif not is_marker(value) and (not isinstance(value, kind) or isinstance(value, bool)):
            wrong.append((key, f"must be {name}"))
    path = inputs.get("path")
    if isinstance(path, str) and (not path or path.startswith(".") or ".." in path.split("/") or "\0" in path or path.startswith("/")):
        wrong.append(("path", "must stay below the driver's folder"))
    return {"delay_ms": 0, **inputs}, [(pointer(key), message) for key, message in wrong]


def pointer(key):
    """The JSON Pointer (RFC 6901) of an input."""
    return "/" + key.replace("~", "~0").replace("/", "~1")


class Refused(Exception):
    """A failure that is known to have had no effect."""

    def __init__(self, code, message):
        super().__init__(message)
        self.failure = call.Failure(code=code, message=message, retryable=code == call.FAILURE_CODE_UNAVAILABLE)


class Store:
    """What the driver remembers: one JSON file, replaced as a whole. The intent is written before the effect, so that
    after a crash a key still leads to what it made."""

    def __init__(self, root):
        self.root = pathlib.Path(root)
        self.root.mkdir(parents=True, exist_ok=True)
        self.file = self.root / ".driver-state.json"
        self.lock = threading.Lock()
        empty = {"fences": {}, "keys": {}, "files": {}}
        self.data = json.loads(self.file.read_text()) if self.file.exists() else empty

    def save(self):
        self.replace(self.file, json.dumps(self.data))

    @staticmethod
    def replace(path, text):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
        with open(temporary, "w", encoding="utf-8", newline="") as out:
            out.write(text)
            out.flush()
            os.fsync(out.fileno())
        os.replace(temporary, path)

    def fence(self, context):
        """Refuses a claim that is not the latest."""
        seen = self.data["fences"].get(context.resource, context.fence)
        if context.fence < seen:
            raise Refused(call.FAILURE_CODE_FENCED, f"fence {seen} was seen already")
        if self.data["fences"].get(context.resource) != context.fence:
            self.data["fences"][context.resource] = context.fence
            self.save()

    def find(self, lookup):
        """The identity, if it was ever made."""
        if lookup.WhichOneof("by") == "identity":
            identity = lookup.identity
        else:
            identity = self.data["keys"].get(lookup.idempotency_key, {}).get("identity")
        return identity if identity in self.data["files"] else None

    def apply(self, request, inputs):
        """Makes or changes a file; the same key twice is once."""
        context, prior = request.context, request.prior.identity
        digest = hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()
        known = self.data["keys"].get(context.idempotency_key)
        if known and known["inputs"] != digest:
            raise Refused(call.FAILURE_CODE_INVALID_ARGUMENT, "the idempotency key was used with other inputs")
        identity = known["identity"] if known else prior or uuid.uuid4().hex
        record = self.data["files"].get(identity)
        path = self.root / inputs["path"]
        if record and record["path"] != inputs["path"]:
            raise Refused(call.FAILURE_CODE_UNSUPPORTED, "`path` cannot be changed in place")
        if not record and path.exists():
            raise Refused(call.FAILURE_CODE_CONFLICT, f"`{inputs['path']}` exists already and is not ours")
        content = inputs["content"].encode()
        self.data["keys"][context.idempotency_key] = {"identity": identity, "inputs": digest}
        made_by = record["made_by"] if record else context.idempotency_key
        self.data["files"][identity] = {
            "path": inputs["path"],
            "size": len(content),
            "sha256": hashlib.sha256(content).hexdigest(),
            "organization_id": context.organization_id,
            "resource": context.resource,
            "made_by": made_by,
        }
        self.save()
        self.replace(path, inputs["content"])
        return self.resource(identity)

    def destroy(self, lookup):
        identity = self.find(lookup)
        if identity is None:
            return
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.root / self.data["files"][identity]["path"])
        del self.data["files"][identity]
        self.save()

    def resource(self, identity):
        record = self.data["files"][identity]
        return call.Resource(
            identity=identity,
            outputs=to_wire({"path": record["path"], "size": record["size"]}),
            state=to_wire({"path": record["path"]}),
        )

    def list(self, after, most):
        """Of the files behind an identity the first ones, and whether there are more. It does not keep what an apply
        declared, so it tells no declaration digest."""
        behind = sorted(identity for identity in self.data["files"] if identity > after)
        page = []
        for identity in behind[:most]:
            record = self.data["files"][identity]
            page.append(
                api.ListedResource(
                    identity=identity,
                    resource_type_id=RESOURCE_TYPE,
                    organization_id=record["organization_id"],
                    resource=record["resource"],
                    idempotency_key=record["made_by"],
                )
            )
        return page, len(behind) > most

    def observe(self, lookup):
        identity = self.find(lookup)
        if identity is None:
            return api.ObserveResponse(absent=api.Absent())
        record = self.data["files"][identity]
        try:
            content = (self.root / record["path"]).read_bytes()
        except FileNotFoundError:
            return api.ObserveResponse(absent=api.Absent())
        if hashlib.sha256(content).hexdigest() != record["sha256"]:
            state = to_wire({"path": record["path"]})
            message = f"the content of `{record['path']}` is not what was written"
            return api.ObserveResponse(partial=call.PartialResource(identity=identity, state=state, message=message))
        return api.ObserveResponse(found=self.resource(identity))


# --- The service --------------------------------------------------------------------------------------------------

CAPABILITIES = {call.CAPABILITY_CANCEL, call.CAPABILITY_LIST}
MAX_PAGE_SIZE = 1000
IDENTITY = re.compile("[0-9a-f]{32}")


class Driver(service.DriverServiceServicer):
    def __init__(self, store):
        self.store = store
        self.calls = {}

    def Handshake(self, request, context):
        if REVISION not in request.revisions:
            offered = ", ".join(map(str, request.revisions))
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, f"this driver speaks revision {REVISION}, not {offered}")
        if set(request.required_capabilities) - CAPABILITIES:
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, "this driver can be cancelled, and list what it has")
        return api.HandshakeResponse(
            revision=REVISION,
            driver_id="example-python",
            driver_version=VERSION,
            capabilities=sorted(CAPABILITIES),
            schema_digest=SCHEMA_DIGEST,
        )

    def GetSchema(self, request, context):
        return api.GetSchemaResponse(types=[TYPE], schema_digest=SCHEMA_DIGEST)

    def Health(self, request, context):
        return api.HealthResponse(state=api.HealthResponse.STATE_OK, schema_digest=SCHEMA_DIGEST)

    def Validate(self, request, context):
        inputs, wrong = check(to_python(request.inputs))
        if wrong:
            violations = [api.Violation(path=path, message=message) for path, message in wrong]
            return api.ValidateResponse(violations=api.Violations(violations=violations))
        return api.ValidateResponse(inputs=to_wire(inputs))

    def Plan(self, request, context):
        before = to_python(request.prior.inputs) if request.HasField("prior") else None
        after = to_python(request.desired) if request.HasField("desired") else None
        old, new = before or {}, after or {}
        diffs, forces = [], []
        for key in sorted(old.keys() | new.keys()):
            if old.get(key) != new.get(key) or (key in old) != (key in new):
                diffs.append(
                    api.FieldDiff(
                        path=pointer(key),
                        before=to_wire(old[key]) if key in old else None,
                        after=to_wire(new[key]) if key in new else None,
                    )
                )
                if pointer(key) in TYPE.immutable_fields:
                    forces.append(pointer(key))
        if before is None:
            action = api.PLAN_ACTION_NOOP if after is None else api.PLAN_ACTION_CREATE
        elif after is None:
            action = api.PLAN_ACTION_DELETE
        elif not diffs:
            action = api.PLAN_ACTION_NOOP
        else:
            action = api.PLAN_ACTION_REPLACE if forces else api.PLAN_ACTION_UPDATE
        if action != api.PLAN_ACTION_REPLACE:
            forces = []
        return api.PlanResponse(plan=api.Plan(action=action, diffs=diffs, forces_replacement=forces))

    def Observe(self, request, context):
        with self.store.lock:
            return self.store.observe(request.lookup)

    def List(self, request, context):
        """The token is the identity of the last file of its page, which may be gone by the time it is given back."""
        if request.page_size < 1:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "`page_size` must be at least 1")
        token = request.page_token
        if token and not IDENTITY.fullmatch(token):
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "`page_token` is none that this driver gave")
        with self.store.lock:
            page, more = self.store.list(token, min(request.page_size, MAX_PAGE_SIZE))
        return api.ListResponse(resources=page, next_page_token=page[-1].identity if more else "")

    def Cancel(self, request, context):
        stop = self.calls.get(request.call_id)
        if stop is not None:
            stop.set()
        return api.CancelResponse(found=stop is not None)

    def Apply(self, request, context):
        with self.running(request, context) as stop:
            yield api.ApplyResponse(progress=call.Progress(message="checking"))
            yield outcome(api.ApplyResponse, self.apply, request, stop)

    def Destroy(self, request, context):
        with self.running(request, context):
            yield outcome(api.DestroyResponse, self.destroy, request)

    @contextlib.contextmanager
    def running(self, request, context):
        """The call can be cancelled by its id, and is when the engine closes the stream."""
        stop = self.calls[request.context.call_id] = threading.Event()
        context.add_callback(stop.set)
        try:
            yield stop
        finally:
            del self.calls[request.context.call_id]

    def apply(self, request, stop):
        if request.resource_type_id != RESOURCE_TYPE:
            raise Refused(call.FAILURE_CODE_UNSUPPORTED, f"no resource type `{request.resource_type_id}`")
        with self.store.lock:
            self.store.fence(request.context)
        inputs, wrong = check(to_python(request.inputs))
        if wrong:
            message = "; ".join(f"`{path}` {message}" for path, message in wrong)
            raise Refused(call.FAILURE_CODE_INVALID_ARGUMENT, message)
        if stop.wait(inputs["delay_ms"] / 1000):
            raise Refused(call.FAILURE_CODE_CANCELLED, "cancelled before anything was written")
        with self.store.lock:
            # A later claim may have come while this one waited.
            self.store.fence(request.context)
            return self.store.apply(request, inputs)

    def destroy(self, request):
        with self.store.lock:
            self.store.fence(request.context)
            self.store.destroy(request.lookup)
        return api.Destroyed()


def outcome(response, work, *arguments):
    """What the work came to, as the response that ends the stream. Anything unforeseen is an unknown outcome: the engine
    then asks Observe."""
    try:
        result = response.Outcome(succeeded=work(*arguments))
    except Refused as refused:
        result = response.Outcome(failed=refused.failure)
    except Exception as error:  # noqa: BLE001 - whatever it is, the stream must not end without an outcome
        print(f"unforeseen: {type(error).__name__}", file=sys.stderr, flush=True)
        result = response.Outcome(unknown=call.UnknownOutcome(message="the driver met an unforeseen error"))
    return response(outcome=result)


def main():
    parser = argparse.ArgumentParser(description="serves text files as resources")
    parser.add_argument("--root", required=True, help="the folder for the files and the driver's memory")
    parser.add_argument("--port", type=int, default=0, help="0 for any")
    arguments = parser.parse_args()
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(max_workers=32))
    service.add_DriverServiceServicer_to_server(Driver(Store(arguments.root)), server)
    port = server.add_insecure_port(f"127.0.0.1:{arguments.port}")
    server.start()
    print(f"listening on 127.0.0.1:{port}", flush=True)
    sys.stdin.read()
    server.stop(grace=2).wait()


if __name__ == "__main__":
    main()
