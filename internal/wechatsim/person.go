package wechatsim

import "sync"

// Person is what can be set about a person in one account beyond following it.
type Person struct {
	Refuses     bool // switched messages off: 43101
	Blacklisted bool // on the account's blacklist: 43019
	Throttled   bool // had too many messages: 43117
	Risky       bool // cannot log in to a mini program: 40226
}

// personFlags holds the people about whom something was set.
type personFlags struct {
	mu  sync.RWMutex
	set map[int]Person
}

func (p *personFlags) of(person int) Person {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.set[person]
}

// SetPerson changes how sends to a person are answered.
func (s *Server) SetPerson(appid string, person int, state Person) {
	flags := &s.mustApp(appid).people
	flags.mu.Lock()
	defer flags.mu.Unlock()
	if flags.set == nil {
		flags.set = make(map[int]Person)
	}
	flags.set[person] = state
}
