package wechatsim

import (
	"strings"
	"testing"
)

// Ten million people, every 97th of them: openid and back.
func TestIDRoundTrip(t *testing.T) {
	codec, other := newIDCodec(7, "a"), newIDCodec(7, "b")
	last := make(map[byte]bool)
	for person := 0; person < 10_000_000; person += 97 {
		id := codec.id(person)
		if !wellFormedID([]byte(id)) {
			t.Fatalf("person %d has the malformed id %q", person, id)
		}
		if got, ok := codec.person([]byte(id)); !ok || got != person {
			t.Fatalf("id of person %d belongs to %d (%v)", person, got, ok)
		}
		if _, ok := other.person([]byte(id)); ok {
			t.Fatalf("id %q belongs to two accounts", id)
		}
		last[id[27]] = true
	}
	if len(last) != 64 {
		t.Errorf("the last character takes %d values, want 64", len(last))
	}
}

// A changed character never makes another person's id, not even one of another case.
func TestIDTampering(t *testing.T) {
	codec := newIDCodec(7, "a")
	for person := range 200 {
		id := codec.id(person)
		for at := range len(id) {
			for _, char := range "aAzZ09-_" {
				tampered := id[:at] + string(char) + id[at+1:]
				if got, ok := codec.person([]byte(tampered)); ok != (tampered == id) {
					t.Fatalf("%q belongs to %d, made from %q", tampered, got, id)
				}
			}
		}
		if _, ok := codec.person([]byte(strings.ToUpper(id))); ok {
			t.Fatalf("%q resolves in upper case", id)
		}
	}
}

func FuzzScanner(f *testing.F) {
	for _, seed := range []string{`{"a":[1,-2.5e3,true,null,"x\u00e9\n"]}`, `{}`, `[`, `{"a":}`,
		`"`, `{"a":1,}`, `["\0"]`, `["\u12x4"]`, `["\`, "\"\x01\""} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		in := scanner{b: text}
		in.value()
		if in.end() && !jsonValid(text) {
			t.Errorf("%q passes for JSON", text)
		}
		if !in.end() && jsonValid(text) {
			t.Errorf("%q is refused", text)
		}
	})
}
