// The recorder is a gRPC server that takes whatever calls it and writes every message down as it came in, after gRPC's own
// compression is undone.
//
//	recorder -out DIR [-forward HOST:PORT] [-listen 127.0.0.1:0]
//
// It prints "listening on ADDRESS" once it does, and ends at SIGTERM or SIGINT. In DIR it makes
//
//	<signal>-<n>.binpb   one Arrow stream: its BatchArrowRecords messages, each behind its length as a varint
//	<n>-<signal>.binpb   one unary request, which is answered by an empty message
//	index.json           what is in them, in the order in which they began
//
// Every batch of an Arrow stream is answered with OK, or, with -forward, by the server that it and all others are handed to.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
)

const (
	arrowService = "/opentelemetry.proto.experimental.arrow.v1."
	// Batches of the exporter have 1500 items at most; this leaves room for large ones.
	messageBytesMax = 64 << 20
	// The exporter's HPACK encoder announces no other table.
	headerTableBytes = 4096
)

// entry is one file of DIR, as index.json says it.
type entry struct {
	File         string              `json:"file"`
	Signal       string              `json:"signal"`
	Method       string              `json:"method"`
	GrpcEncoding string              `json:"grpc_encoding"`
	Metadata     map[string][]string `json:"metadata"`
	End          string              `json:"end,omitempty"`
	Bytes        int                 `json:"bytes"`
	Batches      []batch             `json:"batches,omitempty"`
}

type batch struct {
	ID       int64       `json:"batch_id"`
	Payloads []payload   `json:"payloads"`
	Headers  [][2]string `json:"headers,omitempty"`
	// With -forward: how many answers the upstream gave, the last one, and how long it took.
	Answers  int    `json:"answers,omitempty"`
	Status   *int64 `json:"status,omitempty"`
	AnswerMS int64  `json:"answer_ms,omitempty"`
	received time.Time
}

type payload struct {
	SchemaID string `json:"schema_id"`
	Type     int64  `json:"type"`
	Bytes    int    `json:"bytes"`
}

type recorder struct {
	out      string
	upstream *grpc.ClientConn
	mu       sync.Mutex
	entries  []*entry
	streams  map[string]int
}

