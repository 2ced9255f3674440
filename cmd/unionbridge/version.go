package main

import (
	"cmp"
	"fmt"
	"runtime/debug"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"
)

// version and commit are set by the release build: -ldflags "-X main.version=v1.2.3 -X
// main.commit=…". Variables, because the linker can set nothing else.
var (
	version string
	commit  string //nolint:gochecknoglobals // the linker can set nothing else
)

type build struct{ version, commit, goVersion string }

func buildInfo() build {
	b := build{version: cmp.Or(version, "development"), commit: cmp.Or(commit, "unknown")}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return b
	}
	b.goVersion = info.GoVersion
	if version == "" && info.Main.Version != "" && info.Main.Version != "(devel)" {
		b.version = info.Main.Version // go install …@v1.2.3
	}
	settings := make(map[string]string, len(info.Settings))
	for _, s := range info.Settings {
		settings[s.Key] = s.Value
	}
	if revision := settings["vcs.revision"]; revision != "" {
		b.commit = revision[:min(12, len(revision))]
	}
	if settings["vcs.modified"] == "true" {
		b.commit += " and changes"
	}
	return b
}

func (b build) String() string {
	return fmt.Sprintf("unionbridge %s, commit %s, %s", b.version, b.commit, b.goVersion)
}

// collector is the usual metric that is always 1 and carries the build in its labels.
func (b build) collector() prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "unionbridge_build_info", Help: "Always 1; the labels say what is running.",
		ConstLabels: prometheus.Labels{"version": b.version, "commit": b.commit, "go": b.goVersion},
	}, func() float64 { return 1 })
}

func (c *cli) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print version, commit and Go version",
		Args:  cobra.NoArgs,
		RunE: c.work(func(*cobra.Command, []string) error {
			_, err := fmt.Fprintln(c.stdout, buildInfo())
			return err
		}),
	}
}
