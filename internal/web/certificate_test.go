package web

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"log/slog"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// writePair writes a new certificate and its key. The serial number says which one it is.
func writePair(t *testing.T, certFile, keyFile string, serial int64) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(serial)}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	encoded, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{
		certFile: {Type: "CERTIFICATE", Bytes: cert}, keyFile: {Type: "PRIVATE KEY", Bytes: encoded},
	} {
		if name == "" {
			continue
		}
		if err := os.WriteFile(name, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
		// Two writes within the clock's step, of one size, would look alike.
		moment := time.Unix(1_700_000_000+serial, 0)
		if err := os.Chtimes(name, moment, moment); err != nil {
			t.Fatal(err)
		}
	}
}

// TestCertificate: a renewed certificate is served from the next handshake on, and one that is
// half written, wrong or gone does not end the one before it.
func TestCertificate(t *testing.T) {
	dir := t.TempDir()
	certFile, keyFile := filepath.Join(dir, "c"), filepath.Join(dir, "k")
	if _, err := LoadCertificate(certFile, keyFile, slog.New(slog.DiscardHandler)); err == nil {
		t.Error("no error where there are no files")
	}
	writePair(t, certFile, keyFile, 1)
	c, err := LoadCertificate(certFile, keyFile, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	check := func(what string, want int64) {
		t.Helper()
		pair, err := c.Config().GetCertificate(nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := pair.Leaf.SerialNumber.Int64(); got != want {
			t.Errorf("%s: certificate %d, want %d", what, got, want)
		}
	}
	check("at the start", 1)
	writePair(t, certFile, keyFile, 2)
	check("renewed", 2)
	writePair(t, certFile, "", 3)
	check("with the key of the one before", 2)
	writePair(t, certFile, keyFile, 4)
	check("with its own key", 4)
	if err := os.Remove(keyFile); err != nil {
		t.Fatal(err)
	}
	check("without a file", 4)
	writePair(t, certFile, keyFile, 5)
	check("back", 5)
}
