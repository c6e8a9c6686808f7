import com.google.longrunning.Operation;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.protobuf.Struct;
import com.google.protobuf.Value;
import dev.pavior.audit.v1.AuditServiceGrpc;
import dev.pavior.audit.v1.ListAuditRecordsRequest;
import dev.pavior.provisioning.v1.CreateProjectRequest;
import dev.pavior.provisioning.v1.GetEnvironmentRequest;
import dev.pavior.provisioning.v1.OperationMetadata;
import dev.pavior.provisioning.v1.OperationServiceGrpc;
import dev.pavior.provisioning.v1.OperationStep;
import dev.pavior.provisioning.v1.Project;
import dev.pavior.provisioning.v1.ProjectServiceGrpc;
import dev.pavior.provisioning.v1.WatchOperationRequest;
import io.grpc.Channel;
import io.grpc.ManagedChannel;
import io.grpc.ManagedChannelBuilder;
import io.grpc.StatusRuntimeException;
import io.grpc.protobuf.StatusProto;
import java.util.UUID;
import java.util.concurrent.TimeUnit;

/**
 * Does the main job with a client that was generated from the protos: asks for a project on a golden path, watches it
 * being made, and reads in the audit log what was asked for.
 *
 * <p>{@code PAVIOR_SERVER=http://127.0.0.1:7410 PAVIOR_ORGANIZATION=acme PAVIOR_TOKEN=… PAVIOR_AUDITOR_TOKEN=… java MainJob PROJECT}
 */
public final class MainJob {
  public static void main(String[] arguments) throws Exception {
    String server = System.getenv("PAVIOR_SERVER").replaceFirst("^http://", "");
    String organization = "organizations/" + System.getenv("PAVIOR_ORGANIZATION");
    String project = organization + "/projects/" + arguments[0];
    ManagedChannel channel = ManagedChannelBuilder.forTarget(server).usePlaintext().build();
    try {
      Channel developer = Pavior.bearer(channel, System.getenv("PAVIOR_TOKEN"));
      var projects = ProjectServiceGrpc.newBlockingStub(developer).withDeadlineAfter(2, TimeUnit.MINUTES);
      ask(projects, developer, organization, arguments[0]);
      var environment = projects.getEnvironment(
          GetEnvironmentRequest.newBuilder().setName(project + "/environments/development").build());
      System.out.println("running at " + environment.getEndpoints(0).getUrl());

      // The first records of the project: what was only planned, and what was asked for.
      var auditor = AuditServiceGrpc.newBlockingStub(Pavior.bearer(channel, System.getenv("PAVIOR_AUDITOR_TOKEN")));
      var records = auditor.withDeadlineAfter(10, TimeUnit.SECONDS).listAuditRecords(ListAuditRecordsRequest.newBuilder()
          .setParent(organization)
          .setFilter("event.action = provisioning.projects.create AND event.target.project = \"" + project + "\"")
          .setPageSize(2)
          .build());
      records.getAuditRecordsList().forEach(r -> System.out.println("recorded: " + r.getEvent().getSummary()));
    } finally {
      channel.shutdown();
    }
  }

  /** Makes a project, after a look at what it would come to. */
  private static void ask(
      ProjectServiceGrpc.ProjectServiceBlockingStub projects, Channel developer, String organization, String id)
      throws InvalidProtocolBufferException {
    try {
      projects.createProject(request(organization, id, "cobol").build());
    } catch (StatusRuntimeException refusal) {
      System.out.println("refused: " + Pavior.explain(refusal));
    }
    Operation planned = projects.createProject(request(organization, id, "python").setValidateOnly(true).build());
    int changes = planned.getMetadata().unpack(OperationMetadata.class).getValidatedPlan().getChangesCount();
    System.out.println("planned: " + changes + " changes");

    String operation = projects.createProject(request(organization, id, "python").build()).getName();
    // Until it is done, or stuck: then only an operator can go on.
    var events = OperationServiceGrpc.newBlockingStub(developer).withDeadlineAfter(2, TimeUnit.MINUTES)
        .watchOperation(WatchOperationRequest.newBuilder().setName(operation).build());
    var last = OperationMetadata.getDefaultInstance();
    while (events.hasNext()) {
      var event = events.next();
      if (event.hasOperation()) {
        last = event.getOperation().getMetadata().unpack(OperationMetadata.class);
      } else if (event.getStep().getState() == OperationStep.State.STATE_SUCCEEDED) {
        System.out.println("step done: " + event.getStep().getStepId());
      }
    }
    System.out.println("operation: " + last.getState());
    if (last.hasError()) {
      throw StatusProto.toStatusRuntimeException(last.getError());
    }
  }

  /** Asks for a project in a language; with the same request id it can be sent again. */
  private static CreateProjectRequest.Builder request(String organization, String id, String language) {
    var parameters = Struct.newBuilder().putFields("language", Value.newBuilder().setStringValue(language).build());
    return CreateProjectRequest.newBuilder().setParent(organization).setProjectId(id)
        .setProject(Project.newBuilder()
            .setOwner(organization + "/groups/storefront")
            .setTemplateVersion(organization + "/templates/web-service/versions/stable")
            .setParameters(parameters))
        .setRequestId(UUID.randomUUID().toString());
  }
}
