// The main job, with a client that was generated from the protos: asks for a project on a golden path, watches it being
// made, and reads in the audit log what was asked for. The same in Node and in a browser: they differ in the transport.

import { create } from "@bufbuild/protobuf";
import { anyUnpack } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError, createClient, type Interceptor, type Transport } from "@connectrpc/connect";
import { BadRequestSchema, ErrorInfoSchema } from "./gen/google/rpc/error_details_pb";
import { AuditService } from "./gen/pavior/audit/v1/audit_service_pb";
import { type OperationMetadata, OperationMetadata_State, OperationMetadataSchema, OperationStep_State } from "./gen/pavior/provisioning/v1/operation_pb";
import { OperationService } from "./gen/pavior/provisioning/v1/operation_service_pb";
import { CreateProjectRequestSchema, ProjectService } from "./gen/pavior/provisioning/v1/project_service_pb";

/** What the job is told. */
export interface Job {
  organization: string;
  project: string;
  developer: Transport;
  auditor: Transport;
  tell: (line: string) => void;
}

/** Puts a token on every call. */
export function bearer(token: string): Interceptor {
  return (next) => (request) => {
    request.header.set("Authorization", `Bearer ${token}`);
    return next(request);
  };
}

export async function mainJob({ organization, project, developer, auditor, tell }: Job): Promise<void> {
  const parent = `organizations/${organization}`;
  const name = `${parent}/projects/${project}`;
  const projects = createClient(ProjectService, developer);
  const deadline = { timeoutMs: 10_000 };

  const ask = (language: string, validateOnly = false) =>
    projects.createProject(
      create(CreateProjectRequestSchema, {
        parent,
        projectId: project,
        project: {
          owner: `${parent}/groups/storefront`,
          templateVersion: `${parent}/templates/web-service/versions/stable`,
          parameters: { language },
        },
        requestId: crypto.randomUUID(), // with the same id it can be sent again
        validateOnly,
      }),
      deadline,
    );

  await ask("cobol").catch((error) => tell(`refused: ${explain(error)}`));

  const planned = await ask("python", true);
  const metadata = planned.metadata && anyUnpack(planned.metadata, OperationMetadataSchema);
  tell(`planned: ${metadata?.validatedPlan?.changes.length} changes`);

  const { name: operation } = await ask("python");
  await watch(developer, operation, tell);
  const environment = await projects.getEnvironment({ name: `${name}/environments/development` }, deadline);
  tell(`running at ${environment.endpoints[0]?.url}`);

  // The first records of the project: what was only planned, and what was asked for.
  const { auditRecords } = await createClient(AuditService, auditor).listAuditRecords(
    { parent, filter: `event.action = provisioning.projects.create AND event.target.project = "${name}"`, pageSize: 2 },
    deadline,
  );
  for (const record of auditRecords) {
    tell(`recorded: ${record.event?.summary}`);
  }
}

/** Tells what happens in an operation until it is done, or stuck: then only an operator can go on. */
async function watch(transport: Transport, name: string, tell: (line: string) => void): Promise<void> {
  const events = createClient(OperationService, transport).watchOperation({ name }, { timeoutMs: 120_000 });
  let last: OperationMetadata | undefined;
  for await (const { event } of events) {
    if (event.case === "operation") {
      last = event.value.metadata && anyUnpack(event.value.metadata, OperationMetadataSchema);
    } else if (event.case === "step" && event.value.state === OperationStep_State.SUCCEEDED) {
      tell(`step done: ${event.value.stepId}`);
    }
  }
  tell(`operation: STATE_${OperationMetadata_State[last?.state ?? 0]}`);
  if (last?.error) {
    throw new ConnectError(last.error.message, last.error.code as Code);
  }
}

/** What a program can know of an error: its reason, and the fields that are wrong. */
function explain(error: unknown): string {
  const refusal = ConnectError.from(error);
  const reasons = refusal.findDetails(ErrorInfoSchema).map((info) => info.reason);
  const fields = refusal.findDetails(BadRequestSchema).flatMap((bad) => bad.fieldViolations.map((one) => one.field));
  return [...reasons, ...fields].join(" ");
}
