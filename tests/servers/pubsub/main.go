// A Pub/Sub server for tests: Google's own in-memory fake, with the part of the REST API in front of it that tests and
// administrators use. Both are served on one port, as Google's emulator does.
//
// What the fake has not: order, dead letters, exactly-once delivery, flow control.
package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"strings"

	"cloud.google.com/go/pubsub/pstest"
	"github.com/golang/protobuf/jsonpb"
	"github.com/golang/protobuf/proto"
	pb "google.golang.org/genproto/googleapis/pubsub/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func main() {
	listener, err := net.Listen("tcp", "127.0.0.1:"+os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	fake := pstest.NewServer()
	rest := &handed{address: listener.Addr(), connections: make(chan net.Conn)}
	go func() { log.Fatal(http.Serve(rest, &api{fake})) }()
	for {
		connection, err := listener.Accept()
		if err != nil {
			log.Fatal(err)
		}
		go route(connection, fake.Addr, rest)
	}
}

// route hands a connection to the fake if it speaks HTTP/2, as gRPC does, and to the REST API otherwise.
func route(connection net.Conn, grpc string, rest *handed) {
	reader := bufio.NewReader(connection)
	first, err := reader.Peek(3)
	if err != nil {
		connection.Close()
		return
	}
	if string(first) != "PRI" {
		rest.connections <- &peeked{connection, reader}
		return
	}
	fake, err := net.Dial("tcp", grpc)
	if err != nil {
		connection.Close()
		return
	}
	go func() {
		io.Copy(fake, reader)
		fake.Close()
	}()
	io.Copy(connection, fake)
	connection.Close()
}

// peeked is a connection of which something has been read already.
type peeked struct {
	net.Conn
	reader *bufio.Reader
}

func (c *peeked) Read(into []byte) (int, error) { return c.reader.Read(into) }

// handed is a listener of connections that somebody else has accepted.
type handed struct {
	address     net.Addr
	connections chan net.Conn
}

func (h *handed) Accept() (net.Conn, error) { return <-h.connections, nil }
func (h *handed) Close() error              { return nil }
func (h *handed) Addr() net.Addr            { return h.address }

type api struct{ fake *pstest.Server }

func (a *api) ServeHTTP(writer http.ResponseWriter, request *http.Request) {
	name, verb := strings.TrimPrefix(request.URL.Path, "/v1/"), ""
	if at := strings.LastIndex(name, ":"); at >= 0 {
		name, verb = name[:at], name[at+1:]
	}
	body, err := io.ReadAll(request.Body)
	if err != nil {
		return
	}
	var answer proto.Message
	if request.URL.Path == "/healthz" {
		answer = &pb.Topic{}
	} else {
		answer, err = a.call(request.Method, name, verb, body)
	}
	writer.Header().Set("content-type", "application/json")
	if err != nil {
		writeError(writer, err)
		return
	}
	(&jsonpb.Marshaler{}).Marshal(writer, answer)
}

func (a *api) call(method, name, verb string, body []byte) (proto.Message, error) {
	server, context, topic := &a.fake.GServer, context.Background(), strings.Contains(name, "/topics/")
	read := func(into proto.Message) error {
		if len(body) == 0 {
			return nil
		}
		if err := jsonpb.Unmarshal(bytes.NewReader(body), into); err != nil {
			return status.Error(codes.InvalidArgument, err.Error())
		}
		return nil
	}
	switch {
	case method == "PUT" && topic:
		return server.CreateTopic(context, &pb.Topic{Name: name})
	case method == "PUT":
		subscription := &pb.Subscription{}
		if err := read(subscription); err != nil {
			return nil, err
		}
		subscription.Name = name
		return server.CreateSubscription(context, subscription)
	case method == "GET" && !topic:
		return server.GetSubscription(context, &pb.GetSubscriptionRequest{Subscription: name})
	case method == "POST" && verb == "publish":
		publish := &pb.PublishRequest{}
		if err := read(publish); err != nil {
			return nil, err
		}
		publish.Topic = name
		return server.Publish(context, publish)
	case method == "POST" && verb == "pull":
		pull := &pb.PullRequest{}
		if err := read(pull); err != nil {
			return nil, err
		}
		pull.Subscription = name
		return server.Pull(context, pull)
	}
	return nil, status.Error(codes.Unimplemented, fmt.Sprintf("%s %s:%s", method, name, verb))
}

// writeError answers as Google's REST APIs do.
func writeError(writer http.ResponseWriter, err error) {
	said := status.Convert(err)
	code, word := http.StatusInternalServerError, "INTERNAL"
	switch said.Code() {
	case codes.NotFound:
		code, word = http.StatusNotFound, "NOT_FOUND"
	case codes.AlreadyExists:
		code, word = http.StatusConflict, "ALREADY_EXISTS"
	case codes.InvalidArgument, codes.Unknown:
		code, word = http.StatusBadRequest, "INVALID_ARGUMENT"
	case codes.Unimplemented:
		code, word = http.StatusNotImplemented, "UNIMPLEMENTED"
	}
	writer.WriteHeader(code)
	fmt.Fprintf(writer, `{"error": {"code": %d, "message": %q, "status": %q}}`, code, said.Message(), word)
}
