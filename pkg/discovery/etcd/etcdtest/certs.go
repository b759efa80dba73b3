package etcdtest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// A CA signs certificates for one test.
type CA struct {
	tb   testing.TB
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	// File holds the CA's own certificate.
	File string
}

// NewCA makes an authority that only its test trusts.
func NewCA(tb testing.TB) *CA {
	tb.Helper()
	ca := &CA{tb: tb, dir: tb.TempDir()}
	ca.File = filepath.Join(ca.dir, "ca.pem")
	ca.Renew()
	return ca
}

// Renew gives the CA a new key and certificate, in the same file. Certificates that it
// has signed before are no longer trusted.
func (ca *CA) Renew() {
	ca.tb.Helper()
	ca.key = newKey(ca.tb)
	ca.cert = &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: "test CA"},
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(24 * time.Hour),
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign,
	}
	ca.sign(ca.cert, ca.key, ca.File)
}

// Issue makes a certificate for servers at host, which may be an IP address, and for
// clients. It is valid for a day. Issue returns the files of the certificate and its
// key; issuing for a host again replaces them.
func (ca *CA) Issue(host string) (certFile, keyFile string) {
	ca.tb.Helper()
	return ca.IssueUntil(host, time.Now().Add(24*time.Hour))
}

// IssueUntil is like Issue, for a certificate that expires at end.
func (ca *CA) IssueUntil(host string, end time.Time) (certFile, keyFile string) {
	ca.tb.Helper()
	key := newKey(ca.tb)
	cert := &x509.Certificate{
		SerialNumber: big.NewInt(2),
		Subject:      pkix.Name{CommonName: host},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     end,
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		DNSNames:     []string{host},
	}
	if ip := net.ParseIP(host); ip != nil {
		cert.DNSNames, cert.IPAddresses = nil, []net.IP{ip}
	}
	certFile = filepath.Join(ca.dir, host+".pem")
	keyFile = filepath.Join(ca.dir, host+"-key.pem")
	ca.sign(cert, key, certFile)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		ca.tb.Fatal(err)
	}
	ca.write(keyFile, "PRIVATE KEY", der)
	return certFile, keyFile
}

func (ca *CA) sign(cert *x509.Certificate, key *ecdsa.PrivateKey, file string) {
	ca.tb.Helper()
	der, err := x509.CreateCertificate(rand.Reader, cert, ca.cert, &key.PublicKey, ca.key)
	if err != nil {
		ca.tb.Fatal(err)
	}
	ca.write(file, "CERTIFICATE", der)
}

func (ca *CA) write(file, kind string, der []byte) {
	ca.tb.Helper()
	content := pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
	if err := os.WriteFile(file, content, 0o600); err != nil {
		ca.tb.Fatal(err)
	}
}

func newKey(tb testing.TB) *ecdsa.PrivateKey {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	return key
}
