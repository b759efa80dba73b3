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
	"github.com/request-migration/migrate/pkg/discovery/kubernetes"
)

func storeNames() []string { return []string{"file", "etcd", "kubernetes", "mem"} }

// OpenStore opens the store that --store-kv names.
func (c *Common) OpenStore(ctx context.Context) (discovery.Store, error) {
	log := c.Logs.For("discovery")
	switch c.Store {
	case "file":
		dir := c.fileDir
		if !c.fileSet {
			dir = "" // the same directory, but only if no other user can write to it
		}
		return file.Open(file.Config{Dir: dir, Logger: log})
	case "etcd":
		ttl, err := leaseTTL(os.Getenv("ETCD_LEASE_TTL"))
		if err != nil {
			return nil, UsageError(err)
		}
		// Secrets and the names of their files come from the environment only: other
		// users can see a command line in the list of processes.
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
	case "kubernetes":
		pod := c.pod()
		if (pod.name == "") != (pod.uid == "") {
			log.Warn("The records do not belong to the Pod, and are not deleted with it: POD_NAME and POD_UID are needed both")
			pod.name, pod.uid = "", ""
		}
		store, err := kubernetes.Open(ctx, kubernetes.Config{
			Namespace: pod.namespace, PodName: pod.name, PodUID: pod.uid, Logger: log,
		})
		if err != nil {
			return nil, err
		}
		c.namespace = store.Namespace()
		return store, nil
	case "mem":
		return new(discovery.Mem), nil
	}
	return nil, fmt.Errorf("unknown store %q", c.Store)
}

// Where describes the store for messages: its kind, and its directory or addresses.
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
	case "kubernetes":
		return "Kubernetes, namespace " + c.namespace
	}
	return "the " + c.Store + " store of this process"
}

// A pod is who this process is in Kubernetes, as the downward API tells it.
type pod struct{ name, uid, namespace, ip string }

func (c *Common) pod() pod {
	if c.Store != "kubernetes" {
		return pod{}
	}
	return pod{os.Getenv("POD_NAME"), os.Getenv("POD_UID"), os.Getenv("POD_NAMESPACE"), os.Getenv("POD_IP")}
}

// PodIP returns the address by which others reach this Pod, or "" if the store is not
// Kubernetes or nobody has set POD_IP.
func (c *Common) PodIP() string { return c.pod().ip }

// LeaveStore closes a store. Records that could not be deleted from it (undone says why)
// expire with their lease: that is worth a warning, but the command has not failed.
func (c *Common) LeaveStore(component string, store discovery.Store, undone error) {
	if err := errors.Join(undone, store.Close()); err != nil {
		c.Logs.For(component).Warn("Could not leave the store in order", "err", term.OneLine(err.Error()))
	}
}

// leaseTTL parses a time to live: a number of seconds, as in Dynamo's settings, or a
// duration. "" is 0, which stands for the default.
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
