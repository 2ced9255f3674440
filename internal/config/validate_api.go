package config

import (
	"crypto/tls"
	"fmt"
	"net"
	"net/netip"
)

// APITLS is the certificate of http.api_listen, in PEM. It is read again when the files change.
type APITLS struct {
	CertFile string `yaml:"cert_file"` // with the certificates between it and the root
	KeyFile  string `yaml:"key_file"`
}

func (t APITLS) given() bool { return t.CertFile != "" || t.KeyFile != "" }

// apiTLS makes the two paths absolute, and looks whether they hold a certificate and its key.
func (r *resolver) apiTLS(t *APITLS) {
	const path = "http.api_tls"
	switch {
	case !t.given():
		return
	case t.CertFile == "":
		r.problems.add(path+".cert_file", "missing; name the certificate of key_file")
		return
	case t.KeyFile == "":
		r.problems.add(path+".key_file", "missing; name the key of cert_file")
		return
	}
	const cure = "name the PEM file that the certificate's issuer gave out, or made"
	cert, _, certRead := r.file(path+".cert_file", t.CertFile, cure)
	key, mode, keyRead := r.file(path+".key_file", t.KeyFile, cure)
	if !certRead || !keyRead {
		return
	}
	t.CertFile, _ = r.locate(t.CertFile)
	keyFile, credential := r.locate(t.KeyFile)
	t.KeyFile = keyFile
	if _, err := tls.X509KeyPair(cert, key); err != nil {
		r.problems.add(path, "the two files hold no certificate with its key: %w", err)
	}
	if readableByAll(mode) && !credential {
		r.warnings = append(r.warnings, fmt.Sprintf("%s.key_file: every user of this machine can read "+
			"%s (mode %04o): chmod 640", path, keyFile, mode.Perm()))
	}
}

// validateAPI refuses what would send the applications' secrets, or messages, in the clear.
func validateAPI(cfg *Config, ps *problems) {
	h := &cfg.HTTP
	h.APIProxyFrom = validateNetworks("http.api_proxy_from", h.APIProxyFrom, ps)
	if h.APIListen == "" {
		refuseAPIKeys(h, ps)
		return
	}
	const path = "http.api_listen"
	validateListen(path, h.APIListen, ps)
	host, port, err := net.SplitHostPort(h.APIListen)
	if err != nil {
		return // reported
	}
	if port != "0" && (h.APIListen == h.Listen || h.APIListen == h.CallbackListen) {
		ps.add(path, "is the same address as another of http's; choose another port")
	}
	addr, _ := netip.ParseAddr(host)
	switch {
	case h.APITLS.given() && h.APIPlain:
		ps.add("http.api_plain", "means a listener without TLS; remove it, or api_tls")
	case h.APITLS.given() || loopback(host):
	case !h.APIPlain:
		ps.add(path, "%s is open to other machines, and secrets would travel in the clear; set "+
			"api_tls, or listen on 127.0.0.1, or on a private address with api_plain: true and with "+
			"networks for each application", quote(h.APIListen))
	case !addr.Unmap().IsPrivate():
		ps.add(path, "%s is no private address; api_plain needs one, such as 10.0.0.5:8082: name this "+
			"machine's, or set api_tls", quote(h.APIListen))
	default:
		requireNetworks(cfg, ps)
	}
}

func refuseAPIKeys(h *HTTP, ps *problems) {
	for key, given := range map[string]bool{"api_tls": h.APITLS.given(), "api_plain": h.APIPlain,
		"api_proxy_from": len(h.APIProxyFrom) > 0} {
		if given {
			ps.add("http."+key, "belongs to api_listen; set that, or remove this line")
		}
	}
}

func requireNetworks(cfg *Config, ps *problems) {
	for i, a := range cfg.Applications {
		path := fmt.Sprintf("applications[%d].networks", i)
		if len(a.Networks) == 0 && !a.Disabled {
			ps.add(path, "missing; with http.api_plain each application must say where it calls from, "+
				"such as [10.0.0.0/8]")
		}
		for _, network := range a.Networks {
			if p, err := netip.ParsePrefix(network); err == nil && p.Bits() == 0 {
				ps.add(path, "%s is everywhere; with http.api_plain it must be less, such as 10.0.0.0/8",
					network)
			}
		}
	}
}

// validateNetworks returns the networks in the form of [netip.ParsePrefix].
func validateNetworks(path string, networks []string, ps *problems) (list []string) {
	for i, text := range networks {
		at := fmt.Sprintf("%s[%d]", path, i)
		prefix, err := netip.ParsePrefix(text)
		if addr, aerr := netip.ParseAddr(text); aerr == nil && addr.Zone() == "" {
			prefix, err = netip.PrefixFrom(addr, addr.BitLen()), nil
		}
		switch {
		case err != nil:
			ps.add(at, "%s is neither a network such as 10.0.0.0/8 nor an address", quote(text))
		case prefix.Addr().Is4In6():
			ps.add(at, "%s is an IPv4 network in IPv6's form; write it as IPv4", quote(text))
		case prefix != prefix.Masked():
			ps.add(at, "%s has bits behind its mask; write %s, or %s for that one address", quote(text),
				prefix.Masked(), prefix.Addr())
		default:
			list = append(list, prefix.String())
		}
	}
	return list
}
