// Does the main job with a client that was generated from the protos: asks for a project on a golden path, watches it
// being made, and reads in the audit log what was asked for.
//
//	PAVIOR_SERVER=http://127.0.0.1:7410 PAVIOR_ORGANIZATION=acme PAVIOR_TOKEN=… PAVIOR_AUDITOR_TOKEN=… main PROJECT
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"time"

	"github.com/google/uuid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/structpb"
	auditv1 "pavior.dev/api/pavior/audit/v1"
	provisioningv1 "pavior.dev/api/pavior/provisioning/v1"
)

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	developer, auditor := connect(os.Getenv("PAVIOR_TOKEN")), connect(os.Getenv("PAVIOR_AUDITOR_TOKEN"))
	defer developer.Close()
	defer auditor.Close()
	organization := "organizations/" + os.Getenv("PAVIOR_ORGANIZATION")
	project := organization + "/projects/" + os.Args[1]
	if err := ask(ctx, developer, organization, os.Args[1]); err != nil {
		log.Fatal(err)
	}
	environment, err := provisioningv1.NewProjectServiceClient(developer).GetEnvironment(ctx,
		&provisioningv1.GetEnvironmentRequest{Name: project + "/environments/development"})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("running at", environment.GetEndpoints()[0].GetUrl())

	// The first records of the project: what was only planned, and what was asked for.
	records, err := auditv1.NewAuditServiceClient(auditor).ListAuditRecords(ctx, &auditv1.ListAuditRecordsRequest{
		Parent:   organization,
		Filter:   fmt.Sprintf("event.action = provisioning.projects.create AND event.target.project = %q", project),
		PageSize: 2,
	})
	if err != nil {
		log.Fatal(err)
	}
	for _, record := range records.GetAuditRecords() {
		fmt.Println("recorded:", record.GetEvent().GetSummary())
	}
}

// ask makes a project, after a look at what it would come to.
func ask(ctx context.Context, developer *grpc.ClientConn, organization, id string) error {
	projects := provisioningv1.NewProjectServiceClient(developer)
	_, err := projects.CreateProject(ctx, request(organization, id, "cobol"))
	fmt.Println("refused:", explain(err))

	plan := request(organization, id, "python")
	plan.ValidateOnly = true
	planned, err := projects.CreateProject(ctx, plan)
	if err != nil {
		return err
	}
	metadata := new(provisioningv1.OperationMetadata)
	if err := planned.GetMetadata().UnmarshalTo(metadata); err != nil {
		return err
	}
	fmt.Println("planned:", len(metadata.GetValidatedPlan().GetChanges()), "changes")

	operation, err := projects.CreateProject(ctx, request(organization, id, "python"))
	if err != nil {
		return err
	}
	return watch(ctx, developer, operation.GetName())
}

// request asks for a project in a language; with the same request id it can be sent again.
func request(organization, id, language string) *provisioningv1.CreateProjectRequest {
	return &provisioningv1.CreateProjectRequest{
		Parent:    organization,
		ProjectId: id,
		Project: &provisioningv1.Project{
			Owner:           organization + "/groups/storefront",
			TemplateVersion: organization + "/templates/web-service/versions/stable",
			Parameters:      &structpb.Struct{Fields: map[string]*structpb.Value{"language": structpb.NewStringValue(language)}},
		},
		RequestId: uuid.NewString(),
	}
}

// watch tells what happens in an operation until it is done, or stuck: then only an operator can go on.
func watch(ctx context.Context, developer *grpc.ClientConn, operation string) error {
	stream, err := provisioningv1.NewOperationServiceClient(developer).WatchOperation(ctx,
		&provisioningv1.WatchOperationRequest{Name: operation})
	last := new(provisioningv1.OperationMetadata)
	for err == nil {
		var event *provisioningv1.WatchOperationResponse
		if event, err = stream.Recv(); errors.Is(err, io.EOF) {
			fmt.Println("operation:", last.GetState())
			return status.ErrorProto(last.GetError()) // nil when it went well
		}
		if step := event.GetStep(); step.GetState() == provisioningv1.OperationStep_STATE_SUCCEEDED {
			fmt.Println("step done:", step.GetStepId())
		} else if changed := event.GetOperation(); changed != nil {
			err = changed.GetMetadata().UnmarshalTo(last)
		}
	}
	return err
}
