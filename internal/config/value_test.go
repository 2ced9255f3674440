package config

import (
	"testing"
	"time"

	"github.com/goccy/go-yaml"
)

func TestParseDuration(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"30s": 30 * time.Second, "1h30m": 90 * time.Minute, "250ms": 250 * time.Millisecond,
		"-1h": -time.Hour, "0s": 0,
	} {
		if got, err := parseDuration(text); err != nil || got != want {
			t.Errorf("parseDuration(%s) = %s, %v; want %s", text, got, err, want)
		}
	}
	for _, text := range []string{"", "30", "0", "1.5", "30 s", "3d", "s"} {
		if got, err := parseDuration(text); err == nil {
			t.Errorf("parseDuration(%q) = %s, want an error", text, got)
		}
	}
}

func TestParsePercent(t *testing.T) {
	//nolint:gocritic // the blanks are what is tested
	for text, want := range map[string]Percent{"5%": 5, "0%": 0, "100%": 100, "0.5%": 0.5, " 5 % ": 5} {
		if got, err := parsePercent(text); err != nil || got != want {
			t.Errorf("parsePercent(%q) = %s, %v; want %s", text, got, err, want)
		}
	}
	for _, text := range []string{"", "%", "5", "0.05", "5%%", "-1%", "100.1%", "NaN%", "Inf%",
		"five%"} {
		if got, err := parsePercent(text); err == nil {
			t.Errorf("parsePercent(%q) = %s, want an error", text, got)
		}
	}
	if got := Percent(5).Fraction(); got != 0.05 {
		t.Errorf("Fraction() = %v", got)
	}
}

func TestValuesOutsideLoad(t *testing.T) {
	var out struct{ Wait Duration }
	if err := yaml.Unmarshal([]byte("wait: 30m"), &out); err != nil || out.Wait.Std() != 30*time.Minute {
		t.Errorf("%v, %v", out.Wait, err)
	}
	if err := yaml.Unmarshal([]byte("wait: 30"), &out); err == nil {
		t.Error("a duration without a unit is accepted outside Load")
	}
}
