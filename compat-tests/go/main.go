// Client programs for three Go clients: `compat franz|sarama|kafkago`, against $BOOTSTRAP.
// Each case prints `ok NAME` or `FAIL NAME` (read by env.sh).
package main

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"reflect"
	"strconv"
	"time"
)

var bootstrap = os.Getenv("BOOTSTRAP")

// How many brokers there are, and how many replicas a partition gets: 1 or 3.
var replication, _ = strconv.Atoi(os.Getenv("REPLICATION"))

type testCase struct {
	name string
	run  func() error
}

var cases = map[string][]testCase{}

func add(client, name string, run func() error) {
	cases[client] = append(cases[client], testCase{name, run})
}

func unique(prefix string) string {
	suffix := make([]byte, 4)
	_, _ = rand.Read(suffix)
	return prefix + "-" + hex.EncodeToString(suffix)
}

func equal(what string, got, want any) error {
	if !reflect.DeepEqual(got, want) {
		return fmt.Errorf("%s: got %v, want %v", what, got, want)
	}
	return nil
}

func refused(want, got error) error {
	if !errors.Is(got, want) {
		return fmt.Errorf("got %v, want %v", got, want)
	}
	return nil
}

func eventually(what string, seconds int, condition func() bool) error {
	for end := time.Now().Add(time.Duration(seconds) * time.Second); time.Now().Before(end); {
		if condition() {
			return nil
		}
		time.Sleep(100 * time.Millisecond)
	}
	return fmt.Errorf("not within %d s: %s", seconds, what)
}

// exactlyOnce checks that every "partition/offset" of partitions x each was seen once.
func exactlyOnce(seen []string, partitions, each int) error {
	counts := map[string]int{}
	for _, at := range seen {
		counts[at]++
	}
	for p := range partitions {
		for o := range each {
			if at := fmt.Sprintf("%d/%d", p, o); counts[at] != 1 {
				return fmt.Errorf("%s was read %d times", at, counts[at])
			}
		}
	}
	return equal("records", len(seen), partitions*each)
}

func main() {
	failed := false
	for _, c := range cases[os.Args[1]] {
		if len(os.Args) > 2 && os.Args[2] != c.name {
			continue
		}
		start := time.Now()
		done := make(chan error, 1)
		go func() { done <- c.run() }()
		var err error
		select {
		case err = <-done:
		case <-time.After(60 * time.Second):
			err = errors.New("not done within 60 s")
		}
		if err != nil {
			failed = true
			fmt.Printf("FAIL %s\n", c.name)
			fmt.Fprintf(os.Stderr, "%s: %v\n", c.name, err)
			continue
		}
		fmt.Printf("ok %s (%.1f s)\n", c.name, time.Since(start).Seconds())
	}
	if failed {
		os.Exit(1)
	}
}
