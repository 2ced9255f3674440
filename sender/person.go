package sender

import "sync"

// people lets one message at a time go to each person: WeChat refuses the second of two that are
// under way together. The lease of the account keeps other instances out. The zero value is ready.
type people struct {
	mu     sync.Mutex
	behind map[string][]*job // openid of a message under way → the messages that come after it
	length int               // of all that stand behind another
}

// enter reports whether a job may go now. Otherwise it stands behind another of the same person,
// and the sender of that one gets it from leave: no sender waits for another.
func (p *people) enter(j *job) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.behind == nil {
		p.behind = make(map[string][]*job)
	}
	openid := j.address.OpenID
	others, busy := p.behind[openid]
	if busy {
		p.behind[openid] = append(others, j)
		p.length++
		return false
	}
	p.behind[openid] = nil
	return true
}

// leave ends the turn of a job that entered, and returns the one whose turn it is then; nil: none.
// An urgent one is first.
func (p *people) leave(j *job) *job {
	p.mu.Lock()
	defer p.mu.Unlock()
	openid := j.address.OpenID
	others := p.behind[openid]
	if len(others) == 0 {
		delete(p.behind, openid)
		return nil
	}
	first := 0
	for i, other := range others {
		if other.row.Priority == priorityUrgent {
			first = i
			break
		}
	}
	next := others[first]
	p.behind[openid] = append(others[:first:first], others[first+1:]...)
	p.length--
	return next
}

// waiting is how many jobs stand behind another.
func (p *people) waiting() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.length
}
