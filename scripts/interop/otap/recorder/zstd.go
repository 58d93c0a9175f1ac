package main

import (
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
	"google.golang.org/grpc/encoding"
	_ "google.golang.org/grpc/encoding/gzip" // Registers itself.
)

// zstdNamed is plain zstd under the name that a client gives it.
type zstdNamed string

func (name zstdNamed) Name() string { return string(name) }
func (zstdNamed) Compress(to io.Writer) (io.WriteCloser, error) {
	return zstd.NewWriter(to)
}
func (zstdNamed) Decompress(from io.Reader) (io.Reader, error) {
	decoder, err := zstd.NewReader(from, zstd.WithDecoderConcurrency(1))
	if err != nil {
		return nil, err
	}
	return decoder.IOReadCloser(), nil
}

// The exporter names its gRPC compression after its level.
func init() {
	encoding.RegisterCompressor(zstdNamed("zstd"))
	for level := 1; level <= 10; level++ {
		encoding.RegisterCompressor(zstdNamed(fmt.Sprintf("zstdarrow%d", level)))
	}
}
