// Command etcd is a real etcd server for tests: one member, small and quick to
// start, that a test can kill, freeze and start again on its data.
//
// It prints its client URL on standard output when it serves, and ends when its
// standard input does, so that it never outlives the test that started it.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"net/url"
	"os"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "etcd:", err)
		os.Exit(1)
	}
}

func run() error {
	cfg, err := configure()
	if err != nil {
		return err
	}
	etcd, err := embed.StartEtcd(cfg)
	if err != nil {
		return fmt.Errorf("starting: %w", err)
	}
	// Nothing closes etcd: that would wait for its clients, and a killed
	// server is what the tests are about.
	select {
	case <-etcd.Server.ReadyNotify():
	case err := <-etcd.Err():
		return fmt.Errorf("serving: %w", err)
	}
	fmt.Println(cfg.ListenClientUrls[0].Scheme + "://" + etcd.Clients[0].Addr().String())

	orphaned := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		close(orphaned)
	}()
	select {
	case <-orphaned:
		return nil
	case err := <-etcd.Err():
		return fmt.Errorf("serving: %w", err)
	}
}

// configure reads the flags. Their names are etcd's own where it has them.
func configure() (*embed.Config, error) {
	cfg := embed.NewConfig()
	cfg.UnsafeNoFsync = true // a test's data need not outlive the machine
	cfg.LogOutputs = []string{"stderr"}

	flag.StringVar(&cfg.Dir, "data-dir", "", "where the data lies")
	flag.StringVar(&cfg.LogLevel, "log-level", "warn", "what to log on standard error")
	flag.StringVar(&cfg.Name, "name", "test", "this member's name")
	flag.StringVar(&cfg.InitialCluster, "initial-cluster", "", "every member as name=peer URL, comma-separated (default this one)")
	flag.StringVar(&cfg.ClientTLSInfo.CertFile, "cert-file", "", "the client listener's certificate")
	flag.StringVar(&cfg.ClientTLSInfo.KeyFile, "key-file", "", "the certificate's key")
	flag.StringVar(&cfg.ClientTLSInfo.TrustedCAFile, "trusted-ca-file", "", "require client certificates that this CA signed")
	client := flag.String("listen-client-url", "http://127.0.0.1:0", "where clients connect")
	peer := flag.String("listen-peer-url", "http://127.0.0.1:0", "where members connect")
	tick := flag.Duration("tick", 50*time.Millisecond, "the raft tick; an election takes ten, a lease lasts fifteen at least")
	flag.Parse()

	if cfg.Dir == "" {
		return nil, errors.New("no -data-dir")
	}
	cfg.TickMs = uint(tick.Milliseconds())
	cfg.ElectionMs = 10 * cfg.TickMs
	cfg.ClientTLSInfo.ClientCertAuth = cfg.ClientTLSInfo.TrustedCAFile != ""
	clientURL, err := url.Parse(*client)
	if err != nil {
		return nil, fmt.Errorf("reading -listen-client-url: %w", err)
	}
	peerURL, err := url.Parse(*peer)
	if err != nil {
		return nil, fmt.Errorf("reading -listen-peer-url: %w", err)
	}
	cfg.ListenClientUrls, cfg.AdvertiseClientUrls = []url.URL{*clientURL}, []url.URL{*clientURL}
	cfg.ListenPeerUrls, cfg.AdvertisePeerUrls = []url.URL{*peerURL}, []url.URL{*peerURL}
	if cfg.InitialCluster == "" {
		cfg.InitialCluster = cfg.InitialClusterFromName(cfg.Name)
	}
	return cfg, nil
}