// begin makes the entry of a call, and names its file.
func (r *recorder) begin(ctx context.Context, method string) *entry {
	service, call := path.Split(method)
	arrow := strings.HasPrefix(method, arrowService)
	of := "other"
	for _, name := range []string{"logs", "traces", "metrics"} {
		if strings.Contains(strings.ToLower(service+call), strings.TrimSuffix(name, "s")) {
			of = name
		}
	}
	md, _ := metadata.FromIncomingContext(ctx)
	made := &entry{Signal: of, Method: method, Metadata: md, GrpcEncoding: "identity"}
	if call, ok := ctx.Value(callKey{}).(*callInfo); ok && call.compression != "" {
		made.GrpcEncoding = call.compression
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if arrow {
		made.File = fmt.Sprintf("%s-%d.binpb", of, r.streams[of])
		r.streams[of]++
	} else {
		made.File = fmt.Sprintf("%06d-%s.binpb", len(r.entries), of)
	}
	r.entries = append(r.entries, made)
	return made
}

func (r *recorder) handle(_ any, stream grpc.ServerStream) error {
	method, _ := grpc.MethodFromServerStream(stream)
	made := r.begin(stream.Context(), method)
	file, err := os.Create(filepath.Join(r.out, made.File))
	if err != nil {
		return status.Error(codes.Internal, err.Error())
	}
	defer file.Close()
	if strings.HasPrefix(method, arrowService) {
		err = r.stream(made, file, stream)
	} else {
		err = r.unary(made, file, stream)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	made.End = status.Code(err).String()
	return err
}

func (r *recorder) unary(made *entry, file *os.File, stream grpc.ServerStream) error {
	var request []byte
	if err := stream.RecvMsg(&request); err != nil {
		return err
	}
	r.mu.Lock()
	made.Bytes = len(request)
	r.mu.Unlock()
	if _, err := file.Write(request); err != nil {
		return status.Error(codes.Internal, err.Error())
	}
	answer := []byte{}
	if r.upstream != nil {
		if err := r.upstream.Invoke(outgoing(stream.Context()), made.Method, &request, &answer, compressed(made)...); err != nil {
			return err
		}
	}
	return stream.SendMsg(&answer)
}

// stream records a stream's batches; they are answered here, or by the upstream's stream.
func (r *recorder) stream(made *entry, file *os.File, stream grpc.ServerStream) error {
	var (
		onward  grpc.ClientStream
		answers chan error
	)
	if r.upstream != nil {
		desc := &grpc.StreamDesc{StreamName: path.Base(made.Method), ClientStreams: true, ServerStreams: true}
		var err error
		if onward, err = r.upstream.NewStream(outgoing(stream.Context()), desc, made.Method, compressed(made)...); err != nil {
			return err
		}
		answers = make(chan error, 1)
		go func() { answers <- r.relay(made, onward, stream) }()
	}
	headers := hpack.NewDecoder(headerTableBytes, nil)
	for {
		var message []byte
		if err := stream.RecvMsg(&message); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return err
		}
		parsed, err := parseBatch(message, headers)
		if err != nil {
			return status.Error(codes.InvalidArgument, err.Error())
		}
		if _, err := file.Write(append(protowire.AppendVarint(nil, uint64(len(message))), message...)); err != nil {
			return status.Error(codes.Internal, err.Error())
		}
		r.mu.Lock()
		made.Bytes += len(message)
		made.Batches = append(made.Batches, parsed)
		r.mu.Unlock()
		if onward != nil {
			// A failure to send shows as the end of the answers, with its reason.
			if onward.SendMsg(&message) != nil {
				return <-answers
			}
			continue
		}
		var answer []byte
		if parsed.ID != 0 {
			answer = protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), uint64(parsed.ID))
		}
		if err := stream.SendMsg(&answer); err != nil {
			return err
		}
	}
	if onward == nil {
		return nil
	}
	_ = onward.CloseSend()
	return <-answers
}

// relay hands the upstream's answers back, and says how its stream ended.
func (r *recorder) relay(made *entry, from grpc.ClientStream, to grpc.ServerStream) error {
	for {
		var answer []byte
		if err := from.RecvMsg(&answer); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		r.note(made, answer)
		if err := to.SendMsg(&answer); err != nil {
			return err
		}
	}
}

// note adds the upstream's status code to its batch.
func (r *recorder) note(made *entry, answer []byte) {
	var id, code int64
	_ = eachField(answer, func(number protowire.Number, varint uint64, _ []byte) error {
		switch number {
		case 1:
			id = int64(varint)
		case 2:
			code = int64(varint)
		}
		return nil
	})
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range made.Batches {
		if made.Batches[i].ID == id {
			made.Batches[i].Answers++
			made.Batches[i].Status = &code
			made.Batches[i].AnswerMS = time.Since(made.Batches[i].received).Milliseconds()
		}
	}
}

func parseBatch(message []byte, headers *hpack.Decoder) (batch, error) {
	parsed := batch{received: time.Now()}
	err := eachField(message, func(number protowire.Number, varint uint64, bytes []byte) error {
		switch number {
		case 1:
			parsed.ID = int64(varint)
		case 2:
			var one payload
			err := eachField(bytes, func(number protowire.Number, varint uint64, bytes []byte) error {
				switch number {
				case 1:
					one.SchemaID = string(bytes)
				case 2:
					one.Type = int64(varint)
				case 3:
					one.Bytes = len(bytes)
				}
				return nil
			})
			if err != nil {
				return err
			}
			parsed.Payloads = append(parsed.Payloads, one)
		case 3:
			fields, err := headers.DecodeFull(bytes)
			if err != nil {
				return err
			}
			for _, field := range fields {
				parsed.Headers = append(parsed.Headers, [2]string{field.Name, field.Value})
			}
		}
		return nil
	})
	return parsed, err
}

