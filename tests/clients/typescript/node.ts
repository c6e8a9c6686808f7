// The main job in Node, over gRPC.
//
//   PAVIOR_SERVER=http://127.0.0.1:7410 PAVIOR_ORGANIZATION=acme PAVIOR_TOKEN=… PAVIOR_AUDITOR_TOKEN=… node node.js PROJECT

import { createGrpcTransport } from "@connectrpc/connect-node";
import { bearer, mainJob } from "./main_job";

const { PAVIOR_SERVER: baseUrl = "", PAVIOR_ORGANIZATION: organization = "", PAVIOR_TOKEN, PAVIOR_AUDITOR_TOKEN } = process.env;
const as = (token = "") => createGrpcTransport({ baseUrl, interceptors: [bearer(token)] });

await mainJob({
  organization,
  project: process.argv[2] ?? "",
  developer: as(PAVIOR_TOKEN),
  auditor: as(PAVIOR_AUDITOR_TOKEN),
  tell: console.log,
});
