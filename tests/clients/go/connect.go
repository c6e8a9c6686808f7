package main

import (
	"context"
	"log"
	"os"
	"strings"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/status"
)

// bearer puts a token on every call.
type bearer string

func (token bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + string(token)}, nil
}

// RequireTransportSecurity is false for a server of one's own without TLS; true everywhere else.
func (bearer) RequireTransportSecurity() bool { return false }

// connect opens a connection that calls as the owner of a token.
func connect(token string) *grpc.ClientConn {
	server := strings.TrimPrefix(os.Getenv("PAVIOR_SERVER"), "http://")
	connection, err := grpc.Dial(server, grpc.WithInsecure(), grpc.WithPerRPCCredentials(bearer(token)))
	if err != nil {
		log.Fatal(err)
	}
	return connection
}

// explain reads what a program can know of an error: its reason, and the fields that are wrong.
func explain(err error) string {
	var words []string
	for _, detail := range status.Convert(err).Details() {
		switch detail := detail.(type) {
		case *errdetails.ErrorInfo:
			words = append(words, detail.GetReason())
		case *errdetails.BadRequest:
			for _, violation := range detail.GetFieldViolations() {
				words = append(words, violation.GetField())
			}
		}
	}
	return strings.Join(words, " ")
}