// eachField calls `found` with each field of a protobuf message: a number for a varint, bytes for a length-delimited one.
func eachField(message []byte, found func(protowire.Number, uint64, []byte) error) error {
	for len(message) > 0 {
		number, kind, n := protowire.ConsumeTag(message)
		if n < 0 {
			return protowire.ParseError(n)
		}
		message = message[n:]
		var (
			varint uint64
			bytes  []byte
		)
		switch kind {
		case protowire.VarintType:
			varint, n = protowire.ConsumeVarint(message)
		case protowire.BytesType:
			bytes, n = protowire.ConsumeBytes(message)
		default:
			n = protowire.ConsumeFieldValue(number, kind, message)
		}
		if n < 0 {
			return protowire.ParseError(n)
		}
		if err := found(number, varint, bytes); err != nil {
			return err
		}
		message = message[n:]
	}
	return nil
}

// outgoing passes a call's metadata on, without what gRPC itself adds.
func outgoing(ctx context.Context) context.Context {
	in, _ := metadata.FromIncomingContext(ctx)
	out := metadata.MD{}
	for key, values := range in {
		if !strings.HasPrefix(key, ":") && !strings.HasPrefix(key, "grpc-") && key != "content-type" && key != "user-agent" {
			out[key] = values
		}
	}
	return metadata.NewOutgoingContext(ctx, out)
}

// compressed has the upstream see the compression, by name, that the client chose.
func compressed(call *entry) []grpc.CallOption {
	if call.GrpcEncoding == "identity" {
		return nil
	}
	return []grpc.CallOption{grpc.UseCompressor(call.GrpcEncoding)}
}

// rawCodec hands messages over as bytes, so that what is recorded is what was sent.
type rawCodec struct{}

func (rawCodec) Name() string { return "proto" }
func (rawCodec) Marshal(message any) ([]byte, error) {
	return *message.(*[]byte), nil
}
func (rawCodec) Unmarshal(data []byte, message any) error {
	*message.(*[]byte) = append([]byte{}, data...)
	return nil
}

// callInfo is what only gRPC's statistics tell of a call: the name of its compression.
type callInfo struct{ compression string }
type callKey struct{}
type watcher struct{}

func (watcher) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context {
	return context.WithValue(ctx, callKey{}, &callInfo{})
}
func (watcher) HandleRPC(ctx context.Context, event stats.RPCStats) {
	if header, ok := event.(*stats.InHeader); ok {
		if call, ok := ctx.Value(callKey{}).(*callInfo); ok {
			call.compression = header.Compression
		}
	}
}
func (watcher) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }
func (watcher) HandleConn(context.Context, stats.ConnStats)                       {}

func run() error {
	listen := flag.String("listen", "127.0.0.1:0", "where to listen")
	out := flag.String("out", "", "folder for the recording")
	forward := flag.String("forward", "", "server that everything is handed to and that answers")
	flag.Parse()
	if *out == "" || flag.NArg() != 0 {
		return errors.New("usage: recorder -out DIR [-forward HOST:PORT] [-listen HOST:PORT]")
	}
	if err := os.MkdirAll(*out, 0o755); err != nil {
		return err
	}
	recorder := &recorder{out: *out, streams: map[string]int{}}
	if *forward != "" {
		upstream, err := grpc.NewClient("passthrough:///"+*forward,
			grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithDefaultCallOptions(grpc.ForceCodec(rawCodec{}), grpc.MaxCallRecvMsgSize(messageBytesMax)))
		if err != nil {
			return err
		}
		defer upstream.Close()
		recorder.upstream = upstream
	}
	listener, err := net.Listen("tcp", *listen)
	if err != nil {
		return err
	}
	server := grpc.NewServer(grpc.ForceServerCodec(rawCodec{}), grpc.MaxRecvMsgSize(messageBytesMax),
		grpc.StatsHandler(watcher{}), grpc.UnknownServiceHandler(recorder.handle))
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	go func() {
		<-stop
		server.GracefulStop()
	}()
	fmt.Printf("listening on %s\n", listener.Addr())
	if err := server.Serve(listener); err != nil {
		return err
	}
	text, err := json.MarshalIndent(recorder.entries, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(*out, "index.json"), append(text, '\n'), 0o644)
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "recorder:", err)
		os.Exit(1)
	}
}
