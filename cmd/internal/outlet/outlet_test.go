package outlet

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// TestOutletSlowReader gives a reader who is slow, and lives, everything in order,
// also after the end of what it is written for.
func TestOutletSlowReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, w := io.Pipe()
		o := NewAnswers(w)
		var got strings.Builder
		var reading sync.WaitGroup
		reading.Go(func() {
			buf := make([]byte, outletBuffer)
			for {
				time.Sleep(lastWrite * 9 / 10)
				n, err := r.Read(buf)
				if err != nil {
					return
				}
				got.Write(buf[:n])
			}
		})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var want strings.Builder
		for i := range 100_000 {
			line := fmt.Sprintln(i)
			want.WriteString(line)
			if err := o.Put(ctx, []byte(line)); err != nil {
				t.Fatal(err)
			}
			if i == 50_000 {
				cancel()
			}
		}
		if err := o.Flush(ctx); err != nil {
			t.Error(err)
		}
		o.Close()
		_ = w.Close()
		reading.Wait()
		if got.String() != want.String() {
			t.Errorf("the reader has %d bytes of %d", got.Len(), want.Len())
		}
	})
}

// TestOutletNobodyReads gives up a write lastWrite after the end of its context,
// and at once what comes then.
func TestOutletNobodyReads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, w := io.Pipe()
		o := NewAnswers(w)
		ctx, cancel := context.WithCancel(t.Context())
		if err := errors.Join(o.Put(ctx, []byte("one")), o.Put(ctx, []byte("two"))); err != nil {
			t.Fatal(err)
		}
		time.AfterFunc(time.Hour, cancel)
		began := time.Now()
		if err := o.Flush(ctx); !errors.Is(err, errNotRead) || time.Since(began) != time.Hour+lastWrite {
			t.Errorf("after %v: %v", time.Since(began), err)
		}
		if err := o.Flush(ctx); !errors.Is(err, errNotRead) || time.Since(began) != time.Hour+lastWrite {
			t.Errorf("again, after %v: %v", time.Since(began), err)
		}
		o.Close()
		_ = r.Close()
	})
}

// TestOutletOfLog drops what nobody reads, and goes on when somebody does.
func TestOutletOfLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, w := io.Pipe()
		o := NewLog(w)
		line := []byte(strings.Repeat("x", 999) + "\n")
		began := time.Now()
		dropped := 0
		for range 100 {
			if _, err := o.Write(line); err != nil {
				dropped++
			}
		}
		if took := time.Since(began); took != lastWrite || dropped == 0 {
			t.Errorf("100 lines took %v, %d were dropped", took, dropped)
		}
		go func() { _, _ = io.Copy(io.Discard, r) }()
		synctest.Wait()
		if _, err := o.Write(line); err != nil {
			t.Errorf("the reader is back: %v", err)
		}
		o.Close()
		_ = r.Close()
	})
}

// TestOutletFails stops at the first write that fails, unless it is a log's.
func TestOutletFails(t *testing.T) {
	full := errors.New("no space left")
	for name, o := range map[string]*Outlet{
		"answers": NewAnswers(failing{full}), "log": NewLog(failing{full}),
	} {
		_, err := o.Write([]byte("one"))
		_, again := o.Write([]byte("two"))
		if name == "log" {
			if err != nil || again != nil {
				t.Errorf("%s: %v, %v", name, err, again)
			}
		} else if !errors.Is(err, full) || !errors.Is(again, full) {
			t.Errorf("%s: %v, %v", name, err, again)
		}
		o.Close()
	}
}

type failing struct{ err error }

// Write implements [io.Writer].
func (f failing) Write([]byte) (int, error) { return 0, f.err }
