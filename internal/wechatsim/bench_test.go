package wechatsim

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// The figures the simulator must reach so that it is never the bottleneck: 25,000 sends and 2,000
// full batchgets a second on two cores. The handler benchmarks leave HTTP out; the loopback ones
// have all of it, with a client that costs little: ready-made requests on keep-alive connections,
// several written at a time, answers skipped by their Content-Length.

func benchServer(b *testing.B) (*Server, string) {
	b.Helper()
	s := New(func() Options {
		o := Standard(1_000_000, 0, 0)
		o.Keep = KeepHeads
		o.Accounts[0].DailyLimits = NoDailyLimits()
		return o
	}())
	b.Cleanup(s.Close)
	return s, fetchToken(b, s, StandardAppID, StandardSecret)
}

// discard is a ResponseWriter that costs nothing.
type discard struct {
	header http.Header
	bytes  int
}

func (d *discard) Header() http.Header { return d.header }
func (d *discard) WriteHeader(int)     {}
func (d *discard) Write(p []byte) (int, error) {
	d.bytes += len(p)
	return len(p), nil
}

func benchHandler(b *testing.B, s *Server, method, target string, body func(i int) string) {
	bodies := make([]string, 256)
	for i := range bodies {
		bodies[i] = body(i)
	}
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		w := &discard{header: make(http.Header)}
		r := httptest.NewRequest(method, target, http.NoBody)
		for i := 0; pb.Next(); i++ {
			text := bodies[i%len(bodies)]
			r.Body, r.ContentLength = io.NopCloser(strings.NewReader(text)), int64(len(text))
			s.ServeHTTP(w, r)
		}
	})
	if len(s.Stats().Errors) > 0 {
		b.Fatalf("errors: %v", s.Stats().Errors)
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "calls/s")
}

func BenchmarkHandlerSend(b *testing.B) {
	s, token := benchServer(b)
	benchHandler(b, s, http.MethodPost, pathSend+"?access_token="+token, func(i int) string {
		return sendBody(s, i, "")
	})
}

func BenchmarkHandlerBatch(b *testing.B) {
	s, token := benchServer(b)
	benchHandler(b, s, http.MethodPost, pathBatchInfo+"?access_token="+token, func(i int) string {
		return fullBatch(s, i)
	})
}

func BenchmarkHandlerList(b *testing.B) {
	s, token := benchServer(b)
	benchHandler(b, s, http.MethodGet, pathUserGet+"?access_token="+token, func(int) string {
		return ""
	})
}

func fullBatch(s *Server, i int) string {
	openids := make([]string, maxBatch)
	for k := range openids {
		openids[k] = s.OpenID(StandardAppID, i*maxBatch+k)
	}
	return batchBody(openids...)
}

// Each send has a client_msg_id of its own, as those of the product do.
func BenchmarkLoopbackSend(b *testing.B) {
	for _, pipeline := range []int{1, 16} {
		b.Run(fmt.Sprintf("pipeline=%d", pipeline), func(b *testing.B) {
			s, token := benchServer(b)
			benchLoopback(b, s, pipeline, func(out []byte, worker, i int) []byte {
				body := sendBody(s, i%1_000_000, fmt.Sprintf("%d-%d", worker, i))
				return appendRequest(out, pathSend+"?access_token="+token, body)
			})
		})
	}
}

func BenchmarkLoopbackBatch(b *testing.B) {
	s, token := benchServer(b)
	bodies := make([]string, 64)
	for i := range bodies {
		bodies[i] = fullBatch(s, i)
	}
	benchLoopback(b, s, 1, func(out []byte, _, i int) []byte {
		return appendRequest(out, pathBatchInfo+"?access_token="+token, bodies[i%len(bodies)])
	})
}

func appendRequest(out []byte, target, body string) []byte {
	out = append(out, "POST "+target+" HTTP/1.1\r\nHost: sim\r\nContent-Length: "...)
	out = strconv.AppendInt(out, int64(len(body)), 10)
	out = append(out, "\r\n\r\n"...)
	return append(out, body...)
}

const benchConnections = 8

func benchLoopback(b *testing.B, s *Server, pipeline int,
	render func(out []byte, worker, i int) []byte) {
	web := httptest.NewServer(s)
	defer web.Close()
	address := web.Listener.Addr().String()
	var all sync.WaitGroup
	b.ResetTimer()
	for worker := range benchConnections {
		calls := b.N / benchConnections
		if worker < b.N%benchConnections {
			calls++
		}
		all.Go(func() {
			if err := pump(address, calls, pipeline,
				func(out []byte, i int) []byte { return render(out, worker, i) }); err != nil {
				b.Error(err)
			}
		})
	}
	all.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "calls/s")
	stats := s.Stats()
	if len(stats.Errors) > 0 {
		b.Fatalf("errors: %v", stats.Errors)
	}
	if sent := stats.Calls[pathSend]; stats.Delivered[StandardAppID] != sent ||
		sent+stats.Calls[pathBatchInfo] != int64(b.N) {
		b.Fatalf("%d delivered, calls %v, want %d", stats.Delivered[StandardAppID], stats.Calls,
			b.N)
	}
}

// pump makes calls on one connection, up to pipeline of them written before their answers are read.
func pump(address string, calls, pipeline int, render func(out []byte, i int) []byte) error {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	in := bufio.NewReaderSize(conn, 128<<10)
	var out []byte
	for done := 0; done < calls; {
		out = out[:0]
		round := min(pipeline, calls-done)
		for i := range round {
			out = render(out, done+i)
		}
		if _, err := conn.Write(out); err != nil {
			return err
		}
		for range round {
			if err := skipAnswer(in); err != nil {
				return err
			}
		}
		done += round
	}
	return nil
}

func skipAnswer(in *bufio.Reader) error {
	length := -1
	for first := true; ; first = false {
		line, err := in.ReadSlice('\n')
		if err != nil {
			return err
		}
		if first && !bytes.Contains(line, []byte(" 200 ")) {
			return fmt.Errorf("answer %q", line)
		}
		if value, ok := bytes.CutPrefix(line, []byte("Content-Length: ")); ok {
			if length, err = strconv.Atoi(string(bytes.TrimSpace(value))); err != nil {
				return err
			}
		}
		if len(bytes.TrimSpace(line)) == 0 {
			break
		}
	}
	if length < 0 {
		return fmt.Errorf("an answer has no Content-Length")
	}
	_, err := in.Discard(length)
	return err
}
