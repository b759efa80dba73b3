package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/request-migration/migrate/cmd/internal/term"
	"github.com/request-migration/migrate/pkg/discovery"
	"github.com/request-migration/migrate/pkg/discovery/etcd"
	"github.com/request-migration/migrate/pkg/discovery/file"
)

func storeNames() []string { return []string{"file", "etcd", "mem"} }

// OpenStore opens the store that was chosen.
func (c *Common) OpenStore(ctx context.Context) (discovery.Store, error) {
	log := c.Logs.For("discovery")
	switch c.Store {
	case "file":
		dir := c.fileDir
		if !c.fileSet {
			dir = "" // the same, but used only where no other user can write
		}
		return file.Open(file.Config{Dir: dir, Logger: log})
	case "etcd":
		ttl, err := leaseTTL(os.Getenv("ETCD_LEASE_TTL"))
		if err != nil {
			return nil, UsageError(err)
		}
		// Secrets and their files come from the environment alone, where other
		// users' process lists do not show them.
		return etcd.Open(ctx, etcd.Config{
			Endpoints: c.etcd,
			Username:  os.Getenv("ETCD_AUTH_USERNAME"),
			Password:  os.Getenv("ETCD_AUTH_PASSWORD"),
			CAFile:    os.Getenv("ETCD_AUTH_CA"),
			CertFile:  os.Getenv("ETCD_AUTH_CLIENT_CERT"),
			KeyFile:   os.Getenv("ETCD_AUTH_CLIENT_KEY"),
			LeaseTTL:  ttl,
			Logger:    log,
		})
	case "mem":
		return discovery.NewMem(), nil
	}
	return nil, fmt.Errorf("unknown store %q", c.Store)
}

// Where says which store was chosen, and where that looks.
func (c *Common) Where() string {
	switch c.Store {
	case "file":
		dir, err := filepath.Abs(c.fileDir)
		if err != nil {
			dir = c.fileDir
		}
		return "the file store at " + dir
	case "etcd":
		return "etcd at " + strings.Join(c.etcd, ", ")
	}
	return "the " + c.Store + " store of this process"
}

// LeaveStore closes a store. What can't be undone in it now expires with its
// lease: that, and what was undone before, is worth a warning, and no failure of
// what the command was asked for.
func (c *Common) LeaveStore(component string, store discovery.Store, undone error) {
	if err := errors.Join(undone, store.Close()); err != nil {
		c.Logs.For(component).Warn("Could not leave the store in order", "err", term.OneLine(err.Error()))
	}
}

// leaseTTL reads a time to live: seconds, as Dynamo's settings have them, or a
// duration. "" means the default.
func leaseTTL(s string) (time.Duration, error) {
	if s == "" {
		return 0, nil
	}
	ttl, err := time.ParseDuration(s)
	if n, errN := strconv.Atoi(s); errN == nil {
		ttl, err = time.Duration(n)*time.Second, nil
	}
	if err != nil || ttl < time.Second {
		return 0, fmt.Errorf("ETCD_LEASE_TTL %q: must be seconds (10) or a duration (10s), one second at least", s)
	}
	return ttl, nil
}
