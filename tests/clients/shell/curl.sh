#!/usr/bin/env bash
# Does the main job with curl: asks for a project on a golden path, watches it being made, and reads in the audit log
# what was asked for. It may be run again: with its request id the same happens
# once.
#
#   PAVIOR_SERVER=http://127.0.0.1:7410 PAVIOR_ORGANIZATION=acme PAVIOR_TOKEN=… PAVIOR_AUDITOR_TOKEN=… curl.sh PROJECT
set -euo pipefail
id=$1
organization=organizations/$PAVIOR_ORGANIZATION
project=$organization/projects/$id
api=$PAVIOR_SERVER/v1
# A UUID of its own for each project.
request_id=$(md5sum <<<"$project" | sed -E 's/^(.{8})(.{4}).(.{3}).(.{3})(.{12}).*/\1-\2-4\3-8\4-\5/')

# call ARGUMENT…: curl as the developer; what is refused is told, and fails.
call() {
  curl -sS --fail-with-body -H "Authorization: Bearer $PAVIOR_TOKEN" -H "Content-Type: application/json" "$@"
}

# wanted LANGUAGE: the project to ask for.
wanted() {
  jq -n --arg organization "$organization" --arg language "$1" '{
    owner: "\($organization)/groups/storefront",
    templateVersion: "\($organization)/templates/web-service/versions/stable",
    parameters: {language: $language}
  }'
}

if ! call "$api/$project" >/dev/null 2>&1; then
  # A mistake comes back as a status with details that a program can read.
  refusal=$(call "$api/$organization/projects?projectId=$id" -d "$(wanted cobol)" 2>/dev/null) && exit 1
  jq -r '"refused: \(.details | map(.reason, .fieldViolations[]?.field | values) | join(" "))"' <<<"$refusal"

  call "$api/$organization/projects?projectId=$id&validateOnly=true" -d "$(wanted python)" |
    jq -r '"planned: \(.metadata.validatedPlan.changes | length) changes"'
fi

operation=$(call "$api/$organization/projects?projectId=$id&requestId=$request_id" -d "$(wanted python)" | jq -r .name)
# Until it is done, or stuck: then only an operator can go on. What went wrong is told and fails.
call -N "$api/$operation:watch" | jq -r --unbuffered '.result |
  if .step.state == "STATE_SUCCEEDED" then "step done: \(.step.stepId)"
  elif .operation.metadata.state == "STATE_STUCK" then .operation.metadata.error.message | halt_error
  elif .operation.error then .operation.error.message | halt_error
  elif .operation.done then "operation: \(.operation.metadata.state)"
  else empty end'
call "$api/$project/environments/development" | jq -r '"running at \(.endpoints[0].url)"'

# The first records of the project: what was only planned, and what was asked for.
curl -sS --fail-with-body -G -H "Authorization: Bearer $PAVIOR_AUDITOR_TOKEN" "$api/$organization/auditRecords" -d pageSize=2 \
  --data-urlencode "filter=event.action = provisioning.projects.create AND event.target.project = \"$project\"" |
  jq -r '.auditRecords[] | "recorded: \(.event.summary)"'
