import com.google.protobuf.InvalidProtocolBufferException;
import com.google.rpc.BadRequest;
import com.google.rpc.ErrorInfo;
import io.grpc.Channel;
import io.grpc.ClientInterceptors;
import io.grpc.Metadata;
import io.grpc.StatusRuntimeException;
import io.grpc.protobuf.StatusProto;
import io.grpc.stub.MetadataUtils;
import java.util.ArrayList;

/** How to call as somebody, and how to read what is refused. */
final class Pavior {
  private static final Metadata.Key<String> AUTHORIZATION =
      Metadata.Key.of("authorization", Metadata.ASCII_STRING_MARSHALLER);

  private Pavior() {}

  /** A channel that puts a token on every call. */
  static Channel bearer(Channel channel, String token) {
    var headers = new Metadata();
    headers.put(AUTHORIZATION, "Bearer " + token);
    return ClientInterceptors.intercept(channel, MetadataUtils.newAttachHeadersInterceptor(headers));
  }

  /** What a program can know of an error: its reason, and the fields that are wrong. */
  static String explain(StatusRuntimeException refusal) throws InvalidProtocolBufferException {
    var words = new ArrayList<String>();
    for (var detail : StatusProto.fromThrowable(refusal).getDetailsList()) {
      if (detail.is(ErrorInfo.class)) {
        words.add(detail.unpack(ErrorInfo.class).getReason());
      } else if (detail.is(BadRequest.class)) {
        detail.unpack(BadRequest.class).getFieldViolationsList().forEach(wrong -> words.add(wrong.getField()));
      }
    }
    return String.join(" ", words);
  }
}
