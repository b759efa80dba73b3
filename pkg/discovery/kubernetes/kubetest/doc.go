// Package kubetest runs a real Kubernetes API server for tests: one process beside an
// etcd, without nodes. A test can kill it, freeze it and start it again.
//
// Its programs are those of testdata/kubernetes, which `make test-kubernetes` builds; a
// test that needs them is skipped unless MIGRATE_KUBERNETES names their folder.
package kubetest
