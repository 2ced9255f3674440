package privatedb

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
)

type manager struct {
	program string
	// update refreshes the package lists; nil where the manager does so itself.
	update []string
	// install is completed by one element of packages.
	install  []string
	packages [][]string
	// user managers must not be run as root.
	user bool
}

// managers: on Debian and Ubuntu the -core packages hold the server without its system service.
// Ubuntu 22.04 has them under a versioned name only.
func managers() []manager {
	return []manager{
		{
			program: "apt-get",
			update:  []string{"update", "-q"},
			install: []string{"install", "-q", "-y", "--no-install-recommends"},
			packages: [][]string{
				{"mariadb-server-core", "mariadb-client-core"},
				{"mariadb-server-core-10.6", "mariadb-client-core-10.6"},
			},
		},
		// dnf's mariadb-server brings a unit file; it is neither enabled nor started.
		{program: "dnf", install: []string{"install", "-y"}, packages: [][]string{{"mariadb-server"}}},
		{program: "brew", install: []string{"install"}, packages: [][]string{{"mariadb"}}, user: true},
	}
}

const byHand = "install MariaDB >= 10.6 or MySQL >= 8.0, or set UNIONBRIDGE_TEST_DSN to a server " +
	"on which schemas may be created"

// install brings MariaDB onto the machine with its own package manager, and says so first.
func install(ctx context.Context, h host) error {
	m, program := h.manager()
	if program == "" {
		return fmt.Errorf("%w, and none of apt-get, dnf, brew either; %s", errNotFound, byHand)
	}
	command := []string{program}
	switch {
	case h.root && m.user:
		return fmt.Errorf("%w, and %s does not work as root; %s", errNotFound, m.program, byHand)
	case !h.root && !m.user:
		sudo := h.look("sudo")
		if sudo == "" {
			return fmt.Errorf("%w; installing MariaDB with %s needs root, and sudo is not there; %s", errNotFound, m.program, byHand)
		}
		command = []string{sudo, program}
	}
	say := func(words []string) {
		_, _ = fmt.Fprintf(h.output, "privatedb: running %s\n", strings.Join(words, " "))
	}
	_, _ = fmt.Fprintf(h.output, "privatedb: %v; installing MariaDB with %s\n", errNotFound, m.program)

	if m.update != nil {
		words := slices.Concat(command, m.update)
		say(words)
		// A third-party list that does not answer must not stop the installation.
		if err := h.run(ctx, h.output, words[0], words[1:]...); err != nil {
			_, _ = fmt.Fprintf(h.output, "privatedb: %s: %v, going on\n", strings.Join(words, " "), err)
		}
	}
	var failures []error
	for _, packages := range m.packages {
		words := slices.Concat(command, m.install, packages)
		say(words)
		err := h.run(ctx, h.output, words[0], words[1:]...)
		if err == nil {
			return nil
		}
		failures = append(failures, fmt.Errorf("%s: %w", strings.Join(words, " "), err))
	}
	return fmt.Errorf("%w, and installing MariaDB did not work: %w; %s", errNotFound,
		errors.Join(failures...), byHand)
}

func (h host) manager() (manager, string) {
	for _, m := range managers() {
		if path := h.look(m.program); path != "" {
			return m, path
		}
	}
	return manager{}, ""
}
