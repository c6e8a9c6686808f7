// The main job in a browser, over gRPC-Web or the Connect protocol. The page's origin must be one of the gateway's
// `web_origins`.

import { createConnectTransport, createGrpcWebTransport } from "@connectrpc/connect-web";
import { bearer, mainJob } from "./main_job";

// Who calls whom, and how; a portal would have it from its login.
const { protocol, server, organization, project, token, auditorToken } = await (await fetch("/job.json")).json();
const createTransport = protocol === "connect" ? createConnectTransport : createGrpcWebTransport;
// In JSON, a client has to know the types of what operations hold: see `registry` in `jsonOptions`.
const options = { baseUrl: server, useBinaryFormat: true, useHttpGet: true };
const as = (token: string) => createTransport({ ...options, interceptors: [bearer(token)] });

const told: string[] = [];
const tell = (line: string) => {
  told.push(line);
  document.body.append(line, document.createElement("br"));
};
await mainJob({ organization, project, developer: as(token), auditor: as(auditorToken), tell })
  .catch((error) => tell(`failed: ${error}`));
await fetch("/told", { method: "POST", body: told.join("\n") });
