#!/usr/bin/env bash
# Does the main job with grpcurl, which reads the protos from the server: asks for a project on a golden path, watches it
# being made, and reads in the audit log what was asked for. It may be run again: with its request id the same happens
# once.
#
#   PAVIOR_SERVER=http://127.0.0.1:7410 PAVIOR_ORGANIZATION=acme PAVIOR_TOKEN=… PAVIOR_AUDITOR_TOKEN=… grpcurl.sh PROJECT
set -euo pipefail
id=$1
organization=organizations/$PAVIOR_ORGANIZATION
project=$organization/projects/$id
# A UUID of its own for each project.
request_id=$(md5sum <<<"$project" | sed -E 's/^(.{8})(.{4}).(.{3}).(.{3})(.{12}).*/\1-\2-4\3-8\4-\5/')

# call METHOD REQUEST: calls as the developer; what is refused is told as JSON on standard error, and fails.
call() {
  grpcurl -plaintext -format-error -H "authorization: Bearer ${token:-$PAVIOR_TOKEN}" -d "$2" "${PAVIOR_SERVER#http://}" "$1"
}

# wanted LANGUAGE MORE: the request for the project.
wanted() {
  jq -n --arg organization "$organization" --arg id "$id" --arg language "$1" --argjson more "${2:-null}" '{
    parent: $organization,
    projectId: $id,
    project: {
      owner: "\($organization)/groups/storefront",
      templateVersion: "\($organization)/templates/web-service/versions/stable",
      parameters: {language: $language}
    }
  } + $more'
}

projects=pavior.provisioning.v1.ProjectService
if ! call $projects/GetProject "{\"name\": \"$project\"}" >/dev/null 2>&1; then
  # A mistake comes back as a status with details that a program can read.
  refusal=$(call $projects/CreateProject "$(wanted cobol)" 2>&1) && exit 1
  jq -r '"refused: \(.details | map(.reason, .fieldViolations[]?.field | values) | join(" "))"' <<<"$refusal"

  call $projects/CreateProject "$(wanted python '{"validateOnly": true}')" |
    jq -r '"planned: \(.metadata.validatedPlan.changes | length) changes"'
fi

operation=$(call $projects/CreateProject "$(wanted python "{\"requestId\": \"$request_id\"}")" | jq '{name}')
# Until it is done, or stuck: then only an operator can go on. What went wrong is told and fails.
call pavior.provisioning.v1.OperationService/WatchOperation "$operation" | jq -r --unbuffered '
  if .step.state == "STATE_SUCCEEDED" then "step done: \(.step.stepId)"
  elif .operation.metadata.state == "STATE_STUCK" then .operation.metadata.error.message | halt_error
  elif .operation.error then .operation.error.message | halt_error
  elif .operation.done then "operation: \(.operation.metadata.state)"
  else empty end'
call $projects/GetEnvironment "{\"name\": \"$project/environments/development\"}" |
  jq -r '"running at \(.endpoints[0].url)"'

# The first records of the project: what was only planned, and what was asked for.
filter="event.action = provisioning.projects.create AND event.target.project = \"$project\""
token=$PAVIOR_AUDITOR_TOKEN call pavior.audit.v1.AuditService/ListAuditRecords \
  "$(jq -n --arg parent "$organization" --arg filter "$filter" '{$parent, $filter, pageSize: 2}')" |
  jq -r '.auditRecords[] | "recorded: \(.event.summary)"'
