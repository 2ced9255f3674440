package web

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"
)

// Certificate is a TLS certificate in two PEM files, which is read again when they change: those
// who renew certificates every few weeks do not restart daemons. Make it with LoadCertificate.
type Certificate struct {
	certFile, keyFile string
	log               *slog.Logger

	mu      sync.Mutex
	current *tls.Certificate
	stamps  [2]stamp // of the files that were read last, good or bad
}

type stamp struct {
	modified time.Time
	size     int64
}

// LoadCertificate reads the certificate and its key.
func LoadCertificate(certFile, keyFile string, log *slog.Logger) (*Certificate, error) {
	c := &Certificate{certFile: certFile, keyFile: keyFile, log: log}
	stamps, err := c.look()
	if err == nil {
		err = c.read(stamps)
	}
	if err != nil {
		return nil, fmt.Errorf("reading the certificate (http.api_tls): %w", err)
	}
	return c, nil
}

// Config returns the settings of a server with this certificate.
func (c *Certificate) Config() *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: c.get}
}

// get is asked at each handshake. What cannot be read changes nothing: of two files one is written
// first, and the two fit again a moment later.
func (c *Certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	stamps, err := c.look()
	if err == nil && stamps != c.stamps {
		if err = c.read(stamps); err == nil {
			c.log.Info("the certificate was read again", "file", c.certFile)
		} else {
			c.log.Warn("the changed certificate cannot be used, the one before it stays", "err", err)
		}
	}
	return c.current, nil
}

func (c *Certificate) look() (stamps [2]stamp, err error) {
	for i, name := range []string{c.certFile, c.keyFile} {
		info, serr := os.Stat(name)
		if serr != nil {
			err = errors.Join(err, serr)
			continue
		}
		stamps[i] = stamp{info.ModTime(), info.Size()}
	}
	return stamps, err
}

func (c *Certificate) read(stamps [2]stamp) error {
	c.stamps = stamps
	pair, err := tls.LoadX509KeyPair(c.certFile, c.keyFile)
	if err != nil {
		return err
	}
	c.current = &pair
	return nil
}
