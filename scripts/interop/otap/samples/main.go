// The samples are OTLP requests that make an OTAP exporter use what it has.
//
//	samples DIR
//
// makes a folder in DIR for each of the names below, with its requests, NNN-<signal>.binpb, to be sent in their order. They are
// the same at every run.
package main

import (
	"fmt"
	"os"
	"path/filepath"

	"go.opentelemetry.io/collector/pdata/plog"
	"go.opentelemetry.io/collector/pdata/plog/plogotlp"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/pmetric/pmetricotlp"
	"go.opentelemetry.io/collector/pdata/ptrace"
	"go.opentelemetry.io/collector/pdata/ptrace/ptraceotlp"
)

// request is one OTLP request and the signal that it is of.
type request struct {
	signal string
	bytes  func() ([]byte, error)
}

func logs(data plog.Logs) request {
	return request{"logs", plogotlp.NewExportRequestFromLogs(data).MarshalProto}
}

func traces(data ptrace.Traces) request {
	return request{"traces", ptraceotlp.NewExportRequestFromTraces(data).MarshalProto}
}

func metrics(data pmetric.Metrics) request {
	return request{"metrics", pmetricotlp.NewExportRequestFromMetrics(data).MarshalProto}
}

// sets are the folders. Each is of one signal, so that each can be one stream.
var sets = []struct {
	name string
	make func() []request
}{
	{"logs-values", logValues},
	{"logs-dictionaries", logDictionaries},
	{"logs-late-columns", logLateColumns},
	{"traces-events-links", spanEventsLinks},
	{"traces-dictionary-reset", spanDictionaryReset},
	{"metrics-kinds", metricKinds},
}

func run() error {
	if len(os.Args) != 2 {
		return fmt.Errorf("usage: samples DIR")
	}
	for _, set := range sets {
		folder := filepath.Join(os.Args[1], set.name)
		if err := os.MkdirAll(folder, 0o755); err != nil {
			return err
		}
		for i, request := range set.make() {
			bytes, err := request.bytes()
			if err != nil {
				return err
			}
			name := fmt.Sprintf("%03d-%s.binpb", i, request.signal)
			if err := os.WriteFile(filepath.Join(folder, name), bytes, 0o644); err != nil {
				return err
			}
		}
	}
	return nil
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "samples:", err)
		os.Exit(1)
	}
}
